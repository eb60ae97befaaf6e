"""Settings by dotted name: a Config as JSON values, changed by name, and compared.

Imports no torch."""

import dataclasses
from typing import Any

from cardigan.checks import require, validate_type
from cardigan.config import RESUMABLE_FIELDS, Config
from cardigan.errors import unknown


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Return the config that `to_dict` wrote; fields left out keep their defaults, an unknown one is an error."""
    return _replace_fields(Config(), values, "")


def override(config: Config, values: dict[str, Any]) -> Config:
    """Return `config` with `values` in place of its own, by dotted name.

    Raises CardiganError for an unknown field (offering the nearest) or a value of the wrong type or range.

    Examples:
        >>> import cardigan
        >>> config = cardigan.override(cardigan.config_for("mnist"), {"batch_size": 128, "generator.width": 64})
        >>> config.batch_size, config.generator.width
        (128, 64)
    """
    known = flatten(config)
    nested: dict[str, Any] = {}
    for name, value in sorted(values.items(), key=lambda item: item[0].count(".")):  # a table before its entries
        *sections, leaf = name.split(".")
        section_values = nested
        parent = known.get(".".join(sections))
        if isinstance(parent, dict):  # one entry of a table, such as objective.penalties.r1
            section_values.setdefault(sections[0], {}).setdefault(sections[1], dict(parent))[leaf] = value
            continue
        if name not in known:
            raise unknown("setting", name, known)
        for section in sections:
            section_values = section_values.setdefault(section, {})
        section_values[leaf] = dict(value) if isinstance(value, dict) else value
    return _replace_fields(config, nested, "")


def flatten(config: Config) -> dict[str, Any]:
    """Return every setting by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        flat.update(
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat


def experiment_settings(config: Config) -> dict[str, Any]:
    """Return the settings the weights depend on, by dotted name: all but the budget, the device and the cadences."""
    return {name: value for name, value in flatten(config).items() if name not in RESUMABLE_FIELDS}


def config_diff(before: Config, after: Config) -> list[str]:
    """Return one line for each setting that makes `after` another experiment than `before`."""
    old, new = experiment_settings(before), experiment_settings(after)
    return [f"{name}: {old[name]!r} -> {new[name]!r}" for name in old if old[name] != new[name]]


def _replace_fields(section: Any, values: dict[str, Any], prefix: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(section)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown("setting", prefix + name, [prefix + known for known in fields])
        current = getattr(section, name)
        if dataclasses.is_dataclass(current):
            require(isinstance(value, dict), prefix + name, value, "a group of settings")
            changes[name] = _replace_fields(current, value, f"{prefix}{name}.")
        else:
            changes[name] = validate_type(value, fields[name].type, prefix + name)
    return dataclasses.replace(section, **changes)
