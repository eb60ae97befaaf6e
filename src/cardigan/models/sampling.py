"""Sample images from a snapshot by seed, latent and class."""

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
from cardigan.shapes import ClassWeights, Images, Labels, Latents, Pixels

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 16, 64


def sample_batch_size(device: torch.device) -> int:
    """Return the fixed batch size of a device. The last batch is padded, so a z gives the same bits in any request.

    Batches as small as the request would not: of `r3gan` and `sngan`, batches of 1 to 8 have other bits than larger
    ones. On a CPU, 16 are as fast per image as 64, so a single image is not as slow as 64 (lab book).
    """
    return CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE


def generate_pixels(
    generator: Generator, z: Latents, labels: Labels | ClassWeights | None, batch_size: int | None = None
) -> Pixels:
    """Return the generator's images for z on the CPU, computed in fp32 and evaluation mode.

    Class weights mix classes (`Generator.accepts_class_weights`). The generator's mode is restored. Another
    `batch_size` than the device's `sample_batch_size` may change single values by one gray level through rounding.
    """
    return torch.cat([encode(images).cpu() for images in generate_batches(generator, z, labels, batch_size)])


@torch.no_grad()
def generate_batches(
    generator: Generator, z: Latents, labels: Labels | ClassWeights | None, batch_size: int | None = None
) -> Iterator[Images]:
    """Yield the generator's images for z in [-1, 1] on its device, `batch_size` at a time. Restores its mode."""
    device = next(generator.parameters()).device
    batch_size = sample_batch_size(device) if batch_size is None else batch_size
    training = generator.training
    if labels is not None and labels.is_floating_point() and not generator.accepts_class_weights:
        labels = labels.argmax(dim=1)
    generator.eval()
    try:
        for start in range(0, len(z), batch_size):
            latents = z[start : start + batch_size]
            padded = torch.cat([latents, latents.new_zeros(batch_size - len(latents), latents.shape[1])]).to(device)
            padded_labels = (
                None
                if labels is None
                else torch.cat(
                    [
                        labels[start : start + batch_size],
                        labels.new_zeros(batch_size - len(latents), *labels.shape[1:]),
                    ]
                ).to(device)
            )
            with ieee_fp32(device):
                images = generator(padded, padded_labels)[: len(latents)]
            yield images
    finally:
        generator.train(training)


def sample_pixels(
    snapshot: Snapshot, keys: Sequence[tuple[int, int]], labels: Labels | None = None, truncation: float = 1.0
) -> Pixels:
    """Return one image per key (seed, index). It depends only on the key, the label and the truncation.

    Without `labels`, a conditional generator samples each class from the same key. Raises CardiganError for labels of
    an unconditional generator, labels out of range, or a wrong count.
    """
    config = snapshot.config
    if labels is None:
        labels = random_labels(snapshot.spec, keys)
    else:
        validate_labels(labels, len(keys), snapshot.spec.num_classes)
    z = truncate(sample_latents(config.latent.distribution, keys, config.latent.size), truncation)
    return generate_pixels(snapshot.generator, z, labels)


def sample_keys(count: int, seed: int, first: int = 0) -> list[tuple[int, int]]:
    """Return the keys of `count` images of a seed, from image number `first` on."""
    return [(seed, index) for index in range(first, first + count)]


def random_labels(spec: ImageSpec, keys: Sequence[tuple[int, int]]) -> Labels | None:
    """Return the class of each key (seed, index) that samples of no given class get; None without classes."""
    return sample_labels(keys, spec.num_classes, spec.class_counts) if spec.num_classes else None


def class_index(label: object, spec: ImageSpec) -> int:
    """Return the index of a class given by name or index (int or text). Names take precedence."""
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
                else "none, because this generator is unconditional"
            )
            raise CardiganError(f"label is {label!r}: expected {known}.") from None
        raise unknown("class", str(label), spec.class_names) from None


def no_classes_error() -> CardiganError:
    return CardiganError("This generator is unconditional: omit the label, or train one with --conditional.")


def validate_labels(labels: Labels, count: int, num_classes: int) -> None:
    if not num_classes:
        raise no_classes_error()
    if len(labels) != count:
        raise CardiganError(
            f"{len(labels)} labels for {count} images: give one label per image, or a single one for all."
        )
    invalid = [int(label) for label in labels if not 0 <= label < num_classes]
    if invalid:
        raise CardiganError(f"label {invalid[0]} is out of range: expected 0..{num_classes - 1}.")
