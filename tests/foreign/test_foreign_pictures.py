"""Generators of other programs draw here what they draw there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from making_foreign import Original, mxnet_arrays, params
from torch import nn

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.pixels import encode
from cardigan.run.snapshot import write_snapshot

SMALL = {"latent": 12, "width": 4}
RECORD = np.load(Path(__file__).parents[1] / "golden" / "tutorial_iterations.npz")


def saved(path: Path, content: object, archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def difference(path: Path, original: Original, latent: int) -> float:
    z = torch.randn(16, latent, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours = cardigan.load(path).snapshot.generator(z)
    theirs = original(z)
    assert torch.equal(encode(ours), encode(theirs))
    assert theirs.std() > 0.05
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("archive", [True, False])
def test_the_examples_own_size(tmp_path, archive):
    original = Original()
    path = saved(tmp_path / "netG_epoch_24.pth", original.state_dict(), archive)
    assert difference(path, original, 100) < 1e-6
    config = cardigan.load(path).config
    assert (config.generator.width, config.latent.size, config.data.height, config.data.channels) == (64, 100, 64, 3)


@pytest.mark.parametrize(("width", "channels", "doublings", "latent"), [(4, 1, 3, 7), (8, 4, 2, 12), (3, 3, 5, 20), (5, 3, 1, 4)])
def test_other_widths_sizes_and_channels(tmp_path, width, channels, doublings, latent):
    original = Original(latent, width, channels, doublings)
    path = saved(tmp_path / "netG.pth", original.state_dict())
    assert difference(path, original, latent) < 1e-6
    assert cardigan.load(path).sample(2).shape == (2, 4 * 2**doublings, 4 * 2**doublings, channels)


def test_what_people_save(tmp_path):
    original = Original(**SMALL)
    parallel = saved(tmp_path / "parallel.pth", nn.DataParallel(original).state_dict())
    assert difference(parallel, original, 12) < 1e-6
    parameters = saved(tmp_path / "parameters.pth", original.state_dict(keep_vars=True))
    assert difference(parameters, original, 12) < 1e-6
    before_counters = {name: tensor for name, tensor in original.state_dict().items() if "num_batches" not in name}
    assert difference(saved(tmp_path / "old.pth", before_counters, archive=False), original, 12) < 1e-6
    channels_last = original.state_dict() | {
        name: t.to(memory_format=torch.channels_last) for name, t in original.state_dict().items() if t.dim() == 4
    }
    assert difference(saved(tmp_path / "last.pth", channels_last), original, 12) < 1e-6
    halved = Original(**SMALL).half()
    assert difference(saved(tmp_path / "half.pth", halved.state_dict()), halved.float(), 12) < 1e-6
    one_row = torch.cat([tensor.flatten() for tensor in before_counters.values()])
    pieces = one_row.split([tensor.numel() for tensor in before_counters.values()])
    views = {name: piece.view(before_counters[name].shape) for name, piece in zip(before_counters, pieces, strict=True)}
    assert difference(saved(tmp_path / "views.pth", views), original, 12) < 1e-6
    for protocol in (3, 4, 5):
        torch.save(original.state_dict(), tmp_path / "protocol.pth", pickle_protocol=protocol)
        assert difference(tmp_path / "protocol.pth", original, 12) < 1e-6


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_the_tutorials_params(tmp_path, version):
    original = Original(**SMALL, eps=1e-5 + 1e-12)
    for norm in (layer for layer in original.main if isinstance(layer, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)
    path = written(tmp_path / "tutorial-0001.params", params(mxnet_arrays(original), version))
    assert difference(path, original, 12) < 1e-6
    config = cardigan.load(path).config
    assert (config.generator.normalisation, config.data.source) == ("batch-shift", "mnist")


def test_params_with_scales_that_were_learned(tmp_path):
    original = Original(**SMALL)
    path = written(tmp_path / "scaled.params", params(mxnet_arrays(original)))
    assert difference(path, original, 12) < 1e-6
    assert cardigan.load(path).config.generator.normalisation == "batch"


def test_params_of_the_tutorials_own_program(tmp_path):
    """The weights that it began with, and the pictures that it drew of them, by the statistics of their batch."""
    arrays = {f"arg:{name[3:]}": torch.from_numpy(RECORD[name]) for name in RECORD.files if name.startswith("g0/")}
    for name, tensor in list(arrays.items()):
        if name.endswith("gamma"):
            layer = name.removeprefix("arg:").removesuffix("_gamma")
            arrays |= {f"aux:{layer}_moving_mean": torch.zeros_like(tensor), f"aux:{layer}_moving_var": torch.ones_like(tensor)}
    generator = cardigan.load(written(tmp_path / "began.params", params(arrays))).snapshot.generator.train()
    with torch.no_grad():
        drawn = generator(torch.from_numpy(RECORD["z"][0])[:, :, 0, 0])
    assert (drawn - torch.from_numpy(RECORD["fake_0"])).abs().max() <= 1e-5


def test_by_what_the_file_is_whatever_it_is_called(tmp_path):
    original = Original(**SMALL)
    assert difference(saved(tmp_path / "generator.safetensors", original.state_dict()), original, 12) < 1e-6
    assert difference(written(tmp_path / "weights.bin", params(mxnet_arrays(original))), original, 12) < 1e-6


def test_commands(tmp_path, capsys):
    path = str(saved(tmp_path / "netG_epoch_24.pth", Original(**SMALL).state_dict()))
    assert cardigan_command(["info", path, "--json", "--layers"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["picture"], facts["recipe"]) == ("64x64x3", "pytorch-dcgan")
    assert "not known" in facts["images_seen"]
    assert "discriminator_layers" not in facts
    assert cardigan_command(["sample", path, "-n", "3", "--out", str(tmp_path / "drawn.png")]) == 0
    assert cardigan_command(["walk", path, "--seeds", "1,2", "--frames", "2", "--out", str(tmp_path / "walk.webp")]) == 0
    capsys.readouterr()
    assert cardigan_command(["evaluate", path]) == 2
    assert "--against" in capsys.readouterr().err
    assert cardigan_command(["evaluate", path, "--against", "mnist", "--samples", "100", "--metrics", "distance", "--no-floor"]) == 0
    assert "digit_distance" in capsys.readouterr().out
    for words in (["probe", path, "mnist"], ["report", path]):
        assert cardigan_command(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_evaluate_against_is_for_models_that_do_not_know_their_pictures(tmp_path, capsys):
    path = written(tmp_path / "tutorial.params", params(mxnet_arrays(Original(**SMALL))))
    assert cardigan_command(["evaluate", str(path), "--against", "mnist"]) == 2
    assert "leave --against out" in capsys.readouterr().err


def test_taken_over_for_good(tmp_path):
    path = saved(tmp_path / "netG.pth", Original(**SMALL).state_dict())
    write_snapshot(tmp_path / "mine.safetensors", cardigan.load(path).snapshot)
    assert np.array_equal(cardigan.load(tmp_path / "mine.safetensors").sample(4), cardigan.load(path).sample(4))


def test_a_number_that_is_none_is_no_error(tmp_path):
    original = Original(**SMALL)
    original.state_dict()["main.12.weight"].fill_(float("nan"))
    assert cardigan.load(saved(tmp_path / "nan.pth", original.state_dict())).sample(1).shape == (1, 64, 64, 3)


class Whole(nn.Linear):
    """A module that is saved as it is: only the class that it names could be made from it."""


def test_other_networks_get_one_sentence(tmp_path):
    discriminator = nn.ModuleDict({"main": nn.Sequential(nn.Conv2d(3, 4, 4), nn.LeakyReLU(), nn.Conv2d(4, 8, 4), nn.BatchNorm2d(8))})
    original = Original(**SMALL).state_dict()
    paper = Original(**SMALL, doublings=5).state_dict() | {"main.15.weight": torch.zeros(7, 3, 4, 4)}
    for content, words in (
        (discriminator.state_dict(), "holds a discriminator"),
        ({"conv1.weight": torch.zeros(3), "layer1.0.bn1.bias": torch.zeros(2)}, "2 tensors that are not the generator"),
        ({**original, "main.0.bias": torch.zeros(32)}, "'main.0.bias' is too many"),
        ({name: tensor for name, tensor in original.items() if name != "main.4.bias"}, "'main.4.bias' is missing"),
        ({**original, "main.4.bias": torch.zeros(3)}, "do not belong together"),
        ({**original, "main.4.bias": torch.zeros(16, dtype=torch.int64)}, "whole numbers"),
        ({**original, "main.3.weight": torch.zeros(32, 16, 5, 5)}, "other kernels"),
        (paper, "channels, where a network of ours"),
        ({"netG": original, "epoch": 3}, "called 'netG' where a tensor was expected"),
        ([1, 2], "holds a list and no state_dict"),
        (Whole(2, 2), "names 'test_foreign_pictures.Whole'"),
        ({}, "0 tensors"),
    ):
        with pytest.raises(CardiganError, match=words) as caught:
            cardigan.load(saved(tmp_path / "other.pth", content))
        assert str(caught.value).count("\n") == 0


def test_params_of_other_networks_get_one_sentence(tmp_path):
    for arrays, words in (
        ({"arg:d1_weight": torch.zeros(2, 3, 4, 4)}, "holds a discriminator"),
        ({"arg:fc1_weight": torch.zeros(2, 3)}, "1 tensors that are not the generator of the MXNet tutorial"),
        ({}, "0 tensors"),
    ):
        with pytest.raises(CardiganError, match=words):
            cardigan.load(written(tmp_path / "other.params", params(arrays)))


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read(tmp_path):
    path = saved(tmp_path / "netG.pth", Original(**SMALL).state_dict())
    path.chmod(0)
    with pytest.raises(CardiganError, match="cannot be read"):
        cardigan.load(path)
