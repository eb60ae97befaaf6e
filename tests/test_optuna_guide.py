"""The guide on Optuna: its program runs, and a pruned trial is a run that can be used."""

import json
from pathlib import Path

import pytest

import cardigan
from test_guides import GUIDES, python_blocks

optuna = pytest.importorskip("optuna")

PROGRAM = {
    "200_000, 30": "256, 2",
    "[16, 32, 64]": "[4, 8]",
    "overrides=settings": 'overrides=settings | {"device": "cpu"}',
}
"""What is made smaller in the guide's program."""


class PruneAtOnce(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Run the guide's program in an empty folder; return its names and the folder."""
    (code,) = python_blocks(GUIDES / "optuna.md")
    for text, smaller in PROGRAM.items():
        assert text in code
        code = code.replace(text, smaller)
    folder = tmp_path_factory.mktemp("search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = {}
        exec(compile(code, "optuna.md", "exec"), names)  # noqa: S102 - it is the guide's own code
        yield names, folder


def test_program_searches(program):
    names, folder = program
    study = names["study"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert set(study.best_params) == {"width", "r1", "generator_rate", "discriminator_rate"}
    config = cardigan.load(folder / "runs" / "search" / "trial-000").config
    params = study.trials[0].params
    assert config.generator.width == params["width"]
    assert config.objective.penalties["r1"] == params["r1"]
    assert config.generator_optimizer.learning_rate == params["generator_rate"]


def test_pruned_trial_is_a_whole_run(program):
    names, folder = program
    study = optuna.create_study(pruner=PruneAtOnce())
    for _ in range(2):  # trials 0 and 1 are taken by the program
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.optimize(names["objective"], n_trials=1)
    trial = study.trials[-1]
    path = folder / "runs" / "search" / "trial-002"
    assert trial.state.name == "PRUNED"
    assert 0 < max(trial.intermediate_values) < 256
    assert cardigan.load(path).sample(2).shape[0] == 2
    lines = [json.loads(line) for line in Path(path / "journal.jsonl").read_text().splitlines()]
    assert lines[-1]["images_seen"] == max(trial.intermediate_values)
    run = cardigan.train("mnist", out=path, resume=True, images=256, overrides=overrides_of(path), verbose=False)
    assert run.images_seen == 256


def overrides_of(path):
    config = cardigan.load(path).config
    return {
        "device": "cpu",
        "generator.width": config.generator.width,
        "discriminator.width": config.discriminator.width,
        "objective.penalties.r1": config.objective.penalties["r1"],
        "generator_optimizer.learning_rate": config.generator_optimizer.learning_rate,
        "discriminator_optimizer.learning_rate": config.discriminator_optimizer.learning_rate,
        "checkpoint_every_images": config.checkpoint_every_images,
    }
