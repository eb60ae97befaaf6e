"""From an operation's uniform random numbers to its decisions and parameters."""

import math
from typing import TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor

from cardigan.shapes import Scalar

Draws: TypeAlias = Float[Tensor, "batch draws"]
"""One operation's columns of the uniform numbers."""
Parameters: TypeAlias = Float[Tensor, " batch"]
MatrixEntry: TypeAlias = Parameters | float


def is_applied(draws: Draws, p: Scalar) -> Bool[Tensor, " batch"]:
    """Return which images an operation is applied to. For the others its parameters are multiplied by 0."""
    return draws[:, 0] < p


def normal_from_uniform(uniform: Parameters) -> Parameters:
    """Return standard normal numbers by the inverse distribution function, clipped to +-4.9 since uniforms can be 0."""
    return math.sqrt(2) * (2 * uniform - 1).clamp(-1 + 1e-6, 1 - 1e-6).erfinv()
