"""Frozen networks that provide features for metrics and for projected discriminators."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.backbones.taps import BACKBONES

__all__ = ["BACKBONES"]

__getattr__, __dir__ = import_on_first_use(__name__, {"BACKBONES": "taps"})
