"""Processes of `--devices N`: results in order, errors that name the process, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from cardigan.cli.devices import check_device, check_num_devices
from cardigan.errors import CardiganError
from cardigan.hardware.device_processes import DeviceProcesses, process_devices

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def build_square(offset, device):
    assert device == torch.device("cpu")

    def square(number):
        time.sleep(0.05 if number % 3 == 0 else 0)  # so that later tasks end first
        return number**2 + offset, os.getpid()

    return square


def build_failure(device):
    def fail(kind):
        if kind == "user":
            raise CardiganError("truncation is 2: expected 0..1.")
        if kind == "bug":
            raise ValueError("no such layer\nsecond line")
        if kind == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        os.kill(os.getpid(), signal.SIGKILL)

    return fail


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_are_in_order_and_processes_end():
    with DeviceProcesses(["cpu", "cpu"], {"square": partial(build_square, 1)}) as processes:
        process_ids = processes.process_ids
        for count in (0, 1, 20):
            results = list(processes.map("square", range(count)))
            assert [result for result, _ in results] == [number**2 + 1 for number in range(count)]
        assert {pid for _, pid in results} == set(process_ids)
        unfinished = processes.map("square", iter(range(10**9)))  # endless: only a few tasks are taken ahead
        assert next(unfinished)[0] == 1
        unfinished.close()
        assert [result for result, _ in processes.map("square", [7])] == [50]
    assert not any(map(exists, process_ids))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bug", r"^Process 1 of 1 \(cpu\) failed \(ValueError: no such layer\): try without --devices\.$"),
        ("memory", r"^Process 1 of 1 \(cpu\) has no memory left \(CUDA out of memory.*\): use fewer --devices\.$"),
        ("kill", r"^Process 1 of 1 \(cpu\) was killed \(signal 9\), so the others were stopped: .* fewer --devices\.$"),
    ],
)
def test_lost_process_is_named_even_if_errors_are_caught(kind, words):
    """As `evaluate` does, which reports a metric that raises a CardiganError as unavailable."""
    with (
        pytest.raises(CardiganError, match=words) as caught,
        DeviceProcesses(["cpu"], {"fail": build_failure}) as processes,
    ):
        process_ids = processes.process_ids
        try:
            list(processes.map("fail", [kind]))
        except CardiganError:
            pytest.fail("the caller would go on")
    assert "\n" not in str(caught.value)
    assert not any(map(exists, process_ids))


def test_user_error_keeps_its_message_and_the_processes():
    with DeviceProcesses(["cpu"], {"fail": build_failure, "square": partial(build_square, 0)}) as processes:
        with pytest.raises(CardiganError, match=r"^truncation is 2: expected 0\.\.1\.$"):
            list(processes.map("fail", ["user", "user"]))
        assert next(processes.map("square", [3]))[0] == 9


WAIT = """
import signal, sys, time
from cardigan.hardware.device_processes import DeviceProcesses

def build(device):
    def wait(seconds):
        print("computing", flush=True)
        time.sleep(seconds)
    return wait

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with DeviceProcesses(["cpu", "cpu"], {"wait": build}) as processes:
        print(*processes.process_ids, flush=True)
        list(processes.map("wait", [300, 300]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whole_group", [True, False])
def test_no_process_outlives_a_signal(tmp_path, number, whole_group):
    """Ctrl-C goes to the whole process group, `kill` to one process."""
    script = tmp_path / "wait.py"
    script.write_text(WAIT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    process_ids = [int(word) for word in parent.stdout.readline().split()]
    assert [parent.stdout.readline() for _ in process_ids] == ["computing\n"] * 2
    (os.killpg if whole_group else os.kill)(parent.pid, number)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == -number
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0)  # the parent's own
    deadline = time.monotonic() + 20
    while any(map(exists, process_ids)):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.05)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_processes_have_gpus_of_their_own(two_gpus):
    assert process_devices("auto", 2) == process_devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert process_devices("cpu", 3) == ["cpu"] * 3
    with pytest.raises(CardiganError, match=r"^--devices is 3 but this machine has 2 GPUs: give that many or fewer\.$"):
        process_devices("auto", 3)
    with pytest.raises(CardiganError, match="--device is 'cuda:1': use --device cuda"):
        process_devices("cuda:1", 2)
    check_device("cuda:1")
    with pytest.raises(CardiganError, match=r"--device is 'cuda:2': expected auto, cpu, or a GPU \(cuda:0..cuda:1\)"):
        check_device("cuda:2")


def test_metal_gpu_is_one_device(monkeypatch):
    with pytest.raises(CardiganError, match=r"--device is 'mps': expected auto, cpu, or a GPU \(this machine has none"):
        check_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(
        "cardigan.hardware.device_processes.find_device", lambda name: torch.device("mps" if name == "auto" else name)
    )
    check_device("mps")
    for name in ("mps", "auto"):
        with pytest.raises(CardiganError, match="--devices is 2 but this machine has 1 GPU: give that many or fewer"):
            process_devices(name, 2)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
def test_without_gpu_processes_share_the_cores():
    assert process_devices("auto", 3) == ["cpu"] * 3
    with pytest.raises(CardiganError, match="device is 'cuda', which this machine"):
        process_devices("cuda", 2)
    for number in (0, -1, 65):
        with pytest.raises(CardiganError, match=rf"--devices is {number}: expected 1\.\.64"):
            check_num_devices(number, "auto")
