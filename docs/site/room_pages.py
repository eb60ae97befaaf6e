"""The pages about the rooms of the package: the ladder, and the files and imports of each room.

Reads the source and the order in tests/test_architecture.py; imports nothing of the package.
"""

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "cardigan"
ARCHITECTURE = ROOT / "tests" / "test_architecture.py"
FRAME = ("__init__", "__main__")
"""The package itself: the top of the ladder."""


def room_parts() -> dict[str, str]:
    """Return the generated part of each page below docs/inside."""
    pages = {f"inside/{name}.md": room_markdown(name) for name in room_names()}
    return {"inside/index.md": ladder_markdown(), "inside/modules.md": modules_markdown(), **pages}


def constant(name: str) -> object:
    """Return a literal that tests/test_architecture.py assigns to a name."""
    for node in ast.parse(ARCHITECTURE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise SystemExit(f"{ARCHITECTURE} assigns no {name}, which the page about the ladder is made from.")


def rungs() -> list[set[str]]:
    """Return the rooms and root modules of each rung, from the lowest to the highest."""
    found = constant("RUNGS")
    assert isinstance(found, list)
    return found


@cache
def room_names() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")))


def ladder_markdown() -> str:
    """Return the ladder as a table, highest rung first, and the imports that are forbidden besides."""
    rooms = set(room_names())
    lines = ["| rung | rooms and modules |", "|---|---|"]
    for height, names in sorted(enumerate(rungs(), start=1), reverse=True):
        links = [f"[{name}]({name}.md)" if name in rooms else module_label(name) for name in sorted(names)]
        lines.append(f"| {height} | {', '.join(links)} |")
    forbidden = constant("FORBIDDEN")
    assert isinstance(forbidden, set)
    lines += ["", "These imports are forbidden too, although some would go down the ladder:", ""]
    lines += [f"- `{here}` does not import `{there}`" for here, there in sorted(forbidden)]
    return "\n".join(lines) + "\n"


def module_label(name: str) -> str:
    return f"`{name}`" if name in FRAME else f"[`{name}`](modules.md#{name})"


def room_markdown(name: str) -> str:
    """Return the files of a room, what it imports and who imports it. Without a written page, with a heading."""
    page = ROOT / "docs" / "inside" / f"{name}.md"
    lines = [] if page.exists() else [f"# {name}", "", first_sentence(SOURCE / name / "__init__.py"), ""]
    lines += ["## Files", "", "| file | what it is for |", "|---|---|"]
    for path in sorted((SOURCE / name).rglob("*.py")):
        if path.name != "__init__.py" or path.parent != SOURCE / name:
            lines.append(f"| `{path.relative_to(SOURCE).as_posix()}` | {first_sentence(path)} |")
    below, above = imported_rooms(name), [other for other in all_units() if name in imported_rooms(other)]
    lines += ["", "## Imports", ""]
    lines += [f"Imports: {unit_links(below)}.", "", f"Imported by: {unit_links(above)}.", ""]
    names = public_names(name)
    if names:
        lines += ["## Public names", "", f"From `cardigan.{name}`: {', '.join(f'`{each}`' for each in names)}.", ""]
    return "\n".join(lines)


def modules_markdown() -> str:
    """Return one section for each module that stands beside the rooms."""
    lines: list[str] = []
    for path in sorted(SOURCE.glob("*.py")):
        if path.stem not in FRAME:
            below = imported_rooms(path.stem)
            lines += [f"## {path.stem}", "", first_sentence(path), "", f"Imports: {unit_links(below)}.", ""]
    return "\n".join(lines)


@cache
def all_units() -> tuple[str, ...]:
    """Return all rooms and root modules."""
    return (*room_names(), *(path.stem for path in sorted(SOURCE.glob("*.py")) if path.stem not in FRAME))


def unit_links(names: Sequence[str]) -> str:
    rooms = set(room_names())
    return ", ".join(f"[{name}]({name}.md)" if name in rooms else module_label(name) for name in names) or "nothing"


@cache
def imported_rooms(name: str) -> tuple[str, ...]:
    """Return the rooms and root modules that a room or root module imports, without itself."""
    paths = sorted((SOURCE / name).rglob("*.py")) if (SOURCE / name).is_dir() else [SOURCE / f"{name}.py"]
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "cardigan":
                found |= {alias.name for alias in node.names if alias.name in all_units()}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cardigan."):
                found.add(str(node.module).split(".")[1])
    return tuple(sorted(found - {name}))


def first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, fit for a cell of a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.:;])\s(?=[A-Z])", paragraph, maxsplit=1)[0].replace("|", "\\|")


def public_names(room: str) -> list[str]:
    """Return the names in `__all__` of a room."""
    for node in ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []
