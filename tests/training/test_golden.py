"""Did the numbers move? The measurements of each recipe's first steps, small and in fp32, against what they were when it was measured.

If you meant to change them: `python tests/training/test_golden.py` prints the new ones; say in the changelog why they moved.
"""

import pytest
import torch

from cardigan.assemble import build_rules, build_spec, build_state
from cardigan.config import override
from cardigan.data.batches import Batches
from cardigan.data.mnist import mnist
from cardigan.latents import training_latents
from cardigan.recipes import RECIPES
from cardigan.training.devices import Devices
from cardigan.training.loop import set_learning_rates
from cardigan.training.steps import MEASURES, Chance, Game, Kind, iterate

BATCH = 16
GOLDEN: dict[str, list[list[float]]] = {
    "mnist": [
        [0.679758, 0.765996, 0.506755, 0.493245, 0.464899, 0.00146364, 0.00235369, 0.484766, 0.187056],
        [0.636486, 0.866394, 0.52918, 0.47082, 0.420528, 0.0, 0.0, 0.648205, 0.435235],
        [0.560541, 1.10511, 0.570942, 0.429058, 0.331359, 0.0, 0.0, 1.03616, 1.20238],
    ],
    "tutorial": [
        [1.48766, 0.884632, 0.455361, 0.489219, 0.41886, 0.0, 0.0, 15.3905, 16.3456],
        [1.20605, 0.92672, 0.571272, 0.463328, 0.404377, 0.0, 0.0, 13.9347, 16.0672],
        [1.15624, 0.887413, 0.632912, 0.491094, 0.421949, 0.0, 0.0, 13.6116, 15.5016],
    ],
}


def first_steps(recipe: str, num_steps: int = 3) -> list[list[float]]:
    config = override(RECIPES[recipe].config(), {"generator.width": 8, "discriminator.width": 8, "batch": BATCH, "precision": "fp32"})
    source, devices = mnist("train"), Devices(torch.device("cpu"), bf16=False)
    state = build_state(config, build_spec(config, source), devices)
    batches, rules, rows = Batches(source, config.data, config.seed), build_rules(config, devices), []
    game = Game(state.players, rules)
    for step in range(num_steps):
        seen = step * BATCH
        set_learning_rates(state.players, config, seen)
        z = training_latents(config.latent.distribution, BATCH, config.latent.size, config.seed, seen)
        rows.append(iterate(game, [(batches.at(seen, BATCH), Chance(z))], Kind(step == 0, generator_learns=True)).tolist())
    return rows


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_first_steps_are_what_they_were(recipe):
    for ours, expected in zip(first_steps(recipe), GOLDEN[recipe], strict=True):
        assert len(ours) == len(MEASURES)
        assert ours[: len(expected)] == pytest.approx(expected, rel=2e-3, abs=1e-6)


if __name__ == "__main__":
    for name in sorted(RECIPES):
        print(name, [[round(value, 7) for value in row] for row in first_steps(name)])
