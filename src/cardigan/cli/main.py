"""The command `cardigan`: dispatch on the first word, one place where a user's mistake becomes one sentence and exit code 2.

Knows the commands by name and purpose; each command's file knows its options.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from cardigan.errors import CardiganError, CollectiveError, unknown


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


def _info(argv: list[str]) -> int:
    from cardigan.cli import info

    return info.main(argv)


def _recipes(argv: list[str]) -> int:
    from cardigan.cli import recipes

    return recipes.main(argv)


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


STARTED_AT = time.monotonic()
"""When the command began: a budget of minutes counts from here."""

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a GAN on a source of pictures"),
    "check": (_check, "your pictures: what is there, what is wrong, how to train on them"),
    "sample": (_sample, "draw pictures from a trained generator"),
    "evaluate": (_evaluate, "how good a generator is, with errors and the protocol"),
    "compare": (_compare, "several models judged by one protocol"),
    "report": (_report, "a run as one page: samples, curves, metrics, settings"),
    "diagnose": (_diagnose, "what went wrong in a run, and where to stop it"),
    "walk": (_walk, "a film of the way from one picture to another"),
    "mix": (_mix, "sums, differences and in-betweens of pictures"),
    "invert": (_invert, "the latent that draws a given picture"),
    "probe": (_probe, "what a run's discriminator makes of pictures"),
    "push": (_push, "a model to the Hugging Face hub"),
    "export": (_export, "a generator as safetensors, onnx, pt2, a page or samples, each with a card"),
    "studio": (_studio, "runs in the browser, live or afterwards; explore what was learned"),
    "serve": (_serve, "a model's pictures over HTTP, for many who ask at once"),
    "info": (_info, "what a run or a model is, and how it went"),
    "recipes": (_recipes, "the named experiments, with what to expect of them"),
}


def main() -> None:
    """Run the command line of this process and exit: 0 done, 2 a user's mistake, 130 or 143 stopped by Ctrl-C or SIGTERM."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        if not argv or argv[0] in {"-h", "--help", "help"}:
            print(_help())
            return 0
        if argv[0] == "--version":
            print(version("cardigan"))
            return 0
        if argv[0] not in COMMANDS:
            raise unknown("command", argv[0], COMMANDS)
        return COMMANDS[argv[0]][0](argv[1:])
    except CardiganError as error:
        rank = os.environ.get("RANK", "0")
        if rank == "0" or not isinstance(error, CollectiveError):
            print(f"cardigan{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cardigan: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away (`cardigan info RUN | head`): nothing to tell anybody
        return 0


def _help() -> str:
    lines = [f"  {name:<9} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cardigan COMMAND ...",
            "",
            "Trains, judges and ships image GANs.",
            "",
            *lines,
            "",
            "Start with:        cardigan train mnist --minutes 2",
            "Options of each:   cardigan COMMAND --help",
            "Version:           cardigan --version",
        ]
    )
