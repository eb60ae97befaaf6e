"""The recipe `tutorial` against what the MXNet tutorial's own program computed (golden/tutorial_iterations.npz, width 8, batch 16)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardigan.assemble import build_rules, build_spec, build_state
from cardigan.config import Config, override
from cardigan.data.batches import Batch
from cardigan.data.mnist import mnist
from cardigan.data.source import framed
from cardigan.pixels import decode
from cardigan.recipes import tutorial
from cardigan.training.devices import Devices
from cardigan.training.steps import Chance, Game, iterate, judge

pytestmark = pytest.mark.alone  # the order of its sums, and so its rounding, is that of all cores

RECORD = np.load(Path(__file__).parents[1] / "golden" / "tutorial_iterations.npz")
DEVICES = Devices(torch.device("cpu"))
NETWORK_NAMES = {"g": ("start", "doublings", "norms", "gbn"), "d": ("verdict", "halvings", "norms", "dbn")}


def config() -> Config:
    return override(tutorial(), {"generator.width": 8, "discriminator.width": 8, "batch": 16, "precision": "fp32"})


def mxnet_name(key: str, player: str) -> str | None:
    """The name MXNet's program gave to the parameter we call `key`; None for what it has not (running statistics)."""
    layer, *rest = key.split(".")
    if layer == "start":
        return "g1_weight"
    if layer == "verdict":
        return "d5_weight"
    depth = int(rest[0])
    if layer == "doublings":
        return f"g{depth + 2}_weight"
    if layer == "halvings":
        return f"d{depth + 1}_weight"
    kind = {"weight": "gamma", "bias": "beta"}.get(rest[1])
    return None if kind is None else f"{player}bn{depth + 1}_{kind}"


def load(network: torch.nn.Module, player: str, prefix: str) -> None:
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(RECORD[f"{prefix}/{mxnet_name(key, player)}"]))


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    expected = torch.from_numpy(theirs)
    return float((ours.detach() - expected).norm() / expected.norm())


@pytest.fixture
def game():
    state = build_state(config(), build_spec(config(), mnist("test")), DEVICES)
    load(state.players.generator, "g", "g0")
    load(state.players.discriminator, "d", "d0")
    return state.players, build_rules(config(), DEVICES)


def real(step: int) -> Batch:
    images = decode(torch.from_numpy(RECORD["resized"][step])[:, None]).expand(-1, 3, -1, -1)
    return Batch(images, torch.zeros(16, dtype=torch.int64))


def z(step: int) -> torch.Tensor:
    return torch.from_numpy(RECORD["z"][step])[:, :, 0, 0]


def test_resizing_is_the_tutorials_within_one_grey_level():
    ours = framed(torch.from_numpy(RECORD["digits"].reshape(-1, 1, 28, 28)), config().data)
    theirs = decode(torch.from_numpy(RECORD["resized"].reshape(-1, 1, 64, 64))).expand(-1, 3, -1, -1)
    off = (ours - theirs).abs() * 127.5
    assert off.max() < 1.01
    assert (off > 0.5).float().mean() < 0.025  # cv2 counts in 11-bit fixed point


def test_first_images_and_gradients(game):
    players, rules = game
    fake = players.generator(z(0))
    assert (fake - torch.from_numpy(RECORD["fake_0"])).abs().max() <= 1e-5
    judged = judge(players.discriminator, rules, real(0).images, fake, None, penalise=True)
    for key, gradient in gradients(judged.loss, players.discriminator):
        assert relative(gradient, RECORD[f"grad_d/{mxnet_name(key, 'd')}"]) <= 1e-3, key


def gradients(loss: torch.Tensor, network: torch.nn.Module):
    named = [(key, parameter) for key, parameter in network.named_parameters() if parameter.requires_grad]
    return zip([key for key, _ in named], torch.autograd.grad(loss, [parameter for _, parameter in named]), strict=True)


def test_generator_gradients_come_through_the_updated_discriminator(game):
    players, rules = game
    before = {key: parameter.clone() for key, parameter in players.generator.named_parameters()}
    descent = torch.optim.SGD([p for p in players.generator.parameters() if p.requires_grad], lr=1.0)  # its step is the gradient itself
    players = replace(players, generator_optimizer=descent)
    iterate(Game(players, rules), [(real(0), Chance(z(0)))])
    for key, parameter in players.generator.named_parameters():
        if parameter.requires_grad:
            assert relative(before[key] - parameter.detach(), RECORD[f"grad_g/{mxnet_name(key, 'g')}"]) <= 5e-2, key


def test_five_iterations_have_the_tutorials_probabilities(game):
    players, rules = game
    for step in range(5):
        seen: list[torch.Tensor] = []
        watch = players.discriminator.register_forward_hook(lambda module, given, logits, seen=seen: seen.append(torch.sigmoid(logits.detach())))
        iterate(Game(players, rules), [(real(step), Chance(z(step)))])
        watch.remove()
        tolerance = 1e-4 if step == 0 else 3e-2
        for ours, name in zip(seen, ("p_fake", "p_real", "p_gen"), strict=True):
            assert relative(ours, RECORD[f"{name}_{step}"]) <= tolerance, (step, name)


def test_five_iterations_end_at_the_tutorials_weights(game):
    players, rules = game
    for step in range(5):
        iterate(Game(players, rules), [(real(step), Chance(z(step)))])
    for player, network, prefix in (("g", players.generator, "gT"), ("d", players.discriminator, "dT")):
        for key, parameter in network.named_parameters():
            theirs = torch.from_numpy(RECORD[f"{prefix}/{mxnet_name(key, player)}"])
            assert (parameter - theirs).abs().mean() < 1e-4, key
