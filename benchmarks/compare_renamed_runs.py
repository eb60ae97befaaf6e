"""Compare the weights of a run from before the renaming of tensors (config.json format 1) with those of a run after it.

    python benchmarks/compare_renamed_runs.py OLD_RUN NEW_RUN

Both runs must have the same recipe, seed and number of images. Maps the old tensor names once and compares every tensor
of the last checkpoints bit by bit: networks, EMA, optimizer state, augmentation. Prints how many are equal. The
exit code is 1 if a name or a bit differs. The commands are in docs/lab-book.md, "The renaming".
"""

import sys
from pathlib import Path

import torch

from cardigan.files.tensors import read_tensors

RENAMED = {
    "average": ("ema_generator",),
    "sign": ("margin_sign",),
    "start": ("from_latent",),
    "doublings": ("up_convs", "upsample_layers"),
    "halvings": ("down_convs", "downsample_layers"),
    "verdict": ("head",),
    "draw": ("to_image",),
    "look": ("from_image",),
    "sizes": ("up_stages",),
    "first": ("conv1",),
    "second": ("conv2",),
    "beside": ("shortcut",),
    "widen": ("expand",),
    "mix": ("grouped",),
    "narrow": ("project",),
    "channels": ("transition",),
}
"""Parts of old tensor names, and what they became; of two, the first in `dcgan`, the second in `r3gan`."""


def main() -> None:
    old_run, new_run = (Path(word) for word in sys.argv[1:3])
    old, new = last_tensors(old_run), last_tensors(new_run)
    mapped = {new_name(name, new): tensor for name, tensor in old.items()}
    differing = sorted(mapped.keys() ^ new.keys())
    differing += [name for name in mapped.keys() & new.keys() if not torch.equal(mapped[name], new[name])]
    print(f"{len(new) - len(differing)} of {len(new)} tensors are equal")
    if differing:
        sys.exit(f"different: {', '.join(differing[:10])}")


def last_tensors(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def new_name(old_name: str, known: dict[str, torch.Tensor]) -> str:
    """Return the new name of a tensor: of the names its parts may have become, the one that is known."""
    names = [""]
    for part in old_name.split("."):
        names = [f"{name}.{new}".lstrip(".") for name in names for new in (*RENAMED.get(part, ()), part)]
    return next((name for name in names if name in known), old_name)


if __name__ == "__main__":
    main()
