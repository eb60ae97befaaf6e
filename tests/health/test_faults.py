"""Faults provoked in real training runs of a few seconds are detected; healthy runs have none."""

from dataclasses import replace

import pytest
import torch

import cardigan
from cardigan.errors import CardiganError
from cardigan.experiment import build
from cardigan.run.journal import Event, read_events
from cardigan.training import loop, recorder

SMALL = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def frequent_probing(monkeypatch):
    """Probe after every step, so that the result does not depend on the machine's speed."""
    monkeypatch.setattr(recorder, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "MAX_PROBE_FRACTION", 1.0)


def faults_of_run(out, images: int, recipe: str = "mnist", **changes) -> list[str]:
    """Train, and return the names of the reported faults in order."""
    events: list[Event] = []
    overrides = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    cardigan.train("mnist", recipe=recipe, out=out, images=images, overrides=overrides, on_event=events.append)
    return [event.values["name"] for event in events if event.kind == "fault"]


@pytest.mark.parametrize("seed", [0, 1])
def test_healthy_runs_have_no_faults(tmp_path, seed):
    assert faults_of_run(tmp_path / "run", 8_000, seed=seed) == []


def test_high_discriminator_learning_rate_diverges(tmp_path):
    assert faults_of_run(tmp_path / "run", 1_600, discriminator_optimizer__learning_rate=0.1)[0] == "divergence"


def test_high_generator_learning_rate_makes_discriminator_too_weak(tmp_path):
    assert (
        faults_of_run(tmp_path / "run", 1_200, "tutorial", generator_optimizer__learning_rate=0.01)[0]
        == "discriminator too weak"
    )


def test_unnormalized_generator_with_high_learning_rate_collapses(tmp_path):
    names = faults_of_run(
        tmp_path / "run", 6_000, generator_optimizer__learning_rate=0.1, generator__normalization="none"
    )
    assert names[0] == "mode collapse"


def test_dead_generator_is_a_collapse(tmp_path, monkeypatch):
    original = build.build_state

    def dead_generator_state(*arguments):
        state = original(*arguments)
        for module in state.networks.generator.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.bias, -20.0)
        return state

    monkeypatch.setattr(build, "build_state", dead_generator_state)
    assert faults_of_run(tmp_path / "run", 800)[0] == "mode collapse"


def test_twenty_images_are_overfitted(tmp_path):
    assert faults_of_run(tmp_path / "run", 9_000, data__max_images=20)[0] == "discriminator overfitting"


def test_four_images_are_memorized(tmp_path):
    assert "memorization" in faults_of_run(tmp_path / "run", 7_000, data__max_images=4)


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_non_finite_step_is_neither_applied_nor_saved(tmp_path, monkeypatch, role):
    """The loss of one network becomes NaN in the tenth step."""
    original_step_config, calls, states = build.build_step_config, [], []

    def step_config_with_nan_loss(config, devices):
        step_config = original_step_config(config, devices)
        original_loss = getattr(step_config.loss, role)

        def loss(real, fake):
            calls.append(1)
            return original_loss(real, fake) * (float("nan") if len(calls) == 10 else 1.0)

        return replace(step_config, loss=replace(step_config.loss, **{role: loss}))

    original_state = build.build_state

    def recorded_state(*arguments):
        states.append(original_state(*arguments))
        return states[0]

    monkeypatch.setattr(build, "build_step_config", step_config_with_nan_loss)
    monkeypatch.setattr(build, "build_state", recorded_state)
    with pytest.raises(CardiganError, match=r"Training failed before 160 images: .*was not applied"):
        faults_of_run(tmp_path / "run", 1_600, checkpoint_every_images=64)
    for network in (states[0].networks.generator, states[0].networks.discriminator, states[0].ema_generator):
        assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == 128
    last = read_events(tmp_path / "run" / "journal.jsonl")[-1]
    assert (last.kind, last.values["name"]) == ("fault", "non-finite")
    assert cardigan.load(tmp_path / "run").images_seen == 128


def test_no_samples_after_a_skipped_update(tmp_path, monkeypatch):
    """On a GPU metrics are read late. Samples due before that would use the batch statistics of the skipped step."""
    monkeypatch.setattr(loop, "nonfinite_metrics", lambda metrics, objective: {})
    monkeypatch.setattr(recorder, "PROGRESS_SECONDS", 1e9)
    original_step_config, calls = build.build_step_config, []

    def step_config_with_nan_loss(config, devices):
        step_config = original_step_config(config, devices)

        def loss(real, fake):
            calls.append(1)
            return step_config.loss.generator(real, fake) * (float("nan") if len(calls) == 10 else 1.0)

        return replace(step_config, loss=replace(step_config.loss, generator=loss))

    monkeypatch.setattr(build, "build_step_config", step_config_with_nan_loss)
    with pytest.raises(CardiganError, match=r"Training failed before 160 images"):
        faults_of_run(tmp_path / "run", 1_600, checkpoint_every_images=10_000, sample_every_images=80)
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == ["00000000.png", "00000080.png"]
