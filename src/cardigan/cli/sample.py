"""`cardigan sample MODEL`: write images as a grid, a folder of PNGs, or an array, by the extension of --out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.devices import check_device, check_num_devices
from cardigan.cli.output_path import check_model, check_output_path, free_path, open_path
from cardigan.cli.parsing import flag_value, parse, part_of
from cardigan.cli.signing import find_signing_key
from cardigan.errors import CardiganError
from cardigan.latents.seeds import parse_seeds

if TYPE_CHECKING:
    import numpy as np

    from cardigan.figures.c2pa_manifest import SigningKey
    from cardigan.figures.marking import Mark
    from cardigan.inference.model import Model


ARRAY_SUFFIXES = {".npy", ".npz"}
SUFFIXES = {".png", ".jpg", ".jpeg", *ARRAY_SUFFIXES, ""}
DEFAULT_OUT = Path("samples.png")


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Generate images with a trained generator. The same seed gives the same image, whatever the number of images."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    num_samples: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Number of images."""
    seed: int = 0
    """Random seed. Equal seeds give equal images."""
    part: str | None = None
    """Make only this part of the images, K/N as in 2/8: N jobs together make all of them, each image once."""
    seeds: str | None = None
    """One image for each of these seeds instead, e.g. 0-31,40."""
    label: str | None = None
    """For a class-conditional generator: the class of all images, by name or number. Default: random classes."""
    truncation: float = 1.0
    """1 samples as trained, 0 gives the average image; between, images are less varied and more typical."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps."""
    devices: int = 1
    """Number of processes, each with its own GPU or its share of the CPU cores. The images are the same."""
    out: Path | None = None
    """NAME.png or NAME.jpg writes one grid, NAME.npy or NAME.npz an array uint8 [N, H, W, C], any other name a folder
    of PNGs. Default: samples.png, or samples-2.png and so on if it exists."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists. Folders are never replaced."""
    mark: bool = True
    """Write into images that this model generated them, and from which seed (cardigan verify reads it)."""
    c2pa_cert: Path | None = None
    """PEM file with your certificate chain: signs the images with C2PA manifests. Needs --c2pa-key."""
    c2pa_key: Path | None = None
    """PEM file with the private key of --c2pa-cert, without a password."""
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show what was written in the system's viewer."""


def main(argv: list[str]) -> int:
    """Generate images and write them; return the exit code."""
    options = parse(SampleOptions, argv, "cardigan sample")
    if options.seeds is not None and (
        flag_value("-n", argv)
        or flag_value("--num-samples", argv)
        or flag_value("--num_samples", argv)
        or flag_value("--seed", argv)
        or flag_value("--part", argv)
    ):
        raise CardiganError(
            "--seeds sets the seed of every image, so -n, --seed and --part have no effect: leave them out."
        )
    numbers = part_of(options.num_samples, options.part)
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    check_model(options.model)
    out = free_path(DEFAULT_OUT) if options.out is None else options.out
    check_output_path(out, SUFFIXES, options.overwrite)
    check_device(options.device)
    check_num_devices(options.devices, options.device)
    signing = find_signing_key(options.c2pa_cert, options.c2pa_key, options.mark)
    if signing is not None and out.suffix in ARRAY_SUFFIXES:
        raise CardiganError(f"--c2pa-cert has no effect for {out.name}, an array of pixels: leave it out.")

    from cardigan import api
    from cardigan.models.sampling_devices import open_sampling

    model = api.load(options.model)
    with open_sampling(model.snapshot, options.device, options.devices) as sampling:
        model = replace(model, sampling=sampling)
        if seeds is None:
            images = model.sample(len(numbers), options.seed, options.label, options.truncation, numbers.start)
        else:
            images = model.sample_seeds(seeds, options.label, options.truncation)
    marks = _marks(model, options, seeds, numbers) if options.mark else None
    _write_images(out, images, seeds, numbers.start, marks, signing)
    print(f"{len(images)} images in {out}")
    if options.open:
        open_path(out)
    return 0


def _marks(model: "Model", options: SampleOptions, seeds: list[int] | None, numbers: range) -> "list[Mark]":
    """Return the mark of each image, and at the end that of all."""
    from cardigan.exports.card import weights_hash
    from cardigan.figures.marking import Mark

    sha256 = weights_hash(model.snapshot.generator)
    more = f", truncation {options.truncation:g}" if options.truncation != 1 else ""
    more += f", label {options.label}" if options.label is not None else ""
    if seeds is None:
        texts = [f"seed {options.seed}, image {number}{more}" for number in numbers]
        texts.append(f"seed {options.seed}, images {numbers.start} to {numbers.stop - 1}{more}")
    else:
        texts = [f"seed {seed}, image 0{more}" for seed in seeds]
        texts.append(f"seeds {options.seeds}{more}")
    return [Mark(sha256, text) for text in texts]


def _write_images(
    out: Path,
    images: "np.ndarray",
    seeds: list[int] | None,
    first: int,
    marks: "list[Mark] | None",
    signing: "SigningKey | None",
) -> None:
    import io

    import numpy as np
    import torch

    from cardigan.figures.c2pa_manifest import with_manifest
    from cardigan.figures.grid import array_png_bytes, jpeg_bytes, make_grid, png_bytes
    from cardigan.files import atomic

    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, images, allow_pickle=False)
        atomic.write_bytes(out, buffer.getvalue())
    elif out.suffix == ".npz":
        np.savez_compressed(buffer, images=images)
        atomic.write_bytes(out, buffer.getvalue())
    elif out.suffix:
        grid = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2))
        mark = None if marks is None else marks[-1]
        content = png_bytes(grid, mark=mark) if out.suffix == ".png" else jpeg_bytes(grid, mark)
        media_type = "image/png" if out.suffix == ".png" else "image/jpeg"
        atomic.write_bytes(out, with_manifest(content, media_type, mark, signing))
    else:
        with atomic.atomic_path(out) as folder:
            folder.mkdir()
            for index, image in enumerate(images):
                name = f"seed{seeds[index]:06d}.png" if seeds else f"{first + index:06d}.png"
                mark = None if marks is None else marks[index]
                content = with_manifest(array_png_bytes(image, mark=mark), "image/png", mark, signing)
                (folder / name).write_bytes(content)
