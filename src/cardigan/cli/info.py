"""`cardigan info RUN`: settings, progress, checkpoints and size of a run or a model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cardigan.cli.parsing import parse
from cardigan.config import Config
from cardigan.errors import escape_control_characters
from cardigan.overrides import experiment_settings, flatten

if TYPE_CHECKING:
    from cardigan.run.journal import Event


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Describe a run or a model: settings, progress, checkpoints, size."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    layers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also list the layers of G and D: output shape, parameters and multiply-adds per image."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def main(argv: list[str]) -> int:
    """Print the description; return the exit code."""
    options = parse(InfoOptions, argv, "cardigan info")
    summary = describe_path(options.model)
    if options.layers:
        summary |= describe_layers(options.model)
    print(json.dumps(summary, indent=1) if options.json else escape_control_characters(_summary_text(summary)))
    return 0


def describe_path(path: Path) -> dict[str, Any]:
    """Return the description of a run or a model as plain JSON values."""
    from cardigan.models.snapshot import read_snapshot
    from cardigan.nets.table import summarize_model

    snapshot = read_snapshot(path)
    model_summary = summarize_model(snapshot.generator, snapshot.spec, snapshot.config.latent.size)
    summary: dict[str, Any] = {
        "path": str(path),
        "recipe": snapshot.config.recipe,
        **({"started_from": snapshot.config.start_from} if snapshot.config.start_from else {}),
        "images_seen": "unknown: trained by another program" if snapshot.foreign else snapshot.images_seen,
        **({} if snapshot.foreign else {"generator_images_seen": snapshot.images_seen}),
        "image_shape": f"{snapshot.spec.height}x{snapshot.spec.width}x{snapshot.spec.channels}",
        "classes": snapshot.spec.num_classes,
        **({"class_names": list(snapshot.spec.class_names)} if snapshot.spec.class_names else {}),
        "generator_parameters": model_summary.num_parameters,
        "generator_multiply_adds": model_summary.multiply_adds,
        "settings": _sampling_settings(snapshot.config) if snapshot.foreign else experiment_settings(snapshot.config),
    }
    return {**summary, **_run_summary(path)} if (path / "journal.jsonl").exists() else summary


def _sampling_settings(config: Config) -> dict[str, Any]:
    """Return the settings that determine the images, which are all that foreign weights contain."""
    relevant = ("generator.network", "generator.width", "generator.normalization", "latent.size", "latent.distribution")
    return {name: value for name, value in flatten(config).items() if name in relevant}


def describe_layers(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the layers of G and, unless the model is foreign, of D, in execution order, as plain JSON values."""
    import dataclasses

    import torch

    from cardigan.models.snapshot import read_snapshot
    from cardigan.nets.table import build_discriminator, summarize_model

    snapshot = read_snapshot(path)
    with torch.device("meta"):
        discriminator = build_discriminator(snapshot.config, snapshot.spec)
    size = snapshot.config.latent.size
    networks = {
        "generator_layers": snapshot.generator,
        **({} if snapshot.foreign else {"discriminator_layers": discriminator}),
    }
    return {
        name: [dataclasses.asdict(layer) for layer in summarize_model(network, snapshot.spec, size).layers]
        for name, network in networks.items()
    }


def _run_summary(path: Path) -> dict[str, Any]:
    from cardigan.health.status import health_of_run
    from cardigan.run.checkpoint import best_checkpoint, list_checkpoints
    from cardigan.run.directory import RunDirectory, is_locked, read_config, read_provenance
    from cardigan.run.journal import read_events
    from cardigan.run.stopping import resume_command, run_state, state_sentence

    run = RunDirectory(path)
    events, config, provenance = read_events(run.journal), read_config(run), read_provenance(run)
    last = events[-1] if events else None
    images_seen = last.images_seen if last else 0
    state, reason = run_state(last, is_locked(run))
    health = health_of_run(events)
    best = best_checkpoint(run.checkpoints)
    sample = run.latest_sample()
    return {
        "images_seen": images_seen,
        "state": state_sentence(state, reason),
        **(
            {}
            if state == "training"
            else {"continue": resume_command(path, provenance.get("command", []), config, images_seen, reason)}
        ),
        "health": {"state": health.state, "known_at": health.known_at, "sentence": health.sentence},
        "elapsed_seconds": last.elapsed_seconds if last else 0.0,
        "latest": _latest_values(events, images_seen),
        "checkpoints": [checkpoint.name for checkpoint in list_checkpoints(run.checkpoints)],
        "best_checkpoint": best.name if best and int(best.name) > 0 else None,
        "latest_sample": str(sample) if sample else None,
        "settings": flatten(config),
        "provenance": provenance,
    }


def _latest_values(events: "list[Event]", images_seen: int) -> dict[str, dict[str, Any]]:
    """Return the last value of every metric, with the images seen when it was taken and whether that is long ago."""
    from cardigan.health.status import is_old

    return {
        name: {"value": value, "images_seen": event.images_seen, "old": is_old(event.images_seen, images_seen)}
        for event in events
        if event.kind in {"progress", "checkpoint"}
        for name, value in event.values.items()
    }


def _summary_text(summary: dict[str, Any]) -> str:
    """Return the description as text: of a run, first how it stands and what to do next."""
    lines = _first_lines(summary) if "state" in summary else []
    for name, value in summary.items():
        if name in {"state", "health", "continue", "best_checkpoint"} and lines:
            continue  # said above
        if name.endswith("_layers"):
            lines += ["", *_layer_table(name.removesuffix("_layers"), value)]
        elif name == "latest":
            lines += [f"{name}:", *(f"  {key:<38} {_reading_text(reading)}" for key, reading in value.items())]
        elif isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key:<38} {inner}" for key, inner in value.items())]
        else:
            value_text = (
                f"{value:,}" if isinstance(value, int) else ", ".join(value) if isinstance(value, list) else value
            )
            lines.append(f"{name + ':':<26} {value_text}")
    return escape_control_characters("\n".join(lines))


def _first_lines(summary: dict[str, Any]) -> list[str]:
    score, best = summary["latest"].get("score"), summary["best_checkpoint"]
    path = summary["path"]
    next_command = summary.get("continue", f"cardigan studio {path}")
    rows = {
        "state": f"{summary['state']}, after {summary['images_seen']:,} images",
        "health": summary["health"]["sentence"],
        "score": "none yet"
        if score is None
        else f"{score['value']:.2f} at {score['images_seen']:,} images, lower is better",
        "best checkpoint": "none yet" if best is None else f"{path}/checkpoints/{best}",
        "sample": f"cardigan sample {path}",
        "next": next_command,
    }
    return [*(f"{name + ':':<17} {text}" for name, text in rows.items()), ""]


def _reading_text(reading: dict[str, Any]) -> str:
    return f"{reading['value']} (at {reading['images_seen']:,} images{', old' if reading['old'] else ''})"


def _layer_table(network: str, layers: list[dict[str, Any]]) -> list[str]:
    rows = [(network, "type", "output", "parameters", "multiply-adds")]
    rows += [
        (
            layer["name"],
            layer["module_type"],
            "x".join(map(str, layer["output_shape"])),
            f"{layer['num_parameters']:,}",
            f"{layer['multiply_adds']:,}",
        )
        for layer in layers
    ]
    parameters, multiply_adds = (sum(layer[name] for layer in layers) for name in ("num_parameters", "multiply_adds"))
    rows.append(("total", "", "", f"{parameters:,}", f"{multiply_adds:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [
                *(row[column].ljust(widths[column]) for column in range(3)),
                *(row[column].rjust(widths[column]) for column in (3, 4)),
            ]
        )
        for row in rows
    ]
