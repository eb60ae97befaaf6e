"""A process that torchrun restarts resumes its own run, and a resumed run says what changes its bits."""

import pytest
import torch

import cardigan
from cardigan.errors import CardiganError
from cardigan.run.journal import read_events
from cardigan.training.budget import Budget, Clock, Reserve
from cardigan.training.distributed import ProcessGroup

SMALL = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "precision": "fp32"}


def test_restarted_process_resumes_the_run_of_its_job_only(tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job1")
    cardigan.train("mnist", out=out, images=32, overrides=SMALL)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cardigan.train("mnist", out=out, images=64, overrides=SMALL).images_seen == 64
    assert [event.kind for event in read_events(out / "journal.jsonl")].count("resume") == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job2")
    with pytest.raises(CardiganError, match="add --resume"):
        cardigan.train("mnist", out=out, images=96, overrides=SMALL)


def test_resume_says_that_the_number_of_threads_differs(tmp_path):
    out, num_threads = tmp_path / "run", torch.get_num_threads()
    cardigan.train("mnist", out=out, images=32, overrides=SMALL)
    torch.set_num_threads(num_threads + 1)
    try:
        cardigan.train("mnist", out=out, images=64, overrides=SMALL, resume=True)
    finally:
        torch.set_num_threads(num_threads)
    (resumed,) = [event for event in read_events(out / "journal.jsonl") if event.kind == "resume"]
    message = f"trained with {num_threads} threads per process so far and with {num_threads + 1}"
    assert message in str(resumed.values["messages"])


class Agreement:
    """The exchange of reasons among processes that all give the same."""

    def __init__(self) -> None:
        self.num_exchanges = 0

    def exchange(self, *values: int) -> "Agreement":
        self.num_exchanges, self.values = self.num_exchanges + 1, list(values)
        return self

    def results(self) -> list[int]:
        return self.values


@pytest.mark.parametrize(("step_seconds", "max_delay"), [(0.01, 18), (0.1, 12), (3.0, 3)])
def test_processes_exchange_reasons_every_few_steps_or_every_second(monkeypatch, step_seconds, max_delay):
    agreement = Agreement()
    monkeypatch.setattr(ProcessGroup, "all_reduce_max_async", lambda _, *values: agreement.exchange(*values))
    budget = Budget(cardigan.config_for("mnist"), ProcessGroup(1, 2), Clock())
    reasons = [budget.stop_reason(64, Reserve(0.0, 0.0), step_seconds) for _ in range(160)]
    assert not any(reasons) and agreement.num_exchanges <= 2 + 160 / (max_delay - 2)
    budget.received_signal = "SIGTERM"
    delays = (step for step in range(1, 100) if budget.stop_reason(64, Reserve(0.0, 0.0), step_seconds) == "SIGTERM")
    delay = next(delays)
    assert delay <= max_delay


def test_only_the_clock_of_the_main_process_counts():
    config = cardigan.override(cardigan.config_for("mnist"), {"images": None, "minutes": 1e-6})
    assert Budget(config, ProcessGroup(0, 2), Clock(0.0))._own_reason(Reserve(0.0, 0.0)) == "minutes"
    assert not Budget(config, ProcessGroup(1, 2), Clock(0.0))._own_reason(Reserve(0.0, 0.0))
