"""A plain DCGAN for 64x64 images, the way tutorials write it (Radford et al. 2015, arXiv:1511.06434), in fp32."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

SIDE, LATENT_SIZE, WIDTH = 64, 100, 64
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)
"""Section 4."""


def generator(channels: int) -> nn.Sequential:
    """Figure 1: latents [batch, LATENT_SIZE, 1, 1] to images [batch, channel, 64, 64] in [-1, 1]."""
    counts = (8 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH)
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT_SIZE, counts[0], 4, bias=False)]
    for count, following in zip(counts, counts[1:], strict=False):
        layers += [nn.BatchNorm2d(count), nn.ReLU(True), nn.ConvTranspose2d(count, following, 4, 2, 1, bias=False)]
    last = nn.ConvTranspose2d(counts[-1], channels, 4, 2, 1, bias=False)
    return nn.Sequential(*layers, nn.BatchNorm2d(counts[-1]), nn.ReLU(True), last, nn.Tanh())


def discriminator(channels: int) -> nn.Sequential:
    """The reverse, with leaky ReLU: images to logits [batch]."""
    counts = (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH)
    layers: list[nn.Module] = [nn.Conv2d(channels, counts[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for count, following in zip(counts, counts[1:], strict=False):
        layers += [nn.Conv2d(count, following, 4, 2, 1, bias=False), nn.BatchNorm2d(following), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(counts[-1], 1, 4, bias=False), nn.Flatten(0))


def initialize(module: nn.Module) -> None:
    """Section 4: normal numbers of deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Dcgan:
    """`step` trains on a batch, `sample` returns images of the newest weights, with the batch's own statistics."""

    memory_format = torch.contiguous_format
    steps = (1,)

    def __init__(self, channels: int, rate: float) -> None:
        self.generator, self.discriminator = generator(channels), discriminator(channels)
        networks = (self.generator, self.discriminator)
        for network in networks:
            network.apply(initialize)
        self.optimizers = [torch.optim.Adam(each.parameters(), lr=rate, betas=BETAS) for each in networks]

    def num_weights(self) -> int:
        """Return the weights that sampling needs."""
        return sum(each.numel() for each in self.generator.parameters())

    def step(self, images: Tensor, seen: int) -> None:
        """Algorithm 1 of arXiv:1406.2661 with one discriminator step, and the non-saturating loss of its section 3."""
        del seen
        fake = self.generator(torch.randn(len(images), LATENT_SIZE, 1, 1))
        real_logits, fake_logits = self.discriminator(images), self.discriminator(fake.detach())
        loss = binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        loss = loss + binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        self.optimizers[1].zero_grad()
        loss.backward()
        self.optimizers[1].step()
        logits = self.discriminator(fake)
        self.optimizers[0].zero_grad()
        binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
        self.optimizers[0].step()

    @torch.no_grad()
    def sample(self, count: int, steps: int, random: torch.Generator) -> Tensor:
        assert steps == 1
        return self.generator(torch.randn(count, LATENT_SIZE, 1, 1, generator=random))
