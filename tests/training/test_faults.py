"""Faults provoked in real trainings, seconds each: every one is named rightly, healthy ones raise nothing."""

from dataclasses import replace

import pytest
import torch

import cardigan
from cardigan import assemble
from cardigan.errors import CardiganError
from cardigan.run.journal import Event, read_events
from cardigan.training import loop, recorder

SMALL = {"batch": 16, "generator.width": 8, "discriminator.width": 8, "device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch):
    """So short a training is looked at after every step, which also makes it the same on every machine."""
    monkeypatch.setattr(recorder, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "PROBE_SHARE", 1.0)


def faults(out, images: int, recipe: str = "mnist", **changes) -> list[str]:
    """Train, and return the names of the faults that were told of, in order."""
    events: list[Event] = []
    overrides = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    cardigan.train("mnist", recipe=recipe, out=out, images=images, overrides=overrides, report=events.append)
    return [event.values["name"] for event in events if event.kind == "fault"]


@pytest.mark.parametrize("seed", [0, 1])
def test_healthy_runs_raise_nothing(tmp_path, seed):
    assert faults(tmp_path / "run", 8_000, seed=seed) == []


def test_discriminator_that_learns_fifty_times_too_fast_diverges(tmp_path):
    assert faults(tmp_path / "run", 1_600, discriminator_optimizer__learning_rate=0.1)[0] == "divergence"


def test_generator_that_learns_fifty_times_too_fast_wins(tmp_path):
    assert faults(tmp_path / "run", 1_200, "tutorial", generator_optimizer__learning_rate=0.01)[0] == "generator won"


def test_generator_without_normalisation_that_learns_fifty_times_too_fast_collapses(tmp_path):
    names = faults(tmp_path / "run", 6_000, generator_optimizer__learning_rate=0.1, generator__normalisation="none")
    assert names[0] == "collapse"


def test_dead_generator_has_collapsed(tmp_path, monkeypatch):
    alive = assemble.build_state

    def dead(*arguments):
        state = alive(*arguments)
        for module in state.players.generator.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.bias, -20.0)
        return state

    monkeypatch.setattr(assemble, "build_state", dead)
    assert faults(tmp_path / "run", 800)[0] == "collapse"


def test_twenty_pictures_are_known_by_heart(tmp_path):
    assert faults(tmp_path / "run", 9_000, data__limit=20)[0] == "overfitting"


def test_four_pictures_are_copied(tmp_path):
    assert "memorising" in faults(tmp_path / "run", 7_000, data__limit=4)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_step_that_is_no_number_is_neither_applied_nor_saved(tmp_path, monkeypatch, player):
    """The loss of one player becomes NaN in the tenth step."""
    rules_of, calls, weights = assemble.build_rules, [], []

    def poisoned(config, devices):
        rules = rules_of(config, devices)
        whole = getattr(rules.loss, player)

        def loss(real, fake):
            calls.append(1)
            return whole(real, fake) * (float("nan") if len(calls) == 10 else 1.0)

        return replace(rules, loss=replace(rules.loss, **{player: loss}))

    state_of = assemble.build_state

    def remembered(*arguments):
        weights.append(state_of(*arguments))
        return weights[0]

    monkeypatch.setattr(assemble, "build_rules", poisoned)
    monkeypatch.setattr(assemble, "build_state", remembered)
    with pytest.raises(CardiganError, match=r"Training broke before 160 images: .*was not applied"):
        faults(tmp_path / "run", 1_600, checkpoint_every=64)
    for network in (weights[0].players.generator, weights[0].players.discriminator, weights[0].average):
        assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == 128
    last = read_events(tmp_path / "run" / "journal.jsonl")[-1]
    assert (last.kind, last.values["name"]) == ("fault", "non-finite")
    assert cardigan.load(tmp_path / "run").images_seen == 128


def test_no_sheet_is_drawn_from_a_step_that_was_refused(tmp_path, monkeypatch):
    """On a GPU numbers are read late; a sheet that is due meanwhile would show the batch statistics of the refused step."""
    monkeypatch.setattr(loop, "seen_broken", lambda measured: {})
    monkeypatch.setattr(recorder, "PROGRESS_SECONDS", 1e9)
    rules_of, calls = assemble.build_rules, []

    def poisoned(config, devices):
        rules = rules_of(config, devices)

        def loss(real, fake):
            calls.append(1)
            return rules.loss.generator(real, fake) * (float("nan") if len(calls) == 10 else 1.0)

        return replace(rules, loss=replace(rules.loss, generator=loss))

    monkeypatch.setattr(assemble, "build_rules", poisoned)
    with pytest.raises(CardiganError, match=r"Training broke before 160 images"):
        faults(tmp_path / "run", 1_600, checkpoint_every=10_000, sample_every=80)
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == ["00000000.png", "00000080.png"]
