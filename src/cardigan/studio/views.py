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
from cardigan.explore.points import point_text
from cardigan.explore.views import Style, labels_for, mix_rows, pad_pictures, rows_sheet, seeds_pictures, walk_pictures
from cardigan.figures.film import film
from cardigan.figures.grid import png, tile
from cardigan.figures.layout import GAP, SheetLayout
from cardigan.hardware.device import find_device
from cardigan.latents import sample_labels
from cardigan.objective.losses import find_loss
from cardigan.run.directory import RunDirectory
from cardigan.run.players import Players
from cardigan.run.snapshot import numbered, sample_pixels
from cardigan.shapes import Labels, Pixels
from cardigan.studio import asking, memory, sheets, upload
from cardigan.studio.asking import NUM_NEAREST
from cardigan.studio.models import Models
from cardigan.studio.opinions import logits_of, told
from cardigan.studio.reading import Reading, checkpoints
from cardigan.studio.reading import sheets as sheets_of
from cardigan.studio.rooms import Left

Query = Mapping[str, str]
Wanted = Callable[[], bool]
QUICK = 1
"""How much a PNG is pressed that is looked at once."""


class Views:
    """Everything that is drawn from the models of one folder's runs; for one thread."""

    def __init__(self, reading: Reading, device: str = "cpu") -> None:
        """`device` is where models are kept and drawn with; auto is a GPU where there is one."""
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._reading, self._models = reading, Models(reading.folder, find_device(chosen))

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
        checkpoint = asking.checkpoint(query)
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
        pad, snapshot = asking.pad(query), self._models.snapshot(run, asking.checkpoint(query))
        return _quick(pad_pictures(snapshot, pad.corners, pad.place, pad.grid, pad.span, *self._style(run, query)))

    def seeds(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/seeds.png`."""
        seeds = asking.shown_seeds(query)
        return _quick(seeds_pictures(self._models.snapshot(run, asking.checkpoint(query)), seeds, *self._style(run, query)))

    def moments(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/moments.png`: the same seeds at every checkpoint that is kept, or at those named, a row each."""
        seeds, kept = asking.moments(query, checkpoints(run))
        if not kept:
            raise CardiganError("This run keeps no checkpoint yet: wait for its first one.")
        rows = [seeds_pictures(self._models.snapshot(run, seen), seeds, *self._style(run, {**query, "checkpoint": str(seen)})) for seen in kept]
        return png(rows_sheet(rows), QUICK)

    def mix(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/mix.png`: each group and its average, a row each, and their sum."""
        add, subtract = asking.mixed(query)
        snapshot = self._models.snapshot(run, asking.checkpoint(query))
        return png(rows_sheet(mix_rows(snapshot, add, subtract, *self._style(run, query))), QUICK)

    def walk(self, run: RunDirectory, query: Query) -> tuple[bytes, str]:
        """`/api/walk`: the film and its kind."""
        walk, snapshot = asking.walk(query), self._models.snapshot(run, asking.checkpoint(query))
        frames = walk_pictures(snapshot, walk.stops, walk.frames, asking.SPHERICAL[walk.path], walk.loop, *self._style(run, query))
        return film(frames, walk.fps, walk.kind), walk.kind

    def nearest(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/nearest.png`: a sample, then the training pictures nearest to it."""
        seed = asking.one_seed(query)
        snapshot, data = self._models.snapshot(run, asking.checkpoint(query)), self._reading.config(run).data
        sample = seeds_pictures(snapshot, [seed], *self._style(run, query))
        source = self._models.kept(run, "training pictures", lambda: memory.training_pictures(run, data))
        return _quick(torch.cat([sample, memory.nearest_pictures(source, data, sample, NUM_NEAREST)]))

    def invert(self, run: RunDirectory, query: Query, content: bytes, unwanted: Wanted) -> dict[str, Any]:
        """`/api/invert`: the latent whose picture is nearest to one that was sent."""
        snapshot = self._models.snapshot(run, asking.checkpoint(query))
        label = labels_for(snapshot, [0], query["label"]) if query.get("label") else None
        given = upload.picture(content, snapshot.config.data)

        def told(*_: object) -> None:
            if unwanted():
                raise Left

        from cardigan.explore.inversion import invert

        found = invert(snapshot, given, None if label is None else int(label[0]), told=told)
        encoded = base64.b64encode(png(found.pixels[0])).decode()
        return {
            "z": found.z[0].tolist(),
            "point": point_text(found.z, found.label),
            "error": found.error,
            "label": found.label,
            "picture": f"data:image/png;base64,{encoded}",
        }

    def _style(self, run: RunDirectory, query: Query) -> tuple[Style, Directions | None]:
        style = Style(*asking.style(query))
        return style, self._models.directions(run, asking.checkpoint(query)) if style.amounts else None

    def _game(self, run: RunDirectory, query: Query) -> tuple[Players, Pixels, Labels | None]:
        """Return both players, generated pictures as `cardigan sample -n` draws them, and their classes."""
        keys = numbered(*asking.game(query))
        players = self._models.players(run, asking.checkpoint(query))
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


def _quick(pixels: Pixels) -> bytes:
    return png(tile(pixels), QUICK)


def _grid_json(pixels: Pixels) -> dict[str, int]:
    count, channels, height, width = pixels.shape
    layout = SheetLayout(count, height, width)
    sides = {"columns": layout.columns, "rows": layout.rows, "width": width, "height": height, "channels": channels, "gap": GAP}
    return {"count": count, **sides}
