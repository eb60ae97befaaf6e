"""The command and the Python that show again what a view shows.

Words only: the tests run them and compare the pixels. Every Python ends with `pictures`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from cardigan.figures.layout import SheetLayout
from cardigan.run.directory import RunDirectory
from cardigan.studio import asking
from cardigan.studio.asking import NUM_NEAREST
from cardigan.studio.reading import checkpoints
from cardigan.studio.reading import sheets as sheets_of
from cardigan.studio.sheets import MAX_STRIP, evenly

Query = Mapping[str, str]
STYLE = "style, directions = Style({label!r}, {truncation!r}, {amounts!r}), {directions}"


def reproduction(run: RunDirectory, layout: SheetLayout, query: Query) -> dict[str, str]:
    """Return `command`, empty where no command does it, and `python` for a view; raises Wrong for values that make no sense."""
    view = asking.one_of(query, "view", "", (*VIEWS, "strip"))
    if view == "strip":
        return {"command": "", "python": _strip(run, layout, query)}
    command, python = VIEWS[view](run, query)
    return {"command": command, "python": python}


def _pad(run: RunDirectory, query: Query) -> tuple[str, str]:
    pad = asking.pad(query)
    at = ",".join(map(_plain, pad.place))
    words = ["--corners", _list(pad.corners), "--at", at, "--grid", str(pad.grid), "--span", _plain(pad.span)]
    drawn = f"pad_pictures(snapshot, {pad.corners}, {pad.place}, {pad.grid}, {pad.span!r}, style, directions)"
    return _command("mix", run, query, words, "pad.png"), _drawn(run, query, "pad_pictures", drawn)


def _seeds(run: RunDirectory, query: Query) -> tuple[str, str]:
    seeds = asking.shown_seeds(query)
    python = _drawn(run, query, "seeds_pictures", f"seeds_pictures(snapshot, {seeds}, style, directions)")
    beyond = bool(asking.amounts(query.get("directions", ""))) or any(isinstance(seed, str) for seed in seeds)
    return "" if beyond else _command("sample", run, query, ["--seeds", _list(seeds)], "seeds.png"), python


def _moments(run: RunDirectory, query: Query) -> tuple[str, str]:
    seeds, kept = asking.moments(query, checkpoints(run))
    each = [{**query, "checkpoint": str(seen)} for seen in kept]
    moved = bool(asking.amounts(query.get("directions", "")))
    commands = [_command("sample", run, asked, ["--seeds", _list(seeds)], f"at-{asked['checkpoint']}.png") for asked in each]
    paths = [str(_model(run, asked)) for asked in each]
    lines = [
        "import cardigan",
        "import torch",
        "from cardigan.explore.views import Style, directions_of, seeds_pictures",
        "",
        "rows = []",
        f"for path in {paths!r}:",
        "    snapshot = cardigan.load(path).snapshot",
        f"    {_style(query)}",
        f"    rows.append(seeds_pictures(snapshot, {seeds}, style, directions))",
        "pictures = torch.cat(rows)  # a row after the other",
    ]
    return "" if moved else " && ".join(commands), "\n".join(lines)


def _walk(run: RunDirectory, query: Query) -> tuple[str, str]:
    walk = asking.walk(query)
    words = ["--seeds", _list(walk.stops), "--frames", str(walk.frames), "--fps", _plain(walk.fps), "--path", walk.path]
    words += ["--loop"] if walk.loop else []
    drawn = f"walk_pictures(snapshot, {walk.stops}, {walk.frames}, {asking.SPHERICAL[walk.path]}, {walk.loop}, style, directions)"
    return _command("walk", run, query, words, f"walk.{walk.kind}"), _drawn(run, query, "walk_pictures", drawn)


def _mix(run: RunDirectory, query: Query) -> tuple[str, str]:
    add, subtract = asking.mixed(query)
    words = [word for option, groups in (("--add", add), ("--subtract", subtract)) for group in groups for word in (option, _list(group))]
    drawn = f"torch.cat(mix_rows(snapshot, {add}, {subtract}, style, directions))"
    return _command("mix", run, query, words, "mix.png"), "import torch\n" + _drawn(run, query, "mix_rows", drawn)


def _invert(run: RunDirectory, query: Query) -> tuple[str, str]:
    label = query.get("label", "")[:200]
    words = ["cardigan", "invert", str(_model(run, query)), "picture.png", *([f"--label={label}"] if label else []), "--out", "inverted.png"]
    lines = [
        "from pathlib import Path",
        "",
        "import cardigan",
        "import torch",
        "from cardigan.explore.frames import in_frame",
        "from cardigan.explore.inversion import invert",
        "from cardigan.run.snapshot import class_number",
        "",
        f"snapshot = cardigan.load({str(_model(run, query))!r}).snapshot",
        'given = in_frame(Path("picture.png").read_bytes(), snapshot.config.data)',
        f"label = {f'class_number({label!r}, snapshot.spec)' if label else None}",
        "pictures = invert(snapshot, given, label).pixels",
    ]
    return shlex.join(words), "\n".join(lines)


def _nearest(run: RunDirectory, query: Query) -> tuple[str, str]:
    seed = asking.one_seed(query)
    lines = [
        "from pathlib import Path",
        "",
        "import torch",
        "from cardigan.run.directory import RunDirectory, read_config",
        "from cardigan.studio.memory import nearest_pictures, training_pictures",
        _drawn(run, query, "seeds_pictures", f"seeds_pictures(snapshot, [{seed}], style, directions)"),
        f"run = RunDirectory(Path({str(run.path)!r}))",
        "data = read_config(run).data",
        f"pictures = torch.cat([pictures, nearest_pictures(training_pictures(run, data), data, pictures, {NUM_NEAREST})])",
    ]
    return "", "\n".join(lines)


def _game(run: RunDirectory, query: Query) -> tuple[str, str]:
    count, seed = asking.game(query)
    lines = [
        "from pathlib import Path",
        "",
        "from cardigan.explore.game import heat, opinions, wanted_change",
        "from cardigan.latents import sample_labels",
        "from cardigan.run.players import read_players",
        "from cardigan.run.snapshot import numbered, sample_pixels",
        "",
        f"players, keys = read_players(Path({str(_model(run, query))!r})), numbered({count}, {seed})",
        "classes = players.snapshot.spec.classes",
        "labels = sample_labels(keys, classes) if classes else None",
        "drawn = sample_pixels(players.snapshot, keys, labels)",
        "logits = opinions(players, drawn, labels)",
        "pictures = heat(wanted_change(players, drawn, labels))",
    ]
    return "", "\n".join(lines)


def _strip(run: RunDirectory, layout: SheetLayout, query: Query) -> str:
    tile = asking.whole(query, "tile", 0, 0, layout.count - 1)
    top, left = layout.corner(tile)
    lines = [
        "from pathlib import Path",
        "",
        "import numpy as np",
        "from PIL import Image",
        "",
        f"folder, moments = Path({str(run.samples)!r}), {evenly(sheets_of(run), MAX_STRIP)}",
        'sheets = [np.asarray(Image.open(folder / f"{seen:08d}.png")) for seen in moments]',
        f"pictures = [sheet[{top}:{top + layout.height}, {left}:{left + layout.width}] for sheet in sheets]",
    ]
    return "\n".join(lines)


VIEWS: dict[str, Callable[[RunDirectory, Query], tuple[str, str]]] = {
    **{"pad": _pad, "seeds": _seeds, "moments": _moments, "walk": _walk, "mix": _mix, "invert": _invert},
    **{"nearest": _nearest, "game": _game},
}


def _model(run: RunDirectory, query: Query) -> Path:
    checkpoint = asking.checkpoint(query)
    return run.path if checkpoint is None else run.checkpoints / f"{checkpoint:08d}"


def _command(name: str, run: RunDirectory, query: Query, words: list[str], out: str) -> str:
    label, truncation, moves = asking.style(query)
    amounts = ",".join(f"{number}:{_plain(amount)}" for number, amount in moves.items())
    words = ["cardigan", name, str(_model(run, query)), *words]
    words += [f"--label={label}"] if label else []
    words += ["--truncation", _plain(truncation)] if truncation != 1 else []
    words += [f"--directions={amounts}"] if amounts and name != "sample" else []
    return shlex.join([*words, "--out", out])


def _drawn(run: RunDirectory, query: Query, function: str, drawn: str) -> str:
    lines = [
        "import cardigan",
        f"from cardigan.explore.views import Style, directions_of, {function}",
        "",
        f"snapshot = cardigan.load({str(_model(run, query))!r}).snapshot",
        _style(query),
        f"pictures = {drawn}",
    ]
    return "\n".join(lines)


def _style(query: Query) -> str:
    label, truncation, amounts = asking.style(query)
    return STYLE.format(label=label, truncation=truncation, amounts=amounts, directions="directions_of(snapshot)" if amounts else "None")


def _list(seeds: Sequence[int | str]) -> str:
    return ",".join(map(str, seeds))


def _plain(value: float) -> str:
    """Return a number as commands take it: every digit of it, no exponent."""
    return f"{Decimal(repr(value)):f}"
