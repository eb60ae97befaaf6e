"""Check and benchmark Cardigan on one GPU: one command, at most nine minutes, one JSON file.

    python benchmarks/gpu.py [--device cuda] [--only equality,speed] [--out FILE.json]
    python benchmarks/gpu.py --device cpu --tiny

It needs one GPU with 40 GB or more. Every part runs in a separate process with its own time limit, so a failure, a
crash or a hang ends only that part. The file is rewritten after each part. The exit code is 1 if a part failed or
missed a target, and 2 if there is no such device. `--tiny` runs every part with tiny networks and few steps, also on
a CPU: it tests this program and measures nothing. The parts (gpu_check/table.py):

    devices        the machine, and the meaning of device names
    equality       recorded, eager and resumed steps are bit-identical, for every recipe and option
    tests          the tests with the marker `gpu`
    kill           `kill -9` and resume: the same bytes
    rollback       return to the best checkpoint: the same bits, recorded, eager and resumed
    out-of-memory  a batch that does not fit is computed in microbatches
    sampling       GPU against CPU, at most one gray level apart; repeatable
    serving        images over HTTP: correctness and images per second
    speed          training: recorded, eager, the plain loop, the compiled plain loop, the machine's bf16 product
    promise        seconds until `mnist` reaches the `fd_digits` that its recipe promises
    memory         flat over 500 iterations
    profile        the ten kernels that take the most time
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO, Any

from gpu_check.part import PartSkipped, Result, Settings, write_json
from gpu_check.table import PARTS

TINY_TIME_FACTOR = 6
"""Factor on the time limits in a tiny run, whose machine may be slow and busy."""
KILL_AFTER_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL."""
TAIL = 4_000
"""Characters kept of a failed part's output."""


def main() -> int:
    options = parse_options()
    if options.part:
        return run_here(options)
    if missing := missing_device(options.device):
        print(f"gpu.py: {missing} (--device cpu --tiny tests this program on a CPU)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the running part
    content: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": str(datetime.date.today()),
        "tiny": options.tiny,
    }
    content |= {"python": platform.python_version(), "parts": {}}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        content["parts"][name] = run_in_subprocess(name, options)
        write_json(options.out, content)
        print(line(name, content["parts"][name]), flush=True)
    print(f"\n{table(content['parts'])}\n\nWritten to {options.out}")
    return int(any(is_failure(part) for part in content["parts"].values()))


def missing_device(name: str) -> str:
    """Return why there is no such device, or "". A separate process checks, so that this one does not use the GPU."""
    program = "import sys; from cardigan.hardware.device import find_device; find_device(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1].rpartition("CardiganError: ")[2] if done.returncode else ""


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and few steps, to test this program")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(PARTS),
        help="parts, separated by commas; default: all",
    )
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/gpu-{datetime.date.today()}.json"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    wrong = [name for name in options.only if name not in PARTS]
    if wrong:
        parser.error(f"--only has {wrong[0]!r}: expected some of {', '.join(PARTS)}.")
    return options


def run_here(options: argparse.Namespace) -> int:
    """Run one part in this process; it writes its result file."""
    result = Result(options.result)
    result.write()
    try:
        PARTS[options.part].run(Settings(options.device, options.tiny, options.folder), result)
        result.finish()
    except PartSkipped as reason:
        result.skip_all(str(reason))
    except Exception as error:  # noqa: BLE001 - any exception is the result
        result.finish("".join(traceback.format_exception(error))[-TAIL:])
    return 0


def run_in_subprocess(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one part in a separate process and return its result."""
    limit = PARTS[name].limit_seconds * (TINY_TIME_FACTOR if options.tiny else 1)
    folder, began = Path(tempfile.mkdtemp(prefix="cardigan-gpu-")), time.monotonic()
    try:
        (folder / "work").mkdir()
        with (folder / "output").open("wb") as output:
            ended = wait_or_kill(started(name, options, folder, output), limit)
        return outcome(folder, ended, limit) | {"seconds": round(time.monotonic() - began, 2)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def started(name: str, options: argparse.Namespace, folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a part as the leader of a process group; a tiny one with a single thread."""
    words = ["--part", name, "--device", options.device, *(["--tiny"] if options.tiny else [])]
    places = ["--folder", str(folder / "work"), "--result", str(folder / "result.json")]
    return subprocess.Popen(
        [sys.executable, __file__, *words, *places],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **({"OMP_NUM_THREADS": "1"} if options.tiny else {})},
    )


def wait_or_kill(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Return the exit code of a process, or None on timeout. Ends all processes that it started."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its children, with SIGTERM and then SIGKILL."""
    for number, seconds in ((signal.SIGTERM, KILL_AFTER_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def outcome(folder: Path, ended: int | None, limit: int) -> dict[str, Any]:
    """Return the content of a part's result file, with the way it ended if it did not finish."""
    file = folder / "result.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"status": "unfinished", "failures": []}
    if ended != 0 or found["status"] == "unfinished":
        found["status"] = "timed out" if ended is None else "failed"
        reason = f"not finished within its {limit} s" if ended is None else f"its process ended with exit code {ended}"
        found["failures"] = [*found["failures"], reason]
    if is_failure(found):
        found["output"] = (folder / "output").read_text(errors="replace")[-TAIL:]
    return found


def is_failure(part: dict[str, Any]) -> bool:
    return part["status"] in {"failed", "timed out"}


def line(name: str, part: dict[str, Any]) -> str:
    """Return one line about a part: status, seconds, the first failure, and the number of skipped cases."""
    details = [text.strip().splitlines()[-1] for text in part.get("failures", [])[:1]]
    details += [f"{len(part['skipped'])} skipped" for _ in range(bool(part.get("skipped")))]
    return " ".join(
        [f"{name:14}{part['status']:10}{part['seconds']:7.1f} s", *(f" {text}" for text in details)]
    ).rstrip()


def table(parts: dict[str, dict[str, Any]]) -> str:
    """Return the parts and the targets as Markdown."""
    lines = ["| part | status | seconds | checks | failures | skipped |", "|---|---|---|---|---|---|"]
    for name, part in parts.items():
        counts = [str(part.get("checks", 0)), *(str(len(part.get(kind, ()))) for kind in ("failures", "skipped"))]
        lines.append(f"| {name} | {part['status']} | {part['seconds']:g} | {' | '.join(counts)} |")
    targets = [target for part in parts.values() for target in part.get("targets", ())]
    if targets:
        lines += ["", "| target | measured | met |", "|---|---|---|"]
        met = {True: "yes", False: "no", None: ""}
        lines += [
            f"| {each['target']} | {'' if each['value'] is None else each['value']} | {met[each['met']]} |"
            for each in targets
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
