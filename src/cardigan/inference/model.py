"""A trained generator in Python: sampling by seed or like a diffusers pipeline, saving, loading, and the hub.

Independent of training and evaluation.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import torch
from PIL import Image

from cardigan.config import Config
from cardigan.errors import CardiganError, unknown
from cardigan.exports.anonymize import anonymized
from cardigan.exports.card import model_card
from cardigan.exports.space import write_space
from cardigan.figures.grid import pillow_image
from cardigan.hardware.device import find_device
from cardigan.inference import preview
from cardigan.inference.arguments import LabelsLike, label_tensor, validate_count, validate_integer
from cardigan.latents.sampling import RandomGenerators, sample_from_generator, truncate, validate_latents
from cardigan.models import hub
from cardigan.models.pretrained import verify_weights, write_pretrained
from cardigan.models.sampling import class_index, generate_batches, sample_keys, sample_pixels, validate_labels
from cardigan.models.sampling_devices import SamplingDevices
from cardigan.models.snapshot import Snapshot, read_snapshot, write_snapshot
from cardigan.models.starters import located
from cardigan.pixels import to_unit_range
from cardigan.shapes import Labels, Latents

MAX_SEED = 2**63 - 1
MAX_EXPLORED_SEED, NUM_CORNERS = 2**53 - 1, 4
"""A browser stores larger integers with rounding."""
OUTPUT_TYPES = ("pil", "np", "pt")
OutputImages: TypeAlias = list[Image.Image] | np.ndarray | torch.Tensor
COMMIT_MESSAGE = "Share a generator trained with Cardigan"
SPACE_MESSAGE = "Show a generator trained with Cardigan"


class ImageOutput(NamedTuple):
    """Output of calling a model, as in diffusers pipelines: `.images`, also available as `[0]`."""

    images: OutputImages


@dataclass(frozen=True, repr=False)
class Model:
    """A trained generator. Create one with `load` or `from_pretrained`.

    Examples:
        >>> import cardigan
        >>> model = cardigan.load("runs/first")
        >>> model.sample(4, seed=1, labels=7).shape
        (4, 16, 16, 1)
        >>> model(batch_size=2, output_type="pt").images.shape
        torch.Size([2, 1, 16, 16])
        >>> sorted(path.name for path in model.save_pretrained("digits").iterdir())
        ['README.md', 'config.json', 'model.safetensors']
    """

    snapshot: Snapshot
    """The generator with its settings and the shape of its images."""
    path: Path | None = None
    """Where it was read from. Its card reads training time and metrics from there."""
    sampling: SamplingDevices | None = None
    """Devices of `sample` and `sample_seeds`. Default: the generator's."""

    @property
    def config(self) -> Config:
        """All settings of the training."""
        return self.snapshot.config

    @property
    def images_seen(self) -> int:
        """Training images that the generator had seen; 0 for one that another program trained."""
        return self.snapshot.images_seen

    @property
    def device(self) -> torch.device:
        """The device of the generator's weights."""
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
        The first image returned is number `first` of `seed`.
        `labels` is one class for all or one per image, by number or by name. Default: a class-conditional model samples
        classes at random. `truncation` goes from 1 (as trained) to 0 (the average image).
        Raises CardiganError for invalid arguments.
        """
        return self._sample_keys(
            sample_keys(
                validate_count("num_samples", num_samples),
                validate_integer("seed", seed, MAX_SEED),
                validate_integer("first", first, MAX_SEED),
            ),
            labels,
            truncation,
        )

    def sample_seeds(
        self, seeds: Sequence[SupportsIndex], labels: LabelsLike | None = None, truncation: float = 1.0
    ) -> np.ndarray:
        """Return one image per seed as uint8 [N, height, width, channels]; each equals `sample(1, seed=seed)`.

        `seeds` are N integers; `labels` and `truncation` are those of `sample`. Raises CardiganError for invalid ones.
        """
        return self._sample_keys([(validate_integer("seed", seed, MAX_SEED), 0) for seed in seeds], labels, truncation)

    def _sample_keys(self, keys: list[tuple[int, int]], labels: LabelsLike | None, truncation: float) -> np.ndarray:
        if not keys:
            raise CardiganError("No seeds were given: expected at least one.")
        sample = partial(sample_pixels, self.snapshot) if self.sampling is None else self.sampling.sample
        pixels = sample(keys, label_tensor(labels, len(keys), self.snapshot.spec), truncation)
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

        Returns an object with `.images`, `batch_size` of them, or a tuple if `return_dict` is False. `output_type` is
        "pil", a list of Pillow images (modes L, RGB or RGBA); "np", float32 [batch, height, width, channels] in [0, 1];
        or "pt", a float32 tensor [batch, channels, height, width] in [0, 1]. Arrays and tensors are on the CPU.
        `generator` is a torch.Generator or a list with one per image. Default: PyTorch's global generator. With equal
        generator states, image i is the same for any `batch_size`. `labels` and `truncation` are those of `sample`.
        `latents` [batch, size] replace random ones; `truncation` is applied to them too. Raises CardiganError for
        invalid arguments.
        """
        if output_type not in OUTPUT_TYPES:
            raise unknown("output_type", str(output_type), OUTPUT_TYPES)
        batch_size = validate_count("batch_size", batch_size)
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
        given_labels = label_tensor(labels, count, spec)
        if given_labels is not None:
            validate_labels(given_labels, count, spec.num_classes)
        z, random_labels = sample_from_generator(
            generator, count, latent.distribution, latent.size, spec.num_classes, spec.class_counts
        )
        return z, random_labels if given_labels is None else given_labels

    def explore(
        self,
        seeds: Sequence[SupportsIndex] = (0, 1, 2, 3),
        labels: int | str | None = None,
        truncation: float = 1.0,
    ) -> Any:
        """Return a notebook widget that explores the latent space: a pad between four seeds, and sliders.

        `seeds` are the corners: top left, top right, bottom left, bottom right. `labels` is one class for all images;
        by default each seed has its own. `truncation` is that of `sample`.
        The chosen point is `widget.z`, with `widget.labels` and `widget.image`; `model(latents=widget.z)` generates it
        again. Setting `widget.x`, `widget.corners` and so on moves the widget.
        Needs anywidget: pip install 'cardigan[notebook]'. Raises CardiganError without it, and for invalid arguments.
        """
        corners = [validate_integer("seed", seed, MAX_EXPLORED_SEED) for seed in seeds]
        if len(corners) != NUM_CORNERS:
            raise CardiganError(f"{len(corners)} seeds were given: the pad has {NUM_CORNERS} corners, one seed each.")
        truncate(torch.zeros(1, 1), truncation)
        label = "" if labels is None else str(class_index(labels, self.snapshot.spec))
        try:
            from cardigan.notebook.latent_explorer import LatentExplorer
        except ImportError as error:
            raise CardiganError("The explorer needs anywidget: pip install 'cardigan[notebook]'.") from error
        return LatentExplorer(self.snapshot, corners, label, float(truncation))

    def to(self, device: str | torch.device) -> "Model":
        """Move the generator to a device, in place like PyTorch modules and diffusers pipelines, and return the model.

        `device` is cpu, cuda, cuda:1, mps, or auto for the fastest available one. On one device the same seed gives the
        same bytes; across devices images differ only by rounding. Raises CardiganError for a missing device.
        """
        self.snapshot.generator.to(find_device(device))
        return self

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write `config.json`, `model.safetensors` and the model card `README.md` into `folder`, and return it.

        The folder is created if needed. Raises CardiganError for the folder of a run or of another model and, unless
        `overwrite`, if any of these files exists.
        """
        return self.save_with_files(Path(folder), {}, overwrite)

    def save_with_files(self, folder: Path, files: Mapping[str, bytes], overwrite: bool = False) -> Path:
        """Do the same as `save_pretrained`, with additional `files`: contents by name.

        `folder` and `overwrite` are those of `save_pretrained`.
        """

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

        `name` is that address, `commit_message` the commit's first line. The repository is created if needed; `private`
        applies only then (default: the account's setting). `token` defaults to that of `hf auth login` or $HF_TOKEN.
        `revision` is the branch, created if needed (default: main). Raises CardiganError if the hub rejects the upload.
        An empty repository or branch may remain then, but never one with only some of the files.
        """
        hub.check_repo_id(name)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            return hub.upload_files(
                {path.name: path for path in sorted(folder.iterdir())}, name, commit_message, private, token, revision
            )

    def push_space_to_hub(
        self,
        name: str,
        title: str = "",
        direction_names: Sequence[str] = (),
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = SPACE_MESSAGE,
        model_name: str = "",
    ) -> str:
        """Upload the page of the export format `html` as a static Space `user/name`, and return the commit's URL.

        The page generates in the visitor's browser, so the Space needs no server. `title` and `direction_names` are
        those of `export`. `model_name` is the repository of the model on the hub, if it is there, for the Space's card.
        `name`, `private`, `token` and `commit_message` are those of `push_to_hub`. Raises CardiganError if no page can
        be made of this model, and if the hub rejects the upload.
        """
        hub.check_repo_id(name)
        with tempfile.TemporaryDirectory() as temporary:
            folder = write_space(self, Path(temporary) / "space", title, tuple(direction_names), model_name)
            files = {path.name: path for path in sorted(folder.iterdir())}
            return hub.upload_files(files, name, commit_message, private, token, repo_type="space")

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
        """Load a folder written by `save_pretrained`, or `user/name` of the hub.

        `name_or_folder`, `revision`, `sha256`, `token`, `cache_dir` and `local_files_only` are the arguments of
        `cardigan.from_pretrained`.
        """
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

    `path` is one of these, or what `cardigan.train` returned.
    `hf:user/name@revision` selects a branch, tag or commit. If `sha256` is given, the weights file must have that hash.
    Nothing is executed or unpickled, and a header that claims more than the file contains allocates no memory.
    Raises CardiganError for anything else.

    Examples:
        >>> import cardigan
        >>> model = cardigan.load("runs/first")
        >>> model.images_seen
        64
        >>> model.sample(4).dtype
        dtype('uint8')
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

    `name_or_folder` is that folder or name. Downloads only `config.json` and `model.safetensors`, and caches them in
    the hub's cache (or `cache_dir`), so that a second call works offline. `local_files_only` never connects. `token`
    defaults to that of `hf auth login` or $HF_TOKEN. If `sha256` is given, the weights must have that hash. Raises
    CardiganError for a missing model or one that is not a Cardigan model.

    Examples:
        >>> import cardigan
        >>> folder = cardigan.load("runs/first").save_pretrained("shared")
        >>> cardigan.from_pretrained(folder).images_seen
        64
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
