"""Each operation against a slow independent one, and common properties: determinism, gradients, exactness, bounds."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.stats import norm

from cardigan.errors import CardiganError
from cardigan.objective.augment import ADA, DIFF_AUGMENT, OPERATIONS, Operation, augment, num_draws
from cardigan.objective.operations.draws import is_applied
from cardigan.objective.operations.resampling import gather_weighted
from cardigan.training.ada import next_probability

SIZES = [(8, 8), (7, 7), (6, 9), (13, 4)]
GEOMETRY, COLOR = ADA[:7], ADA[7:]
BATCH = 6
NUM_DRAWS = {name: operation.num_draws for name, operation in OPERATIONS.items()}
START = dict(zip(OPERATIONS, accumulate(NUM_DRAWS.values(), initial=0), strict=False))
ALWAYS, NEVER = torch.tensor(1.0), torch.tensor(0.0)


def uniform(rows: int = BATCH, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, sum(NUM_DRAWS.values()), generator=torch.Generator().manual_seed(seed))


def random_images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draws_of(name: str, row: torch.Tensor) -> list[float]:
    """Return an operation's columns of a row, without the first, which decides whether it is applied."""
    return row[START[name] + 1 : START[name] + NUM_DRAWS[name]].tolist()


def test_operations_table():
    assert len(ADA) == 12 and DIFF_AUGMENT == ("color", "translation", "cutout")
    assert num_draws(()) == 0 and num_draws(("hue",)) == num_draws(ADA + DIFF_AUGMENT) == sum(NUM_DRAWS.values())
    images = random_images(2, 3, 5, 5)
    assert augment(images, (), torch.empty(2, 0), ALWAYS) is images


def test_unknown_operation_suggests_closest():
    with pytest.raises(CardiganError, match="Unknown augmentation 'cutut': did you mean 'cutout'"):
        num_draws(("hue", "cutut"))


def test_added_operation_is_applied_and_leaves_the_others_as_they_were(monkeypatch):
    """A run that does not name a plug-in's operation has the same numbers with the plug-in and without it."""
    images, numbers, p = random_images(64, 3, 8, 8), uniform(64), torch.tensor(0.5)
    before = augment(images, tuple(OPERATIONS), numbers, p)
    builtin = tuple(OPERATIONS)

    def negative(images, draws, p):
        return torch.where(is_applied(draws, p)[:, None, None, None], -images, images)

    monkeypatch.setitem(OPERATIONS, "negative", Operation(1, negative))
    assert num_draws(builtin) == numbers.shape[1] and torch.equal(augment(images, builtin, numbers, p), before)
    column = torch.rand(64, 1, generator=torch.Generator().manual_seed(1))
    after = augment(images, ("negative", *builtin), torch.cat([numbers, column], dim=1), p)
    negated = column[:, 0] < 0.5
    assert 16 < negated.sum() < 48
    assert torch.equal(after[negated], -before[negated]) and torch.equal(after[~negated], before[~negated])


def test_too_few_draws_assert():
    with pytest.raises(AssertionError, match="37 numbers"):
        augment(random_images(2, 1, 4, 4), ("hue",), uniform(2)[:, :37], ALWAYS)


@pytest.mark.parametrize("pipeline", [(name,) for name in OPERATIONS] + [tuple(OPERATIONS)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_probability_zero_is_identity(pipeline, channels):
    for size in SIZES:
        images = random_images(BATCH, channels, *size)
        for numbers in (uniform(), 0 * uniform()):
            assert torch.equal(augment(images, pipeline, numbers, NEVER), images)


# ADA's geometric operations, from the paper's forward matrices in double precision.


def translation_matrix(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=float)


def scale_matrix(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def rotation_matrix(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def forward(names: tuple[str, ...], row: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Return the transformation of appendix B's pseudo-code, in pixels from the center."""
    draws = {name: draws_of(name, row) for name in OPERATIONS}
    angle_before, _, angle_after = draws["rotate"]
    t_x, t_y = draws["integer-translation"]
    steps = {
        "x-flip": lambda: scale_matrix(1 - 2 * int(draws["x-flip"][0] >= 0.5), 1),
        "rotate90": lambda: rotation_matrix(-math.pi / 2 * int(4 * draws["rotate90"][0])),
        "integer-translation": lambda: translation_matrix(
            np.round((t_x - 0.5) / 4 * width), np.round((t_y - 0.5) / 4 * height)
        ),
        "isotropic-scale": lambda: scale_matrix(*[np.exp(0.2 * np.log(2) * norm.ppf(draws["isotropic-scale"][0]))] * 2),
        "before": lambda: rotation_matrix(-math.pi * (2 * angle_before - 1)),
        "anisotropic-scale": lambda: scale_matrix(
            *np.exp(np.array([1, -1]) * 0.2 * np.log(2) * norm.ppf(draws["anisotropic-scale"][0]))
        ),
        "after": lambda: rotation_matrix(-math.pi * (2 * angle_after - 1)),
        "fractional-translation": lambda: translation_matrix(
            *(0.125 * norm.ppf(draws["fractional-translation"]) * (width, height))
        ),
    }
    total = np.eye(3)
    for step, matrix in steps.items():
        if {"before": "rotate", "after": "rotate"}.get(step, step) in names:
            total = matrix() @ total
    return total


@pytest.mark.parametrize(
    "names", [(name,) for name in GEOMETRY] + [GEOMETRY, ("isotropic-scale", "fractional-translation")]
)
@pytest.mark.parametrize("size", SIZES)
def test_geometry_is_affine_about_center(names, size):
    height, width = size
    images, numbers = random_images(BATCH, 2, height, width), uniform()
    result = augment(images, names, numbers, ALWAYS)
    for image, row, new in zip(images, numbers, result, strict=True):
        inverse = np.linalg.inv(forward(names, row, height, width))[[1, 0, 2]][:, [1, 0, 2]]  # scipy's axes are (y, x)
        inverse = (
            translation_matrix((height - 1) / 2, (width - 1) / 2)
            @ inverse
            @ translation_matrix((1 - height) / 2, (1 - width) / 2)
        )
        expected = [affine_transform(channel, inverse, order=1, mode="reflect") for channel in image.double().numpy()]
        np.testing.assert_allclose(new.numpy(), np.stack(expected), atol=2e-4)
    assert not torch.allclose(result, images, atol=0.1)


@pytest.mark.parametrize("size", SIZES)
def test_blitting_is_exact(size):
    height, width = size
    images, numbers = random_images(BATCH, 3, height, width), uniform()
    numbers[:, START["x-flip"] + 1] = torch.linspace(0, 0.99, BATCH)
    flipped = augment(images, ("x-flip",), numbers, ALWAYS)
    assert torch.equal(flipped, torch.cat([images[:3], images[3:].flip(3)]))
    numbers[:, START["rotate90"] + 1] = 0.6
    assert torch.equal(augment(images, ("rotate90",), numbers, ALWAYS), images.flip(2, 3))
    if height == width:
        numbers[:4, START["rotate90"] + 1] = torch.tensor([0.1, 0.3, 0.6, 0.8])
        rotated = augment(images[:4], ("rotate90",), numbers[:4], ALWAYS)
        assert torch.equal(rotated, torch.stack([image.rot90(k, (1, 2)) for k, image in enumerate(images[:4])]))
    shifted = augment(images, ("integer-translation",), numbers, ALWAYS)
    for image, row, new in zip(images, numbers, shifted, strict=True):
        x, y = (
            round((draw - 0.5) / 4 * side)
            for draw, side in zip(draws_of("integer-translation", row), (width, height), strict=True)
        )
        padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="symmetric")
        np.testing.assert_array_equal(new.numpy(), padded[:, 2 - y : 2 - y + height, 2 - x : 2 - x + width])


def test_rotation_leaks_only_at_probability_one():
    """Below p = 1, the mean of augmented images differs from that of rotated ones by 1 - p times the difference.

    At p = 1 both means are equal, so G could generate rotated images (a leak).
    """
    image_upright = random_images(1, 1, 6, 6)
    rotated_image = image_upright.rot90(1, (2, 3))
    numbers = torch.full((400, sum(NUM_DRAWS.values())), 0.5)
    lattice = (torch.arange(20) + 0.5) / 20
    numbers[:, START["rotate90"]], numbers[:, START["rotate90"] + 1] = (
        lattice.repeat(20),
        lattice.repeat_interleave(20),
    )
    for p in (0.25, 0.75, 1.0):
        means = [
            augment(image.expand(400, -1, -1, -1), ("rotate90",), numbers, torch.tensor(p)).mean(0)
            for image in (image_upright, rotated_image)
        ]
        torch.testing.assert_close(means[0] - means[1], (1 - p) * (image_upright - rotated_image)[0], atol=1e-5, rtol=0)


# ADA's color operations, from the paper's 4x4 matrices in double precision.


def color_matrix(names: tuple[str, ...], row: torch.Tensor) -> np.ndarray:
    draws = {name: draws_of(name, row)[0] for name in COLOR}
    z = {name: norm.ppf(draw) for name, draw in draws.items()}
    v = np.array([1, 1, 1, 0]) / np.sqrt(3)
    along = np.outer(v, v)
    contrast, factor, angle = (
        np.exp(0.5 * np.log(2) * z["contrast"]),
        np.exp(np.log(2) * z["saturation"]),
        math.pi * (2 * draws["hue"] - 1),
    )
    red, green = np.array([1, -1, 0, 0]) / np.sqrt(2), np.array([1, 1, -2, 0]) / np.sqrt(6)
    # v, red and green are a right-handed orthonormal basis: hue rotates red towards green.
    rotated = (
        along
        + np.outer(red * np.cos(angle) + green * np.sin(angle), red)
        + np.outer(green * np.cos(angle) - red * np.sin(angle), green)
    )
    corner = np.diag([0.0, 0, 0, 1])
    matrices = {
        "brightness": np.eye(4) + 0.2 * z["brightness"] * np.outer([1, 1, 1, 0], [0, 0, 0, 1]),
        "contrast": np.diag([contrast, contrast, contrast, 1]),
        "luma-flip": np.eye(4) - 2 * int(draws["luma-flip"] >= 0.5) * along,
        "hue": rotated + corner,
        "saturation": along + (np.eye(4) - along - corner) * factor + corner,
    }
    total = np.eye(4)
    for name in COLOR:
        total = matrices[name] @ total if name in names else total
    return total


@pytest.mark.parametrize("names", [(name,) for name in COLOR] + [COLOR, ("brightness", "contrast")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_color_matrix_matches_paper_and_keeps_alpha(names, channels):
    images, numbers = random_images(BATCH, channels, 5, 6), uniform(seed=3)
    result = augment(images, names, numbers, ALWAYS)
    for image, row, new in zip(images, numbers, result, strict=True):
        matrix = color_matrix(names, row)
        colors = image[:3].expand(3, 5, 6).double().numpy()
        expected = np.einsum("ij,jhw->ihw", matrix[:3, :3], colors) + matrix[:3, 3, None, None]
        np.testing.assert_allclose(new[:3].numpy(), expected[: min(channels, 3)], atol=2e-5, rtol=1e-5)
    if channels == 4:
        assert torch.equal(result[:, 3], images[:, 3])
    if channels > 1 or not {"hue", "saturation"} & set(names):
        assert not torch.allclose(result, images, atol=0.05)


def test_hue_and_saturation_keep_gray():
    images = random_images(BATCH, 1, 5, 5)
    torch.testing.assert_close(augment(images, ("hue", "saturation"), uniform(), ALWAYS), images, atol=2e-6, rtol=0)


def test_luma_flip_keeps_hue_and_saturation():
    images, numbers = random_images(2, 3, 5, 5), uniform(2)
    numbers[:, START["luma-flip"] + 1] = torch.tensor([0.4999, 0.5])
    same, inverted = augment(images, ("luma-flip",), numbers, ALWAYS)
    assert torch.equal(same, images[0])
    torch.testing.assert_close(inverted.mean(0), -images[1].mean(0))
    torch.testing.assert_close(inverted - inverted.mean(0), images[1] - images[1].mean(0))


# DiffAugment, with loops.


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_diff_augment_color(channels):
    images, numbers = random_images(BATCH, channels, 4, 5), uniform()
    result = augment(images, ("color",), numbers, ALWAYS)
    for image, row, new in zip(images, numbers, result, strict=True):
        light, chroma, depth = draws_of("color", row)
        colors = image[: 3 if channels > 1 else 1].double().numpy() + (light - 0.5)
        colors = (colors - colors.mean(0)) * (2 * chroma) + colors.mean(0)
        colors = (colors - colors.mean()) * (0.5 + depth) + colors.mean()
        np.testing.assert_allclose(new[: len(colors)].numpy(), colors, atol=1e-5)
        assert torch.equal(new[3:], image[3:])


@pytest.mark.parametrize(("size", "most"), [((8, 8), (1, 1)), ((7, 20), (1, 3)), ((2, 13), (0, 2))])
def test_translation_pads_zeros_and_is_uniform(size, most):
    height, width = size
    images = random_images(210, 3, height, width) + 2
    numbers = uniform(210)
    numbers[:, START["translation"] + 1 :] = ((torch.arange(210) + 0.5) / 210)[:, None]
    numbers[:, START["translation"] + 2] = numbers[:, START["translation"] + 2].roll(99)
    result = augment(images, ("translation",), numbers, ALWAYS).numpy()
    offsets = []
    for image, row, new in zip(images.numpy(), numbers, result, strict=True):
        y, x = (math.floor(draw * (2 * m + 1)) - m for draw, m in zip(draws_of("translation", row), most, strict=True))
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        np.testing.assert_array_equal(new, padded[:, 3 - y : 3 - y + height, 3 - x : 3 - x + width])
        offsets.append((y, x))
    for axis, m in enumerate(most):
        assert {step: [s[axis] for s in offsets].count(step) for step in range(-m, m + 1)} == dict.fromkeys(
            range(-m, m + 1), 210 // (2 * m + 1)
        )


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9), (1, 5)])
def test_cutout_size_and_clipping(size):
    rows = 2520
    numbers = uniform(rows, seed=5)
    lattice = torch.arange(rows)
    numbers[:, START["cutout"] + 1] = (lattice + 0.5) / rows
    numbers[:, START["cutout"] + 2] = ((lattice * 1009) % rows + 0.5) / rows
    images = random_images(1, 4, *size).expand(rows, -1, -1, -1)
    result = augment(images, ("cutout",), numbers, ALWAYS)
    hole = result[:, 0] == 0
    assert torch.equal(result, torch.where(hole[:, None], 0.0, images))
    rows_cut, columns_cut = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows_cut[:, :, None] & columns_cut[:, None])
    for cut, side in ((rows_cut, size[0]), (columns_cut, size[1])):
        half = math.floor(side / 2 + 0.5)
        firsts = range(-(half // 2), side - math.ceil(half / 2) + 1)
        assert set(cut.sum(1).tolist()) == set(range(math.ceil(half / 2), half + 1))
        assert (cut.long().diff(dim=1).abs().sum(1) <= 2).all()  # in one piece
        expected = [sum(first <= place < first + half for first in firsts) / len(firsts) for place in range(side)]
        np.testing.assert_allclose(cut.float().mean(0), expected, atol=1e-3)


# Common properties.


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("p", [0.2, 0.7, 1.0])
def test_fraction_of_augmented_images_equals_probability(name, p):
    num = 2000
    images, numbers = random_images(num, 3, 8, 8), torch.full((num, sum(NUM_DRAWS.values())), 0.9)
    columns = slice(START[name], START[name] + NUM_DRAWS[name])
    gates = (START[name], START[name] + 2) if name == "rotate" else (START[name],)
    for gate in gates:
        numbers[:, gate] = uniform(num, seed=gate)[:, gate]
    changed = (augment(images, (name,), numbers, torch.tensor(p)) - images).abs().amax((1, 2, 3)) > 0
    assert abs(int(changed.sum()) - num * p) <= 4 * math.sqrt(num * p * (1 - p))
    if name != "rotate":
        assert torch.equal(changed, numbers[:, columns][:, 0] < p)


@pytest.mark.parametrize("pipeline", [ADA, DIFF_AUGMENT])
def test_images_are_augmented_independently(pipeline):
    images, numbers = random_images(BATCH, 3, 7, 8), uniform()
    before = augment(images, pipeline, numbers, torch.tensor(0.8))
    other = numbers.clone()
    other[2] = uniform(seed=9)[2]
    changed = (augment(images, pipeline, other, torch.tensor(0.8)) != before).flatten(1).any(1)
    assert changed.tolist() == [row == 2 for row in range(BATCH)]
    images[4] += 0.1
    changed = (augment(images, pipeline, numbers, torch.tensor(0.8)) != before).flatten(1).any(1)
    assert changed.tolist() == [row == 4 for row in range(BATCH)]


def test_operation_draws_do_not_depend_on_pipeline():
    images, numbers = random_images(BATCH, 3, 9, 9), uniform()
    sequential = images
    for name in ("x-flip", "contrast", "translation", "cutout"):
        sequential = augment(sequential, (name,), numbers, ALWAYS)
    combined = augment(images, ("cutout", "contrast", "x-flip", "translation"), numbers, ALWAYS)
    assert torch.equal(combined, sequential)


def test_augmentation_is_deterministic_given_draws():
    images, numbers, state = random_images(BATCH, 3, 8, 8), uniform(), torch.get_rng_state()
    first = augment(images, tuple(OPERATIONS), numbers, torch.tensor(0.6))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    assert torch.equal(augment(images, tuple(OPERATIONS), numbers, torch.tensor(0.6)), first)
    torch.set_rng_state(state)


def test_augmentation_has_no_host_sync():
    """Meta tensors have no values: reading one, or a shape that depends on one, raises."""
    images, numbers = torch.empty(BATCH, 3, 8, 9, device="meta", requires_grad=True), uniform().to("meta")
    p = next_probability(torch.empty((), device="meta"), torch.empty((), device="meta"), 0.6, 64, 1000)
    result = augment(images, tuple(OPERATIONS), numbers, p)
    (gradient,) = torch.autograd.grad(result.square().sum(), images, create_graph=True)
    (second_gradient,) = torch.autograd.grad(gradient.square().sum(), images)
    assert result.shape == gradient.shape == second_gradient.shape == images.shape


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_extreme_draws_give_finite_images(extreme):
    numbers = torch.full((2, sum(NUM_DRAWS.values())), extreme)
    for name in OPERATIONS:
        for p in (0.5, 1.0):
            assert augment(random_images(2, 3, 8, 5), (name,), numbers, torch.tensor(p)).isfinite().all(), name


@pytest.mark.parametrize("pipeline", [(name,) for name in OPERATIONS] + [ADA, DIFF_AUGMENT])
def test_augmentation_has_second_derivatives(pipeline):
    numbers, p = uniform(2, seed=4).double(), torch.tensor(1.0, dtype=torch.float64)
    images = random_images(2, 3, 4, 5).double().requires_grad_()

    def augmented(x):
        return augment(x, pipeline, numbers, p)

    def penalty(x):
        (gradient,) = torch.autograd.grad(augmented(x).tanh().sum(), x, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(augmented, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(augmented, images, fast_mode=True)
    assert torch.autograd.gradcheck(penalty, images, fast_mode=True)
    assert penalty(images) > 0


def scatter_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return neighbors and weights with which thousands of pixels share four, and a gradient of many magnitudes."""
    generator = torch.Generator().manual_seed(0)
    neighbors = torch.randint(4, (2, 4, 4096), generator=generator)
    weights = torch.rand(2, 4, 4096, generator=generator)
    gradient = torch.randn(2, 1, 4096, generator=generator) * torch.exp2(
        20 * torch.rand(2, 1, 4096, generator=generator) - 20
    )
    return neighbors, weights, gradient


def input_gradient(neighbors: torch.Tensor, weights: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    images = random_images(2, 1, 64, 64).requires_grad_()
    return torch.autograd.grad(gather_weighted(images, neighbors, weights), images, gradient.view(2, 1, 64, 64))[0]


def test_gradients_are_deterministic():
    neighbors, weights, gradient = scatter_inputs()
    order = torch.randperm(4096, generator=torch.Generator().manual_seed(1))
    first = input_gradient(neighbors, weights, gradient)
    assert torch.equal(input_gradient(neighbors[..., order], weights[..., order], gradient[..., order]), first)
    exact = torch.zeros(2, 4, dtype=torch.float64).scatter_add_(
        1, neighbors.flatten(1), (weights * gradient).double().flatten(1)
    )
    torch.testing.assert_close(first.flatten(1)[:, :4].double(), exact, rtol=1e-5, atol=1e-5)
    plain = torch.zeros(2, 4).scatter_add_(1, neighbors.flatten(1), (weights * gradient).flatten(1))
    reordered = torch.zeros(2, 4).scatter_add_(
        1, neighbors[..., order].flatten(1), (weights * gradient)[..., order].flatten(1)
    )
    assert not torch.equal(plain, reordered)  # otherwise this test could not fail


@pytest.mark.parametrize("nonfinite", [math.nan, math.inf, -math.inf])
def test_non_finite_gradient_stays_local(nonfinite):
    neighbors, weights, gradient = scatter_inputs()
    clean = input_gradient(neighbors, weights, gradient)
    gradient[1, 0, 7] = nonfinite
    result = input_gradient(neighbors, weights, gradient)
    assert torch.equal(result[0], clean[0]) and not result[1].isfinite().all()


def test_zero_gradient_stays_zero():
    neighbors, weights, gradient = scatter_inputs()
    assert torch.equal(input_gradient(neighbors, weights, 0 * gradient), torch.zeros(2, 1, 64, 64))


# ADA's controller.


def test_ada_probability_moves_towards_target():
    def updated(p: float, sign: float) -> float:
        return float(next_probability(torch.tensor(p), torch.tensor(sign), 0.6, 100, 1000))

    assert updated(0.5, 0.61) == pytest.approx(0.6)
    assert updated(0.5, 0.59) == pytest.approx(0.4)
    assert updated(0.5, 0.6) == pytest.approx(0.5)
    assert updated(0.95, 1.0) == 1 and updated(0.05, -1.0) == 0


def test_ada_ramp_images():
    p = torch.tensor(0.0)
    for step in range(1, 51):
        p = next_probability(p, torch.tensor(1.0), 0.6, 64, 3200)
        assert float(p) == pytest.approx(step / 50, abs=1e-5)
