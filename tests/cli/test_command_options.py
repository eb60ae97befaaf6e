"""Options on the command line: short help, completion, words of other programs, and errors in one plain sentence."""

import subprocess

import pytest

from cardigan.cli.main import COMMANDS
from cardigan.cli.main import run as run_command
from cardigan.cli.other_words import OTHER_WORDS
from cardigan.cli.parsing import option_flags
from cardigan.cli.sample import SampleOptions
from cardigan.cli.train import TrainOptions, with_all_tables
from cardigan.cli.train_help import COMMON_OPTIONS, short_help
from cardigan.config import Config


def error_of(capsys, *words: str) -> str:
    assert run_command(list(words)) == 2
    return capsys.readouterr().err


def train_flags() -> list[str]:
    default = TrainOptions(source="", settings=with_all_tables(Config()))
    return option_flags(TrainOptions, "cardigan train", {"default": default})


def test_short_help_fits_a_terminal_and_names_real_options(capsys):
    assert run_command(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.strip() == short_help() and max(map(len, text.splitlines())) <= 80 and len(text.splitlines()) < 30
    flags = set(train_flags())
    assert {option.split()[0] for option, _ in COMMON_OPTIONS} <= flags
    with pytest.raises(SystemExit):
        run_command(["train", "--help-all"])
    assert "--discriminator.frozen-stages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "here"),
    [
        ("--epochs", "--images"),
        ("--kimg", "--images"),
        ("--lr", "--generator-optimizer.learning-rate"),
        ("--resolution", "--size"),
        ("--gpus", "--devices"),
        ("--num_workers", "--data.num-workers"),
        ("--outdir", "--out"),
        ("--nz", "--latent.size"),
        ("--mirror", "--horizontal-flip"),
        ("--gamma", "--objective.penalties.r1"),
        ("--freezed", "--discriminator.frozen-stages"),
        ("--pretrained", "--from"),
        ("--labels", "--data.labels"),
    ],
)
def test_options_of_other_programs_are_answered_with_the_one_here(capsys, option, here):
    message = error_of(capsys, "train", "mnist", option, "3")
    assert f"Unknown option '{option}': here it is {here}" in message
    assert message.count("\n") == 1


def test_every_answer_names_an_option_that_exists():
    flags = {*train_flags(), *option_flags(SampleOptions, "cardigan sample", {})}
    assert {option for options, _ in OTHER_WORDS.values() for option in options.split("|")} <= flags
    words = [word for group in OTHER_WORDS for word in group]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "mnist", "--images", "three"], "--images is 'three': expected an integer (see"),
        (["train", "mnist", "--minutes", "x"], "--minutes is 'x': expected a number (see"),
        (["train", "mnist", "--seed", "1.5"], "--seed is '1.5': expected an integer (see"),
        (["train", "mnist", "--images"], "--images needs a value (see"),
        (["train", "mnist", "--precision", "foo"], "--precision is 'foo': expected one of 'auto', 'fp32'"),
        (["train", "mnist", "--data-dir", "x"], "name the images without an option"),
        (["sample"], "cardigan sample needs an argument: a run directory"),
        (["sample", "--count", "3", "x"], "Unknown option '--count': here it is -n"),
        (["sample", "nothere"], "There is no model nothere: give a run directory"),
        (["evaluate", "x", "--foo"], "Unknown option '--foo': did you mean"),
    ],
)
def test_errors_are_one_plain_sentence(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    error = error_of(capsys, *words)
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(capsys, shell):
    assert run_command(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS) and "from" in script
    if shell == "bash":
        lines = 'COMP_WORDS=(cardigan trai); COMP_CWORD=1; _cardigan; echo "${COMPREPLY[@]}"\n'
        lines += 'COMP_WORDS=(cardigan sample --tr); COMP_CWORD=2; _cardigan; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", f"{script}\n{lines}"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["train", "--truncation"]
