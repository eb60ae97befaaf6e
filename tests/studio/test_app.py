"""Every endpoint, on trained runs: its responses equal those of the Python interface."""

import asyncio
import base64
import io
import shutil
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from fake_runs import client_for, journal_line, make_run, progress_line
from PIL import Image

import cardigan
from cardigan.data.datasets import open_datasets
from cardigan.http.errors import ClientDisconnected
from cardigan.models.snapshot import read_snapshot
from cardigan.pixels import encode
from cardigan.studio import worker
from cardigan.studio.run_reader import RunReader
from cardigan.studio.worker import MAX_QUEUED, WorkerQueue

SMALL = {
    "batch_size": 16,
    "generator.width": 8,
    "discriminator.width": 8,
    "device": "cpu",
    "checkpoint_every_images": 32,
    "sample_every_images": 32,
    "data.max_images": 500,
}
SUMMARY_KEYS = {
    *(
        "id",
        "name",
        "state",
        "reason",
        "recipe",
        "source",
        "images_seen",
        "images_goal",
        "minutes_goal",
        "elapsed_seconds",
        "images_per_second",
    ),
    *(
        "latest_score",
        "best_score",
        "best_score_images_seen",
        "health",
        "health_sentence",
        "fault_names",
        "started_at",
        "modified_at",
        "latest_sheet",
        "conditional",
        "size",
        "error",
    ),
    *("score_kind", "title", "starred", "note", "started_from"),
}
TABLE_KEYS = {"parent", "inherited_images"}
DETAIL_KEYS = {
    *("settings", "classes", "class_names", "latent_size", "latent_distribution", "layout"),
    *("sheets", "checkpoints", "has_discriminator", "animation_formats", "offset"),
    *("old_fraction", "state_sentence", "resume_command"),
    *("command", "environment", "num_processes", "evaluation", "has_report"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, settings in (
        ("plain", {"conditional": False}),
        ("conditional", {"conditional": True}),
        ("packed", {"conditional": False, "pac": 2}),
    ):
        cardigan.train("mnist", out=folder / name, images=64, overrides={**SMALL, **settings})
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with client_for(folder) as client:
        yield client


def grid_images(content, count):
    """Return the tiles of a PNG of 32-pixel gray tiles, [count, 32, 32]."""
    values = np.asarray(Image.open(io.BytesIO(content)))
    columns = (values.shape[1] + 2) // 34
    return np.stack([values[place // columns * 34 :, place % columns * 34 :][:32, :32] for place in range(count)])


def fetch_images(client, address, count):
    answer = client.get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return grid_images(answer.content, count)


def test_runs_and_run_fields(client, folder, monkeypatch):
    runs = client.get("/api/runs").json()["runs"]
    assert {run["id"] for run in runs} == {"plain", "conditional", "packed"}
    assert all(set(run) == SUMMARY_KEYS | TABLE_KEYS for run in runs)
    run = client.get("/api/run?run=conditional").json()
    assert set(run) == SUMMARY_KEYS | DETAIL_KEYS
    assert (run["state"], run["reason"], run["images_seen"], run["classes"], run["size"]) == (
        "finished",
        "images",
        64,
        10,
        "32x32x1",
    )
    assert run["sheets"] == [0, 32, 64]
    assert [checkpoint["images_seen"] for checkpoint in run["checkpoints"]] == [0, 32, 64]
    assert sum(checkpoint["best"] for checkpoint in run["checkpoints"]) == 1
    assert run["layout"] == {
        **{
            "count": 64,
            "columns": 8,
            "rows": 8,
            "width": 32,
            "height": 32,
            "channels": 1,
            "gap": 2,
            "divider": 8,
            "real_left": 278,
        },
    }
    assert run["settings"]["generator.width"] == 8
    assert run["animation_formats"] == ["webp", "gif", "mp4"]
    assert run["offset"] == (folder / "conditional" / "journal.jsonl").stat().st_size
    monkeypatch.setattr("cardigan.studio.run_reader.find_spec", lambda _: None)
    assert client.get("/api/run?run=plain").json()["animation_formats"] == ["webp", "gif"]


def test_standalone_model_views(tmp_path, folder):
    (tmp_path / "shared" / "digits").mkdir(parents=True)
    shutil.copy(folder / "conditional" / "generator.safetensors", tmp_path / "digits.safetensors")
    shutil.copy(folder / "plain" / "generator.safetensors", tmp_path / "shared" / "digits" / "model.safetensors")
    (tmp_path / "shared" / "digits" / "config.json").write_text("{}")  # a folder for the Hugging Face Hub
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "state.safetensors").write_bytes(b"")
    with client_for(tmp_path) as client:
        runs = {run["id"]: run for run in client.get("/api/runs").json()["runs"]}
        assert {name: run["state"] for name, run in runs.items()} == {
            **{
                "digits.safetensors": "model_file",
                "shared/digits/model.safetensors": "model_file",
                "broken.safetensors": "unreadable",
            },
        }
        assert set(runs["digits.safetensors"]) == SUMMARY_KEYS | TABLE_KEYS
        run = client.get("/api/run?run=digits.safetensors").json()
        assert set(run) == SUMMARY_KEYS | DETAIL_KEYS
        assert (run["images_seen"], run["classes"], run["sheets"], run["checkpoints"], run["has_discriminator"]) == (
            64,
            10,
            [],
            [],
            False,
        )
        for view, query in (
            ("seeds.png", "seeds=0-3"),
            ("interpolation.png", "corners=0,1,2,3"),
            ("nearest.png", "seed=1"),
        ):
            alone = client.get(f"/api/{view}?run=digits.safetensors&{query}")
            assert alone.status_code == 200, alone.text
            with client_for(folder) as other:
                assert alone.content == other.get(f"/api/{view}?run=conditional&{query}").content
        assert (
            "digits.safetensors"
            in client.get("/api/reproduce?run=digits.safetensors&view=seeds&seeds=0").json()["command"]
        )
        assert len(client.get("/api/latent?run=digits.safetensors").json()["directions"]) == 8
        for path in ("checkpoints.png", "discriminator", "curves", "sample-sheet"):
            assert client.get(f"/api/{path}?run=digits.safetensors").status_code in {200, 400, 404, 409}, path
        assert client.get("/api/seeds.png?run=broken.safetensors&seeds=0").status_code in {404, 409}


def test_curves_match_journal(client, folder):
    found = client.get("/api/curves?run=plain").json()
    assert {"discriminator_loss", "generator_loss", "images_per_second"} <= set(found["series"])
    assert found["images_seen"][-1] == 64
    assert found["offset"] == (folder / "plain" / "journal.jsonl").stat().st_size
    assert [event["kind"] for event in found["events"]] == ["start", "stop"]


def test_sample_sheet_is_the_file(client, folder):
    answer = client.get("/api/sample-sheet?run=plain&images_seen=32")
    assert answer.content == (folder / "plain" / "samples" / "00000032.png").read_bytes()
    again = client.get("/api/sample-sheet?run=plain&images_seen=32", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


def test_malformed_lines_are_counted_and_events_have_times(tmp_path):
    fault = {"name": "mode collapse", "fatal": True, "message": "w", "advice": "a", "evidence": {}}
    make_run(
        tmp_path / "run",
        [
            progress_line(64),
            b"{broken\n",
            journal_line("fault", 64, **fault),
            journal_line("checkpoint", 64, score=3.0, score_standard_error=0.5),
            b"[]\n",
            progress_line(128),
        ],
    )
    with client_for(tmp_path) as client:
        found = client.get("/api/curves?run=run").json()
    assert found["num_malformed"] == 2 and found["num_readings"] == 2
    assert found["faults"][0]["elapsed_seconds"] == found["scores"][0]["elapsed_seconds"] == 0.64
    assert (found["scores"][0]["score"], found["scores"][0]["error"]) == (3.0, 0.5)


def test_rewritten_sample_sheet_has_new_etag(tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64)], [64])
    with client_for(tmp_path) as client:
        before = client.get("/api/sample-sheet?run=run&images_seen=64")
        other = make_run(tmp_path / "other", [], [70]) / "samples" / "00000070.png"
        other.replace(run / "samples" / "00000064.png")
        after = client.get(
            "/api/sample-sheet?run=run&images_seen=64", headers={"if-none-match": before.headers["etag"]}
        )
    assert (
        after.status_code == 200 and after.content != before.content and after.headers["etag"] != before.headers["etag"]
    )


def test_server_error_is_logged(folder, monkeypatch, capsys):
    def fails(*_):
        raise KeyError("internal detail")

    monkeypatch.setattr(RunReader, "summaries", fails)
    with client_for(folder, raise_server_exceptions=False) as client:
        answer = client.get("/api/runs")
    assert answer.status_code == 500 and "internal detail" not in answer.text
    assert "internal detail" in capsys.readouterr().err


def test_worker_queue_releases_slots():
    """A job may finish before its future is polled for the first time."""

    class ImmediateExecutor:
        def submit(self, function):
            done = Future()
            done.set_result(function())
            return done

    async def never():
        return False

    async def work():
        queue = WorkerQueue()
        queue._executor = ImmediateExecutor()
        for _ in range(3 * MAX_QUEUED):
            assert await queue.run(lambda is_cancelled: 7, never) == 7
            await asyncio.sleep(0)

    asyncio.run(work())


def test_seeds_equal_sample(client, folder):
    expected = cardigan.load(folder / "plain").sample_seeds([0, 1, 2, 9], truncation=0.7)[:, :, :, 0]
    assert np.array_equal(fetch_images(client, "/api/seeds.png?run=plain&seeds=0-2,9&truncation=0.7", 4), expected)
    conditional = cardigan.load(folder / "conditional")
    assert np.array_equal(
        fetch_images(client, "/api/seeds.png?run=conditional&seeds=5,6", 2),
        conditional.sample_seeds([5, 6])[:, :, :, 0],
    )
    assert np.array_equal(
        fetch_images(client, "/api/seeds.png?run=conditional&seeds=5&label=3", 1),
        conditional.sample_seeds([5], 3)[:, :, :, 0],
    )
    earlier = cardigan.load(folder / "plain" / "checkpoints" / "00000032").sample_seeds([4])[:, :, :, 0]
    assert np.array_equal(fetch_images(client, "/api/seeds.png?run=plain&seeds=4&checkpoint=32", 1), earlier)


def test_interpolation_corners_equal_seeds(client):
    corners = fetch_images(client, "/api/seeds.png?run=plain&seeds=7,8,9,10", 4).astype(int)
    for number, (x, y) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        assert (
            np.abs(
                fetch_images(client, f"/api/interpolation.png?run=plain&corners=7,8,9,10&x={x}&y={y}", 1)[0]
                - corners[number]
            ).max()
            <= 1
        )
    whole = fetch_images(client, "/api/interpolation.png?run=plain&corners=7,8,9,10&grid=3&extent=1", 9)
    assert np.abs(whole[[0, 2, 6, 8]] - corners).max() <= 1
    middle = fetch_images(client, "/api/interpolation.png?run=plain&corners=7,8,9,10", 1)
    assert np.abs(whole[4].astype(int) - middle[0]).max() <= 1
    assert not np.array_equal(
        fetch_images(client, "/api/interpolation.png?run=plain&corners=7,8,9,10&directions=0:3", 1), middle
    )


def test_checkpoint_rows(client, folder):
    found = fetch_images(client, "/api/checkpoints.png?run=plain&seeds=0-3", 12)
    for row, seen in enumerate((0, 32, 64)):
        model = cardigan.load(folder / "plain" / "checkpoints" / f"{seen:08d}")
        assert np.array_equal(found[4 * row : 4 * row + 4], model.sample_seeds(range(4))[:, :, :, 0])


def test_walk_starts_at_first_seed(client):
    answer = client.get("/api/walk?run=plain&seeds=3,7&frames=5&format=webp")
    animation = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], animation.n_frames) == ("image/webp", 5)
    assert "attachment" in answer.headers["content-disposition"]
    first = np.asarray(animation.convert("L"))
    factor = first.shape[0] // 32
    assert np.array_equal(first[::factor, ::factor], fetch_images(client, "/api/seeds.png?run=plain&seeds=3", 1)[0])
    assert client.get("/api/walk?run=plain&seeds=3").status_code == 409
    assert client.get("/api/walk?run=plain&seeds=3,7&format=avi").status_code == 400


def test_discriminator_view(client):
    for name in ("plain", "conditional"):
        found = client.get(f"/api/discriminator?run={name}&count=9").json()
        assert len(found["fake"]) == len(found["real"]) == 9
        assert found["images_seen"] == 64
        assert found["layout"]["columns"] == 3
        assert found["decision_boundary"] is found["fake_probabilities"] is None  # the default loss compares pairs
        assert found["center"] == pytest.approx((np.mean(found["fake"]) + np.mean(found["real"])) / 2)
        pairs = np.subtract.outer(found["real"], found["fake"])
        assert found["real_above_fake"] == pytest.approx((np.mean(pairs > 0) + np.mean(pairs >= 0)) / 2)
    journal_logits = client.get("/api/logits?run=conditional&images_seen=64").json()
    assert client.get("/api/discriminator?run=conditional").json()["real"] == journal_logits["real"][:16]
    plain = client.get("/api/discriminator?run=plain").json()
    assert plain["real"] == pytest.approx(
        client.get("/api/logits?run=plain&images_seen=64").json()["real"][:16], abs=0.03
    )  # training may have used bf16
    sizes = {
        kind: Image.open(io.BytesIO(client.get(f"/api/discriminator.png?run=plain&kind={kind}").content))
        for kind in ("fake", "real", "gradient")
    }
    assert {image.size for image in sizes.values()} == {(134, 134)}
    assert sizes["gradient"].mode == "RGB"
    packed = client.get("/api/discriminator?run=packed")
    assert packed.status_code == 409
    assert "pack" in packed.json()["error"]


def test_latent_view_options(client):
    found = client.get("/api/latent?run=conditional").json()
    assert (found["size"], found["classes"], found["checkpoints"], found["has_training_images"]) == (
        64,
        10,
        [0, 32, 64],
        True,
    )
    assert len(found["directions"]) == 8
    assert all(0 <= direction["explained_variance_ratio"] <= 1 for direction in found["directions"])


def test_nearest_training_images(client, folder):
    found = fetch_images(client, "/api/nearest.png?run=plain&seed=3", 6).astype(float)
    assert np.array_equal(found[:1], fetch_images(client, "/api/seeds.png?run=plain&seeds=3", 1))
    data = read_snapshot(folder / "plain").config.data
    source = open_datasets(data).train
    training_images = encode(source.images_at(torch.arange(len(source)), data)).numpy()[:, 0].astype(float)
    distances = ((training_images - found[0]) ** 2).sum(axis=(1, 2))
    assert ((found[1:] - found[0]) ** 2).sum(axis=(1, 2)).tolist() == np.sort(distances)[:5].tolist()


@pytest.mark.parametrize(("address", "status"), [
    ("seeds.png?run=plain&seeds=0-999", 400),
    ("seeds.png?run=plain&seeds=3-1", 400),
    ("seeds.png?run=plain&label=3", 409),
    ("seeds.png?run=conditional&label=10", 409),
    ("seeds.png?run=plain&truncation=2", 400),
    ("seeds.png?run=plain&directions=0:1e9", 400),
    ("seeds.png?run=plain&directions=99:1", 409),
    ("seeds.png?run=plain&checkpoint=7", 404),
    ("interpolation.png?run=plain&corners=1,2", 400),
    ("interpolation.png?run=plain&grid=9", 400),
    ("interpolation.png?run=plain&x=nan", 400),
    ("discriminator?run=plain&count=65", 400),
    ("discriminator.png?run=plain&kind=x", 400),
    ("nearest.png?run=none", 404),
    ("animation?run=plain&fps=0", 400),
    ("none", 404),
])  # fmt: skip
def test_invalid_request_returns_one_line_error(client, address, status):
    answer = client.get(f"/api/{address}")
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}


def test_sample_sheets_animation(client):
    for kind in ("webp", "gif"):
        whole = Image.open(io.BytesIO(client.get(f"/api/animation?run=plain&format={kind}").content))
        assert whole.n_frames == 3
    tile = Image.open(io.BytesIO(client.get("/api/animation?run=plain&tile=3").content))
    assert tile.size == (192, 192)


def test_run_without_model(tmp_path):
    make_run(tmp_path / "run", [progress_line(64)])
    with client_for(tmp_path) as client:
        for address, status in (
            ("interpolation.png", 409),
            ("latent", 409),
            ("checkpoints.png", 409),
            ("animation", 409),
            ("discriminator", 404),
        ):
            answer = client.get(f"/api/{address}?run=run")
            assert answer.status_code == status, address
            assert answer.json()["error"].endswith(".")


def test_new_checkpoint_reloads_model(folder, tmp_path):
    run = cardigan.train("mnist", out=tmp_path / "run", images=32, overrides={**SMALL, "conditional": False}).path
    with client_for(tmp_path) as client:
        before = fetch_images(client, "/api/seeds.png?run=run&seeds=1", 1)
        cardigan.train("mnist", out=run, images=96, overrides={**SMALL, "conditional": False}, resume=True)
        after = fetch_images(client, "/api/seeds.png?run=run&seeds=1", 1)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, cardigan.load(run).sample_seeds([1])[:, :, :, 0])


def test_full_queue_returns_429(client, monkeypatch):
    monkeypatch.setattr(worker, "MAX_QUEUED", 2)
    queue, started, release = client.app.state.studio.worker, threading.Event(), threading.Event()
    queue._executor.submit(lambda: (started.set(), release.wait(20)))
    started.wait(20)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.get("/api/interpolation.png?run=plain").status_code))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(statuses) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    release.set()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [200, 200, 429, 429, 429]


def test_disconnected_client_cancels_work():
    async def run_jobs() -> list[str]:
        queue, calls, release = worker.WorkerQueue(), [], threading.Event()

        async def connected() -> bool:
            return False

        async def disconnected() -> bool:
            return True

        first = asyncio.create_task(queue.run(lambda is_cancelled: release.wait(20), connected))
        await asyncio.sleep(0.1)
        with pytest.raises(ClientDisconnected):
            await queue.run(lambda is_cancelled: calls.append("disconnected"), disconnected)
        release.set()
        assert await first
        await queue.run(lambda is_cancelled: calls.append("connected"), connected)
        return calls

    assert asyncio.run(run_jobs()) == ["connected"]


def test_inversions_run_one_at_a_time(client, monkeypatch):
    monkeypatch.setattr(client.app.state.studio, "_is_inverting", True)
    answer = client.post("/api/invert?run=plain", content=b"x")
    assert answer.status_code == 429
    assert "Another inversion is running" in answer.json()["error"]


def test_uploaded_image_is_inverted(client):
    pytest.importorskip("cardigan.explore.inversion")
    content = client.get("/api/seeds.png?run=plain&seeds=5").content
    found = client.post("/api/invert?run=plain", content=content).json()
    assert set(found) == {"z", "latent", "rmse", "label", "image"}
    assert len(found["z"]) == 64
    assert found["label"] is None
    shown = Image.open(io.BytesIO(base64.b64decode(found["image"].removeprefix("data:image/png;base64,"))))
    assert shown.size == (32, 32)
    uploaded = np.asarray(Image.open(io.BytesIO(content))).astype(float)
    assert found["rmse"] == pytest.approx(np.sqrt(((np.asarray(shown) - uploaded) ** 2).mean()), rel=0.05)
