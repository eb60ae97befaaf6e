"""The JavaScript of `Model.explore` in a real browser, joined to the Python widget as a notebook joins them."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardigan.inference.model import Model
from tiny_runs import small_snapshot

pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'cardigan[dev]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
)
from cardigan.notebook.latent_explorer import STATIC, LatentExplorer  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH"
)
TIMEOUT_MILLISECONDS = 20_000
FOLDER = Path(__file__).parent
ADDRESS = "http://notebook.test/"
FILES = {
    "latent_explorer.js": (STATIC / "latent_explorer.js", "text/javascript"),
    "latent_explorer.css": (STATIC / "latent_explorer.css", "text/css"),
    "notebook_model.js": (FOLDER / "notebook_model.js", "text/javascript"),
}
PAGE = """<!doctype html><html lang="en"><title>Notebook</title>
<link rel="stylesheet" href="latent_explorer.css"><script src="notebook_model.js"></script>
<body><main><h1>Notebook</h1><div id="cell"></div></main></body></html>"""


def encoded(value):
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return [encoded(each) for each in value] if isinstance(value, list) else value


def state_of(widget):
    """Return the widget's own traits, as they go to the browser."""
    names = [name for name in LatentExplorer.class_own_traits(sync=True) if not name.startswith("_")]
    return {name: encoded(getattr(widget, name)) for name in names}


def answer(route, request):
    name = request.url.removeprefix(ADDRESS)
    if name in FILES:
        path, kind = FILES[name]
        route.fulfill(body=path.read_text(), content_type=kind)
    else:
        route.fulfill(body=PAGE if not name else "", content_type="text/html")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_widget(browser):
    """Show a widget. Any error in the browser fails the test."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, color_scheme="light")
    problems = []

    def open_widget(widget):
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.route(ADDRESS + "*", answer)
        page.goto(ADDRESS)

        def python(changes):
            before = state_of(widget)
            widget.set_state(changes)
            return {name: value for name, value in state_of(widget).items() if value != before[name]}

        page.expose_function("python", python)
        page.evaluate("(state) => showWidget(state, '/latent_explorer.js')", state_of(widget))
        page.wait_for_selector(".stage canvas[data-drawn]")
        return page

    yield open_widget
    context.close()
    assert not problems


@pytest.fixture
def widget():
    return Model(small_snapshot(classes=3)).explore()


def on_canvas(page):
    """Return the image on the screen, at its own size."""
    code = "document.querySelector('.stage canvas').toDataURL()"
    picture = Image.open(io.BytesIO(base64.b64decode(page.evaluate(code).split(",")[1]))).convert("L")
    return np.asarray(picture.resize((32, 32), Image.Resampling.NEAREST)).astype(int)


def wait_for_python(page, widget, expected):
    for _ in range(200):
        if all(getattr(widget, name) == value for name, value in expected.items()):
            page.wait_for_timeout(50)
            return
        page.wait_for_timeout(25)
    raise AssertionError({name: getattr(widget, name) for name in expected})


def drag(page, start, end, steps=10):
    box = page.locator(".pad").bounding_box()
    at = lambda place: (box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])  # noqa: E731
    page.mouse.move(*at(start))
    page.mouse.down()
    page.mouse.move(*at(end), steps=steps)
    page.mouse.up()


def test_drag_moves_the_point_and_shows_its_image(open_widget, widget):
    page = open_widget(widget)
    first = on_canvas(page)
    drag(page, (0.5, 0.5), (0.8, 0.25))
    page.wait_for_function("model.get('answer') === model.get('request') && Math.abs(model.get('x') - 0.8) < 0.01")
    page.wait_for_timeout(100)
    assert (widget.x, widget.y) == (pytest.approx(0.8, abs=0.01), pytest.approx(0.25, abs=0.01))
    assert np.abs(on_canvas(page) - np.asarray(widget.image)).max() <= 1
    assert np.abs(on_canvas(page) - first).max() > 5


def test_one_request_is_on_its_way_and_the_newest_follows(open_widget, widget):
    page = open_widget(widget)
    page.evaluate("hold = true")
    drag(page, (0.1, 0.1), (0.9, 0.6), steps=30)
    assert page.evaluate("[sent.length, held.length]") == [0, 1]
    page.evaluate("release()")
    page.wait_for_function("sent.length === 2 && model.get('answer') === 2")
    page.wait_for_timeout(100)
    assert page.evaluate("sent.length") == 2
    assert (widget.x, widget.y) == (pytest.approx(0.9, abs=0.01), pytest.approx(0.6, abs=0.01))


def test_keyboard_moves_the_point(open_widget, widget):
    page = open_widget(widget)
    page.focus(".pad")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    wait_for_python(page, widget, {"x": 0.52, "y": 0.4})
    assert page.get_attribute(".pad", "aria-valuetext") == "52 % across, 40 % down"
    page.get_by_label("Step of the arrow keys").fill("0.1")
    page.focus(".pad")
    page.keyboard.press("ArrowLeft")
    wait_for_python(page, widget, {"x": 0.42})
    page.keyboard.press("End")
    wait_for_python(page, widget, {"x": 1.0, "y": 1.0})


def test_controls_reach_python(open_widget, widget):
    page = open_widget(widget)
    page.get_by_label("Truncation").fill("0.5")
    page.get_by_label("Class").select_option("2")
    page.get_by_role("button", name="Next four seeds").click()
    page.get_by_label("Bottom left").fill("77")
    page.get_by_label("Bottom left").press("Enter")
    wait_for_python(page, widget, {"truncation": 0.5, "label": "2", "corners": [4, 5, 77, 7]})
    page.get_by_label("Bottom left").fill("-3")
    page.get_by_label("Bottom left").press("Enter")
    assert page.get_by_label("Bottom left").get_attribute("aria-invalid") == "true"
    assert "A seed is an integer" in page.inner_text("[role=status]")
    page.get_by_text("Principal directions").click()
    page.get_by_label("3", exact=True).fill("1.5")
    wait_for_python(page, widget, {"direction_amounts": [0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 0.0]})
    page.wait_for_selector("summary ~ div small:has-text('%')")
    page.get_by_role("button", name="Reset").click()
    wait_for_python(page, widget, {"truncation": 1.0, "label": "", "direction_amounts": [0.0] * 8})


def test_python_moves_the_handle(open_widget, widget):
    page = open_widget(widget)
    widget.x, widget.corners = 0.25, [9, 8, 7, 6]
    page.evaluate("receive", state_of(widget))
    assert page.get_attribute(".pad", "aria-valuetext") == "25 % across, 50 % down"
    assert page.get_by_label("Top left").input_value() == "9"
    page.evaluate("closeWidget()")
    assert page.evaluate("listenerCount()") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_in_light_and_dark(open_widget, widget, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_widget(widget)
    page.evaluate("(scheme) => document.body.dataset.jpThemeLight = String(scheme === 'light')", scheme)
    page.get_by_text("Principal directions").click()
    found = Axe().run(page).response["violations"]
    assert not [(each["id"], [node["target"] for node in each["nodes"]]) for each in found]


def test_narrow_output_does_not_overflow(open_widget, widget):
    page = open_widget(widget)
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
