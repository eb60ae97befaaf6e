"""What any tracker gets of a run, and that a tracker can never harm a training."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import cardigan
from cardigan.cli.main import run as run_command
from cardigan.models.snapshot import read_snapshot
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event
from cardigan.trackers import TRACKERS, Message, Moment, TrackedRun, Tracker, TrackerType, follow, run_files
from cardigan.trackers.follow import TrackingOptions
from cardigan.trackers.follow import follow as follow_run
from cardigan.trackers.position import read_positions, sender_lock
from cardigan.trackers.run_files import best_generator
from tracked_runs import FIRST_EVENTS, LATER_EVENTS, SCALARS, add_events, command, tracked_run


class MemoryTracker(Tracker):
    """A tracker of a plug-in: keeps everything in a list."""

    def __init__(self, run: TrackedRun, calls: list, fails_at: int) -> None:
        self.run_id, self.where = run.run_id or f"id-{run.project}", "memory"
        self.calls, self.fails_at = calls, fails_at

    def send_settings(self, settings: Mapping[str, bool | int | float | str]) -> None:
        self.calls.append(("settings", dict(settings)))

    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None:
        if moment.images_seen == self.fails_at:
            raise ConnectionError("the server is gone\nsecond line")
        self.calls.append(("scalars", moment.images_seen, dict(scalars)))

    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None:
        self.calls.append(("image", moment.images_seen, name, path.name, caption))

    def send_message(self, moment: Moment, message: Message) -> None:
        self.calls.append(("message", moment.images_seen, message))

    def send_file(self, path: Path) -> None:
        self.calls.append(("file", path.name))

    def rewind(self, moment: Moment) -> None:
        self.calls.append(("rewind", moment.images_seen))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def close(self, state: str) -> None:
        self.calls.append(("close", state))


class Memory:
    """Adds the tracker `memory` and shows what it gets."""

    def __init__(self) -> None:
        self.calls: list = []
        self.fails_at = -1
        self.destination = "here"

    def follow(self, run: Path, **options) -> None:
        follow_run(RunDirectory(run), TrackingOptions("memory", **options), lambda: False)

    def of(self, kind: str) -> list:
        return [call[1:] for call in self.calls if call[0] == kind]

    def points(self, name: str) -> list[tuple[int, float]]:
        return [(step, values[name]) for step, values in self.of("scalars") if name in values]


@pytest.fixture
def memory(monkeypatch) -> Memory:
    memory = Memory()
    line = TrackerType(
        "json",
        "a-plug-in",
        lambda run: memory.destination,
        lambda run: MemoryTracker(run, memory.calls, memory.fails_at),
    )
    monkeypatch.setitem(TRACKERS, "memory", line)
    return memory


def test_everything_is_sent_once(tmp_path, memory):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    memory.follow(run)
    add_events(run, *LATER_EVENTS)
    memory.follow(run)
    sent = list(memory.calls)
    memory.follow(run)
    assert memory.calls == [*sent, ("close", "finished")]
    for name, points in SCALARS.items():
        assert memory.points(name) == points
    assert memory.of("image") == [(32, "samples", "00000032.png", "generated (left), real (right)")]
    faults = [message for _, message in memory.of("message") if message.is_alert]
    assert faults == [Message("fault", "plateau", "no progress. Stop it.", True)]
    assert [state for (state,) in memory.of("close")] == ["interrupted", "finished", "finished"]
    assert not memory.of("rewind")


def test_settings_are_flat_and_without_the_command_line(tmp_path, memory):
    memory.follow(tracked_run(tmp_path / "run", *FIRST_EVENTS))
    ((settings,),) = memory.of("settings")
    assert settings["generator.width"] == 8 and settings["minutes"] == "null"
    assert not any("command" in name for name in settings)


def test_failure_in_the_middle_is_continued_where_it_stopped(tmp_path, memory, monkeypatch):
    monkeypatch.setattr("cardigan.trackers.sending.EVENTS_PER_FLUSH", 1)
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS, *LATER_EVENTS)
    memory.fails_at = 96
    with pytest.raises(ConnectionError):
        memory.follow(run)
    assert memory.calls[-1] == ("close", "training")
    memory.fails_at = -1
    memory.follow(run)
    assert memory.points("discriminator_loss") == SCALARS["discriminator_loss"]
    assert len({each.run_id for each in read_positions(run, "memory").values()}) == 1


def test_incomplete_last_line_is_sent_when_it_is_complete(tmp_path, memory):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    line = json.dumps({"kind": "progress", "images_seen": 80, "elapsed_seconds": 3.0, "x": 1.5})
    with (run / "journal.jsonl").open("a") as journal:
        journal.write(line[:-4])
    memory.follow(run)
    assert memory.points("x") == []
    with (run / "journal.jsonl").open("a") as journal:
        journal.write(line[-4:] + "\n")
    memory.follow(run)
    assert memory.points("x") == [(80, 1.5)]


def test_rollback_after_sending_rewinds_and_undone_events_are_never_sent(tmp_path, memory):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    memory.follow(run)
    undone = Event("progress", 80, 3.0, {"undone": 1.0})
    add_events(run, undone, Event("rollback", 32, 3.5, {"rolled_back_from": 80, "message": "collapse"}))
    memory.follow(run)
    assert memory.of("rewind") == [(32,)] and memory.points("undone") == []


def test_values_that_are_not_finite_numbers_are_left_out(tmp_path, memory):
    values = {"a": 1.0, "b": float("nan"), "c": float("inf"), "d": True, "e": [1.0], "f": "text", "g": None}
    memory.follow(tracked_run(tmp_path / "run", Event("progress", 16, 1.0, values)))
    assert memory.of("scalars") == [(16, {"a": 1.0, "elapsed_seconds": 1.0})]


def test_other_project_or_destination_gets_the_run_from_its_start(tmp_path, memory):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    memory.follow(run)
    memory.follow(run, project="other")
    memory.destination = "there"
    memory.follow(run)
    assert memory.points("score") == 3 * SCALARS["score"]
    assert {each.run_id for each in read_positions(run, "memory").values()} == {"id-cardigan", "id-other"}


def test_files_are_sent_at_the_end_only_if_wanted_and_not_too_large(tmp_path, memory, monkeypatch):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS, *LATER_EVENTS)
    (run / "report.html").write_text("x" * 2000)
    (run / "report.json").write_text("{}")
    memory.follow(run, with_files=False)
    assert not memory.of("file")
    monkeypatch.setattr(follow, "MAX_FILE_BYTES", 1000)
    memory.follow(run)
    assert memory.of("file") == [("report.json",)]
    notes = [message.title for _, message in memory.of("message") if message.kind == "note"]
    assert [note.split(" is not sent: ")[0] for note in notes] == ["generator.safetensors", "report.html"]


def test_sample_sheets_can_be_left_out(tmp_path, memory):
    memory.follow(tracked_run(tmp_path / "run", *FIRST_EVENTS), with_samples=False)
    assert not memory.of("image") and memory.points("score") == SCALARS["score"]


def test_one_process_sends_at_a_time(tmp_path, memory):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    with sender_lock(run, "memory", 0.0), pytest.raises(cardigan.CardiganError, match="by another process"):
        memory.follow(run)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "mnist", "--out", "RUN", "--track", "tensorbord"), "Unknown tracker 'tensorbord'"),
        (("train", "mnist", "--out", "RUN", "--track", "absent"), "pip install 'cardigan[absent]'"),
        (("track", "RUN", "--to", "nothing"), "expected one of: tensorboard, wandb, mlflow, trackio"),
        (("track", "RUN", "--to", "memory"), "RUN is not a run directory"),
    ],
)
def test_refusals_write_nothing(tmp_path, memory, monkeypatch, capsys, words, sentence):
    line = TrackerType("no_such_package", "cardigan[absent]", TRACKERS["memory"].destination, TRACKERS["memory"].open)
    monkeypatch.setitem(TRACKERS, "absent", line)
    run = tmp_path / "run"
    assert run_command([str(run) if word == "RUN" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert sentence.replace("RUN", str(run)) in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_tracker_is_refused_in_python(tmp_path):
    with pytest.raises(cardigan.CardiganError, match="did you mean 'wandb'"):
        cardigan.train("mnist", out=tmp_path / "run", track="wandbb")
    assert not list(tmp_path.iterdir())


TINY = ["--batch-size", "16", "--generator.width", "4", "--discriminator.width", "4", "--size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a run whose training was sent to a tracker that fails at once, and to TensorBoard if it is installed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "broken" / "trackio").mkdir(parents=True)
    (folder / "broken" / "trackio" / "__init__.py").write_text("raise RuntimeError('broken\\nin two lines')\n")
    words = ["train", "mnist", "--images", "64", "--checkpoint-every-images", "32", *TINY, "--out", "run", "--quiet"]
    done = command(
        *("-m", "cardigan", *words, "--track", "trackio", "--track", "tensorboard"),
        folder=folder,
        PYTHONPATH=str(folder / "broken"),
    )
    assert done.returncode == 0, done.stderr
    (folder / "stderr.txt").write_text(done.stderr)
    return folder / "run"


def test_tracker_that_fails_costs_one_line(trained):
    pytest.importorskip("tensorboard", reason="pip install 'cardigan[tensorboard]'")
    line = (trained.parent / "stderr.txt").read_text()
    assert line.startswith("cardigan: trackio failed (RuntimeError: broken). The training is not affected.")
    assert line.endswith("cardigan track run --to trackio\n") and line.count("\n") == 1


def test_training_is_followed_to_its_end(trained):
    pytest.importorskip("tensorboard", reason="pip install 'cardigan[tensorboard]'")
    (position,) = read_positions(trained, "tensorboard").values()
    assert position.offset == (trained / "journal.jsonl").stat().st_size
    assert position.images_seen == position.files_images_seen == 64
    assert list((trained / "tensorboard").iterdir())


def test_best_checkpoints_generator_is_the_one_sent(trained, tmp_path):
    """Only the checkpoint at 32 images was scored, so it is the best one, but not the last."""
    run = RunDirectory(shutil.copytree(trained, tmp_path / "run"))
    assert read_snapshot(best_generator(run, tmp_path)).images_seen == 32
    shutil.rmtree(run.checkpoints / "00000064")
    assert best_generator(run, tmp_path) == run.generator


def test_following_process_ends_when_its_training_is_killed(trained, tmp_path):
    """Its standard input closes, however the training ends."""
    pytest.importorskip("tensorboard", reason="pip install 'cardigan[tensorboard]'")
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    words = [sys.executable, "-m", "cardigan.trackers.process", str(run), '{"tracker": "tensorboard"}']
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
    assert next(iter(read_positions(run, "tensorboard").values())).images_seen == 64


def test_importing_cardigan_imports_no_tracker():
    names = ("tensorboard", "wandb", "mlflow", "trackio")
    code = f"import sys, cardigan.api, cardigan.trackers.process; sys.exit(any(n in sys.modules for n in {names}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limit_of_files_is_the_documented_one():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "track.md").read_text()
    assert f"{run_files.MAX_FILE_BYTES // 1_000_000} MB" in guide
