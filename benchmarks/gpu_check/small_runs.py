"""Short runs of `cardigan.train` in which scores, memory or the recording of steps are replaced.

Started in benchmarks/, this trains, or goes on with a run:

    python -m gpu_check.small_runs FOLDER IMAGES SETTINGS
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import cardigan
from cardigan.experiment import build as assemble
from cardigan.experiment import session
from cardigan.models.snapshot import Snapshot
from cardigan.run.checkpoint import load_latest_checkpoint
from cardigan.training.recorder import Callbacks

Refuse = Callable[[int], bool]
"""Given how many images are drawn at once, whether memory runs out."""


@contextmanager
def scripted_scores(scores: dict[int, list[float]], otherwise: float) -> Iterator[None]:
    """Inside the block, the checkpoint at n images gets the first score left in scores[n], or `otherwise`; no report
    is written at the end.
    """
    usual = assemble.build_callbacks

    def scripted(*arguments: Any) -> Callbacks:
        def judge(snapshot: Snapshot) -> dict[str, float]:
            left = scores.get(snapshot.images_seen, [])
            return {"score": left.pop(0) if left else otherwise}

        return replace(usual(*arguments), evaluate=judge, write_report=lambda _: None)

    with patch.object(assemble, "build_callbacks", scripted):
        yield


@contextmanager
def eager_steps() -> Iterator[None]:
    """Inside the block, no step is recorded."""

    def eager(work: Any, *_: Any) -> Any:
        return work

    with patch.object(session, "cuda_graph_step", eager):
        yield


@contextmanager
def memory_that_runs_out(refuse: Refuse) -> Iterator[None]:
    """Inside the block, the generators of new trainings raise PyTorch's out-of-memory error where `refuse` says so."""
    usual = assemble.build_state

    def check(_: nn.Module, given: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and refuse(len(given[0])):
            raise torch.OutOfMemoryError("out of memory: raised on purpose")

    def build(*arguments: Any) -> Any:
        state = usual(*arguments)
        state.networks.generator.register_forward_pre_hook(check)
        return state

    with patch.object(assemble, "build_state", build):
        yield


def trained(
    out: Path, images: int, settings: dict[str, Any], resume: bool = False, scores: dict[int, list[float]] | None = None
) -> session.Run:
    """Train on digits, with given scores: 55 where none is given for a checkpoint."""
    with scripted_scores(scores or {}, otherwise=55.0):
        return cardigan.train("mnist", out=out, images=images, overrides=settings, resume=resume)


def last_tensors(run: session.Run) -> dict[str, torch.Tensor]:
    """Return all tensors of the newest checkpoint."""
    found = load_latest_checkpoint(run.path / "checkpoints")
    return {} if found is None else found[0]


def messages_of(run: session.Run) -> list[str]:
    """Return the sentences that a run's journal tells at its starts and in between."""
    told = [
        event.values.get("messages", event.values.get("message", []))
        for event in session.read_events(run.path / "journal.jsonl")
    ]
    return [sentence for sentences in told for sentence in ([sentences] if isinstance(sentences, str) else sentences)]


if __name__ == "__main__":
    trained(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), resume=True)
