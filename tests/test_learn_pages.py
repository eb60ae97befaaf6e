"""The pages of docs/learn: their numbers are those of the code, and their pictures are small and used."""

import re
from pathlib import Path

import pytest
import torch

from cardigan.objective.losses import LOSSES

FOLDER = Path(__file__).parents[1] / "docs" / "learn"
MAX_PICTURE_BYTES = 150_000


def table_rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose header has this text."""
    lines = iter((FOLDER / page).read_text().splitlines())
    next(line for line in lines if line.startswith("|") and heading in line)
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def first_number(text: str) -> float | None:
    match = re.match(r"-?\d+(\.\d+)?", text)
    return float(match[0]) if match else None


def test_losses_of_an_undecided_and_of_a_certain_discriminator():
    rows = {row[0].strip("`"): row[1:] for row in table_rows("losses.md", "D's loss if D is right and certain")}
    assert set(rows) == set(LOSSES)
    for name, cells in rows.items():
        loss = LOSSES[name]
        undecided = torch.full((8,), loss.decision_boundary or 0.0)
        certain = (1.0, 0.0) if name == "least-squares" else (1e3, -1e3)
        real, fake = (torch.full((8,), value) for value in certain)
        numbers = [first_number(cell) for cell in cells]
        assert numbers[0] == pytest.approx(float(loss.discriminator(undecided, undecided)), abs=5e-4)
        assert numbers[2] == (float(loss.discriminator(real, fake)) if loss.bounded_below else None)
        if name != "wasserstein":  # its G loss depends on the level of the logits
            assert numbers[1] == pytest.approx(float(loss.generator(undecided, undecided)), abs=5e-4)


@pytest.mark.parametrize("page", ["losses.md", "collapse.md"])
def test_pictures_are_small_and_links_lead_somewhere(page):
    text = (FOLDER / page).read_text()
    for name in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (FOLDER / name).stat().st_size < MAX_PICTURE_BYTES, name
    for name in re.findall(r"\]\((\.\./[^)#]+)", text):
        assert (FOLDER / name).exists(), name


def test_all_pictures_are_used():
    used = {name for page in FOLDER.glob("*.md") for name in re.findall(r"\]\((images/[^)]+)\)", page.read_text())}
    assert used == {f"images/{path.name}" for path in (FOLDER / "images").iterdir()}
