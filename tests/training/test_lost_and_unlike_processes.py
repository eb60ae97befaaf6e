"""A process that is lost ends the others with its name, and processes that are not alike never train together."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from cardigan.config import Config
from cardigan.training import devices
from cardigan.training.agreement import disagreement

HOST = socket.gethostname()
START = """
import os, signal, sys, time
from pathlib import Path
import torch
from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.training import distributed
from cardigan.training.devices import open_devices
rank = int(os.environ["RANK"])
def join(facts=None, **settings):
    return open_devices(Config(device="cpu", process_timeout_seconds=2, **settings), facts).process_group
"""


def start(script: str, rank: int, port: int) -> subprocess.Popen:
    """Start one of two processes of a run, without torchrun, which would end the others."""
    settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in settings.items()}}
    words = [sys.executable, "-c", START + script]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two(script: str) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of both processes."""
    port = free_port()
    processes = [start(script, rank, port) for rank in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, without_gloo(output), errors)
        for process, (output, errors) in zip(processes, outputs, strict=True)
    ]


def without_gloo(output: str) -> str:
    """Return the output without the lines that the Gloo of torch 2.8 prints."""
    return "".join(line for line in output.splitlines(keepends=True) if not line.startswith("[Gloo] "))


SILENT = """
try:
    group = join()
    if rank == int(os.environ["STOPPED"]):
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    with group.membership():
        group.all_reduce_mean([torch.zeros(70_000)])  # 280 KB
except CardiganError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("stopped", [0, 1])
def test_stopped_process_is_named_after_the_timeout(monkeypatch, stopped):
    monkeypatch.setenv("STOPPED", str(stopped))
    port = free_port()
    processes = [start(SILENT, rank, port) for rank in range(2)]
    silent, waiting = processes[stopped], processes[1 - stopped]
    try:
        assert next(line for line in silent.stdout if without_gloo(line)) == "stopping\n"
        started_at = time.monotonic()
        output, errors = waiting.communicate(timeout=60)
        assert 1 < time.monotonic() - started_at < 30
    finally:
        silent.kill()
        silent.communicate()
    named = f"Process 1 ({HOST}) has given no sign of life for 2 seconds." if stopped else f"main process ({HOST})"
    assert named in output and "--resume continues" in output
    assert waiting.returncode == 2 and "Traceback" not in errors


KILLED = """
try:
    group = join()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with group.membership():
        group.barrier()
except CardiganError as error:
    print(error, flush=True)
"""


def test_killed_process_is_named():
    (code, output, errors), (killed, *_) = run_two(KILLED)
    assert killed == -signal.SIGKILL and code == 2 and "Traceback" not in errors
    assert output.startswith(f"Process 1 ({HOST}) is gone.") and "--resume" in output


FAILED = """
group = join()
try:
    with group.membership():
        if rank == 1:
            raise CardiganError("Its disk is full.")
        group.barrier()
except CardiganError as error:
    print(error, flush=True)
"""


def test_error_of_one_process_ends_the_others_and_is_told():
    (code, output, _), (failed, reason, _) = run_two(FAILED)
    assert code == failed == 2 and reason == "Its disk is full.\n"
    assert output.startswith(f"Process 1 ({HOST}) ended: Its disk is full.")


MISSING = """
distributed.JOIN_SECONDS = 1
try:
    join()
except CardiganError as error:
    print(error, flush=True)
"""


def test_missing_process_is_named():
    process = start(MISSING, 0, free_port())
    output, _ = process.communicate(timeout=60)
    assert output.startswith("Process 1 of 2 did not join within 3 seconds")


UNLIKE = """
def message(function):
    try:
        function()
    except CardiganError as error:
        print(error, flush=True)
message(lambda: join({"the run /shared/run": "there" if rank == 0 else "not there"}, seed=7 * rank))
os.environ["MASTER_PORT"] = os.environ["OTHER_PORT"]  # process 0 holds the store: the first one ends with its group
group = join()
group.check_same_tensors({"generator.a": torch.ones(70_000)})
message(lambda: group.check_same_tensors({"generator.a": torch.ones(3), "generator.b": torch.tensor([1.0 + rank])}))
group.destroy()
"""


def test_difference_is_named_in_every_process(monkeypatch):
    monkeypatch.setenv("OTHER_PORT", str(free_port()))
    outputs = [output.splitlines() for _, output, _ in run_two(UNLIKE)]
    assert outputs[0] == outputs[1]
    settings, weights = outputs[0]
    assert f"the run /shared/run is not there in process 1 ({HOST}) and there in process 0 ({HOST})" in settings
    assert "(1 more differ)" in settings
    assert "the checksum of generator.b is " in weights


def test_settings_and_versions_are_compared(monkeypatch):
    monkeypatch.setattr(devices, "load_plugins", lambda: {"cardigan-example": "1.0"})
    facts = devices.shared_facts(Config(seed=7), "bf16")
    assert facts["seed"] == "7" and facts["generator.width"] == str(Config().generator.width)
    assert facts["the list of plug-ins"] == "cardigan-example 1.0"
    assert facts["the version of torch"] == torch.__version__ and facts["the arithmetic (--precision)"] == "bf16"


def test_first_difference_is_named_with_both_values():
    facts = [{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "1", "c": "3"}]
    sentence = disagreement(facts, ["one", "two", "three"])
    assert "b is missing in process 2 (three) and 2 in process 0 (one) (1 more differ)" in sentence
    assert not disagreement(facts[:2], ["one", "two"])


RESUMING = """
import cardigan
from cardigan.cli.main import run
from cardigan.training.distributed import world_size
os.chdir(os.environ["FOLDER"])
words = ["train", "mnist", "--images=64", "--batch-size=16", "--quiet", "--generator.width=4", "--precision=fp32"]
words += ["--discriminator.width=4", "--out", "run", "--resume", "--process-timeout-seconds=20"]
if rank == 1:
    os.chdir("elsewhere")
sys.exit(run(words))
"""


def test_process_that_cannot_see_the_run_does_not_start_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    words = ["mnist", "--images=32", "--batch-size=16", "--quiet", "--generator.width=4", "--discriminator.width=4"]
    words = [sys.executable, "-m", "cardigan", "train", *words, "--precision=fp32", "--out", str(tmp_path / "run")]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    before = (tmp_path / "run" / "config.json").read_bytes()
    (code, _, errors), (other, _, other_errors) = run_two(RESUMING)
    assert code == other == 2
    assert "the run run is not there in process 1" in errors and not other_errors
    assert (tmp_path / "run" / "config.json").read_bytes() == before


OVERLAPPED = """
import torch.distributed
from torch import nn
from cardigan.training import gradients
group = join()
gradients.BUCKET_BYTES["cpu"] = 1
order, all_reduce = [], torch.distributed.all_reduce
def recorded(*arguments, **options):
    order.append("sent")
    return all_reduce(*arguments, **options)
torch.distributed.all_reduce = recorded
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(5, 7), nn.Softplus(), nn.Linear(7, 7), nn.Softplus(), nn.Linear(7, 1)).double()
parameters = list(network.parameters())
batches = torch.randn(2, 8, 5, dtype=torch.float64)
def loss(images):
    images = images.clone().requires_grad_(True)
    logits = network(images) + network(-images)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return logits.square().mean() + gradient.square().sum(1).mean()
expected = torch.autograd.grad(sum(loss(batch) for batch in batches), parameters)
parameters[0].register_hook(lambda _: order.append("first layer"))
losses = (loss(batch[4 * rank : 4 * rank + 4]) for batch in batches)
found, total = gradients.mean_gradients(losses, 2, parameters, group)
print("sent" in order[: len(order) - 1 - order[::-1].index("first layer")])  # the backward pass ends with this layer
print(float((total - sum(loss(batch) for batch in batches)).abs()))
for one, two in zip(expected, found, strict=True):
    print(float((one - two).norm() / one.norm()))
group.destroy()
"""


def test_gradients_are_sent_while_others_are_computed_and_penalties_stay_right():
    for code, output, errors in run_two(OVERLAPPED):
        assert code == 0, errors
        overlapped, *differences = output.split()
        assert overlapped == "True" and len(differences) == 7 and max(map(float, differences)) < 1e-12, output


NORMALIZED = """
from cardigan.training.sync_batch_norm import convert_sync_batchnorm
import torch.distributed
group = join()
calls, all_reduce = [], torch.distributed.all_reduce
def counted(*arguments, **options):
    calls.append(1)
    return all_reduce(*arguments, **options)
torch.distributed.all_reduce = counted
def loss(normalized):
    return (normalized.sin() + 0.3 * normalized.square()).sum()
def derivatives(layer, images):
    images.requires_grad_(True)
    first = torch.autograd.grad(loss(layer(images)), [images, layer.weight, layer.bias])
    num_calls = len(calls)
    (gradient,) = torch.autograd.grad(loss(layer(images)), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    return num_calls, *first, gradient.detach(), second
generator = torch.Generator().manual_seed(0)
images = 50 + torch.randn(8, 3, 40, 40, generator=generator) * torch.tensor([1.0, 2.0, 0.5])[:, None, None]
whole, parts = torch.nn.BatchNorm2d(3).double(), convert_sync_batchnorm(torch.nn.BatchNorm2d(3), group)
for layer in (whole, parts):
    torch.nn.init.constant_(layer.weight, 1.5)
_, *expected = derivatives(whole, images.double())
num_calls, *found = derivatives(parts, images[4 * rank : 4 * rank + 4].clone())
print(num_calls)
pairs = [*zip(expected, found), (whole.running_mean, parts.running_mean), (whole.running_var, parts.running_var)]
for number, (one, two) in enumerate(pairs):
    one = one[4 * rank : 4 * rank + 4] if one.ndim == 4 else one
    two = group.all_reduce_sum(two) if number in (1, 2) else two  # training sums the gradients of weights
    print(float((one - two).norm() / one.norm()))
group.destroy()
"""


def test_batch_norm_takes_one_collective_per_pass_and_equals_one_process():
    for code, output, errors in run_two(NORMALIZED):
        assert code == 0, errors
        num_calls, *differences = map(float, output.split())
        assert num_calls == 2 and len(differences) == 7 and max(differences) < 1e-5, output
