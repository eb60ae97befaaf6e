"""The page's parts, without a browser: programs of all networks, the weight block, the WebAssembly, the file."""

import dataclasses
import json
import re
from email.message import Message
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from cardigan.config import Config
from cardigan.config_parts import DataConfig, LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.exports.webpage import page
from cardigan.exports.webpage.interpreter import run_program
from cardigan.exports.webpage.lowering import lower_generator
from cardigan.exports.webpage.matmul import matmul_module
from cardigan.exports.webpage.page import write_page
from cardigan.exports.webpage.wasm import signed_leb128, unsigned_leb128
from cardigan.exports.webpage.weight_block import pack_tensors, unpack_tensors
from cardigan.models.snapshot import Snapshot
from cardigan.nets.interface import Generator
from cardigan.nets.table import NETS, build_generator

LATENT = 20
OPTIONS = {
    "dcgan": [
        {"normalization": "batch"},
        {"spectral_norm": True, "conditioning": "one-hot"},
        {"normalization": "batch-no-scale", "depth": 4},
    ],
    "resnet": [
        {"normalization": "batch", "options": {"attention_resolution": 9}, "spectral_norm": True},
        {"options": {"attention_resolution": 18}, "depth": 2},
    ],
    "r3gan": [{"depth": 1}],
    "mlp": [{"conditioning": "one-hot"}, {"depth": 3, "spectral_norm": True}],
    "light": [{"normalization": "batch"}, {"depth": 2, "options": {"skip": 1}}],
}
CASES = [(name, options, classes) for name, choices in OPTIONS.items() for options in choices for classes in (0, 1, 5)]


def random_generator(
    name: str, classes: int, size=(18, 37), channels=1, latent=LATENT, width=8, distribution="normal", **options
) -> Snapshot:
    """Return a generator in which every weight matters: norms have statistics, and no weight stays 0."""
    options = {key: value for key, value in options.items() if classes or key != "conditioning"}
    data = DataConfig(source="mnist", height=size[0], width=size[1], channels=channels)
    config = Config(
        data=data,
        latent=LatentConfig(size=latent, distribution=distribution),
        generator=NetworkConfig(network=name, width=width, **options),
    )
    torch.manual_seed(0)
    generator = build_generator(config, image_spec(data, classes))
    for parameter_name, parameter in generator.named_parameters():
        if parameter.dim() < 2 or not parameter.any():
            parameter.data.normal_(mean=float(parameter_name.endswith("weight") and parameter.dim() == 1), std=0.3)
    with torch.no_grad():
        generator.train()(torch.randn(8, latent), torch.arange(8) % classes if classes else None)
    return Snapshot(generator.eval().requires_grad_(False), config, image_spec(data, classes), 640)


@pytest.mark.parametrize(("name", "options", "classes"), CASES, ids=str)
def test_program_output_equals_network(name, options, classes):
    snapshot = random_generator(name, classes, **options)
    program = lower_generator(snapshot.generator, LATENT, classes)
    z, labels = torch.randn(7, LATENT), torch.arange(7) % classes if classes else None
    expected = snapshot.generator(z, labels)
    actual = run_program(program, z, None if labels is None else one_hot(labels, classes).float())
    assert expected.std() > 0.01
    assert torch.allclose(actual, expected, atol=1e-5, rtol=1e-4)


def test_cases_cover_every_network():
    assert set(OPTIONS) == {name for name, family in NETS.items() if family.generator}


def test_batch_norm_is_folded_into_preceding_convolution():
    program = lower_generator(random_generator("dcgan", 0, normalization="batch").generator, LATENT, 0)
    kinds = [step.kind for step in program.operations]
    assert (kinds.count("conv_transpose2d"), kinds.count("leaky_relu"), kinds.count("channel_affine")) == (4, 3, 0)
    assert "channel_affine" in {
        step.kind
        for step in lower_generator(
            random_generator("resnet", 0, normalization="batch").generator, LATENT, 0
        ).operations
    }


class SkipGenerator(Generator):
    """Two convolutions of one value; the first is normalized after the second is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(LATENT, 64)
        self.convolution, self.skip = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, z, labels=None):
        x = self.linear(z).unflatten(1, (1, 8, 8))
        hidden = self.convolution(x)
        skip = self.skip(x)
        return torch.tanh(self.norm(hidden) + skip)


def test_batch_norm_is_not_folded_elsewhere():
    torch.manual_seed(0)
    network = SkipGenerator()
    network(torch.randn(8, LATENT))  # sets the running statistics
    z = torch.randn(5, LATENT)
    images = run_program(lower_generator(network.eval().requires_grad_(False), LATENT, 0), z)
    assert torch.allclose(images, network(z), atol=1e-5)


def test_class_interpolation_is_linear():
    snapshot = random_generator("mlp", 3)
    program = lower_generator(snapshot.generator, LATENT, 3)
    mixed = run_program(program, torch.zeros(1, LATENT), torch.tensor([[0.5, 0.5, 0.0]]))
    table = snapshot.generator.latent.embedding.weight
    table.data[2] = (table[0] + table[1]) / 2
    assert torch.allclose(mixed, snapshot.generator(torch.zeros(1, LATENT), torch.tensor([2])), atol=1e-6)


class UnsupportedGenerator(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ELU()
        self.linear = nn.Linear(LATENT, 64)

    def forward(self, z, labels=None):
        return torch.tanh(self.activation(self.linear(z))).unflatten(1, (1, 8, 8))


class BatchDependentGenerator(UnsupportedGenerator):
    def forward(self, z, labels=None):
        return torch.tanh(self.linear(z - z.mean(dim=0))).unflatten(1, (1, 8, 8))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (UnsupportedGenerator(), ["'elu'", "ELU 'activation'"]),
        (BatchDependentGenerator(), ["'mean'", "BatchDependentGenerator"]),
    ],
    ids=["elu", "mean"],
)
def test_unsupported_webpage_layer_is_named(network, words, tmp_path):
    snapshot = Snapshot(network.eval(), Config(latent=LatentConfig(size=LATENT)), ImageSpec(1, 8, 8, 0), 0)
    with pytest.raises(CardiganError) as error:
        write_page(snapshot, tmp_path / "page.html")
    assert all(word in str(error.value) for word in words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("weights", "error"), [("float32", 0), ("float16", 2**-11), ("int8", 0.5 / 127 + 1e-6)])
def test_weights_round_trip_within_dtype_precision(weights, error):
    tensors = [torch.randn(5, 3, 2), torch.randn(7), torch.zeros(2, 2), torch.randn(3, 1) * 1e-3]
    back = unpack_tensors(*pack_tensors(tensors, weights))
    for one, other in zip(tensors, back, strict=True):
        largest = one.reshape(len(one), -1).abs().max(dim=1).values.view(-1, *[1] * (one.dim() - 1))
        assert ((one - other).abs() <= error * largest + 2**-25).all()
    assert torch.equal(back[1], tensors[1])


def test_weights_out_of_range_raise(tmp_path):
    snapshot = random_generator("mlp", 0)
    snapshot.generator.to_image.weight.data[0, 0] = 7e4
    with pytest.raises(CardiganError, match="maximum is 65504: use float32"):
        write_page(snapshot, tmp_path / "page.html")
    assert write_page(snapshot, tmp_path / "page.html", weights="float32") < 1e-4
    snapshot.generator.to_image.weight.data[0, 0] = float("nan")
    with pytest.raises(CardiganError, match="non-finite weights"):
        write_page(snapshot, tmp_path / "page.html")
    with pytest.raises(CardiganError, match="did you mean 'float16'"):
        write_page(snapshot, tmp_path / "page.html", weights="flaot16")


def test_webpage_is_verified_before_saving(tmp_path, monkeypatch):
    snapshot, out = random_generator("mlp", 0), tmp_path / "page.html"
    monkeypatch.setattr(page, "TOLERANCE", 0.0)
    with pytest.raises(CardiganError, match=r"tolerance 0\.0,"):
        write_page(snapshot, out)
    assert (
        write_page(snapshot, out, weights="int8") < 1e-4
    )  # the program is correct; the effect of int8 is reported, not rejected
    out.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", 1000)
    with pytest.raises(CardiganError, match="MiB, but the maximum is"):
        write_page(snapshot, out)
    assert not list(tmp_path.iterdir())


def test_untrusted_text_is_escaped(tmp_path):
    hostile = "</script><script>alert(1)</script>\"'><!--{{script}}"
    snapshot = random_generator("mlp", 2)
    snapshot = dataclasses.replace(snapshot, spec=dataclasses.replace(snapshot.spec, class_names=(hostile, "b")))
    write_page(snapshot, tmp_path / "page.html", card=hostile)
    text = (tmp_path / "page.html").read_text()
    assert "alert(1)</script" not in text
    assert text.count("<script") == text.count("</script") == 5
    assert json.loads(re.search(r'id="model">(.*?)</script>', text, re.S)[1])["card"] == hostile


def test_webpage_has_no_external_urls(tmp_path):
    write_page(random_generator("mlp", 0), tmp_path / "page.html")
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", (tmp_path / "page.html").read_text())
    text = text.replace(page.project_line(), "")  # a link that the reader may follow loads nothing
    assert "default-src 'none'" in text
    assert not re.findall(
        r"""(?:src|href)=["'](?!#|data:)|url\((?!"data:)|@import|https?://(?!\w*www\.w3\.org)[\w.]""", text
    )


def test_webpage_says_title_directions_and_project(tmp_path, monkeypatch):
    snapshot = random_generator("dcgan", 0)
    write_page(snapshot, tmp_path / "page.html", title="Mine <b>\n& yours", direction_names=("slant </script>", ""))
    text = (tmp_path / "page.html").read_text()
    assert "<title>Mine &lt;b&gt; &amp; yours</title>" in text
    data = json.loads(re.search(r'id="model">(.*?)</script>', text, re.S)[1])
    assert data["directions"]["names"] == ["slant </script>", ""]
    assert f"Made with Cardigan {page.version('cardigan')}, which" in re.sub(r"</?a[^>]*>", "", text)
    addresses = Message()
    for address in ("Documentation, https://docs.example", "Homepage, https://example.org/?a&b"):
        addresses["Project-URL"] = address
    monkeypatch.setattr(page, "metadata", lambda name: addresses)
    assert '<a href="https://example.org/?a&amp;b" target="_blank" rel="noopener">Cardigan' in page.project_line()
    with pytest.raises(CardiganError, match="7 names of directions were given, but the page of this model has 6"):
        write_page(snapshot, tmp_path / "other.html", direction_names=tuple("abcdefg"))
    with pytest.raises(CardiganError, match="has room for 40"):
        write_page(snapshot, tmp_path / "other.html", direction_names=("x" * 41,))
    assert not (tmp_path / "other.html").exists()


def test_number_encoding():
    assert (
        unsigned_leb128(624485) == b"\xe5\x8e\x26"
    )  # examples of the specification, section 5.2.2, and of DWARF, appendix C
    assert signed_leb128(-123456) == b"\xc0\xbb\x78"
    assert [signed_leb128(number) for number in (0, 63, 64, -64, -65)] == [
        b"\x00",
        b"\x3f",
        b"\xc0\x00",
        b"\x40",
        b"\xbf\x7f",
    ]
    assert matmul_module()[:8] == b"\x00asm\x01\x00\x00\x00"


def test_docs_webpage_is_current():
    """After a change of the engine or the page, docs/pages/mnist.html must be exported again."""
    written = (Path(__file__).parents[3] / "docs" / "pages" / "mnist.html").read_text(encoding="utf-8")
    for part in (page.ENGINE_FILES, page.SCRIPT_FILES, ("theme.js",)):
        assert page.read_assets(part) in written, part
        assert page.csp_digest(page.read_assets(part)) in written.partition("</head>")[0], part
    style = page.fill_template(
        page.read_assets(("page.css",)), {"font": page.data_url("font/woff2", page.studio_asset("plex.woff2"))}
    )
    assert style in written
