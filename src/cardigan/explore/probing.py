"""Which pictures of a source are strange to a run's discriminator, and how much its features know of their classes.

Opens sources; writes no file.
"""

import contextlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cardigan.config import Config, DataConfig
from cardigan.data.decoding import frame_of
from cardigan.data.formats.labels import classes_of
from cardigan.data.pictures import EMBEDDED, open_pictures, placed, reader_of
from cardigan.data.prepared import decoded_now
from cardigan.data.reader import Reader, Unreadable
from cardigan.data.sharded.shards import is_shards
from cardigan.errors import CardiganError
from cardigan.explore.features import NEAREST, features, linear_error, strangeness
from cardigan.explore.frames import in_frame
from cardigan.pixels import encode
from cardigan.rng import stream
from cardigan.run.players import Players
from cardigan.shapes import Pixels

MOST = 10_000
"""Pictures that are looked at, of either source, unless told otherwise: each is compared with each."""
FEWEST_LABELLED = 50
TESTED_SHARE = 5
"""One labelled picture in so many tests the classifier that is fitted to the others."""


@dataclass(frozen=True)
class Given:
    """Pictures to look at, in a run's frame."""

    titles: list[str]
    pixels: Pixels
    labels: Int64[Tensor, " _"] | None
    """-1 where a picture has none; None where none has one."""
    classes: int


@dataclass(frozen=True)
class Probed:
    """What D makes of them."""

    given: Given
    strangeness: Float[Tensor, " _"]
    compared_with: str
    linear_error: float | None
    """Test error of a linear classifier on D's features, 0..1; None without enough labels."""
    pixel_error: float | None
    """The same on raw pixels."""
    labelled: int
    """Pictures that classifier was fitted to."""


def probed(players: Players, source: str, labels: str = "", most: int = MOST) -> Probed:
    """Return what the run's D makes of a source's pictures, `most` of them.

    A picture's strangeness is its distance to the nearest pictures the run was trained on, in D's features and in terms of those pictures' own
    distances (`features.strangeness`); where the source is the one that was trained on, to the nearest others.
    Raises CardiganError for sources that cannot be read by number, and for a D without features of its own.
    """
    config = players.snapshot.config
    given = pictures_of(config, source, labels, most)
    found = features(players, given.pixels)
    same = placed(source) == config.data.source and source not in EMBEDDED
    if same:
        scores, against = strangeness(found, found, themselves=True), "each other"
    else:
        known = trained_on(config, most)
        scores, against = strangeness(features(players, known), found), f"{len(known):,} pictures of {config.data.source}"
    return Probed(given, scores, against, *_linear(found, given))


def pictures_of(config: Config, source: str, labels: str, most: int) -> Given:
    """Return a source's pictures in the frame of a run, spread evenly over it if it has more than `most`; of embedded digits the test ones."""
    if most < NEAREST + 1:
        raise CardiganError(f"The number of pictures is {most}: expected at least {NEAREST + 1}.")
    if source in EMBEDDED:
        digits = EMBEDDED[source]("test")
        count = min(most, len(digits))
        places = spread_evenly(count, len(digits))
        pixels = encode(digits.images(places, config.data))
        return Given([f"test digit {number}" for number in places.tolist()], pixels, digits.labels[places], digits.classes)
    if is_shards(source):
        raise CardiganError(f"{source} are shards, which are read as they come: give a folder, an archive or a table.")
    data = replace(config.data, source=placed(source), labels=labels, classes=0)
    reader = reader_of(data)
    pixels, entries = _decoded(reader, replace(data, source=config.data.source), spread_evenly(min(most, len(reader)), len(reader)).tolist())
    numbers, names = (None, []) if reader.labels is None else classes_of(reader.labels)
    own = None if numbers is None else torch.tensor([-1 if numbers[entry] is None else numbers[entry] for entry in entries])
    return Given([reader.title(entry) for entry in entries], pixels, own, len(names))


def _decoded(reader: Reader, data: DataConfig, entries: list[int]) -> tuple[Pixels, list[int]]:
    """Return a reader's pictures in the frame that `data` describes, and which of the entries could be read."""
    if data.source not in EMBEDDED:
        found = decoded_now(reader, frame_of(data), data.workers, entries=entries)
        return found.pixels.contiguous(), found.entries
    rows, usable = [], []
    for entry in entries:
        with contextlib.suppress(Unreadable):
            rows.append(in_frame(reader.read(entry), data))
            usable.append(entry)
    if len(usable) < 2:
        raise CardiganError(f"{reader.name} holds {len(usable)} pictures that can be read: expected at least 2.")
    return torch.cat(rows), usable


def trained_on(config: Config, most: int) -> Pixels:
    """Return some of the pictures a run was trained on, spread evenly over them."""
    source = open_pictures(config.data).training
    count = min(most, len(source.pixels))
    return encode(source.images(spread_evenly(count, len(source.pixels)), config.data))


def spread_evenly(count: int, total: int) -> Int64[Tensor, " _"]:
    """Return `count` places spread evenly over `total`: a source's first pictures may all be of one class."""
    return torch.arange(count) * total // max(count, 1)


def _linear(found: Float[Tensor, "_ _"], given: Given) -> tuple[float | None, float | None, int]:
    if given.labels is None or given.classes < 2:
        return None, None, 0
    usable = (given.labels >= 0).nonzero().flatten()
    if len(usable) < FEWEST_LABELLED:
        return None, None, 0
    usable = usable[torch.randperm(len(usable), generator=stream(0, "probe", 0))]
    tested, fitted = usable[: len(usable) // TESTED_SHARE], usable[len(usable) // TESTED_SHARE :]
    errors = [
        linear_error(rows[fitted], given.labels[fitted], rows[tested], given.labels[tested], given.classes)
        for rows in (found, given.pixels.flatten(1).float() / 127.5 - 1)
    ]
    return errors[0], errors[1], len(fitted)
