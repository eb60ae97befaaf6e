"""`cardigan invert MODEL IMAGE...`: the latents whose pictures come nearest to given ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.cli.writing import check_out
from cardigan.errors import CardiganError

ENDINGS = {".png", ".npz"}


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


def main(words: list[str]) -> int:
    """Search as the words say; return the exit code."""
    options = parse(InvertOptions, words, "cardigan invert")
    if not options.images:
        raise CardiganError("No picture was given: name the files to invert after the model.")
    check_out(options.out, ENDINGS, options.overwrite)

    import io

    import numpy as np
    import torch

    from cardigan.data.reader import Unreadable
    from cardigan.explore.frames import in_frame
    from cardigan.explore.inversion import invert
    from cardigan.explore.points import point_text
    from cardigan.explore.views import rows_sheet
    from cardigan.figures.grid import png
    from cardigan.run import atomic
    from cardigan.run.snapshot import class_number, read_snapshot

    snapshot = read_snapshot(options.model)
    label = None if options.label is None else class_number(options.label, snapshot.spec)
    given = []
    for path in options.images:
        try:
            given.append(in_frame(path.read_bytes(), snapshot.config.data))
        except (OSError, Unreadable) as error:
            told = error.strerror if isinstance(error, OSError) else str(error)
            raise CardiganError(f"{path} is no picture that can be read ({told}): give PNG, JPEG, WebP and the like.") from error
    found = []
    for path, picture in zip(options.images, given, strict=True):
        found.append(invert(snapshot, picture, label, options.steps, options.seed))
        of = "" if found[-1].label is None else f", class {found[-1].label}"
        print(f"{path}: {found[-1].error:.1f} grey levels off{of}\n  {point_text(found[-1].z, found[-1].label)}")
    if options.out.suffix == ".png":
        pairs = [torch.cat([picture, each.pixels]) for picture, each in zip(given, found, strict=True)]
        atomic.write_bytes(options.out, png(rows_sheet(pairs)))
    else:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"z": torch.cat([each.z for each in found]).numpy(), "errors": np.array([each.error for each in found])}
        arrays["images"] = torch.cat([each.pixels for each in found]).permute(0, 2, 3, 1).numpy()
        if snapshot.spec.classes:
            arrays["labels"] = np.array([each.label for each in found])
        np.savez_compressed(buffer, **arrays)
        atomic.write_bytes(options.out, buffer.getvalue())
    print(f"{len(found)} pictures in {options.out}; `cardigan mix --corners` and `cardigan walk --seeds` take each z:... as they take a seed")
    return 0
