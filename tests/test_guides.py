"""The guides use public names only, and the code of the guides on evaluation and exploration runs as written."""

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import cardigan
from tiny_runs import small_run, small_snapshot

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
TUTORIAL = ROOT / "docs" / "tutorial"
PAGES = [
    ROOT / "README.md",
    ROOT / "tests" / "plugin_package" / "cardigan_example" / "__init__.py",
    *sorted(GUIDES.glob("*.md")),
    *sorted(TUTORIAL.glob("*.md")),
    *sorted(TUTORIAL.glob("*.py")),
]
ROOMS = (
    "backbones",
    "data",
    "explore",
    "exports",
    "figures",
    "latents",
    "metrics",
    "models",
    "nets",
    "objective",
    "trackers",
    "training",
)
"""The packages with public names. Those of the other packages are in `cardigan` itself."""


def python_blocks(page: Path) -> list[str]:
    """Return the Python code of a page: the blocks of a Markdown file, or a whole script."""
    if page.suffix == ".py":
        return [page.read_text()]
    return [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)]


def imported_names(code: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for each import of this package; the name is "" for `import module`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def is_public(module: str, name: str) -> bool:
    if module == "cardigan":
        return not name or name in cardigan.__all__
    room = module.removeprefix("cardigan.")
    return room in ROOMS and (not name or name in importlib.import_module(module).__all__)


def private_names(page: Path) -> set[str]:
    """Return what a page imports or mentions of this package that is not public."""
    imported = {
        (module, name)
        for code in python_blocks(page)
        for module, name in imported_names(code)
        if module.split(".")[0] == "cardigan"
    }
    mentioned = set(re.findall(r"\b(cardigan\.[a-z_]+)\.(\w+)", page.read_text()))
    return {f"{module} {name}" for module, name in imported | mentioned if not is_public(module, name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_uses_public_names_only(page):
    assert not private_names(page)


def test_private_names_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`cardigan.data.batches`\n```python\nfrom cardigan.nets.table import NETS\n"
        "from cardigan.nets import NETS, dcgan\nfrom cardigan import train, api\n"
        "import cardigan.objective.losses\n```\n"
    )
    assert private_names(page) == {
        "cardigan.data batches",
        "cardigan.nets table",
        "cardigan.nets.table NETS",
        "cardigan.nets dcgan",
        "cardigan api",
        "cardigan.objective losses",
        "cardigan.objective.losses ",
    }


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_exist(room):
    module = importlib.import_module(f"cardigan.{room}")
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_rooms_do_not_import_torch():
    code = f"import sys{''.join(f', cardigan.{room}' for room in ROOMS)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("guide", "num_blocks"), [("evaluation.md", 2), ("explore.md", 1)])
def test_guide_runs(guide, num_blocks, tmp_path):
    """The run of the guides is a small conditional one. Code that needs a downloaded file is left out."""
    small_run(tmp_path / "runs" / "first", small_snapshot(classes=10))
    blocks = python_blocks(GUIDES / guide)
    assert len(blocks) == num_blocks
    program = "\n".join(block for block in blocks if "inception" not in block)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
