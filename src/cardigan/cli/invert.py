"""`cardigan invert MODEL IMAGE...`: find the latents whose images are nearest to given ones."""

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
    """Find the latent that reconstructs an image best. The remaining error shows what the generator cannot generate."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    images: Annotated[list[Path], tyro.conf.Positional]
    """Image files of any size. Each is resized as the training images were."""
    steps: int = 200
    """Optimization steps. More steps improve the result slightly."""
    seed: int = 0
    """Random seed of the starting points."""
    label: str | None = None
    """The class of all images, by name or number. Default: try every class."""
    out: Path = Path("inverted.png")
    """NAME.png is a grid of pairs, given and reconstructed; NAME.npz holds z, labels, errors and reconstructions."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists."""


def main(argv: list[str]) -> int:
    """Invert the images; return the exit code."""
    options = parse(InvertOptions, argv, "cardigan invert")
    if not options.images:
        raise CardiganError("No image was given: name the files to invert after the model.")
    check_output_path(options.out, SUFFIXES, options.overwrite)

    import io

    import numpy as np
    import torch

    from cardigan.data.reader import UnreadableImage
    from cardigan.explore.inversion import invert
    from cardigan.explore.preprocessing import preprocess_image
    from cardigan.explore.views import stack_rows
    from cardigan.figures.grid import png_bytes
    from cardigan.files import atomic
    from cardigan.files.special_files import reject_special_file
    from cardigan.latents.points import encode_latent
    from cardigan.models.sampling import class_index
    from cardigan.models.snapshot import read_snapshot

    snapshot = read_snapshot(options.model)
    label = None if options.label is None else class_index(options.label, snapshot.spec)
    inputs = []
    for path in options.images:
        try:
            reject_special_file(path)
            inputs.append(preprocess_image(path.read_bytes(), snapshot.config.data))
        except (OSError, UnreadableImage) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CardiganError(
                f"{path} cannot be read as an image ({reason}): give PNG, JPEG, WebP and the like."
            ) from error
    results = []
    for path, image in zip(options.images, inputs, strict=True):
        results.append(invert(snapshot, image, label, options.steps, options.seed))
        class_text = "" if results[-1].label is None else f", class {results[-1].label}"
        print(
            f"{path}: RMSE {results[-1].rmse:.1f} gray levels{class_text}\n"
            f"  {encode_latent(results[-1].z, results[-1].label)}"
        )
    if options.out.suffix == ".png":
        pairs = [torch.cat([image, result.pixels]) for image, result in zip(inputs, results, strict=True)]
        atomic.write_bytes(options.out, png_bytes(stack_rows(pairs)))
    else:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            "z": torch.cat([each.z for each in results]).numpy(),
            "errors": np.array([each.rmse for each in results]),
        }
        arrays["images"] = torch.cat([each.pixels for each in results]).permute(0, 2, 3, 1).numpy()
        if snapshot.spec.num_classes:
            arrays["labels"] = np.array([each.label for each in results])
        np.savez_compressed(buffer, **arrays)
        atomic.write_bytes(options.out, buffer.getvalue())
    print(
        f"{len(results)} images in {options.out}; "
        "`cardigan mix --corners` and `cardigan walk --seeds` accept each z:... in place of a seed"
    )
    return 0
