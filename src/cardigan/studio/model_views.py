"""Views that need a model. Each takes a request's query and returns the response's bytes or JSON values.

Imported on first use, because it imports torch.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.explore import saliency
from cardigan.explore.directions import Directions
from cardigan.explore.views import (
    SamplingOptions,
    arithmetic_rows,
    interpolation_images,
    labels_for,
    seed_images,
    stack_rows,
    walk_images,
)
from cardigan.figures.animation import encode_animation
from cardigan.figures.grid import make_grid, png_bytes
from cardigan.figures.layout import GAP, GridLayout
from cardigan.hardware.device import find_device
from cardigan.http.errors import ClientDisconnected
from cardigan.latents.points import encode_latent
from cardigan.models.run_networks import RunNetworks
from cardigan.models.sampling import random_labels, sample_keys, sample_pixels
from cardigan.objective.losses import Loss, find_loss
from cardigan.run.directory import RunDirectory
from cardigan.shapes import Labels, Pixels
from cardigan.studio import query_params, sample_sheets, upload
from cardigan.studio.logits import event_logits, logit_center, real_above_fake, sample_events
from cardigan.studio.model_cache import ModelCache
from cardigan.studio.nearest import has_training_images, nearest_images, open_training_images
from cardigan.studio.query_params import NUM_NEIGHBORS
from cardigan.studio.run_reader import RunReader, checkpoint_images_seen, sheet_images_seen

Query = Mapping[str, str]
IsCancelled = Callable[[], bool]
FAST_PNG_LEVEL = 1
"""Compression level of PNGs for display."""


class ModelViews:
    """Views of the models of one folder's runs. Not thread-safe."""

    def __init__(self, run_reader: RunReader, device: str = "cpu") -> None:
        """`device` runs the models; auto uses a GPU if available."""
        resolved_device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._run_reader, self._models = run_reader, ModelCache(run_reader.folder, find_device(resolved_device))

    def discriminator(self, run: RunDirectory, query: Query) -> dict[str, Any]:
        """`/api/discriminator`: the logits of generated and real images."""
        networks, fake, labels = self._discriminator_sample(run, query)
        real_logits = self._real_logits(run, networks, self._real_images(run, networks, len(fake)))
        fake_logits = saliency.discriminator_logits(networks, fake, labels).tolist()
        loss = find_loss(networks.snapshot.config.objective.loss)
        return {
            "images_seen": networks.images_seen,
            "fake": fake_logits,
            "real": real_logits,
            "fake_probabilities": _probabilities(loss, fake_logits),
            "real_probabilities": _probabilities(loss, real_logits),
            "decision_boundary": loss.decision_boundary,
            "center": logit_center(real_logits, fake_logits)
            if loss.decision_boundary is None
            else loss.decision_boundary,
            "real_above_fake": real_above_fake(real_logits, fake_logits),
            "layout": _layout_json(fake),
        }

    def discriminator_image(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/discriminator.png`: generated images, real images, or input gradients of the generated ones."""
        kind = query_params.choice(query, "kind", "fake", ("fake", "real", "gradient"))
        networks, fake, labels = self._discriminator_sample(run, query)
        if kind == "real":
            real = self._real_images(run, networks, len(fake))
            if real is None:
                raise CardiganError("This run has no sample sheet to take real images from.")
            return png_bytes(make_grid(real), FAST_PNG_LEVEL)
        return png_bytes(
            make_grid(
                fake if kind == "fake" else saliency.signed_heatmap(saliency.input_gradient(networks, fake, labels))
            ),
            FAST_PNG_LEVEL,
        )

    def latent(self, run: RunDirectory, query: Query) -> dict[str, Any]:
        """`/api/latent`: the run's latent space, classes, checkpoints and directions."""
        checkpoint = query_params.checkpoint(query)
        snapshot = self._models.snapshot(run, checkpoint)
        directions = self._models.directions(run, checkpoint)
        config, spec = snapshot.config, snapshot.spec
        return {
            **{"size": config.latent.size, "distribution": config.latent.distribution},
            **{
                "classes": spec.num_classes,
                "class_names": list(spec.class_names),
                "checkpoints": checkpoint_images_seen(run),
            },
            "directions": [{"explained_variance_ratio": float(ratio)} for ratio in directions.explained_variance_ratio],
            "has_training_images": has_training_images(self._run_reader.config(run).data),
        }

    def interpolation(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/interpolation.png`."""
        grid, snapshot = (
            query_params.interpolation_grid(query),
            self._models.snapshot(run, query_params.checkpoint(query)),
        )
        return _tiled_png(
            interpolation_images(
                snapshot, grid.corners, grid.position, grid.grid, grid.extent, *self._sampling_options(run, query)
            )
        )

    def seeds(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/seeds.png`."""
        seeds = query_params.seed_points(query)
        return _tiled_png(
            seed_images(
                self._models.snapshot(run, query_params.checkpoint(query)), seeds, *self._sampling_options(run, query)
            )
        )

    def checkpoints(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/checkpoints.png`: the same seeds at all checkpoints or at those in the query, one row each."""
        seeds, available = query_params.points_and_checkpoints(query, checkpoint_images_seen(run))
        if not available:
            raise CardiganError("This run has no checkpoint yet: wait for the first one.")
        rows = [
            seed_images(
                self._models.snapshot(run, images_seen),
                seeds,
                *self._sampling_options(run, {**query, "checkpoint": str(images_seen)}),
            )
            for images_seen in available
        ]
        return png_bytes(stack_rows(rows), FAST_PNG_LEVEL)

    def arithmetic(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/arithmetic.png`: one row per group with its mean, and the result."""
        add, subtract = query_params.arithmetic_groups(query)
        snapshot = self._models.snapshot(run, query_params.checkpoint(query))
        return png_bytes(
            stack_rows(arithmetic_rows(snapshot, add, subtract, *self._sampling_options(run, query))), FAST_PNG_LEVEL
        )

    def walk(self, run: RunDirectory, query: Query) -> tuple[bytes, str]:
        """`/api/walk`: the animation and its format."""
        walk, snapshot = query_params.latent_walk(query), self._models.snapshot(run, query_params.checkpoint(query))
        frames = walk_images(
            snapshot,
            walk.stops,
            walk.frames,
            query_params.SPHERICAL_BY_PATH[walk.path],
            walk.loop,
            *self._sampling_options(run, query),
        )
        return encode_animation(frames, walk.fps, walk.format), walk.format

    def nearest(self, run: RunDirectory, query: Query) -> bytes:
        """`/api/nearest.png`: a sample, then its nearest training images."""
        seed = query_params.seed(query)
        snapshot, data = self._models.snapshot(run, query_params.checkpoint(query)), self._run_reader.config(run).data
        sample = seed_images(snapshot, [seed], *self._sampling_options(run, query))
        source = self._models.cached(run, "training images", lambda: open_training_images(run, data))
        return _tiled_png(torch.cat([sample, nearest_images(source, data, sample, NUM_NEIGHBORS)]))

    def invert(self, run: RunDirectory, query: Query, content: bytes, is_cancelled: IsCancelled) -> dict[str, Any]:
        """`/api/invert`: the latent whose image is nearest to the uploaded one."""
        snapshot = self._models.snapshot(run, query_params.checkpoint(query))
        label = labels_for(snapshot, [0], query["label"]) if query.get("label") else None
        image = upload.decode_upload(content, snapshot.config.data)

        def check_cancelled(*_: object) -> None:
            if is_cancelled():
                raise ClientDisconnected

        from cardigan.explore.inversion import invert

        result = invert(snapshot, image, None if label is None else int(label[0]), progress=check_cancelled)
        encoded = base64.b64encode(png_bytes(result.pixels[0])).decode()
        return {
            "z": result.z[0].tolist(),
            "latent": encode_latent(result.z, result.label),
            "rmse": result.rmse,
            "label": result.label,
            "image": f"data:image/png;base64,{encoded}",
        }

    def _sampling_options(self, run: RunDirectory, query: Query) -> tuple[SamplingOptions, Directions | None]:
        options = SamplingOptions(*query_params.sampling_options(query))
        return options, self._models.directions(
            run, query_params.checkpoint(query)
        ) if options.direction_amounts else None

    def _discriminator_sample(self, run: RunDirectory, query: Query) -> tuple[RunNetworks, Pixels, Labels | None]:
        """Return the networks, the images that `cardigan sample -n` generates, and their labels."""
        keys = sample_keys(*query_params.sample_count_and_seed(query))
        networks = self._models.networks(run, query_params.checkpoint(query))
        labels = random_labels(networks.snapshot.spec, keys)
        return networks, sample_pixels(networks.snapshot, keys, labels), labels

    def _real_images(self, run: RunDirectory, networks: RunNetworks, count: int) -> Pixels | None:
        """Return real images from the newest sample sheet. None without a sheet, or if its channels do not fit D."""
        available = sheet_images_seen(run)
        if not available:
            return None
        layout = self._run_reader.layout(run, networks.snapshot.config)
        sheet = sample_sheets.read_sheet(
            self._run_reader.folder.file(run, run.sample_path(available[-1]), "sample sheet"), layout
        )
        pixels = (
            torch.from_numpy(sample_sheets.crop_tiles(sheet, layout, real=True))
            .permute(0, 3, 1, 2)
            .contiguous()[:count]
        )
        return pixels if pixels.shape[1] == networks.snapshot.spec.channels else None

    def _real_logits(self, run: RunDirectory, networks: RunNetworks, real: Pixels | None) -> list[float]:
        """Return D's logits of the sheet's real images.

        A sheet has no labels, so for a conditional D they are read from the journal.
        """
        if real is None:
            return []
        if not networks.snapshot.spec.num_classes:
            return saliency.discriminator_logits(networks, real, None).tolist()
        run_series = self._run_reader.run_series(run)
        with run_series.lock:
            events = [event for event in sample_events(run_series) if event.images_seen <= networks.images_seen]
            return event_logits(events[-1], "real_logits")[: len(real)] if events else []


def _probabilities(loss: Loss, logits: list[float]) -> list[float] | None:
    """Return D's probability that each image is real, None if logits have no decision boundary."""
    if loss.decision_boundary is None or loss.probability is None:
        return None
    return loss.probability(torch.tensor(logits) - loss.decision_boundary).tolist()


def _tiled_png(pixels: Pixels) -> bytes:
    return png_bytes(make_grid(pixels), FAST_PNG_LEVEL)


def _layout_json(pixels: Pixels) -> dict[str, int]:
    count, channels, height, width = pixels.shape
    layout = GridLayout(count, height, width)
    sizes = {
        "columns": layout.columns,
        "rows": layout.rows,
        "width": width,
        "height": height,
        "channels": channels,
        "gap": GAP,
    }
    return {"count": count, **sizes}
