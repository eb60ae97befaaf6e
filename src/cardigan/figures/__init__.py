"""Charts, image grids, animations and signatures of images, returned as bytes."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.figures.c2pa_manifest import sign_image, signing_key
    from cardigan.figures.grid import make_grid, png_bytes, side_by_side

__all__ = ["make_grid", "png_bytes", "side_by_side", "sign_image", "signing_key"]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
        "make_grid": "grid",
        "png_bytes": "grid",
        "side_by_side": "grid",
        "sign_image": "c2pa_manifest",
        "signing_key": "c2pa_manifest",
    },
)
