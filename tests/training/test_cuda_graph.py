"""Recording: on the CPU with a tape in place of CUDA graphs; on a GPU as it is."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from op_modes import Tape

import cardigan
from cardigan.cli.progress import progress_view
from cardigan.config import Config, override
from cardigan.data.batches import Batches
from cardigan.experiment import session
from cardigan.experiment.build import build_source, build_spec, build_state, build_step_config
from cardigan.recipes import config_for
from cardigan.run.journal import read_events
from cardigan.training.budget import Budget, Clock
from cardigan.training.cuda_graph import NOT_RECORDED, WARMUP_STEPS, CudaGraphStep, cuda_graph_step
from cardigan.training.devices import Devices, open_devices
from cardigan.training.loop import Trainer, make_step, run_step
from cardigan.training.schedule import step_kinds
from cardigan.training.state import TrainState, state_tensors

SMALL = {
    "batch_size": 8,
    "generator.width": 4,
    "discriminator.width": 4,
    "data.max_images": 64,
    "precision": "fp32",
    "device": "cpu",
}


class Recordings:
    """CUDA's part in recording, played by tapes: what is recorded changes nothing, and is run again by `replay`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int = 99) -> None:
        self.state: TrainState | None = None
        self.opened: list[tuple[object, str]] = []
        self.replays = 0
        self.fits = fits
        """How many recordings there is memory for."""
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
            # as CUDA does: the recording ends with an error of its own, in whose context the cause is
            try:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            except torch.OutOfMemoryError:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904 - as PyTorch raises it
        self.graph.replay = self.replay

    def replay(self) -> None:
        self.recordings.replays += 1
        self.tape.replay()


def trained(config: Config, steps: int, recordings: Recordings | None = None, tell=None):
    """Return the state's tensors and all measurements after so many steps; recorded ones with `recordings`, or on a GPU with "gpu"."""
    devices, source = open_devices(config), build_source(config)
    state, rules = build_state(config, build_spec(config, source), devices), build_step_config(config, devices)
    batches = Batches(source.to(devices.device), config.data, config.seed)
    play = make_step(state, batches, rules)
    if recordings is not None:
        play = CudaGraphStep(play, devices.device, step_kinds(config), tell)
    if isinstance(recordings, Recordings):
        recordings.state = state
    trial = Trainer(config, batches, rules, play, Budget(config, devices.process_group, Clock()), None)
    measured = []
    for _ in range(steps):
        state, numbers = run_step(trial, state)
        measured.append(numbers.clone())
    return {name: tensor.cpu() for name, tensor in state_tensors(state).items()}, torch.stack(measured).cpu()


def assert_equal(ours, theirs) -> None:
    assert torch.equal(ours[1], theirs[1])
    assert all(torch.equal(ours[0][name], value) for name, value in theirs[0].items())


def config_of(**changes: object) -> Config:
    return override(config_for("mnist"), {**SMALL, "generator_optimizer.warmup_images": 160, **changes})


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(Devices, "is_async", True)


def test_recorded_steps_train_as_steps_kernel_by_kernel(monkeypatch, as_on_a_gpu):
    """Four kinds of step, rates that change: equal bits; all recorded at once, in one memory pool, with other threads left alone."""
    config = config_of(**{"objective.penalty_interval": 2, "n_critic": 3})
    assert len(step_kinds(config)) == 4
    steps = 6 * WARMUP_STEPS + 13
    recordings = Recordings(monkeypatch)
    assert_equal(trained(config, steps, recordings), trained(config, steps))
    assert recordings.replays >= 12
    pools, modes = zip(*recordings.opened, strict=True)
    assert len(recordings.opened) == 4 and len(set(pools)) == 1 and set(modes) == {"thread_local"}


def test_nothing_is_recorded_before_every_kind_has_run(monkeypatch, as_on_a_gpu):
    """A recording keeps its memory: a kind that first ran beside it would need as much again."""
    config, recordings = config_of(**{"objective.penalty_interval": 4}), Recordings(monkeypatch)
    trained(config, 4 * (WARMUP_STEPS - 1) + 1, recordings)
    assert recordings.opened == []
    trained(config, 4 * (WARMUP_STEPS - 1) + 2, recordings)
    assert len(recordings.opened) == 2


@pytest.mark.parametrize("fits", [0, 1])
def test_what_fits_step_by_step_runs_on_where_it_cannot_be_recorded(monkeypatch, as_on_a_gpu, fits):
    config, told = config_of(), []
    recordings = Recordings(monkeypatch, fits)
    assert_equal(trained(config, 20, recordings, told.append), trained(config, 20))
    assert told == [NOT_RECORDED] and recordings.replays == 0 and len(recordings.opened) == fits + 1


def test_a_run_tells_that_it_is_not_recorded(tmp_path, monkeypatch, capsys):
    """In the journal, at the images seen when it happened, and on the screen."""

    def recorded(work, device, num_processes, kinds, tell):
        steps = iter(range(100))

        def step(inputs, kind):
            if next(steps) == 2:
                tell(NOT_RECORDED)
            return work(inputs, kind)

        return step

    monkeypatch.setattr(session, "cuda_graph_step", recorded)
    config = config_of()
    with progress_view(config, quiet=False) as report:
        cardigan.train("mnist", out=tmp_path / "run", images=48, config=replace(config, images=None), on_event=report)
    (note,) = [event for event in read_events(tmp_path / "run" / "journal.jsonl") if event.kind == "note"]
    assert (note.images_seen, note.values["messages"]) == (16, [NOT_RECORDED])
    assert f"cardigan: {NOT_RECORDED}" in capsys.readouterr().out


def test_another_error_of_a_recording_is_raised(monkeypatch, as_on_a_gpu):
    recordings = Recordings(monkeypatch)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(
        Recording, "__enter__", lambda self: (_ for _ in ()).throw(RuntimeError("CUDA error: invalid argument"))
    )
    with pytest.raises(RuntimeError, match="invalid argument"):
        trained(config_of(), 20, recordings)


def test_only_a_single_gpu_process_records():
    def work(inputs, kind):
        return inputs.z

    assert cuda_graph_step(work, torch.device("cpu"), 1, []) is work
    assert cuda_graph_step(work, torch.device("cuda", 0), 2, []) is work


def test_all_kinds_of_step_are_known_beforehand():
    config = config_of(**{"objective.penalty_interval": 4, "n_critic": 6})
    seen = {(kind.apply_penalties, kind.update_generator) for kind in step_kinds(config)}
    assert seen == {
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
def test_replayed_steps_equal_eager_ones_on_a_gpu(recipe):
    """24 steps of the recipe: both kinds of step (with and without penalties) are recorded and replayed, and the learning rate changes."""
    config = override(config_for("mnist", recipe), {"device": "cuda", "generator_optimizer.warmup_images": 640})
    assert_equal(trained(config, 24, "gpu"), trained(config, 24))
