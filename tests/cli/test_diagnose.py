"""`cardigan diagnose`: the same diagnosis after training, from tables and journals; bad input gives an error."""

import json
import math
import random

import pytest

import cardigan
from cardigan.cli.diagnose import main
from cardigan.errors import CardiganError
from cardigan.health.diagnosis import diagnose_path


def write_table(path, runs, columns=("step", "d_loss", "g_loss", "fid")):
    """Write synthetic runs: losses every 10 steps, a score every 100. `bad` runs degrade from step 3,000 on."""
    lines = ["run," + ",".join(columns)]
    for name, bad in runs.items():
        numbers = random.Random(name)
        for step in range(10, 6010, 10):
            score = 10 + 90 * math.exp(-step / 800) + (60 if bad and step > 3000 else 0)
            values = {"step": step, "d_loss": 1.2 + numbers.gauss(0, 0.1), "g_loss": 0.8 + numbers.gauss(0, 0.1)}
            values["fid"] = "" if step % 100 else score * math.exp(numbers.gauss(0, 0.02))
            lines.append(f"{name}," + ",".join(str(values[column]) for column in columns))
    path.write_text("\n".join(lines))
    return path


def test_each_run_of_table_is_diagnosed(tmp_path, capsys):
    assert main([str(write_table(tmp_path / "runs.csv", {"good": False, "bad": True})), "--json"]) == 0
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["run"], good["diagnosis"], good["stop_step"]) == ("good", "nothing found", None)
    assert (bad["run"], bad["diagnosis"], bad["stop_step"]) == ("bad", "mode collapse", 3200)
    assert 2500 <= bad["best_step"] <= 3000
    assert bad["evidence"]["ratio_to_best"] > 1.5


def test_diagnosis_does_not_look_ahead(tmp_path):
    path = write_table(tmp_path / "runs.csv", {"bad": True})
    whole = diagnose_path(path)["bad"]
    path.write_text("\n".join(path.read_text().splitlines()[: whole.stop_step // 10 + 1]))
    assert diagnose_path(path)["bad"] == whole


def test_single_run_json_and_text(tmp_path, capsys):
    path = tmp_path / "losses.csv"
    path.write_text(
        "step,d_loss,g_loss\n" + "\n".join(f"{step},{'nan' if step == 40 else 1.0},1.0" for step in range(1, 60))
    )
    assert main([str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"diagnosis", "stop_step", "best_step", "evidence"}
    assert (found["diagnosis"], found["stop_step"], found["best_step"]) == ("non-finite", 40, None)
    assert main([str(path)]) == 0
    assert "non-finite (stop at 40)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step,d_loss\n1,2\n", "no column g_loss"),
        ("step,d_loss,g_loss\n", "no rows"),
        ("", "no column step"),
        ("step,d_loss,g_loss\n1,2,many\n", "line 2: g_loss is 'many'"),
        ("step,d_loss,g_loss\n2,1,1\n1,1,1\n", "line 3: step 1 follows step 2"),
        ("step,d_loss,g_loss\nnan,1,1\n", "step is 'nan'"),
        ("step,d_loss,g_loss,fid\n1,1,1,-3\n", "fid is '-3'"),
    ],
)
def test_bad_tables_raise(tmp_path, text, expected):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(CardiganError) as error:
        diagnose_path(tmp_path / "table.csv")
    assert expected in str(error.value)


def test_other_inputs_raise(tmp_path):
    (tmp_path / "journal.jsonl").write_text("no journal")
    (tmp_path / "not.csv.gz").write_text("no gzip")
    for path, expected in (
        ("missing", "has no journal"),
        ("journal.jsonl", "no training records"),
        ("not.csv.gz", "Cannot read"),
        ("no.csv", "Cannot"),
    ):
        with pytest.raises(CardiganError, match=expected):
            diagnose_path(tmp_path / path)


def test_run_directory_and_journal_are_read(tmp_path):
    run = cardigan.train(
        "mnist",
        out=tmp_path / "run",
        images=320,
        overrides={"batch_size": 16, "generator.width": 4, "discriminator.width": 4},
    )
    found = diagnose_path(run.path)
    assert found == diagnose_path(run.path / "journal.jsonl")
    assert (found[""].diagnosis, found[""].stop_step, found[""].best_step) == ("too early", None, 320)
    assert "known from 20,000 images on" in found[""].sentence


def test_short_tables_are_too_early_to_judge(tmp_path, capsys):
    path = tmp_path / "losses.csv"
    for num_rows, expected in ((19, "too early"), (20, "nothing found")):
        path.write_text("step,d_loss,g_loss\n" + "\n".join(f"{step},1.0,1.0" for step in range(1, num_rows + 1)))
        assert diagnose_path(path)[""].diagnosis == expected
    path.write_text("step,d_loss,g_loss,fid\n" + "\n".join(f"{step},1,1,{50 - step}" for step in range(1, 4)))
    assert main([str(path)]) == 0
    assert "too early: the rules need 20 rows and 4 scores, and there are 3 and 3." in capsys.readouterr().out


def test_last_score_far_above_the_best_is_told(tmp_path, capsys):
    """One bad score is no fault yet, but it is not passed over either."""
    path = tmp_path / "scores.csv"
    scores = [100 - step for step in range(29)] + [150]
    path.write_text(
        "step,d_loss,g_loss,fid\n" + "\n".join(f"{step},1,1,{score}" for step, score in enumerate(scores, 1))
    )
    assert main([str(path)]) == 0
    assert (
        "nothing found: nothing was found in 30 rows. Best score at 29. The last score is 2.08 times the best; "
        "if the next ones are as bad, it is a fault." in capsys.readouterr().out
    )
