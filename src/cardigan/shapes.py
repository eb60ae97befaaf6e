"""Names for the tensors that cross a function's border: their axes, their range.

Read by people always, and by beartype in every test run; in production they cost nothing.
"""

from typing import TypeAlias

from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channel height width"]
"""Pictures in [-1, 1]."""

Pixels: TypeAlias = UInt8[Tensor, "batch channel height width"]
"""Pictures as they are stored, 0..255."""

StoredPixels: TypeAlias = UInt8[Tensor, "batch stored_channel stored_height stored_width"]
"""Pictures of a source, before they are brought into the frame that is trained on."""

Latents: TypeAlias = Float[Tensor, "batch latent"]
"""What a generator turns into pictures."""

Labels: TypeAlias = Int64[Tensor, " batch"]
"""Class numbers, 0..classes-1."""

Logits: TypeAlias = Float[Tensor, " batch"]
"""A discriminator's opinion; larger means more real."""

Scalar: TypeAlias = Float[Tensor, ""]

Indices: TypeAlias = Int[Tensor, " batch"]
"""Positions in a source of images."""
