"""Short runs of `cardigan.train` with patched scores, memory or graph capture.

Run in benchmarks/, this trains or resumes a run:

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
from cardigan.experiment import build, session
from cardigan.models.snapshot import Snapshot
from cardigan.run.checkpoint import load_latest_checkpoint
from cardigan.run.journal import read_events
from cardigan.training.recorder import Callbacks

Refuse = Callable[[int], bool]
"""Returns whether memory runs out for a number of images per batch."""


@contextmanager
def scripted_scores(scores: dict[int, list[float]], otherwise: float) -> Iterator[None]:
    """In the block, the checkpoint at n images gets the next of scores[n], or `otherwise`. No report is written."""
    original = build.build_callbacks

    def scripted(*arguments: Any) -> Callbacks:
        def evaluate(snapshot: Snapshot) -> dict[str, float]:
            remaining = scores.get(snapshot.images_seen, [])
            return {"score": remaining.pop(0) if remaining else otherwise}

        return replace(original(*arguments), evaluate=evaluate, write_report=lambda *_: None)

    with patch.object(build, "build_callbacks", scripted):
        yield


@contextmanager
def eager_steps() -> Iterator[None]:
    """In the block, no CUDA graph is captured."""

    def eager(work: Any, *_: Any) -> Any:
        return work

    with patch.object(session, "cuda_graph_step", eager):
        yield


@contextmanager
def memory_that_runs_out(refuse: Refuse) -> Iterator[None]:
    """In the block, new generators raise PyTorch's out-of-memory error if `refuse` returns True."""
    original = build.build_state

    def check(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and refuse(len(inputs[0])):
            raise torch.OutOfMemoryError("out of memory: raised on purpose")

    def patched(*arguments: Any) -> Any:
        state = original(*arguments)
        state.networks.generator.register_forward_pre_hook(check)
        return state

    with patch.object(build, "build_state", patched):
        yield


def trained(
    out: Path, images: int, settings: dict[str, Any], resume: bool = False, scores: dict[int, list[float]] | None = None
) -> session.Run:
    """Train on digits with the given scores; the default score is 55."""
    with scripted_scores(scores or {}, otherwise=55.0):
        return cardigan.train("mnist", out=out, images=images, overrides=settings, resume=resume)


def last_tensors(run: session.Run) -> dict[str, torch.Tensor]:
    """Return all tensors of the newest checkpoint."""
    found = load_latest_checkpoint(run.path / "checkpoints")
    return {} if found is None else found[0]


def messages_of(run: session.Run) -> list[str]:
    """Return the messages of a run's journal."""
    messages = [event.values.get("messages", []) for event in read_events(run.path / "journal.jsonl")]
    return [text for texts in messages for text in texts]


if __name__ == "__main__":
    trained(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), resume=True)
