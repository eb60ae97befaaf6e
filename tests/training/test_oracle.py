"""`fit` against an independent implementation: the 120 lines of plain PyTorch of the tutorial. Equal bits in fp32."""

import importlib.util
from pathlib import Path

import torch

import cardigan
from cardigan.run.checkpoint import load_latest_checkpoint
from cardigan.run.directory import RunDirectory

ORACLE = Path(__file__).parents[2] / "docs" / "tutorial" / "one_file_gan.py"
STEPS, WIDTH, BATCH = 6, 8, 16


def oracle():
    spec = importlib.util.spec_from_file_location("one_file_gan", ORACLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_equals_plain_pytorch(tmp_path):
    settings = {
        "generator.width": WIDTH,
        "discriminator.width": WIDTH,
        "batch_size": BATCH,
        "precision": "fp32",
        "device": "cpu",
    }
    cardigan.train("mnist", recipe="tutorial", out=tmp_path / "run", images=STEPS * BATCH, seed=3, overrides=settings)
    tensors, _, _ = load_latest_checkpoint(RunDirectory(tmp_path / "run").checkpoints)
    for role, network in zip(("generator", "discriminator"), oracle().train(STEPS, WIDTH, BATCH, seed=3), strict=True):
        ours = [value for key, value in sorted_layers(tensors, role)]
        theirs = [parameter for parameter in network.parameters() if parameter.dim() == 4]
        assert len(ours) == len(theirs) == 5
        for actual, expected in zip(ours, theirs, strict=True):
            assert torch.equal(actual, expected)


def sorted_layers(tensors, role):
    """Return the weights of the convolutions in the order of application."""
    order = {"from_latent": 0, "up_convs": 1, "down_convs": 1, "head": 9}
    convolutions = {key: value for key, value in tensors.items() if key.startswith(f"{role}.") and value.dim() == 4}
    return sorted(convolutions.items(), key=lambda item: (order[item[0].split(".")[1]], item[0]))
