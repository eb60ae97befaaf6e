"""TensorBoard's event files, read back by TensorBoard itself."""

import json

import pytest

from cardigan.run.journal import Event
from tracked_runs import FIRST_EVENTS, LATER_EVENTS, SCALARS, add_events, python, track, tracked_run

pytest.importorskip("tensorboard", reason="pip install 'cardigan[tensorboard]'")

READ = """
import json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
events = EventAccumulator(FOLDER, size_guidance={"tensors": 0, "scalars": 0}).Reload()
tags = events.Tags()
scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
texts = {}
for tag in tags["tensors"]:
    for event in events.Tensors(tag):
        strings = [value.decode("latin1") for value in event.tensor_proto.string_val]
        texts.setdefault(tag, []).append([event.step, strings])
content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
hparams = HParamsPluginData.FromString(content).session_start_info.hparams
batch_size = hparams["batch_size"].number_value
print(json.dumps({"scalars": scalars, "tensors": texts, "batch_size": batch_size}))
"""


def read_back(run):
    return python(READ.replace("FOLDER", json.dumps(str(run / "tensorboard"))), run.parent)


def test_run_is_sent_once_and_a_resumed_run_continues_its_line(tmp_path):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    assert "tensorboard --logdir" in track(run, "tensorboard")
    add_events(run, *LATER_EVENTS)
    track(run, "tensorboard")
    track(run, "tensorboard")
    found = read_back(run)
    for name, points in SCALARS.items():
        assert [tuple(point) for point in found["scalars"][name]] == [
            (step, pytest.approx(value)) for step, value in points
        ]
    assert found["scalars"]["elapsed_seconds"][-1] == [96, 3.5]
    assert found["batch_size"] == 64
    ((step, (width, height, png)),) = found["tensors"]["samples"]
    assert step == 32 and png.encode("latin1") == (run / "samples" / "00000032.png").read_bytes()
    assert (int(width), int(height)) == png_size(png.encode("latin1"))
    assert found["tensors"]["fault"] == [[64, ["**plateau**: no progress. Stop it."]]]
    assert found["tensors"]["stop"] == [[96, ["**stopped by images**"]]]


def png_size(png: bytes) -> tuple[int, int]:
    from io import BytesIO

    from PIL import Image

    return Image.open(BytesIO(png)).size


def test_rollback_hides_what_it_undoes(tmp_path):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    track(run, "tensorboard")
    add_events(run, Event("rollback", 32, 3.0, {"rolled_back_from": 64}), Event("progress", 48, 4.0, {"score": 3.0}))
    track(run, "tensorboard")
    found = read_back(run)["scalars"]
    assert [step for step, _ in found["discriminator_loss"]] == [32]
    assert found["score"] == [[48, 3.0]]
