"""Sampling from a model: the same z gives the same image; files that are no model give an error."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.files.tensors import read_tensors
from cardigan.models.sampling import sample_batch_size, sample_keys, sample_pixels
from cardigan.models.snapshot import read_snapshot, write_snapshot
from cardigan.pixels import decode
from tiny_runs import small_snapshot

SMALL = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return cardigan.train(
        "mnist", out=tmp_path_factory.mktemp("runs") / "run", images=64, overrides={**SMALL, "conditional": False}
    ).path


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return cardigan.train(
        "mnist", out=tmp_path_factory.mktemp("runs") / "run", images=64, overrides={**SMALL, "conditional": True}
    ).path


def test_image_depends_only_on_seed(run):
    model = cardigan.load(run)
    many = model.sample(200, seed=5)
    assert many.shape == (200, 32, 32, 1)
    assert many.dtype == np.uint8
    assert np.array_equal(model.sample(1, seed=5), many[:1])
    assert np.array_equal(model.sample(67, seed=5), many[:67])
    assert np.array_equal(model.sample_seeds([7, 5]), np.concatenate([model.sample(1, seed=7), many[:1]]))
    assert not np.array_equal(model.sample(1, seed=6), many[:1])


def test_batch_size_of_sampling_is_fixed(run):
    """So all requests have the same bits. On a CPU it is small, so that one image is not as slow as 64."""
    model, sizes = cardigan.load(run), []
    model.snapshot.generator.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for count in (1, 16, 17):
        model.sample(count)
    assert sizes == [16, 16, 16, 16]
    assert sample_batch_size(torch.device("cuda")) == 64


def test_run_checkpoint_and_file_load_equal_models(run, tmp_path):
    shutil.copy(run / "generator.safetensors", tmp_path / "mine.safetensors")
    expected = cardigan.load(run).sample(4)
    assert np.array_equal(cardigan.load(tmp_path / "mine.safetensors").sample(4), expected)
    assert np.array_equal(cardigan.load(run / "checkpoints" / "00000064").sample(4), expected)


def test_images_do_not_depend_on_where_weights_are_in_a_file(tmp_path):
    """MKL sums in another order if a matrix has another alignment. A card in the header moves the tensors."""
    snapshot = small_snapshot(generator__network="resnet")
    for number in range(4):
        write_snapshot(tmp_path / "model.safetensors", snapshot, card="x" * 8 * number)
        state = read_snapshot(tmp_path / "model.safetensors").generator.state_dict()
        assert {tensor.data_ptr() % 64 for tensor in state.values()} == {0}


def test_sample_grid_has_logits(conditional):
    event = [event for event in cardigan.read_events(conditional / "journal.jsonl") if event.kind == "samples"][-1]
    snapshot = cardigan.load(conditional).snapshot
    discriminator = cardigan.build_discriminator(snapshot.config, snapshot.spec)
    discriminator.load_state_dict(
        read_tensors(conditional / "checkpoints" / "00000064" / "state.safetensors", "discriminator.")
    )
    first = cardigan.Batches(cardigan.load_mnist("train"), snapshot.config.data, snapshot.config.seed).batch_at(0, 64)
    samples = sample_pixels(snapshot, sample_keys(64, 0), first.labels)
    with torch.no_grad():
        expected = [discriminator(images, first.labels).flatten() for images in (decode(samples), first.images)]
    for name, logits in zip(("fake_logits", "real_logits"), expected, strict=True):
        assert torch.allclose(
            torch.tensor(event.values[name]), logits, atol=0.02 * float(logits.abs().max())
        )  # training rounds to bf16


def test_sampling_is_stateless_and_truncation(run):
    model = cardigan.load(run)
    average = model.sample(8, truncation=0.0)
    assert np.array_equal(average, np.repeat(average[:1], 8, axis=0))
    with pytest.raises(CardiganError, match="truncation"):
        model.sample(1, truncation=1.5)


def test_labels(run, conditional):
    model = cardigan.load(conditional)
    assert not np.array_equal(model.sample(4, labels=1), model.sample(4, labels=2))
    with pytest.raises(CardiganError, match=r"label 10 is out of range: expected 0\.\.9"):
        model.sample(4, labels=10)
    with pytest.raises(CardiganError, match=r"label is 'seven': expected 0\.\.9; its classes have no names"):
        model.sample(4, labels="seven")
    for label in (1, "1", "seven"):
        with pytest.raises(CardiganError, match="unconditional"):
            cardigan.load(run).sample(4, labels=label)


@pytest.mark.parametrize("name", ["grid.png", "array.npy", "array.npz", "folder"])
def test_sample_output_formats(run, tmp_path, name):
    out = tmp_path / name
    assert cardigan_command(["sample", str(run), "-n", "5", "--out", str(out)]) == 0
    if name == "folder":
        assert len(list(out.glob("*.png"))) == 5
    elif name == "array.npy":
        assert np.load(out).shape == (5, 32, 32, 1)
    elif name == "array.npz":
        assert np.load(out)["images"].shape == (5, 32, 32, 1)
    assert cardigan_command(["sample", str(run), "--out", str(out)]) == 2  # never replaced without --overwrite


def contents(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name if path.is_dir() else "", file.read_bytes()) for file in files]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("array.npy", ["-n", "600", "--seed", "3", "--part", "2/2"]),
        ("folder", ["-n", "520", "--label", "3", "--truncation", "0.7"]),
        ("grid.png", ["--seeds", "0-299"]),
    ],
)
def test_several_processes_sample_the_same_images(conditional, tmp_path, name, words):
    for folder, num_devices in (("one", "1"), ("two", "2")):
        (tmp_path / folder).mkdir()
        out = ["--devices", num_devices, "--out", str(tmp_path / folder / name)]
        assert cardigan_command(["sample", str(conditional), *words, *out]) == 0
    assert contents(tmp_path / "two" / name) == contents(tmp_path / "one" / name)


def test_several_processes_have_the_same_errors(run, tmp_path, capsys):
    words = ["sample", str(run), "-n", "600", "--devices", "2", "--out", str(tmp_path / "new.npy")]
    assert cardigan_command([*words, "--truncation", "3"]) == 2
    assert capsys.readouterr().err.startswith("cardigan: truncation is 3")
    assert cardigan_command([*words, "--label", "3"]) == 2
    assert "unconditional" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--devices", "0"], "--devices is 0: expected 1..64"),
        (["--devices", "3"], "--devices is 3 but this machine has 2 GPUs: give that many or fewer"),
        (["--devices", "2", "--device", "cuda:1"], "--devices 2 uses the first 2 GPUs, but --device is 'cuda:1'"),
        (["--device", "abacus"], "--device is 'abacus': expected auto, cpu, or a GPU (cuda:0..cuda:1)"),
        (["--device", "cuda:2"], "--device is 'cuda:2': expected auto, cpu, or a GPU (cuda:0..cuda:1)"),
    ],
)
def test_invalid_devices_are_refused(run, tmp_path, monkeypatch, command, words, expected, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    models = [str(run)] * (2 if command == "compare" else 1)
    assert cardigan_command([command, *models, *words]) == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sample_output_errors(run, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep me")
    assert cardigan_command(["sample", str(run), "--out", str(tmp_path / "photos"), "--overwrite"]) == 2
    assert "never replaced" in capsys.readouterr().err
    assert (tmp_path / "photos" / "mine.txt").read_text() == "keep me"
    assert cardigan_command(["sample", str(run), "--out", str(tmp_path / "grid.bmp")]) == 2
    assert "expected a name ending in .jpeg, .jpg, .npy, .npz or .png, or a folder" in capsys.readouterr().err


def test_missing_models_raise(run, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"weights": [1, 2]}))
    (tmp_path / "cut.safetensors").write_bytes((run / "generator.safetensors").read_bytes()[:2000])
    for name, words in (
        ("model.pt", "pickle"),
        ("cut.safetensors", "truncated or damaged"),
        ("nothing", "There is no model"),
    ):
        assert cardigan_command(["sample", str(tmp_path / name), "--out", str(tmp_path / "out.png")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_info_and_recipes(run, capsys):
    assert cardigan_command(["info", str(run)]) == 0
    assert "Finished" in capsys.readouterr().out
    assert cardigan_command(["info", str(run), "--layers", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert sum(layer["multiply_adds"] for layer in facts["generator_layers"]) == facts["generator_multiply_adds"] > 0
    assert facts["discriminator_layers"][-1]["output_shape"] == [1, 1, 1]
    assert cardigan_command(["info", str(run), "--layers"]) == 0
    assert "total" in capsys.readouterr().out
    assert cardigan_command(["recipes", "--json"]) == 0
    assert '"name": "tutorial"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "mnits"], "did you mean 'mnist'"),
        (["train", "mnist", "--recipe", "tutorail"], "did you mean 'tutorial'"),
        (["train", "mnist", "--generator.widht", "3"], "did you mean '--generator.width'"),
        (["train", "mnist", "--data.height", "4"], "at least 8 pixels"),
        (["train", "mnist", "--batch-size", "0"], "batch_size is 0"),
        (["train", "mnist", "--minutes", "-1"], "minutes is -1"),
        (["train", "mnist", "--objective.loss", "hinges"], "Unknown loss"),
        (["sampel"], "did you mean 'sample'"),
    ],
)
def test_bad_input_gives_one_line_error(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cardigan_command(words) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
