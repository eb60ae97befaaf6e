"""Devices by name, their arithmetic and memory. GPUs are absent here: PyTorch's own checks of a device's index are what is tested against."""

import pytest
import torch
from torch.cuda._utils import _get_device_index

import cardigan
from cardigan.config import override
from cardigan.data.source import ImageSource
from cardigan.errors import CardiganError
from cardigan.experiment import build
from cardigan.hardware import metal
from cardigan.hardware.device import find_device
from cardigan.hardware.memory import free_device_bytes, is_out_of_memory
from cardigan.hardware.precision import allow_tf32, ieee_fp32, resolve_arithmetic, tf32_allowed
from cardigan.inference import model
from cardigan.recipes import config_for
from cardigan.serve import served_model as serve_model
from cardigan.studio import model_views
from cardigan.studio.run_reader import RunReader
from cardigan.studio.runs_folder import open_runs_folder
from cardigan.training.cuda_graph import WARMUP_STEPS
from cardigan.training.devices import Devices, open_devices
from cardigan.training.schedule import step_kinds
from tiny_runs import small_run, small_snapshot


@pytest.fixture
def gpu(monkeypatch):
    """Let PyTorch report one GPU and accept tensors on it; a device's index is checked as PyTorch checks it."""
    chosen: list[int] = []
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(_get_device_index(device)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "empty", lambda size, device: empty(size))
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield chosen
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_gpu_is_found_with_its_index(gpu, name):
    devices = open_devices(override(config_for("mnist"), {"device": name}))
    assert devices.device == torch.device("cuda", 0) and gpu == [0]
    assert devices.arithmetic == "bf16" and devices.is_async


def test_a_process_of_several_takes_its_own_gpu(gpu):
    assert find_device("cuda", local_rank=3) == torch.device("cuda", 3)
    assert find_device("cuda:1", local_rank=3) == torch.device("cuda", 1)


def test_a_gpu_that_samples_uses_the_same_kernels_as_one_that_trains(gpu):
    """The one function that finds devices sets them, whether for training, `Model.to`, serving or the studio."""
    torch.backends.cudnn.deterministic = False
    allow_tf32(True)
    find_device("cuda")
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark and not tf32_allowed()


@pytest.mark.parametrize("user", ["Model.to", "serve", "studio"])
def test_whoever_samples_finds_its_device_by_that_function(tmp_path, monkeypatch, user):
    """So that sampling, serving and the studio have its deterministic kernels; before, only training set them."""
    path, asked = small_run(tmp_path / "run", small_snapshot()), []

    def found(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    module = {"Model.to": model, "serve": serve_model, "studio": model_views}[user]
    monkeypatch.setattr(module, "find_device", found)
    if user == "Model.to":
        cardigan.load(path).to("cuda:1")
    elif user == "serve":
        serve_model.open_served_model(path, "pytorch", "cuda:1", 8)
    else:
        model_views.ModelViews(RunReader(open_runs_folder(tmp_path)), "cuda:1")
    assert asked == ["cuda:1"]


def test_the_pace_is_measured_as_the_run_will_go(monkeypatch):
    """Recorded where one process has a GPU, and over whole rounds after every kind has been recorded; with several processes, eager."""
    tiny = {
        "batch_size": 4,
        "generator.width": 2,
        "discriminator.width": 2,
        "device": "cpu",
        "objective.penalty_interval": 2,
    }
    config = override(config_for("mnist"), tiny)
    given: list[tuple[int, tuple[object, ...]]] = []
    steps: list[object] = []

    def recorded(work, device, num_processes, kinds, tell=None):
        given.append((num_processes, kinds))
        return lambda inputs, kind: steps.append(kind) or work(inputs, kind)

    monkeypatch.setattr(build, "cuda_graph_step", recorded)
    devices = open_devices(config)
    build.measure_throughput(config, devices)
    assert given == [(1, step_kinds(config))] and len(steps) == 2 + 2
    steps.clear()
    monkeypatch.setattr(Devices, "is_async", True)
    build.measure_throughput(config, devices)
    assert len(steps) == 2 * (WARMUP_STEPS + 1) + 2 * build.THROUGHPUT_CYCLES
    monkeypatch.setenv("WORLD_SIZE", "2")
    build.measure_throughput(config, devices)
    assert given[-1][0] == 2


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "meta", "tpu"])
def test_a_device_that_is_not_there_is_told_in_one_sentence(name):
    if torch.cuda.is_available() and name == "cuda":
        pytest.skip("this machine has one")
    with pytest.raises(CardiganError, match=f"device is '{name}', .* use auto or cpu"):
        find_device(name)


def test_each_precision_means_one_arithmetic(gpu, monkeypatch):
    gpu_device, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert [resolve_arithmetic(name, gpu_device) for name in ("fp32", "tf32", "bf16", "auto")] == [
        "fp32",
        "tf32",
        "bf16",
        "bf16",
    ]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve_arithmetic("auto", gpu_device) == "fp32"
    for device in (gpu_device, cpu):
        with pytest.raises(CardiganError, match="no TF32 products"):
            resolve_arithmetic("tf32", device)


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False), ("auto", False)])
def test_tf32_is_allowed_exactly_where_it_is_asked_for(gpu, precision, allowed):
    allow_tf32(not allowed)
    open_devices(override(config_for("mnist"), {"device": "cuda", "precision": precision}))
    assert torch.backends.cudnn.allow_tf32 is allowed and torch.backends.cuda.matmul.allow_tf32 is allowed


def test_samples_are_ieee_fp32_also_while_training_in_tf32(gpu):
    allow_tf32(True)
    with ieee_fp32(torch.device("cuda", 0)):
        assert not tf32_allowed()
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_a_run_tells_its_arithmetic_and_a_resumed_one_that_it_changed(tmp_path):
    settings = {"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu"}
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides={**settings, "precision": "auto"})
    from cardigan.cli.info import describe_path
    from cardigan.run.directory import RunDirectory, read_provenance

    provenance = read_provenance(RunDirectory(run.path))
    used = resolve_arithmetic("auto", torch.device("cpu"))
    assert provenance["arithmetic"] == used and provenance["device"] == "cpu"
    assert describe_path(run.path)["provenance"]["arithmetic"] == used
    other = {"fp32": "bf16", "bf16": "fp32"}[used]
    text = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(text.replace(f'"arithmetic": "{used}"', f'"arithmetic": "{other}"'))
    messages: list[str] = []
    cardigan.train(
        "mnist",
        out=run.path,
        images=32,
        resume=True,
        overrides={**settings, "precision": "auto"},
        on_event=lambda event: messages.extend(event.values.get("messages", [])),
    )
    assert any(f"computed in {other} so far and are computed in {used} from here on" in message for message in messages)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB, other allocations: 1 KB, max allowed: 9.07 GB)."),
    RuntimeError("Invalid buffer size: 64.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


def test_out_of_memory_behind_another_error_is_recognised():
    """A recording that ends before its time raises an error of its own."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except torch.OutOfMemoryError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904 - as PyTorch raises it
    except RuntimeError as error:
        assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape '[3]' is invalid"), ValueError("out of memory"), RuntimeError("CUDA error: invalid argument")],
)
def test_other_errors_are_not_out_of_memory(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "message", ["CUDNN_STATUS_ALLOC_FAILED", "GET was unable to find an engine to execute this computation"]
)
def test_training_goes_on_in_smaller_parts_after_any_of_them(tmp_path, monkeypatch, message):
    from cardigan.experiment import session

    whole, failed = session.fit, []

    def failing(trial, state):
        if trial.config.gradient_accumulation == 1:
            failed.append(message)
            raise RuntimeError(f"cuDNN error: {message}")
        return whole(trial, state)

    monkeypatch.setattr(session, "fit", failing)
    settings = {"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu"}
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides=settings)
    assert failed == [message] and run.config.gradient_accumulation == 2


def test_memory_that_the_cache_holds_unused_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    device = torch.device("cuda", 0)
    assert free_device_bytes(device) == 60

    def source(count: int) -> ImageSource:
        return ImageSource(
            "bytes", torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.long), 0
        )

    assert build._fits_on_device(
        source(24), device
    )  # 24 of 0.4 * 60; by the memory that is free at this moment it would be 24 of 4
    assert not build._fits_on_device(source(25), device)


def test_metal_refuses_what_has_no_way_around(monkeypatch):
    with pytest.raises(CardiganError, match=r"device is 'mps', where bf16 .*#139390.*: use --precision fp32"):
        metal.refuse_on_metal("bf16", torch.device("mps"), "use --precision fp32")
    metal.refuse_on_metal("bf16", torch.device("cpu"), "use --precision fp32")


def test_each_limit_of_metal_tells_its_source_and_what_is_done_instead():
    for limit in metal.LIMITS.values():
        assert limit.source and limit.what
        assert limit.instead == "refused" or "(" in limit.instead or "CPU" in limit.instead
