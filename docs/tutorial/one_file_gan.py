"""The tutorial's DCGAN on MNIST in one file of plain PyTorch, without importing cardigan.

    python docs/tutorial/one_file_gan.py [--steps 938] [--width 128] [--out one_file_gan.png]

Read it to see the whole training at once. The test suite uses it as a reference:
`cardigan train mnist --recipe tutorial --precision fp32` must end with the same weights as `train` below, bit for bit.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate, softplus

MNIST = Path(__file__).parents[2] / "src" / "cardigan" / "data" / "mnist_idx"
LATENT = 100


def stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a random number generator that depends only on the arguments, so a run has no RNG state to save."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def training_digits() -> torch.Tensor:
    """Return the 60,000 training digits, uint8 [60000, 1, 28, 28]."""
    content = gzip.decompress((MNIST / "train-images-idx3-ubyte.gz").read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy())


def real_batch(digits: torch.Tensor, seed: int, images_seen: int, batch: int, size: int) -> torch.Tensor:
    """Return the batch after the first `images_seen` images: resized, in [-1, 1], repeated over three channels."""
    epoch, start = divmod(images_seen, len(digits))
    order = torch.randperm(len(digits), generator=stream(seed, "order", epoch))
    if start + batch > len(digits):
        order = torch.cat([order, torch.randperm(len(digits), generator=stream(seed, "order", epoch + 1))])
    pixels = digits[order[start : start + batch]].float()
    resized = interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False).round()
    return (resized / 127.5 - 1).expand(-1, 3, -1, -1)


def generator(width: int) -> nn.Sequential:
    """Return G: 100 random numbers to a 64x64 image, from 4x4 by four transposed convolutions."""
    layers: list[nn.Module] = []
    channels = [LATENT, 8 * width, 4 * width, 2 * width, width]
    for depth, (wide, narrow) in enumerate(zip(channels, channels[1:], strict=False)):
        stride, padding = (2, 1) if depth else (1, 0)
        layers += [nn.ConvTranspose2d(wide, narrow, 4, stride, padding, bias=False), shifted_norm(narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(width: int) -> nn.Sequential:
    """Return D: an image to one logit, larger for more real, by four strided convolutions and one final convolution."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for narrow in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(narrow, 2 * narrow, 4, 2, 1, bias=False), shifted_norm(2 * narrow), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, bias=False), nn.Flatten(0))


def shifted_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalization with a learned shift and a scale fixed at 1, like MXNet's `fix_gamma`."""
    norm = nn.BatchNorm2d(channels, eps=1e-5 + 1e-12)
    norm.weight.requires_grad_(False)
    return norm


def start(network: nn.Module) -> nn.Module:
    """Initialize the weights from Normal(0, 0.02)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def train(steps: int, width: int = 128, batch: int = 64, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Train the two networks; return them."""
    torch.manual_seed(stream(seed, "weights", 0).initial_seed())
    g, d = start(generator(width)), start(discriminator(width))
    g_adam, d_adam = (
        torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 2e-4, (0.5, 0.999), fused=True)
        for net in (g, d)
    )
    digits = training_digits()
    for step in range(steps):
        # 1. G generates a batch from random numbers.
        z = torch.randn(batch, LATENT, generator=stream(seed, "latents", step * batch))
        fake = g(z[:, :, None, None])
        # 2. D's loss on it with the label "generated"; keep the gradients.
        d_adam.zero_grad()
        fake_loss = softplus(d(fake.detach())).mean()
        fake_loss.backward()
        # 3. D's loss on real digits with the label "real"; the gradients add up.
        real_loss = softplus(-d(real_batch(digits, seed, step * batch, batch, size=64))).mean()
        real_loss.backward()
        # 4. Update D.
        d_adam.step()
        # 5. The updated D's loss on the generated images with the label "real".
        #    The gradient goes back through the images into G.
        g_adam.zero_grad()
        g_loss = softplus(-d(fake)).mean()
        g_loss.backward()
        g_adam.step()
        if step % 50 == 0:
            print(
                f"step {step:4d}  D loss {(fake_loss + real_loss).item():.3f}  G loss {g_loss.item():.3f}", flush=True
            )
    return g, d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=938)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("one_file_gan.png"))
    options = parser.parse_args()
    g, _ = train(options.steps, options.width)
    with torch.no_grad():
        images = g.eval()(torch.randn(64, LATENT, 1, 1, generator=stream(0, "sample", 0)))
    grid = images.reshape(8, 8, 3, 64, 64).permute(0, 3, 1, 4, 2).reshape(512, 512, 3)
    Image.fromarray(((grid + 1) * 127.5).round().clamp(0, 255).byte().numpy()).save(options.out)


if __name__ == "__main__":
    main()
