"""`cardigan sample MODEL`: pictures to a grid, a folder of PNGs, or an array, by the ending of --out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import flag_value, parse
from cardigan.errors import CardiganError
from cardigan.latents.seeds import parse_seeds

if TYPE_CHECKING:
    import numpy as np


SUFFIXES = {".png", ".npy", ".npz", ""}


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Draw pictures from a trained generator. The same seed gives the same picture, however many are drawn beside it."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    num_samples: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many pictures."""
    seed: int = 0
    """Which pictures: equal seeds give equal ones."""
    seeds: str | None = None
    """One picture for each of these seeds instead, e.g. 0-31,40."""
    label: str | None = None
    """The class to draw, by its name or number, for a generator trained with classes; by default a random one for each picture."""
    truncation: float = 1.0
    """From 1, as trained, down to 0, the average picture: less varied, more typical."""
    out: Path = Path("samples.png")
    """NAME.png is one grid, NAME.npy and NAME.npz an array uint8 [N, H, W, C], anything else a folder of PNGs."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it is there; a folder is never replaced."""


def main(argv: list[str]) -> int:
    """Draw as the words say; return the exit code."""
    options = parse(SampleOptions, argv, "cardigan sample")
    if options.seeds is not None and (
        flag_value("-n", argv) or flag_value("--num-samples", argv) or flag_value("--seed", argv)
    ):
        raise CardiganError("--seeds names every picture, so -n and --seed have no effect beside it: leave them out.")
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    check_output_path(options.out, SUFFIXES, options.overwrite)

    from cardigan import api

    model = api.load(options.model)
    if seeds is None:
        images = model.sample(options.num_samples, options.seed, options.label, options.truncation)
    else:
        images = model.sample_seeds(seeds, options.label, options.truncation)
    _write_images(options.out, images, seeds)
    print(f"{len(images)} pictures in {options.out}")
    return 0


def _write_images(out: Path, images: "np.ndarray", seeds: list[int] | None) -> None:
    import io

    import numpy as np
    import torch

    from cardigan.figures.grid import make_grid, png_bytes
    from cardigan.files import atomic

    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, images, allow_pickle=False)
        atomic.write_bytes(out, buffer.getvalue())
    elif out.suffix == ".npz":
        np.savez_compressed(buffer, images=images)
        atomic.write_bytes(out, buffer.getvalue())
    elif out.suffix == ".png":
        atomic.write_bytes(out, png_bytes(make_grid(tensors)))
    else:
        with atomic.atomic_path(out) as folder:
            folder.mkdir()
            for index, tensor in enumerate(tensors):
                name = f"seed{seeds[index]:06d}.png" if seeds else f"{index:06d}.png"
                (folder / name).write_bytes(png_bytes(tensor))
