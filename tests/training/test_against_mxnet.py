"""The recipe `tutorial` against results of the MXNet tutorial (golden/tutorial_iterations.npz, width 8, batch 16)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardigan.config import Config
from cardigan.data.batches import Batch
from cardigan.data.mnist import load_mnist
from cardigan.data.resize import to_training_shape
from cardigan.experiment.build import build_spec, build_state, build_step_config
from cardigan.overrides import override
from cardigan.pixels import decode
from cardigan.recipes import tutorial
from cardigan.training.devices import Devices
from cardigan.training.step_types import RandomDraws
from cardigan.training.steps import discriminator_forward, train_step

pytestmark = pytest.mark.alone  # the order of sums, and so the rounding, depends on the number of cores

RECORDED_ITERATIONS = np.load(Path(__file__).parents[1] / "golden" / "tutorial_iterations.npz")
DEVICES = Devices(torch.device("cpu"))
NETWORK_NAMES = {"g": ("from_latent", "up_convs", "norms", "gbn"), "d": ("head", "down_convs", "norms", "dbn")}


def config() -> Config:
    return override(tutorial(), {"generator.width": 8, "discriminator.width": 8, "batch_size": 16, "precision": "fp32"})


def mxnet_name(key: str, role: str) -> str | None:
    """Return MXNet's name of the parameter `key`, or None if it has none (running statistics)."""
    layer, *rest = key.split(".")
    if layer == "from_latent":
        return "g1_weight"
    if layer == "head":
        return "d5_weight"
    depth = int(rest[0])
    if layer == "up_convs":
        return f"g{depth + 2}_weight"
    if layer == "down_convs":
        return f"d{depth + 1}_weight"
    kind = {"weight": "gamma", "bias": "beta"}.get(rest[1])
    return None if kind is None else f"{role}bn{depth + 1}_{kind}"


def load(network: torch.nn.Module, role: str, prefix: str) -> None:
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(RECORDED_ITERATIONS[f"{prefix}/{mxnet_name(key, role)}"]))


def relative(actual: torch.Tensor, reference: np.ndarray) -> float:
    expected = torch.from_numpy(reference)
    return float((actual.detach() - expected).norm() / expected.norm())


@pytest.fixture
def networks_and_config():
    state = build_state(config(), build_spec(config(), load_mnist("test")), DEVICES)
    load(state.networks.generator, "g", "g0")
    load(state.networks.discriminator, "d", "d0")
    return state.networks, build_step_config(config(), DEVICES)


def real(step: int) -> Batch:
    images = decode(torch.from_numpy(RECORDED_ITERATIONS["resized"][step])[:, None]).expand(-1, 3, -1, -1)
    return Batch(images, torch.zeros(16, dtype=torch.int64))


def z(step: int) -> torch.Tensor:
    return torch.from_numpy(RECORDED_ITERATIONS["z"][step])[:, :, 0, 0]


def test_resize_matches_tutorial_within_one_gray_level():
    actual = to_training_shape(torch.from_numpy(RECORDED_ITERATIONS["digits"].reshape(-1, 1, 28, 28)), config().data)
    reference = decode(torch.from_numpy(RECORDED_ITERATIONS["resized"].reshape(-1, 1, 64, 64))).expand(-1, 3, -1, -1)
    error = (actual - reference).abs() * 127.5
    assert error.max() < 1.01
    assert (error > 0.5).float().mean() < 0.025  # cv2 computes in 11-bit fixed point


def test_first_images_and_gradients(networks_and_config):
    networks, step_config = networks_and_config
    fake = networks.generator(z(0))
    assert (fake - torch.from_numpy(RECORDED_ITERATIONS["fake_0"])).abs().max() <= 1e-5
    output = discriminator_forward(
        networks.discriminator, step_config, real(0).images, fake, None, apply_penalties=True
    )
    for key, gradient in gradients(output.loss, networks.discriminator):
        assert relative(gradient, RECORDED_ITERATIONS[f"grad_d/{mxnet_name(key, 'd')}"]) <= 1e-3, key


def gradients(loss: torch.Tensor, network: torch.nn.Module):
    named = [(key, parameter) for key, parameter in network.named_parameters() if parameter.requires_grad]
    return zip([key for key, _ in named], torch.autograd.grad(loss, [parameter for _, parameter in named]), strict=True)


def test_generator_gradients_use_updated_discriminator(networks_and_config):
    networks, step_config = networks_and_config
    before = {key: parameter.clone() for key, parameter in networks.generator.named_parameters()}
    sgd = torch.optim.SGD(
        [p for p in networks.generator.parameters() if p.requires_grad], lr=1.0
    )  # its step is the gradient itself
    networks = replace(networks, generator_optimizer=sgd)
    train_step(networks, step_config, [(real(0), RandomDraws(z(0)))])
    for key, parameter in networks.generator.named_parameters():
        if parameter.requires_grad:
            assert (
                relative(before[key] - parameter.detach(), RECORDED_ITERATIONS[f"grad_g/{mxnet_name(key, 'g')}"])
                <= 5e-2
            ), key


def test_five_iterations_match_tutorial_probabilities(networks_and_config):
    networks, step_config = networks_and_config
    for step in range(5):
        probabilities: list[torch.Tensor] = []
        hook = networks.discriminator.register_forward_hook(
            lambda module, given, logits, probabilities=probabilities: probabilities.append(
                torch.sigmoid(logits.detach())
            )
        )
        train_step(networks, step_config, [(real(step), RandomDraws(z(step)))])
        hook.remove()
        tolerance = 1e-4 if step == 0 else 3e-2
        for actual, name in zip(probabilities, ("p_fake", "p_real", "p_gen"), strict=True):
            assert relative(actual, RECORDED_ITERATIONS[f"{name}_{step}"]) <= tolerance, (step, name)


def test_five_iterations_match_tutorial_weights(networks_and_config):
    networks, step_config = networks_and_config
    for step in range(5):
        train_step(networks, step_config, [(real(step), RandomDraws(z(step)))])
    for role, network, prefix in (("g", networks.generator, "gT"), ("d", networks.discriminator, "dT")):
        for key, parameter in network.named_parameters():
            reference = torch.from_numpy(RECORDED_ITERATIONS[f"{prefix}/{mxnet_name(key, role)}"])
            assert (parameter - reference).abs().mean() < 1e-4, key
