"""Memory: it does not grow while training goes on, freed pages are kept meanwhile and given back after, and MNIST is small."""

import resource
import subprocess
import sys

import pytest
import torch

import cardigan
from cardigan.training.memory import held_megabytes, kept_memory

CPU = torch.device("cpu")


def test_training_memory_is_flat_over_two_hundred_iterations(tmp_path):
    """The recipe as it is, its pictures and checkpoints included: once 100 iterations have been, the next 200 need within 2 % the same."""
    held = {}

    def remember(event):
        if event.kind in {"progress", "checkpoint", "samples"}:
            held[event.images_seen] = held_megabytes(CPU)

    often = {"sample_every": 1600, "checkpoint_every": 3200, "device": "cpu"}
    cardigan.train("mnist", out=tmp_path / "run", images=300 * 64, overrides=often, report=remember)
    later = [value for images_seen, value in held.items() if images_seen >= 100 * 64]
    assert len(later) >= 8
    assert max(later) / later[0] == pytest.approx(1, abs=0.02)


def test_freed_memory_is_kept_inside_and_given_back_after():
    """A 48 MB tensor has 12,288 pages; where a larger one was freed before, none of them has to be fetched anew."""

    def faults():
        torch.ones(2**24)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(3 * 2**22)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_memory():
        assert faults() < 1000
        kept = held_megabytes(CPU)
    assert kept - held_megabytes(CPU) > 40
    assert faults() > 10_000


MNIST = """
import torch, cardigan
from cardigan.training.memory import held_megabytes
before = held_megabytes(torch.device("cpu"))
digits = cardigan.mnist("train")
print(held_megabytes(torch.device("cpu")) - before)
"""


def test_mnist_costs_at_most_sixty_megabytes():
    done = subprocess.run([sys.executable, "-c", MNIST], capture_output=True, text=True, check=True)
    assert 40 < float(done.stdout) <= 60
