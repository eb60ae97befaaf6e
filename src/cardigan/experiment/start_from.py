"""Starting a run from a trained model (`--from`): its settings, its weights in the new shape, and what became of them.

The first checkpoint of the run holds the weights, so the run no longer needs the model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.experiment.licenses import NO_DERIVATIVES, attribution, card_license
from cardigan.files.sha256 import file_sha256
from cardigan.latents.sampling import find_latent
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE
from cardigan.models.hub import WEIGHTS_FILE, is_hub_address
from cardigan.models.run_networks import load_networks
from cardigan.models.snapshot import Snapshot, read_snapshot, weights_file
from cardigan.models.starters import find_starter, located
from cardigan.nets.frozen import Frozen
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.light import LightGenerator
from cardigan.nets.table import with_all_options
from cardigan.nets.transfer import Transfer, transfer_weights
from cardigan.overrides import flatten, override
from cardigan.rng import stream
from cardigan.run.directory import RunDirectory

HASHED = re.compile(r"(?P<model>.+)@sha256:(?P<sha256>[0-9a-f]{64})")
"""A model and the SHA-256 that it must have: how a run remembers what it was started from."""
SHAPE_SETTINGS = ("network", "width", "depth", "normalization", "spectral_norm", "conditioning", "options")
"""Settings of a network on which its weights depend."""
TABLES = ("objective.penalties", "generator.options", "discriminator.options")
"""Settings that are tables: one of their entries may be given alone."""
INHERITED_BY_GENERATOR = ("generator.", "latent.", "data.height", "data.width")
"""Settings, or groups of them, that come from a model without its discriminator, unless they are given."""
BRANCH = ("conditional", "data.", "augment.")
"""Settings that also come from a model that was trained on the same images."""
INHERITED = (
    *("generator.", "discriminator.", "latent.", "objective.", "generator_optimizer.", "discriminator_optimizer."),
    *("ema.", "batch_size", "n_critic", "pac", "data.height", "data.width"),
)
"""Settings, or groups of them, that come from a model with its discriminator, unless they are given."""
NOT_INHERITED = ("generator.frozen_stages", "discriminator.frozen_stages", "objective.correspondence")
"""What concerned only the training of the model."""
NUM_LATENTS = 256
"""Latents that show how large the maps are that an added stage enlarges."""


@dataclass(frozen=True)
class Parent:
    """The model that a run starts from."""

    model: str
    """As given, without its folders."""
    sha256: str
    snapshot: Snapshot
    discriminator: Discriminator | None
    reason: str = ""
    """Why there is no discriminator."""
    license: str = ""
    """As its card names it."""
    attribution: str = ""
    """Whom to name, where it is known."""

    @property
    def reference(self) -> str:
        return f"{self.model}@sha256:{self.sha256}"


def read_parent(model: str, accept_license: bool = False) -> Parent:
    """Return a run, checkpoint, weights file, model folder, hub model, starter or foreign generator to start from.

    Raises CardiganError for what cannot be read, for another SHA-256 than `model` names, and for a license that
    forbids derivatives, unless it is accepted.
    """
    path, sha256 = _path_and_hash(model)
    if path.name == str(path) and not path.exists() and located(path) == path:
        find_starter(path.name)  # raises
    try:
        file = weights_file(path)
        sha256 = sha256 or (file_sha256(file) if file.exists() else "")
        snapshot = read_snapshot(path, sha256 or None)  # the very file, although a training may go on
    except OSError as error:
        raise CardiganError(f"--from: {path} cannot be read: {error.strerror}.") from error
    except CardiganError as error:
        raise CardiganError(f"--from: {error}") from error
    if not all(value.isfinite().all() for value in snapshot.generator.state_dict().values()):
        raise CardiganError(f"--from: {file} has weights that are not finite: use an earlier checkpoint.")
    discriminator, reason = _read_discriminator(path, snapshot)
    license_name = card_license(path, file.parent)
    if NO_DERIVATIVES.search(license_name) and not accept_license:
        raise CardiganError(
            f"--from: the license of {path}, {license_name}, forbids derivatives, which a generator trained from it "
            "is: choose another model, or --accept-license if you have permission."
        )
    name = str(path) if is_hub_address(path) else path.name or path.absolute().name
    return Parent(name, sha256, snapshot, discriminator, reason, license_name, attribution(path))


def _path_and_hash(model: str) -> tuple[Path, str]:
    """Return where a model is, and the SHA-256 that it must have, or nothing."""
    named = HASHED.fullmatch(model)
    return (Path(named["model"]), named["sha256"]) if named else (Path(model), "")


def _read_discriminator(path: Path, snapshot: Snapshot) -> tuple[Discriminator | None, str]:
    """Return the discriminator that was trained with this generator, or None and why there is none."""
    path = located(path)
    has_file = (path / DISCRIMINATOR_FILE).exists()
    is_model_folder = is_hub_address(path) or ((path / WEIGHTS_FILE).exists() and not has_file)
    is_checkpoint_file = path.name == "state.safetensors"
    if snapshot.foreign or is_model_folder or not (path.is_dir() or is_checkpoint_file):
        return None, f"{path.name} holds only a generator"
    # A run's generator may be that of its best checkpoint.
    checkpoint = RunDirectory(path).checkpoints / f"{snapshot.images_seen:08d}"
    try:
        return load_networks(checkpoint if checkpoint.exists() else path).discriminator, ""
    except CardiganError as error:
        return None, f"it cannot be read ({str(error).rstrip('.')})"


def check_same_parent(model: str, reference: str, run: Path) -> None:
    """Raise CardiganError if a run to resume was not started from this model. A model that is gone is not asked for."""
    path, sha256 = _path_and_hash(model)
    if not reference:
        raise CardiganError(
            f"{run} was not started from another model, so --from {model} cannot be used to resume it: leave --from "
            "out, or train a new run with --out."
        )
    known = HASHED.fullmatch(reference)
    try:
        sha256 = sha256 or file_sha256(weights_file(path))
    except (CardiganError, OSError):
        return
    if known is not None and known["sha256"] != sha256:
        raise CardiganError(
            f"{run} was started from {known['model']} (SHA-256 {known['sha256'][:12]}), and --from {model} is another "
            f"model ({sha256[:12]}): leave --from out to resume the run."
        )


def read_parent_again(model: str, reference: str, run: Path) -> Parent:
    """Return the parent of a run that was ended before its first checkpoint."""
    known = HASHED.fullmatch(reference)
    if not model or known is None:
        raise CardiganError(
            f"{run} was ended before its first checkpoint, so it still needs the model it starts from, {reference}: "
            "resume it with --from."
        )
    return read_parent(f"{_path_and_hash(model)[0]}@sha256:{known['sha256']}", accept_license=True)


def parent_facts(parent: Parent, messages: list[str]) -> dict[str, Any]:
    """Return what a run remembers of the model it started from."""
    old = parent.snapshot
    return {
        "model": parent.model,
        "sha256": parent.sha256,
        "images_seen": old.images_seen,
        "recipe": "" if old.foreign else old.config.recipe,
        "license": parent.license,
        "attribution": parent.attribution,
        "adapted": messages,
    }


def start_settings(
    config: Config, parent: Parent, explicit_settings: Mapping[str, Any], recipe_given: bool, same_source: bool
) -> tuple[Config, set[str]]:
    """Return the settings of a run that starts from `parent`, and the names of those that come from it.

    With a recipe given, or another discriminator, or without the parent's one, only the generator's and the latent's
    settings come from the parent. With the same source, a run is a branch of the parent, and what concerns the images
    comes from it too. Raises CardiganError for a given setting that the parent's generator cannot follow.
    """
    old, given = parent.snapshot.config, explicit_settings
    known = flatten(old)
    keeps_game = not (
        recipe_given
        or parent.discriminator is None
        or given.get("discriminator.network", old.discriminator.network) != old.discriminator.network
    )
    is_branch = same_source and keeps_game
    is_conditional = given.get("conditional", old.conditional if is_branch else config.conditional)
    _check_generator_settings(given, parent, is_conditional)
    groups = (INHERITED if keeps_game else INHERITED_BY_GENERATOR) + (BRANCH if is_branch else ())
    names = {name for name in known if name.startswith(groups) and name not in given} - {*NOT_INHERITED}
    if {"data.height", "data.width"} & given.keys():
        names -= {"data.height", "data.width"}
    if not is_conditional:
        names -= {"generator.conditioning", "discriminator.conditioning"}
    values = {name: known[name] for name in names if name != "data.source"}
    if keeps_game:
        config = replace(config, recipe=old.recipe)
        if parent.discriminator is not None and _has_frozen(parent.discriminator) and "seed" not in given:
            values["seed"] = old.seed  # its frozen projections are a function of it
    config = override(config, values)
    config = override(config, {name: value for name, value in given.items() if name.startswith(TABLES)})
    entries = {f"{table}.{entry}" for table in TABLES if table in values for entry in values[table]}
    return replace(config, start_from=parent.reference), {*values, *entries}


def _check_generator_settings(given: Mapping[str, Any], parent: Parent, is_conditional: bool) -> None:
    """Raise CardiganError for a given setting that the weights of the parent's generator cannot follow."""
    generator = with_all_options(parent.snapshot.config.generator, "generator")
    known = {f"generator.{name}": getattr(generator, name) for name in SHAPE_SETTINGS if name != "options"}
    known |= {f"generator.options.{name}": value for name, value in generator.options.items()}
    if not is_conditional:
        del known["generator.conditioning"]
    if not parent.snapshot.foreign:
        known["latent.distribution"] = parent.snapshot.config.latent.distribution
    for name, value in known.items():
        if name in given and given[name] != value:
            raise CardiganError(
                f"{name} is {given[name]!r}, but that of {parent.model}, from which training starts, is {value!r}, and "
                "its weights fit no other: leave the setting out, or train without --from."
            )


def start_networks(
    config: Config, spec: ImageSpec, parent: Parent, generator: Generator, discriminator: Discriminator
) -> list[str]:
    """Copy the parent's weights into new networks, in place. Returns what was done, one line for each part."""
    old = parent.snapshot
    rows = class_rows(spec, old.spec)
    messages = [
        f"started from {parent.model} ({old.images_seen:,} images seen, SHA-256 {parent.sha256[:12]})"
        if not old.foreign
        else f"started from {parent.model}, which another program trained (SHA-256 {parent.sha256[:12]})",
        f"license of {parent.model}: {parent.license or 'unknown; find it out before you share the result'}",
        *_shape_lines(spec, old.spec, rows),
    ]
    channels = (old.spec.channels, spec.channels)
    result = transfer_weights(generator, old.generator, channels, rows)
    messages.append(f"generator: {_summary(result)}{_frozen(generator, result, config.generator, 'generator')}")
    if isinstance(generator, LightGenerator) and isinstance(old.generator, LightGenerator):
        messages += _pass_through(config, old, generator)
    messages.append(_start_discriminator(config, parent, discriminator, channels, rows))
    return messages


def _start_discriminator(
    config: Config, parent: Parent, discriminator: Discriminator, channels: tuple[int, int], rows: list[int | None]
) -> str:
    trained, old = parent.discriminator, parent.snapshot.config
    reason = parent.reason if trained is None else _why_discriminator_begins_anew(config, old, trained, channels)
    if trained is None or reason:
        if config.discriminator.frozen_stages:
            raise CardiganError(
                f"discriminator.frozen_stages is {config.discriminator.frozen_stages}, but the discriminator begins "
                f"anew, because {reason}: set it to 0, since frozen initial weights would never learn."
            )
        return f"discriminator: begins anew, because {reason}"
    result = transfer_weights(discriminator, trained, channels, rows)
    return f"discriminator: {_summary(result)}{_frozen(discriminator, result, config.discriminator, 'discriminator')}"


def _why_discriminator_begins_anew(
    config: Config, old: Config, trained: Discriminator, channels: tuple[int, int]
) -> str:
    """Return why the parent's discriminator does not fit this run, or nothing if it does."""
    changed = [f"discriminator.{name}" for name in _changed(config.discriminator, old.discriminator)]
    changed += ["pac"] if config.pac != old.pac else []
    if changed:
        return f"these settings differ: {', '.join(changed)}"
    sizes = [(each.data.height, each.data.width) for each in (config, old)]
    if config.pac > 1 and (channels[0] != channels[1] or sizes[0] != sizes[1]):
        return "it reads packs of images of another shape"
    if _has_frozen(trained) and config.seed != old.seed:
        return f"its frozen projections belong to --seed {old.seed}"
    return ""


def _frozen(network: nn.Module, result: Transfer, config: NetworkConfig, name: str) -> str:
    """Return how many tensors keep their weights; raises CardiganError if one of them is new."""
    frozen = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return ""
    new = [key for key in frozen if key in result.new]
    if new:
        raise CardiganError(
            f"{name}.frozen_stages is {config.frozen_stages}, but {new[0]} has no weights of the model to keep, since "
            "it is new in this shape: set it to 0, or train at the size and with the channels of the model."
        )
    return f", {len(frozen)} frozen ({config.frozen_stages} stages)"


def _pass_through(config: Config, old: Snapshot, generator: LightGenerator) -> list[str]:
    """Let added stages enlarge what the parent's last stage gives."""
    trained = old.generator
    assert isinstance(trained, LightGenerator)
    added = len(generator.stages) - len(trained.stages)
    z = find_latent(old.config.latent.distribution)(
        (NUM_LATENTS, old.config.latent.size), stream(config.seed, "start", 0)
    )
    labels = torch.arange(NUM_LATENTS) % old.spec.num_classes if old.spec.num_classes else None
    if added <= 0 or not generator.pass_through(trained, z, labels):
        return []
    stages = "1 stage added, which at first enlarges" if added == 1 else f"{added} stages added, which at first enlarge"
    return [f"generator: {stages} its images"]


def class_rows(spec: ImageSpec, old: ImageSpec) -> list[int | None]:
    """Return, for each class, which class of the parent it is: by name, or by number where neither has names.

    Where one of the two has no names, as MNIST, its classes are named by their numbers. Clusters of other images are
    other classes.
    """
    if not old.num_classes:
        return [None] * spec.num_classes
    have_names, same_clusters = spec.class_names or old.class_names, spec.class_counts == old.class_counts
    if not have_names and same_clusters and spec.num_classes == old.num_classes:
        return list(range(spec.num_classes))
    if not have_names or spec.class_counts or old.class_counts:
        return [None] * spec.num_classes
    numbers = {name: number for number, name in enumerate(_class_names(old))}
    return [numbers.get(name) for name in _class_names(spec)]


def _class_names(spec: ImageSpec) -> tuple[str, ...]:
    """Return the names of the classes, or their numbers as text where they have none."""
    return spec.class_names or tuple(map(str, range(spec.num_classes)))


def _shape_lines(spec: ImageSpec, old: ImageSpec, rows: list[int | None]) -> list[str]:
    lines = []
    if (spec.height, spec.width) != (old.height, old.width):
        lines.append(f"size: {old.height}x{old.width} -> {spec.height}x{spec.width}")
    if spec.channels != old.channels:
        lines.append(f"channels: {old.channels} -> {spec.channels}; colors are mapped, the rest is new")
    if spec.num_classes and old.num_classes:
        found = sum(row is not None for row in rows)
        if found == len(rows) < old.num_classes:
            lines.append(f"classes: all {found} are among the {old.num_classes} of the parent; the others are left out")
        elif found < len(rows):
            lines.append(
                f"classes: {found} of {len(rows)} are classes of the parent; the others begin as the mean of its "
                f"{old.num_classes}"
            )
    elif spec.num_classes:
        lines.append(f"classes: {spec.num_classes} new ones; all begin as the parent, which has none")
    elif old.num_classes:
        lines.append(f"classes: none; what each of the parent's {old.num_classes} adds is left out")
    return lines


def _summary(result: Transfer) -> str:
    parts = [f"{len(result.copied)} tensors copied"]
    if result.adapted:
        parts.append(f"{len(result.adapted)} fitted to their new shape")
    if result.new:
        parts.append(f"{len(result.new)} new")
    return ", ".join(parts)


def _changed(config: NetworkConfig, old: NetworkConfig) -> list[str]:
    """Return the settings in which two networks differ."""
    return [name for name in SHAPE_SETTINGS if getattr(config, name) != getattr(old, name)]


def _has_frozen(network: Discriminator) -> bool:
    return any(isinstance(module, Frozen) for module in network.modules())
