"""One iteration of the game, in the tutorial's five steps.

Does not know where pictures and random numbers come from, nor what happens to the numbers it returns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from cardigan.config import ObjectiveConfig
from cardigan.data.batches import Batch
from cardigan.nets.interface import Discriminator, Generator
from cardigan.objective.losses import Loss
from cardigan.objective.penalties import PENALTIES, Seen
from cardigan.shapes import Images, Labels, Latents, Logits, Scalar
from cardigan.training.augmentation import Augmentation
from cardigan.training.devices import Devices

MEASURES = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after"),
    *("discriminator_gradient", "generator_gradient", "real_sign", "augmentation"),
    *PENALTIES,
)
"""What one iteration measures: both losses without penalties, D's belief in real and in generated pictures
before its update, its belief in the same generated pictures after it, the length of both gradients, not a finite number where an update
was refused; the mean sign of D's margin on real pictures, how likely each operation of the augmentation is, and the penalties without
their weights. What a step of this kind does not have is 0."""
OF_GENERATOR = ("generator_loss", "d_fake_after", "generator_gradient")

Measurements: TypeAlias = Float[Tensor, " measure"]


class Kind(NamedTuple):
    """What a step does beside having D learn."""

    penalise: bool
    generator_learns: bool


BOTH_LEARN = Kind(penalise=True, generator_learns=True)


@dataclass(frozen=True)
class Players:
    """The two networks and their optimizers."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


@dataclass(frozen=True)
class Rules:
    """What is played for, and where."""

    loss: Loss
    objective: ObjectiveConfig
    conditional: bool
    devices: Devices
    parts: int = 1
    """Parts a batch is computed in, one after another."""


@dataclass(frozen=True)
class Chance:
    """The random numbers of a batch; those that nothing reads are None."""

    z: Latents
    augment_real: Float[Tensor, "batch column"] | None = None
    augment_fake: Float[Tensor, "batch column"] | None = None
    """Uniform on [0, 1), for `objective/augment.py`."""
    mix: Float[Tensor, " batch"] | None = None
    noise: Images | None = None
    """For penalties (`objective.penalties.Seen`)."""


@dataclass(frozen=True)
class Part:
    """As much of a batch as is computed at a time: all of it, unless gradients are accumulated. Pictures are as D sees them."""

    real: Images
    fake: Images
    labels: Labels | None
    """None where the players are not told of classes."""
    chance: Chance


@dataclass(frozen=True)
class Game:
    """What stays the same from step to step."""

    players: Players
    rules: Rules
    augmentation: Augmentation | None = None


def iterate(game: Game, given: Sequence[tuple[Batch, Chance]], kind: Kind = BOTH_LEARN, penalty_factor: Scalar | float = 1.0) -> Measurements:
    """Let the players learn from one batch, given whole or in parts.

    Of a batch that is whole the generator's pictures are drawn once and serve both players; of parts they are drawn again when G learns, so
    that the activations of one part at most are held.
    """
    # 1. The generator draws.
    serve_both = kind.generator_learns and len(given) == 1
    parts = [draw(game, real, chance, learning=serve_both) for real, chance in given]
    # 2. and 3. The discriminator judges the fake batch and the real one, apart, and the gradients are added. 4. It learns.
    verdicts, discriminator_gradient = discriminator_step(game, parts, kind.penalise, penalty_factor)
    off = torch.zeros_like(discriminator_gradient)
    answers, generator_gradient = [Answer(off, off)], off
    if kind.generator_learns:
        # 5. The updated discriminator judges the same pictures; its gradient with respect to them flows on into the generator, which learns.
        learning = parts if serve_both else (draw(game, real, chance, learning=True) for real, chance in given)
        answers, generator_gradient = generator_step(game, learning, verdicts, discriminator_gradient)
    sign, strength = _mean([verdict.sign for verdict in verdicts]), off
    if game.augmentation is not None:
        # Last of all, so that both players have seen this batch changed in the same way.
        game.augmentation.adapt(sign, sum(len(part.real) for part in parts), game.rules.devices.processes)
        strength = game.augmentation.probability
    loss, d_real, d_fake = (_mean([getattr(verdict, name) for verdict in verdicts]) for name in ("loss", "d_real", "d_fake"))
    generator_loss, d_fake_after = (_mean([getattr(answer, name) for answer in answers]) for name in ("loss", "belief"))
    penalties = [_mean([verdict.penalties[name] for verdict in verdicts]) for name in PENALTIES]
    judged = [loss, generator_loss, d_real, d_fake, d_fake_after]
    return torch.stack([*judged, discriminator_gradient, generator_gradient, sign, strength, *penalties]).detach()


def draw(game: Game, real: Batch, chance: Chance, learning: bool) -> Part:
    """Return real pictures and generated ones as D sees them; with `learning` the way back to the generator is kept."""
    labels = real.labels if game.rules.conditional else None
    with game.rules.devices.autocast(), nullcontext() if learning else torch.no_grad():
        fake = game.players.generator(chance.z, labels)
    fake, shown = fake.float(), real.images
    if game.augmentation is not None:
        assert chance.augment_real is not None and chance.augment_fake is not None
        shown, fake = game.augmentation(shown, chance.augment_real), game.augmentation(fake, chance.augment_fake)
    return Part(shown, fake, labels, chance)


def discriminator_step(game: Game, parts: Sequence[Part], penalise: bool, penalty_factor: Scalar | float) -> tuple[list["Verdict"], Scalar]:
    """Have D learn from all parts; return what it said of each before it did, and the length of its gradient."""
    verdicts: list[Verdict] = []

    def costs() -> Iterator[Scalar]:
        for part in parts:
            judged = judge(game.players.discriminator, game.rules, part.real, part.fake.detach(), part.labels, penalise, part.chance)
            verdicts.append(_verdict(judged, game.rules.loss))
            yield (judged.loss + penalty_factor * _weighted(judged, game.rules.objective) if penalise else judged.loss) / len(parts)

    length = learn(game.players.discriminator, game.players.discriminator_optimizer, costs(), game.rules.devices)
    return verdicts, length


def generator_step(game: Game, parts: Iterable[Part], verdicts: Sequence["Verdict"], discriminator_gradient: Scalar) -> tuple[list["Answer"], Scalar]:
    """Have G learn from all parts; return its loss and D's new belief for each, and the length of its gradient."""
    answers: list[Answer] = []
    discriminator, rules = game.players.discriminator, game.rules

    def costs() -> Iterator[Scalar]:
        for part, verdict in zip(parts, verdicts, strict=True):
            real_logits = verdict.real_logits
            with rules.devices.autocast():
                if rules.loss.compares:
                    with torch.no_grad():
                        real_logits = discriminator(part.real, part.labels)
                fake_logits = discriminator(part.fake, part.labels)
            loss = rules.loss.generator(real_logits, fake_logits)
            answers.append(Answer(loss.detach(), rules.loss.belief(fake_logits.detach(), real_logits)))
            # A refused update of D refuses G's too: 0 times what is not finite is not finite.
            yield loss / len(verdicts) + 0 * discriminator_gradient

    with frozen(discriminator):
        length = learn(game.players.generator, game.players.generator_optimizer, costs(), rules.devices)
    return answers, length


@dataclass(frozen=True)
class Judged:
    """The discriminator's two passes, and its penalties without their weights."""

    fake_logits: Logits
    real_logits: Logits
    loss: Scalar
    penalties: dict[str, Scalar]
    """Those that are off, or not due, are 0."""


@dataclass(frozen=True)
class Verdict:
    """What is kept of that once D has learned: numbers only."""

    real_logits: Logits
    loss: Scalar
    d_real: Scalar
    d_fake: Scalar
    sign: Scalar
    penalties: dict[str, Scalar]


@dataclass(frozen=True)
class Answer:
    """What came of G's pictures: its loss, and how real the updated D takes them for."""

    loss: Scalar
    belief: Scalar


def judge(
    discriminator: Discriminator, rules: Rules, real: Images, fake: Images, labels: Labels | None, penalise: bool, chance: Chance | None = None
) -> Judged:
    """Return D's logits on both batches, passed apart so that their batch statistics stay apart, its loss and its penalties."""
    on = {name: penalty for name, penalty in PENALTIES.items() if penalise and rules.objective.weight(name) > 0}
    slopes_on = {penalty.slope_on for penalty in on.values()}
    real, fake = real.detach().requires_grad_("real" in slopes_on), fake.detach().requires_grad_("fake" in slopes_on)

    def critic(images: Images) -> Float[Tensor, " logit"]:
        with rules.devices.autocast():
            return discriminator(images, labels)

    fake_logits = critic(fake)
    real_logits = critic(real)
    mix, noise = (None, None) if chance is None else (chance.mix, chance.noise)
    seen = Seen(critic, real, fake, real_logits, fake_logits, mix, noise)
    penalties = dict.fromkeys(PENALTIES, torch.zeros((), device=real.device)) | {name: penalty.value(seen) for name, penalty in on.items()}
    return Judged(fake_logits, real_logits, rules.loss.discriminator(real_logits, fake_logits), penalties)


def _weighted(judged: Judged, objective: ObjectiveConfig) -> Scalar:
    """Return the penalties as D pays for them; what is computed on every n-th step counts n times."""
    charged = [objective.weight(name) * penalty.share * judged.penalties[name] for name, penalty in PENALTIES.items()]
    return objective.penalty_interval * torch.stack(charged).sum()


def _verdict(judged: Judged, loss: Loss) -> Verdict:
    real, fake = judged.real_logits.detach(), judged.fake_logits.detach()
    penalties = {name: value.detach() for name, value in judged.penalties.items()}
    return Verdict(real, judged.loss.detach(), loss.belief(real, fake), loss.belief(fake, real), loss.margin(real, fake).sign().mean(), penalties)


@contextmanager
def frozen(player: nn.Module) -> Iterator[None]:
    """Inside the block, compute no gradient of this player's weights; gradients still flow through it."""
    learning = [parameter for parameter in player.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def learn(player: nn.Module, optimizer: Optimizer, costs: Iterable[Scalar], devices: Devices) -> Scalar:
    """Update one player by the sum of these costs, and it alone: gradients are asked for by name, so the opponent's are never computed.

    Each cost's gradient is taken before the next is asked for. Returns the length of their sum, over all processes together. If that or a
    cost is not a finite number, nothing is updated: every process sees the same sum, so all of them refuse.
    """
    parameters = [parameter for parameter in player.parameters() if parameter.requires_grad]
    added: list[Tensor] = []
    for cost in costs:
        new = [*torch.autograd.grad(cost, parameters), cost.detach()]
        added = new if not added else [old + more for old, more in zip(added, new, strict=True)]
    *gradients, shared_cost = devices.processes.average(added)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Fused Adam walks raw memory: a gradient laid out otherwise than its parameter would update the wrong weights.
        parameter.grad = gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
    length = length_of(gradients) + 0 * shared_cost
    _step_if(length.isfinite(), optimizer, devices)
    optimizer.zero_grad(set_to_none=True)
    return length


def length_of(gradients: list[Tensor]) -> Scalar:
    """Return the Euclidean length of all gradients together; not finite if any number in them is not."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # pyright: ignore[reportPrivateImportUsage] - as torch's own clipping


def _step_if(allowed: Bool[Tensor, ""], optimizer: Optimizer, devices: Devices) -> None:
    """Let the optimizer step if it is allowed; where the host runs ahead, its kernel decides, so that the loop need not wait for the answer."""
    if devices.runs_ahead:
        optimizer.found_inf = (~allowed).float()  # pyright: ignore[reportAttributeAccessIssue] - how torch.amp tells a fused optimizer to stand still
        optimizer.step()
    elif allowed:
        optimizer.step()


def _mean(values: Sequence[Scalar]) -> Scalar:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()
