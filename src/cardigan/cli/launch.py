"""`cardigan train ... --devices N`: starts the processes of a run with PyTorch's launcher (torchrun).

Maps their exit codes to one exit code.
"""

import logging
import os
import signal
import sys
import uuid


def launch(argv: list[str], num_processes: int) -> int:
    """Run `cardigan train` with these arguments in `num_processes` processes on this machine; return the exit code.

    On CPU the cores are divided among the processes, unless OMP_NUM_THREADS is set.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from cardigan.hardware.device_processes import check_num_gpus

    if torch.cuda.is_available():
        check_num_gpus(num_processes, torch.cuda.device_count())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    logging.disable(logging.CRITICAL)  # the launcher repeats the processes' errors at length
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
    """Return the exit code of the run from those of the failed processes. Prints a message if one was killed."""
    # When one process fails, the launcher stops the others with SIGTERM: those are not the cause.
    signal_by_rank = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    if not signal_by_rank:
        error_codes = [code for code in codes.values() if code > 0]
        return max(error_codes, default=128 + signal.SIGTERM)
    rank, signal_number = next(iter(signal_by_rank.items()))
    print(
        f"cardigan: Process {rank} of the run was killed (signal {signal_number}), and the others were stopped. "
        "Everything up to the last checkpoint is saved: the same command with --resume continues from there.",
        file=sys.stderr,
    )
    return 128 + signal_number
