"""All settings of a training run, frozen: what `config.json` holds and what a recipe returns.

Imports no torch and knows no network. It rejects invalid values and builds nothing.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from cardigan.checks import nearest_divisor, require
from cardigan.config_parts import (
    AugmentConfig,
    DataConfig,
    EmaConfig,
    LatentConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
)
from cardigan.errors import CardiganError

STACKED_MNIST = "stacked-mnist"
"""A built-in source (`data/stacked.py`) and its recipe."""
BUILTIN_SOURCES = ("mnist", STACKED_MNIST)
"""Sources that the package contains, for modules that do not read data."""
RESUMABLE_FIELDS = frozenset(
    {
        "images",
        "minutes",
        "device",
        "checkpoint_every_images",
        "sample_every_images",
        "on_failure",
        "patience_images",
        "target_score",
        "gradient_accumulation",
        "data.cache",
        "data.num_workers",
        "data.retry_seconds",
        "process_timeout_seconds",
    }
)
"""Settings that resume may change: how long, where, in how much memory and how closely watched a run is. Weights
do not depend on them beyond rounding, but for `gradient_accumulation` (see there) and for a rollback, which the
journal shows."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training run. Build one with `config_for`, change it with `override`.

    The fields `data`, `latent`, `generator`, `discriminator`, `objective`, `augment`, `generator_optimizer`,
    `discriminator_optimizer` and `ema` are groups of settings. Raises CardiganError for values that make no sense.

    Examples:
        >>> import cardigan
        >>> config = cardigan.Config(batch_size=32, images=100_000)
        >>> config.generator.network, config.generator_optimizer.learning_rate
        ('dcgan', 0.0002)
        >>> cardigan.Config(batch_size=0)
        Traceback (most recent call last):
        ...
        cardigan.errors.CardiganError: batch_size is 0: expected at least 1.
    """

    recipe: str = "mnist"
    """The recipe these settings started from."""
    start_from: str = ""
    """How a run remembers the model that it started from. Use --from to start from one. Empty: initial weights."""
    seed: int = 0
    """Seed of all randomness of the run."""
    images: int | None = None
    """Stop after this many training images."""
    minutes: float | None = None
    """Stop after this many minutes, starting and saving included."""
    batch_size: int = 64
    """Images per step, over all processes together."""
    gradient_accumulation: int = 1
    """Compute a batch in this many microbatches: the same gradients in less memory. Batch statistics, minibatch
    standard deviation and DRAGAN's perturbation then see one microbatch, and spectral norms are updated with
    each."""
    n_critic: int = 1
    """Updates of D for each update of G (arXiv:1406.2661, algorithm 1, k; WGANs take 5)."""
    pac: int = 1
    """D sees this many images at a time, as one input (PacGAN, arXiv:1712.04086), so that it can detect a lack of
    variety."""
    conditional: bool = False
    """Train a class-conditional model, on the class labels."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the networks: fp32 (IEEE, on a GPU too), tf32 (GPUs of compute capability 8.0 and higher) or
    bf16. auto is bf16 where the hardware multiplies it natively, else fp32. Everything kept between steps is
    fp32."""
    all_reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of the gradients that processes exchange. bf16 halves the traffic and rounds them. A single process never
    rounds."""
    process_timeout_seconds: float = 60.0
    """End the run when a process of it has given no sign of life for this long. Evaluating and saving do not
    count."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps. auto takes the fastest present."""
    checkpoint_every_images: int = 50_000
    """Images between checkpoints."""
    sample_every_images: int = 20_000
    """Images between sample grids."""
    on_failure: Literal["warn", "stop", "rollback"] = "warn"
    """What to do about a fatal fault: warn, stop, or roll back to the best checkpoint with the learning rates
    halved."""
    patience_images: int | None = None
    """Stop when the score has not improved for this many images; the best checkpoint is kept."""
    target_score: float | None = None
    """Stop when the score has been at most this at two checkpoints in a row."""
    data: DataConfig = field(default_factory=DataConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    generator: NetworkConfig = field(default_factory=NetworkConfig)
    discriminator: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    generator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 <= seed < 2^63")
        require(
            1 <= self.process_timeout_seconds < 86_400,
            "process_timeout_seconds",
            self.process_timeout_seconds,
            "1 second to a day",
        )
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.images is None or self.images >= 1, "images", self.images, "at least 1")
        require(self.minutes is None or 0 < self.minutes < math.inf, "minutes", self.minutes, "a positive number")
        require(
            self.checkpoint_every_images >= 1,
            "checkpoint_every_images",
            self.checkpoint_every_images,
            "at least 1 image",
        )
        require(self.sample_every_images >= 1, "sample_every_images", self.sample_every_images, "at least 1 image")
        require(
            self.patience_images is None or self.patience_images >= 1,
            "patience_images",
            self.patience_images,
            "at least 1 image",
        )
        require(
            self.target_score is None or 0 < self.target_score < math.inf,
            "target_score",
            self.target_score,
            "a positive number",
        )
        require(self.n_critic >= 1, "n_critic", self.n_critic, "at least 1")
        min_images = self.batch_size * self.n_critic
        require(
            self.images is None or self.images > min_images - self.batch_size,
            "images",
            self.images,
            f"at least {min_images}, which is when G first learns",
        )
        self._check_decay_end()
        self._check_batch_division()
        self._check_clusters()

    def _check_decay_end(self) -> None:
        for network in ("generator", "discriminator"):
            optimizer: OptimizerConfig = getattr(self, f"{network}_optimizer")
            if optimizer.decays_to_zero and self.images is not None and self.images > optimizer.decay_end_images:
                raise CardiganError(
                    f"images is {self.images}, but {network}_optimizer.decay_end_images "
                    f"{optimizer.decay_end_images}, so nothing would be learned after that: set them to one number."
                )

    def _check_clusters(self) -> None:
        if self.data.clusters and not self.conditional:
            raise CardiganError(
                f"data.clusters is {self.data.clusters} and conditional is off, but clusters are the classes of a "
                "conditional model: add --conditional, or leave data.clusters out."
            )

    def _check_batch_division(self) -> None:
        self._check_divisor(
            "gradient_accumulation", self.gradient_accumulation, self.batch_size, f"batch of {self.batch_size}"
        )
        microbatch_size = self.batch_size // self.gradient_accumulation
        self._check_divisor("pac", self.pac, microbatch_size, f"{microbatch_size} images computed at a time")
        if self.pac > 1 and self.conditional:
            raise CardiganError(
                f"pac is {self.pac} and conditional is on, but the images of a pack have different classes: "
                "set pac to 1 or leave classes out."
            )
        group_size, num_logits = self.discriminator.minibatch_stddev, microbatch_size // self.pac
        if group_size:
            self._check_divisor(
                "discriminator.minibatch_stddev",
                group_size,
                num_logits,
                f"{num_logits} logits computed at a time",
                minimum=2,
            )
        for network in ("generator", "discriminator"):
            is_normalized = getattr(self, network).normalization != "none"
            require(
                not is_normalized or microbatch_size > 1,
                "batch_size / gradient_accumulation",
                microbatch_size,
                f"at least 2, since {network}.normalization is over the batch",
            )

    def _check_divisor(self, name: str, value: int, total: int, description: str, minimum: int = 1) -> None:
        nearest = nearest_divisor(value, total, minimum)
        require(value == nearest, name, value, f"a divisor of the {description}, such as {nearest}")
