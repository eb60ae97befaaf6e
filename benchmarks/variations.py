"""Variations of the recipe `mnist`, each a dict of settings by dotted name; together they use every option of training.

    override(config_for("mnist"), {**SMALL, **VARIATIONS["loss hinge"], "device": "cpu"})

`benchmarks/gpu.py` compares recorded, eager and resumed steps of each of them on a GPU. The tests do so on a CPU.
"""

from typing import Any

from cardigan.config import Config
from cardigan.nets.table import NETS
from cardigan.objective.augment import ADA, DIFF_AUGMENT
from cardigan.objective.losses import LOSSES
from cardigan.objective.penalties import PENALTIES
from cardigan.overrides import override

SMALL: dict[str, Any] = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "data.max_images": 2_048}
"""Reduced sizes, for any recipe."""

_EVERY_STEP = {"objective.penalty_interval": 1}
_NO_PENALTY = {"objective.penalties": {}, **_EVERY_STEP}
_OTHER_NETWORK = {"generator.normalization": "none", "generator.initialization": "torch"}
"""Settings of the recipe's DCGAN that the other networks do not have."""
_COLOR = {"data.channels": 3}
_PROJECTED = {"discriminator.network": "projected", "discriminator.minibatch_stddev": 4}


def _network(name: str) -> dict[str, Any]:
    networks = {f"{network}.network": name for network in ("generator", "discriminator")}
    return {**networks, **({} if name == "dcgan" else _OTHER_NETWORK)}


def _conditioning(name: str) -> dict[str, Any]:
    return {f"{network}.conditioning": name for network in ("generator", "discriminator")}


_LOSSES = {f"loss {name}": {"objective.loss": name} for name in LOSSES}
_PENALTIES = {
    **{f"penalty {name}": {**_NO_PENALTY, f"objective.penalties.{name}": 1.0} for name in PENALTIES},
    "penalty none": {**_NO_PENALTY, "objective.loss": "non-saturating"},
    "penalty all": {**{f"objective.penalties.{name}": 1.0 for name in PENALTIES}, **_EVERY_STEP},
    "penalty every step": _EVERY_STEP,
    "penalty lazy wgan_gp": {**_NO_PENALTY, "objective.penalties.wgan_gp": 10.0, "objective.penalty_interval": 3},
    "penalty schedule": {"objective.penalty_initial_factor": 10.0, "objective.penalty_decay_images": 256},
}
_NETWORKS = {
    **{f"network {name}": _network(name) for name, family in NETS.items() if family.generator and family.discriminator},
    "network light against projected": {
        **_PROJECTED,
        "generator.network": "light",
        "generator.options.skip": 2,
        "discriminator.options.head_width": 16,
    },
    "network projected, spectral": {**_PROJECTED, **_NO_PENALTY, "discriminator.spectral_norm": True},
    "network dcgan, depth 2": {"generator.depth": 2, "discriminator.depth": 2},
    "network dcgan, its paper's weights in both": {"discriminator.initialization": "dcgan"},
    "network dcgan, no normalization": {"generator.normalization": "none"},
    "network dcgan, batch normalization in both": {"discriminator.normalization": "batch"},
    "network dcgan, batch normalization without scale": {"generator.normalization": "batch-no-scale"},
    "network resnet, batch normalization": {**_network("resnet"), "generator.normalization": "batch"},
    "spectral dcgan": {"discriminator.spectral_norm": True},
    "spectral resnet": {**_network("resnet"), "generator.spectral_norm": True, "discriminator.spectral_norm": True},
    "spectral mlp": {**_network("mlp"), "discriminator.spectral_norm": True},
    "attention": {
        **_network("resnet"),
        "generator.options.attention_resolution": 16,
        "discriminator.options.attention_resolution": 16,
    },
    "minibatch stddev": {"discriminator.minibatch_stddev": 4},
    "pac": {"pac": 2, "conditional": False},
}
_STEPS = {
    "clusters": {"data.clusters": 8},
    "gradient accumulation": {"gradient_accumulation": 2},
    "gradient accumulation, lazy dragan": {
        **_NO_PENALTY,
        "objective.penalties.dragan": 10.0,
        "objective.penalty_interval": 2,
        "gradient_accumulation": 4,
    },
    "correspondence": {"objective.correspondence": 1000.0, "start_from": "a model"},
    "correspondence, gradient accumulation": {
        **{"objective.correspondence": 1000.0, "start_from": "a model", "gradient_accumulation": 2},
        "generator.network": "light",
        **_OTHER_NETWORK,
        "generator.options.skip": 2,
    },
    "n_critic 3": {"n_critic": 3, "objective.penalty_interval": 2},
    "ema off": {"ema.half_life_images": 0, "ema.rampup_ratio": 0.0},
    "learning rate warm-up and decay": {
        "generator_optimizer.warmup_images": 160,
        "discriminator_optimizer.warmup_images": 64,
        "generator_optimizer.decay_start_images": 160,
        "discriminator_optimizer.decay_start_images": 96,
    },
    "learning rate to zero": {
        "generator_optimizer.schedule": "cosine",
        "generator_optimizer.decay_end_images": 1_000_000,
        "discriminator_optimizer.schedule": "linear",
        "discriminator_optimizer.decay_end_images": 1_000_000,
    },
    "adam beta1 0.5": {"generator_optimizer.beta1": 0.5, "discriminator_optimizer.beta1": 0.5},
    "combined options": {
        **{"gradient_accumulation": 2, "pac": 2, "conditional": False, "n_critic": 2},
        **{"augment.operations": "translation,cutout", "augment.probability": 0.5, "ema.rampup_ratio": 0.0},
    },
}
_AUGMENTATION = {
    "ada geometry": {
        **{
            "augment.operations": "integer-translation,isotropic-scale,rotate,anisotropic-scale,fractional-translation",
            "augment.target": 0.6,
        },
        "augment.ramp_images": 320,
    },
    "ada all operations": {
        **_COLOR,
        **{
            "augment.operations": ",".join(ADA),
            "augment.probability": 0.2,
            "augment.target": 0.6,
            "augment.ramp_images": 320,
        },
    },
    "delayed diffaugment, own batch statistics": {
        **_COLOR,
        **{"augment.operations": ",".join(DIFF_AUGMENT), "augment.probability": 1.0, "augment.start_images": 64},
        "ema.statistics_samples": 32,
    },
    "diffaugment": {**_COLOR, "augment.operations": ",".join(DIFF_AUGMENT), "augment.probability": 1.0},
    **{
        f"augmentation {name}": {**_COLOR, "augment.operations": name, "augment.probability": 0.5}
        for name in (*ADA, *DIFF_AUGMENT)
    },
}
_CLASSES = {
    "unconditional": {"conditional": False},
    "conditioning one-hot": _conditioning("one-hot"),
    "conditioning projection": _conditioning("projection"),
    "conditioning projection, mlp": {**_network("mlp"), **_conditioning("projection")},
}
_DATA = {
    "latents uniform": {"latent.distribution": "uniform"},
    "horizontal flip": {"data.horizontal_flip": True},
    "color, not square": {**_COLOR, "data.height": 32, "data.width": 48, "data.resize": "crop"},
    "stretched": {"data.height": 24, "data.width": 24, "data.resize": "stretch"},
}
_PRECISION = {f"precision {name}": {"precision": name} for name in ("fp32", "tf32", "bf16")}

VARIATIONS: dict[str, dict[str, Any]] = {
    **_LOSSES,
    **_PENALTIES,
    **_NETWORKS,
    **_STEPS,
    **_AUGMENTATION,
    **_CLASSES,
    **_DATA,
    **_PRECISION,
}


def reduced(config: Config, settings: dict[str, Any]) -> Config:
    """Return the config with these settings, and with as few clusters as few images allow."""
    clusters = {"data.clusters": 8} if config.data.clusters else {}
    return override(config, {**settings, **clusters})
