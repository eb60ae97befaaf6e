"""Memory: it does not grow during training, freed pages are kept during and released after training, MNIST is small."""

import subprocess
import sys

import pytest

from cardigan.run.journal import read_events

pytestmark = pytest.mark.alone


TRAINING_SCRIPT = """
import sys, torch, cardigan
from cardigan.hardware.memory import used_megabytes

def print_memory(event):
    if event.kind in {"progress", "checkpoint", "samples"} and event.images_seen >= 100 * 64:
        print(event.kind, used_megabytes(torch.device("cpu")))

overrides = {"sample_every_images": 1600, "checkpoint_every_images": 3200, "device": "cpu"}
cardigan.train("mnist", out=sys.argv[1], images=300 * 64, overrides=overrides, on_event=print_memory)
"""


def test_training_memory_is_flat_over_two_hundred_iterations(tmp_path):
    """After 100 iterations of the whole recipe, memory stays within 2 % for the next 200.

    This includes samples, checkpoints and evaluations. It runs in its own process, since memory of other tests would
    change the result.
    """
    process = subprocess.run(
        [sys.executable, "-c", TRAINING_SCRIPT, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    events = [line.split() for line in process.stdout.splitlines()]
    megabytes_used = [float(megabytes) for _, megabytes in events]
    assert [kind for kind, _ in events].count("checkpoint") == 5
    assert any(
        "score" in event.values
        for event in read_events(tmp_path / "run" / "journal.jsonl")
        if event.images_seen > 100 * 64
    )
    assert max(megabytes_used) / megabytes_used[0] == pytest.approx(1, abs=0.02)


RELEASE_SCRIPT = """
import resource, torch
from cardigan.hardware.memory import used_megabytes, keep_freed_memory

def faults():
    torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(3 * 2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keep_freed_memory():
    with keep_freed_memory():  # an evaluation during training
        pass
    inside, before = faults(), used_megabytes(torch.device("cpu"))
print(inside, before - used_megabytes(torch.device("cpu")), faults())
"""


def test_memory_is_released_after_training():
    """A 48 MB tensor has 12,288 pages. Inside the block, memory freed before is reused, without page faults, also after
    a block inside it.

    It runs in its own process, since threads of other tests may allocate memory during the measurement.
    """
    process = subprocess.run([sys.executable, "-c", RELEASE_SCRIPT], capture_output=True, text=True, check=True)
    inside, released, after = map(float, process.stdout.split())
    assert inside < 1000
    assert released > 40
    assert after > 10_000


MNIST_SCRIPT = """
import torch, cardigan
from cardigan.hardware.memory import used_megabytes
load = cardigan.load_mnist  # imports everything first
before = used_megabytes(torch.device("cpu"))
digits = load("train")
print(used_megabytes(torch.device("cpu")) - before)
"""


def test_mnist_costs_at_most_sixty_megabytes():
    process = subprocess.run([sys.executable, "-c", MNIST_SCRIPT], capture_output=True, text=True, check=True)
    assert 40 < float(process.stdout) <= 60
