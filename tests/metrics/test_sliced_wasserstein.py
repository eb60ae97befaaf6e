"""Sliced Wasserstein distance and checkerboard energy, against closed forms and independent computations."""

import pytest
import torch

from cardigan.errors import CardiganError
from cardigan.metrics import sliced_wasserstein as module
from cardigan.metrics.checkerboard import nyquist_energies
from cardigan.metrics.sliced_wasserstein import _distance_with_error, _pyramid, num_compared, sliced_wasserstein
from cardigan.nets.stages import Stage
from cardigan.nets.upsampling import UpsampleConv2d


def images(count=20, seed=0, channels=3, size=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def test_pyramid_sums_to_the_images():
    maps = images(2).float()
    scales = list(_pyramid(maps))
    assert [scale.shape[2] for scale in scales] == [64, 32, 16]
    whole = scales[-1]
    for scale in reversed(scales[:-1]):
        whole = scale + module._enlarge(whole, *scale.shape[2:])
    assert torch.allclose(whole, maps, atol=1e-3)
    flat = list(_pyramid(torch.full((1, 1, 64, 64), 7.0)))
    assert float(flat[0][..., 4:-4, 4:-4].abs().max()) < 1e-4  # nothing is lost where nothing changes


def test_distance_of_shifted_values_is_the_shift():
    """Along one direction the Wasserstein distance of a set and its shifted copy is the shift."""
    real = torch.randn(20, 30, 1, generator=torch.Generator().manual_seed(1))
    value, error = _distance_with_error(real + 0.25, real, torch.Generator().manual_seed(0))
    assert value == pytest.approx(250, rel=1e-4) and error < 1e-2


def test_one_direction_equals_scipy():
    from scipy.stats import wasserstein_distance

    generator = torch.Generator().manual_seed(2)
    samples, real = torch.randn(20, 30, 1, generator=generator), torch.rand(20, 30, 1, generator=generator)
    value, _ = _distance_with_error(samples, real, torch.Generator().manual_seed(0))
    assert value == pytest.approx(1000 * wasserstein_distance(samples.flatten(), real.flatten()), rel=1e-4)


def test_error_matches_the_spread_of_independent_sets():
    """Over ten pairs of sets of two distributions."""

    def smooth(pixels):
        return torch.nn.functional.avg_pool2d(pixels.float(), 7, 1, 3).to(torch.uint8)

    found = [sliced_wasserstein(smooth(images(40, seed)), images(40, 100 + seed), seed)[32] for seed in range(10)]
    values = torch.tensor([value for value, _ in found])
    errors = torch.tensor([error for _, error in found])
    assert 0.3 < float(errors.mean() / values.std()) < 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equal_sets_are_nearer_than_others(channels):
    one, other = images(20, 0, channels), images(20, 1, channels)
    for pixels in (one, other):
        pixels[:, 3:] = 255  # opaque, where there is alpha
    smooth = torch.nn.functional.avg_pool2d(other.float(), 5, 1, 2).to(torch.uint8)
    smooth[:, 3:] = 255
    equal, different = sliced_wasserstein(one, other), sliced_wasserstein(smooth, other)
    assert equal.keys() == different.keys() == {64, 32, 16}
    assert all(equal[side][0] < different[side][0] for side in equal)


def test_small_and_odd_images():
    assert set(sliced_wasserstein(images(20, 0, 1, 28), images(20, 1, 1, 28))) == {28}
    assert set(sliced_wasserstein(images(10, 0, 3, 35), images(10, 1, 3, 35))) == {35, 18}


def test_number_of_compared_images():
    assert num_compared(images(25, 0, 1), images(39, 1, 1)) == 20
    with pytest.raises(CardiganError, match="9 images to compare: expected at least 10"):
        sliced_wasserstein(images(9, 0, 1), images(20, 1, 1))


def test_nyquist_energy_of_a_checkerboard():
    rows = torch.arange(8)
    board = ((rows[:, None] + rows) % 2 * 20).to(torch.uint8)[None, None]  # mean 10, amplitude 10
    stripes = (rows % 2 * 20).expand(8, 8).to(torch.uint8)[None, None]
    flat = torch.full((1, 1, 8, 8), 10, dtype=torch.uint8)
    energies = nyquist_energies(torch.cat([board, stripes, flat]))
    assert torch.allclose(energies, torch.tensor([100.0, 100.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_nyquist_energy_equals_the_spectrum(size):
    """In any memory layout, as samplers return their images."""
    pixels = images(3, size=16)[..., : size[0], : size[1]].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    height, width = (side // 2 * 2 for side in size)
    values = pixels[..., :height, :width].double().contiguous()
    power = torch.fft.fft2(values).abs().square() / (height * width) ** 2
    is_edge = torch.zeros(height, width, dtype=torch.bool)
    is_edge[height // 2], is_edge[:, width // 2] = True, True
    expected = (power * is_edge).sum(dim=(2, 3)).mean(dim=1)
    assert torch.allclose(nyquist_energies(pixels), expected)


def test_strided_deconvolution_has_more_of_it_than_upsampling():
    """At initial weights, for which the generator `light` was chosen."""
    torch.manual_seed(0)
    maps = torch.randn(16, 8, 32, 32).cumsum(2).cumsum(3) / 30  # smooth
    box = UpsampleConv2d(8, 3, Stage((64, 64), (32, 32)))
    free = torch.nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False)
    energies = []
    for layer in (box, free):
        with torch.no_grad():
            pixels = ((layer(maps) * 20).clamp(-127, 127) + 128).to(torch.uint8)
        energies.append(float(nyquist_energies(pixels).mean()))
    assert energies[0] < energies[1] / 2
