"""Exceptions for user mistakes, and their wording.

The command line prints the message and exits with 2. Python code sees an exception.
"""

import difflib
import re
from collections.abc import Iterable

CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys, that reverse the text, or that cannot be encoded."""


class CardiganError(Exception):
    """A mistake the user can fix. The message says what was given, what was expected and what to do next.

    Examples:
        >>> import cardigan
        >>> cardigan.config_for("mnist", "mnist-corse")
        Traceback (most recent call last):
        ...
        cardigan.errors.CardiganError: Unknown recipe 'mnist-corse': did you mean 'mnist-coarse'?
    """


class CollectiveError(CardiganError):
    """An error that every process of a run raises alike, so that only the first process prints it."""


def first_line(error: BaseException, max_length: int = 120) -> str:
    """Return the first line of an error's message that is not empty, shortened; its type's name if there is none."""
    lines = (line.strip() for line in str(error).splitlines() if line.strip())
    return next(lines, type(error).__name__)[:max_length].rstrip(".")


def error_reason(error: BaseException) -> str:
    """Return the first line of an error's message, for use in another message."""
    message = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return message.splitlines()[0][:200].rstrip(".")


def unknown(kind: str, given: str, known: Iterable[str]) -> CardiganError:
    """Return the error for a name that is not in `known`; it suggests the nearest one."""
    names = list(known)
    suggestions = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {suggestions[0]!r}?" if suggestions else f"expected one of: {', '.join(names)}."
    return CardiganError(f"Unknown {kind} {given!r}: {hint}")


def escape_control_characters(text: str, keep: str = "\n\t") -> str:
    """Return a text that is safe to print: control characters and lone surrogates as backslash escapes."""
    return CONTROL_CHARACTERS.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape", "surrogatepass").decode(),
        text,
    )
