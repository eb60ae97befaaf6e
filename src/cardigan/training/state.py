"""Everything a run must remember: both networks, the EMA, the optimizers, and how many images were seen.

Converts to named tensors and back. Knows no file.
"""

from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError
from cardigan.nets.interface import Generator
from cardigan.training.step_types import Networks


@dataclass(frozen=True)
class TrainState:
    """Both networks, the EMA of the generator, and the clock."""

    networks: Networks
    ema_generator: Generator
    images_seen: int
    learning_rate_factor: float = 1.0
    """A factor of both learning rates; every rollback halves it."""


def state_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return every tensor of the state by name.

    For example `generator.from_latent.weight`, or `discriminator_optimizer.head.weight.exp_avg`.
    """
    networks = state.networks
    tensors: dict[str, torch.Tensor] = {}
    for name, network in _named_networks(state):
        tensors.update({f"{name}.{key}": value for key, value in network.state_dict().items()})
    for name, network, optimizer in _named_optimizers(networks):
        for key, parameter in network.named_parameters():
            tensors.update(
                {
                    f"{name}.{key}.{slot}": value
                    for slot, value in optimizer.state.get(parameter, {}).items()
                    if value is not None
                }
            )
    augmentation = networks.augmentation
    return tensors if augmentation is None else {**tensors, **augmentation.state_tensors()}


def load_state_tensors(state: TrainState, tensors: dict[str, torch.Tensor]) -> None:
    """Load what `state_tensors` returned into the networks and optimizers of `state`. The caller sets its clock."""
    networks = state.networks
    for name, network in _named_networks(state):
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
            if optimizer.state.get(parameter):  # in place: a CUDA graph reads these tensors
                for slot, current in optimizer.state[parameter].items():
                    if current is not None:
                        current.copy_(saved[slot]) if slot in saved else current.zero_()
            elif saved:
                optimizer.state[parameter] = {
                    # Adam's moments are read in the memory order of their parameter; its step counter has no axes
                    kind: torch.empty_like(parameter).copy_(value) if value.dim() else value.to(parameter.device)
                    for kind, value in saved.items()
                }
    augmentation = networks.augmentation
    for name, current in ({} if augmentation is None else augmentation.state_tensors()).items():
        current.copy_(tensors[name])


def _named_networks(state: TrainState) -> list[tuple[str, torch.nn.Module]]:
    networks = state.networks
    named: list[tuple[str, torch.nn.Module]] = [
        ("generator", networks.generator),
        ("discriminator", networks.discriminator),
        ("ema_generator", state.ema_generator),
    ]
    return named if networks.start_generator is None else [*named, ("start_generator", networks.start_generator)]


def _named_optimizers(networks: Networks) -> tuple[tuple[str, torch.nn.Module, torch.optim.Optimizer], ...]:
    return (
        ("generator_optimizer", networks.generator, networks.generator_optimizer),
        ("discriminator_optimizer", networks.discriminator, networks.discriminator_optimizer),
    )
