"""Golden values: the metrics of each recipe's first steps, with small networks in fp32.

After an intended change, `python tests/training/test_golden.py` prints the new values. State the reason in the
changelog.
"""

import pytest
import torch

from cardigan.data.batches import Batches
from cardigan.experiment.build import build_source, build_spec, build_state, build_step_config
from cardigan.overrides import override
from cardigan.recipes import RECIPES
from cardigan.training.devices import Devices
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import make_step, set_learning_rates
from cardigan.training.step_types import BASE_METRICS, StepKind, metric_names

BATCH = 16
GOLDEN: dict[str, list[list[float]]] = {
    "dcgan-paper-mnist": [
        [1.48788, 0.715464, 0.460889, 0.498721, 0.495308, 0.0, 0.0, 6.53075, 0.31067, 0.0, 0.0],
        [1.44048, 0.702499, 0.490937, 0.505561, 0.500482, 0.0, 0.0, 5.99796, 0.306971, 0.0, 0.0],
        [1.40996, 0.714062, 0.499246, 0.499376, 0.495436, 0.0, 0.0, 6.16913, 0.366499, 0.0, 0.0],
    ],
    "gan2014": [
        [1.57195, 0.357557, 0.692949, 0.700331, 0.699383, 0.0, 0.0, 1.23408, 0.0259765, 0.0, 0.0],
        [1.5674, 0.359067, 0.693702, 0.69929, 0.698328, 0.0, 0.0, 1.24364, 0.0266346, 0.0, 0.0],
        [1.55686, 0.360209, 0.699199, 0.698498, 0.69753, 0.0, 0.0, 1.2661, 0.0267848, 0.0, 0.0],
    ],
    "images": [
        # One step: Adam's first update turns rounding in the frozen network into whole steps of single weights.
        [0.703091, 0.764866, 0.49705, 0.50295, 0.467972, 0.000257, 0.000227, 1.88767, 0.20095, 0.0, 0.0],
    ],
    "images-dcgan": [
        [0.687222, 0.74035, 0.502973, 0.497027, 0.476953, 0.000342781, 0.000405086, 0.446329, 0.0564555, 0.0, 0.0],
        [0.652673, 0.833802, 0.520654, 0.479346, 0.434412, 0.0, 0.0, 0.557317, 0.183796, 0.0, 0.0],
        [0.57436, 1.1371, 0.563074, 0.436926, 0.32091, 0.0, 0.0, 1.142, 0.632785, 0.0, 0.0],
    ],
    "mnist": [
        [0.685794, 0.892206, 0.506263, 0.493737, 0.416965, 0.0147743, 0.011892, 1.1737, 0.536504, 0.0, 0.0],
        [0.587265, 1.17434, 0.560565, 0.439435, 0.328162, 0.0, 0.0, 1.42882, 1.36183, 0.0, 0.0],
        [0.427052, 1.77975, 0.66004, 0.33996, 0.200336, 0.0, 0.0, 1.7395, 4.0458, 0.0, 0.0],
    ],
    "mnist-clusters": [
        [0.721892, 0.787351, 0.490406, 0.509594, 0.458985, 0.0298295, 0.0217853, 1.06976, 0.249445, 0.0, 0.0],
        [0.676194, 0.924509, 0.512205, 0.487795, 0.402345, 0.0, 0.0, 1.18465, 0.454751, 0.0, 0.0],
        [0.648987, 1.03211, 0.526507, 0.473493, 0.364411, 0.0, 0.0, 1.34185, 0.605591, 0.0, 0.0],
    ],
    "mnist-conditional": [
        [0.685794, 0.892206, 0.506263, 0.493737, 0.416965, 0.0147743, 0.011892, 1.1737, 0.536504, 0.0, 0.0],
        [0.587265, 1.17434, 0.560565, 0.439435, 0.328162, 0.0, 0.0, 1.42882, 1.36183, 0.0, 0.0],
        [0.427052, 1.77975, 0.66004, 0.33996, 0.200336, 0.0, 0.0, 1.7395, 4.0458, 0.0, 0.0],
    ],
    "mnist-coarse": [
        [0.704867, 0.717462, 0.494326, 0.505674, 0.488245, 0.00857819, 0.00874833, 0.918714, 0.171646, 0.0, 0.0],
        [0.679203, 0.75195, 0.50733, 0.49267, 0.471908, 0.0, 0.0, 0.939158, 0.202636, 0.0, 0.0],
        [0.644036, 0.796048, 0.525686, 0.474314, 0.452118, 0.0, 0.0, 0.944277, 0.16528, 0.0, 0.0],
    ],
    "r3gan": [
        [0.452175, 1.10021, 0.641621, 0.358379, 0.343342, 0.002986, 0.002986, 2.53855, 2.0183, 0.0, 0.0],
        [0.465346, 1.09264, 0.636766, 0.363234, 0.350982, 0.0, 0.0, 2.0199, 1.96557, 0.0, 0.0],
        [0.400866, 1.2552, 0.681176, 0.318824, 0.307019, 0.0, 0.0, 1.84803, 2.26425, 0.0, 0.0],
    ],
    "sngan": [
        [1.74903, -0.335409, 0.652175, 0.593322, 0.583055, 0.0, 0.0, 18.9599, 0.802227, 0.0, 0.0],
        [1.62363, -0.286468, 0.667497, 0.579492, 0.571102, 0.0, 0.0, 18.6309, 0.66533, 0.0, 0.0],
        [1.51778, -0.275496, 0.687232, 0.575686, 0.568411, 0.0, 0.0, 18.2506, 0.618513, 0.0, 0.0],
    ],
    "stacked-mnist": [
        [0.692225, 0.744379, 0.500473, 0.499527, 0.475047, 0.0008949, 0.0011468, 0.433843, 0.110155, 0.0, 0.0],
        [0.656424, 0.817005, 0.51873, 0.48127, 0.441856, 0.0, 0.0, 0.537614, 0.316965, 0.0, 0.0],
        [0.603982, 1.00951, 0.546694, 0.453305, 0.364791, 0.0, 0.0, 0.99044, 1.00418, 0.0, 0.0],
    ],
    "tutorial": [
        [1.48766, 0.884632, 0.455361, 0.489219, 0.41886, 0.0, 0.0, 15.3905, 16.3456, 0.0, 0.0],
        [1.20605, 0.92672, 0.571272, 0.463328, 0.404377, 0.0, 0.0, 13.9347, 16.0672, 0.0, 0.0],
        [1.15624, 0.887413, 0.632911, 0.491094, 0.421949, 0.0, 0.0, 13.6116, 15.5016, 0.0, 0.0],
    ],
    "wgan-gp": [
        [-0.0270221, -0.0461329, 0.0270221, -0.0270221, -0.0268255, 0.0, 0.0, 2.80245, 0.260883, 0.92326, 0.0],
        [-0.0285077, -0.0469137, 0.0285078, -0.0285078, -0.0283662, 0.0, 0.0, 1.01585, 0.268549, 0.0, 0.0],
        [-0.0345443, -0.0477094, 0.0345443, -0.0345443, -0.0342694, 0.0, 0.0, 1.05709, 0.24906, 0.0, 0.0],
    ],
}
NAMES = (
    *("discriminator_loss", "generator_loss", "d_real", "d_fake", "d_fake_after_update"),
    *("r1", "r2", "discriminator_gradient_norm", "generator_gradient_norm", "wgan_gp", "dragan"),
)
"""The columns: every metric except the two that are not smooth or not used here."""


def first_steps(recipe: str, num_steps: int = 3) -> list[dict[str, float]]:
    config = override(
        RECIPES[recipe].config(),
        {"generator.width": 8, "discriminator.width": 8, "batch_size": BATCH, "precision": "fp32"},
    )
    source, devices = build_source(config), Devices(torch.device("cpu"))
    state = build_state(config, build_spec(config, source), devices)
    batches, step_config, rows = Batches(source, config.data, config.seed), build_step_config(config, devices), []
    step_function = make_step(state, batches, step_config)
    for step in range(num_steps):
        set_learning_rates(state.networks, config, step * BATCH)
        kind = StepKind(apply_penalties=step == 0, update_generator=True)
        metrics = step_function(step_inputs(config, batches, step * BATCH, devices), kind)
        rows.append(dict(zip(metric_names(config.objective), metrics.tolist(), strict=True)))
    return rows


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_first_steps_match_golden_losses(recipe):
    for metrics, expected in zip(first_steps(recipe, len(GOLDEN[recipe])), GOLDEN[recipe], strict=True):
        assert set(metrics) == {*BASE_METRICS, *RECIPES[recipe].config().objective.penalties}
        assert [metrics.get(name, 0.0) for name in NAMES] == pytest.approx(expected, rel=2e-3, abs=1e-6)


if __name__ == "__main__":
    for name in sorted(RECIPES):
        print(
            name,
            [[float(f"{value:.6g}") for value in (row.get(name, 0.0) for name in NAMES)] for row in first_steps(name)],
        )
