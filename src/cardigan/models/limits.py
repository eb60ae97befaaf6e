"""Limits on file headers, so that a small malicious file cannot use much memory or time.

Every limit is far above any real model.
"""

from collections.abc import Iterator
from typing import Any

from cardigan.config import Config
from cardigan.nets.stages import stages

MAX_TEXT_LENGTH = 4096
"""Maximum characters of one setting. Paths are at most this long."""
MAX_NUMBER = 2**63
MAX_BLOCKS = 1_000
"""Maximum residual blocks or hidden layers of a generator. Building this many takes about three seconds."""


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raise ValueError for settings that are too long or too large.

    The size limit of the header covers class names and the card.
    """
    for value in _header_values(
        {name: value for name, value in metadata.items() if name not in {"class_names", "card"}}
    ):
        if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
            raise ValueError(f"{len(value)} characters")
        if isinstance(value, int) and not -MAX_NUMBER < value < MAX_NUMBER:
            raise ValueError("a number beyond 64 bits")


def _header_values(value: dict[str, Any], depth: int = 4) -> Iterator[Any]:
    """Yield the names and values of a header, four levels deep: penalties are the deepest settings."""
    for name, inner in value.items():
        yield name
        if not isinstance(inner, dict):
            yield inner
        elif depth > 1:
            yield from _header_values(inner, depth - 1)


def check_num_blocks(config: Config) -> None:
    """Raise ValueError for a generator with more than `MAX_BLOCKS` blocks."""
    num_resolutions = 1 if config.generator.network == "mlp" else len(stages(config.data.height, config.data.width)) + 1
    if (config.generator.depth or 0) * num_resolutions > MAX_BLOCKS:
        raise ValueError(f"a generator of {config.generator.depth} blocks at {num_resolutions} sizes")
