"""Plug-ins: installed packages that add lines to Cardigan's tables.

A package names a module in the entry-point group `cardigan.plugins`. Importing that module adds the lines. Cardigan
imports each module once, in the command line and when `cardigan.api` is imported, so that worker processes have it
too.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from cardigan.errors import CardiganError

GROUP = "cardigan.plugins"


@cache
def load_plugins() -> dict[str, str]:
    """Import every installed plug-in and return the packages by name, each with its version.

    Raises CardiganError if one cannot be imported: a run must not start without a component that its settings name.
    """
    packages: dict[str, str] = {}
    for entry_point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        package = entry_point.dist
        name, version = (entry_point.name, "") if package is None else (package.name, package.version)
        try:
            entry_point.load()
        except Exception as error:
            raise CardiganError(
                f"The plug-in {name} {version} cannot be imported ({type(error).__name__}: {error}): "
                f"update it, or remove it (pip uninstall {name})."
            ) from error
        packages[name] = version
    return packages


def plugin_versions() -> list[str]:
    """Return each installed plug-in as "name version": what cached results of its components depend on."""
    return [f"{name} {version}" for name, version in load_plugins().items()]


def missing_plugins_message(needed: Mapping[str, str]) -> str:
    """Return in one sentence which of these packages are not installed, and how to install them; "" if none is
    missing."""
    missing = {name: version for name, version in needed.items() if name not in load_plugins()}
    if not missing:
        return ""
    names = ", ".join(f"{name} {version}".strip() for name, version in missing.items())
    return f"It was made with the plug-in {names}, which is not installed here: pip install {' '.join(missing)}."
