"""All that a run must remember: the two players, the average, the optimizers, and how many images were seen.

Knows how to be taken apart into named tensors and put together again; no file.
"""

from dataclasses import dataclass

import torch

from cardigan.errors import CardiganError
from cardigan.nets.interface import Generator
from cardigan.training.augmentation import Augmentation
from cardigan.training.steps import Players


@dataclass(frozen=True)
class TrainState:
    """The players, the averaged generator, and the clock."""

    players: Players
    average: Generator
    images_seen: int
    learning_rate_factor: float = 1.0
    """What both learning rates are multiplied by; every rollback halves it."""
    augmentation: Augmentation | None = None


def state_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return every tensor of the state by name, e.g. `generator.start.weight` or `discriminator_optimizer.verdict.weight.exp_avg`."""
    players = state.players
    tensors: dict[str, torch.Tensor] = {}
    for name, network in (("generator", players.generator), ("discriminator", players.discriminator), ("average", state.average)):
        tensors.update({f"{name}.{key}": value for key, value in network.state_dict().items()})
    for name, network, optimizer in _optimizers(players):
        for key, parameter in network.named_parameters():
            tensors.update({f"{name}.{key}.{kind}": value for kind, value in optimizer.state.get(parameter, {}).items()})
    return tensors if state.augmentation is None else {**tensors, **state.augmentation.tensors()}


def load_state_tensors(state: TrainState, tensors: dict[str, torch.Tensor]) -> None:
    """Put what `state_tensors` gave back into the networks and optimizers of `state`; its clock is the caller's to set."""
    players = state.players
    for name, network in (("generator", players.generator), ("discriminator", players.discriminator), ("average", state.average)):
        try:
            network.load_state_dict({key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")})
        except RuntimeError as error:
            raise CardiganError(f"The checkpoint does not fit the {name} of this config: resume with the version that wrote it.") from error
    for name, network, optimizer in _optimizers(players):
        for key, parameter in network.named_parameters():
            start = f"{name}.{key}."
            remembered = {full.removeprefix(start): value for full, value in tensors.items() if full.startswith(start)}
            if optimizer.state.get(parameter):  # a recorded GPU step goes on reading these where they lie
                for kind, held in optimizer.state[parameter].items():
                    held.copy_(remembered[kind]) if kind in remembered else held.zero_()
            elif remembered:
                optimizer.state[parameter] = {
                    # Adam's moments are read in the memory order of their parameter; its step counter has no axes
                    kind: torch.empty_like(parameter).copy_(value) if value.dim() else value.to(parameter.device)
                    for kind, value in remembered.items()
                }
    for name, held in ({} if state.augmentation is None else state.augmentation.tensors()).items():
        held.copy_(tensors[name])


def _optimizers(players: Players) -> tuple[tuple[str, torch.nn.Module, torch.optim.Optimizer], ...]:
    return (
        ("generator_optimizer", players.generator, players.generator_optimizer),
        ("discriminator_optimizer", players.discriminator, players.discriminator_optimizer),
    )
