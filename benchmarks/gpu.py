"""Check and measure Cardigan on one GPU: one command, at most nine minutes, one JSON file.

    python benchmarks/gpu.py [--device cuda] [--only equality,speed] [--out FILE.json]
    python benchmarks/gpu.py --device cpu --tiny

It needs one GPU with 40 GB or more. Every part runs in a process of its own with its own time limit, so a failure, a
crash or a hang ends that part only. The file is written anew after each part. The exit code is 1 if any part failed,
a missed target included, and 2 if there is no such device. `--tiny` runs every part with tiny networks and few steps, also on a CPU: it tests this
program and measures nothing. The parts (gpu_check/table.py):

    devices        the machine, and what the names of devices mean
    equality       recorded == eager == resumed steps, to the bit, for every recipe and every option
    tests          the tests with the marker `gpu`
    kill           `kill -9` and resume: the same bytes
    rollback       back to the best checkpoint: the same bits, recorded, eager and resumed
    out-of-memory  a batch that does not fit is computed in parts
    sampling       GPU against CPU, at most one grey level; twice the same
    serving        images over HTTP: right ones, how many a second
    speed          training: recorded, eager, the plain loop, the compiled plain loop, the machine's bf16 product
    promise        seconds of `mnist` to the `fd_digits` that its recipe promises
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

TINY_PATIENCE = 6
"""How many times its limit a part may take in a tiny run, whose machine may be slow and busy."""
KILLED_AFTER = 3.0
"""Seconds that an ended part has to leave before it is killed."""
TAIL = 4_000
"""Characters of a failed part's output that are kept."""


def main() -> int:
    options = parsed()
    if options.part:
        return run_here(options)
    if missing := missing_device(options.device):
        print(f"gpu.py: {missing} (--device cpu --tiny tries this program out on a CPU)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended too
    content: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": str(datetime.date.today()),
        "tiny": options.tiny,
    }
    content |= {"python": platform.python_version(), "parts": {}}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        content["parts"][name] = run_apart(name, options)
        write_json(options.out, content)
        print(line(name, content["parts"][name]), flush=True)
    print(f"\n{table(content['parts'])}\n\nWritten to {options.out}")
    return int(any(is_failure(part) for part in content["parts"].values()))


def missing_device(name: str) -> str:
    """Return in one sentence why there is no such device, "" if there is one. Looked up in a process of its own: this one
    must hold nothing on a GPU while the parts measure it.
    """
    program = "import sys; from cardigan.hardware.device import find_device; find_device(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1].rpartition("CardiganError: ")[2] if done.returncode else ""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and few steps, to try this program out")
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
    """Run one part in this process; its result is in its file."""
    result = Result(options.result)
    result.write()
    try:
        PARTS[options.part].run(Settings(options.device, options.tiny, options.folder), result)
        result.finish()
    except PartSkipped as reason:
        result.skip_all(str(reason))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the result
        result.finish("".join(traceback.format_exception(error))[-TAIL:])
    return 0


def run_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one part in a process of its own, and return what came of it."""
    limit = PARTS[name].limit_seconds * (TINY_PATIENCE if options.tiny else 1)
    folder, began = Path(tempfile.mkdtemp(prefix="cardigan-gpu-")), time.monotonic()
    try:
        (folder / "work").mkdir()
        with (folder / "output").open("wb") as output:
            ended = waited(started(name, options, folder, output), limit)
        return outcome(folder, ended, limit) | {"seconds": round(time.monotonic() - began, 2)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def started(name: str, options: argparse.Namespace, folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a part, as the leader of a group of processes; a tiny one gains nothing from a second thread."""
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


def waited(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Return the exit code of a process, None if the time ran out; nothing that it started is left behind."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; the second signal cannot be ignored."""
    for number, seconds in ((signal.SIGTERM, KILLED_AFTER), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def outcome(folder: Path, ended: int | None, limit: int) -> dict[str, Any]:
    """Return a part's result file; a part that did not finish says how it ended."""
    file = folder / "result.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"status": "unfinished", "failures": []}
    if ended != 0 or found["status"] == "unfinished":
        found["status"] = "timed out" if ended is None else "failed"
        how = f"not finished within its {limit} s" if ended is None else f"its process ended with exit code {ended}"
        found["failures"] = [*found["failures"], how]
    if is_failure(found):
        found["output"] = (folder / "output").read_text(errors="replace")[-TAIL:]
    return found


def is_failure(part: dict[str, Any]) -> bool:
    return part["status"] in {"failed", "timed out"}


def line(name: str, part: dict[str, Any]) -> str:
    """Return one line about a part: its status, its seconds, and the first thing that went wrong or was skipped."""
    said = [text.strip().splitlines()[-1] for text in part.get("failures", [])[:1]]
    said += [f"{len(part['skipped'])} skipped" for _ in range(bool(part.get("skipped")))]
    return " ".join([f"{name:14}{part['status']:10}{part['seconds']:7.1f} s", *(f" {text}" for text in said)]).rstrip()


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
