"""Tensor types for function signatures: axes and value range.

beartype checks them in every test run. In production they cost nothing.
"""

from typing import TypeAlias

from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channel height width"]
"""Images in [-1, 1]."""

Pixels: TypeAlias = UInt8[Tensor, "batch channel height width"]
"""Stored images, 0..255."""

StoredPixels: TypeAlias = UInt8[Tensor, "batch stored_channel stored_height stored_width"]
"""Images of a source before they are resized to the training size."""

Latents: TypeAlias = Float[Tensor, "batch latent"]
"""The inputs of a generator."""

Labels: TypeAlias = Int64[Tensor, " batch"]
"""Class numbers, 0..classes-1."""

ClassWeights: TypeAlias = Float[Tensor, "batch classes"]
"""Weights that mix the classes of each image. A one-hot row equals the class's number."""

Logits: TypeAlias = Float[Tensor, "batch *heads"]  # noqa: F821 - jaxtyping
"""A discriminator's output: one logit per image, or one for each of its heads, [batch, heads]. Larger means more
real."""

FeatureVectors: TypeAlias = Float[Tensor, "batch value"]
"""What a discriminator with frozen first layers scores: all its features of an image in one row."""

Scalar: TypeAlias = Float[Tensor, ""]

Indices: TypeAlias = Int[Tensor, " batch"]
"""Positions in a source of images."""
