"""The command `cardigan`: dispatches to the subcommands and turns a CardiganError into one line and exit code 2.

Holds the names and purposes of the commands; the file of each command defines its options.
"""

import io
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from cardigan.errors import CardiganError, CollectiveError, escape_control_characters, first_line, unknown
from cardigan.hardware.out_of_memory import check_address_space, is_out_of_memory
from cardigan.plugins import load_plugins


def _train(argv: list[str]) -> int:
    from cardigan.cli import train

    return train.main(argv, STARTED_AT)


def _check(argv: list[str]) -> int:
    from cardigan.cli import check

    return check.main(argv)


def _sample(argv: list[str]) -> int:
    from cardigan.cli import sample

    return sample.main(argv)


def _evaluate(argv: list[str]) -> int:
    from cardigan.cli import evaluate

    return evaluate.main(argv)


def _compare(argv: list[str]) -> int:
    from cardigan.cli import compare

    return compare.main(argv)


def _report(argv: list[str]) -> int:
    from cardigan.cli import report

    return report.main(argv)


def _diagnose(argv: list[str]) -> int:
    from cardigan.cli import diagnose

    return diagnose.main(argv)


def _doctor(argv: list[str]) -> int:
    from cardigan.cli import doctor

    return doctor.main(argv)


def _info(argv: list[str]) -> int:
    from cardigan.cli import info

    return info.main(argv)


def _recipes(argv: list[str]) -> int:
    from cardigan.cli import recipes

    return recipes.main(argv)


def _starters(argv: list[str]) -> int:
    from cardigan.cli import starters

    return starters.main(argv)


def _bench(argv: list[str]) -> int:
    from cardigan.cli import bench

    return bench.main(argv)


def _track(argv: list[str]) -> int:
    from cardigan.cli import track

    return track.main(argv)


def _walk(argv: list[str]) -> int:
    from cardigan.cli import walk

    return walk.main(argv)


def _mix(argv: list[str]) -> int:
    from cardigan.cli import mix

    return mix.main(argv)


def _invert(argv: list[str]) -> int:
    from cardigan.cli import invert

    return invert.main(argv)


def _probe(argv: list[str]) -> int:
    from cardigan.cli import probe

    return probe.main(argv)


def _push(argv: list[str]) -> int:
    from cardigan.cli import push

    return push.main(argv)


def _export(argv: list[str]) -> int:
    from cardigan.cli import export

    return export.main(argv)


def _studio(argv: list[str]) -> int:
    from cardigan.cli import studio

    return studio.main(argv)


def _serve(argv: list[str]) -> int:
    from cardigan.cli import serve

    return serve.main(argv)


def _verify(argv: list[str]) -> int:
    from cardigan.cli import verify

    return verify.main(argv)


def _completion(argv: list[str]) -> int:
    from cardigan.cli import completion

    return completion.main(argv, {name: purpose for name, (_, purpose) in COMMANDS.items()})


STARTED_AT = time.monotonic()
"""When the process started. A budget of minutes counts from here."""

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a GAN on a source of images"),
    "check": (_check, "inspect a source of images: contents, problems, recommendations"),
    "sample": (_sample, "generate images with a trained generator"),
    "evaluate": (_evaluate, "compute metrics of a generator, with errors and the protocol"),
    "compare": (_compare, "compare several models under one protocol"),
    "report": (_report, "write a run as one HTML page: samples, curves, metrics, settings"),
    "diagnose": (_diagnose, "find out what went wrong in a run, and where to stop it"),
    "track": (_track, "send a run to TensorBoard, Weights & Biases, MLflow or Trackio"),
    "walk": (_walk, "animate an interpolation between images"),
    "mix": (_mix, "latent arithmetic, interpolation and ablation"),
    "invert": (_invert, "find the latent of a given image"),
    "probe": (_probe, "inspect images with a run's discriminator"),
    "push": (_push, "upload a model to the Hugging Face hub"),
    "export": (_export, "export a generator as safetensors, onnx, pt2, html or samples, with a card"),
    "studio": (_studio, "view runs in the browser, during or after training; explore the model"),
    "serve": (_serve, "serve a model's images over HTTP to many clients"),
    "bench": (_bench, "measure how long training takes until a fixed score"),
    "doctor": (_doctor, "find out why the nodes of a run cannot reach each other"),
    "verify": (_verify, "say whether an image file is marked as generated, and by which model"),
    "info": (_info, "describe a run or a model"),
    "recipes": (_recipes, "list the recipes, with expected times and scores"),
    "completion": (_completion, "print a script that completes commands and options in a shell"),
    "starters": (_starters, "list the starters: small trained models to start from"),
}


def main() -> None:
    """Run this process's command line and exit.

    Exit codes: 0 success, 1 untrainable source (`check`), failed check (`doctor`, `bench --check`) or no mark
    (`verify`),
    2 user mistake, 130 or 143 stopped by Ctrl-C or SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that the terminal's encoding cannot show
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        return _run_command(argv)
    except CardiganError as error:
        rank = os.environ.get("RANK", "0")
        if rank == "0" or not isinstance(error, CollectiveError):
            print(
                f"cardigan{'' if rank == '0' else f' (process {rank})'}: {escape_control_characters(str(error))}",
                file=sys.stderr,
            )
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader closed the pipe (`cardigan info RUN | head`)
        return 0
    except (RuntimeError, MemoryError, ImportError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"cardigan: The memory of this process is used up ({first_line(error)}): close other programs, raise its "
            "limit (ulimit -v), or use smaller networks, images or batches.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("cardigan: stopped.", file=sys.stderr)
        return 130


def _run_command(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if argv[0] == "--version":
        print(version("cardigan"))
        return 0
    if argv[0] not in COMMANDS:
        raise unknown("command", argv[0], COMMANDS)
    check_address_space()
    load_plugins()
    return COMMANDS[argv[0]][0](argv[1:])


def _help() -> str:
    lines = [f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cardigan COMMAND ...",
            "",
            "Trains, evaluates and exports image GANs.",
            "",
            *lines,
            "",
            "Start with:        cardigan train mnist --minutes 2",
            "Options:           cardigan COMMAND --help",
            "Version:           cardigan --version",
        ]
    )
