"""What a user's mistake looks like, and how it is worded.

Knows nothing of where it is caught: the command line prints the sentence and exits 2, Python sees an exception.
"""

import difflib
from collections.abc import Iterable


class CardiganError(Exception):
    """A mistake the user can mend: says what was given, what was expected and what to do next."""


class CollectiveError(CardiganError):
    """One that every process of a run meets alike, so that it is enough if the first of them tells it."""


def unknown(kind: str, given: str, known: Iterable[str]) -> CardiganError:
    """Return the error for a name that is not among `known`, offering the nearest one."""
    names = list(known)
    suggestions = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {suggestions[0]!r}?" if suggestions else f"known are: {', '.join(names)}."
    return CardiganError(f"Unknown {kind} {given!r}: {hint}")
