"""What the quick score of a run measures. Scores of different kinds cannot be compared."""

from pathlib import PurePath

from cardigan.config import STACKED_MNIST, Config


def score_kind(config: Config) -> str:
    """Return what the score is the distance to, in a few words."""
    source = config.data.source
    if source == "mnist":
        return "test digits"
    if source == STACKED_MNIST:
        return "uniform modes"
    name = source if source.startswith("hf:") else PurePath(source).name
    return f"{name or 'unknown images'}, {config.data.height}x{config.data.width}"
