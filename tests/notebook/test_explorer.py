"""`Model.explore` in Python: the point on the pad, its image, and what changes them."""

import io
import sys

import numpy as np
import pytest

from cardigan.errors import CardiganError
from cardigan.inference.model import Model
from tiny_runs import small_snapshot

anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'cardigan[dev]'")
from PIL import Image  # noqa: E402
from traitlets import TraitError  # noqa: E402

SEEDS = (0, 1, 2, 41)
NUM_CLASSES = 3


@pytest.fixture(scope="module")
def model():
    return Model(small_snapshot(classes=NUM_CLASSES))


@pytest.fixture
def widget(model):
    return model.explore(SEEDS)


def shown(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_corners_are_the_images_of_their_seeds(model, widget):
    expected = model.sample_seeds(SEEDS)[..., 0]
    for corner, (x, y) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        widget.x, widget.y = x, y
        assert np.array_equal(np.asarray(widget.image), expected[corner])
        assert np.array_equal(shown(widget.corner_pngs[corner]), expected[corner])
        assert widget.labels.shape == (1,)


def test_point_gives_the_image_again(model, widget):
    widget.label, widget.x, widget.y, widget.truncation = "1", 0.3, 0.8, 0.6
    assert widget.z.shape == (1, model.config.latent.size) and widget.z.dtype == np.float32
    again = model(latents=widget.z, labels=widget.labels).images[0]
    assert np.array_equal(np.asarray(again), np.asarray(widget.image))
    assert np.abs(shown(widget.image_png) - np.asarray(widget.image)).max() <= 1


def test_classes_are_mixed_between_corners(widget):
    corner_classes = set()
    for widget.x, widget.y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner_classes.add(int(widget.labels[0]))
    assert len(corner_classes) > 1, "choose seeds of different classes"
    widget.x = widget.y = 0.5
    assert widget.labels.shape == (1, NUM_CLASSES)
    assert widget.labels.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "change",
    [
        {"x": 0.9},
        {"y": 0.1},
        {"truncation": 0.2},
        {"label": "2"},
        {"corners": [5, 6, 7, 8]},
        {"direction_amounts": [4.0] + [0.0] * 7},
    ],
)
def test_every_control_changes_the_image(widget, change):
    before = widget.image_png
    for name, value in change.items():
        setattr(widget, name, value)
    assert widget.image_png != before and not widget.error
    assert bool(widget.explained_variance_ratio) == ("direction_amounts" in change)


def test_request_of_the_browser_is_drawn_once_and_answered(widget, monkeypatch):
    drawn = []
    draw = widget._draw
    monkeypatch.setattr(widget, "_draw", lambda: (drawn.append(1), draw()))
    before = widget.image_png
    widget.set_state({"x": 0.1, "y": 0.9, "request": 7})
    assert widget.answer == 7 and widget.image_png != before
    widget.set_state({"request": 8})
    assert widget.answer == 8


def test_model_without_classes(tmp_path):
    widget = Model(small_snapshot()).explore()
    assert widget.labels is None and widget.num_classes == 0 and widget.image.size == (32, 32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"seeds": [1, 2]}, "2 seeds were given: the pad has 4 corners, one seed each."),
        ({"seeds": [1, 2, 3, 2**53]}, "seed is 9007199254740992: expected 0..9007199254740991."),
        ({"labels": 3}, "label 3 is out of range: expected 0..2."),
        ({"truncation": 1.5}, "truncation is 1.5: expected a number from 0"),
    ],
)
def test_invalid_arguments(model, arguments, message):
    with pytest.raises(CardiganError, match=message):
        model.explore(**arguments)


@pytest.mark.parametrize("name, value", [("label", "3"), ("corners", [-1, 0, 0, 0]), ("x", 1.5)])
def test_invalid_values_are_not_taken(widget, name, value):
    before = getattr(widget, name)
    with pytest.raises(TraitError):
        setattr(widget, name, value)
    assert getattr(widget, name) == before


def test_without_anywidget_an_error_names_the_command(model, monkeypatch):
    monkeypatch.delitem(sys.modules, "cardigan.notebook.latent_explorer", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(CardiganError, match=r"needs anywidget: pip install 'cardigan\[notebook\]'"):
        model.explore()
