"""Recipes and their promises."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardigan.recipes import NOT_MEASURED, RECIPES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_docstring_names_its_command(name):
    recipe = RECIPES[name]
    assert (recipe.expected_time == NOT_MEASURED) == (recipe.expected_score == NOT_MEASURED)
    text = inspect.getdoc(recipe.config) or ""
    if recipe.expected_score == NOT_MEASURED:
        assert NOT_MEASURED in text.lower()
        return
    promise = text[text.index("Promise:") :]
    programs = re.findall(r"python (benchmarks/\w+\.py)", promise)
    pages = re.findall(r"docs/\w+\.md", promise)
    assert programs or pages
    assert all((ROOT / path).is_file() for path in [*programs, *pages])


@pytest.mark.parametrize("recipe", ["stacked-mnist", "images", "images-dcgan"])
def test_non_digit_recipes_are_not_scored_as_digits(recipe, tmp_path):
    words = [
        sys.executable,
        str(ROOT / "benchmarks" / "recipe_scores.py"),
        "--recipe",
        recipe,
        "--images",
        "64",
        "--out",
        str(tmp_path / "runs"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not evaluated with fd_digits" in done.stderr
    assert not (tmp_path / "runs").exists()
