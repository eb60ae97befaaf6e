"""Sample sets: readable by `cardigan train` with labels, generated in chunks, equal for equal seeds."""

import json

import numpy as np
import pytest
from random_snapshots import random_snapshot

import cardigan
from cardigan.data.formats.detection import open_reader
from cardigan.errors import CardiganError
from cardigan.exports import samples
from cardigan.exports.export import export
from cardigan.files.sha256 import file_sha256
from cardigan.latents.sampling import sample_labels
from cardigan.models.sampling import sample_keys, sample_pixels

FILES = ["set", "set.zip", "set.npz", "set.parquet"]
TINY = {
    "batch_size": 4,
    "generator.width": 4,
    "discriminator.width": 4,
    "device": "cpu",
    "conditional": True,
    "precision": "fp32",
}


@pytest.mark.parametrize("file", FILES)
def test_samples_can_be_trained_on_with_labels(file, tmp_path):
    snapshot = random_snapshot(classes=3, channels=3, height=16, width=24)
    done = export(snapshot, "samples", tmp_path / file, num_samples=12, seed=5)
    assert done.difference == 0 and done.card.exists()
    reader = open_reader(str(done.path))
    expected = sample_labels(sample_keys(12, 5), 3).tolist()
    assert [int(label) for label in reader.labels] == expected and len(reader) == 12
    run = cardigan.train(
        done.path,
        recipe="mnist",
        out=tmp_path / "run",
        images=4,
        overrides={**TINY, "data.height": 16, "data.width": 24},
    )
    assert cardigan.load(run.path).snapshot.spec.num_classes == len(set(expected))


def test_parts_are_disjoint_and_make_up_the_whole(tmp_path):
    from cardigan.cli.main import run
    from cardigan.models.snapshot import write_snapshot

    model = tmp_path / "generator.safetensors"
    write_snapshot(model, random_snapshot(classes=3))
    words = ["export", str(model), "--format", "samples", "--samples", "11", "--seed", "4"]
    assert run([*words, "--out", str(tmp_path / "all.npz")]) == 0
    for part in (1, 2, 3):
        assert run([*words, "--part", f"{part}/3", "--out", str(tmp_path / f"{part}.npz")]) == 0
    whole, *parts = [np.load(tmp_path / f"{name}.npz") for name in ("all", "1", "2", "3")]
    for name in ("images", "labels"):
        assert np.array_equal(whole[name], np.concatenate([part[name] for part in parts]))
    words = ["sample", str(model), "-n", "11", "--seed", "4", "--part", "2/3", "--label", "1"]
    assert run([*words, "--out", str(tmp_path / "part")]) == 0
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == [
        f"{number:06d}.png" for number in range(3, 7)
    ]
    expected = cardigan.load(model).sample(11, seed=4, labels=1)[3:7]
    assert np.array_equal(cardigan.load(model).sample(4, seed=4, labels=1, first=3), expected)


@pytest.mark.parametrize("file", ["set.npz", "set.zip"])
def test_several_processes_write_the_same_bytes(file, tmp_path):
    from cardigan.cli.main import run
    from cardigan.models.snapshot import write_snapshot

    model = tmp_path / "generator.safetensors"
    write_snapshot(model, random_snapshot("resnet", classes=3))
    words = ["export", str(model), "--format", "samples", "--samples", "2100", "--device", "cpu"]
    for folder, num_devices in (("one", "1"), ("two", "2")):
        (tmp_path / folder).mkdir()
        assert run([*words, "--devices", num_devices, "--out", str(tmp_path / folder / file)]) == 0
    assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--format", "samples", "--devices", "0"], "--devices is 0: expected 1..64"),
        (["--format", "samples", "--device", "abacus"], "--device is 'abacus': expected auto, cpu, or a GPU"),
        (["--format", "safetensors", "--device", "cpu"], "--device has no effect without --format samples"),
        (["--format", "safetensors", "--devices", "2"], "--devices has no effect without --format samples"),
    ],
)
def test_invalid_devices_are_refused(words, expected, tmp_path, capsys):
    from cardigan.cli.main import run

    assert run(["export", str(tmp_path / "none"), *words]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/12", "a/b"])
def test_invalid_part_is_refused(tmp_path, part, capsys):
    from cardigan.cli.main import run

    assert run(["sample", str(tmp_path / "none"), "-n", "11", "--part", part]) == 2
    assert f"--part is {part!r}: expected K/N" in capsys.readouterr().err


@pytest.mark.parametrize("file", FILES)
def test_samples_without_classes_and_with_alpha(file, tmp_path):
    snapshot = random_snapshot(channels=4)
    done = export(snapshot, "samples", tmp_path / file, num_samples=5)
    assert open_reader(str(done.path)).labels is None
    assert done.difference == 0


def test_samples_are_deterministic_across_chunks(tmp_path, monkeypatch):
    snapshot = random_snapshot(classes=2, names=("cat", "dog"))
    monkeypatch.setattr(samples, "CHUNK_SIZE", 4)
    for file in FILES[1:]:
        first = export(snapshot, "samples", tmp_path / file, num_samples=11)
        content = first.path.read_bytes()
        second = export(snapshot, "samples", tmp_path / file, num_samples=11, overwrite=True)
        assert second.path.read_bytes() == content
    with np.load(tmp_path / "set.npz") as arrays:
        keys = sample_keys(11, 0)
        expected = sample_pixels(snapshot, keys, sample_labels(keys, 2)).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(arrays["images"], expected)
        assert arrays["labels"].tolist() == sample_labels(keys, 2).tolist()
        assert arrays["class_names"].tolist() == ["cat", "dog"]
        assert json.loads(str(arrays["manifest"]))["num_images"] == 11


def test_manifest(tmp_path):
    done = export(
        random_snapshot(classes=2, names=("cat", "dog")),
        "samples",
        tmp_path / "set",
        num_samples=3,
        seed=9,
        truncation=0.5,
        label="dog",
    )
    manifest = json.loads((done.path / "manifest.json").read_text())
    assert (manifest["num_images"], manifest["seed"], manifest["truncation"], manifest["label"]) == (3, 9, 0.5, "dog")
    assert done.sha256 == file_sha256(done.path / "manifest.json")
    assert json.loads((done.path / "dataset.json").read_text())["labels"] == [
        [f"{index:08d}.png", "dog"] for index in range(3)
    ]
    assert done.sha256 in (done.path / "README.md").read_text()
    assert {each.name for each in tmp_path.iterdir()} == {"set"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_samples": 0}, r"num_samples is 0: expected 1\.\.10000000"),
        ({"num_samples": 10**9}, "num_samples is 1000000000"),
        ({"seed": -1}, "seed is -1"),
        ({"label": 3}, r"label 3 is out of range: expected 0\.\.2"),
        ({"label": "cat"}, "label is 'cat'"),
        ({"truncation": 2.0}, "truncation is 2.0"),
    ],
)
def test_invalid_settings_raise(settings, words, tmp_path):
    with pytest.raises(CardiganError, match=words):
        export(random_snapshot(classes=3), "samples", tmp_path / "set.zip", **settings)
    assert not list(tmp_path.iterdir())


def test_unsupported_labels_and_channels_raise(tmp_path):
    with pytest.raises(CardiganError, match="unconditional"):
        export(random_snapshot(), "samples", tmp_path / "set", label=1)
    with pytest.raises(CardiganError, match="have 5 channels: a sample set supports"):
        export(random_snapshot(channels=5), "samples", tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_readback_detects_wrong_image_or_label(tmp_path, monkeypatch):
    sample_chunks = samples._sample_chunks

    def corrupted(*arguments):
        for chunk in sample_chunks(*arguments):
            chunk.pixels[-1] ^= 64
            yield chunk

    monkeypatch.setattr(samples, "_sample_chunks", corrupted)
    with pytest.raises(CardiganError, match="images of the set of samples differ from PyTorch's"):
        export(random_snapshot(classes=3), "samples", tmp_path / "set", num_samples=3)
    assert not list(tmp_path.iterdir())


def test_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "CHUNK_SIZE", 2)

    def interrupt(snapshot, settings, numbers):
        if 4 in numbers:
            raise KeyboardInterrupt

    monkeypatch.setattr(samples, "_sample_labels", interrupt)
    for file in FILES:
        with pytest.raises(KeyboardInterrupt):
            export(random_snapshot(), "samples", tmp_path / file, num_samples=9)
    assert not list(tmp_path.iterdir())
