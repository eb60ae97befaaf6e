"""`cardigan invert MODEL IMAGE...`: the latents whose pictures come nearest to given ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

SUFFIXES = {".png", ".npz"}


@dataclass(frozen=True, kw_only=True)
class InvertOptions:
    """Find the latent that draws a picture best: what the generator makes of it, and what it cannot draw."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    images: Annotated[list[Path], tyro.conf.Positional]
    """Picture files, of any size; each is brought into the run's frame as training pictures were."""
    steps: int = 200
    """Steps of the search; more find a little more."""
    seed: int = 0
    """Of the random starts."""
    label: str | None = None
    """The class of all pictures, by its name or number; by default every class is tried."""
    out: Path = Path("inverted.png")
    """NAME.png is a grid of pairs, given and found; NAME.npz holds z, labels, errors and the pictures found."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it is there."""


def main(argv: list[str]) -> int:
    """Search as the words say; return the exit code."""
    options = parse(InvertOptions, argv, "cardigan invert")
    if not options.images:
        raise CardiganError("No picture was given: name the files to invert after the model.")
    check_output_path(options.out, SUFFIXES, options.overwrite)

    import io

    import numpy as np
    import torch

    from cardigan.data.reader import UnreadableImage
    from cardigan.explore.frames import preprocess_image
    from cardigan.explore.inversion import invert
    from cardigan.explore.views import stack_rows
    from cardigan.figures.grid import png_bytes
    from cardigan.files import atomic
    from cardigan.latents.points import encode_latent
    from cardigan.models.sampling import class_index
    from cardigan.models.snapshot import read_snapshot

    snapshot = read_snapshot(options.model)
    label = None if options.label is None else class_index(options.label, snapshot.spec)
    inputs = []
    for path in options.images:
        try:
            inputs.append(preprocess_image(path.read_bytes(), snapshot.config.data))
        except (OSError, UnreadableImage) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CardiganError(
                f"{path} is no picture that can be read ({reason}): give PNG, JPEG, WebP and the like."
            ) from error
    results = []
    for path, image in zip(options.images, inputs, strict=True):
        results.append(invert(snapshot, image, label, options.steps, options.seed))
        class_text = "" if results[-1].label is None else f", class {results[-1].label}"
        print(
            f"{path}: {results[-1].error:.1f} grey levels off{class_text}\n  {encode_latent(results[-1].z, results[-1].label)}"
        )
    if options.out.suffix == ".png":
        pairs = [torch.cat([picture, result.pixels]) for picture, result in zip(inputs, results, strict=True)]
        atomic.write_bytes(options.out, png_bytes(stack_rows(pairs)))
    else:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            "z": torch.cat([each.z for each in results]).numpy(),
            "errors": np.array([each.error for each in results]),
        }
        arrays["images"] = torch.cat([each.pixels for each in results]).permute(0, 2, 3, 1).numpy()
        if snapshot.spec.num_classes:
            arrays["labels"] = np.array([each.label for each in results])
        np.savez_compressed(buffer, **arrays)
        atomic.write_bytes(options.out, buffer.getvalue())
    print(
        f"{len(results)} pictures in {options.out}; `cardigan mix --corners` and `cardigan walk --seeds` take each z:... as they take a seed"
    )
    return 0
