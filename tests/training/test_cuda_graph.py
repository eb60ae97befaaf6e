"""Recording of steps: on the CPU with a tape instead of CUDA graphs, on a GPU with CUDA graphs."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import cardigan
from cardigan.cli.progress import progress_view
from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.experiment import training_run
from cardigan.experiment.build import build_source, build_spec, build_state, build_step_config
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.run.journal import read_events
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import NOT_RECORDED, WARMUP_STEPS, CudaGraphStep, cuda_graph_step
from cardigan.training.devices import Devices, open_devices
from cardigan.training.loop import Trainer, make_step, run_step
from cardigan.training.schedule import step_kinds
from cardigan.training.state import TrainState, state_tensors
from op_modes import Tape

SMALL = {
    "batch_size": 8,
    "generator.width": 4,
    "discriminator.width": 4,
    "data.max_images": 64,
    "precision": "fp32",
    "device": "cpu",
}


class Recordings:
    """Replaces CUDA graphs by tapes: recording changes no tensor, and `replay` runs the operations again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int = 99) -> None:
        self.state: TrainState | None = None
        self.opened: list[tuple[object, str]] = []
        self.replays = 0
        self.fits = fits
        """The number of recordings for which there is memory."""
        stream = SimpleNamespace(wait_stream=lambda other: None)
        fakes = {
            "Stream": lambda device: stream,
            "current_stream": lambda device: stream,
            "stream": lambda stream: nullcontext(),
        }
        fakes |= {"CUDAGraph": SimpleNamespace, "graph": self.graph, "graph_pool_handle": object}
        for name, fake in {**fakes, "empty_cache": lambda: None}.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def graph(self, graph: SimpleNamespace, pool: object, stream: object, capture_error_mode: str) -> "Recording":
        self.opened.append((pool, capture_error_mode))
        return Recording(self, graph)


class Recording:
    def __init__(self, recordings: Recordings, graph: SimpleNamespace) -> None:
        self.recordings, self.graph, self.tape = recordings, graph, Tape()

    def __enter__(self) -> None:
        assert self.recordings.state is not None
        self.before = {name: tensor.clone() for name, tensor in state_tensors(self.recordings.state).items()}
        self.tape.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.tape.__exit__(kind, error, trace)
        for name, tensor in state_tensors(self.recordings.state).items():
            tensor.copy_(self.before[name])
        if len(self.recordings.opened) > self.recordings.fits:
            # like CUDA: the capture raises another error, with the cause as its context
            try:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            except torch.OutOfMemoryError:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904 - as PyTorch
        self.graph.replay = self.replay

    def replay(self) -> None:
        self.recordings.replays += 1
        self.tape.replay()


def train_steps(config: Config, steps: int, recordings: Recordings | None = None, on_message=None):
    """Return the state's tensors and all metrics. With `recordings`, or "gpu" on a GPU, record graphs."""
    devices, source = open_devices(config), build_source(config)
    state, step_config = build_state(config, build_spec(config, source), devices), build_step_config(config, devices)
    batches = Batches(source.to(devices.device), config.data, config.seed)
    step_function = make_step(state, batches, step_config)
    if recordings is not None:
        step_function = CudaGraphStep(step_function, devices.device, step_kinds(config), on_message)
    if isinstance(recordings, Recordings):
        recordings.state = state
    trainer = Trainer(config, batches, step_config, step_function, Budget(config, devices.process_group, Clock()), None)
    metrics = []
    for _ in range(steps):
        state, numbers = run_step(trainer, state)
        metrics.append(numbers.clone())
    return {name: tensor.cpu() for name, tensor in state_tensors(state).items()}, torch.stack(metrics).cpu()


def assert_equal(actual, reference) -> None:
    assert torch.equal(actual[1], reference[1])
    assert all(torch.equal(actual[0][name], value) for name, value in reference[0].items())


def config_of(**changes: object) -> Config:
    return override(config_for("mnist"), {**SMALL, "generator_optimizer.warmup_images": 160, **changes})


@pytest.fixture
def async_device(monkeypatch):
    monkeypatch.setattr(Devices, "is_async", True)


def test_graphs_give_the_same_bits_as_eager_steps(monkeypatch, async_device):
    """Four kinds of step with changing learning rates: equal bits, one memory pool, no effect on other threads."""
    config = config_of(**{"objective.penalty_interval": 2, "n_critic": 3})
    assert len(step_kinds(config)) == 4
    steps = 6 * WARMUP_STEPS + 13
    recordings = Recordings(monkeypatch)
    assert_equal(train_steps(config, steps, recordings), train_steps(config, steps))
    assert recordings.replays >= 12
    pools, modes = zip(*recordings.opened, strict=True)
    assert len(recordings.opened) == 4 and len(set(pools)) == 1 and set(modes) == {"thread_local"}


def test_recording_waits_until_every_kind_has_run(monkeypatch, async_device):
    """A graph keeps its memory: a kind that first ran after the recording would need as much again."""
    config, recordings = config_of(**{"objective.penalty_interval": 4}), Recordings(monkeypatch)
    train_steps(config, 4 * (WARMUP_STEPS - 1) + 1, recordings)
    assert recordings.opened == []
    train_steps(config, 4 * (WARMUP_STEPS - 1) + 2, recordings)
    assert len(recordings.opened) == 2


@pytest.mark.parametrize("fits", [0, 1])
def test_training_continues_eagerly_if_recording_runs_out_of_memory(monkeypatch, async_device, fits):
    config, messages = config_of(), []
    recordings = Recordings(monkeypatch, fits)
    assert_equal(train_steps(config, 20, recordings, messages.append), train_steps(config, 20))
    assert messages == [NOT_RECORDED] and recordings.replays == 0 and len(recordings.opened) == fits + 1


def test_run_reports_that_recording_failed(tmp_path, monkeypatch, capsys):
    """In the journal, with the current images_seen, and on the screen."""

    def eager_step_with_message(work, device, num_processes, kinds, on_message):
        steps = iter(range(100))

        def step(inputs, kind):
            if next(steps) == 2:
                on_message(NOT_RECORDED)
            return work(inputs, kind)

        return step

    monkeypatch.setattr(training_run, "cuda_graph_step", eager_step_with_message)
    config = config_of()
    with progress_view(config, quiet=False) as report:
        cardigan.train("mnist", out=tmp_path / "run", images=48, config=replace(config, images=None), on_event=report)
    (note,) = [event for event in read_events(tmp_path / "run" / "journal.jsonl") if event.kind == "note"]
    assert (note.images_seen, note.values["messages"]) == (16, [NOT_RECORDED])
    assert f"cardigan: {NOT_RECORDED}" in capsys.readouterr().out


def test_other_recording_errors_are_raised(monkeypatch, async_device):
    recordings = Recordings(monkeypatch)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(
        Recording, "__enter__", lambda self: (_ for _ in ()).throw(RuntimeError("CUDA error: invalid argument"))
    )
    with pytest.raises(RuntimeError, match="invalid argument"):
        train_steps(config_of(), 20, recordings)


def test_graphs_require_one_gpu_process():
    def work(inputs, kind):
        return inputs.z

    assert cuda_graph_step(work, torch.device("cpu"), 1, []) is work
    assert cuda_graph_step(work, torch.device("cuda", 0), 2, []) is work


def test_step_kinds_lists_all_kinds():
    config = config_of(**{"objective.penalty_interval": 4, "n_critic": 6})
    kinds = {(kind.apply_penalties, kind.update_generator) for kind in step_kinds(config)}
    assert kinds == {
        (True, False),
        (False, False),
        (False, True),
    }  # a penalty is due where the step's number is a multiple of 4, G where 6 n - 1


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a GPU: shows that a replayed CUDA graph gives the bits of eager kernels",
)
@pytest.mark.parametrize("recipe", ["mnist", "tutorial"])
def test_replayed_graphs_equal_eager_steps_on_gpu(recipe):
    """24 steps of the recipe: steps with and without penalties are replayed, and learning rates change."""
    config = override(config_for("mnist", recipe), {"device": "cuda", "generator_optimizer.warmup_images": 640})
    assert_equal(train_steps(config, 24, "gpu"), train_steps(config, 24))
