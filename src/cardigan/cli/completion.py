"""`cardigan completion SHELL`: a script that completes commands, options and files in a shell."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import tyro

from cardigan.cli.parsing import option_flags, parse

BASH = """\
_cardigan() {
    local word=${COMP_WORDS[COMP_CWORD]} options
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "%(commands)s --help --version" -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
%(cases)s
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -o filenames -F _cardigan cardigan
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script that completes commands, options and files. For bash, add this line to ~/.bashrc:
    source <(cardigan completion bash)"""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell."""


def main(argv: list[str], commands: dict[str, str]) -> int:
    """Print the script for these commands, which have a purpose each; return the exit code."""
    options = parse(CompletionOptions, argv, "cardigan completion")
    flags = {command: _flags(command) for command in commands}
    if options.shell == "fish":
        print("\n".join(_fish_lines(commands, flags)))
        return 0
    cases = "\n".join(f'        {command}) options="{" ".join(names)}" ;;' for command, names in flags.items())
    script = BASH % {"commands": " ".join(commands), "cases": cases}
    print(f"{ZSH if options.shell == 'zsh' else ''}{script}", end="")
    return 0


def _flags(command: str) -> list[str]:
    """Return the options of a command. By convention `cli/NAME.py` declares them in `NameOptions`."""
    module = import_module(f"cardigan.cli.{command}")
    options_class = getattr(module, f"{command.capitalize()}Options")
    arguments = module.help_arguments() if command == "train" else {}
    extra = ["--help-all"] if command == "train" else []
    return [*option_flags(options_class, command, arguments), *extra]


def _fish_lines(commands: dict[str, str], flags: dict[str, list[str]]) -> list[str]:
    lines = [
        f"complete -c cardigan -n __fish_use_subcommand -f -a {command} -d '{purpose}'"
        for command, purpose in commands.items()
    ]
    return lines + [
        f"complete -c cardigan -n '__fish_seen_subcommand_from {command}' -l {flag[2:]}"
        for command, names in flags.items()
        for flag in names
        if flag.startswith("--")
    ]
