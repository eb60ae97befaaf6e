"""The command and the Python code of a view reproduce its images: both are run."""

import base64
import io
import shlex

import numpy as np
import pytest
from fake_runs import client_for, journal_line, make_run
from PIL import Image

import cardigan
from cardigan.cli.main import run as cardigan_command

SMALL = {
    "batch_size": 16,
    "generator.width": 8,
    "discriminator.width": 8,
    "device": "cpu",
    "checkpoint_every_images": 32,
    "sample_every_images": 32,
    "data.max_images": 500,
}
VIEWS = [
    ("interpolation.png", "corners=3,4,5,6&x=0.3&y=0.7&grid=3&extent=0.4&truncation=0.8&directions=0:1.5,2:-2"),
    ("interpolation.png", "x=0.00001&checkpoint=32"),
    ("seeds.png", "seeds=0-5,9&truncation=0.7"),
    ("seeds.png", "seeds=0-5&directions=1:2"),
    ("checkpoints.png", "seeds=0-3&truncation=0.5"),
    ("walk", "seeds=3,7,1&frames=8&fps=12&loop=1&path=linear&format=webp"),
    ("arithmetic.png", "add=1,2,3;4,5&subtract=7,8,9"),
    ("nearest.png", "seed=4&truncation=0.9"),
    ("discriminator.png", "kind=gradient&seed=3&count=9"),
]
PYTHON_ONLY = {"nearest.png", "discriminator.png"}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "with classes"])
def client(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("the runs")
    cardigan.train("mnist", out=folder / "a run", images=64, overrides={**SMALL, "conditional": request.param})
    with client_for(folder) as client:
        yield client


def frames(content):
    image = Image.open(io.BytesIO(content))
    shown = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        shown.append(np.asarray(image.convert("L")))
    return shown


def grid_tiles(values, images):
    """Return the tiles of a sheet that are not empty, one per image."""
    rows, columns = (values.shape[0] + 2) // 34, (values.shape[1] + 2) // 34
    found = [
        values[34 * row : 34 * row + 32, 34 * column : 34 * column + 32]
        for row in range(rows)
        for column in range(columns)
    ]
    return [tile for tile in found if tile.any()][: len(images)]


def reproduce_response(client, view, query):
    return client.get(f"/api/reproduce?run=a run&view={view.removesuffix('.png')}&{query}").json()


@pytest.mark.parametrize(("view", "query"), VIEWS)
def test_command_reproduces_view(client, tmp_path, monkeypatch, view, query):
    command = reproduce_response(client, view, query)["command"]
    if view in PYTHON_ONLY or ("directions" in query and view == "seeds.png"):
        assert command == ""
        return
    monkeypatch.chdir(tmp_path)
    for part in command.split(" && "):
        words = shlex.split(part)
        assert words[0] == "cardigan"
        assert cardigan_command(words[1:]) == 0
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    shown = frames(client.get(f"/api/{view}?run=a run&{query}").content)
    if view == "checkpoints.png":
        rows = [np.concatenate(grid_tiles(frames(path.read_bytes())[0], range(4)), axis=1) for path in files]
        assert np.array_equal(np.concatenate(grid_tiles(shown[0], range(12)), axis=1), np.concatenate(rows, axis=1))
    else:
        assert all(np.array_equal(*pair) for pair in zip(frames(files[0].read_bytes()), shown, strict=True))


@pytest.mark.parametrize(("view", "query"), VIEWS)
def test_python_reproduces_view(client, view, query):
    namespace = {}
    exec(reproduce_response(client, view, query)["python"], namespace)  # noqa: S102 - the test is that it runs
    images = namespace["images"].numpy()
    if view == "discriminator.png":
        shown = np.asarray(Image.open(io.BytesIO(client.get(f"/api/{view}?run=a run&{query}").content)))
        found = [
            shown[34 * row : 34 * row + 32, 34 * column : 34 * column + 32] for row in range(3) for column in range(3)
        ]
        assert np.array_equal(np.stack(found), images.transpose(0, 2, 3, 1))
        assert np.allclose(
            client.get(f"/api/discriminator?run=a run&{query}").json()["fake"], namespace["logits"].numpy(), atol=1e-4
        )
        return
    images = images[:, 0]
    shown = frames(client.get(f"/api/{view}?run=a run&{query}").content)
    if view == "walk":
        factor = shown[0].shape[0] // 32
        found = [frame[::factor, ::factor] for frame in shown]
    else:
        found = grid_tiles(shown[0], images)
    assert np.array_equal(np.stack(found), images)


def test_inverted_latent_works_as_seed(client, tmp_path, monkeypatch):
    content = client.get("/api/seeds.png?run=a run&seeds=3").content
    found = client.post("/api/invert?run=a run", content=content).json()
    inverted = frames(base64.b64decode(found["image"].partition(",")[2]))[0]
    for view, query in (
        ("interpolation.png", f"corners={found['latent']},1,2,3&x=0&y=0"),
        ("seeds.png", f"seeds={found['latent']}"),
    ):
        assert np.array_equal(frames(client.get(f"/api/{view}?run=a run&{query}").content)[0], inverted)
    monkeypatch.chdir(tmp_path)
    for view, query in (
        ("interpolation.png", f"corners=5,{found['latent']},2,3&x=1&y=0"),
        ("walk", f"seeds={found['latent']},1&frames=4"),
    ):
        shown = frames(client.get(f"/api/{view}?run=a run&{query}").content)
        assert cardigan_command(shlex.split(reproduce_response(client, view, query)["command"])[1:]) == 0
        written = tmp_path / ("walk.webp" if view == "walk" else "interpolation.png")
        assert all(np.array_equal(*pair) for pair in zip(frames(written.read_bytes()), shown, strict=True))
    for wrong in ("z:AAAA", "z:!", "z" + found["latent"]):
        assert client.get(f"/api/seeds.png?run=a run&seeds={wrong}").status_code in {400, 409}
    foreign = client.get(f"/api/seeds.png?run=a run&seeds=z99:{found['latent'].partition(':')[2]}")
    assert foreign.status_code == (200 if found["label"] is None else 409)  # an unconditional model ignores the class


def test_tile_history_and_upload_are_reproduced(client, tmp_path, monkeypatch):
    namespace = {}
    exec(reproduce_response(client, "tile-history", "tile=5")["python"], namespace)  # noqa: S102
    shown = frames(client.get("/api/tile-history?run=a run&tile=5").content)[0]
    assert np.array_equal(
        np.concatenate([shown[:, 34 * row : 34 * row + 32] for row in range(3)]), np.concatenate(namespace["images"])
    )
    monkeypatch.chdir(tmp_path)
    content = client.get("/api/seeds.png?run=a run&seeds=3").content
    (tmp_path / "image.png").write_bytes(content)
    answer = client.post("/api/invert?run=a run", content=content).json()
    code = reproduce_response(client, "invert", "")
    exec(code["python"], namespace)  # noqa: S102
    assert cardigan_command(shlex.split(code["command"])[1:]) == 0
    found = frames(base64.b64decode(answer["image"].partition(",")[2]))[0]
    assert np.array_equal(namespace["images"].numpy()[0, 0], found)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "inverted.png"))[:, 34:], found)


@pytest.mark.parametrize(
    "query",
    [
        "view=none",
        "view=",
        "view=interpolation&x=2",
        "view=seeds&seeds=a",
        "view=walk&format=avi",
        "view=tile-history&tile=99",
    ],
)
def test_invalid_view_is_rejected(client, query):
    assert client.get(f"/api/reproduce?run=a run&{query}").status_code == 400


def test_folder_name_is_quoted(tmp_path):
    name, namespace = "{exit(3)} '\" $(exit) `x`", {}
    make_run(tmp_path / name, [journal_line("samples", 1, num_samples=4)], sheets=(1,))
    with client_for(tmp_path) as client:
        codes = {
            view: client.get("/api/reproduce", params={"run": name, "view": view}).json()
            for view in ("tile-history", "seeds", "walk", "invert")
        }
    exec(codes["tile-history"]["python"], namespace)  # noqa: S102
    assert namespace["images"][0][5, 5] == 1
    for code in list(codes.values())[1:]:
        assert str(tmp_path / name) in shlex.split(code["command"])
        assert repr(str(tmp_path / name)) in code["python"]


def test_label_is_quoted(client):
    label = "'); import os; $(rm -rf x) `x` \""
    found = reproduce_response(client, "interpolation", "label=" + label.replace(";", "%3B"))
    assert f"--label={label}" in shlex.split(found["command"])
    assert repr(label) in found["python"]
