"""`cardigan recipes`: list the recipes, with expected times and scores."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class RecipesOptions:
    """List the recipes: purpose, command, expected time and score."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def main(argv: list[str]) -> int:
    options = parse(RecipesOptions, argv, "cardigan recipes")
    rows = [
        {
            "name": name,
            "purpose": recipe.purpose,
            "command": recipe.command,
            "expected_time": recipe.expected_time,
            "expected_score": recipe.expected_score,
        }
        for name, recipe in RECIPES.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(row["name"])
        for label, key in (
            ("for", "purpose"),
            ("command", "command"),
            ("time", "expected_time"),
            ("score", "expected_score"),
        ):
            print(f"  {label:<8} {row[key]}")
    return 0
