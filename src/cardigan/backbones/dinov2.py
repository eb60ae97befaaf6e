"""DINOv2's vision transformer (arXiv:2304.07193), sizes S to L. Its feature is the normalized class token.

Parameter names match the published files. The user provides the weights.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from cardigan.errors import CardiganError

PATCH_SIZE = 14
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, for images in [0, 1]."""
HEAD_DIM = 64
"""Channels of one attention head, at every size."""


class Attention(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(embed_dim, 3 * embed_dim), nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, embed_dim = x.shape
        queries, keys, values = (
            self.qkv(x).reshape(count, tokens, 3, embed_dim // HEAD_DIM, HEAD_DIM).permute(2, 0, 3, 1, 4)
        )
        return self.proj(
            scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(count, tokens, embed_dim)
        )


class Mlp(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(embed_dim, eps=1e-6), Attention(embed_dim), LayerScale(embed_dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(embed_dim, eps=1e-6), Mlp(embed_dim), LayerScale(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, PATCH_SIZE, PATCH_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Maps normalized RGB images with sides divisible by 14 to `embed_dim` features."""

    def __init__(self, embed_dim: int, depth: int, num_positions: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.patch_embed = PatchEmbed(embed_dim)
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch feature"]:
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def embed(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch token feature"]:
        """Return the class token and one token per patch, with their positions."""
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.position_embedding(images.shape[2] // PATCH_SIZE, images.shape[3] // PATCH_SIZE)

    def position_embedding(self, rows: int, columns: int) -> Float[Tensor, "1 token feature"]:
        """Return the position embedding, resized from the 37x37 of training with the published code's offset of 0.1."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        resized = interpolate(grid, scale_factor=factors, mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([self.pos_embed[:, :1], resized], dim=1)


class Dinov2Taps(nn.Module):
    """Maps RGB images in [-1, 1] to four feature maps of one size, after each quarter of the blocks.

    Images are resized to the nearest multiples of the patch size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = network
        count = len(network.blocks)
        self.tap_blocks = sorted({max(1, round(count * quarter / 4)) - 1 for quarter in (1, 2, 3, 4)})
        for name, values in zip(("mean", "std"), IMAGENET_MEAN_STD, strict=True):
            self.register_buffer(name, torch.tensor(values, device="cpu")[:, None, None])

    def forward(self, images: Tensor) -> list[Tensor]:
        rows, columns = (max(1, round(side / PATCH_SIZE)) for side in images.shape[2:])
        size = (rows * PATCH_SIZE, columns * PATCH_SIZE)
        resized = images if tuple(images.shape[2:]) == size else interpolate(images, size, mode="bilinear")
        tokens, taps = self.network.embed(((resized + 1) / 2 - self.mean) / self.std), []
        for number, block in enumerate(self.network.blocks):
            tokens = block(tokens)
            if number in self.tap_blocks:
                taps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)))
        return taps


def build_dinov2(tensors: dict[str, Tensor], path: Path) -> VisionTransformer:
    """Return the network of a published file. Raises CardiganError for other tensors."""
    try:
        embed_dim = tensors["cls_token"].shape[2]
        depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        with torch.device("meta"):
            network = VisionTransformer(embed_dim, depth, tensors["pos_embed"].shape[1])
        network.load_state_dict(tensors, assign=True)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CardiganError(
            f"{path} does not hold a DINOv2 network of size S, B or L without registers, with the published names: "
            "see docs/guides/evaluation.md."
        ) from error
    return network.eval().requires_grad_(False)
