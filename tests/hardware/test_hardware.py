"""Devices by name, their arithmetic and memory. Tests need no GPU; device indices are checked by PyTorch itself."""

import json

import pytest
import torch
from torch.cuda._utils import _get_device_index

import cardigan
from cardigan.data.source import ImageSource
from cardigan.errors import CardiganError
from cardigan.experiment import build
from cardigan.files.sha256 import json_sha256
from cardigan.hardware import metal
from cardigan.hardware.device import find_device
from cardigan.hardware.memory import free_device_bytes
from cardigan.hardware.out_of_memory import is_out_of_memory
from cardigan.hardware.precision import allow_tf32, ieee_fp32, resolve_arithmetic, tf32_allowed
from cardigan.inference import model
from cardigan.metrics import features
from cardigan.models import sampling_devices
from cardigan.overrides import override
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
    """Let PyTorch report one GPU and accept tensors on it. Device indices are checked as PyTorch does."""
    selected_devices: list[int] = []
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: selected_devices.append(_get_device_index(device)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "empty", lambda size, device: empty(size))
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield selected_devices
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_gpu_has_an_index(gpu, name):
    devices = open_devices(override(config_for("mnist"), {"device": name}))
    assert devices.device == torch.device("cuda", 0) and gpu == [0]
    assert devices.arithmetic == "bf16" and devices.is_async


def test_local_rank_selects_gpu(gpu):
    assert find_device("cuda", local_rank=3) == torch.device("cuda", 3)
    assert find_device("cuda:1", local_rank=3) == torch.device("cuda", 1)


def test_find_device_sets_deterministic_kernels(gpu):
    """Training, `Model.to`, serving and the studio all use this function."""
    torch.backends.cudnn.deterministic = False
    allow_tf32(True)
    find_device("cuda")
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark and not tf32_allowed()


@pytest.mark.parametrize("caller", ["Model.to", "serve", "studio", "sample", "features"])
def test_inference_uses_find_device(tmp_path, monkeypatch, caller):
    """Sampling, serving and the studio therefore use deterministic kernels, like training."""
    path, requested_names = small_run(tmp_path / "run", small_snapshot()), []

    def found(name: str) -> torch.device:
        requested_names.append(name)
        return torch.device("cpu")

    module = {
        "Model.to": model,
        "serve": serve_model,
        "studio": model_views,
        "sample": sampling_devices,
        "features": features,
    }[caller]
    monkeypatch.setattr(module, "find_device", found)
    if caller == "Model.to":
        cardigan.load(path).to("cuda:1")
    elif caller == "serve":
        serve_model.open_served_model(path, "pytorch", "cuda:1", 8)
    elif caller == "sample":
        sampling_devices.sampling_in_this_process(small_snapshot(), "cuda:1")
    elif caller == "features":
        features.find_extractor("pixels", (1, 8, 8), device="cuda:1")
    else:
        model_views.ModelViews(RunReader(open_runs_folder(tmp_path)), "cuda:1")
    assert requested_names == ["cuda:1"]


def test_throughput_is_measured_like_the_run(monkeypatch):
    """One process on a GPU is measured over whole cycles after recording; several processes run without graphs."""
    tiny = {
        "batch_size": 4,
        "generator.width": 2,
        "discriminator.width": 2,
        "device": "cpu",
        "objective.penalty_interval": 2,
    }
    config = override(config_for("mnist"), tiny)
    calls: list[tuple[int, tuple[object, ...]]] = []
    steps: list[object] = []

    def recorded(work, device, num_processes, kinds, on_message=None):
        calls.append((num_processes, kinds))
        return lambda inputs, kind: steps.append(kind) or work(inputs, kind)

    monkeypatch.setattr(build, "cuda_graph_step", recorded)
    devices = open_devices(config)
    build.measure_throughput(config, devices)
    assert calls == [(1, step_kinds(config))] and len(steps) == 2 + 2
    steps.clear()
    monkeypatch.setattr(Devices, "is_async", True)
    build.measure_throughput(config, devices)
    assert len(steps) == 2 * (WARMUP_STEPS + 1) + 2 * build.THROUGHPUT_CYCLES
    monkeypatch.setenv("WORLD_SIZE", "2")
    build.measure_throughput(config, devices)
    assert calls[-1][0] == 2


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "meta", "tpu"])
def test_unavailable_device_error(name):
    if torch.cuda.is_available() and name == "cuda":
        pytest.skip("this machine has a GPU")
    with pytest.raises(CardiganError, match=f"device is '{name}', .* use auto or cpu"):
        find_device(name)


def test_resolve_arithmetic(gpu, monkeypatch):
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
def test_tf32_is_allowed_only_if_requested(gpu, precision, allowed):
    allow_tf32(not allowed)
    open_devices(override(config_for("mnist"), {"device": "cuda", "precision": precision}))
    assert torch.backends.cudnn.allow_tf32 is allowed and torch.backends.cuda.matmul.allow_tf32 is allowed


def test_ieee_fp32_disables_tf32(gpu):
    allow_tf32(True)
    with ieee_fp32(torch.device("cuda", 0)):
        assert not tf32_allowed()
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_resumed_run_reports_changed_arithmetic(tmp_path):
    settings = {"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu"}
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides={**settings, "precision": "auto"})
    from cardigan.cli.info import describe_path
    from cardigan.run.directory import RunDirectory, read_provenance

    provenance = read_provenance(RunDirectory(run.path))
    used = resolve_arithmetic("auto", torch.device("cpu"))
    assert provenance["arithmetic"] == used and provenance["device"] == "cpu"
    assert describe_path(run.path)["provenance"]["arithmetic"] == used
    other = {"fp32": "bf16", "bf16": "fp32"}[used]
    content = json.loads((run.path / "config.json").read_bytes())
    del content["sha256"]
    content["provenance"]["arithmetic"] = other
    (run.path / "config.json").write_text(json.dumps({**content, "sha256": json_sha256(content)}))
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
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_out_of_memory_is_recognized(error):
    assert is_out_of_memory(error)


def test_chained_out_of_memory_is_recognized():
    """An aborted graph capture raises another error."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except torch.OutOfMemoryError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904 - as PyTorch
    except RuntimeError as error:
        assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[3]' is invalid"),
        ValueError("out of memory"),
        RuntimeError("CUDA error: invalid argument"),
        ImportError("No module named 'onnx'"),
    ],
)
def test_other_errors_are_not_out_of_memory(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "message", ["CUDNN_STATUS_ALLOC_FAILED", "GET was unable to find an engine to execute this computation"]
)
def test_training_continues_with_microbatches_after_out_of_memory(tmp_path, monkeypatch, message):
    from cardigan.experiment import training_run

    original_fit, failures = training_run.fit, []

    def failing(trainer, state):
        if trainer.config.gradient_accumulation == 1:
            failures.append(message)
            raise RuntimeError(f"cuDNN error: {message}")
        return original_fit(trainer, state)

    monkeypatch.setattr(training_run, "fit", failing)
    settings = {"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu"}
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides=settings)
    assert failures == [message] and run.config.gradient_accumulation == 2


def test_unused_cache_counts_as_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    device = torch.device("cuda", 0)
    assert free_device_bytes(device) == 60

    def source(count: int) -> ImageSource:
        return ImageSource(
            "bytes", torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.long), 0
        )

    assert build._fits_on_device(source(24), device)  # 24 of 0.4 * 60; without the cache it would be 24 of 4
    assert not build._fits_on_device(source(25), device)


def test_refuse_on_metal(monkeypatch):
    with pytest.raises(CardiganError, match=r"device is 'mps', where bf16 .*#139390.*: use --precision fp32"):
        metal.refuse_on_metal("bf16", torch.device("mps"), "use --precision fp32")
    metal.refuse_on_metal("bf16", torch.device("cpu"), "use --precision fp32")


def test_metal_limits_have_source_and_workaround():
    for limit in metal.LIMITS.values():
        assert limit.source and limit.what
        assert limit.instead == "refused" or "(" in limit.instead or "CPU" in limit.instead
