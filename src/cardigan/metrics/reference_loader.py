"""Load the real images to evaluate a model with: the training images and the holdout of its source."""

from pathlib import Path

from cardigan.config import Config
from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.datasets import Datasets, open_datasets
from cardigan.data.source import ImageSource, random_subset
from cardigan.errors import CardiganError
from cardigan.metrics.features import default_extractor
from cardigan.metrics.reference import Reference
from cardigan.models.hub import is_hub_address
from cardigan.run.directory import RunDirectory, source_changes, source_fingerprint


def load_reference(config: Config, model: Path | None = None) -> Reference:
    """Return the real images for evaluating a model with this config.

    These are the holdout, or the training images if there is no holdout.

    Digits keep their stored shape; other images have the shape of training. `model` is the model's path. If it is in a
    run, the images must be those of the run. Raises CardiganError for a source that is missing or has changed.
    """
    data = config.data
    if not data.source:
        raise CardiganError(
            "This generator does not record its training images, and evaluation needs real images: "
            "add them with `cardigan evaluate MODEL --reference IMAGES`."
        )
    if data.source in BUILTIN_DATASETS:
        return builtin_reference(data.source, data.max_images)
    datasets = open_datasets(data)
    _check_source_unchanged(datasets, model)
    return _reference_from_sources(data.source, datasets.train, datasets.holdout)


def builtin_reference(source: str, max_images: int = 0) -> Reference:
    """Return the training images (all, or `max_images`) and the test images of a built-in source, as stored."""
    train = random_subset(BUILTIN_DATASETS[source]("train"), max_images)
    name = f"{source} ({max_images:,} training images)" if max_images else source
    test = BUILTIN_DATASETS[source]("test")
    return Reference(name, "test", train.pixels, train.labels, test.pixels, test.labels, test.num_classes)


def _reference_from_sources(name: str, train: ImageSource, holdout: ImageSource | None) -> Reference:
    eval_source = holdout or train
    split = "holdout" if holdout else "train"
    fingerprint = (
        f"{train.fingerprint} {eval_source.fingerprint}" if train.fingerprint and eval_source.fingerprint else ""
    )
    num_classes = train.num_classes if bool((train.labels >= 0).all() and (eval_source.labels >= 0).all()) else 0
    image_shape = (train.pixels.shape[1], train.pixels.shape[2], train.pixels.shape[3])
    train_labels, eval_labels = (source.labels.clamp(min=0) for source in (train, eval_source))
    return Reference(
        name,
        split,
        train.pixels,
        train_labels,
        eval_source.pixels,
        eval_labels,
        num_classes,
        default_extractor(image_shape),
        fingerprint,
    )


def _check_source_unchanged(datasets: Datasets, model: Path | None) -> None:
    """Raise CardiganError if the images differ from those of the model's run.

    Otherwise the holdout might contain training images.
    """
    folders = [] if model is None or is_hub_address(model) else [model, *model.absolute().parents[:2]]
    run = next((RunDirectory(folder) for folder in folders if (folder / "source.json").exists()), None)
    saved_fingerprint = (
        {} if run is None else {**source_fingerprint(run), "storage": datasets.source_fingerprint["storage"]}
    )
    changes = source_changes(saved_fingerprint, datasets.source_fingerprint) if saved_fingerprint else ""
    if changes:
        raise CardiganError(
            f"The images in {datasets.source_fingerprint['source']} are not those the model was trained on "
            f"({changes}), so it cannot be evaluated with them: restore them."
        )
