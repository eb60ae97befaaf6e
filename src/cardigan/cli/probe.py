"""`cardigan probe RUN DATA`: what a run's discriminator makes of pictures, and what its features are."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.cli.writing import check_out
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.explore.probing import Probed
    from cardigan.run.players import Players

STRANGEST = 50
REMOVAL_SEEDS = list(range(10))


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Ask a run's discriminator about pictures: which are strange to it, how well its features tell their classes, and what they look at."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory or one of its checkpoints; a lone generator.safetensors holds no discriminator."""
    data: Annotated[str, tyro.conf.Positional]
    """The pictures: mnist (its test digits), a folder, an archive, an array, a table, as for training."""
    labels: str = ""
    """Where their classes come from, if they have any: folders, a column, a file (docs/guides/data.md)."""
    most: int = 10_000
    """Look at so many pictures, and compare with so many that were trained on."""
    out: Path = Path("probe")
    """A new folder for strange.csv, strangest.png, features.png beside those of D before training, and removal.png."""


def main(words: list[str]) -> int:
    """Probe as the words say; return the exit code."""
    options = parse(ProbeOptions, words, "cardigan probe")
    check_out(options.out, {""}, overwrite=False)

    from cardigan.explore.probing import probed
    from cardigan.run import atomic
    from cardigan.run.players import read_players

    players = read_players(options.run)
    found = probed(players, options.data, options.labels, options.most)
    files = {"strange.csv": _table(found), "strangest.png": _strangest(found), **_sheets(players, found)}
    with atomic.replacement(options.out) as folder:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    print(f"{len(found.given.titles):,} pictures compared with {found.compared_with}; the strangest: {_first(found)}")
    if found.linear_error is not None and found.pixel_error is not None:
        print(
            f"a linear classifier on D's features, fitted to {found.labelled:,} of them, errs on {found.linear_error:.1%} of the others; "
            f"on raw pixels {found.pixel_error:.1%}"
        )
    print(f"{', '.join(files)} in {options.out}")
    return 0


def _order(found: "Probed") -> list[int]:
    return found.strangeness.argsort(descending=True, stable=True).tolist()


def _first(found: "Probed") -> str:
    return found.given.titles[_order(found)[0]]


def _table(found: "Probed") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["strangeness", "picture"])
    writer.writerows([f"{float(found.strangeness[place]):.4f}", found.given.titles[place]] for place in _order(found))
    return text.getvalue().encode(errors="surrogateescape")


def _strangest(found: "Probed") -> bytes:
    from cardigan.figures.contact import Section, contact_sheet
    from cardigan.figures.film import coloured, enlarged

    order = _order(found)
    sections = []
    for title, places in (("the strangest", order[:STRANGEST]), ("the most usual", order[::-1][:STRANGEST])):
        pictures = enlarged(coloured(found.given.pixels[places]), 64).permute(0, 2, 3, 1).contiguous().numpy()
        sections.append(Section(title, list(pictures)))
    return contact_sheet(sections, max(sections[0].pictures[0].shape[:2]))


def _sheets(players: "Players", found: "Probed") -> dict[str, bytes]:
    """Return the sheets that this network allows; D with classes is told the picture's own, or the first where there is none."""
    from cardigan.explore.sheets import feature_rows, removal_rows
    from cardigan.explore.views import rows_sheet
    from cardigan.figures.grid import png
    from cardigan.run.players import before_training

    spec, given = players.snapshot.spec, found.given
    labels = None
    if spec.classes:
        known = given.labels if given.labels is not None and given.classes == spec.classes else None
        labels = (given.pixels.new_zeros(len(given.pixels)).long() if known is None else known.clamp(min=0))[:1000]
    files = {}
    try:
        files["features.png"] = png(rows_sheet(feature_rows(players, given.pixels[:1000], labels)))
        files["features-untrained.png"] = png(rows_sheet(feature_rows(before_training(players), given.pixels[:1000], labels)))
    except CardiganError as error:  # a network without rectifiers has no guided gradients; the rest can be shown
        print(f"features.png is left out: {error}")
    files["removal.png"] = png(rows_sheet(removal_rows(players.snapshot, REMOVAL_SEEDS)))
    return files
