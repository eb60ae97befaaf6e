"""A model in Python: pipeline calls, devices, previews; hostile files are rejected in bounded time and memory."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.errors import CardiganError
from cardigan.files.tensors import MAX_HEADER_BYTES, write_tensors
from cardigan.inference.arguments import validate_integer
from cardigan.latents.sampling import sample_from_generator
from cardigan.run.directory import RunDirectory, read_config
from tiny_runs import small_run, small_snapshot


@pytest.fixture(scope="module", params=[0, 10], ids=["unconditional", "conditional"])
def run(request, tmp_path_factory):
    path = small_run(tmp_path_factory.mktemp("runs") / "run", small_snapshot(classes=request.param))
    return cardigan.Run(path, read_config(RunDirectory(path)), 32, "images")


@pytest.fixture(scope="module")
def model(run):
    return cardigan.load(run.path)


def seeded_generator(number=0):
    return torch.Generator().manual_seed(number)


def test_call_like_a_pipeline(model):
    output = model(batch_size=3, generator=seeded_generator())
    assert [(image.mode, image.size) for image in output.images] == [("L", (32, 32))] * 3
    assert all(isinstance(image, Image.Image) for image in output[0])
    assert len(model().images) == 1
    floats = model(3, seeded_generator(), output_type="np").images
    assert (floats.shape, floats.dtype) == ((3, 32, 32, 1), np.float32)
    assert 0 <= floats.min() < floats.max() <= 1
    (tensor,) = model(3, seeded_generator(), output_type="pt", return_dict=False)
    assert torch.equal(tensor, torch.from_numpy(floats).permute(0, 3, 1, 2))
    for image, row in zip(output.images, floats, strict=True):
        assert np.abs(np.asarray(image) / 255 - row[:, :, 0]).max() <= 0.5 / 255 + 1e-6


def test_torch_generator_determines_samples(model):
    many = model(5, seeded_generator(), output_type="np").images
    assert np.array_equal(model(2, seeded_generator(), output_type="np").images, many[:2])
    assert not np.array_equal(model(2, seeded_generator(1), output_type="np").images, many[:2])
    each = model(2, [seeded_generator(), seeded_generator()], output_type="np").images
    assert np.array_equal(each, many[[0, 0]])
    assert not np.array_equal(model(1, output_type="np").images, model(1, output_type="np").images)
    torch.manual_seed(3)
    from_global_generator = model(2, output_type="np").images
    assert np.array_equal(model(2, seeded_generator(3), output_type="np").images, from_global_generator)


def test_labels_are_sampled_after_latents():
    z, classes = sample_from_generator(seeded_generator(), 100, "normal", 8, 10)
    assert set(classes.tolist()) == set(range(10))
    fewer, first = sample_from_generator(seeded_generator(), 3, "normal", 8, 10)
    assert torch.equal(fewer, z[:3])
    assert torch.equal(first, classes[:3])
    assert sample_from_generator(seeded_generator(), 3, "uniform", 8, 0)[1] is None


def test_latents_and_truncation(model):
    z = torch.randn(3, model.config.latent.size, generator=seeded_generator(7))
    labels = 4 if model.snapshot.spec.num_classes else None
    images = model(latents=z, labels=labels, output_type="np").images
    assert images.shape == (3, 32, 32, 1)
    as_float64 = z.numpy().astype(np.float64)
    assert np.array_equal(model(3, latents=as_float64, labels=labels, output_type="np").images, images)
    assert np.array_equal(
        model(latents=z / 2, labels=labels, output_type="np").images,
        model(latents=z, labels=labels, truncation=0.5, output_type="np").images,
    )
    for wrong, words in (
        (z[:, 1:], "expected floats of shape"),
        (z.long(), "expected floats"),
        (z * np.nan, "not finite"),
        (z[0], "expected floats"),
    ):
        with pytest.raises(CardiganError, match=words):
            model(latents=wrong)
    with pytest.raises(CardiganError, match=r"expected floats of shape \[2, 64\]"):
        model(2, latents=z)


def test_classes(model):
    if not model.snapshot.spec.num_classes:
        with pytest.raises(CardiganError, match="unconditional"):
            model(labels=1)
        return
    assert np.array_equal(
        model(2, seeded_generator(), labels=[1, 2], output_type="np").images[0],
        model(1, seeded_generator(), labels=1, output_type="np").images[0],
    )
    assert not np.array_equal(
        model(1, seeded_generator(), labels=2, output_type="np").images,
        model(1, seeded_generator(), labels=1, output_type="np").images,
    )
    assert np.array_equal(model.sample(2, labels=torch.tensor([1, 2])), model.sample(2, labels=[1, 2]))
    with pytest.raises(CardiganError, match="label 10 is out of range"):
        model(labels=10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, r"batch_size is 0: expected 1\.\."),
        ({"batch_size": 10**9}, "batch_size is 1000000000"),
        ({"output_type": "pill"}, "did you mean 'pil'"),
        ({"truncation": 2.0}, "truncation is"),
        ({"batch_size": 3, "generator": [torch.Generator()]}, "1 generators for 3 images"),
    ],
)
def test_invalid_sample_arguments(model, arguments, words):
    with pytest.raises(CardiganError, match=words):
        model(**arguments)


def test_devices(model):
    assert model.to("cpu") is model
    assert model.to("auto").device.type in {"cpu", "cuda", "mps"}
    model.to("cpu")
    for wrong in ("tpu", "meta", "cuda:99"):
        with pytest.raises(
            CardiganError, match=f"device is '{wrong}', which this machine or this PyTorch does not have"
        ):
            model.to(wrong)
    assert model.device == torch.device("cpu")


def test_notebook_repr(run, model):
    assert "32x32x1" in repr(model)
    assert "32 images seen" in repr(model)
    for shown in (model, run):
        assert shown._repr_png_().startswith(b"\x89PNG")
        assert 'src="data:image/png;base64,' in shown._repr_html_()
    start = time.process_time()
    model._repr_html_()
    assert time.process_time() - start < 5
    assert "<script" not in cardigan.Run(run.path / "<script>", run.config, 0, "images")._repr_html_()


HOSTILE = {
    "long penalty": {"config": {"objective": {"penalties": {"x" * 10**6: 1}}}},
    "width": {"config": {"generator": {"network": "resnet", "width": 10**9}}},
    "width beyond 64 bits": {"config": {"generator": {"width": 10**30}}},
    "height": {"config": {"data": {"height": 10**9, "width": 10**9}}},
    "latent": {"config": {"latent": {"size": 10**12}}},
    "depth": {"config": {"generator": {"network": "mlp", "depth": 10**9}}},
    "depth and height": {
        "config": {"generator": {"network": "resnet", "depth": 999}, "data": {"height": 10**9, "width": 10**9}}
    },
    "num_classes": {"num_classes": 10**12},
    "names": {"num_classes": 10**6, "class_names": ["x"] * 10**6},
    "negative classes": {"num_classes": -1},
    "long name": {"config": {"generator": {"network": "x" * 10**6}}},
    "long setting": {"config": {"x" * 10**6: 1}},
    "deep": {"config": {"generator": {"width": {"width": {"width": 1}}}}},
    "not finite": {"config": {"objective": {"penalties": {"r1": float("nan")}}}},
    "list": {"config": []},
    "text": {"num_classes": "many"},
}

LOAD_SCRIPT = """
import resource, sys, time
import torch
from pathlib import Path
from cardigan.errors import CardiganError
from cardigan.models.snapshot import read_snapshot
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for name in sys.argv[1:]:
    try:
        read_snapshot(Path(name))
        print("READ", name)
    except CardiganError as error:
        assert len(str(error)) < 1000, name
    after, ended = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    print(f"{(after - before) / 1024:.0f} {ended - began:.2f} {name}")
    before, began = after, ended
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory with a POSIX call")
def test_hostile_headers_use_bounded_memory(tmp_path):
    files = []
    for name, facts in HOSTILE.items():
        files.append(tmp_path / f"{name}.safetensors")
        write_tensors(
            files[-1], {"a": torch.zeros(3)}, {"format": 3, "num_classes": 0, "images_seen": 0, "config": {}, **facts}
        )
    files += [write_file(tmp_path / f"{name}.safetensors", content) for name, content in raw_files().items()]
    process = subprocess.run(
        [sys.executable, "-c", LOAD_SCRIPT, *map(str, files)], capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == len(files)
    for line in lines:
        megabytes, seconds, name = line.split(" ", 2)
        assert float(megabytes) < 400, name
        assert float(seconds) < 10, name


def test_unbuildable_header_error_names_file(tmp_path):
    file = tmp_path / "model.safetensors"
    write_tensors(
        file,
        {"a": torch.zeros(3)},
        {"format": 3, "num_classes": 0, "images_seen": 0, "config": {"generator": {"depth": 9}}},
    )
    with pytest.raises(CardiganError, match=f"{re.escape(str(file))} cannot be read here: generator.depth is 9"):
        cardigan.load(file)
    write_tensors(file, {"a": torch.zeros(3)}, {"format": 7, "num_classes": 0, "images_seen": 0, "config": {}})
    with pytest.raises(
        CardiganError,
        match=f"{re.escape(str(file))} cannot be read here: its format is 7, not 3 or 4: use the Cardigan version",
    ):
        cardigan.load(file)


def raw_files():
    """Return files with false lengths, offsets, shapes or nesting."""

    def file(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
        return (len(header) if length is None else length).to_bytes(8, "little") + header + body

    def tensor(offsets, shape=(1,), dtype="F32"):
        return json.dumps({"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}).encode()

    def metadata(text: str) -> bytes:
        return json.dumps(
            {"__metadata__": {"cardigan": text}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        ).encode()

    return {
        "empty": b"",
        "seven bytes": b"\0" * 7,
        "header beyond the file": file(b"{}", length=10**15),
        "header of 2^64": file(b"{}", length=2**64 - 1),
        "header as long as a file": file(b" " * (MAX_HEADER_BYTES + 1)),
        "nested": file(b"[" * 1_000_000),
        "negative offsets": file(tensor((-4, 0)), b"\0" * 4),
        "offsets beyond the file": file(tensor((0, 2**40), (2**38,)), b"\0" * 4),
        "shape beyond the file": file(tensor((0, 4), (2**38,)), b"\0" * 4),
        "shape that overflows": file(tensor((0, 4), (2**63, 2**63)), b"\0" * 4),
        "nested facts": file(metadata("[" * 1_000_000), b"\0" * 4),
        "many empty lists": file(metadata("[" + "[]," * 2_000_000 + "[]]"), b"\0" * 4),
        "long numbers": file(metadata('{"format": ' + "9" * 100_000 + "}"), b"\0" * 4),
        "facts that are no object": file(metadata("3"), b"\0" * 4),
    }


def write_file(path, content):
    path.write_bytes(content)
    return path


def test_large_valid_header(tmp_path):
    """The names of 100,000 classes are far below the size limit."""
    facts = {
        "format": 3,
        "num_classes": 100_000,
        "class_names": [f"class number {number}" for number in range(100_000)],
        "images_seen": 0,
        "config": {},
    }
    write_tensors(tmp_path / "large.safetensors", {"a": torch.zeros(1)}, facts)
    with pytest.raises(CardiganError, match="does not hold the generator that its header describes"):
        cardigan.load(tmp_path / "large.safetensors")


def test_save_is_atomic_and_needs_no_run(tmp_path):
    small_run(tmp_path / "run", small_snapshot())
    model = cardigan.load(tmp_path / "run")
    model.save_pretrained(tmp_path / "kept")
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardigan.inference.model.model_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cardigan.load(tmp_path / "run").save_pretrained(tmp_path / "kept", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    shutil.rmtree(tmp_path / "run")
    model.save_pretrained(tmp_path / "kept", overwrite=True)
    assert np.array_equal(cardigan.load(tmp_path / "kept").sample(2), model.sample(2))


def test_existing_folder_is_replaced_from_within(tmp_path, monkeypatch):
    """The folder may be the current one, on another disk, or in a read-only parent."""
    (tmp_path / "closed" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "closed" / "mine")
    (tmp_path / "closed").chmod(0o555)
    try:
        cardigan.Model(small_snapshot()).save_pretrained(".")
        cardigan.Model(small_snapshot(images_seen=16)).save_pretrained(tmp_path / "closed" / "mine", overwrite=True)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert cardigan.load(".").images_seen == 16
    assert sorted(path.name for path in Path().iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_samples": True}, "num_samples is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "expected 0"),
        ({"labels": "9" * 30}, "out of range"),
        ({"labels": 10**30}, "out of range"),
        ({"labels": np.array([[1, 2]])}, "shape"),
        ({"labels": np.array([7.5])}, "label is 7.5"),
    ],
)
def test_non_numeric_arguments_raise(arguments, words):
    model = cardigan.Model(small_snapshot(classes=10))
    with pytest.raises(CardiganError, match=words):
        model.sample(**{"num_samples": 2, **arguments})
    assert model.sample(np.int64(2), seed=np.int64(1)).shape == (2, 32, 32, 1)


def test_empty_seeds_and_latents_raise():
    model = cardigan.Model(small_snapshot())
    with pytest.raises(CardiganError, match="No seeds"):
        model.sample_seeds([])
    with pytest.raises(CardiganError, match="latents are"):
        model(latents=np.array(["a"]))
    for wrong in ("a", 1.5, None, [1]):
        with pytest.raises(CardiganError, match="expected an integer"):
            validate_integer("seed", wrong, 9)
