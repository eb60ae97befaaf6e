"""`cardigan train ... --devices N`: PyTorch's own launcher (torchrun), started from here, once per process of the run.

Does not know what the processes do, only how they may end.
"""

import logging
import os
import signal
import sys
import uuid

from cardigan.errors import CardiganError


def launch(argv: list[str], num_processes: int) -> int:
    """Run `cardigan train` with these words in `num_processes` processes on this machine; return its exit code.

    On CPU the cores are divided among them, unless OMP_NUM_THREADS says otherwise.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and num_processes > torch.cuda.device_count():
        raise CardiganError(
            f"--devices is {num_processes} but this machine has {torch.cuda.device_count()} GPUs: give that many or fewer."
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    logging.disable(logging.CRITICAL)  # the launcher's own reports repeat, at length, what the processes have said
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(settings, sys.executable)("-m", "cardigan", "train", *argv)
    except SignalException as signal_error:
        return 128 + int(signal_error.sigval)
    except ChildFailedError as child_error:
        return _failure_exit_code({rank: failure.exitcode for rank, failure in child_error.failures.items()})
    return 0


def _failure_exit_code(codes: dict[int, int]) -> int:
    """Return what the run ended with, from the codes of the processes that failed; of one that was killed a person has yet to be told."""
    # The launcher ends with SIGTERM whoever is left when one process fails: that one is not the cause.
    signal_by_rank = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    if not signal_by_rank:
        error_codes = [code for code in codes.values() if code > 0]
        return max(error_codes, default=128 + signal.SIGTERM)
    rank, signal_number = next(iter(signal_by_rank.items()))
    print(
        f"cardigan: Process {rank} of the run was killed (signal {signal_number}), and the others stopped with it. "
        "Everything up to the last checkpoint is saved: the same command with --resume goes on from there.",
        file=sys.stderr,
    )
    return 128 + signal_number
