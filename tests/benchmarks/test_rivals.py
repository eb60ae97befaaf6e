"""The rivals: samplers that are exact where the network is, training that learns, and one whole comparison."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import compare
from cardigan.bench.record import read_record
from cardigan.metrics import quick
from dcgan import Dcgan
from denoiser import Denoiser
from edm import SIGMA_DATA, Edm
from flow import Flow
from meanflow import MeanFlow

SHAPE = (3, 16, 16)


class Exact(nn.Module):
    """The network that is right for a set of one image."""

    def __init__(self, image, answer):
        super().__init__()
        self.image, self.answer = image, answer

    def forward(self, x, time, end=None):
        return self.answer(self.image, x, time[:, None, None, None], end)


def edm_answer(image, x, time, end):
    """Inverts the preconditioning of table 1, so that `denoised` is the image."""
    sigma = (40 * (time - 0.5)).exp()
    total = (sigma**2 + SIGMA_DATA**2).sqrt()
    return (image - SIGMA_DATA**2 / total**2 * x * total) * total / (sigma * SIGMA_DATA)


ANSWERS = {
    Edm: edm_answer,
    Flow: lambda image, x, time, _: (image - x) / (1 - time),
    MeanFlow: lambda image, x, time, _: (x - image) / time,
}


@pytest.mark.parametrize("steps", [1, 4, 18])
@pytest.mark.parametrize("rival", [Edm, Flow, MeanFlow])
def test_sampler_reaches_the_image_of_an_exact_network(rival, steps):
    image = torch.rand(SHAPE) * 1.8 - 0.9
    model = rival(3)
    model.network = Exact(image, ANSWERS[rival])
    samples = model.sample(torch.randn(2, *SHAPE), steps)
    torch.testing.assert_close(samples, image.expand(2, *SHAPE), atol=2e-3, rtol=0)


def test_edm_is_exact_in_its_loss():
    image = torch.rand(SHAPE) - 0.5
    model = Edm(3)
    model.network = Exact(image, edm_answer)
    assert model.loss(image.expand(8, *SHAPE)) < 1e-6


@pytest.mark.parametrize("rival", [Edm, Flow])
def test_training_lowers_the_loss(rival):
    torch.manual_seed(0)
    trained = Denoiser(rival(3), 2e-3, SHAPE)
    color = torch.tensor([0.5, -0.3, 0.2])[:, None, None]
    images = color.expand(16, *SHAPE).contiguous(memory_format=torch.channels_last)

    def mean_loss(network):
        torch.manual_seed(1)
        with torch.no_grad():
            return sum(float(network.loss(images)) for _ in range(8)) / 8

    before = mean_loss(trained.network)
    for step in range(30):
        trained.step(images, 16 * step)
    assert mean_loss(trained.network) < before / 2
    assert mean_loss(trained.average) < before / 2
    assert trained.sample(2, 4, torch.Generator()).shape == (2, *SHAPE)


def error_that_the_derivative_cancels(image, x, time, end):
    """The exact mean velocity plus e = 0.01 / span: -span * de/dt = e, so equation 6 holds with the derivative."""
    span = time - end[:, None, None, None]
    return (x - image) / time + torch.where(span > 0, 0.01 / torch.where(span > 0, span, 1), 0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # the first jvp of torch 2.13
def test_target_of_meanflow_uses_the_forward_derivative():
    torch.manual_seed(0)
    image = torch.rand(SHAPE) - 0.5
    model = MeanFlow(3)
    model.network = Exact(image, error_that_the_derivative_cancels)
    assert model.loss(image.expand(64, *SHAPE)) < 0.05  # without the derivative about 0.25, the share of unequal times


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_meanflow_trains():
    trained = Denoiser(MeanFlow(3), 1e-3, SHAPE)
    before = [each.clone() for each in trained.network.parameters()]
    trained.step(torch.rand(4, *SHAPE), 0)
    assert any(not torch.equal(*pair) for pair in zip(before, trained.network.parameters(), strict=True))


@pytest.mark.parametrize("words", [["--rivals", "images,gan"], ["--rivals", "dcgan", "--side", "32"]])
def test_wrong_rivals_are_one_sentence(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["compare.py", *words, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 2 and "dcgan" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_dcgan_trains_both_networks():
    torch.manual_seed(0)
    rival = Dcgan(1, 2e-4)
    networks = (rival.generator, rival.discriminator)
    before = [next(network.parameters()).clone() for network in networks]
    rival.step(torch.rand(4, 1, 64, 64), 0)
    for old, network in zip(before, networks, strict=True):
        assert not torch.equal(old, next(network.parameters()))
    samples = rival.sample(3, 1, torch.Generator())
    assert samples.shape == (3, 1, 64, 64) and samples.abs().max() <= 1
    assert rival.num_weights() == sum(each.numel() for each in rival.generator.parameters())


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """110 images of 16x16 in the place of a set."""
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quick, "MIN_SAMPLES", 8)
    folder = tmp_path / "cache" / "image-sets" / "photos"
    folder.mkdir(parents=True)
    for number in range(110):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    words = ["--set", "photos", "--minutes", "0.0001,0.01", "--rivals", "flow", "--steps", "1,2", "--side", "16"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words, "--samples", "100", "--out", str(tmp_path / "out")])
    return tmp_path / "out"


def test_rows_are_measured_once(photos, capsys):
    compare.main()
    path = photos / "rivals-photos-flow-0.json"
    record = read_record(path, "rows")
    rows = record["rows"]
    assert [(row["minutes"], row["steps"]) for row in rows] == [(0.0001, 1), (0.0001, 2), (0.01, 1), (0.01, 2)]
    assert rows[0]["images"] < rows[2]["images"]
    assert {"fd_efficientnet_lite2", "fd_pixels"} & set(rows[0])
    assert {"recall", "authenticity", "samples_per_second", "weights"} <= set(rows[0])
    assert record["machine"]["cpu"] and record["machine"]["calibration"]["fp32_gflops"] > 0
    assert record["command"].startswith("python benchmarks/rivals/compare.py --set photos")
    assert "--out" not in record["command"] and rows[0]["batch"] == 16
    with Image.open(photos / "photos-0.0001min-flow-0-1.png") as sheet:
        assert sheet.width > 5 * 16
    capsys.readouterr()
    compare.main()
    assert not capsys.readouterr().out
