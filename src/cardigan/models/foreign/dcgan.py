"""Convert generators of PyTorch's DCGAN example and of the MXNet tutorial to Cardigan's tensors and config.

All three are the same network. Sizes, widths and channels follow from the tensor shapes. The epsilons of both programs
(1e-5, and 1e-5 + 1e-12) differ by less than rounding.
"""

from dataclasses import dataclass, replace

import torch

from cardigan.config import Config
from cardigan.config_parts import DataConfig, EmaConfig, LatentConfig, NetworkConfig, OptimizerConfig
from cardigan.data.source import image_spec
from cardigan.models.foreign.tensor_storage import UnsupportedFile
from cardigan.nets.stages import channels_per_stage, stages
from cardigan.nets.table import build_generator

PREFIXES = ("module.", "_orig_mod.")
"""Name prefixes of DataParallel and torch.compile."""
KERNEL_SIZE = (4, 4)
NUM_CHANNELS = (1, 3, 4)
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class ForeignGenerator:
    """A supported program and the names of each layer's tensors: the weight and four normalization tensors."""

    recipe: str
    title: str
    weight: str
    norm_tensors: tuple[str, str, str, str]
    num_batches_name: str
    """Name of the batch counter, which is unused and may be missing."""
    discriminator_tensor: str
    """A tensor that only the discriminator has."""
    training_data: str
    """The training images; "" if unknown."""

    def weight_name(self, layer: int) -> str:
        return _tensor_name(self.weight, layer)

    def norm_names(self, layer: int) -> list[str]:
        return [_tensor_name(name, layer) for name in self.norm_tensors]


PYTORCH = ForeignGenerator(
    "pytorch-dcgan",
    "the generator of PyTorch's DCGAN example",
    "main.{first}.weight",
    ("main.{second}.weight", "main.{second}.bias", "main.{second}.running_mean", "main.{second}.running_var"),
    "main.{second}.num_batches_tracked",
    "main.2.weight",
    "",
)
MXNET = ForeignGenerator(
    "mxnet-tutorial",
    "the generator of the MXNet tutorial",
    "g{layer}_weight",
    ("gbn{layer}_gamma", "gbn{layer}_beta", "gbn{layer}_moving_mean", "gbn{layer}_moving_var"),
    "",
    "d1_weight",
    "mnist",
)


def _tensor_name(name: str, layer: int) -> str:
    return name.format(layer=layer, first=3 * layer - 3, second=3 * layer - 2)


def convert_generator(
    tensors: dict[str, torch.Tensor], foreign: ForeignGenerator
) -> tuple[Config, dict[str, torch.Tensor]]:
    """Return the config of a generator and its fp32 state dict. Raises UnsupportedFile for another network."""
    foreign_tensors = {_strip_prefixes(name): tensor for name, tensor in tensors.items()}
    if foreign.discriminator_tensor in foreign_tensors:
        raise UnsupportedFile(
            "holds a discriminator, which cannot generate images: give the generator that was saved with it"
        )
    depth = 0
    while foreign.weight_name(depth + 1) in foreign_tensors:
        depth += 1
    required = {foreign.weight_name(layer + 1) for layer in range(depth)} | {
        name for layer in range(1, depth) for name in foreign.norm_names(layer)
    }
    optional = {_tensor_name(foreign.num_batches_name, layer) for layer in range(1, depth)}
    if depth < 2 or not required <= foreign_tensors.keys() <= required | optional:
        unexpected = min(required - foreign_tensors.keys(), default="") or min(
            foreign_tensors.keys() - required - optional, default=""
        )
        problem = (
            f"{unexpected[:80]!r} is {'missing' if unexpected in required else 'unexpected'}"
            if depth >= 2 and unexpected
            else f"there is no {foreign.weight_name(1)!r}"
        )
        raise UnsupportedFile(
            f"holds {len(foreign_tensors):,} tensors that are not {foreign.title} ({problem}): "
            "only that network is supported"
        )
    converted = {"from_latent.weight": foreign_tensors[foreign.weight_name(1)]}
    for layer in range(1, depth):
        converted[f"up_convs.{layer - 1}.weight"] = foreign_tensors[foreign.weight_name(layer + 1)]
        converted |= {
            f"norms.{layer - 1}.{name}": foreign_tensors[foreign_name]
            for name, foreign_name in zip(NORM_TENSORS, foreign.norm_names(layer), strict=True)
        }
    if not all(tensor.is_floating_point() for tensor in converted.values()):
        raise UnsupportedFile("holds integers where weights were expected")
    config = _config(converted, depth - 1, foreign)
    batch_counters = {
        f"norms.{index}.num_batches_tracked": torch.zeros((), dtype=torch.int64) for index in range(depth - 1)
    }
    state_dict = {name: tensor.float() for name, tensor in converted.items()} | batch_counters
    _check_shapes(config, state_dict, foreign)
    return config, state_dict


def _check_shapes(config: Config, state_dict: dict[str, torch.Tensor], foreign: ForeignGenerator) -> None:
    with torch.device("meta"):
        expected = build_generator(config, image_spec(config.data, 0)).state_dict()
    mismatched = [name for name, tensor in state_dict.items() if tensor.shape != expected[name].shape]
    if mismatched:
        raise UnsupportedFile(f"has inconsistent tensor shapes (at {mismatched[0]}), so it is not {foreign.title}")


def _strip_prefixes(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _config(converted: dict[str, torch.Tensor], num_upsamplings: int, foreign: ForeignGenerator) -> Config:
    """Return both programs' training config at the sizes of the tensors. Raises UnsupportedFile for other shapes."""
    weights = [
        converted["from_latent.weight"],
        *(converted[f"up_convs.{index}.weight"] for index in range(num_upsamplings)),
    ]
    if not all(weight.dim() == 4 and tuple(weight.shape[2:]) == KERNEL_SIZE for weight in weights):
        raise UnsupportedFile(f"has other kernels than 4x4, so it is not {foreign.title}")
    size, num_channels, width = 4 * 2**num_upsamplings, weights[-1].shape[1], weights[-1].shape[0]
    found_channels = [weight.shape[0] for weight in weights[1:]]
    channels = channels_per_stage(width, len(stages(size, size)))[::-1]
    if found_channels != channels or num_channels not in NUM_CHANNELS:
        layers = "-".join(map(str, [*found_channels, num_channels]))
        raise UnsupportedFile(
            f"has {layers} channels, but at {size}x{size} Cardigan's network has {'-'.join(map(str, channels))}-3 "
            "(or -1, -4)"
        )
    has_fixed_gamma = foreign is MXNET and all(
        bool((converted[f"norms.{number}.weight"] == 1).all()) for number in range(num_upsamplings)
    )
    network = NetworkConfig(
        width=width, normalization="batch-no-scale" if has_fixed_gamma else "batch", initialization="dcgan"
    )
    adam = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.999)
    return Config(
        recipe=foreign.recipe,
        data=DataConfig(source=foreign.training_data, height=size, width=size, channels=num_channels, resize="crop"),
        latent=LatentConfig(size=weights[0].shape[0]),
        generator=network,
        discriminator=network,
        generator_optimizer=adam,
        discriminator_optimizer=replace(adam),
        ema=EmaConfig(half_life_images=0, rampup_ratio=0.0),
    )
