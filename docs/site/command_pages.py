"""The reference of the command line: what `cardigan COMMAND --help` prints, for every command.

The commands print their help in a process of their own, as wide as a code block of the site.
"""

import os
import subprocess
import sys

from cardigan.cli.main import COMMANDS

WIDTH = 88
"""Columns of a code block on a page."""


def commands_markdown() -> str:
    """Return one section per command: its purpose and its help."""
    return "\n".join(line for name, (_, purpose) in COMMANDS.items() for line in command_lines(name, purpose))


def command_lines(name: str, purpose: str) -> list[str]:
    helps = [("--help", help_text(name, "--help"))]
    if "--help-all" in helps[0][1]:
        helps.append(("--help-all", help_text(name, "--help-all")))
    lines = [f"## {name}", "", f"{purpose[0].upper()}{purpose[1:]}.", ""]
    for option, text in helps:
        lines += [f"`cardigan {name} {option}`", "", "```text", *text.splitlines(), "```", ""]
    return lines


def help_text(name: str, option: str) -> str:
    """Return what a command prints for an option that asks for help."""
    words = [sys.executable, "-m", "cardigan", name, option]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    printed = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())
