"""`cardigan starters`: list the installed starters, or show them as one picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cardigan.cli.output_path import check_output_path
from cardigan.cli.parsing import parse
from cardigan.models.starters import INSTALL, PREVIEW_FILE, Starter, list_starters


@dataclass(frozen=True, kw_only=True)
class StartersOptions:
    """List the starters: what each shows, its size, classes, license, score and command."""

    out: Path | None = None
    """Also write a PNG with a row of images of each starter."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace --out if it exists."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def main(argv: list[str]) -> int:
    options = parse(StartersOptions, argv, "cardigan starters")
    if options.out is not None:
        check_output_path(options.out, {".png"}, options.overwrite)
    starters = list_starters()
    if options.json:
        rows = [{**asdict(starter), "folder": str(starter.folder)} for starter in starters]
        for row in rows:
            del row["features"]
        print(json.dumps(rows, indent=1))
    elif not starters:
        print(f"No starters are installed: {INSTALL}.")
    else:
        print("\n".join(line for starter in starters for line in _lines(starter)))
        print(f"Start from one:    cardigan train FOLDER --from {starters[0].name}    (or --from auto)")
    if options.out is not None and starters:
        _write_picture(options.out, starters)
    return 0


def _lines(starter: Starter) -> list[str]:
    names = starter.class_names
    classes = f"{len(names)} ({names[0]} to {names[-1]})" if names else "none"
    channels = {1: "gray", 3: "RGB", 4: "RGBA"}[starter.channels]
    return [
        starter.name,
        f"  shows    {starter.title}",
        f"  images   {starter.height}x{starter.width} {channels}; classes: {classes}",
        f"  license  {starter.license}: {starter.attribution}",
        f"  score    Frechet distance over EfficientNet-Lite2 {starter.score:.1f} (2,000 samples)",
        f"  picture  {starter.folder / PREVIEW_FILE}",
    ]


def _write_picture(path: Path, starters: tuple[Starter, ...]) -> None:
    import io

    from PIL import Image

    from cardigan.files.atomic import write_bytes

    previews = [Image.open(starter.folder / PREVIEW_FILE).convert("RGB") for starter in starters]
    sheet = Image.new("RGB", (max(each.width for each in previews), sum(each.height for each in previews)), "white")
    top = 0
    for preview in previews:
        sheet.paste(preview, (0, top))
        top += preview.height
    png = io.BytesIO()
    sheet.save(png, "png")
    write_bytes(path, png.getvalue())
