"""Fuzz every reader of foreign files with 100,000 damaged files each, in a process with limits; prints JSON.

    python benchmarks/fuzz.py [--cases 100000] [--readers "pth,npz"] [--seed 0] [--out FILE.json]

A case is a valid file with one to four mutations (tests/fuzz/mutations.py). It is accepted, refused with a one-line
error, or a failure: any other exception, a crash of the process, more than 1 GB of memory, or more than 10 s of CPU
time. Equal seeds give equal cases. `failures` lists the failures.
"""

import argparse
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))
from fuzz_targets import FUZZ_TARGETS, FuzzTarget, mutated_case  # pyright: ignore[reportMissingImports]

from cardigan.data.reader import UnreadableImage
from cardigan.errors import CardiganError

MEMORY_LIMIT = 2**30
SECONDS_PER_CASE = 10.0
MAX_SHOWN = 8
"""Maximum number of distinct failures reported per reader."""
HERE = struct.Struct("<q")


class CaseTimeout(BaseException):
    """A case exceeded its time limit. A BaseException, so that no reader catches it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--readers", default=",".join(FUZZ_TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, text = {}, ""
    for name in options.readers.split(","):
        results[name] = fuzz_target(FUZZ_TARGETS[name], options.cases, options.seed)
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
        text = json.dumps({"seed": options.seed, "readers": results}, indent=1)
        if options.out:
            options.out.write_text(text + "\n")
    print(text)


def fuzz_target(subject: FuzzTarget, cases: int, seed: int) -> dict[str, object]:
    """Return the counts of outcomes. If the process crashes, a new one continues after the case that crashed it."""
    shared = mmap.mmap(-1, HERE.size)
    HERE.pack_into(shared, 0, -1)
    total: Counter[str] = Counter()
    failures: dict[str, int] = {}
    slowest, largest, first, began = 0.0, 0, 0, time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        while first < cases:
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read_end)
                _run(subject, range(first, cases), seed, Path(temporary), shared, write_end)
            os.close(write_end)
            with os.fdopen(read_end) as file:
                found = [json.loads(line) for line in file]
            _, status = os.waitpid(child, 0)
            for part in found:
                total.update(part["counts"])
                failures = {**part["failures"], **failures}
                slowest, largest = max(slowest, part["slowest"]), max(largest, part["largest"])
            if status == 0:
                break
            last = HERE.unpack_from(shared)[0]
            if last < first:
                raise SystemExit("The first case was not reached: see above.")
            total.update({"crashes": 1})
            failures.setdefault(f"the process died of {os.waitstatus_to_exitcode(status)}", last)
            total.update({"uncounted": last - (found[-1]["next"] if found else first)})
            first = last + 1
    return {
        "cases": sum(total.values()),
        **{name: total[name] for name in ("refused", "accepted", "crashes")},
        **({"uncounted": total["uncounted"]} if total["uncounted"] else {}),
        "slowest_seconds": round(slowest, 3),
        "largest_megabytes": round(largest / 2**20, 1),
        "seconds": round(time.monotonic() - began, 1),
        **({"failures": dict(list(failures.items())[:MAX_SHOWN])} if failures else {}),
    }


def _run(subject: FuzzTarget, numbers: range, seed: int, parent: Path, shared: mmap.mmap, write_end: int) -> None:
    """Read the cases and exit the process; results are written every thousand cases."""
    try:
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGPROF, _raise_timeout)
        folder = Path(tempfile.mkdtemp(dir=parent))
        seeds = list(subject.seed_files(folder))
        for content in seeds:
            # This also runs lazy imports before memory is limited.
            outcome = _classify_outcome(subject, folder, content)
            if outcome != "accepted":
                raise RuntimeError(f"a valid file is not accepted: {outcome}")
        resource.setrlimit(resource.RLIMIT_AS, (_memory_bytes("VmSize") + MEMORY_LIMIT, resource.RLIM_INFINITY))
        counts, failures, slowest, largest = Counter(), {}, 0.0, 0
        for number in numbers:
            HERE.pack_into(shared, 0, number)
            content = mutated_case(subject, seeds, seed, number)
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory
            before, began = _memory_bytes("VmRSS"), time.process_time()
            outcome = _classify_outcome(subject, folder, content)
            slowest, largest = max(slowest, time.process_time() - began), max(largest, _memory_bytes("VmHWM") - before)
            counts[outcome if outcome in ("accepted", "refused") else "crashes"] += 1
            if outcome not in ("accepted", "refused"):
                failures.setdefault(outcome, number)
            if number % 1000 == 999 or number == numbers[-1]:
                part = {
                    "counts": counts,
                    "failures": failures,
                    "slowest": slowest,
                    "largest": largest,
                    "next": number + 1,
                }
                os.write(write_end, json.dumps(part).encode() + b"\n")
                counts, failures = Counter(), {}
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing may return from a forked process
        traceback.print_exc()
        os._exit(3)


def _classify_outcome(subject: FuzzTarget, folder: Path, content: bytes) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CASE)
    try:
        subject.read(folder, content)
        return "accepted"
    except (CardiganError, UnreadableImage) as error:
        return "refused" if "\n" not in str(error) else f"more than one line: {str(error)[:80]!r}"
    except BaseException as error:  # noqa: BLE001 - any other exception is a reported failure
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cardigan" in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {where}: {str(error)[:120]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_timeout(*_: object) -> None:
    raise CaseTimeout(f"more than {SECONDS_PER_CASE:g} s")


def _memory_bytes(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    content = Path("/proc/self/status").read_bytes()
    return int(content.partition(f"{name}:".encode())[2].split(None, 1)[0]) * 1024


if __name__ == "__main__":
    main()
