"""The baseline of `speed.py`: a GAN training loop as tutorials write it, in eager fp32, for the networks of a recipe.

It reads the recipe's settings, loss and penalties, but uses nothing of cardigan's training: no memory format, no
fused optimizer, no frozen network. Images are resized once and kept in memory.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import softplus

from cardigan.config import Config

Network = Callable[[torch.Tensor], torch.Tensor]
MIN_MAP_SIZE = 4
"""Side of the first feature map of the generator, at 32x32 and 64x64."""


def norm_layer(kind: str, channels: int) -> list[nn.Module]:
    return [] if kind == "none" else [nn.BatchNorm2d(channels)]


def stage_channels(config: Config, width: int) -> list[int]:
    doublings = (config.data.height // MIN_MAP_SIZE).bit_length() - 1
    return [width * min(2**depth, 8) for depth in range(doublings)]


def generator(config: Config) -> nn.Sequential:
    counts, norm = stage_channels(config, config.generator.width)[::-1], config.generator.normalization
    layers: list[nn.Module] = [nn.ConvTranspose2d(config.latent.size, counts[0], MIN_MAP_SIZE, bias=norm == "none")]
    for wide, narrow in zip(counts, [*counts[1:], config.data.channels], strict=True):
        layers += [*norm_layer(norm, wide), nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=norm == "none")]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(config: Config) -> nn.Sequential:
    counts, norm = stage_channels(config, config.discriminator.width), config.discriminator.normalization
    layers: list[nn.Module] = []
    for depth, (narrow, wide) in enumerate(zip([config.data.channels, *counts], counts, strict=False)):
        layers += [
            nn.Conv2d(narrow, wide, 4, 2, 1, bias=norm == "none"),
            *norm_layer(norm if depth else "none", wide),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(counts[-1], 1, MIN_MAP_SIZE, bias=norm == "none"), nn.Flatten(0))


class PlainLoop:
    """Both networks and the training images; `step` runs one iteration."""

    def __init__(self, config: Config, images: torch.Tensor) -> None:
        self.config, self.images, self.steps = config, images, 0
        self.generator = generator(config).to(images.device)
        self.discriminator = discriminator(config).to(images.device)
        self.average = copy.deepcopy(self.generator)
        self.run_generator: Network = self.generator
        self.run_discriminator: Network = self.discriminator
        self.marks_steps = False
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=adam.learning_rate, betas=(adam.beta1, adam.beta2))
            for network, adam in (
                (self.discriminator, config.discriminator_optimizer),
                (self.generator, config.generator_optimizer),
            )
        ]

    def compile(self, backend: str | None = None) -> None:
        """Compile both networks at their first step, on a GPU with CUDA graphs. Another backend gets no mode."""
        mode = None if backend else "reduce-overhead"
        self.run_generator = torch.compile(self.generator, backend=backend or "inductor", mode=mode)
        self.run_discriminator = torch.compile(self.discriminator, backend=backend or "inductor", mode=mode)
        self.marks_steps = backend is None

    def step(self) -> float:
        if self.marks_steps:
            torch.compiler.cudagraph_mark_step_begin()  # the last step's outputs may be overwritten
        config, batch = self.config, self.config.batch_size
        real = self.images[torch.randint(len(self.images), (batch,), device=self.images.device)]
        fake = self.run_generator(torch.randn(batch, config.latent.size, 1, 1, device=real.device))
        self.discriminator.zero_grad()
        penalize = config.objective.penalties.get("r1", 0.0) > 0 and self.steps % config.objective.penalty_interval == 0
        loss = self.discriminator_loss(real.requires_grad_(penalize), fake.detach().requires_grad_(penalize), penalize)
        loss.backward()
        self.optimizers[0].step()
        self.generator.zero_grad()
        if config.objective.loss == "relativistic":
            generator_loss = softplus(
                self.run_discriminator(real.detach()).detach() - self.run_discriminator(fake)
            ).mean()
        else:
            generator_loss = softplus(-self.run_discriminator(fake)).mean()
        generator_loss.backward()
        self.optimizers[1].step()
        if config.ema.half_life_images:
            with torch.no_grad():
                for averaged, live in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                    averaged.lerp_(live, 0.01)
        self.steps += 1
        return loss.item()  # tutorials print it

    def discriminator_loss(self, real: torch.Tensor, fake: torch.Tensor, penalize: bool) -> torch.Tensor:
        # torch.compile has no second derivatives
        network = self.discriminator if penalize else self.run_discriminator
        real_logits, fake_logits = network(real), network(fake)
        if self.config.objective.loss == "relativistic":
            loss = softplus(fake_logits - real_logits).mean()
        else:
            loss = softplus(fake_logits).mean() + softplus(-real_logits).mean()
        if penalize:
            for logits, images, strength in (
                (real_logits, real, self.config.objective.penalties.get("r1", 0.0)),
                (fake_logits, fake, self.config.objective.penalties.get("r2", 0.0)),
            ):
                (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
                loss = (
                    loss
                    + strength * self.config.objective.penalty_interval / 2 * gradient.square().sum((1, 2, 3)).mean()
                )
        return loss

    @torch.no_grad()
    def sample(self, num: int) -> torch.Tensor:
        """Return images as uint8, generated in batches of 64."""
        network = self.average if self.config.ema.half_life_images else self.generator
        network.eval()
        batches = [
            network(torch.randn(64, self.config.latent.size, 1, 1, device=self.images.device)) for _ in range(num // 64)
        ]
        network.train()
        return torch.cat([((part + 1) * 127.5).round().to(torch.uint8).cpu() for part in batches])
