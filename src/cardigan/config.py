"""Everything a training run was told, frozen: what `config.json` holds and what a recipe returns.

Knows no torch and no network: it rejects nonsense, it does not build anything.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from cardigan.checks import nearest_divisor, require, validate_type
from cardigan.errors import CardiganError, unknown

MIN_SIDE = 8
ADA_RAMP_IMAGES = 500_000
"""The paper's (arXiv:2006.06676, section 3)."""
EMA_RAMPUP_RATIO = 0.05
BUILTIN_PENALTIES = ("r1", "r2", "wgan_gp", "dragan")
"""The penalties of `objective/penalties.py`, for a command line that has not imported torch."""
RESUMABLE_FIELDS = frozenset(
    {
        "images",
        "minutes",
        "device",
        "checkpoint_every_images",
        "sample_every_images",
        "on_failure",
        "patience_images",
        "gradient_accumulation",
        "data.cache",
        "data.num_workers",
    }
)
"""Fields that say how long, where, in how much memory and how closely watched a run is; resume lets them change, the weights do not depend on
them beyond rounding (but for what `gradient_accumulation` says of itself, and a rollback: the journal and the checkpoint tell of it)."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures, and the frame they are brought into."""

    source: str = "mnist"
    """Where the pictures come from: mnist, stacked-mnist, or a folder, archive, array, table or dataset (docs/guides/data.md). Nothing is not known,
    as of weights that another program trained."""
    split: Literal["train", "test", "all"] = "train"
    """Which part is trained on; test pictures are kept for judging unless this says otherwise."""
    holdout: int = 0
    """Pictures of a source without a test part that are not trained on, kept for judging; chosen at random, of shards the last ones whole."""
    max_images: int = 0
    """Train on this many pictures only, always the same ones; 0 is all."""
    height: int = 32
    """Height of a training picture, in pixels."""
    width: int = 32
    """Width of a training picture, in pixels."""
    channels: int = 1
    """Colour channels: 1 grey, 3 RGB, 4 RGB and transparency; a grey picture is repeated over them."""
    resize: Literal["crop", "pad", "stretch"] = "pad"
    """How a picture fills its frame: cut to its shape, fill up with black around it, or stretch it."""
    horizontal_flip: bool = False
    """Train on every picture's mirror image too."""
    labels: str = ""
    """Where classes come from: folders, the name of a column, or a file FILE or FILE:COLUMN (CSV, JSON, JSONL or parquet); nothing is
    the source's own, if it has any."""
    num_classes: int = 0
    """How many classes, numbered from 0, tar shards have, which are not read beforehand; 0 takes those of their first pictures."""
    max_pixels: int = 100_000_000
    """Pictures of more pixels are not read: a few bytes can claim to be a picture that fills the memory."""
    cache: Literal["auto", "disk", "none"] = "auto"
    """Decode every picture once and keep it on the disk, ready to train on, or decode again each time it is seen; auto keeps what fits."""
    num_workers: int | None = None
    """Processes that decode pictures; nothing is one for each core."""

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            value = getattr(self, side)
            require(value >= MIN_SIDE, f"data.{side}", value, f"at least {MIN_SIDE} pixels")
        require(self.max_images >= 0, "data.max_images", self.max_images, "a number of pictures, or 0 for all")
        require(self.channels >= 1, "data.channels", self.channels, "at least 1")
        require(self.holdout >= 0, "data.holdout", self.holdout, "a number of pictures, or 0 for none")
        require(self.num_classes >= 0, "data.num_classes", self.num_classes, "a number of classes, or 0")
        require(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1 pixel")
        require(
            self.num_workers is None or self.num_workers >= 0,
            "data.num_workers",
            self.num_workers,
            "a number of processes, or 0 to decode in this one",
        )


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The random numbers a generator starts from."""

    size: int = 64
    """How many numbers make one picture."""
    distribution: str = "normal"
    """N(0, 1), or uniform on [-1, 1] as in the DCGAN paper."""

    def __post_init__(self) -> None:
        require(self.size >= 1, "latent.size", self.size, "at least 1")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One of the two players."""

    network: str = "dcgan"
    """The architecture, by its name in `nets/table.py`."""
    width: int = 32
    """Channels at full resolution; each halving of the picture doubles them, up to eight times. In `mlp`, the size of the hidden layers."""
    depth: int | None = None
    """Residual blocks at each size (resnet, r3gan), halvings of the picture (dcgan), or hidden layers (mlp); nothing lets the network choose."""
    normalization: Literal["none", "batch", "batch-no-scale"] = "none"
    """Batch normalisation: none, with learned scale and shift, or with learned shift alone (the tutorial's fix_gamma)."""
    spectral_norm: bool = False
    """Divide every weight matrix by its largest singular value (arXiv:1802.05957)."""
    attention_resolution: int = 0
    """Self-attention where the shorter side of the picture has become this (arXiv:1805.08318; resnet only); 0 is none."""
    minibatch_stddev: int = 0
    """D also sees how much the pictures in groups of this size differ from each other (arXiv:1710.10196, section 3); 0 is off."""
    conditioning: Literal["auto", "one-hot", "projection"] = "auto"
    """How classes are told, if they are: as ones and zeros beside z and as planes beside the picture (the DCGAN paper's way, dcgan and mlp),
    or learned, an embedding beside z and a projection of D's features on one (arXiv:1802.05637). Auto is learned, which is far better (lab book)."""
    initialization: Literal["dcgan", "torch"] = "torch"
    """Starting weights: Normal(0, 0.02) as in the DCGAN paper, or the network's own (PyTorch's default, uniform within 1/sqrt(fan-in), for dcgan)."""

    def __post_init__(self) -> None:
        require(self.width >= 1, "network width", self.width, "at least 1")
        require(self.depth is None or self.depth >= 1, "network depth", self.depth, "at least 1")
        require(
            self.attention_resolution >= 0,
            "network attention_resolution",
            self.attention_resolution,
            "a side in pixels, or 0 for none",
        )
        group = self.minibatch_stddev
        require(group == 0 or group >= 2, "minibatch_stddev", group, "0 or a group of at least 2")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What the two players want."""

    loss: str = "non-saturating"
    """The loss, by its name in `objective/losses.py`."""
    penalties: dict[str, float] = field(default_factory=dict, hash=False)
    """Weights of penalties on D, by their names in `objective/penalties.py`: `r1`, `r2` (arXiv:1801.04406), `wgan_gp`
    (arXiv:1704.00028, which takes 10), `dragan` (arXiv:1705.07215, which takes 10), and those of plug-ins."""
    penalty_interval: int = 1
    """Penalties are computed on every n-th step, n times as strong (arXiv:1912.04958, appendix B)."""
    penalty_initial_factor: float = 1.0
    """The penalties' weights begin at this many times their value (arXiv:2501.05441, table 5, begins at 10)."""
    penalty_decay_images: int = 0
    """Over this many images, along half a cosine, they reach their value."""

    def __post_init__(self) -> None:
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
                    "give objective.penalties a weight (such as r1 0.3), or leave it out."
                )
        if (self.penalty_initial_factor != 1) != (self.penalty_decay_images > 0):
            raise CardiganError(
                f"objective.penalty_initial_factor is {self.penalty_initial_factor} and objective.penalty_decay_images {self.penalty_decay_images}: "
                "a schedule needs both, a start other than 1 and the images it takes; set both or neither."
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes made to what D sees, real and generated alike, so that few pictures go a longer way; what is drawn stays unchanged."""

    operations: str = ""
    """What may be done, by the names in `objective/augment.py`, separated by commas; nothing is off."""
    probability: float = 0.0
    """How likely each operation is for each picture; 1 is DiffAugment (arXiv:2006.10738). With a target, where it begins."""
    target: float = 0.0
    """Adapt the probability until this is the mean sign of D's margin on real pictures (ADA, arXiv:2006.06676, section 3, takes 0.6); 0 keeps it."""
    ramp_images: int = ADA_RAMP_IMAGES
    """Images in which an adapting probability can rise from 0 to 1."""

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "augment.probability", self.probability, "0 to 1")
        require(0 <= self.target < 1, "augment.target", self.target, "0 (off) to less than 1; 0.6 is the paper's")
        require(self.ramp_images >= 1, "augment.ramp_images", self.ramp_images, "at least 1 image")
        duplicate = next((name for name in self.operation_names if self.operation_names.count(name) > 1), None)
        if duplicate is not None:
            raise CardiganError(
                f"augment.operations names {duplicate!r} more than once, and each is done once: name it once."
            )
        if self.ramp_images != ADA_RAMP_IMAGES and not self.target:
            raise CardiganError(
                f"augment.ramp_images is {self.ramp_images} but the probability is fixed: give augment.target too, or leave it out."
            )
        if bool(self.operations) != (self.probability > 0 or self.target > 0):
            raise CardiganError(
                f"augment.operations is {self.operations!r}, augment.probability {self.probability} and augment.target {self.target}, so nothing "
                "would be done: give operations and a probability (1 for DiffAugment) or a target (0.6 for ADA), or none of them."
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
    """Step size."""
    beta1: float = 0.5
    """Memory of the gradient."""
    beta2: float = 0.999
    """Memory of its square."""
    warmup_images: int = 0
    """The step size rises from 0 to its value over this many images."""
    decay_start_images: int = 0
    """From this many images on the step size falls as 1/sqrt(images); 0 keeps it constant. Needs no planned end, so a run can always go on."""

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "a positive number")
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "0 <= beta1 < 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "0 <= beta2 < 1")
        require(self.warmup_images >= 0, "warmup_images", self.warmup_images, "at least 0")
        require(self.decay_start_images >= 0, "decay_start_images", self.decay_start_images, "at least 0")
        if 0 < self.decay_start_images < self.warmup_images:
            raise CardiganError(
                f"decay_start_images is {self.decay_start_images} and warmup_images {self.warmup_images}, so the step size would fall before it has risen: "
                f"set decay_start_images to at least {self.warmup_images}, or 0 for none."
            )


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The exponential moving average of the generator: what is sampled, saved and judged."""

    half_life_images: int = 10_000
    """After this many images a weight's influence has halved; 0 keeps no average, the live generator is the result."""
    rampup_ratio: float = EMA_RAMPUP_RATIO
    """While the run is young the half-life is at most this share of images_seen, so the random start is forgotten; 0 is off."""

    def __post_init__(self) -> None:
        require(self.half_life_images >= 0, "ema.half_life_images", self.half_life_images, "at least 0")
        require(0 <= self.rampup_ratio < math.inf, "ema.rampup_ratio", self.rampup_ratio, "at least 0")
        if not self.half_life_images and self.rampup_ratio not in (0, EMA_RAMPUP_RATIO):
            raise CardiganError(
                f"ema.rampup_ratio is {self.rampup_ratio} but no average is kept, so it has no effect: set it to 0, or a half_life_images."
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment. Build one with a recipe (`cardigan.recipes`), change it with `override`."""

    recipe: str = "mnist"
    """The named experiment these settings started from."""
    seed: int = 0
    """All randomness of the run is a function of this number."""
    images: int | None = None
    """Stop after this many training images."""
    minutes: float | None = None
    """Stop after this much time, starting and saving included."""
    batch_size: int = 64
    """Images per step, over all processes together."""
    gradient_accumulation: int = 1
    """Compute a batch in this many parts, one after another: the same gradients in less memory. What looks at several pictures at once sees
    those of a part: batch statistics, minibatch stddev, the spread that DRAGAN perturbs by; and spectral norms move on with each part."""
    n_critic: int = 1
    """D learns on this many batches for each one of G's (arXiv:1406.2661, algorithm 1, k; WGANs take 5)."""
    pac: int = 1
    """D judges this many pictures at a time, together (PacGAN, arXiv:1712.04086): that they differ is then part of looking real."""
    conditional: bool = False
    """Train on the class labels, so that a class can be asked for."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the networks: fp32 (IEEE, on a GPU too), tf32 (GPUs of compute capability 8.0 and higher) or bf16. Auto is bf16 where the
    hardware multiplies it natively, else fp32. Everything kept between steps is fp32."""
    all_reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """What gradients travel in between several processes; bf16 halves the traffic and rounds the gradients. One process never rounds them."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest present."""
    checkpoint_every_images: int = 50_000
    """Images between checkpoints."""
    sample_every_images: int = 20_000
    """Images between sample grids."""
    on_failure: Literal["warn", "stop", "rollback"] = "warn"
    """What to do when something goes badly wrong: say so, stop, or return to the best checkpoint with the learning rates halved."""
    patience_images: int | None = None
    """Stop when the score has not improved for this many images, keeping the best."""
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
        require(self.n_critic >= 1, "n_critic", self.n_critic, "at least 1")
        min_images = self.batch_size * self.n_critic
        require(
            self.images is None or self.images > min_images - self.batch_size,
            "images",
            self.images,
            f"at least {min_images}, which is when G first learns",
        )
        self._check_batch_division()

    def _check_batch_division(self) -> None:
        self._check_divisor(
            "gradient_accumulation", self.gradient_accumulation, self.batch_size, f"batch of {self.batch_size}"
        )
        microbatch_size = self.batch_size // self.gradient_accumulation
        self._check_divisor("pac", self.pac, microbatch_size, f"{microbatch_size} pictures computed at a time")
        if self.pac > 1 and self.conditional:
            raise CardiganError(
                f"pac is {self.pac} and conditional is on, but the pictures of a pack have different classes: "
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


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Return the config that `to_dict` wrote; fields left out keep their defaults, an unknown one is an error."""
    return _replace_fields(Config(), values, "")


def override(config: Config, values: dict[str, Any]) -> Config:
    """Return `config` with fields replaced by dotted name, e.g. `{"batch_size": 128, "generator.width": 64}`.

    Raises CardiganError for an unknown field (offering the nearest) or a value of the wrong type or range.
    """
    known = flatten(config)
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        section_values = nested
        parent = known.get(".".join(sections))
        if isinstance(parent, dict):  # one entry of a table of values, such as objective.penalties.r1
            section_values.setdefault(sections[0], {}).setdefault(sections[1], dict(parent))[leaf] = value
            continue
        if name not in known:
            raise unknown("setting", name, known)
        for section in sections:
            section_values = section_values.setdefault(section, {})
        section_values[leaf] = value
    return _replace_fields(config, nested, "")


def flatten(config: Config) -> dict[str, Any]:
    """Return every setting by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        flat.update(
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat


def experiment_settings(config: Config) -> dict[str, Any]:
    """Return the settings the weights depend on, by dotted name: all but the budget, the device and the cadences."""
    return {name: value for name, value in flatten(config).items() if name not in RESUMABLE_FIELDS}


def config_diff(before: Config, after: Config) -> list[str]:
    """Return one line for each setting that makes `after` another experiment than `before`."""
    old, new = experiment_settings(before), experiment_settings(after)
    return [f"{name}: {old[name]!r} -> {new[name]!r}" for name in old if old[name] != new[name]]


def _replace_fields(section: Any, values: dict[str, Any], prefix: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(section)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown("setting", prefix + name, [prefix + known for known in fields])
        current = getattr(section, name)
        if dataclasses.is_dataclass(current):
            require(isinstance(value, dict), prefix + name, value, "a group of settings")
            changes[name] = _replace_fields(current, value, f"{prefix}{name}.")
        else:
            changes[name] = validate_type(value, fields[name].type, prefix + name)
    return dataclasses.replace(section, **changes)
