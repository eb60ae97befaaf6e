"""The reference: every public name and parameter is documented, has a place on a page, and an example that runs."""

import doctest
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cardigan
import cardigan.report.build

griffe = pytest.importorskip("griffe", reason="griffe is not installed: pip install 'cardigan[docs]'")

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGE = griffe.load("cardigan", search_paths=[ROOT / "src"])
TINY = {"generator.width": 4, "discriminator.width": 4}
CONTEXT = ("self", "cls")


def public_object(name: str) -> Any:
    found = PACKAGE[name]
    return found.final_target if found.is_alias else found


def undocumented(name: str, found: Any, around: str = "") -> Iterator[str]:
    """Yield what has no documentation: the object, its parameters, its public members and theirs.

    A parameter or a field is documented by a sentence that names it in backticks, or by a docstring of its own.
    """
    text = found.docstring.value if found.docstring else ""
    if not text and f"`{found.name}`" not in around:
        yield name
    if found.is_function:
        for parameter in found.parameters:
            word = parameter.name.lstrip("*")
            if word not in CONTEXT and f"`{word}`" not in text + around:
                yield f"{name}({word})"
    for member in found.members.values() if found.is_class else ():
        if not member.is_alias and (not member.name.startswith("_") or member.name == "__call__"):
            yield from undocumented(f"{name}.{member.name}", member, text)


@pytest.mark.parametrize("name", cardigan.__all__)
def test_public_name_and_its_parameters_are_documented(name):
    assert list(undocumented(name, public_object(name))) == []


def test_undocumented_parameter_is_found():
    module = griffe.visit("module", Path("module.py"), 'def f(given, missing):\n    """Return `given`."""\n')
    assert list(undocumented("f", module["f"])) == ["f(missing)"]


def test_every_public_name_has_one_place_in_the_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md")))
    assert sorted(re.findall(r"^::: cardigan\.(\w+)$", pages, re.MULTILINE)) == sorted(cardigan.__all__)
    overview = (REFERENCE / "index.md").read_text(encoding="utf-8")
    assert [name for name in cardigan.__all__ if f"`{name}`" not in overview] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with two short runs and a folder of images, which the examples begin from."""
    folder = tmp_path_factory.mktemp("examples")
    run = cardigan.train(
        "mnist", images=64, size=16, batch_size=16, verbose=False, out=folder / "runs" / "first", overrides=TINY
    )
    shutil.copytree(run.path, folder / "runs" / "second")
    (folder / "photos").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number % 11).integers(0, 256, (20, 20, 3), np.uint8)  # the last is the first
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("name", cardigan.__all__)
def test_example_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cardigan.report.build, "FULL_SAMPLES", 100)  # a report takes minutes otherwise
    found = public_object(name)
    example = doctest.DocTestParser().get_doctest(found.docstring.value, {}, name, str(found.filepath), found.lineno)
    assert example.examples, f"cardigan.{name} has no example"
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=failures.append)
    assert not failures, "".join(failures)
