"""What a file may claim of itself: bounds on its header, so that a few hostile bytes cannot fill the memory or take minutes.

Every bound is far beyond an honest model. Knows files and settings; builds no network.
"""

from collections.abc import Iterator
from typing import Any

from cardigan.config import Config
from cardigan.nets.stages import stages

MAX_TEXT_LENGTH = 4096
"""Letters of one setting; a path has no more."""
MAX_NUMBER = 2**63
MAX_BLOCKS = 1_000
"""Residual blocks or hidden layers of one generator: building so many takes about three seconds, before any weight is looked at."""


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raise ValueError for settings that are too long to be any; how long names of classes and a card may be, the header's bound says."""
    for value in _header_values(
        {name: value for name, value in metadata.items() if name not in {"class_names", "card"}}
    ):
        if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
            raise ValueError(f"{len(value)} letters")
        if isinstance(value, int) and not -MAX_NUMBER < value < MAX_NUMBER:
            raise ValueError("a number beyond 64 bits")


def _header_values(value: Any) -> Iterator[Any]:
    """Yield names and values of the sections of a header, which are two deep; whatever lies deeper is no setting."""
    for name, inner in value.items():
        yield name
        for key, leaf in inner.items() if isinstance(inner, dict) else [("", inner)]:
            yield key
            yield from leaf.values() if isinstance(leaf, dict) else [leaf]


def check_num_blocks(config: Config) -> None:
    """Raise ValueError for a generator of more layers than any is made of."""
    num_resolutions = 1 if config.generator.network == "mlp" else len(stages(config.data.height, config.data.width)) + 1
    if (config.generator.depth or 0) * num_resolutions > MAX_BLOCKS:
        raise ValueError(f"a generator of {config.generator.depth} blocks at {num_resolutions} sizes")
