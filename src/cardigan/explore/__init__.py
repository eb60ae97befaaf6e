"""Tools that inspect a trained model: latent paths, directions, inversion, saliency, feature probes. Trains nothing."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.explore.inversion import InversionResult, invert

__all__ = ["InversionResult", "invert"]

__getattr__, __dir__ = import_on_first_use(__name__, {"InversionResult": "inversion", "invert": "inversion"})
