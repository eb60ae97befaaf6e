"""What a reader of a run gets: the averaged generator, its config, and how many images it has seen.

Reads a run directory, a checkpoint or a lone `generator.safetensors`; knows nothing of how they came to be.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from cardigan.config import Config, from_dict, identity, to_dict
from cardigan.data.source import ImageSpec, image_spec
from cardigan.errors import CardiganError, unknown
from cardigan.foreign.reading import foreign_generator
from cardigan.hardware.precision import ieee_fp32
from cardigan.latents import sample_labels, sample_latents, truncated
from cardigan.nets.interface import Generator
from cardigan.nets.table import build_generator
from cardigan.pixels import encode
from cardigan.run.bounds import check_depth, check_facts
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import RunDirectory
from cardigan.run.hub import WEIGHTS, fetched, is_address, parse_address
from cardigan.run.pretrained import check_sha256, checked_weights
from cardigan.run.rounding import Weights, restored, stored
from cardigan.run.tensors import read_facts, read_tensors, write_tensors
from cardigan.shapes import Images, Labels, Latents, Pixels

FORMAT, ROUNDED = 1, 2
"""Of a file whose weights are fp32, and of one whose weights are stored in fewer bits."""
CHUNK = 64
"""Pictures are computed this many at a time, the last chunk filled up, so that the same z gives the same bits whatever stands beside it."""


@dataclass(frozen=True)
class Snapshot:
    """A generator at one moment. It is in evaluation mode whenever pictures are drawn from it: batch statistics are frozen."""

    generator: Generator
    config: Config
    spec: ImageSpec
    images_seen: int
    foreign: bool = False
    """Whether another program trained it; what its config says beyond its networks is then that program's habit, and `images_seen` is not known."""
    weights: Weights = "float32"
    """What the file that it was read from stored its weights as; here they are fp32."""


def header(config: Config, spec: ImageSpec, images_seen: int) -> dict[str, Any]:
    """Return what a file of weights says of itself: a function of the experiment alone, so equal training gives equal bytes."""
    names = {"class_names": list(spec.class_names)} if spec.class_names else {}
    return {"format": FORMAT, "config": _nested_identity(config), "classes": spec.classes, **names, "images_seen": images_seen}


def _nested_identity(config: Config) -> dict[str, Any]:
    kept = identity(config)
    return {
        name: {key: inner for key, inner in value.items() if f"{name}.{key}" in kept} if isinstance(value, dict) else value
        for name, value in to_dict(config).items()
        if isinstance(value, dict) or name in kept
    }


def write_snapshot(path: Path, snapshot: Snapshot, weights: Weights = "float32", card: str = "") -> None:
    """Write the one file a user takes away, its weights in so many bits, with a model card inside if there is one."""
    facts = header(snapshot.config, snapshot.spec, snapshot.images_seen)
    if snapshot.foreign:
        facts |= {"foreign": True}
    if weights != "float32":
        facts |= {"format": ROUNDED, "weights": weights}
    write_tensors(path, stored(snapshot.generator, weights), facts, card)


def read_snapshot(path: Path, sha256: str | None = None) -> Snapshot:
    """Return the snapshot in a run directory (the latest), a checkpoint, a folder of `save_pretrained`, a file of weights or `hf:user/name`.

    A file of weights may be another program's (`foreign`). With `sha256` it must have it. Raises CardiganError for anything else. Never unpickles;
    allocates no more than the file holds, or four times that where its weights are stored in fewer bits.
    """
    file, prefix = _weights(path)
    if sha256 is not None:
        check_sha256(file, sha256)
    if (foreign := foreign_generator(file)) is not None:
        return _taken_over(*foreign)
    facts = read_facts(file)
    try:
        check_facts(facts)
        if facts["format"] not in (FORMAT, ROUNDED):
            raise CardiganError(f"its format is {facts['format']!r}, not {FORMAT} or {ROUNDED}: use the version that wrote it.")
        config, images_seen = from_dict(facts["config"]), int(facts["images_seen"])
        spec = image_spec(config.data, int(facts["classes"]), _class_names(facts))
        check_depth(config)
        with torch.device("meta"):  # nothing is allocated until the file has proven to hold it
            generator = build_generator(config, spec)
    except CardiganError as error:
        raise CardiganError(f"{file} cannot be read here: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise CardiganError(f"{file} has a damaged header: give another copy of it.") from error
    tensors = read_tensors(file, prefix)
    try:
        tensors = restored(tensors, generator.state_dict())
    except ValueError as error:
        raise CardiganError(f"{file} does not hold the generator that its header describes: give another copy of it.") from error
    generator.load_state_dict(tensors, assign=True)
    foreign, weights = facts.get("foreign") is True, _stored_as(facts)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, images_seen, foreign, weights)


def _taken_over(config: Config, tensors: dict[str, torch.Tensor]) -> Snapshot:
    """Return a generator that another program trained; nobody knows on how many images."""
    spec = image_spec(config.data, 0)
    with torch.device("meta"):
        generator = build_generator(config, spec)
    generator.load_state_dict(tensors, assign=True)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, 0, foreign=True)


def _stored_as(facts: dict[str, Any]) -> Weights:
    return next((kind for kind in get_args(Weights) if facts["format"] == ROUNDED and facts.get("weights") == kind), "float32")


def _class_names(facts: dict[str, Any]) -> tuple[str, ...]:
    names = facts.get("class_names", [])
    if names and (len(names) != facts["classes"] or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"{len(names)} names of {facts['classes']} classes")
    return tuple(names)


def _weights(path: Path) -> tuple[Path, str]:
    """Return the file that holds the generator, and the prefix of its tensors' names there."""
    if is_address(path):
        return checked_weights(fetched(parse_address(path))), ""  # whatever else lies in the cache
    run = RunDirectory(path)
    if not path.is_dir():
        return path, "average." if path.name == "state.safetensors" else ""
    if (path / WEIGHTS).exists() and not (run.journal.exists() and run.generator.exists()):  # what else lies beside a saved model is another one
        return checked_weights(path), ""
    if (path / "state.safetensors").exists():
        return path / "state.safetensors", "average."
    if run.generator.exists():
        return run.generator, ""
    kept = list_checkpoints(run.checkpoints)
    if kept:
        return kept[-1] / "state.safetensors", "average."
    if run.config.exists():
        raise CardiganError(f"{path} has no generator yet: wait for its first checkpoint.")
    raise CardiganError(f"{path} holds no model: give a run directory, a checkpoint, a generator.safetensors or hf:user/name.")


def draw_pixels(generator: Generator, z: Latents, labels: Labels | None, chunk: int = CHUNK) -> Pixels:
    """Return the generator's pictures for z, in fp32 and evaluation mode, on the CPU; the generator's mode is left as it was.

    A smaller `chunk` answers sooner where only a few are drawn; it may round otherwise, by one grey level here and there.
    """
    return torch.cat([encode(images).cpu() for images in drawn_in_chunks(generator, z, labels, chunk)])


@torch.no_grad()
def drawn_in_chunks(generator: Generator, z: Latents, labels: Labels | None, chunk: int = CHUNK) -> Iterator[Images]:
    """Yield the generator's pictures for z, `chunk` at a time, in [-1, 1], on its own device; its mode is left as it was."""
    device = next(generator.parameters()).device
    training = generator.training
    generator.eval()
    try:
        for start in range(0, len(z), chunk):
            part = z[start : start + chunk]
            filled = torch.cat([part, part.new_zeros(chunk - len(part), part.shape[1])]).to(device)
            classes = None if labels is None else torch.cat([labels[start : start + chunk], labels.new_zeros(chunk - len(part))]).to(device)
            with ieee_fp32(device):
                images = generator(filled, classes)[: len(part)]
            yield images
    finally:
        generator.train(training)


def sample_pixels(snapshot: Snapshot, keys: Sequence[tuple[int, int]], labels: Labels | None = None, truncation: float = 1.0) -> Pixels:
    """Return one picture per key (seed, number); each depends on its key, its label and the truncation alone.

    A conditional generator without `labels` draws each picture's class from the same key.
    Raises CardiganError for labels where there are no classes, out of range, or of another count.
    """
    config, classes = snapshot.config, snapshot.spec.classes
    if labels is not None:
        check_labels(labels, len(keys), classes)
    elif classes:
        labels = sample_labels(keys, classes)
    z = truncated(sample_latents(config.latent.distribution, keys, config.latent.size), truncation)
    return draw_pixels(snapshot.generator, z, labels)


def numbered(count: int, seed: int) -> list[tuple[int, int]]:
    """Return the keys of the first `count` pictures of a seed."""
    return [(seed, number) for number in range(count)]


def class_number(label: object, spec: ImageSpec) -> int:
    """Return the number of a class given by name, or by number as an int or as text; a name that looks like a number is a name."""
    if isinstance(label, str) and label in spec.class_names:
        return spec.class_names.index(label)
    try:
        number = operator.index(label) if not isinstance(label, str) else int(label)  # pyright: ignore[reportArgumentType]
        if 0 <= number < max(spec.classes, 1):
            return number
        raise CardiganError(f"label {str(label)[:40]} is out of range: expected 0..{spec.classes - 1}.") if spec.classes else no_classes()
    except (ValueError, TypeError):
        if not spec.class_names:
            known = f"0..{spec.classes - 1}; its classes have no names" if spec.classes else "none, since this generator was trained without classes"
            raise CardiganError(f"label is {label!r}: expected {known}.") from None
        raise unknown("class", str(label), spec.class_names) from None


def no_classes() -> CardiganError:
    return CardiganError("This generator was trained without classes: leave the label out, or train one with --conditional.")


def check_labels(labels: Labels, count: int, classes: int) -> None:
    if not classes:
        raise no_classes()
    if len(labels) != count:
        raise CardiganError(f"{len(labels)} labels for {count} pictures: give one label per picture, or a single one for all.")
    outside = [int(label) for label in labels if not 0 <= label < classes]
    if outside:
        raise CardiganError(f"label {outside[0]} is out of range: expected 0..{classes - 1}.")


def weights_file(path: Path) -> Path:
    """Return the file that `read_snapshot` reads the generator at `path` from; raises CardiganError where there is none."""
    return _weights(path)[0]
