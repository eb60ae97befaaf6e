"""The code of the extension guide runs as written, outside the package."""

import re
import subprocess
import sys
from pathlib import Path

from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import read_events

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "extend.md"


def test_extend_guide_runs(tmp_path):
    program = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL))
    assert program.count("cardigan.train(") == 3
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loss, drift, flat = (tmp_path / "runs" / name for name in ("smoothed", "drift", "flat"))
    assert read_config(RunDirectory(loss)).objective.loss == "smoothed"
    assert read_config(RunDirectory(flat)).generator.network == "flat"
    assert any("drift" in event.values for event in read_events(drift / "journal.jsonl") if event.kind == "progress")
    for run in (loss, drift, flat):
        assert read_events(run / "journal.jsonl")[-1].values["reason"] == "images"
    first = next(event.values for event in read_events(loss / "journal.jsonl") if event.kind == "progress")
    # The smoothed loss has two cross entropies near ln 2, the relativistic loss only one.
    assert first["discriminator_loss"] > 1
