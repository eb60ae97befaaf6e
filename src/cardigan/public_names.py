"""Public names of a package that are imported on first use, so that `cardigan --help` does not import torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_first_use(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`. `modules` gives the module of each public name."""

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get_attribute, lambda: sorted(modules)
