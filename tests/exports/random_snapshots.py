"""Untrained snapshots of every network, with random weights and non-initial batch statistics."""

from dataclasses import replace

import torch

from cardigan.config import Config
from cardigan.config_parts import DataConfig, LatentConfig, NetworkConfig
from cardigan.data.source import image_spec
from cardigan.models.snapshot import Snapshot
from cardigan.nets.table import build_generator

NETWORKS = {
    "dcgan": NetworkConfig(width=4, normalization="batch"),
    "dcgan-shift": NetworkConfig(width=4, normalization="batch-no-scale"),
    "dcgan-spectral": NetworkConfig(width=4, spectral_norm=True),
    "dcgan-one-hot": NetworkConfig(width=4, normalization="batch", conditioning="one-hot"),
    "resnet": NetworkConfig(
        network="resnet", width=8, normalization="batch", spectral_norm=True, options={"attention_resolution": 8}
    ),
    "resnet-plain": NetworkConfig(network="resnet", width=4, depth=2),
    "r3gan": NetworkConfig(network="r3gan", width=8, depth=1),
    "mlp": NetworkConfig(network="mlp", width=16),
    "mlp-one-hot": NetworkConfig(network="mlp", width=16, spectral_norm=True, conditioning="one-hot"),
}


def random_snapshot(
    network="dcgan", classes=0, channels=1, height=16, width=16, distribution="normal", names=()
) -> Snapshot:
    settings = NETWORKS[network]
    if not classes and settings.conditioning == "one-hot":
        settings = replace(settings, conditioning="auto")
    data = DataConfig(height=height, width=width, channels=channels)
    config = Config(
        data=data, latent=LatentConfig(size=8, distribution=distribution), generator=settings, conditional=classes > 0
    )
    spec = image_spec(data, classes, tuple(names))
    with torch.random.fork_rng():
        torch.manual_seed(len(network))
        generator = build_generator(config, spec)
        for name, tensor in generator.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(".u"):
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) * 0.2)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, 640)
