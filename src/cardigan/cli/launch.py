"""`cardigan train ... --devices N`: PyTorch's own launcher (torchrun), started from here, once per process of the run.

Does not know what the processes do, only how they may end.
"""

import logging
import os
import signal
import sys
import uuid

from cardigan.errors import CardiganError


def launch(words: list[str], count: int) -> int:
    """Run `cardigan train` with these words in `count` processes on this machine; return its exit code.

    On CPU the cores are divided among them, unless OMP_NUM_THREADS says otherwise.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise CardiganError(f"--devices is {count} but this machine has {torch.cuda.device_count()} GPUs: give that many or fewer.")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.disable(logging.CRITICAL)  # the launcher's own reports repeat, at length, what the processes have said
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(settings, sys.executable)("-m", "cardigan", "train", *words)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        return _exit_code({rank: failure.exitcode for rank, failure in failed.failures.items()})
    return 0


def _exit_code(codes: dict[int, int]) -> int:
    """Return what the run ended with, from the codes of the processes that failed; of one that was killed a person has yet to be told."""
    # The launcher ends with SIGTERM whoever is left when one process fails: that one is not the cause.
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    if not killed:
        spoken = [code for code in codes.values() if code > 0]
        return max(spoken, default=128 + signal.SIGTERM)
    rank, number = next(iter(killed.items()))
    print(
        f"cardigan: Process {rank} of the run was killed (signal {number}), and the others stopped with it. "
        "Everything up to the last checkpoint is saved: the same command with --resume goes on from there.",
        file=sys.stderr,
    )
    return 128 + number
