"""Which real pictures a model is judged by: its source's, some trained on and some held out.

Reads sources; computes no number.
"""

from pathlib import Path

from cardigan.config import Config
from cardigan.data.pictures import EMBEDDED, Pictures, open_pictures
from cardigan.data.source import ImageSource, limited
from cardigan.errors import CardiganError
from cardigan.metrics.features import default_extractor
from cardigan.metrics.reference import Reference
from cardigan.run.directory import RunDirectory, changed, remembered
from cardigan.run.hub import is_address


def reference_for(config: Config, model: Path | None = None) -> Reference:
    """Return the real pictures that a model of these settings is judged by: held-out ones, or those it was trained on where none were held out.

    Digits stand as they are stored, other pictures in the frame of the training. `model` is where it lies; if that is in a run, the pictures must be
    those the run was trained on. Raises CardiganError for a source that is no longer there or has changed.
    """
    data = config.data
    if not data.source:
        raise CardiganError(
            "This generator does not say which pictures it was trained on, and it can only be judged beside real ones: "
            "name them with `cardigan evaluate MODEL --against PICTURES`."
        )
    if data.source in EMBEDDED:
        return embedded_reference(data.source, data.limit)
    found = open_pictures(data)
    _check_unchanged(found, model)
    return _reference(data.source, found.training, found.held_out)


def embedded_reference(source: str, limit: int = 0) -> Reference:
    """Return the digits, or stacks of them, as they are stored: those trained on, all of them or `limit`, and the test ones."""
    training = limited(EMBEDDED[source]("train"), limit)
    name = f"{source} ({limit:,} to train on)" if limit else source
    test = EMBEDDED[source]("test")
    return Reference(name, "test", training.pixels, training.labels, test.pixels, test.labels, test.classes)


def _reference(name: str, training: ImageSource, held_out: ImageSource | None) -> Reference:
    apart = held_out or training
    split = "held-out" if held_out else "training"
    known = f"{training.identity} {apart.identity}" if training.identity and apart.identity else ""
    classes = training.classes if bool((training.labels >= 0).all() and (apart.labels >= 0).all()) else 0
    frame = (training.pixels.shape[1], training.pixels.shape[2], training.pixels.shape[3])
    trained_on, judged_by = (source.labels.clamp(min=0) for source in (training, apart))
    return Reference(name, split, training.pixels, trained_on, apart.pixels, judged_by, classes, default_extractor(frame), known)


def _check_unchanged(found: Pictures, model: Path | None) -> None:
    """Raise CardiganError if the pictures are not those the model's run remembers: what was held out then might have been trained on."""
    folders = [] if model is None or is_address(model) else [model, *model.absolute().parents[:2]]
    run = next((RunDirectory(folder) for folder in folders if (folder / "source.json").exists()), None)
    before = {} if run is None else {**remembered(run), "how": found.facts["how"]}
    words = changed(before, found.facts) if before else ""
    if words:
        raise CardiganError(
            f"The pictures in {found.facts['source']} are not those the model was trained on ({words}), so it cannot be judged by them: "
            "bring them back."
        )
