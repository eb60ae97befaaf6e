"""Parses command-line options with tyro and turns its errors into one sentence.

Knows no particular command.
"""

import ast
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import tyro

from cardigan.cli.other_words import advice
from cardigan.errors import CardiganError, unknown

Options = TypeVar("Options")

NO_HELP_FROM_COMMENTS = (tyro.conf.HelptextFromCommentsOff,)
"""All help is in docstrings, so tyro need not look for comments, which takes time."""


def parse(options_class: type[Options], argv: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """Return the options in `argv` as an instance of the dataclass `options_class`.

    Prints the help and exits for --help. Raises CardiganError for invalid options.
    """
    stderr = io.StringIO()
    tyro_arguments: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(stderr), cached_source_parsing():
            options, unknown_arguments = tyro.cli(
                options_class,
                prog=prog,
                args=list(argv),
                return_unknown_args=True,
                config=NO_HELP_FROM_COMMENTS,
                **tyro_arguments,
            )
    except SystemExit as exit_error:
        if exit_error.code in (0, None):
            raise
        raise CardiganError(f"{_error_sentence(stderr.getvalue())} (see {prog} --help)") from exit_error
    unknown_flag = next((argument for argument in unknown_arguments if argument.startswith("-")), None)
    if unknown_flag is not None:
        flag, flags = unknown_flag.split("=")[0], option_flags(options_class, prog, tyro_arguments)
        if found := advice(flag, flags):
            raise CardiganError(f"Unknown option {flag!r}: {found}.")
        raise unknown("option", flag, flags)
    if unknown_arguments:
        raise CardiganError(f"{prog} takes no argument {unknown_arguments[0]!r}: see {prog} --help.")
    return options


@contextlib.contextmanager
def cached_source_parsing() -> Iterator[None]:
    """Cache `ast.parse` inside the block: for the help of each dataclass, Python 3.11 parses the whole source file."""
    original_parse, ast.parse = ast.parse, cache(ast.parse)
    try:
        yield
    finally:
        ast.parse = original_parse


def flag_value(flag: str, argv: Sequence[str]) -> str | None:
    """Return the value of an option in unparsed arguments, written `--flag value` or `--flag=value`, or None."""
    for argument, next_argument in zip(argv, [*argv[1:], ""], strict=False):
        if argument == flag:
            return next_argument
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def part_of(count: int, part: str | None) -> range:
    """Return which of `count` images a job makes: all, or those of `part`, such as 2/8. The parts cover all once."""
    if part is None:
        return range(count)
    number, _, num_parts = part.partition("/")
    if not (number.isdecimal() and num_parts.isdecimal() and 1 <= int(number) <= int(num_parts) <= count):
        raise CardiganError(f"--part is {part!r}: expected K/N, as in 2/8, with 1 <= K <= N <= {count:,} images.")
    return range(count * (int(number) - 1) // int(num_parts), count * int(number) // int(num_parts))


def option_flags(options_class: type, prog: str, tyro_arguments: dict[str, Any]) -> list[str]:
    """Return all option flags in the help of a command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(options_class, prog=prog, args=["--help"], config=NO_HELP_FROM_COMMENTS, **tyro_arguments)
    return sorted(set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9.-]*", text.getvalue())))


def _error_sentence(message: str) -> str:
    """Return tyro's error message without frame, colors and the hint to the help."""
    without_colors = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [line.strip(" │╭╮╰╯─━┃|") for line in without_colors.splitlines()]
    sentence = " ".join(line for line in lines if line and not line.startswith(("For full helptext", "Parsing error")))
    sentence = re.sub(r"^(Value error|Invalid choice|Parsing error|Required options?) ?(Error parsing )?", "", sentence)
    sentence = re.sub(r" Argument helptext:.*", "", sentence)
    return re.sub(r"\s+", " ", sentence).rstrip(".") or "These options are invalid"
