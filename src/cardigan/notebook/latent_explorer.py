"""The notebook widget of `Model.explore`: a pad between four latents, sliders, and the image at the handle.

Imported on first use, because it needs anywidget (pip install 'cardigan[notebook]'). What it looks like is in `static`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from PIL import Image
from traitlets import Bytes, Float, Int, List, TraitError, Unicode, validate

from cardigan.errors import CardiganError
from cardigan.explore.views import (
    NUM_DIRECTIONS,
    SamplingOptions,
    default_directions,
    interpolation_inputs,
    seed_images,
)
from cardigan.figures.grid import pillow_image, png_bytes
from cardigan.models.sampling import class_index, generate_pixels
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import ClassWeights, Labels, Latents

STATIC = Path(__file__).parent / "static"
FAST_PNG_LEVEL = 1
CONTROLS = ("corners", "x", "y", "truncation", "label", "direction_amounts", "request")
"""The traits that the image depends on, and the number of the browser's request."""
MAX_SEED = 2**53 - 1
"""The largest integer that a browser stores without rounding."""


class LatentExplorer(anywidget.AnyWidget):
    """A pad between the latents of four seeds. Set the traits below to move it from Python.

    The browser sends its controls with the number of a `request`, and sends no more until `answer` has that number.
    """

    _esm = STATIC / "latent_explorer.js"
    _css = STATIC / "latent_explorer.css"

    corners = List(Int(), minlen=4, maxlen=4).tag(sync=True)
    """Seeds at the top left, top right, bottom left and bottom right."""
    x = Float(0.5, min=0, max=1).tag(sync=True)
    y = Float(0.5, min=0, max=1).tag(sync=True)
    """Position of the handle, from the left and from the top."""
    truncation = Float(1.0, min=0, max=1).tag(sync=True)
    label = Unicode("").tag(sync=True)
    """A class by number or name. Empty: each corner has the class of its seed, mixed like the latents between them."""
    direction_amounts = List(Float()).tag(sync=True)
    """Offset along each principal direction, in standard deviations."""

    num_classes = Int(0).tag(sync=True)
    class_names = List(Unicode()).tag(sync=True)
    image_size = List(Int()).tag(sync=True)
    """Width and height in pixels."""
    explained_variance_ratio = List(Float()).tag(sync=True)
    """Of each principal direction. Empty until a direction is used, because finding them takes seconds."""
    image_png = Bytes(b"").tag(sync=True)
    corner_pngs = List(Bytes()).tag(sync=True)
    error = Unicode("").tag(sync=True)
    """Why there is no image."""
    request = Int(0).tag(sync=True)
    answer = Int(0).tag(sync=True)

    def __init__(self, snapshot: Snapshot, seeds: Sequence[int], label: str, truncation: float) -> None:
        self._snapshot, self._directions = snapshot, None
        self._drawn: tuple[Any, ...] = ()
        spec = snapshot.spec
        super().__init__(
            corners=list(seeds),
            label=label,
            truncation=truncation,
            direction_amounts=[0.0] * min(NUM_DIRECTIONS, snapshot.config.latent.size),
            num_classes=spec.num_classes,
            class_names=list(spec.class_names),
            image_size=[spec.width, spec.height],
        )
        self._answer()
        self.observe(lambda _: self._answer(), list(CONTROLS))

    @property
    def z(self) -> np.ndarray:
        """The latent of the image, float32 [1, latent size], moved along the directions and truncated."""
        return self._inputs()[0].numpy()

    @property
    def labels(self) -> np.ndarray | None:
        """The class of the image, int64 [1]; between corners of different classes their weights, float32 [1, classes].

        None if the generator is unconditional.
        """
        classes = self._inputs()[1]
        return None if classes is None else classes.numpy()

    @property
    def image(self) -> Image.Image:
        """The image, the same bytes as `model(latents=widget.z, labels=widget.labels)` gives for a single class.

        The one on the screen is computed faster and may differ by one gray level.
        """
        return pillow_image(generate_pixels(self._snapshot.generator, *self._inputs())[0].permute(1, 2, 0).numpy())

    @validate("corners")
    def _valid_corners(self, proposal: dict[str, Any]) -> list[int]:
        if not all(0 <= seed <= MAX_SEED for seed in proposal["value"]):
            raise TraitError(f"corners are {proposal['value']}: expected four seeds, 0..2^53 - 1.")
        return proposal["value"]

    @validate("label")
    def _valid_label(self, proposal: dict[str, Any]) -> str:
        try:
            return proposal["value"] and str(class_index(proposal["value"], self._snapshot.spec))
        except CardiganError as error:
            raise TraitError(str(error)) from error

    def _answer(self) -> None:
        """Draw what has changed, and answer the browser's request in one message."""
        with self.hold_sync():
            try:
                self._draw()
                self.error = ""
            except CardiganError as error:
                self.error = str(error)
            finally:
                self.answer = self.request

    def _draw(self) -> None:
        sampled = (tuple(self.corners), self.truncation, self.label, tuple(self.direction_amounts))
        if self._drawn[1:] != sampled:
            options = self._options()
            images = seed_images(self._snapshot, self.corners, options, self._directions)
            self.corner_pngs = [png_bytes(image, FAST_PNG_LEVEL) for image in images]
        drawn = ((self.x, self.y), *sampled)
        if self._drawn != drawn:
            image = generate_pixels(self._snapshot.generator, *self._inputs(), batch_size=1)[0]
            self.image_png = png_bytes(image, FAST_PNG_LEVEL)
            self._drawn = drawn

    def _options(self) -> SamplingOptions:
        """Return the sampling options. Finds the principal directions if one of them is used."""
        amounts = {number: amount for number, amount in enumerate(self.direction_amounts) if amount}
        if amounts and self._directions is None:
            self._directions = default_directions(self._snapshot)
            self.explained_variance_ratio = self._directions.explained_variance_ratio.tolist()
        return SamplingOptions(self.label, self.truncation, amounts)

    def _inputs(self) -> tuple[Latents, Labels | ClassWeights | None]:
        """Return what the generator gets: the latent, and the class or the weights of the classes."""
        options = self._options()
        z, classes = interpolation_inputs(self._snapshot, self.corners, [(self.x, self.y)], options, self._directions)
        if classes is not None and classes.is_floating_point():
            one_class = classes.amax() == 1 or not self._snapshot.generator.accepts_class_weights
            return z, classes.argmax(dim=1) if one_class else classes
        return z, classes
