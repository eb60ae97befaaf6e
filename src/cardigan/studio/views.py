"""What the room's thread does for each address that needs a model: values of a request in, the answer's bytes or values out.

Imported when the first of them is asked for, since it brings torch.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.explore import game
from cardigan.explore.directions import Directions
from cardigan.explore.views import Style, labels_for, mix_rows, pad_pictures, rows_sheet, seeds_pictures, walk_pictures
from cardigan.figures.film import KINDS, film
from cardigan.figures.grid import png, tile
from cardigan.figures.layout import GAP, SheetLayout
from cardigan.latents import sample_labels
from cardigan.objective.losses import find_loss
from cardigan.run.directory import RunDirectory
from cardigan.run.players import Players
from cardigan.run.snapshot import numbered, sample_pixels
from cardigan.shapes import Labels, Pixels
from cardigan.studio import asking, memory, sheets, upload
from cardigan.studio.asking import MAX_GAME, MAX_SEEDS, NUM_NEAREST
from cardigan.studio.models import Models
from cardigan.studio.opinions import logits_of, told
from cardigan.studio.reading import Reading, checkpoints
from cardigan.studio.reading import sheets as sheets_of
from cardigan.studio.rooms import Left

Query = Mapping[str, str]
Wanted = Callable[[], bool]
MAX_IMAGES = 10**15
MAX_FRAMES, MAX_STOPS, MAX_MIXED = 240, 32, 64
QUICK = 1
"""How much a PNG is pressed that is looked at once."""


class Views:
    """Everything that is drawn from the models of one folder's runs; for one thread."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._models = reading, Models(reading.folder)

    def game(self, run: RunDirectory, query: Query) -> dict[str, Any]:
        """`/api/game`: D's opinions of generated pictures and of real ones."""
        players, fake, labels = self._game(run, query)
        real = self._real(run, players, len(fake))
        return {
            "images_seen": players.images_seen,
            "fake": game.opinions(players, fake, labels).tolist(),
            "real": self._opinions_of_real(run, players, real),
            "probability": find_loss(players.snapshot.config.objective.loss).probability is not None,
            "layout": _grid_json(fake),
        }

    def game_picture(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/game.png`: the pictures of the game, or what D wants changed in the generated ones."""
        kind = asking.one_of(query, "kind", "fake", ("fake", "real", "heat"))
        players, fake, labels = self._game(run, query)
        if kind == "real":
            real = self._real(run, players, len(fake))
            if real is None:
                raise CardiganError("This run has no sample sheet to take real pictures from.")
            return png(tile(real), QUICK)
        return png(tile(fake if kind == "fake" else game.heat(game.wanted_change(players, fake, labels))), QUICK)

    def latent(self, run: RunDirectory, query: Query) -> dict[str, Any]:
        """`/api/latent`: what the latent room can do with this run."""
        checkpoint = _checkpoint(query)
        snapshot = self._models.snapshot(run, checkpoint)
        directions = self._models.directions(run, checkpoint)
        config, spec = snapshot.config, snapshot.spec
        return {
            **{"size": config.latent.size, "distribution": config.latent.distribution},
            **{"classes": spec.classes, "class_names": list(spec.class_names), "checkpoints": checkpoints(run)},
            "directions": [{"share": float(share)} for share in directions.share],
            "nearest": memory.at_hand(self._reading.config(run).data),
        }

    def pad(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/pad.png`."""
        corners = asking.seeds(query.get("corners", "0-3"), "corners", 4)
        if len(corners) != 4:
            raise asking.Wrong(f"corners are {len(corners)} seeds: expected four, such as 0,1,2,3.")
        place = asking.real(query, "x", 0.5, 0, 1), asking.real(query, "y", 0.5, 0, 1)
        grid, span = asking.whole(query, "grid", 1, 1, 8), asking.real(query, "span", 0.5, 0, 1)
        snapshot = self._models.snapshot(run, _checkpoint(query))
        return _quick(pad_pictures(snapshot, corners, place, grid, span, *self._style(run, query)))

    def seeds(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/seeds.png`."""
        seeds = asking.seeds(query.get("seeds", "0-15"), "seeds", MAX_SEEDS)
        return _quick(seeds_pictures(self._models.snapshot(run, _checkpoint(query)), seeds, *self._style(run, query)))

    def moments(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/moments.png`: the same seeds at every checkpoint that is kept, or at those named, a row each."""
        seeds = asking.seeds(query.get("seeds", "0-7"), "seeds", 32)
        kept = asking.seeds(query["checkpoints"], "checkpoints", MAX_STOPS) if query.get("checkpoints") else checkpoints(run)
        if not kept:
            raise CardiganError("This run keeps no checkpoint yet: wait for its first one.")
        rows = [seeds_pictures(self._models.snapshot(run, seen), seeds, *self._style(run, {**query, "checkpoint": str(seen)})) for seen in kept]
        return png(rows_sheet(rows), QUICK)

    def mix(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/mix.png`: each group and its average, a row each, and their sum."""
        add, subtract = (asking.groups(query.get(name, ""), name, MAX_MIXED) for name in ("add", "subtract"))
        if not add:
            raise asking.Wrong("Nothing is added: give seeds, such as add=1,2,3;4,5.")
        snapshot = self._models.snapshot(run, _checkpoint(query))
        return png(rows_sheet(mix_rows(snapshot, add, subtract, *self._style(run, query))), QUICK)

    def walk(self, run: RunDirectory, query: Query) -> tuple[bytes, str]:
        """`/api/walk`: the film and its kind."""
        seeds = asking.seeds(query.get("seeds", "0-2"), "seeds", MAX_STOPS)
        frames, fps = asking.whole(query, "frames", 48, 2, MAX_FRAMES), asking.real(query, "fps", 24, 1, 60)
        path, kind = asking.one_of(query, "path", "auto", ("auto", "linear", "spherical")), asking.one_of(query, "format", "webp", KINDS)
        loop = asking.one_of(query, "loop", "0", ("0", "1")) == "1"
        spherical = {"auto": None, "linear": False, "spherical": True}[path]
        snapshot = self._models.snapshot(run, _checkpoint(query))
        return film(walk_pictures(snapshot, seeds, frames, spherical, loop, *self._style(run, query)), fps, kind), kind

    def nearest(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/nearest.png`: a sample, then the training pictures nearest to it."""
        seed = asking.whole(query, "seed", 0, 0, asking.MAX_SEED - 1)
        snapshot, data = self._models.snapshot(run, _checkpoint(query)), self._reading.config(run).data
        sample = seeds_pictures(snapshot, [seed], *self._style(run, query))
        source = self._models.kept(run, "training pictures", lambda: memory.training_pictures(run, data))
        return _quick(torch.cat([sample, memory.nearest_pictures(source, data, sample, NUM_NEAREST)]))

    def invert(self, run: RunDirectory, query: Query, content: bytes, unwanted: Wanted) -> dict[str, Any]:
        """`/api/invert`: the latent whose picture is nearest to one that was sent."""
        snapshot = self._models.snapshot(run, _checkpoint(query))
        label = labels_for(snapshot, [0], query["label"]) if query.get("label") else None
        given = upload.picture(content, snapshot.config.data)

        def told(*_: object) -> None:
            if unwanted():
                raise Left

        from cardigan.explore.inversion import invert

        found = invert(snapshot, given, None if label is None else int(label[0]), told=told)
        encoded = base64.b64encode(png(found.pixels[0])).decode()
        return {"z": found.z[0].tolist(), "error": found.error, "label": found.label, "picture": f"data:image/png;base64,{encoded}"}

    def _style(self, run: RunDirectory, query: Query) -> tuple[Style, Directions | None]:
        amounts = asking.amounts(query.get("directions", ""))
        style = Style(query.get("label", "")[:200], asking.real(query, "truncation", 1.0, 0, 1), amounts)
        return style, self._models.directions(run, _checkpoint(query)) if amounts else None

    def _game(self, run: RunDirectory, query: Query) -> tuple[Players, Pixels, Labels | None]:
        """Return both players, generated pictures as `cardigan sample -n` draws them, and their classes."""
        keys = numbered(asking.whole(query, "count", 16, 1, MAX_GAME), asking.whole(query, "seed", 0, 0, asking.MAX_SEED - 1))
        players = self._models.players(run, _checkpoint(query))
        classes = players.snapshot.spec.classes
        labels = sample_labels(keys, classes) if classes else None
        return players, sample_pixels(players.snapshot, keys, labels), labels

    def _real(self, run: RunDirectory, players: Players, count: int) -> Pixels | None:
        """Return real pictures from the newest sample sheet; None where it has none that D could look at."""
        found = sheets_of(run)
        if not found:
            return None
        layout = self._reading.layout(run, players.snapshot.config)
        sheet = sheets.opened_sheet(self._reading.folder.file(run, run.sample(found[-1]), "sample sheet"), layout)
        pixels = torch.from_numpy(sheets.tiles_of(sheet, layout, real=True)).permute(0, 3, 1, 2).contiguous()[:count]
        return pixels if pixels.shape[1] == players.snapshot.spec.channels else None

    def _opinions_of_real(self, run: RunDirectory, players: Players, real: Pixels | None) -> list[float]:
        """Return D's logits of the sheet's real pictures; where it must know their classes, which no sheet tells, those that training told of."""
        if real is None:
            return []
        if not players.snapshot.spec.classes:
            return game.opinions(players, real, None).tolist()
        track = self._reading.track(run)
        with track.lock:
            known = [event for event in told(track) if event.images_seen <= players.images_seen]
            return logits_of(known[-1], "logits_real")[: len(real)] if known else []


def _checkpoint(query: Query) -> int | None:
    return asking.optional(query, "checkpoint", 0, MAX_IMAGES)


def _quick(pixels: Pixels) -> bytes:
    return png(tile(pixels), QUICK)


def _grid_json(pixels: Pixels) -> dict[str, int]:
    count, channels, height, width = pixels.shape
    layout = SheetLayout(count, height, width)
    sides = {"columns": layout.columns, "rows": layout.rows, "width": width, "height": height, "channels": channels, "gap": GAP}
    return {"count": count, **sides}
