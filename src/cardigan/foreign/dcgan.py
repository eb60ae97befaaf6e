"""The generators of PyTorch's DCGAN example and of the MXNet tutorial as ours: which of their tensors is which of ours, and the settings.

All three are the same network; sizes, widths and channels are read off the shapes. Both programs' epsilons (1e-5, and 1e-5 + 1e-12) differ by
less than rounding. Knows no file.
"""

from dataclasses import dataclass, replace

import torch

from cardigan.config import AdamConfig, AverageConfig, Config, DataConfig, LatentConfig, NetworkConfig
from cardigan.data.source import image_spec
from cardigan.foreign.described import Refused
from cardigan.nets.parts import stages, widths
from cardigan.nets.table import build_generator

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
KERNEL = (4, 4)
COLOURS = (1, 3, 4)
OUR_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Program:
    """A program whose generators are known, by the names of layer `n` (from 1): of its weight, and of its normalisation's four tensors."""

    recipe: str
    title: str
    weight: str
    norm: tuple[str, str, str, str]
    counter: str
    """How many batches were seen, which does nothing and may be missing."""
    other_player: str
    """A tensor that only the discriminator has."""
    data: str
    """The pictures it is always trained on; "" where that is not known."""

    def weight_of(self, layer: int) -> str:
        return _named(self.weight, layer)

    def norm_of(self, layer: int) -> list[str]:
        return [_named(name, layer) for name in self.norm]


PYTORCH = Program(
    "pytorch-dcgan",
    "the generator of PyTorch's DCGAN example",
    "main.{first}.weight",
    ("main.{second}.weight", "main.{second}.bias", "main.{second}.running_mean", "main.{second}.running_var"),
    "main.{second}.num_batches_tracked",
    "main.2.weight",
    "",
)
MXNET = Program(
    "mxnet-tutorial",
    "the generator of the MXNet tutorial",
    "g{layer}_weight",
    ("gbn{layer}_gamma", "gbn{layer}_beta", "gbn{layer}_moving_mean", "gbn{layer}_moving_var"),
    "",
    "d1_weight",
    "mnist",
)


def _named(name: str, layer: int) -> str:
    return name.format(layer=layer, first=3 * layer - 3, second=3 * layer - 2)


def as_ours(tensors: dict[str, torch.Tensor], program: Program) -> tuple[Config, dict[str, torch.Tensor]]:
    """Return the settings of a generator and its tensors under our names, fp32. Raises Refused for tensors of another network."""
    theirs = {_without_prefixes(name): tensor for name, tensor in tensors.items()}
    if program.other_player in theirs:
        raise Refused("holds a discriminator, which draws no pictures: give the generator that was saved with it")
    depth = 0
    while program.weight_of(depth + 1) in theirs:
        depth += 1
    needed = {program.weight_of(layer + 1) for layer in range(depth)} | {name for layer in range(1, depth) for name in program.norm_of(layer)}
    spare = {_named(program.counter, layer) for layer in range(1, depth)}
    if depth < 2 or not needed <= theirs.keys() <= needed | spare:
        odd = min(needed - theirs.keys(), default="") or min(theirs.keys() - needed - spare, default="")
        what = f"{odd[:80]!r} is {'missing' if odd in needed else 'too many'}" if depth >= 2 and odd else f"there is no {program.weight_of(1)!r}"
        raise Refused(f"holds {len(theirs):,} tensors that are not {program.title} ({what}): only that network can be taken over")
    ours = {"start.weight": theirs[program.weight_of(1)]}
    for layer in range(1, depth):
        ours[f"doublings.{layer - 1}.weight"] = theirs[program.weight_of(layer + 1)]
        ours |= {f"norms.{layer - 1}.{name}": theirs[other] for name, other in zip(OUR_NORM, program.norm_of(layer), strict=True)}
    if not all(tensor.is_floating_point() for tensor in ours.values()):
        raise Refused("holds whole numbers where weights were expected")
    config = _config(ours, depth - 1, program)
    counters = {f"norms.{number}.num_batches_tracked": torch.zeros((), dtype=torch.int64) for number in range(depth - 1)}
    found = {name: tensor.float() for name, tensor in ours.items()} | counters
    _check_shapes(config, found, program)
    return config, found


def _check_shapes(config: Config, found: dict[str, torch.Tensor], program: Program) -> None:
    with torch.device("meta"):
        expected = build_generator(config, image_spec(config.data, 0)).state_dict()
    wrong = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if wrong:
        raise Refused(f"has tensors of shapes that do not belong together (at our {wrong[0]}), so it is not {program.title}")


def _without_prefixes(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _config(ours: dict[str, torch.Tensor], doublings: int, program: Program) -> Config:
    """Return what both programs are trained with, at the sizes that the shapes tell; raises Refused if they are not our network's."""
    weights = [ours["start.weight"], *(ours[f"doublings.{number}.weight"] for number in range(doublings))]
    if not all(weight.dim() == 4 and tuple(weight.shape[2:]) == KERNEL for weight in weights):
        raise Refused(f"has other kernels than 4x4, so it is not {program.title}")
    side, colours, width = 4 * 2**doublings, weights[-1].shape[1], weights[-1].shape[0]
    given = [weight.shape[0] for weight in weights[1:]]
    channels = widths(width, len(stages(side, side)))[::-1]
    if given != channels or colours not in COLOURS:
        layers = "-".join(map(str, [*given, colours]))
        raise Refused(f"has {layers} channels, where a network of ours at {side}x{side} has {'-'.join(map(str, channels))}-3 (or -1, -4)")
    fixed = program is MXNET and all(bool((ours[f"norms.{number}.weight"] == 1).all()) for number in range(doublings))
    network = NetworkConfig(width=width, normalisation="batch-shift" if fixed else "batch", initialisation="dcgan")
    adam = AdamConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    return Config(
        recipe=program.recipe,
        data=DataConfig(source=program.data, height=side, width=side, channels=colours, fit="crop"),
        latent=LatentConfig(size=weights[0].shape[0]),
        generator=network,
        discriminator=network,
        generator_optimizer=adam,
        discriminator_optimizer=replace(adam),
        average=AverageConfig(half_life_images=0, ramp_up=0.0),
    )
