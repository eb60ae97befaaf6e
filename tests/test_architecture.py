"""The ladder: a module imports only from lower rungs. DESIGN's first decision."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "cardigan"
RUNGS = [
    {"shapes", "errors"},
    {"values", "hardware"},
    {"rng", "pixels", "config", "lists"},
    {"latents", "drawing", "data", "nets", "objective", "metrics", "figures"},
    {"foreign"},
    {"run"},
    {"training"},
    {
        "metrics.cache",
        "metrics.measures",
        "metrics.evaluate",
        "metrics.real",
        "metrics.likeness",
        "data.prepared",
        "data.pictures",
    },
    {"choosing"},
    {"recipes", "assemble", "review", "checkup", "explore", "exports", "given", "watching"},
    {"previews"},
    {"model"},
    {"api", "estimator"},
    {"web"},
    {"studio", "serve"},
    {"cli", "__main__", "__init__"},
]
RUNG_OF = {name: height for height, names in enumerate(RUNGS) for name in names}
FORBIDDEN = {
    ("objective", "nets"),
    ("nets", "objective"),
    ("training", "metrics"),
    ("training", "figures"),
    ("data", "nets"),
    ("studio", "training"),
    ("studio", "assemble"),
}
MODULES = sorted(SOURCE.rglob("*.py"))


def rung_name(module: str) -> str:
    """Return the place of `cardigan.a.b` on the ladder: `a.b` where that stands on a rung of its own, else `a`."""
    parts = module.split(".")[1:]
    return next((name for name in (".".join(parts[:2]), ".".join(parts[:1])) if name in RUNG_OF), "__init__")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"cardigan.{alias.name}" for alias in node.names} if node.module == "cardigan" else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_from_lower_rungs(path):
    here = rung_name(".".join(("cardigan", *path.relative_to(SOURCE).with_suffix("").parts)))
    for name in imported_modules(path):
        if name.startswith("cardigan"):
            there = rung_name(name)
            assert RUNG_OF[there] <= RUNG_OF[here], f"{here} imports {name}"
            assert (here, there) not in FORBIDDEN, f"{here} imports {name}"


def test_only_cli_prints_and_nothing_unpickles():
    for path in MODULES:
        text = path.read_text()
        assert "import pickle" not in text and "torch.load(" not in text, path
        if path.parent.name != "cli":
            calls = [
                node
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            ]
            assert not calls, path
