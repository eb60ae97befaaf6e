"""A recorded GPU step gives the numbers of the step played kernel by kernel. Needs a GPU; everything else of it is tested on the CPU."""

import pytest
import torch

from cardigan.assemble import build_rules, build_source, build_spec, build_state
from cardigan.config import Config, override
from cardigan.data.batches import Batches
from cardigan.recipes import config_for
from cardigan.training.budget import Budget, Clock
from cardigan.training.devices import open_devices
from cardigan.training.loop import Trial, advance, playing
from cardigan.training.replay import Replayed, replayed
from cardigan.training.state import state_tensors


def trained(config: Config, replay: bool, steps: int):
    devices, source = open_devices(config), build_source(config)
    state, rules = build_state(config, build_spec(config, source), devices), build_rules(config, devices)
    batches = Batches(source.to(devices.device), config.data, config.seed)
    play = playing(state, batches, rules)
    trial = Trial(config, batches, rules, Replayed(play) if replay else play, Budget(config, devices.processes, Clock()), None)
    measured = []
    for _ in range(steps):
        state, numbers = advance(trial, state)
        measured.append(numbers)
    return {name: tensor.cpu() for name, tensor in state_tensors(state).items()}, torch.stack(measured).cpu()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", ["mnist", "tutorial"])
def test_replayed_steps_equal_played_ones(recipe):
    """24 steps of the recipe: both kinds of step (with and without penalties) are recorded and replayed, and the learning rate changes."""
    config = override(config_for("mnist", recipe), {"device": "cuda", "generator_optimizer.warm_up_images": 640})
    (ours, ours_measured), (theirs, theirs_measured) = trained(config, True, 24), trained(config, False, 24)
    assert torch.equal(ours_measured, theirs_measured)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_only_a_single_gpu_process_records():
    def work(inputs, kind):
        return inputs.z

    assert replayed(work, torch.device("cpu"), 1) is work
    assert replayed(work, torch.device("cuda"), 2) is work
