"""Settings from files, by dotted name, and back; invalid values give an error message."""

import json

import pytest

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.overrides import config_diff, from_dict, override, to_dict


def test_json_round_trip():
    config = cardigan.config_for("mnist", "tutorial")
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"generator.widht": 3}, "did you mean 'generator.width'"),
        ({"batch_size": "many"}, "batch_size is 'many': expected int"),
        ({"batch_size": True}, "batch_size is True: expected int"),
        ({"precision": "fp64"}, "expected one of 'auto', 'fp32', 'tf32', 'bf16'"),
        ({"objective.penalties.r1": -1}, "objective.penalties.r1 is -1"),
        ({"objective.penalty_interval": 2, "objective.penalties.r1": 0.0, "objective.penalties.r2": 0.0}, "no effect"),
        ({"batch_size": 1}, "at least 2"),
        ({"seed": -1}, "seed is -1"),
        ({"on_failure": "ignore"}, "expected one of 'warn', 'stop', 'rollback'"),
        ({"patience_images": 0}, "patience_images is 0"),
        ({"target_score": 0.0}, "target_score is 0.0"),
        ({"minutes": 10**400}, "a number that a float can hold"),
    ],
)
def test_invalid_values_raise(values, expected):
    with pytest.raises(CardiganError) as error:
        override(cardigan.config_for("mnist"), values)
    assert expected in str(error.value)


def test_difference_ignores_budget_and_cadence():
    before = Config(images=100)
    assert (
        config_diff(
            before,
            override(
                before,
                {
                    "images": 200,
                    "checkpoint_every_images": 7,
                    "device": "cpu",
                    "on_failure": "stop",
                    "patience_images": 7,
                    "target_score": 5.0,
                },
            ),
        )
        == []
    )
    assert config_diff(before, override(before, {"latent.size": 7})) == ["latent.size: 64 -> 7"]


def test_recipe_with_config_file_is_rejected():
    with pytest.raises(CardiganError, match="leave one out"):
        cardigan.train(config=Config(), recipe="mnist")


@pytest.mark.parametrize("name", ["settings.json", "settings.toml"])
def test_config_file_overrides_recipe_and_options_override_file(tmp_path, name):
    text = (
        '{"batch_size": 16, "generator": {"width": 8}}'
        if name.endswith("json")
        else "batch_size = 16\n[generator]\nwidth = 8\n"
    )
    (tmp_path / name).write_text(text)
    words = [
        "train",
        "mnist",
        "--config",
        str(tmp_path / name),
        "--batch-size",
        "8",
        "--images",
        "8",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert cardigan_command(words) == 0
    config = cardigan.load(tmp_path / "run").config
    assert (config.batch_size, config.generator.width) == (8, 8)


def test_broken_config_file_error(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{batch")
    for name, expected in (("broken.json", "not valid JSON or TOML"), ("missing.json", "Cannot read the config file")):
        assert cardigan_command(["train", "mnist", "--config", str(tmp_path / name)]) == 2
        assert expected in capsys.readouterr().err


def test_option_value_is_not_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--images", "64", "--generator.width", "2", "--discriminator.width", "2", "--quiet"]
    assert cardigan_command(["train", "--out", "stacked-mnist", "mnist", *small]) == 0
    config = cardigan.load(tmp_path / "stacked-mnist").config
    assert (config.recipe, config.data.source, config.data.channels) == ("mnist", "mnist", 1)


@pytest.mark.parametrize("reverse", [False, True])
def test_penalty_entry_changes_its_table(reverse):
    """A whole table comes before its entries, in any order, and the given table stays as it was."""
    table = {"wgan_gp": 10}
    values = {"objective.penalties": table, "objective.penalties.r1": 1.0}
    config = override(Config(), dict(reversed(values.items())) if reverse else values)
    assert config.objective.penalties == {"r1": 1.0, "wgan_gp": 10.0} and table == {"wgan_gp": 10}
    assert override(config, {"objective.penalties.wgan_gp": 0}).objective.penalties == {"r1": 1.0}


def test_penalty_option_is_known_by_name(tmp_path):
    """A weight equal to the recipe's counts as given, and the others stay as they are in the run that goes on."""
    words = ["train", "mnist", "--quiet", "--batch-size", "8", "--generator.width", "4", "--discriminator.width", "4"]
    run = ["--out", str(tmp_path / "run")]
    assert cardigan_command([*words, *run, "--images", "8", "--objective.penalties.r1", "1.5"]) == 0
    assert cardigan.load(tmp_path / "run").config.objective.penalties == {"r1": 1.5, "r2": 0.3}
