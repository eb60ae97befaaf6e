"""What a training step is given and what it measures."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from cardigan.config_parts import ObjectiveConfig
from cardigan.nets.interface import Discriminator, Generator
from cardigan.objective.losses import Loss
from cardigan.shapes import FeatureVectors, Images, Labels, Latents
from cardigan.training.ada import Augmentation
from cardigan.training.devices import Devices

BASE_METRICS = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after_update"),
    *("discriminator_gradient_norm", "generator_gradient_norm", "real_margin_sign", "augment_probability"),
)
"""What every step measures: both losses without penalties; D's mean probability for real and for generated images
before its update, and for the same generated images after it; the norms of both gradients, which are not finite
where an update was refused; the mean sign of D's margin on real images; and the probability of each
augmentation. A value that this kind of step does not have is 0."""
GENERATOR_METRICS = ("generator_loss", "d_fake_after_update", "generator_gradient_norm", "correspondence")

StepMetrics: TypeAlias = Float[Tensor, " metric"]


def metric_names(objective: ObjectiveConfig) -> tuple[str, ...]:
    """Return what each value of `StepMetrics` is in a run of this objective.

    `BASE_METRICS`, its penalties, and the correspondence if it is on.
    """
    return (*BASE_METRICS, *objective.penalties, *(("correspondence",) if objective.correspondence else ()))


class StepKind(NamedTuple):
    """What a step does besides updating D.

    Examples:
        >>> import cardigan
        >>> cardigan.StepKind(apply_penalties=False, update_generator=True)
        StepKind(apply_penalties=False, update_generator=True)
    """

    apply_penalties: bool
    """Whether D's penalties are computed. With a penalty interval of 4, every fourth step does."""
    update_generator: bool
    """Whether G is updated too. With `n_critic` 5, every fifth step does."""


FULL_STEP = StepKind(apply_penalties=True, update_generator=True)


@dataclass(frozen=True)
class Networks:
    """Both networks, their optimizers, and the augmentation between them if there is one.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> config = cardigan.override(cardigan.config_for("mnist"), {"conditional": False})
        >>> spec = cardigan.ImageSpec(channels=1, height=32, width=32, num_classes=0)
        >>> G, D = cardigan.build_generator(config, spec), cardigan.build_discriminator(config, spec)
        >>> networks = cardigan.Networks(G, D, torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters()))
        >>> networks.augmentation is None
        True
    """

    generator: Generator
    """Maps z [batch, latent] to images [batch, channels, height, width]."""
    discriminator: Discriminator
    """Maps images to logits [batch]."""
    generator_optimizer: Optimizer
    """Of the generator's weights."""
    discriminator_optimizer: Optimizer
    """Of the discriminator's weights."""
    augmentation: Augmentation | None = None
    """What changes real and generated images before D sees them."""
    start_generator: Generator | None = None
    """The generator as it was when the run started, with the weights of another model. Only for the correspondence."""


@dataclass(frozen=True)
class StepConfig:
    """What stays the same from step to step: the objective, and where it is computed.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> objective = cardigan.config_for("mnist").objective
        >>> devices = cardigan.Devices(torch.device("cpu"))
        >>> step = cardigan.StepConfig(cardigan.find_loss(objective.loss), objective, conditional=True, devices=devices)
        >>> step.gradient_accumulation
        1
    """

    loss: Loss
    """The losses of D and G, from `find_loss`."""
    objective: ObjectiveConfig
    """The penalties, their weights and their interval."""
    conditional: bool
    """Whether the networks see the classes."""
    devices: Devices
    """Where and in which arithmetic the networks are computed."""
    gradient_accumulation: int = 1
    """Microbatches that a batch is computed in, one after another."""


@dataclass(frozen=True)
class RandomDraws:
    """The random numbers of a batch; None where nothing reads them.

    Examples:
        >>> import cardigan
        >>> draws = cardigan.RandomDraws(cardigan.training_latents("normal", 64, 100, seed=0, images_seen=0))
        >>> draws.z.shape, draws.noise
        (torch.Size([64, 100]), None)
    """

    z: Latents
    """G's inputs, [batch, latent]."""
    augment_real: Float[Tensor, "batch column"] | None = None
    """Uniform on [0, 1), for the augmentation of real images (`objective/augment.py`)."""
    augment_fake: Float[Tensor, "batch column"] | None = None
    """The same for generated images."""
    interpolation: Float[Tensor, " batch"] | None = None
    """Uniform on [0, 1), for penalties (`objective.penalties.PenaltyInputs`)."""
    noise: Images | None = None
    """For penalties, of the images' shape."""


@dataclass(frozen=True)
class MicroBatch:
    """What is computed at a time: the whole batch, unless gradients are accumulated.

    Images are augmented. Of a D with frozen first layers, their features take the images' place.
    """

    real: Images | FeatureVectors
    fake: Images | FeatureVectors
    labels: Labels | None
    """None in an unconditional run."""
    draws: RandomDraws
    maps: tuple[Tensor, ...] = ()
    """G's feature maps, if the correspondence is on."""
