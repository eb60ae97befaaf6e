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


PLAIN_ERRORS = (
    (r"^(--\S+): no type matching \S*INT could be instantiated from \['(.*?)'\].*", r"\1 is '\2': expected an integer"),
    (r"^(--\S+): no type matching \S*FLOAT could be instantiated from \['(.*?)'\].*", r"\1 is '\2': expected a number"),
    (r"^(--\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 is \2: expected an integer"),
    (r"^(--\S+): could not convert string to float: (.*)", r"\1 is \2: expected a number"),
    (r"^invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)", r"\2 is \1: expected one of \3"),
    (r"^Missing argument Missing value for argument '(.*)'\. Expected .*", r"\1 needs a value"),
)
"""tyro's errors, and how they are said here."""


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
        flags = option_flags(options_class, prog, tyro_arguments)
        unknown_flags = (flag for argument in argv if (flag := _flag_name(argument)) and flag not in flags)
        _reject_unknown_flag(next(unknown_flags, None), flags)  # it may have taken the value of an argument
        raise CardiganError(f"{_error_sentence(stderr.getvalue())} (see {prog} --help)") from exit_error
    unknown_flag = next((argument for argument in unknown_arguments if argument.startswith("-")), None)
    if unknown_flag is not None:
        _reject_unknown_flag(unknown_flag.split("=")[0], option_flags(options_class, prog, tyro_arguments))
    if unknown_arguments:
        raise CardiganError(f"{prog} takes no argument {unknown_arguments[0]!r}: see {prog} --help.")
    return options


def _flag_name(argument: str) -> str:
    """Return the name of a long option as the help writes it, or nothing for other arguments."""
    return argument.split("=", maxsplit=1)[0].replace("_", "-") if argument.startswith("--") else ""


def _reject_unknown_flag(flag: str | None, flags: list[str]) -> None:
    """Raise CardiganError for an unknown option, with what to use instead. Does nothing for None."""
    if flag is None:
        return
    if found := advice(flag, flags):
        raise CardiganError(f"Unknown option {flag!r}: {found}.")
    raise unknown("option", flag, flags)


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
    return sorted(set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*", text.getvalue())))


def _error_sentence(message: str) -> str:
    """Return tyro's error message without frame, colors and the hint to the help."""
    without_colors = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [re.sub(r"-{4,}", "", line).strip(" │╭╮╰╯─━┃|+") for line in without_colors.splitlines()]
    sentence = " ".join(line for line in lines if line and not line.startswith(("For full helptext", "Parsing error")))
    sentence = re.sub(r"^(Value error|Invalid choice|Parsing error|Required options?) ?(Error parsing )?", "", sentence)
    sentence = re.sub(r" Argument helptext:.*", "", sentence)
    for pattern, replacement in PLAIN_ERRORS:
        sentence = re.sub(pattern, replacement, sentence)
    missing = re.match(r"Missing from (cardigan \w+): (\S+) (.*?)\.? \(required\)", sentence)
    if missing:
        return f"{missing[1]} needs an argument: {missing[3][0].lower()}{missing[3][1:]}"
    return re.sub(r"\s+", " ", sentence).rstrip(".") or "These options are invalid"
