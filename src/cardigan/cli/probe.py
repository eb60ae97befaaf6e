"""`cardigan probe RUN DATA`: outliers, linear probe and features of a run's discriminator on given images."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError
from cardigan.files.csv_text import csv_text

if TYPE_CHECKING:
    from cardigan.explore.probe import ProbeResult
    from cardigan.models.run_networks import RunNetworks

NUM_OUTLIERS = 50
ABLATION_SEEDS = list(range(10))


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Inspect images with a run's discriminator: outliers, linear probe, and feature visualizations."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory or one of its checkpoints. A generator.safetensors alone has no discriminator."""
    data: Annotated[str, tyro.conf.Positional]
    """The images: mnist (its test digits), a folder, an archive, an array or a table, as for training."""
    labels: str = ""
    """Where their class labels come from, if any: folders, a column or a file (docs/guides/data.md)."""
    max_images: int = 10_000
    """Maximum number of images, and of training images to compare them with."""
    out: Path = Path("probe")
    """A new folder for outliers.csv, outliers.png, features.png, features-untrained.png and ablation.png."""


def main(argv: list[str]) -> int:
    """Write the probe's files; return the exit code."""
    options = parse(ProbeOptions, argv, "cardigan probe")
    check_output_path(options.out, {""}, overwrite=False)

    from cardigan.explore.probe import probe_discriminator
    from cardigan.files import atomic
    from cardigan.models.run_networks import load_networks

    networks = load_networks(options.run)
    result = probe_discriminator(networks, options.data, options.labels, options.max_images)
    files = {
        "outliers.csv": _outliers_csv(result),
        "outliers.png": _outliers_png(result),
        **_feature_pngs(networks, result),
    }
    with atomic.atomic_path(options.out) as folder:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    print(
        f"{len(result.images.titles):,} images compared with {result.compared_with}; "
        f"strongest outlier: {_top_outlier(result)}"
    )
    if result.linear_probe_error is not None and result.pixel_probe_error is not None:
        print(
            f"linear classifier, fitted to {result.num_labeled:,} of them: error {result.linear_probe_error:.1%} "
            f"on D's features, {result.pixel_probe_error:.1%} on raw pixels"
        )
    print(f"{', '.join(files)} in {options.out}")
    return 0


def _outlier_order(result: "ProbeResult") -> list[int]:
    return result.outlier_factors.argsort(descending=True, stable=True).tolist()


def _top_outlier(result: "ProbeResult") -> str:
    return result.images.titles[_outlier_order(result)[0]]


def _outliers_csv(result: "ProbeResult") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["local_outlier_factor", "image"])
    writer.writerows(
        [f"{float(result.outlier_factors[index]):.4f}", csv_text(result.images.titles[index])]
        for index in _outlier_order(result)
    )
    return text.getvalue().encode(errors="surrogateescape")


def _outliers_png(result: "ProbeResult") -> bytes:
    from cardigan.figures.animation import drop_alpha, upscale
    from cardigan.figures.contact import Section, contact_sheet

    order = _outlier_order(result)
    sections = []
    for title, indices in (("strongest outliers", order[:NUM_OUTLIERS]), ("most typical", order[::-1][:NUM_OUTLIERS])):
        images = upscale(drop_alpha(result.images.pixels[indices]), 64).permute(0, 2, 3, 1).contiguous().numpy()
        sections.append(Section(title, list(images)))
    return contact_sheet(sections, max(sections[0].images[0].shape[:2]))


def _feature_pngs(networks: "RunNetworks", result: "ProbeResult") -> dict[str, bytes]:
    """Return the sheets that this network supports. A conditional D gets each image's label, or class 0 without one."""
    from cardigan.explore.ablation import ablation_rows
    from cardigan.explore.saliency import feature_rows
    from cardigan.explore.views import stack_rows
    from cardigan.figures.grid import png_bytes
    from cardigan.models.run_networks import untrained_networks

    spec, images = networks.snapshot.spec, result.images
    labels = None
    if spec.num_classes:
        own_labels = images.labels if images.labels is not None and images.classes == spec.num_classes else None
        labels = (
            images.pixels.new_zeros(len(images.pixels)).long() if own_labels is None else own_labels.clamp(min=0)
        )[:1000]
    files = {}
    try:
        files["features.png"] = png_bytes(stack_rows(feature_rows(networks, images.pixels[:1000], labels)))
        files["features-untrained.png"] = png_bytes(
            stack_rows(feature_rows(untrained_networks(networks), images.pixels[:1000], labels))
        )
    except CardiganError as error:  # a network without rectifiers has no guided gradients
        print(f"features.png was not written: {error}")
    files["ablation.png"] = png_bytes(stack_rows(ablation_rows(networks.snapshot, ABLATION_SEEDS)))
    return files
