"""`export`: a model to a file with a card beside it, or to a folder of several formats with one card inside.

Knows the order of things; `table.py` knows the formats, `keeping.py` how one is written and checked.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from cardigan.exports.card import card_text
from cardigan.exports.interface import Format, Settings
from cardigan.exports.keeping import Exported as Exported
from cardigan.exports.keeping import Judge, Origin, kept
from cardigan.exports.places import check_folder, check_not_itself, check_place, default_place, name_of
from cardigan.exports.quality import Cost, judged, stored_snapshot
from cardigan.exports.table import FORMATS, check_settings, find_format
from cardigan.metrics.protocol import Report
from cardigan.run import atomic
from cardigan.run.rounding import Weights
from cardigan.run.snapshot import Snapshot, read_snapshot


@runtime_checkable
class Holder(Protocol):
    """Anything with a snapshot, such as what `cardigan.load` returns."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def path(self) -> Path | None: ...  # where it was read from


def export(
    model: str | Path | Snapshot | Holder,
    format: str = "safetensors",
    out: str | Path | None = None,
    *,
    weights: Weights | None = None,
    num: int = 1_000,
    seed: int = 0,
    truncation: float = 1.0,
    label: int | str | None = None,
    judge: int | None = None,
    data_licence: str = "",
    overwrite: bool = False,
) -> Exported:
    """Export a model to one format of `FORMATS` and return what was written: where, its difference from PyTorch and its hash.

    `out` is by default the model's name with the format's ending. `num`, `seed`, `truncation` and `label` are those of the samples.
    With `judge`, so many pictures are judged, of the trained weights and of the rounded ones, and the card tells it.
    Raises CardiganError, and keeps nothing, for a network or weights that the format cannot hold, for a file that is there already,
    and for an export that draws something else than PyTorch.
    """
    found = find_format(format)
    settings = Settings(weights=weights or found.weights[0], num=num, seed=seed, truncation=truncation, label=label)
    check_settings(format, settings)
    path = _path(model)
    place = default_place(path, found, settings) if out is None else Path(out)
    check_place(place, found, overwrite)
    check_not_itself(place, path)
    origin = Origin(on_cpu(_snapshot(model)), path, data_licence)
    done = kept(origin, format, found, settings, place, _judge(origin, judge))
    if not place.is_dir():
        atomic.write_bytes(done.exported.card, done.card.encode())
    return done.exported


def export_all(
    model: Path,
    formats: Sequence[str],
    out: Path | None = None,
    weights: Weights | None = None,
    drawn: Settings | None = None,
    judge: int | None = None,
    data_licence: str = "",
) -> list[Exported]:
    """Export a model to several formats in one new folder with one card, README.md; the folder appears whole or not at all.

    `weights` are those of every format that holds any, `drawn` says which samples.
    """
    place = out or Path(f"{name_of(model)}-export")
    check_folder(place)
    usual = {name: find_format(name).weights[0] for name in formats}
    settings = {name: replace(drawn or Settings(), weights=usual[name] if name == "samples" else weights or usual[name]) for name in formats}
    for name in formats:
        check_settings(name, settings[name])
    origin = Origin(read_snapshot(model), model, data_licence)
    judge_of = _judge(origin, judge)
    with atomic.replacement(place) as folder:
        folder.mkdir()
        done = [
            kept(origin, name, FORMATS[name], each, folder / (f"generator{suffix}" if (suffix := FORMATS[name].suffixes[0]) else name), judge_of)
            for name, each in settings.items()
        ]
        lines = [line for each in done for line in [*each.lines, ""]][:-1]
        files = {name: digest for each in done for name, digest in each.files.items()}
        costs = [*(cost for each in done if (cost := each.exported.cost) and cost.after), done[0].exported.cost]
        (folder / "README.md").write_text(card_text(origin.snapshot, model, files, lines, costs[0], data_licence), encoding="utf-8")
    return [replace(each.exported, path=place / each.exported.path.name, card=place / "README.md") for each in done]


def _snapshot(model: str | Path | Snapshot | Holder) -> Snapshot:
    if isinstance(model, str | Path):
        return read_snapshot(Path(model))
    return model if isinstance(model, Snapshot) else model.snapshot


def _path(model: str | Path | Snapshot | Holder) -> Path | None:
    """Return where a model lies, or lay: its run can tell of a checkpoint that is gone."""
    if isinstance(model, str | Path):
        return Path(model)
    return None if isinstance(model, Snapshot) else model.path


def on_cpu(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot that draws on the CPU, as exports are made and compared; one that was moved to another device stays there, and is copied."""
    if all(parameter.device.type == "cpu" for parameter in snapshot.generator.parameters()):
        return snapshot
    return replace(snapshot, generator=deepcopy(snapshot.generator).cpu())


def _judge(origin: Origin, num: int | None) -> Judge:
    """Return what tells the cost of weights; the trained ones are judged once, and so is each way of rounding them."""
    known: dict[tuple[Weights, str], Report] = {}

    def report(weights: Weights, format: Format | None, num: int) -> Report:
        spectral = origin.snapshot.config.generator.spectral
        way = "" if format is None else format.what if format.stored else "graph" if format.as_graph and spectral else ""
        if (weights, way) not in known:
            drawn = origin.snapshot if format is None else stored_snapshot(origin.snapshot, weights, format)
            known[weights, way] = judged(drawn, origin.path, num)
        return known[weights, way]

    def cost(weights: Weights, format: Format) -> Cost | None:
        if num is None:
            return None
        return Cost(report("float32", None, num), None if weights == "float32" else report(weights, format, num), weights)

    return cost
