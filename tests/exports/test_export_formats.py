"""Every format of every network gives PyTorch's images for any batch size; a failed export writes nothing."""

import hashlib
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from random_snapshots import NETWORKS, random_snapshot
from torch import nn

import cardigan
from cardigan.cli import known_names
from cardigan.config_parts import NetworkConfig
from cardigan.errors import CardiganError
from cardigan.exports import checking, table
from cardigan.exports import export as export_module
from cardigan.exports.anonymize import public_source
from cardigan.exports.checking import check_inputs, largest_difference, pytorch_generate_fn
from cardigan.exports.export import export
from cardigan.exports.graph import without_parametrizations
from cardigan.exports.webpage.page import quantized_page_snapshot
from cardigan.files.tensors import CARD_KEY
from cardigan.models.snapshot import read_snapshot, write_snapshot
from cardigan.nets.dcgan import DcganGenerator

IMAGE_SHAPES = {"gray": (1, 16, 16), "rgb": (3, 12, 20), "rgba": (4, 17, 9)}


def onnx_images(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["images"], inputs)[0]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_images_equal_pytorch(network, classes, tmp_path):
    frame = list(IMAGE_SHAPES.values())[len(network) % 3] if network != "resnet" else (3, 16, 16)
    snapshot = random_snapshot(network, classes, *frame)
    done = export(snapshot, "onnx", tmp_path / "it.onnx")
    assert done.difference <= 1e-4
    for count in (1, 5):
        z, y = torch.randn(count, 8), torch.arange(count) % max(classes, 1)
        inputs = {"z": z.numpy(), "truncation": np.array(0.8, np.float32), **({"labels": y.numpy()} if classes else {})}
        expected = pytorch_generate_fn(snapshot)(z, y if classes else None, 0.8)
        assert np.abs(onnx_images(tmp_path / "it.onnx", **inputs) - expected.numpy()).max() <= 1e-4
        assert float(expected.std()) > 0.01, "a flat image proves nothing"


def test_added_formats_of_one_suffix_have_two_names_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(table.FORMATS, "copy", table.FORMATS["safetensors"])
    model = tmp_path / "generator.safetensors"
    write_snapshot(model, random_snapshot("mlp", 0, 1, 8, 8))
    done = export_module.export_all(model, ["safetensors", "copy", "pt2"], tmp_path / "all")
    assert [each.path.name for each in done] == ["safetensors.safetensors", "copy.safetensors", "generator.pt2"]
    assert all(each.path.is_file() for each in done)


def test_added_folder_format_needs_no_manifest(tmp_path, monkeypatch):
    def writer(snapshot, settings):
        def write(path, card):
            path.mkdir(exist_ok=True)
            (path / "b.txt").write_text("b")
            (path / "a.txt").write_text("a")
            return 0.0

        return write

    monkeypatch.setitem(table.FORMATS, "texts", table.ExportFormat("texts", ("",), writer, ("float32",), 0.0, "Read."))
    done = export(random_snapshot("mlp", 0, 1, 8, 8), "texts", tmp_path / "texts")
    assert done.sha256 == hashlib.sha256(b"a").hexdigest()
    card = done.card.read_text()
    assert all(hashlib.sha256(content).hexdigest() in card for content in (b"a", b"b"))


def test_names_for_the_help_are_those_of_the_table():
    assert tuple(table.FORMATS) == known_names.EXPORT_FORMATS


@pytest.mark.parametrize("frame", IMAGE_SHAPES)
@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_image_shapes(format, frame, tmp_path):
    done = export(random_snapshot("dcgan", 3, *IMAGE_SHAPES[frame]), format, tmp_path / f"it.{format}")
    assert done.difference <= 1e-6
    assert done.num_bytes == done.path.stat().st_size
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert done.sha256 in done.card.read_text()
    assert (f'gan = cardigan.load("it.{format}")' in done.card.read_text()) == (format == "safetensors")
    assert (b"gan = cardigan.load(" in done.path.read_bytes()) == (format == "safetensors")


@pytest.mark.parametrize("network", ["resnet", "r3gan", "mlp-one-hot"])
def test_pt2_runs_without_cardigan_or_pickle(network, tmp_path):
    snapshot = random_snapshot(network, 3)
    path = export(snapshot, "pt2", tmp_path / "it.pt2").path
    module = torch.export.load(path).module()
    for probe in check_inputs(snapshot):
        ours = pytorch_generate_fn(snapshot)(probe.z, probe.labels, probe.truncation)
        assert torch.allclose(module(probe.z, probe.labels, torch.tensor(probe.truncation)), ours, atol=1e-4)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert all(not content.startswith((b"PK", b"\x80\x02", b"\x80\x04")) for content in contents.values())
    assert not any(
        str(tmp_path).encode() in content or b".py" in content
        for name, content in contents.items()
        if name.endswith(".json")
    )
    assert any(content.startswith(b"---\nlibrary_name: cardigan") for content in contents.values())


def test_onnx_metadata(tmp_path):
    path = export(random_snapshot(classes=2, names=("cat", "dog")), "onnx", tmp_path / "it.onnx").path
    model = onnx.load(path)
    facts = {each.key: each.value for each in model.metadata_props}
    assert json.loads(facts["class_names"]) == ["cat", "dog"]
    assert json.loads(facts["cardigan"])["images_seen"] == 640
    assert (
        "it differs from PyTorch with the same weights by at most" in facts["card"]
        and "torch.randn(1, 8, generator=g)" in facts["card"]
    )
    assert [each.name for each in model.graph.input] == ["z", "labels", "truncation"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    onnx.checker.check_model(model, full_check=True)
    assert b".py" not in path.read_bytes()


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("network", ["dcgan", "dcgan-spectral", "resnet", "r3gan", "mlp"])
def test_quantized_file_is_smaller_and_matches_fake_quantization(network, weights, tmp_path):
    snapshot = random_snapshot(network, 3)
    whole = export(snapshot, "safetensors", tmp_path / "whole.safetensors")
    small = export(snapshot, "safetensors", tmp_path / "small.safetensors", weights=weights)
    assert small.num_bytes < whole.num_bytes
    assert small.difference <= 1e-5 and small.quantization_difference > 0
    found = read_snapshot(small.path)
    assert largest_difference(snapshot, pytorch_generate_fn(found)) == pytest.approx(
        small.quantization_difference, rel=1e-2, abs=1e-5
    )
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in found.generator.state_dict().values())


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_quantized_onnx(network, weights, tmp_path):
    whole = export(random_snapshot(network), "onnx", tmp_path / "whole.onnx")
    small = export(random_snapshot(network), "onnx", tmp_path / "small.onnx", weights=weights)
    assert small.difference <= 1e-4 and small.quantization_difference > 0
    kinds = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.INT8: "int8"}
    assert weights in {kinds.get(each.data_type) for each in onnx.load(small.path).graph.initializer}
    assert whole.weights == "float32"


def test_fp32_file_is_unchanged(tmp_path):
    snapshot = random_snapshot()
    write_snapshot(tmp_path / "a.safetensors", snapshot)
    content = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert (
        json.loads(header["cardigan"])["format"] == 3
        and CARD_KEY not in json.loads(header["cardigan"])
        and set(header) == {"cardigan"}
    )
    done = export(snapshot, "safetensors", tmp_path / "b.safetensors")
    content = done.path.read_bytes()
    assert export(snapshot, "safetensors", done.path, overwrite=True).path.read_bytes() == content


def test_exported_weights_include_spectral_norm():
    snapshot = random_snapshot("resnet", 3)
    without = replace(snapshot, generator=without_parametrizations(snapshot.generator))
    assert not any("parametrizations" in name for name in without.generator.state_dict())
    assert largest_difference(snapshot, pytorch_generate_fn(without)) < 1e-6
    assert any("parametrizations" in name for name in snapshot.generator.state_dict()), "the original was changed"


def test_mismatching_export_is_rejected_and_removed(tmp_path, monkeypatch):
    snapshot = random_snapshot()
    (tmp_path / "it.onnx").write_bytes(b"what was there")
    monkeypatch.setitem(table.FORMATS, "onnx", replace(table.FORMATS["onnx"], tolerance=-1.0))
    with pytest.raises(CardiganError, match="images of the ONNX file differ from PyTorch's by"):
        export(snapshot, "onnx", tmp_path / "it.onnx", overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["it.onnx"]
    assert (tmp_path / "it.onnx").read_bytes() == b"what was there"


def test_export_check_detects_wrong_images():
    snapshot = random_snapshot(classes=3)
    right = pytorch_generate_fn(snapshot)
    assert largest_difference(snapshot, right) == 0
    assert largest_difference(snapshot, lambda z, y, t: right(z, y, 1.0)) > 0.001
    assert largest_difference(snapshot, lambda z, y, t: right(z, y.flip(0), t)) > 0.001
    assert largest_difference(snapshot, lambda z, y, t: right(z, y, t)[:1]) == float("inf")
    assert largest_difference(snapshot, lambda z, y, t: right(z, y, t) * float("nan")) == float("inf")
    with pytest.raises(CardiganError):
        checking.check_difference("page", float("nan"), 1.0)


class OtherDeviceGenerator(DcganGenerator):
    """A generator that pretends to be on a GPU."""

    away = True

    def parameters(self, recurse=True):
        return (
            iter([SimpleNamespace(device=torch.device("cuda"), numel=lambda: 1)])
            if self.away
            else super().parameters(recurse)
        )

    def cpu(self):
        self.away = False
        return super().cpu()

    def forward(self, z, labels=None):
        if self.away:
            raise RuntimeError("Expected all tensors to be on the same device")
        return super().forward(z, labels)


def test_export_keeps_model_on_its_device(tmp_path):
    snapshot = random_snapshot()
    before = pytorch_generate_fn(snapshot)(torch.ones(1, 8), None, 1.0)
    snapshot.generator.__class__ = OtherDeviceGenerator
    found = export(snapshot, "safetensors", tmp_path / "it.safetensors")
    assert torch.equal(pytorch_generate_fn(read_snapshot(found.path))(torch.ones(1, 8), None, 1.0), before)
    assert snapshot.generator.away


class UnsupportedLayer(nn.Module):
    """A module without a fixed graph."""

    def forward(self, x):
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_unsupported_layer_is_named(format, tmp_path):
    snapshot = random_snapshot()
    snapshot.generator.norms[0] = UnsupportedLayer()
    with pytest.raises(CardiganError, match="The dcgan generator has a part that cannot be exported"):
        export(snapshot, format, tmp_path / f"it.{format}")
    assert not list(tmp_path.iterdir())


class DoubleLayer(nn.Module):
    """A module that ONNX has an operator for, but onnxruntime does not implement."""

    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 1, dtype=torch.float64)

    def forward(self, x):
        return self.convolution(x.double()).float()


def test_onnxruntime_error_is_one_line(tmp_path):
    snapshot = random_snapshot()
    snapshot.generator.norms[0] = DoubleLayer(snapshot.generator.norms[0].num_features)
    with pytest.raises(CardiganError, match="The dcgan generator has a part that cannot be exported"):
        export(snapshot, "onnx", tmp_path / "it.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_out_of_range(tmp_path):
    snapshot = random_snapshot()
    snapshot.generator.from_latent.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(CardiganError, match=r"from_latent.weight has values beyond 65,504"):
        export(snapshot, "safetensors", tmp_path / "it.safetensors", weights="float16")
    for format, weights in (("pt2", "int8"), ("samples", "float16")):
        with pytest.raises(CardiganError, match=f"weights is '{weights}'"):
            export(snapshot, format, weights=weights)
    assert not list(tmp_path.iterdir())


def test_missing_onnx_names_the_extra(monkeypatch):
    monkeypatch.setattr("cardigan.exports.onnx.find_spec", lambda name: None)
    with pytest.raises(CardiganError, match=r"pip install 'cardigan\[onnx\]'"):
        export(random_snapshot(), "onnx", "it.onnx")


def test_onnxscript_older_than_torch_is_named(monkeypatch, tmp_path):
    def export_with_old_onnxscript(*_, **__):
        raise torch.onnx.OnnxExporterError("Failed") from ModuleNotFoundError("No module named 'onnxscript.new'")

    monkeypatch.setattr(torch.onnx, "export", export_with_old_onnxscript)
    with pytest.raises(CardiganError, match=r"onnxscript .* does not fit torch .*pip install --upgrade onnxscript"):
        export(random_snapshot(), "onnx", tmp_path / "it.onnx")


@pytest.mark.parametrize(("package", "lowest"), [("onnxscript", (0, 6)), ("pyarrow", (17,))])
def test_lower_bounds_are_the_first_that_work(package, lowest):
    """onnxscript 0.5 lacks what torch 2.13 imports; pyarrow 16 has no `ParquetWriter.add_key_value_metadata`."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    bounds = re.findall(rf'"{package}>=([\d.]+)"', project)
    assert len(bounds) == 2 and all(tuple(map(int, bound.split("."))) >= lowest for bound in bounds)


def test_exports_api(tmp_path):
    import cardigan

    done = cardigan.export(random_snapshot(), "safetensors", tmp_path / "it.safetensors")
    assert isinstance(done, export_module.ExportedFile)
    assert np.array_equal(cardigan.load(done.path).sample(2), cardigan.load(tmp_path / "it.safetensors").sample(2))


def test_quantized_webpage_reports_rounding(tmp_path):
    snapshot = random_snapshot("dcgan", classes=3, height=16, width=16)
    found = cardigan.export(snapshot, "html", tmp_path / "page.html", weights="int8")
    assert found.difference < 1e-4 < found.quantization_difference
    assert found.quantization_difference == pytest.approx(
        largest_difference(snapshot, pytorch_generate_fn(quantized_page_snapshot(snapshot, "int8"))), rel=1e-3
    )
    assert "its program with fp32 weights differs from PyTorch by" in found.card.read_text()


@pytest.mark.parametrize(
    ("source", "public_name", "formats"),
    [
        ("/home/somebody/secret/photos", "photos", ("safetensors", "onnx", "html")),
        (
            "https://somebody:x@host/train-{000..9}.tar?X-Amz-Signature=somebody",
            "https://host/train-{000..9}.tar",
            ("safetensors", "html"),
        ),
    ],
)
def test_exports_are_anonymized(source, public_name, formats, tmp_path):
    snapshot = random_snapshot()
    data = replace(snapshot.config.data, source=source, labels="/home/somebody/labels.csv")
    teacher = NetworkConfig(network="projected", options={"backbone": "/home/somebody/dinov2.safetensors"})
    snapshot = replace(snapshot, config=replace(snapshot.config, data=data, discriminator=teacher))
    for format in formats:
        found = cardigan.export(snapshot, format, tmp_path / f"digits.{format}")
        assert b"somebody" not in found.path.read_bytes() and "somebody" not in found.card.read_text(), format
    config = cardigan.load(tmp_path / "digits.safetensors").config
    assert config.data.source == public_name and config.discriminator.options["backbone"] == "dinov2.safetensors"
    cardigan.Model(snapshot).save_pretrained(tmp_path / "shared")
    assert all(b"somebody" not in path.read_bytes() for path in (tmp_path / "shared").iterdir())


@pytest.mark.parametrize(
    ("source", "public_name"),
    [
        ("stacked-mnist", "stacked-mnist"),
        ("https://me:secret@host/a@b/train.tar#secret", "https://host/a@b/train.tar"),
        ("HTTPS://secret@host/train.tar?a=secret&b=://secret/@x", "HTTPS://host/train.tar"),
        ("{https://me:secret@one/a,https://me:secret@two/b}.tar", "{https://one/a,https://two/b}.tar"),
        ("s3://bucket/train-???.tar", "s3://bucket/train-???.tar"),
        ("sftp://me:secret@host/train.tar", "sftp://host/train.tar"),
        ("file:///home/secret/train.tar", "train.tar"),
        ("tar://inner-*.tar::/home/secret/outer.tar", "tar://inner-*.tar::outer.tar"),
        ("simplecache::https://me:secret@host/train.tar?a::secret", "simplecache::https://host/train.tar"),
        ("hf:user/set:train", "hf:user/set:train"),
        ("hf:/home/secret/set:train", "set"),
        ("hf:~/secret/set", "set"),
        ("hf:../secret/set", "set"),
        ("hf:secret/sets/mine", "mine"),
    ],
)
def test_anonymized_source_names(source, public_name):
    config = random_snapshot().config
    assert public_source(replace(config, data=replace(config.data, source=source))) == public_name


def test_export_never_overwrites_its_model(tmp_path):
    write_snapshot(tmp_path / "mine.safetensors", random_snapshot())
    before = (tmp_path / "mine.safetensors").read_bytes()
    with pytest.raises(CardiganError, match="is the model itself"):
        cardigan.export(
            tmp_path / "mine.safetensors", "safetensors", tmp_path / "mine.safetensors", weights="int8", overwrite=True
        )
    assert (tmp_path / "mine.safetensors").read_bytes() == before
    with pytest.raises(CardiganError, match="cannot be written"):
        cardigan.export(tmp_path / "mine.safetensors", "safetensors", tmp_path / f"{'x' * 300}.safetensors")
    (tmp_path / "b.safetensors.card.md").mkdir()
    with pytest.raises(CardiganError, match="is a folder"):
        cardigan.export(tmp_path / "mine.safetensors", "safetensors", tmp_path / "b.safetensors", overwrite=True)
    assert not (tmp_path / "b.safetensors").exists()
