"""All that a run must remember: the two players, the average, the optimizers, and how many images were seen.

Knows how to be taken apart into named tensors and put together again; no file.
"""

from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError
from cardigan.nets.interface import Generator
from cardigan.training.ada import Augmentation
from cardigan.training.steps import Networks


@dataclass(frozen=True)
class TrainState:
    """The players, the averaged generator, and the clock."""

    networks: Networks
    ema_generator: Generator
    images_seen: int
    learning_rate_factor: float = 1.0
    """What both learning rates are multiplied by; every rollback halves it."""
    augmentation: Augmentation | None = None


def state_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return every tensor of the state by name, e.g. `generator.from_latent.weight` or `discriminator_optimizer.head.weight.exp_avg`."""
    networks = state.networks
    tensors: dict[str, torch.Tensor] = {}
    for name, network in (
        ("generator", networks.generator),
        ("discriminator", networks.discriminator),
        ("ema_generator", state.ema_generator),
    ):
        tensors.update({f"{name}.{key}": value for key, value in network.state_dict().items()})
    for name, network, optimizer in _named_optimizers(networks):
        for key, parameter in network.named_parameters():
            tensors.update(
                {f"{name}.{key}.{slot}": value for slot, value in optimizer.state.get(parameter, {}).items()}
            )
    return tensors if state.augmentation is None else {**tensors, **state.augmentation.state_tensors()}


def load_state_tensors(state: TrainState, tensors: dict[str, torch.Tensor]) -> None:
    """Put what `state_tensors` gave back into the networks and optimizers of `state`; its clock is the caller's to set."""
    networks = state.networks
    for name, network in (
        ("generator", networks.generator),
        ("discriminator", networks.discriminator),
        ("ema_generator", state.ema_generator),
    ):
        try:
            network.load_state_dict(
                {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            )
        except RuntimeError as error:
            raise CardiganError(
                f"The checkpoint does not fit the {name} of this config: resume with the version that wrote it."
            ) from error
    for name, network, optimizer in _named_optimizers(networks):
        for key, parameter in network.named_parameters():
            start = f"{name}.{key}."
            saved = {full.removeprefix(start): value for full, value in tensors.items() if full.startswith(start)}
            if optimizer.state.get(parameter):  # a recorded GPU step goes on reading these where they lie
                for slot, current in optimizer.state[parameter].items():
                    current.copy_(saved[slot]) if slot in saved else current.zero_()
            elif saved:
                optimizer.state[parameter] = {
                    # Adam's moments are read in the memory order of their parameter; its step counter has no axes
                    kind: torch.empty_like(parameter).copy_(value) if value.dim() else value.to(parameter.device)
                    for kind, value in saved.items()
                }
    for name, current in ({} if state.augmentation is None else state.augmentation.state_tensors()).items():
        current.copy_(tensors[name])


def _named_optimizers(networks: Networks) -> tuple[tuple[str, torch.nn.Module, torch.optim.Optimizer], ...]:
    return (
        ("generator_optimizer", networks.generator, networks.generator_optimizer),
        ("discriminator_optimizer", networks.discriminator, networks.discriminator_optimizer),
    )
