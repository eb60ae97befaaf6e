"""The tutorial's DCGAN on MNIST in one file of plain PyTorch: nothing of cardigan is imported.

    python docs/tutorial/one_file_gan.py [--steps 938] [--width 128] [--out one_file_gan.png]

Read it to see the whole game at once. The test suite reads it too: `cardigan train mnist --recipe tutorial --precision fp32`
must end with the same weights as `train` below, bit for bit.
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
    """Randomness as a function of its arguments: a run needs no memory of what was drawn before."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def training_digits() -> torch.Tensor:
    """The 60,000 training digits, uint8 [60000, 1, 28, 28]."""
    content = gzip.decompress((MNIST / "train-images-idx3-ubyte.gz").read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy())


def real_batch(digits: torch.Tensor, seed: int, images_seen: int, batch: int, size: int) -> torch.Tensor:
    """The batch that follows the first `images_seen` pictures: resized, in [-1, 1], grey repeated over three channels."""
    epoch, start = divmod(images_seen, len(digits))
    order = torch.randperm(len(digits), generator=stream(seed, "order", epoch))
    if start + batch > len(digits):
        order = torch.cat([order, torch.randperm(len(digits), generator=stream(seed, "order", epoch + 1))])
    pixels = digits[order[start : start + batch]].float()
    resized = interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False).round()
    return (resized / 127.5 - 1).expand(-1, 3, -1, -1)


def generator(width: int) -> nn.Sequential:
    """100 random numbers become a 64x64 picture: 4x4 pixels, then four doublings."""
    layers: list[nn.Module] = []
    channels = [LATENT, 8 * width, 4 * width, 2 * width, width]
    for depth, (wide, narrow) in enumerate(zip(channels, channels[1:], strict=False)):
        stride, padding = (2, 1) if depth else (1, 0)
        layers += [nn.ConvTranspose2d(wide, narrow, 4, stride, padding, bias=False), shifted_norm(narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(width: int) -> nn.Sequential:
    """A picture becomes one number, larger for more real: four halvings, then a look at all that is left."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for narrow in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(narrow, 2 * narrow, 4, 2, 1, bias=False), shifted_norm(2 * narrow), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, bias=False), nn.Flatten(0))


def shifted_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with a learned shift and its scale fixed at 1, as MXNet's `fix_gamma` has it."""
    norm = nn.BatchNorm2d(channels, eps=1e-5 + 1e-12)
    norm.weight.requires_grad_(False)
    return norm


def start(network: nn.Module) -> nn.Module:
    """Draw the starting weights from Normal(0, 0.02)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def train(steps: int, width: int = 128, batch: int = 64, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Let the two networks play; return them."""
    torch.manual_seed(stream(seed, "weights", 0).initial_seed())
    g, d = start(generator(width)), start(discriminator(width))
    g_adam, d_adam = (
        torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 2e-4, (0.5, 0.999), fused=True)
        for net in (g, d)
    )
    digits = training_digits()
    for step in range(steps):
        # 1. The generator draws a batch from random numbers.
        z = torch.randn(batch, LATENT, generator=stream(seed, "latents", step * batch))
        fake = g(z[:, :, None, None])
        # 2. The discriminator judges it against the label "generated"; keep the gradients.
        d_adam.zero_grad()
        fake_loss = softplus(d(fake.detach())).mean()
        fake_loss.backward()
        # 3. It judges real digits against the label "real"; the gradients add up.
        real_loss = softplus(-d(real_batch(digits, seed, step * batch, batch, size=64))).mean()
        real_loss.backward()
        # 4. It learns.
        d_adam.step()
        # 5. The updated discriminator judges the same pictures against the label "real". The gradient goes back through
        #    the pictures into the generator, which learns what would have made them look more real.
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
        pictures = g.eval()(torch.randn(64, LATENT, 1, 1, generator=stream(0, "sample", 0)))
    grid = pictures.reshape(8, 8, 3, 64, 64).permute(0, 3, 1, 4, 2).reshape(512, 512, 3)
    Image.fromarray(((grid + 1) * 127.5).round().clamp(0, 255).byte().numpy()).save(options.out)


if __name__ == "__main__":
    main()
