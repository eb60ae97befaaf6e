"""Memory: it does not grow while training goes on, freed pages are kept meanwhile and given back after, and MNIST is small."""

import subprocess
import sys

import pytest

from cardigan.run.journal import read_events

pytestmark = pytest.mark.alone


TRAINING_SCRIPT = """
import sys, torch, cardigan
from cardigan.hardware.memory import used_megabytes

def remember(event):
    if event.kind in {"progress", "checkpoint", "samples"} and event.images_seen >= 100 * 64:
        print(event.kind, used_megabytes(torch.device("cpu")))

often = {"sample_every_images": 1600, "checkpoint_every_images": 3200, "device": "cpu"}
cardigan.train("mnist", out=sys.argv[1], images=300 * 64, overrides=often, report=remember)
"""


def test_training_memory_is_flat_over_two_hundred_iterations(tmp_path):
    """The recipe as it is, its pictures, checkpoints and judgements included: once 100 iterations have been, the next 200 need within 2 % the same.

    In a process of its own, as it is used: what other tests have left behind would hide growth, or pass for it.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRAINING_SCRIPT, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    told = [line.split() for line in done.stdout.splitlines()]
    held = [float(megabytes) for _, megabytes in told]
    assert [kind for kind, _ in told].count("checkpoint") == 5
    assert any(
        "score" in event.values
        for event in read_events(tmp_path / "run" / "journal.jsonl")
        if event.images_seen > 100 * 64
    )
    assert max(held) / held[0] == pytest.approx(1, abs=0.02)


RELEASE_SCRIPT = """
import resource, torch
from cardigan.hardware.memory import used_megabytes, keep_freed_memory

def faults():
    torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(3 * 2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keep_freed_memory():
    inside, kept = faults(), used_megabytes(torch.device("cpu"))
print(inside, kept - used_megabytes(torch.device("cpu")), faults())
"""


def test_memory_is_released_after_training():
    """A 48 MB tensor has 12,288 pages; where a larger one was freed before, none of them has to be fetched anew.

    In a process of its own: a thread that another test has left behind takes memory while this is measured.
    """
    done = subprocess.run([sys.executable, "-c", RELEASE_SCRIPT], capture_output=True, text=True, check=True)
    inside, given_back, after = map(float, done.stdout.split())
    assert inside < 1000
    assert given_back > 40
    assert after > 10_000


MNIST_SCRIPT = """
import torch, cardigan
from cardigan.hardware.memory import used_megabytes
read = cardigan.load_mnist  # with all that Cardigan imports
before = used_megabytes(torch.device("cpu"))
digits = read("train")
print(used_megabytes(torch.device("cpu")) - before)
"""


def test_mnist_costs_at_most_sixty_megabytes():
    done = subprocess.run([sys.executable, "-c", MNIST_SCRIPT], capture_output=True, text=True, check=True)
    assert 40 < float(done.stdout) <= 60
