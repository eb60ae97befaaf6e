"""The page of the recipes: what each is for, what it sets, and what was measured, from benchmarks/results/.

Imports the recipes, but no torch.
"""

import inspect
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.config import Config
from cardigan.overrides import flatten
from cardigan.recipes import RECIPES, Recipe

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PAGE = re.compile(r"docs/([\w/-]+\.md)")
DATE = re.compile(r"-\d{4}-\d\d-\d\d")
START = re.compile(r"^Return (the config for )?")
NOT_SETTINGS = {"recipe"}
VALUES = {
    "nn_error": "1-NN test error",
    "mode_kl": "`mode_kl`",
    "fd_digits": "`fd_digits`",
    "fd_efficientnet_lite2": "`fd_efficientnet_lite2`",
    "distance": "`fd_digits`",
    "last": "score of the last checkpoint",
    "score": "score",
}
"""The values of a row of results that the table shows, with their names."""


@dataclass(frozen=True)
class Measurement:
    """What several seeds reached under one condition, from one file of results."""

    file: str
    metric: str
    images: tuple[int, ...]
    samples: int | None
    minutes: float | None
    values: tuple[float, ...]
    seeds: int


def recipes_markdown() -> str:
    """Return a table of all recipes, and one section for each."""
    lines = ["| recipe | what for | time | score |", "|---|---|---|---|"]
    for name, recipe in RECIPES.items():
        purpose = PAGE.sub(r"[\1](\1)", recipe.purpose)
        lines.append(f"| [{name}](#{name}) | {purpose} | {recipe.expected_time} | {recipe.expected_score} |")
    found = measurements()
    for name, recipe in RECIPES.items():
        lines += ["", *recipe_lines(name, recipe, found.get(name, []))]
    return "\n".join(lines) + "\n"


def recipe_lines(name: str, recipe: Recipe, measured: Sequence[Measurement]) -> list[str]:
    """Return the section of a recipe: its docstring, its settings, its results."""
    lines = [f"## {name}", "", "```", recipe.command, "```", "", description(recipe), ""]
    lines += ["**Settings** that differ from the defaults:", ""]
    lines += ["| setting | value | default |", "|---|---|---|", *settings_rows(recipe.config()), ""]
    if not measured:
        return [*lines, "**Measured**: nothing in `benchmarks/results/` yet."]
    lines += ["**Measured**, median and range over seeds:", ""]
    lines += ["| images | minutes | metric | value | seeds | samples | file |", "|---|---|---|---|---|---|---|"]
    return [*lines, *map(measurement_row, measured)]


def description(recipe: Recipe) -> str:
    """Return a recipe's docstring as the text of a page: it says what the recipe is, not what a function returns."""
    text = START.sub("", inspect.cleandoc(recipe.config.__doc__ or ""))
    return PAGE.sub(r"[docs/\1](\1)", text[:1].upper() + text[1:])


def settings_rows(config: Config) -> list[str]:
    defaults = flatten(Config())
    return [
        f"| `{name}` | `{value!r}` | `{defaults[name]!r}` |"
        for name, value in flatten(config).items()
        if name not in NOT_SETTINGS and value != defaults[name]
    ]


def measurement_row(found: Measurement) -> str:
    images = span(found.images, "{:,.0f}")
    middle = statistics.median(found.values)
    value = f"{100 * middle:.3g} %" if found.metric == VALUES["nn_error"] else f"{middle:.3g}"
    if len(found.values) > 1:
        scale, unit = (100, " %") if found.metric == VALUES["nn_error"] else (1, "")
        value += f" ({scale * min(found.values):.3g}-{scale * max(found.values):.3g}{unit})"
    minutes = "" if found.minutes is None else f"{found.minutes:g}"
    samples = "" if found.samples is None else f"{found.samples:,}"
    return f"| {images} | {minutes} | {found.metric} | {value} | {found.seeds} | {samples} | `{found.file}` |"


def span(values: Sequence[int], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low}-{high}"


def measurements() -> dict[str, list[Measurement]]:
    """Return what the files of results say of each recipe.

    Rows of one condition are taken together. Of files that differ only in their date, the newest counts: it was
    measured with the recipe as it is now, or nearest to it.
    """
    newest: dict[tuple[str, str], list[Measurement]] = {}
    for path in sorted(RESULTS.iterdir(), key=lambda path: path.stem[-10:]):
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in result_rows(path):
            for metric in (key for key in VALUES if isinstance(row.get(key), int | float | list)):
                condition = (row.get("samples"), row.get("minutes"), rounded(row["images"]))
                groups[row["recipe"], metric, *condition].append(row)
        found: dict[str, list[Measurement]] = defaultdict(list)
        for (recipe, metric, samples, minutes, _), rows in groups.items():
            found[recipe].append(measurement(path.name, metric, samples, minutes, rows))
        newest.update({(recipe, DATE.sub("", path.stem)): measured for recipe, measured in found.items()})
    return {name: [each for (recipe, _), all_ in newest.items() if recipe == name for each in all_] for name in RECIPES}


def measurement(
    file: str, metric: str, samples: int | None, minutes: float | None, rows: list[dict[str, Any]]
) -> Measurement:
    values = tuple(float(row[metric][0] if isinstance(row[metric], list) else row[metric]) for row in rows)
    images, seeds = tuple(int(row["images"]) for row in rows), len({row.get("seed") for row in rows})
    return Measurement(file, VALUES[metric], images, samples, minutes, values, seeds)


def rounded(images: int) -> int:
    """Return the order of a number of images: runs of equal length differ by a few steps, runs by time by a third."""
    return round(images, -5) if images >= 1_000_000 else 0


def result_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of results that name their images and, in the row or in the file's name, their recipe.

    Rows of another recipe than the file's, and rows with a truncation, are trials with changed settings.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        content = json.loads(text)
        rows, marker = content if isinstance(content, list) else [], "-{}-"
    else:
        rows, marker = [json.loads(line) for line in text.splitlines() if line.startswith("{")], "scores-{}-"
    by_length = sorted(RECIPES, key=len, reverse=True)
    named = next((name for name in by_length if marker.format(name) in f"-{path.name}"), None)
    for row in rows:
        recipe = row.get("recipe", named) if isinstance(row.get("images"), int) else None
        if recipe in RECIPES and named in (None, recipe) and row.get("truncation", 1.0) == 1.0:
            yield {**row, "recipe": recipe}
