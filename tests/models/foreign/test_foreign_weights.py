"""Foreign generators produce the same images as in their original programs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import DcganExample, mxnet_arrays, params_bytes
from torch import nn

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.models.snapshot import write_snapshot
from cardigan.pixels import encode

SMALL = {"latent": 12, "width": 4}
RECORD = np.load(Path(__file__).parents[2] / "golden" / "tutorial_iterations.npz")


def save_torch(path: Path, content: object, archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


def write_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def max_difference(path: Path, original: DcganExample, latent: int) -> float:
    z = torch.randn(16, latent, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        images = cardigan.load(path).snapshot.generator(z)
    expected = original(z)
    assert torch.equal(encode(images), encode(expected))
    assert expected.std() > 0.05
    return float((images - expected).abs().max())


@pytest.mark.parametrize("archive", [True, False])
def test_pytorch_dcgan_example_size(tmp_path, archive):
    original = DcganExample()
    path = save_torch(tmp_path / "netG_epoch_24.pth", original.state_dict(), archive)
    assert max_difference(path, original, 100) < 1e-6
    config = cardigan.load(path).config
    assert (config.generator.width, config.latent.size, config.data.height, config.data.channels) == (64, 100, 64, 3)


@pytest.mark.parametrize(
    ("width", "channels", "doublings", "latent"), [(4, 1, 3, 7), (8, 4, 2, 12), (3, 3, 5, 20), (5, 3, 1, 4)]
)
def test_other_widths_sizes_and_channels(tmp_path, width, channels, doublings, latent):
    original = DcganExample(latent, width, channels, doublings)
    path = save_torch(tmp_path / "netG.pth", original.state_dict())
    assert max_difference(path, original, latent) < 1e-6
    assert cardigan.load(path).sample(2).shape == (2, 4 * 2**doublings, 4 * 2**doublings, channels)


def test_common_save_layouts(tmp_path):
    original = DcganExample(**SMALL)
    parallel = save_torch(tmp_path / "parallel.pth", nn.DataParallel(original).state_dict())
    assert max_difference(parallel, original, 12) < 1e-6
    parameters = save_torch(tmp_path / "parameters.pth", original.state_dict(keep_vars=True))
    assert max_difference(parameters, original, 12) < 1e-6
    before_counters = {name: tensor for name, tensor in original.state_dict().items() if "num_batches" not in name}
    assert max_difference(save_torch(tmp_path / "old.pth", before_counters, archive=False), original, 12) < 1e-6
    channels_last = original.state_dict() | {
        name: t.to(memory_format=torch.channels_last) for name, t in original.state_dict().items() if t.dim() == 4
    }
    assert max_difference(save_torch(tmp_path / "last.pth", channels_last), original, 12) < 1e-6
    halved = DcganExample(**SMALL).half()
    assert max_difference(save_torch(tmp_path / "half.pth", halved.state_dict()), halved.float(), 12) < 1e-6
    one_row = torch.cat([tensor.flatten() for tensor in before_counters.values()])
    pieces = one_row.split([tensor.numel() for tensor in before_counters.values()])
    views = {name: piece.view(before_counters[name].shape) for name, piece in zip(before_counters, pieces, strict=True)}
    assert max_difference(save_torch(tmp_path / "views.pth", views), original, 12) < 1e-6
    for protocol in (3, 4, 5):
        torch.save(original.state_dict(), tmp_path / "protocol.pth", pickle_protocol=protocol)
        assert max_difference(tmp_path / "protocol.pth", original, 12) < 1e-6


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_mxnet_tutorial_params(tmp_path, version):
    original = DcganExample(**SMALL, eps=1e-5 + 1e-12)
    for norm in (layer for layer in original.main if isinstance(layer, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)
    path = write_file(tmp_path / "tutorial-0001.params", params_bytes(mxnet_arrays(original), version))
    assert max_difference(path, original, 12) < 1e-6
    config = cardigan.load(path).config
    assert (config.generator.normalization, config.data.source) == ("batch-no-scale", "mnist")


def test_params_with_learned_scales(tmp_path):
    original = DcganExample(**SMALL)
    path = write_file(tmp_path / "scaled.params", params_bytes(mxnet_arrays(original)))
    assert max_difference(path, original, 12) < 1e-6
    assert cardigan.load(path).config.generator.normalization == "batch"


def test_params_from_tutorial_program(tmp_path):
    """Initial weights of the tutorial give its recorded images, with batch statistics."""
    arrays = {f"arg:{name[3:]}": torch.from_numpy(RECORD[name]) for name in RECORD.files if name.startswith("g0/")}
    for name, tensor in list(arrays.items()):
        if name.endswith("gamma"):
            layer = name.removeprefix("arg:").removesuffix("_gamma")
            arrays |= {
                f"aux:{layer}_moving_mean": torch.zeros_like(tensor),
                f"aux:{layer}_moving_var": torch.ones_like(tensor),
            }
    generator = cardigan.load(write_file(tmp_path / "initial.params", params_bytes(arrays))).snapshot.generator.train()
    with torch.no_grad():
        images = generator(torch.from_numpy(RECORD["z"][0])[:, :, 0, 0])
    assert (images - torch.from_numpy(RECORD["fake_0"])).abs().max() <= 1e-5


def test_format_is_detected_by_content_not_name(tmp_path):
    original = DcganExample(**SMALL)
    assert max_difference(save_torch(tmp_path / "generator.safetensors", original.state_dict()), original, 12) < 1e-6
    assert (
        max_difference(write_file(tmp_path / "weights.bin", params_bytes(mxnet_arrays(original))), original, 12) < 1e-6
    )


def test_commands_on_foreign_weights(tmp_path, capsys):
    path = str(save_torch(tmp_path / "netG_epoch_24.pth", DcganExample(**SMALL).state_dict()))
    assert cardigan_command(["info", path, "--json", "--layers"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["image_shape"], facts["recipe"]) == ("64x64x3", "pytorch-dcgan")
    assert "unknown" in facts["images_seen"]
    assert "discriminator_layers" not in facts
    assert cardigan_command(["sample", path, "-n", "3", "--out", str(tmp_path / "samples.png")]) == 0
    assert (
        cardigan_command(["walk", path, "--seeds", "1,2", "--frames", "2", "--out", str(tmp_path / "walk.webp")]) == 0
    )
    capsys.readouterr()
    assert cardigan_command(["evaluate", path]) == 2
    assert "--reference" in capsys.readouterr().err
    assert (
        cardigan_command(
            ["evaluate", path, "--reference", "mnist", "--samples", "100", "--metrics", "frechet", "--no-baseline"]
        )
        == 0
    )
    assert "fd_digits" in capsys.readouterr().out
    for arguments in (["probe", path, "mnist"], ["report", path]):
        assert cardigan_command(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_reference_requires_unknown_training_data(tmp_path, capsys):
    path = write_file(tmp_path / "tutorial.params", params_bytes(mxnet_arrays(DcganExample(**SMALL))))
    assert cardigan_command(["evaluate", str(path), "--reference", "mnist"]) == 2
    assert "leave --reference out" in capsys.readouterr().err


def test_foreign_weights_can_be_saved(tmp_path):
    path = save_torch(tmp_path / "netG.pth", DcganExample(**SMALL).state_dict())
    write_snapshot(tmp_path / "mine.safetensors", cardigan.load(path).snapshot)
    assert np.array_equal(cardigan.load(tmp_path / "mine.safetensors").sample(4), cardigan.load(path).sample(4))


def test_nan_weights_are_accepted(tmp_path):
    original = DcganExample(**SMALL)
    original.state_dict()["main.12.weight"].fill_(float("nan"))
    assert cardigan.load(save_torch(tmp_path / "nan.pth", original.state_dict())).sample(1).shape == (1, 64, 64, 3)


class PickledModule(nn.Linear):
    """A module pickled as a whole. Loading it would need its class."""


def test_unsupported_torch_networks_raise(tmp_path):
    discriminator = nn.ModuleDict(
        {"main": nn.Sequential(nn.Conv2d(3, 4, 4), nn.LeakyReLU(), nn.Conv2d(4, 8, 4), nn.BatchNorm2d(8))}
    )
    original = DcganExample(**SMALL).state_dict()
    paper = DcganExample(**SMALL, doublings=5).state_dict() | {"main.15.weight": torch.zeros(7, 3, 4, 4)}
    for content, message in (
        (discriminator.state_dict(), "holds a discriminator"),
        ({"conv1.weight": torch.zeros(3), "layer1.0.bn1.bias": torch.zeros(2)}, "2 tensors that are not the generator"),
        ({**original, "main.0.bias": torch.zeros(32)}, "'main.0.bias' is unexpected"),
        ({name: tensor for name, tensor in original.items() if name != "main.4.bias"}, "'main.4.bias' is missing"),
        ({**original, "main.4.bias": torch.zeros(3)}, "inconsistent tensor shapes"),
        ({**original, "main.4.bias": torch.zeros(16, dtype=torch.int64)}, "holds integers"),
        ({**original, "main.3.weight": torch.zeros(32, 16, 5, 5)}, "other kernels"),
        (paper, "channels, but at 128x128 Cardigan's network has"),
        ({"netG": original, "epoch": 3}, "named 'netG' where a tensor was expected"),
        ([1, 2], "holds a list, not a state_dict"),
        (PickledModule(2, 2), "names 'test_foreign_weights.PickledModule'"),
        ({}, "0 tensors"),
    ):
        with pytest.raises(CardiganError, match=message) as caught:
            cardigan.load(save_torch(tmp_path / "other.pth", content))
        assert str(caught.value).count("\n") == 0


def test_unsupported_mxnet_networks_raise(tmp_path):
    for arrays, message in (
        ({"arg:d1_weight": torch.zeros(2, 3, 4, 4)}, "holds a discriminator"),
        ({"arg:fc1_weight": torch.zeros(2, 3)}, "1 tensors that are not the generator of the MXNet tutorial"),
        ({}, "0 tensors"),
    ):
        with pytest.raises(CardiganError, match=message):
            cardigan.load(write_file(tmp_path / "other.params", params_bytes(arrays)))


@pytest.mark.skipif(
    os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file"
)
def test_weights_without_read_permission(tmp_path):
    path = save_torch(tmp_path / "netG.pth", DcganExample(**SMALL).state_dict())
    path.chmod(0)
    with pytest.raises(CardiganError, match="cannot be read"):
        cardigan.load(path)
