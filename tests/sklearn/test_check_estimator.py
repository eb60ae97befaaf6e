"""scikit-learn's own checks of an estimator, as far as a generator of images can pass them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cardigan
from cardigan.metrics import quick

estimator_checks = pytest.importorskip("sklearn.utils.estimator_checks")

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "sklearn.md"
SMALL = {
    **{"batch_size": 8, "generator.width": 2, "discriminator.network": "dcgan", "discriminator.width": 2},
    **{"data.num_workers": 0, "precision": "fp32", "data.height": 8, "data.width": 8},
}
NOT_PASSED = {
    "check_dtype_object": "an array of Python objects is no array of pixels",
    "check_estimators_empty_data_messages": "the error speaks of images, not of samples and features",
    "check_estimators_nan_inf": "an image with NaN or infinity is left out and counted, as a damaged file is",
    "check_fit2d_1sample": "the error speaks of images: training needs at least 2",
    "check_n_features_in_after_fitting": "`score` resizes images of another size instead of refusing them",
}
"""Checks that fail, and why. The guide has the same list."""
SKIPPED = ("check_array_api_input",)
"""Checks that scikit-learn skips unless an environment variable is set."""


class RowGAN(cardigan.GAN):
    """A GAN of the rows of numbers that the checks give: each is an image of one row of pixels."""

    def fit(self, X, y=None):  # noqa: N803
        return super().fit(row_images(X), y)

    def score(self, X, y=None):  # noqa: N803
        return super().score(row_images(X), y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def row_images(rows):
    """Return rows of numbers as images with values between 0 and 1; anything else as it is."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiuc":
        return rows
    images = rows[:, None, :, None]
    return images if rows.dtype.kind == "c" else 1 / (1 + np.exp(-images.astype(np.float64)))


def check_statuses():
    """Run the checks and return "name status" for each. One training has one step."""
    quick.MIN_SAMPLES = 8
    gan = RowGAN(images=8, device="cpu", overrides=SMALL, runs=None, random_state=0)
    results = estimator_checks.check_estimator(gan, expected_failed_checks=NOT_PASSED, on_fail=None, on_skip=None)
    return [f"{each['check_name']} {each['status']}" for each in results]


def test_checks_of_scikit_learn(tmp_path):
    """In a process without the type checks of the tests: they refuse what is given before the estimator does."""
    code = "import test_check_estimator; print(*test_check_estimator.check_statuses(), sep='\\n')"
    environment = {**os.environ, "CARDIGAN_CACHE": str(tmp_path)}
    environment.pop("SCIPY_ARRAY_API", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = [line.split() for line in done.stdout.splitlines() if line.startswith("check_")]
    assert [name for name, status in statuses if status == "failed"] == []
    assert {name for name, status in statuses if status == "xfail"} == set(NOT_PASSED)
    assert {name for name, status in statuses if status == "skipped"} <= set(SKIPPED)
    assert sum(status == "passed" for _, status in statuses) >= 30


def test_tags_say_that_images_are_not_rows():
    """Without the subclass above, scikit-learn would check nothing but these."""
    tags = cardigan.GAN().__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array


def test_guide_has_the_list():
    text = GUIDE.read_text(encoding="utf-8")
    rows = {
        cells[0].strip(" `"): cells[1].strip()
        for line in text.splitlines()
        if len(cells := line.strip("|").split("|")) == 2 and cells[0].strip().startswith("`check_")
    }
    assert rows == NOT_PASSED
