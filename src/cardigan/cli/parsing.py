"""Options from words: tyro parses, this file turns its complaints into one sentence.

Does not know any command.
"""

import ast
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import tyro

from cardigan.errors import CardiganError, unknown

Options = TypeVar("Options")


def parse(kind: type[Options], words: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """Return the options in `words` as an instance of the dataclass `kind`; raises CardiganError for words that make no sense.

    Prints the help and exits if it is asked for.
    """
    complaint = io.StringIO()
    settings: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint), sources_read_once():
            options, rest = tyro.cli(kind, prog=prog, args=list(words), return_unknown_args=True, **settings)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise CardiganError(f"{_sentence(complaint.getvalue())} (see {prog} --help)") from stop
    flag = next((word for word in rest if word.startswith("-")), None)
    if flag is not None:
        raise unknown("option", flag.split("=")[0], flags(kind, prog, settings))
    if rest:
        raise CardiganError(f"{prog} does not know what to do with {rest[0]!r}: see {prog} --help.")
    return options


@contextlib.contextmanager
def sources_read_once() -> Iterator[None]:
    """Inside the block, remember parsed source texts: for the help of a dataclass, Python 3.11 parses the whole file it is in, once a class."""
    usual, ast.parse = ast.parse, cache(ast.parse)
    try:
        yield
    finally:
        ast.parse = usual


def given(flag: str, words: Sequence[str]) -> str | None:
    """Return the value of an option in the words, written `--flag value` or `--flag=value`, before anything is parsed; None if it is not there."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def flags(kind: type, prog: str, settings: dict[str, Any]) -> list[str]:
    """Return every option of a command, as it is written in its help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(kind, prog=prog, args=["--help"], **settings)
    return sorted(set(re.findall(r"--[a-z0-9][a-z0-9.-]*", text.getvalue())))


def _sentence(box: str) -> str:
    """Return the words of tyro's framed complaint, without frame, colours, and the pointer to the help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │╭╮╰╯─━┃|") for line in plain.splitlines()]
    words = " ".join(line for line in lines if line and not line.startswith(("For full helptext", "Parsing error")))
    words = re.sub(r"^(Value error|Invalid choice|Parsing error|Required options?) ?(Error parsing )?", "", words)
    words = re.sub(r" Argument helptext:.*", "", words)
    return re.sub(r"\s+", " ", words).rstrip(".") or "These options make no sense"
