"""Penalties on the discriminator's slope: what keeps the game from running away."""

import torch

from cardigan.shapes import Images, Logits, Scalar


def zero_centred_penalty(logits: Logits, images: Images) -> Scalar:
    """Return E[|dD/dx|^2] (arXiv:1801.04406, eq. 9 and 10, without the weight): R1 on real images, R2 on fake ones.

    `images` must have been given to D with `requires_grad`; each logit may depend on its own picture alone.
    """
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.float().square().sum(dim=(1, 2, 3)).mean()
