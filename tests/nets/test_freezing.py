"""Frozen stages: which parameters they hold, in every architecture."""

import pytest

from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.freezing import freeze_stages
from cardigan.nets.table import NETS, build_discriminator, build_generator
from cardigan.overrides import override
from cardigan.recipes import find_recipe

SPEC = ImageSpec(3, 32, 32, 0)


def network_of(name: str, part: str):
    config = override(
        find_recipe("images-dcgan").config(),
        {
            **{"data.height": 32, "data.width": 32, f"{part}.network": name, f"{part}.width": 4},
            "generator.normalization": "none",
            "generator.initialization": "torch",
        },
    )
    build = build_generator if part == "generator" else build_discriminator
    return build(config, SPEC)


BOTH = [
    (name, part)
    for name, architecture in NETS.items()
    for part in ("generator", "discriminator")
    if getattr(architecture, part) is not None and name != "projected"
]


@pytest.mark.parametrize(("name", "part"), BOTH)
def test_each_further_stage_freezes_more_and_the_last_layer_is_never_frozen(name, part):
    network = network_of(name, part)
    stages = {key: network.stage_of(key) for key, _ in network.named_parameters()}
    num_stages = 1 + max(stage for stage in stages.values() if stage is not None)
    counts = []
    for count in range(num_stages + 1):
        network = network_of(name, part)
        frozen = freeze_stages(network, count, part)
        assert {key for key, value in network.named_parameters() if not value.requires_grad} == set(frozen)
        counts.append(len(frozen))
    assert counts[0] == 0 and all(low < high for low, high in zip(counts, counts[1:], strict=False))
    assert counts[-1] < len(stages)
    with pytest.raises(CardiganError, match=f"{part}.frozen_stages is {num_stages + 1}, but this network has"):
        freeze_stages(network_of(name, part), num_stages + 1, part)


def test_dcgan_discriminator_freezes_from_the_image_and_generator_from_the_latent():
    discriminator, generator = network_of("dcgan", "discriminator"), network_of("dcgan", "generator")
    assert freeze_stages(discriminator, 1, "discriminator") == ["down_convs.0.weight", "down_convs.0.bias"]
    assert freeze_stages(generator, 1, "generator") == ["from_latent.weight", "from_latent.bias"]
