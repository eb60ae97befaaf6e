"""The shell command and the Python code that reproduce a view.

The tests run both and compare the pixels. The Python code assigns the result to `images`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from cardigan.figures.layout import GridLayout
from cardigan.run.directory import RunDirectory
from cardigan.studio import query_params
from cardigan.studio.query_params import NUM_NEIGHBORS
from cardigan.studio.run_reader import checkpoint_images_seen, sheet_images_seen
from cardigan.studio.sample_sheets import MAX_TILE_HISTORY, evenly_spaced

Query = Mapping[str, str]
OPTIONS_LINE = "options, directions = SamplingOptions({label!r}, {truncation!r}, {amounts!r}), {directions}"


def reproduction_code(run: RunDirectory, layout: GridLayout, query: Query) -> dict[str, str]:
    """Return `command` (empty if there is none) and `python` of a view. Raises BadRequest for invalid values."""
    view = query_params.choice(query, "view", "", (*CODE_BY_VIEW, "tile-history"))
    if view == "tile-history":
        return {"command": "", "python": _tile_history_code(run, layout, query)}
    command, python = CODE_BY_VIEW[view](run, query)
    return {"command": command, "python": python}


def _interpolation_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    grid = query_params.interpolation_grid(query)
    position = ",".join(map(_decimal, grid.position))
    args = [
        "--corners",
        _comma_separated(grid.corners),
        "--position",
        position,
        "--grid",
        str(grid.grid),
        "--extent",
        _decimal(grid.extent),
    ]
    arguments = f"{grid.corners}, {grid.position}, {grid.grid}, {grid.extent!r}"
    expression = f"interpolation_images(snapshot, {arguments}, options, directions)"
    return _command("mix", run, query, args, "interpolation.png"), _python_code(
        run, query, "interpolation_images", expression
    )


def _seeds_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    seeds = query_params.seed_points(query)
    python = _python_code(run, query, "seed_images", f"seed_images(snapshot, {seeds}, options, directions)")
    is_python_only = bool(query_params.direction_amounts(query.get("directions", ""))) or any(
        isinstance(seed, str) for seed in seeds
    )
    return "" if is_python_only else _command(
        "sample", run, query, ["--seeds", _comma_separated(seeds)], "seeds.png"
    ), python


def _checkpoints_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    seeds, available = query_params.points_and_checkpoints(query, checkpoint_images_seen(run))
    queries = [{**query, "checkpoint": str(images_seen)} for images_seen in available]
    has_directions = bool(query_params.direction_amounts(query.get("directions", "")))
    commands = [
        _command(
            "sample",
            run,
            checkpoint_query,
            ["--seeds", _comma_separated(seeds)],
            f"checkpoint-{checkpoint_query['checkpoint']}.png",
        )
        for checkpoint_query in queries
    ]
    paths = [str(_model_path(run, checkpoint_query)) for checkpoint_query in queries]
    lines = [
        "import cardigan",
        "import torch",
        "from cardigan.explore.views import SamplingOptions, default_directions, seed_images",
        "",
        "rows = []",
        f"for path in {paths!r}:",
        "    snapshot = cardigan.load(path).snapshot",
        f"    {_options_line(query)}",
        f"    rows.append(seed_images(snapshot, {seeds}, options, directions))",
        "images = torch.cat(rows)",
    ]
    return "" if has_directions else " && ".join(commands), "\n".join(lines)


def _walk_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    walk = query_params.latent_walk(query)
    args = [
        "--seeds",
        _comma_separated(walk.stops),
        "--frames",
        str(walk.frames),
        "--fps",
        _decimal(walk.fps),
        "--path",
        walk.path,
    ]
    args += ["--loop"] if walk.loop else []
    arguments = f"{walk.stops}, {walk.frames}, {query_params.SPHERICAL_BY_PATH[walk.path]}, {walk.loop}"
    expression = f"walk_images(snapshot, {arguments}, options, directions)"
    return _command("walk", run, query, args, f"walk.{walk.format}"), _python_code(
        run, query, "walk_images", expression
    )


def _arithmetic_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    add, subtract = query_params.arithmetic_groups(query)
    args = [
        argument
        for option, groups in (("--add", add), ("--subtract", subtract))
        for group in groups
        for argument in (option, _comma_separated(group))
    ]
    expression = f"torch.cat(arithmetic_rows(snapshot, {add}, {subtract}, options, directions))"
    return _command("mix", run, query, args, "arithmetic.png"), "import torch\n" + _python_code(
        run, query, "arithmetic_rows", expression
    )


def _inversion_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    label = query.get("label", "")[:200]
    args = [
        "cardigan",
        "invert",
        str(_model_path(run, query)),
        "image.png",
        *([f"--label={label}"] if label else []),
        "--out",
        "inverted.png",
    ]
    lines = [
        "from pathlib import Path",
        "",
        "import cardigan",
        "import torch",
        "from cardigan.explore.preprocessing import preprocess_image",
        "from cardigan.explore.inversion import invert",
        "from cardigan.models.sampling import class_index",
        "",
        f"snapshot = cardigan.load({str(_model_path(run, query))!r}).snapshot",
        'image = preprocess_image(Path("image.png").read_bytes(), snapshot.config.data)',
        f"label = {f'class_index({label!r}, snapshot.spec)' if label else None}",
        "images = invert(snapshot, image, label).pixels",
    ]
    return shlex.join(args), "\n".join(lines)


def _nearest_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    seed = query_params.seed(query)
    lines = [
        "from pathlib import Path",
        "",
        "import torch",
        "from cardigan.run.directory import RunDirectory, read_config",
        "from cardigan.studio.nearest import nearest_images, open_training_images",
        _python_code(run, query, "seed_images", f"seed_images(snapshot, [{seed}], options, directions)"),
        f"run = RunDirectory(Path({str(run.path)!r}))",
        "data = read_config(run).data",
        f"images = torch.cat([images, nearest_images(open_training_images(run, data), data, images, {NUM_NEIGHBORS})])",
    ]
    return "", "\n".join(lines)


def _discriminator_code(run: RunDirectory, query: Query) -> tuple[str, str]:
    count, seed = query_params.sample_count_and_seed(query)
    lines = [
        "from pathlib import Path",
        "",
        "from cardigan.explore.saliency import discriminator_logits, input_gradient, signed_heatmap",
        "from cardigan.models.run_networks import load_networks",
        "from cardigan.models.sampling import random_labels, sample_keys, sample_pixels",
        "",
        f"networks, keys = load_networks(Path({str(_model_path(run, query))!r})), sample_keys({count}, {seed})",
        "labels = random_labels(networks.snapshot.spec, keys)",
        "fake = sample_pixels(networks.snapshot, keys, labels)",
        "logits = discriminator_logits(networks, fake, labels)",
        "images = signed_heatmap(input_gradient(networks, fake, labels))",
    ]
    return "", "\n".join(lines)


def _tile_history_code(run: RunDirectory, layout: GridLayout, query: Query) -> str:
    tile = query_params.integer(query, "tile", 0, 0, layout.num_images - 1)
    top, left = layout.corner(tile)
    lines = [
        "from pathlib import Path",
        "",
        "import numpy as np",
        "from PIL import Image",
        "",
        f"folder, images_seen = Path({str(run.samples)!r}), {evenly_spaced(sheet_images_seen(run), MAX_TILE_HISTORY)}",
        'sheets = [np.asarray(Image.open(folder / f"{seen:08d}.png")) for seen in images_seen]',
        f"images = [sheet[{top}:{top + layout.height}, {left}:{left + layout.width}] for sheet in sheets]",
    ]
    return "\n".join(lines)


CODE_BY_VIEW: dict[str, Callable[[RunDirectory, Query], tuple[str, str]]] = {
    **{
        "interpolation": _interpolation_code,
        "seeds": _seeds_code,
        "checkpoints": _checkpoints_code,
        "walk": _walk_code,
        "arithmetic": _arithmetic_code,
        "invert": _inversion_code,
    },
    **{"nearest": _nearest_code, "discriminator": _discriminator_code},
}


def _model_path(run: RunDirectory, query: Query) -> Path:
    checkpoint = query_params.checkpoint(query)
    return run.path if checkpoint is None else run.checkpoints / f"{checkpoint:08d}"


def _command(command: str, run: RunDirectory, query: Query, args: list[str], out: str) -> str:
    label, truncation, direction_amounts = query_params.sampling_options(query)
    directions_text = ",".join(f"{number}:{_decimal(amount)}" for number, amount in direction_amounts.items())
    args = ["cardigan", command, str(_model_path(run, query)), *args]
    args += [f"--label={label}"] if label else []
    args += ["--truncation", _decimal(truncation)] if truncation != 1 else []
    args += [f"--directions={directions_text}"] if directions_text and command != "sample" else []
    return shlex.join([*args, "--out", out])


def _python_code(run: RunDirectory, query: Query, function_name: str, expression: str) -> str:
    lines = [
        "import cardigan",
        f"from cardigan.explore.views import SamplingOptions, default_directions, {function_name}",
        "",
        f"snapshot = cardigan.load({str(_model_path(run, query))!r}).snapshot",
        _options_line(query),
        f"images = {expression}",
    ]
    return "\n".join(lines)


def _options_line(query: Query) -> str:
    label, truncation, amounts = query_params.sampling_options(query)
    return OPTIONS_LINE.format(
        label=label,
        truncation=truncation,
        amounts=amounts,
        directions="default_directions(snapshot)" if amounts else "None",
    )


def _comma_separated(seeds: Sequence[int | str]) -> str:
    return ",".join(map(str, seeds))


def _decimal(value: float) -> str:
    """Return a number for the command line: all digits, no exponent."""
    return f"{Decimal(repr(value)):f}"
