"""A batch that does not fit into memory is computed in microbatches; a CUDA graph that does not fit is left out.

Injected errors show that the result is exact. On a GPU a limit on PyTorch's memory shows that real errors are detected.
"""

import gc
from typing import Any

import torch

from cardigan.experiment.finished_run import Run
from gpu_check.part import Result, Settings
from gpu_check.small_runs import last_tensors, memory_that_runs_out, messages_of, trained
from gpu_check.small_training import different_bits

MEMORY_FRACTION = 0.6
"""Memory of the limited run, as a fraction of what the whole batch needs."""
STEPS = 24


def run(settings: Settings, result: Result) -> None:
    injected(settings, result)
    if not settings.on_gpu:
        for what in ("recording without memory", "limited memory"):
            result.skip(what, "no GPU")
        return
    without_recording(settings, result)
    limited(settings, result)


def injected(settings: Settings, result: Result) -> None:
    """Compare a run that halves its microbatch twice with one that starts with that microbatch."""
    images = 16 * (4 if settings.tiny else STEPS)
    small = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "device": settings.device}
    with memory_that_runs_out(lambda count: count > 4):
        halved = trained(settings.folder / "halved", images, small)
    result.add(injected={"gradient_accumulation": halved.config.gradient_accumulation, "messages": messages_of(halved)})
    result.check(
        halved.config.gradient_accumulation == 4,
        f"a batch of 16 is computed in {halved.config.gradient_accumulation} parts, not in 4 of 4 images",
    )
    result.check(halved.images_seen == images, f"ended after {halved.images_seen} images")
    memory_messages = [message for message in messages_of(halved) if "memory" in message]
    result.check(bool(memory_messages), "the run does not report that memory ran out")
    parts = trained(settings.folder / "parts", images, {**small, "gradient_accumulation": 4})
    alike(result, "parts chosen by the run", halved, parts)


def without_recording(settings: Settings, result: Result) -> None:
    """Compare a run whose graph capture runs out of memory with one that captures."""
    small = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "device": settings.device}
    with memory_that_runs_out(lambda _: torch.cuda.is_current_stream_capturing()):
        eager = trained(settings.folder / "not-recorded", 16 * STEPS, small)
    result.add(recording={"gradient_accumulation": eager.config.gradient_accumulation, "messages": messages_of(eager)})
    result.check(
        eager.config.gradient_accumulation == 1, "the batch was split although only the recording ran out of memory"
    )
    alike(result, "steps that could not be recorded", eager, trained(settings.folder / "recorded", 16 * STEPS, small))


def limited(settings: Settings, result: Result) -> None:
    """Train the networks of `tutorial` at full width with less memory than a batch needs."""
    batch, images = 512, 512 * 8
    changes: dict[str, Any] = {
        "batch_size": batch,
        "device": settings.device,
        "data.height": 64,
        "data.width": 64,
        "data.channels": 3,
    }
    changes |= {f"{network}.width": 128 for network in ("generator", "discriminator")}
    torch.cuda.reset_peak_memory_stats()
    trained(settings.folder / "unlimited", images, changes)
    needed, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(settings.device).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(MEMORY_FRACTION * needed / total)
    try:
        small = trained(settings.folder / "limited", images, changes)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    numbers = {
        "whole_batch_megabytes": round(needed / 1e6),
        "limit_megabytes": round(MEMORY_FRACTION * needed / 1e6),
        "gradient_accumulation": small.config.gradient_accumulation,
    }
    result.add(limited={**numbers, "messages": messages_of(small)})
    result.check(small.config.gradient_accumulation > 1, "a batch that does not fit was not computed in parts")
    result.check(small.images_seen == images, f"ended after {small.images_seen} images")


def alike(result: Result, what: str, ours: Run, theirs: Run) -> None:
    different = different_bits(last_tensors(ours), last_tensors(theirs))
    result.check(bool(last_tensors(ours)) and not different, f"{what}: {different}")
