"""Images from a snapshot: by seed, by latent, by class.

Knows no file."""

import operator
from collections.abc import Iterator, Sequence

import torch

from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError, unknown
from cardigan.hardware.precision import ieee_fp32
from cardigan.latents.sampling import sample_labels, sample_latents, truncate
from cardigan.models.snapshot import Snapshot
from cardigan.nets.interface import Generator
from cardigan.pixels import encode
from cardigan.shapes import Images, Labels, Latents, Pixels

SAMPLE_BATCH_SIZE = 64
"""Pictures are computed this many at a time, the last chunk filled up, so that the same z gives the same bits whatever stands beside it."""


def generate_pixels(
    generator: Generator, z: Latents, labels: Labels | None, batch_size: int = SAMPLE_BATCH_SIZE
) -> Pixels:
    """Return the generator's pictures for z, in fp32 and evaluation mode, on the CPU; the generator's mode is left as it was.

    A smaller `batch_size` answers sooner where only a few are drawn; it may round otherwise, by one grey level here and there.
    """
    return torch.cat([encode(images).cpu() for images in generate_batches(generator, z, labels, batch_size)])


@torch.no_grad()
def generate_batches(
    generator: Generator, z: Latents, labels: Labels | None, batch_size: int = SAMPLE_BATCH_SIZE
) -> Iterator[Images]:
    """Yield the generator's pictures for z, `batch_size` at a time, in [-1, 1], on its own device; its mode is left as it was."""
    device = next(generator.parameters()).device
    training = generator.training
    generator.eval()
    try:
        for start in range(0, len(z), batch_size):
            latents = z[start : start + batch_size]
            padded = torch.cat([latents, latents.new_zeros(batch_size - len(latents), latents.shape[1])]).to(device)
            padded_labels = (
                None
                if labels is None
                else torch.cat([labels[start : start + batch_size], labels.new_zeros(batch_size - len(latents))]).to(
                    device
                )
            )
            with ieee_fp32(device):
                images = generator(padded, padded_labels)[: len(latents)]
            yield images
    finally:
        generator.train(training)


def sample_pixels(
    snapshot: Snapshot, keys: Sequence[tuple[int, int]], labels: Labels | None = None, truncation: float = 1.0
) -> Pixels:
    """Return one picture per key (seed, number); each depends on its key, its label and the truncation alone.

    A conditional generator without `labels` draws each picture's class from the same key.
    Raises CardiganError for labels where there are no classes, out of range, or of another count.
    """
    config, num_classes = snapshot.config, snapshot.spec.num_classes
    if labels is not None:
        validate_labels(labels, len(keys), num_classes)
    elif num_classes:
        labels = sample_labels(keys, num_classes)
    z = truncate(sample_latents(config.latent.distribution, keys, config.latent.size), truncation)
    return generate_pixels(snapshot.generator, z, labels)


def sample_keys(count: int, seed: int) -> list[tuple[int, int]]:
    """Return the keys of the first `count` pictures of a seed."""
    return [(seed, index) for index in range(count)]


def class_index(label: object, spec: ImageSpec) -> int:
    """Return the number of a class given by name, or by number as an int or as text; a name that looks like a number is a name."""
    if isinstance(label, str) and label in spec.class_names:
        return spec.class_names.index(label)
    try:
        index = operator.index(label) if not isinstance(label, str) else int(label)  # pyright: ignore[reportArgumentType]
        if 0 <= index < max(spec.num_classes, 1):
            return index
        raise (
            CardiganError(f"label {str(label)[:40]} is out of range: expected 0..{spec.num_classes - 1}.")
            if spec.num_classes
            else no_classes_error()
        )
    except (ValueError, TypeError):
        if not spec.class_names:
            known = (
                f"0..{spec.num_classes - 1}; its classes have no names"
                if spec.num_classes
                else "none, since this generator was trained without classes"
            )
            raise CardiganError(f"label is {label!r}: expected {known}.") from None
        raise unknown("class", str(label), spec.class_names) from None


def no_classes_error() -> CardiganError:
    return CardiganError(
        "This generator was trained without classes: leave the label out, or train one with --conditional."
    )


def validate_labels(labels: Labels, count: int, num_classes: int) -> None:
    if not num_classes:
        raise no_classes_error()
    if len(labels) != count:
        raise CardiganError(
            f"{len(labels)} labels for {count} pictures: give one label per picture, or a single one for all."
        )
    invalid = [int(label) for label in labels if not 0 <= label < num_classes]
    if invalid:
        raise CardiganError(f"label {invalid[0]} is out of range: expected 0..{num_classes - 1}.")
