"""The ladder of rooms: a module imports only from lower rungs, and a behavior is defined in the file its name
suggests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "cardigan"
RUNGS = [
    {"errors", "public_names", "rng", "shapes"},
    {"backbones", "checks", "figures", "files", "hardware", "http", "pixels", "plugins"},
    {"config_parts"},
    {"config", "objective"},
    {"latents", "overrides", "recipes"},
    {"data", "run"},
    {"health", "nets"},
    {"models"},
    {"explore", "metrics", "training"},
    {"exports", "notebook", "report", "studio", "trackers"},
    {"inference", "serve"},
    {"bench"},
    {"experiment"},
    {"api"},
    {"cli", "sklearn"},
    {"__init__", "__main__"},
]
"""Each name is a package or a module at the root. A room may import from rungs below it and from itself."""
HEIGHT = {name: height for height, names in enumerate(RUNGS) for name in names}
FORBIDDEN = {
    ("objective", "nets"),
    ("nets", "objective"),
    ("training", "metrics"),
    ("training", "figures"),
    ("data", "nets"),
    ("studio", "training"),
    ("serve", "training"),
}
"""Imports that the ladder would allow, now or after a move, but that would tie two subjects together."""
BEHAVIORS = {
    "exponential moving average": ("training/ema.py", "update_ema"),
    "R1 penalty": ("objective/penalties.py", "zero_centered_penalty"),
    "learning-rate decay": ("training/schedule.py", "learning_rate"),
    "Adam": ("training/optimizers.py", "build_optimizer"),
    "JPEG decoding": ("data/decoding.py", "decode_image"),
    "resizing": ("data/resize.py", "to_training_shape"),
    "ONNX": ("exports/onnx.py", "onnx_writer"),
    "FID": ("metrics/frechet.py", "frechet_distance"),
    "all-reduce": ("training/distributed.py", "all_reduce_mean"),
    "CUDA graph": ("training/cuda_graph.py", "cuda_graph_step"),
    "ADA's probability": ("training/ada.py", "next_probability"),
    "slerp": ("latents/interpolation.py", "slerp"),
    "collapse thresholds": ("health/rules.py", "RULES"),
    "seed to z": ("latents/sampling.py", "sample_latents"),
    "inversion": ("explore/inversion.py", "invert"),
    "journal": ("run/journal.py", "read_events"),
    "resume": ("run/checkpoint.py", "load_latest_checkpoint"),
    "model card": ("exports/card.py", "model_card"),
    "HTTP limits": ("http/limits.py", "limit_body"),
    "palette": ("figures/palette.py", "SERIES_COLORS"),
}
"""What a practitioner looks for: the file whose name suggests it, and what that file defines for it."""


def module_name(path: Path) -> str:
    """Return the dotted name of a file below `src`, without `__init__`, but for that of the package itself."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield the modules of this package that a module imports, and the name taken from each, "" for the module itself.

    `from cardigan.room import module` imports a module, `from cardigan.room.module import name` a name.
    """
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner, ""
                elif node.module in MODULES:
                    yield node.module, alias.name
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in MODULES)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    here = room_of(module)
    for imported, name in imports(module):
        there = room_of(imported)
        assert here == there or HEIGHT[there] < HEIGHT[here], f"{module} imports {imported}"
        assert (here, there) not in FORBIDDEN, f"{module} imports {imported}"
        assert here == there or not name.startswith("_"), f"{module} imports the private name {name} of {imported}"


def test_import_of_a_module_by_name_is_seen():
    """`from cardigan.files import atomic` is an import of cardigan.files.atomic."""
    assert ("cardigan.files.atomic", "") in set(imports("cardigan.files.disk_cache"))


def test_no_import_cycles():
    below: dict[str, set[str]] = {module: {name for name, _ in imports(module)} - {module} for module in MODULES}
    while leaves := {module for module, needed in below.items() if not needed}:
        below = {module: needed - leaves for module, needed in below.items() if module not in leaves}
    assert not below


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_behavior_is_where_its_name_suggests(behavior):
    file, name = BEHAVIORS[behavior]
    assert name in defined_names(ast.parse((SOURCE / file).read_text(encoding="utf-8")))


def defined_names(tree: ast.Module) -> set[str]:
    """Return the classes, functions and constants that a module defines, and its classes' methods."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found |= {node.name} | {inner.name for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def test_name_of_stacked_mnist_is_written_once():
    found = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "stacked-mnist"
    ]
    assert found == ["cardigan.config"]


def test_only_the_command_line_prints_and_nothing_unpickles_objects():
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        assert "import pickle" not in text, path
        assert not unsafe_loads(tree), path
        if path.parent.name != "cli":
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert not [call for call in calls if getattr(call.func, "id", "") == "print"], path


def unsafe_loads(tree: ast.AST) -> list[str]:
    """Return the uses of `torch.load` that are not calls with `weights_only=True`."""
    safe_functions = {
        id(call.func)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and "weights_only=True" in map(ast.unparse, call.keywords)
    }
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load" and id(node) not in safe_functions)
        or (
            isinstance(node, ast.ImportFrom) and node.module == "torch" and "load" in [name.name for name in node.names]
        )
    ]


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=safe)",
        "torch.load(file, **options)",
        "map(torch.load, files)",
        "from torch import load",
    ],
)
def test_loads_that_may_unpickle_objects_are_seen(code):
    assert unsafe_loads(ast.parse(code))
    assert not unsafe_loads(ast.parse("torch.load(file, weights_only=True, map_location='cpu')"))
