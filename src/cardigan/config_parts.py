"""The settings of each part of a training run: data, latents, networks, objective, augmentation, optimizers, EMA.

Imports no torch and knows no network. Each part rejects its invalid values.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from cardigan.checks import require
from cardigan.errors import CardiganError

MIN_SIDE = 8
MAX_RETRY_SECONDS = 86_400
ADA_RAMP_IMAGES = 500_000
"""The paper's (arXiv:2006.06676, section 3)."""
MIN_STATISTICS_SAMPLES = 16
EMA_RAMPUP_RATIO = 0.05
SCHEDULES_TO_ZERO = ("linear", "cosine")
"""The schedules of `training/schedule.py` that need `decay_end_images`."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and the shape they are resized to."""

    source: str = "mnist"
    """Where the images come from: mnist, stacked-mnist, or a folder, archive, array, table or dataset
    (docs/guides/data.md). Empty if unknown, for example for imported weights."""
    split: Literal["train", "test", "all"] = "train"
    """Which part is trained on. Test images are kept for evaluation unless this says otherwise."""
    holdout: int = 0
    """Images of a source without a test part that are kept for evaluation instead of training. Chosen at random; of
    tar shards, the last ones whole."""
    max_images: int = 0
    """Train on this many images only, always the same ones. Default: all (0)."""
    height: int = 32
    """Height of a training image, in pixels."""
    width: int = 32
    """Width of a training image, in pixels."""
    channels: int = 1
    """Color channels: 1 gray, 3 RGB, 4 RGBA. A gray image is repeated over them."""
    resize: Literal["crop", "pad", "stretch"] = "pad"
    """How an image is brought to the training shape: crop cuts it to the aspect ratio, pad fills up with black,
    stretch changes the aspect ratio."""
    horizontal_flip: bool = False
    """Also train on the mirror image of every image."""
    labels: str = ""
    """Where class labels come from: folders, the name of a column, or a file FILE or FILE:COLUMN (CSV, JSON, JSONL
    or parquet). Default: the source's own, if it has any."""
    clusters: int = 0
    """Divide the training images into this many clusters of similar images, which take the place of classes: a
    class-conditional model covers more variety (arXiv:2006.10728). Default (0): no clusters."""
    num_classes: int = 0
    """Number of classes of tar shards, numbered from 0. Default (0): those of the first images, since shards are not
    read beforehand."""
    max_pixels: int = 100_000_000
    """Images of more pixels are not read: a small file can claim to hold an image that fills the memory."""
    cache: Literal["auto", "disk", "none"] = "auto"
    """disk decodes every image once and caches it on disk; none decodes it each time it is used; auto caches what
    fits."""
    num_workers: int | None = None
    """Worker processes that decode images. Default: one per core; 0 decodes in this process."""
    retry_seconds: float = 300.0
    """How long training retries to read remote shards while their server does not answer. 0 does not retry."""

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            value = getattr(self, side)
            require(value >= MIN_SIDE, f"data.{side}", value, f"at least {MIN_SIDE} pixels")
        require(self.max_images >= 0, "data.max_images", self.max_images, "a number of images, or 0 for all")
        require(self.channels >= 1, "data.channels", self.channels, "at least 1")
        require(self.holdout >= 0, "data.holdout", self.holdout, "a number of images, or 0 for none")
        require(self.clusters == 0 or self.clusters >= 2, "data.clusters", self.clusters, "at least 2, or 0 for none")
        require(self.num_classes >= 0, "data.num_classes", self.num_classes, "a number of classes, or 0")
        require(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1 pixel")
        require(
            self.num_workers is None or self.num_workers >= 0,
            "data.num_workers",
            self.num_workers,
            "a number of processes, or 0 to decode in this one",
        )
        seconds = self.retry_seconds
        require(0 <= seconds <= MAX_RETRY_SECONDS, "data.retry_seconds", seconds, f"0 to {MAX_RETRY_SECONDS:,}")


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The random numbers that a generator starts from."""

    size: int = 64
    """Length of the latent vector z."""
    distribution: str = "normal"
    """Its distribution, by name in `latents/sampling.py`: normal is N(0, 1); uniform is on [-1, 1], as in the DCGAN
    paper."""

    def __post_init__(self) -> None:
        require(self.size >= 1, "latent.size", self.size, "at least 1")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The generator or the discriminator."""

    network: str = "dcgan"
    """The architecture, by its name in `nets/table.py`."""
    width: int = 32
    """Channels at full resolution. Each downsampling doubles them, up to eight times. For `mlp`, the size of the
    hidden layers."""
    depth: int | None = None
    """Residual blocks per resolution (resnet, r3gan), downsamplings (dcgan), or hidden layers (mlp). Default: chosen
    by the network."""
    normalization: Literal["none", "batch", "batch-no-scale"] = "none"
    """Batch normalization: none, with learned scale and shift, or with learned shift alone (the tutorial's
    fix_gamma)."""
    spectral_norm: bool = False
    """Divide every weight matrix by its largest singular value (arXiv:1802.05957)."""
    minibatch_stddev: int = 0
    """D also sees the standard deviation over groups of this many images (arXiv:1710.10196, section 3). Default: off
    (0)."""
    conditioning: Literal["auto", "one-hot", "projection"] = "auto"
    """How a conditional network receives its class: one-hot appends 0s and 1s to z and constant planes to the image
    (the DCGAN paper's way; dcgan and mlp); projection learns an embedding next to z and a projection in D
    (arXiv:1802.05637). auto is projection, which is far better (docs/lab-book.md)."""
    initialization: Literal["dcgan", "torch"] = "torch"
    """Initial weights: Normal(0, 0.02) as in the DCGAN paper, or the network's own (for dcgan PyTorch's default,
    uniform within 1/sqrt(fan-in))."""
    frozen_stages: int = 0
    """Stages that keep the weights of the model that training starts from (--from): of a discriminator those nearest
    the image (freeze-D, arXiv:2002.10964), of a generator those with the smallest maps. Default: none (0)."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict, hash=False)
    """Settings that only this network has, by name, as its entry in `nets/table.py` declares them:
    `upsampling` of dcgan, `attention_resolution` of resnet, `skip` of light, `backbone`, `head_width` and
    `image_width` of projected. Those left out have the network's default."""

    def __post_init__(self) -> None:
        require(self.width >= 1, "network width", self.width, "at least 1")
        require(self.depth is None or self.depth >= 1, "network depth", self.depth, "at least 1")
        require(self.frozen_stages >= 0, "frozen_stages", self.frozen_stages, "at least 0")
        group = self.minibatch_stddev
        require(group == 0 or group >= 2, "minibatch_stddev", group, "0 or a group of at least 2")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss and the penalties on D."""

    loss: str = "non-saturating"
    """The loss, by its name in `objective/losses.py`."""
    penalties: dict[str, float] = field(default_factory=dict, hash=False)
    """Weights of penalties on D, by their names in `objective/penalties.py`: `r1` and `r2` (half the squared input
    gradient of D on real and on generated images, arXiv:1801.04406), `wgan_gp` (arXiv:1704.00028, which takes
    10), `dragan` (arXiv:1705.07215, which takes 10), and those of plug-ins. 0 is off. A config file gives the
    whole table; `objective.penalties.r1` changes one weight."""
    penalty_interval: int = 1
    """Compute penalties on every n-th step, n times as strong (lazy regularization, arXiv:1912.04958, appendix B)."""
    penalty_initial_factor: float = 1.0
    """Penalty weights start at this many times their value (arXiv:2501.05441, table 5, starts at 10)."""
    penalty_decay_images: int = 0
    """Images over which the weights decay to their value, along half a cosine."""
    correspondence: float = 0.0
    """Weight of the cross-domain correspondence, which keeps the variety of the model that the run started from
    (--from), for ten to a hundred images (arXiv:2104.06820, which takes 1000). 0 is off."""

    def __post_init__(self) -> None:
        require(
            0 <= self.correspondence < math.inf,
            "objective.correspondence",
            self.correspondence,
            "a finite number of at least 0",
        )
        for name, weight in self.penalties.items():
            require(0 <= weight < math.inf, f"objective.penalties.{name}", weight, "a finite number of at least 0")
        on = {name: float(weight) for name, weight in sorted(self.penalties.items()) if weight}
        object.__setattr__(self, "penalties", on)
        factor = self.penalty_initial_factor
        require(0 <= factor < math.inf, "objective.penalty_initial_factor", factor, "a finite number of at least 0")
        require(
            self.penalty_decay_images >= 0, "objective.penalty_decay_images", self.penalty_decay_images, "at least 0"
        )
        require(
            self.penalty_interval >= 1,
            "objective.penalty_interval",
            self.penalty_interval,
            "at least 1 (1 is every step)",
        )
        for name, unset in (("penalty_interval", 1), ("penalty_initial_factor", 1.0), ("penalty_decay_images", 0)):
            if getattr(self, name) != unset and not self.penalties:
                raise CardiganError(
                    f"objective.{name} is {getattr(self, name)} but no penalty is on, so it has no effect: "
                    "set a penalty (objective.penalties.r1), or leave it out."
                )
        if (self.penalty_initial_factor != 1) != (self.penalty_decay_images > 0):
            raise CardiganError(
                f"objective.penalty_initial_factor is {self.penalty_initial_factor} and objective.penalty_decay_images "
                f"{self.penalty_decay_images}: a schedule needs both, a factor other than 1 and its images; set both "
                "or neither."
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of what D sees, real and generated alike, for small datasets. Samples are not augmented."""

    operations: str = ""
    """Operations by their names in `objective/augment.py`, separated by commas. Default: none."""
    probability: float = 0.0
    """Probability of each operation for each image. 1 is DiffAugment (arXiv:2006.10738). With a target, the initial
    value."""
    target: float = 0.0
    """Adapt the probability so that the mean sign of D's margin on real images becomes this (ADA, arXiv:2006.06676,
    section 3, takes 0.6). Default: a fixed probability (0)."""
    ramp_images: int = ADA_RAMP_IMAGES
    """Images in which an adapting probability can rise from 0 to 1."""
    start_images: int = 0
    """A fixed probability is 0 for this many images, and reaches its full value after as many again. Default (0): it
    is the same from the start."""

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "augment.probability", self.probability, "0 to 1")
        require(0 <= self.target < 1, "augment.target", self.target, "0 (off) to less than 1; 0.6 is the paper's")
        require(self.ramp_images >= 1, "augment.ramp_images", self.ramp_images, "at least 1 image")
        require(self.start_images >= 0, "augment.start_images", self.start_images, "at least 0")
        if self.start_images and (self.target or not self.operations):
            raise CardiganError(
                f"augment.start_images is {self.start_images}, which delays a fixed probability, but there is none: "
                "give augment.operations and augment.probability without augment.target, or set it to 0."
            )
        duplicate = next((name for name in self.operation_names if self.operation_names.count(name) > 1), None)
        if duplicate is not None:
            raise CardiganError(
                f"augment.operations names {duplicate!r} more than once, and each is done once: name it once."
            )
        if self.ramp_images != ADA_RAMP_IMAGES and not self.target:
            raise CardiganError(
                f"augment.ramp_images is {self.ramp_images} but the probability is fixed: "
                "give augment.target too, or leave it out."
            )
        if bool(self.operations) != (self.probability > 0 or self.target > 0):
            raise CardiganError(
                f"augment.operations is {self.operations!r}, augment.probability {self.probability} and augment.target "
                f"{self.target}, so nothing would be done: give operations and a probability (1 for DiffAugment) or a "
                "target (0.6 for ADA), or none of them."
            )

    @property
    def operation_names(self) -> tuple[str, ...]:
        """The operations' names."""
        return tuple(name.strip() for name in self.operations.split(",")) if self.operations else ()


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer of one network."""

    name: str = "adam"
    """Its name in `training/optimizers.py`: adam, adamw, sgd, rmsprop, or that of a plug-in."""
    learning_rate: float = 2e-4
    """Learning rate."""
    beta1: float = 0.5
    """Decay rate of the gradient's moving average; for sgd the momentum."""
    beta2: float = 0.999
    """Decay rate of the squared gradient's moving average."""
    warmup_images: int = 0
    """Images over which the learning rate rises linearly from 0."""
    schedule: str = "inverse_sqrt"
    """How the learning rate decays, by name in `training/schedule.py`: inverse_sqrt (as 1/sqrt(images), which needs
    no planned end), linear or cosine (to 0 at decay_end_images), constant, or that of a plug-in."""
    decay_start_images: int = 0
    """The decay starts at this many images. Default (0): inverse_sqrt does not decay, linear and cosine decay from
    the start."""
    decay_end_images: int = 0
    """The learning rate is 0 from this many images on (linear and cosine)."""

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "a positive number")
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "0 <= beta1 < 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "0 <= beta2 < 1")
        require(self.warmup_images >= 0, "warmup_images", self.warmup_images, "at least 0")
        require(self.decay_start_images >= 0, "decay_start_images", self.decay_start_images, "at least 0")
        if 0 < self.decay_start_images < self.warmup_images:
            raise CardiganError(
                f"decay_start_images is {self.decay_start_images} and warmup_images {self.warmup_images}, so the "
                "learning rate would decay before it has risen: "
                f"set decay_start_images to at least {self.warmup_images}, or 0 for none."
            )
        self._check_schedule()

    @property
    def decays_to_zero(self) -> bool:
        """Whether the learning rate is 0 from `decay_end_images` on."""
        return self.schedule in SCHEDULES_TO_ZERO

    def _check_schedule(self) -> None:
        schedule, start, end = self.schedule, self.decay_start_images, self.decay_end_images
        first_end = max(start, self.warmup_images) + 1
        if self.decays_to_zero and end < first_end:
            raise CardiganError(
                f"decay_end_images is {end}, but the schedule {schedule!r} decays to 0 there: set it to the images of "
                f"the whole run, at least {first_end:,} (after decay_start_images and warmup_images)."
            )
        if schedule in {"inverse_sqrt", "constant"} and end:
            raise CardiganError(
                f"decay_end_images is {end}, but the schedule {schedule!r} has no end, so it has no effect: leave it "
                "out, or choose linear or cosine."
            )
        if schedule == "constant" and start:
            raise CardiganError(
                f"decay_start_images is {start}, but the schedule is constant, so it has no effect: set it to 0, or "
                "choose another schedule."
            )


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The exponential moving average (EMA) of the generator: what is sampled, saved and evaluated."""

    half_life_images: int = 10_000
    """Half-life of a weight's influence, in images. 0 keeps no average: the trained generator is the result."""
    rampup_ratio: float = EMA_RAMPUP_RATIO
    """Early in a run the half-life is at most this fraction of images_seen, so that the random start is forgotten. 0
    is off."""
    statistics_samples: int = 0
    """Latents from which the average's own batch statistics are computed whenever it is used (arXiv:1809.11096,
    appendix D). Default (0): it has those of the trained generator."""

    def __post_init__(self) -> None:
        require(
            self.statistics_samples == 0 or self.statistics_samples >= MIN_STATISTICS_SAMPLES,
            "ema.statistics_samples",
            self.statistics_samples,
            f"0, or at least {MIN_STATISTICS_SAMPLES}",
        )
        require(self.half_life_images >= 0, "ema.half_life_images", self.half_life_images, "at least 0")
        require(0 <= self.rampup_ratio < math.inf, "ema.rampup_ratio", self.rampup_ratio, "at least 0")
        if not self.half_life_images and self.rampup_ratio not in (0, EMA_RAMPUP_RATIO):
            raise CardiganError(
                f"ema.rampup_ratio is {self.rampup_ratio} but no average is kept, so it has no effect: "
                "set it to 0, or a half_life_images."
            )
