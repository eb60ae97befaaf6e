"""`cardigan export MODEL --format F`: write a generator in other formats, verified against PyTorch, with a card."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cardigan.cli.devices import check_device, check_num_devices
from cardigan.cli.known_names import known_export_formats, one_of
from cardigan.cli.parsing import parse, part_of
from cardigan.cli.signing import find_signing_key
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.exports.export import ExportedFile


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a trained generator with a model card. An export is kept only if its images match those of PyTorch."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    format: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help=f"{one_of(known_export_formats())}. Repeat it to write several formats into one folder."),
    ]
    out: Path | None = None
    """The output file; a folder for several formats; samples: a folder, .zip, .npz or .parquet."""
    weights: Literal["float32", "float16", "int8"] | None = None
    """Data type of the stored weights. Default: float16 for html, float32 for all others."""
    samples: int | None = None
    """For samples: number of images. Default: 1,000."""
    part: str | None = None
    """For samples: make only this part of them, K/N as in 2/8. N jobs together make all of them, each image once."""
    seed: int | None = None
    """For samples: random seed. Default: 0."""
    truncation: float | None = None
    """For samples: 1 samples as trained, 0 gives the average image. Default: 1."""
    label: str | None = None
    """For samples: the class of all images, by name or number. Default: random classes."""
    device: str | None = None
    """For samples: device. Default: auto (a GPU if there is one); else cpu, cuda, cuda:1, mps."""
    devices: int | None = None
    """For samples: number of processes, each with its own GPU or its share of the CPU cores. Default: 1."""
    mark: bool = True
    """For samples: write into PNGs that this model generated them, and from which seed (cardigan verify reads it)."""
    c2pa_cert: Path | None = None
    """PEM file with your certificate chain: signs PNGs of samples, safetensors and onnx files with C2PA manifests.
    Needs --c2pa-key."""
    c2pa_key: Path | None = None
    """PEM file with the private key of --c2pa-cert, without a password."""
    title: str | None = None
    """For html: the page's title. Default: what the network learned from."""
    direction_names: tuple[str, ...] = ()
    """For html: names of the first principal directions, e.g. slant thickness."""
    evaluate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add the metrics of `cardigan evaluate` to the card, before and after rounding the weights."""
    evaluate_samples: int | None = None
    """Number of images to evaluate. Default: 10,000."""
    data_license: str = ""
    """License of the training images, for the card, e.g. cc-by-4.0."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the file --out if it exists. Folders are never replaced."""


SAMPLES_ONLY = ("samples", "part", "seed", "truncation", "label", "device", "devices")


def main(argv: list[str]) -> int:
    """Write the exports; return the exit code."""
    options = parse(ExportOptions, argv, "cardigan export")
    formats = list(dict.fromkeys(options.format))
    if not formats:
        raise CardiganError(f"No format was given: add --format {one_of(known_export_formats())}.")
    sample_flags = [f"--{name}" for name in SAMPLES_ONLY if getattr(options, name) is not None]
    sample_flags += [] if options.mark else ["--no-mark"]
    if sample_flags and "samples" not in formats:
        raise CardiganError(f"{sample_flags[0]} has no effect without --format samples: leave it out.")
    page_options = {"title": options.title, "direction_names": options.direction_names or None}
    page_options = {name: value for name, value in page_options.items() if value is not None}
    if page_options and "html" not in formats:
        flag = next(iter(page_options)).replace("_", "-")
        raise CardiganError(f"--{flag} has no effect without --format html: leave it out.")
    if options.evaluate_samples is not None and not options.evaluate:
        raise CardiganError("--evaluate-samples has no effect without --evaluate: add it, or leave it out.")
    if len(formats) > 1 and options.overwrite:
        raise CardiganError(
            "--overwrite has no effect for several formats, which are written to a new folder: leave it out."
        )
    device, num_devices = options.device or "auto", 1 if options.devices is None else options.devices
    check_device(device)
    check_num_devices(num_devices, device)

    from cardigan.exports.export import export, export_all
    from cardigan.exports.interface import ExportSettings
    from cardigan.exports.quantization_report import DEFAULT_NUM_SAMPLES

    evaluate_samples = (
        None
        if not options.evaluate
        else DEFAULT_NUM_SAMPLES
        if options.evaluate_samples is None
        else options.evaluate_samples
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no partial file stays behind
    numbers = None if options.part is None else part_of(options.samples or ExportSettings().num_samples, options.part)
    sample_options = {
        "num_samples": options.samples if numbers is None else len(numbers),
        "first_sample": None if numbers is None else numbers.start,
        "seed": options.seed,
        "truncation": options.truncation,
        "label": options.label,
        "device": device,
        "num_devices": num_devices,
        "mark": None if options.mark else False,
        "signing": find_signing_key(options.c2pa_cert, options.c2pa_key, options.mark),
    }
    given_options: dict[str, Any] = {name: value for name, value in sample_options.items() if value is not None}
    given_options |= page_options
    if len(formats) == 1:
        keyword_arguments = {
            "evaluate_samples": evaluate_samples,
            "data_license": options.data_license,
            "overwrite": options.overwrite,
            **given_options,
        }
        exported = [export(options.model, formats[0], options.out, weights=options.weights, **keyword_arguments)]
    else:
        exported = export_all(
            options.model,
            formats,
            options.out,
            options.weights,
            ExportSettings(**given_options),
            evaluate_samples,
            options.data_license,
        )
    print("\n".join(line for exported_file in exported for line in _export_lines(exported_file)))
    print(f"card: {exported[0].card}")
    return 0


def _export_lines(exported_file: "ExportedFile") -> list[str]:
    from cardigan.exports.quantization_report import quantization_lines

    size = f"{exported_file.num_bytes / 1e6:,.1f} MB"
    quantization_text = (
        f", quantization changes it by {exported_file.quantization_difference:.1e}"
        if exported_file.weights != "float32"
        else ""
    )
    weights_text = "" if exported_file.format == "samples" else f", {exported_file.weights}"
    lines = [
        f"{exported_file.path}: {size}{weights_text}, largest difference from PyTorch {exported_file.difference:.1e}"
        f"{quantization_text}, sha256 {exported_file.sha256[:16]}"
    ]
    return [*lines, *(["", *quantization_lines(exported_file.quantization), ""] if exported_file.quantization else [])]
