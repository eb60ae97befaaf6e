"""A trained generator in Python: sampling by seed or like a diffusers pipeline, saving, loading, and the hub.

Independent of training and evaluation.
"""

import operator
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import torch
from PIL import Image

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError, unknown
from cardigan.exports.anonymize import anonymized
from cardigan.exports.card import model_card
from cardigan.figures.grid import pillow_image
from cardigan.hardware.device import find_device
from cardigan.inference import preview
from cardigan.latents.sampling import RandomGenerators, sample_from_generator, truncate, validate_latents
from cardigan.models import hub
from cardigan.models.pretrained import verify_weights, write_pretrained
from cardigan.models.sampling import class_index, generate_batches, sample_keys, sample_pixels, validate_labels
from cardigan.models.sampling_devices import SamplingDevices
from cardigan.models.snapshot import Snapshot, read_snapshot, write_snapshot
from cardigan.models.starters import located
from cardigan.pixels import to_unit_range
from cardigan.shapes import Labels, Latents

MAX_SAMPLES = 10_000_000
MAX_SEED = 2**63 - 1
LabelsLike: TypeAlias = int | str | Sequence[int] | Sequence[str] | np.ndarray | torch.Tensor
"""One class for all images or one per image, by number or by name."""
OUTPUT_TYPES = ("pil", "np", "pt")
OutputImages: TypeAlias = list[Image.Image] | np.ndarray | torch.Tensor
COMMIT_MESSAGE = "Share a generator trained with Cardigan"


class ImageOutput(NamedTuple):
    """Output of calling a model, as in diffusers pipelines: `.images`, also available as `[0]`."""

    images: OutputImages


@dataclass(frozen=True, repr=False)
class Model:
    """A trained generator. Create one with `load` or `from_pretrained`."""

    snapshot: Snapshot
    path: Path | None = None
    """Where it was read from. Its card reads training time and metrics from there."""
    sampling: SamplingDevices | None = None
    """Devices of `sample` and `sample_seeds`. Default: the generator's."""

    @property
    def config(self) -> Config:
        return self.snapshot.config

    @property
    def images_seen(self) -> int:
        return self.snapshot.images_seen

    @property
    def device(self) -> torch.device:
        return next(self.snapshot.generator.parameters()).device

    def sample(
        self,
        num_samples: SupportsIndex = 16,
        seed: SupportsIndex = 0,
        labels: LabelsLike | None = None,
        truncation: float = 1.0,
        first: SupportsIndex = 0,
    ) -> np.ndarray:
        """Return images as uint8 [num_samples, height, width, channels].

        Image i depends only on (seed, i, its label, truncation): a larger `num_samples` does not change the first ones.
        The first image returned is number `first` of the seed.
        `labels` is one class for all or one per image, by number or by name. Default: a class-conditional model samples
        classes at random. `truncation` goes from 1 (as trained) to 0 (the average image).
        Raises CardiganError for invalid arguments.
        """
        return self._sample_keys(
            sample_keys(
                _validate_count("num_samples", num_samples),
                validate_integer("seed", seed, MAX_SEED),
                validate_integer("first", first, MAX_SEED),
            ),
            labels,
            truncation,
        )

    def sample_seeds(
        self, seeds: Sequence[SupportsIndex], labels: LabelsLike | None = None, truncation: float = 1.0
    ) -> np.ndarray:
        """Return one image per seed as uint8 [N, height, width, channels]; each equals `sample(1, seed=seed)`."""
        return self._sample_keys([(validate_integer("seed", seed, MAX_SEED), 0) for seed in seeds], labels, truncation)

    def _sample_keys(self, keys: list[tuple[int, int]], labels: LabelsLike | None, truncation: float) -> np.ndarray:
        if not keys:
            raise CardiganError("No seeds were given: expected at least one.")
        sample = partial(sample_pixels, self.snapshot) if self.sampling is None else self.sampling.sample
        pixels = sample(keys, _label_tensor(labels, len(keys), self.snapshot.spec), truncation)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def __call__(
        self,
        batch_size: SupportsIndex = 1,
        generator: RandomGenerators = None,
        *,
        labels: LabelsLike | None = None,
        truncation: float = 1.0,
        latents: torch.Tensor | np.ndarray | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImageOutput | tuple[OutputImages]:
        """Sample images like an unconditional diffusers pipeline.

        Returns an object with `.images`, or a tuple if `return_dict` is False. `output_type` is "pil", a list of Pillow
        images (modes L, RGB or RGBA); "np", float32 [batch, height, width, channels] in [0, 1]; or "pt", a float32
        tensor [batch, channels, height, width] in [0, 1]. Arrays and tensors are on the CPU.
        `generator` is a torch.Generator or a list with one per image. Default: PyTorch's global generator. With equal
        generator states, image i is the same for any `batch_size`. `latents` [batch, size] replace random ones;
        `truncation` is applied to them too. Raises CardiganError for invalid arguments.
        """
        if output_type not in OUTPUT_TYPES:
            raise unknown("output_type", str(output_type), OUTPUT_TYPES)
        batch_size = _validate_count("batch_size", batch_size)
        validated = None if latents is None else validate_latents(latents, batch_size, self.config.latent.size)
        z, classes = self._sample_latents(batch_size if validated is None else len(validated), generator, labels)
        z = truncate(z if validated is None else validated, truncation)
        images = torch.cat(
            [to_unit_range(part).cpu() for part in generate_batches(self.snapshot.generator, z, classes)]
        )
        output = _convert_images(images, output_type)
        return ImageOutput(output) if return_dict else (output,)

    def _sample_latents(
        self, count: int, generator: RandomGenerators, labels: LabelsLike | None
    ) -> tuple[Latents, Labels | None]:
        """Return random latents, and the given classes or random ones."""
        spec, latent = self.snapshot.spec, self.config.latent
        given_labels = _label_tensor(labels, count, spec)
        if given_labels is not None:
            validate_labels(given_labels, count, spec.num_classes)
        z, random_labels = sample_from_generator(generator, count, latent.distribution, latent.size, spec.num_classes)
        return z, random_labels if given_labels is None else given_labels

    def to(self, device: str | torch.device) -> "Model":
        """Move the generator to a device, in place like PyTorch modules and diffusers pipelines, and return the model.

        `device` is cpu, cuda, cuda:1, mps, or auto for the fastest available one. On one device the same seed gives the
        same bytes; across devices images differ only by rounding. Raises CardiganError for a missing device.
        """
        self.snapshot.generator.to(find_device(device))
        return self

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write `config.json`, `model.safetensors` and the model card `README.md` into a folder, and return the folder.

        The folder is created if needed. Raises CardiganError for the folder of a run or of another model and, unless
        `overwrite`, if any of these files exists.
        """
        return self.save_with_files(Path(folder), {}, overwrite)

    def save_with_files(self, folder: Path, files: Mapping[str, bytes], overwrite: bool = False) -> Path:
        """Do the same as `save_pretrained`, with additional files by name."""

        def card(hashes: Mapping[str, str]) -> str:
            # The files at the path may belong to newer weights, so an existing card is reused only if its hashes match.
            return _existing_card(self.path, hashes) or model_card(self.snapshot, self.path, hashes)

        write_pretrained(folder, lambda path: write_snapshot(path, anonymized(self.snapshot)), card, files, overwrite)
        return folder

    def push_to_hub(
        self,
        name: str,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = COMMIT_MESSAGE,
        revision: str | None = None,
    ) -> str:
        """Upload the files of `save_pretrained` to the Hugging Face hub as `user/name`, and return the commit's URL.

        The repository is created if needed; `private` applies only then (default: the account's setting). `token`
        defaults to that of `hf auth login` or $HF_TOKEN. `revision` is the branch, created if needed (default: main).
        Raises CardiganError if the hub rejects the upload. An empty repository or branch may remain then, but never one
        with only some of the files.
        """
        hub.check_repo_id(name)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            return hub.upload_files(
                {path.name: path for path in sorted(folder.iterdir())}, name, commit_message, private, token, revision
            )

    @staticmethod
    def from_pretrained(
        name_or_folder: str | Path,
        revision: str | None = None,
        *,
        sha256: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> "Model":
        """Load a folder written by `save_pretrained`, or `user/name` of the hub; see `cardigan.from_pretrained`."""
        return from_pretrained(
            name_or_folder, revision, sha256=sha256, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )

    def __repr__(self) -> str:
        spec, config = self.snapshot.spec, self.config
        parameters = sum(parameter.numel() for parameter in self.snapshot.generator.parameters())
        classes = f", {spec.num_classes} classes" if spec.num_classes else ""
        image_size = f"{spec.height}x{spec.width}x{spec.channels}"
        origin = "trained by another program" if self.snapshot.foreign else f"{self.images_seen:,} images seen"
        size = f"{parameters:,} parameters, {origin}"
        return f"Model({config.recipe}: {config.generator.network}, {image_size}{classes}, {size}, on {self.device})"

    def _repr_png_(self) -> bytes:
        return preview.model_preview(self.snapshot)

    def _repr_html_(self) -> str:
        return preview.figure_html(preview.model_preview(self.snapshot), repr(self))


@runtime_checkable
class HasPath(Protocol):
    """An object with a model's path, such as a finished run."""

    @property
    def path(self) -> Path: ...


def load(path: str | Path | HasPath, sha256: str | None = None) -> Model:
    """Load a run, checkpoint folder, model folder, generator.safetensors, starter, or `hf:user/name`.

    A run is its directory, or what `cardigan.train` returned.
    `hf:user/name@revision` selects a branch, tag or commit. If `sha256` is given, the weights file must have that hash.
    Nothing is executed or unpickled, and a header that claims more than the file contains allocates no memory.
    Raises CardiganError for anything else.
    """
    location = Path(path if isinstance(path, str | Path) else path.path)
    return Model(read_snapshot(location, sha256), None if hub.is_hub_address(location) else location)


def from_pretrained(
    name_or_folder: str | Path,
    revision: str | None = None,
    *,
    sha256: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Model:
    """Load an existing folder, or else `user/name` of the Hugging Face hub at `revision` (default: the latest commit).

    Downloads only `config.json` and `model.safetensors`, and caches them in the hub's cache (or `cache_dir`), so that a
    second call works offline. `local_files_only` never connects. `token` defaults to that of `hf auth login` or
    $HF_TOKEN. If `sha256` is given, the weights must have that hash.
    Raises CardiganError for a missing model or one that is not a Cardigan model.
    """
    if not hub.is_hub_address(name_or_folder) and Path(name_or_folder).exists():
        if revision is not None:
            raise CardiganError(
                f"revision is {revision!r}, but {name_or_folder} is a local folder, which has none: leave revision out."
            )
        return load(name_or_folder, sha256)
    if not hub.is_hub_address(name_or_folder) and Path(name_or_folder).is_absolute():
        raise CardiganError(f"{name_or_folder} does not exist: give an existing folder, or a hub model as user/name.")
    text = str(name_or_folder).removeprefix(hub.HUB_PREFIX)
    address = hub.parse_hub_address(text if revision is None else f"{text}@{revision}")
    return Model(read_snapshot(verify_weights(hub.download_model(address, token, cache_dir, local_files_only)), sha256))


def _existing_card(path: Path | None, hashes: Mapping[str, str]) -> str | None:
    """Return the card next to a saved model if its hashes match: it may contain metrics that the run recorded."""
    card = None if path is None else located(path) / hub.CARD_FILE
    if card is None or not (card.with_name(hub.WEIGHTS_FILE).exists() and card.exists()):
        return None
    text = card.read_text(errors="replace")
    return text if all(digest in text for digest in hashes.values()) else None


def _validate_count(name: str, count: object) -> int:
    """Return a valid number of images, or raise CardiganError."""
    return validate_integer(name, count, MAX_SAMPLES, 1)


def validate_integer(name: str, value: object, maximum: int, minimum: int = 0) -> int:
    """Return an integer (also of NumPy or torch) within minimum..maximum; raises CardiganError for anything else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise CardiganError(f"{name} is {value!r}: expected an integer, {minimum}..{maximum}.") from error
    if not minimum <= number <= maximum:
        raise CardiganError(f"{name} is {number}: expected {minimum}..{maximum}.")
    return number


def _label_tensor(labels: LabelsLike | None, count: int, spec: ImageSpec) -> torch.Tensor | None:
    """Return the labels as a tensor; a single label is repeated for every image."""
    if labels is None:
        return None
    try:
        array = np.atleast_1d(np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels))
    except ValueError as error:
        raise CardiganError(
            "labels are lists of different lengths: give one class for all images, or one per image."
        ) from error
    if array.ndim != 1:
        raise CardiganError(f"labels have shape {array.shape}: give one class for all images, or one per image.")
    values = torch.tensor([class_index(label, spec) for label in array.tolist()], dtype=torch.long)
    return values.expand(count) if len(values) == 1 else values


def _convert_images(images: torch.Tensor, output_type: str) -> OutputImages:
    """Convert float images [n, c, h, w] in [0, 1] to the output type."""
    if output_type == "pt":
        return images
    rows = images.permute(0, 2, 3, 1).contiguous()
    if output_type == "np":
        return rows.numpy()
    pixels = (rows * 255).round().to(torch.uint8)
    if pixels.shape[3] not in (1, 3, 4):
        raise CardiganError(
            f"Pillow does not support images with {pixels.shape[3]} channels: set output_type to 'np' or 'pt'."
        )
    return [pillow_image(image) for image in pixels.numpy()]
