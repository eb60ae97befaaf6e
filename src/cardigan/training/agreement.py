"""What the processes of a run must have in common, and how a difference is named.

Does not know how processes exchange it.
"""

from collections.abc import Mapping, Sequence

Facts = Mapping[str, str]
"""What one process has, by name."""


def disagreement(facts: Sequence[Facts], hosts: Sequence[str]) -> str:
    """Return one sentence about the first item in which a process differs from the main one; "" if none does."""
    main = facts[0]
    for rank, other in enumerate(facts):
        differing = [name for name in {**main, **other} if main.get(name) != other.get(name)]
        if differing:
            name = differing[0]
            more = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
            return (
                f"The processes of this run are not alike: {name} is {_shown(other, name)} in process {rank} "
                f"({hosts[rank]}) and {_shown(main, name)} in process 0 ({hosts[0]}){more}. "
                "Make them equal on every node and start again."
            )
    return ""


def _shown(facts: Facts, name: str) -> str:
    return facts.get(name, "missing")
