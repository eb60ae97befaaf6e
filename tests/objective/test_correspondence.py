"""Cross-domain correspondence, against the paper's equations written out."""

import math

import torch
from torch.nn.functional import cosine_similarity

from cardigan.objective.correspondence import correspondence


def written_out(now: torch.Tensor, start: torch.Tensor) -> float:
    """Equations 1 to 3 of arXiv:2104.06820 for one layer, image by image."""
    total, count = 0.0, len(now)
    for anchor in range(count):
        distributions = []
        for maps in (now, start):
            others = [other for other in range(count) if other != anchor]
            similar = [math.exp(cosine_similarity(maps[anchor], maps[other], dim=0)) for other in others]
            distributions.append([each / sum(similar) for each in similar])
        total += sum(p * math.log(p / q) for p, q in zip(*distributions, strict=True))
    return total / count


def test_it_is_the_paper_s_divergence():
    generator = torch.Generator().manual_seed(0)
    now, start = (
        [torch.randn(5, 4, 3, 3, generator=generator), torch.randn(5, 7, generator=generator)] for _ in range(2)
    )
    expected = sum(written_out(a.flatten(1), b.flatten(1)) for a, b in zip(now, start, strict=True)) / 2
    torch.testing.assert_close(correspondence(now, start), torch.tensor(expected))


def test_equal_similarities_cost_nothing_and_maps_are_drawn_to_those_of_the_start():
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    now = (3 * start).requires_grad_()  # cosines do not depend on size
    assert abs(correspondence([now], [start]).item()) < 1e-6
    maps = torch.ones(4, 6) + 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    first = correspondence([maps], [start])
    for _ in range(200):
        maps = maps.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(correspondence([maps], [start]), maps)
        maps = maps - 10 * gradient
    assert correspondence([maps], [start]) < first / 100
    start = start.requires_grad_()
    assert torch.autograd.grad(correspondence([maps], [start]), start, allow_unused=True) == (None,)
