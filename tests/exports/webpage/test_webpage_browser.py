"""The page in a real browser: same images as PyTorch; mouse, touch and keyboard input; no network requests."""

import base64
import dataclasses
import io
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from test_webpage_program import random_generator

from cardigan.config import Config
from cardigan.config_parts import LatentConfig
from cardigan.explore.views import mixed_classes
from cardigan.exports.webpage.page import write_page
from cardigan.latents.interpolation import corner_weights, interpolate, interpolate_corners, point_latents
from cardigan.latents.sampling import sample_latents
from cardigan.models.sampling import random_labels, sample_pixels

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH"
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
)

TIMEOUT_MILLISECONDS = 60_000
"""Milliseconds, on a machine that may be busy."""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "</script><img src=x onerror=document.title='taken'>\"'`{{script}}"
SEEDS = ["0", "1", "7", "123456789012", str(2**63 - 1)]
NETWORKS = {
    "conditional": ("dcgan", 5, {"normalization": "batch", "channels": 1}),
    "unconditional": ("dcgan", 0, {"channels": 4, "size": (16, 16), "latent": 7}),
    "resnet": ("resnet", 3, {"normalization": "batch", "options": {"attention_resolution": 9}, "channels": 3}),
    "r3gan": ("r3gan", 2, {"depth": 1, "channels": 3}),
    "mnist": ("dcgan", 10, {"normalization": "batch", "size": (32, 32), "latent": 64, "width": 32}),
    "mlp": ("mlp", 30, {"conditioning": "one-hot", "channels": 2, "size": (8, 12), "distribution": "uniform"}),
}


def snapshot_of(case):
    name, classes, options = NETWORKS[case]
    snapshot = random_generator(name, classes, **options)
    names = tuple(f"{HOSTILE}{number}" for number in range(classes)) if case == "conditional" else ()
    counts = tuple(range(1, classes + 1)) if case == "resnet" else ()
    return dataclasses.replace(
        snapshot, spec=dataclasses.replace(snapshot.spec, class_names=names, class_counts=counts)
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return a function that writes a network's page once."""
    folder, written = tmp_path_factory.mktemp("pages"), {}

    def page_of(case):
        if case not in written:
            written[case] = snapshot_of(case), folder / f"{case}.html"
            links = "[a](javascript:alert(1)) [c](https://example.org)"
            table = f"| {HOSTILE} | b |\n|---|---|\n| 1 | 2 |\n"
            card = f"---\nlicense: x\n---\n# {HOSTILE}\n\n{links} {HOSTILE} `{HOSTILE}`\n\n{table}"
            names = (HOSTILE[:40],) if case == "conditional" else ()
            write_page(*written[case], card=card, direction_names=names)
        return written[case]

    return page_of


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, pages):
    """Open a network's page from disk. Any error, request or console message fails the test."""
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce", has_touch=True)
    problems = []

    def open_page(case, query=""):
        snapshot, path = pages(case)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                problems.append(request.url) if not request.url.startswith(("data:", "blob:", path.as_uri())) else None
            ),
        )
        page.goto(path.as_uri() + query)
        page.wait_for_selector("html[data-ready]")
        return snapshot, page

    open_page.problems = problems
    yield open_page
    context.close()
    assert not problems


def floats(page, expression):
    """Return the float32 values of an expression, without JSON."""
    code = """(async () => {
        let text = "";
        for (const byte of new Uint8Array((await HERE).buffer)) text += String.fromCharCode(byte);
        return btoa(text);
    })()"""
    text = page.evaluate(code.replace("HERE", expression))
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())


def wait_until(page, condition):
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(30)


@pytest.mark.parametrize("query", ["", "?engine=javascript", "?worker=no"])
@pytest.mark.parametrize("case", [case for case in NETWORKS if case != "mnist"])
def test_webpage_images_equal_pytorch(open_page, case, query):
    if query and case not in {"conditional", "resnet"}:
        pytest.skip("two networks are enough for the other engines")
    snapshot, page = open_page(case, query)
    assert (
        page.evaluate("cardigan.engine()")
        == {"": "WebAssembly in a worker", "?engine=javascript": "JavaScript in a worker", "?worker=no": "WebAssembly"}[
            query
        ]
    )
    keys, classes = [(int(seed), 0) for seed in SEEDS], snapshot.spec.num_classes
    z = sample_latents(snapshot.config.latent.distribution, keys, snapshot.config.latent.size)
    for labels, settings in (
        (random_labels(snapshot.spec, keys), ""),
        (torch.full((len(keys),), 1) if classes else None, ", { label: 1, truncation: 0.5 }"),
    ):
        expected = snapshot.generator(z * (0.5 if settings else 1), labels).flatten()
        actual = floats(page, f"cardigan.pixels({SEEDS}{settings})")
        assert expected.std() > 1e-3
        assert (actual - expected).abs().max() <= 2e-2 * max(1, float(expected.abs().max()))
        assert (actual - expected).abs().max() <= 0.1 * expected.std()  # a flat image would fail


@pytest.mark.parametrize("case", ["conditional", "resnet", "mlp"])
@torch.no_grad()
def test_pad_mixes_latents_and_classes_as_python(open_page, case):
    """A corner is its seed's image without rounding; elsewhere the image equals Python's mix of z and of classes."""
    snapshot, page = open_page(case)
    seeds = [0, 1, 2, 41]
    assert len(random_labels(snapshot.spec, [(seed, 0) for seed in seeds]).unique()) > 1
    corners = point_latents(snapshot.config, seeds)
    together = floats(page, f"cardigan.pixels({seeds})").reshape(4, -1)
    for seed, in_batch, (x, y) in zip(seeds, together, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        image = floats(page, f"cardigan.mixed({seeds}, {x}, {y})")
        assert torch.equal(image, floats(page, f"cardigan.pixels([{seed}])"))
        assert torch.equal(((image + 1) * 127.5).round(), ((in_batch + 1) * 127.5).round())
    for x, y in ((0.5, 0.5), (0.25, 0.7), (1.0, 0.5)):
        z = interpolate_corners(snapshot.config, corners, x, y)
        for label in ("", "1"):
            classes = mixed_classes(snapshot, seeds, corner_weights([(x, y)]), label)
            expected = snapshot.generator(z, classes).flatten()
            actual = floats(page, f"cardigan.mixed({seeds}, {x}, {y}{', 1' if label else ''})")
            assert (actual - expected).abs().max() <= min(2e-2, 0.1 * float(expected.std()))


def test_javascript_interpolates_as_python(open_page):
    """Also between opposite, parallel and zero latents, and to the ends."""
    _, page = open_page("conditional")
    config = Config(latent=LatentConfig(size=5))
    a = torch.tensor([[0.5, -2.0, 0.25, 1.0, 3.0]])
    for b in (torch.tensor([[1.0, 0.1, -1.0, 0.0, 2.0]]), -a, 2 * a, 0 * a):
        for t in (0.0, 0.3, 1.0):
            call = (
                f"interpolate(Float32Array.of(...{a[0].tolist()}), Float32Array.of(...{b[0].tolist()}), {t}, 'normal')"
            )
            actual = torch.tensor(page.evaluate(f"Array.from({call})"))
            expected = interpolate(config, a, b, torch.tensor([t], dtype=torch.float64))[0]
            assert torch.allclose(actual, expected, atol=1e-6), (b, t)
            assert t == 0.3 or torch.equal(actual, expected)


@pytest.mark.parametrize("case", ["conditional", "unconditional", "mlp"])
def test_seed_gives_equal_latents(open_page, case):
    snapshot, page = open_page(case)
    for seed in SEEDS:
        z = floats(page, f"cardigan.latents(['{seed}'])[0]")
        assert torch.allclose(
            z, sample_latents(snapshot.config.latent.distribution, [(int(seed), 0)], len(z))[0], atol=1e-5
        )


def test_shown_and_saved_images_equal_sample(open_page):
    snapshot, page = open_page("unconditional")
    page.fill("[data-corner='2']", "41")
    page.press("[data-corner='2']", "Enter")
    page.check("input[name=grid][value='1']", force=True)
    page.focus("#pad")
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("Shift+ArrowDown")
    assert page.get_attribute("#pad", "aria-valuetext") == "0 % across, 100 % down"
    wait_until(page, lambda: page.get_attribute("#tiles", "aria-label") == "The image 0 % across, 100 % down")
    with page.expect_download() as download:
        page.click("#save")
    saved = (
        torch.from_numpy(np.array(Image.open(io.BytesIO(download.value.path().read_bytes())))).permute(2, 0, 1).int()
    )
    expected = sample_pixels(snapshot, [(41, 0)])[0].int()
    assert saved.shape == expected.shape
    opaque = expected[3] > 127  # a canvas stores premultiplied alpha
    assert (saved - expected).abs()[:, opaque].max() <= 3
    assert (saved - expected).abs()[3].max() <= 1
    assert "--seeds 0,1,41,3" in page.inner_text("#command")


def test_pointer_and_keyboard_move_the_cursor(open_page):
    _, page = open_page("conditional")
    box = page.locator("#pad").bounding_box()

    def position():
        style = "document.getElementById('pad').style"
        return [float(page.evaluate(f"{style}.getPropertyValue('--{axis}')")) for axis in "xy"]

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.3, steps=4)
    page.mouse.up()
    assert position() == pytest.approx([0.8, 0.3], abs=0.02)
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.6)
    assert position() == pytest.approx([0.25, 0.6], abs=0.02)
    page.keyboard.press("ArrowRight")
    page.focus("#pad")
    before = position()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert position() == pytest.approx([before[0] + 0.02, before[1] - 0.02], abs=1e-6)


def test_walk_plays_and_pauses(open_page):
    _, page = open_page("conditional")
    label = page.get_attribute("#tiles", "aria-label")
    page.focus("#walk")
    page.keyboard.press("Enter")
    wait_until(page, lambda: page.get_attribute("#tiles", "aria-label") != label)
    assert page.inner_text("#walk") == "Pause the walk"
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    label = page.get_attribute("#tiles", "aria-label")
    page.wait_for_timeout(300)
    assert page.get_attribute("#tiles", "aria-label") == label


def canvas_images(page, selector):
    return page.evaluate(f"Array.from(document.querySelectorAll('{selector}'), (canvas) => canvas.toDataURL())")


def test_controls_change_images(open_page):
    _, page = open_page("conditional")
    page.wait_for_timeout(100)
    before = canvas_images(page, "#seeds canvas")
    assert len(set(before)) == len(before) == 24
    page.check("input[name=class][value='2']", force=True)
    wait_until(
        page,
        lambda: (
            (after := canvas_images(page, "#seeds canvas"))
            and sum(one != other for one, other in zip(before, after, strict=True)) > 12
        ),
    )
    page.locator(".slider input").first.fill("0")
    wait_until(page, lambda: len(set(canvas_images(page, "#seeds canvas"))) == 1)
    page.click("#reset")
    wait_until(page, lambda: len(set(canvas_images(page, "#seeds canvas"))) == 24)
    corner = canvas_images(page, ".c0 canvas")
    page.click("#next")
    page.locator(".seed").nth(3).press("Enter")
    assert page.input_value("[data-corner='0']") == "27"
    wait_until(page, lambda: canvas_images(page, ".c0 canvas") != corner)
    page.fill("#first", "-3")
    page.press("#first", "Enter")
    assert page.get_attribute("#first", "aria-invalid") == "true"
    assert page.locator(".seed span").first.inner_text() == "24"


def test_untrusted_text_is_escaped_in_browser(open_page):
    _, page = open_page("conditional")
    page.click("summary")
    assert page.title() == "What a network learned from mnist"
    assert HOSTILE in page.inner_text("#card-text h3")
    assert page.locator("#card-text img, #class img").count() == 0
    assert page.locator("#card-text a").evaluate_all("links => links.map((link) => link.href)") == [
        "https://example.org/"
    ]
    assert f"{HOSTILE}3" in page.locator("#class span").all_inner_texts()
    labels = page.locator("#directions .slider > span").all_inner_texts()
    assert labels[0].startswith(f"{HOSTILE[:40]}: ") and labels[1].startswith("2: ")


@pytest.mark.parametrize("case", ["conditional", "unconditional", "mlp"])
def test_webpage_is_accessible_and_responsive(open_page, case):
    from axe_playwright_python.sync_playwright import Axe

    _, page = open_page(case)
    page.click("summary")
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_timeout(60)
            found = Axe().run(page).response["violations"]
            assert [(each["id"], [node["html"][:120] for node in each["nodes"]][:4]) for each in found] == [], (
                size,
                theme,
            )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), size


def test_webpage_makes_no_requests(open_page):
    _, page = open_page("conditional")
    image = (
        "new Promise((_, reject) => { const image = new Image(); image.onerror = () => reject(Error('refused')); "
        "image.src = 'https://example.org/x' })"
    )
    for attempt in ("fetch('https://example.org/')", image):
        with pytest.raises(playwright.Error):
            page.evaluate(attempt)
    assert len(open_page.problems) >= 2  # the browser's messages about blocked requests
    open_page.problems.clear()
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert "connect-src" not in policy and policy.startswith("default-src 'none'")


def cpu_fraction():
    """Return the fraction of a core that this process currently gets, to correct times on a busy machine."""
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall_start < 0.3:
        pass
    return (time.process_time() - cpu_start) / (time.perf_counter() - wall_start)


@pytest.mark.alone
def test_mnist_webpage_size_and_latency(open_page, pages):
    _, path = pages("mnist")
    assert path.stat().st_size <= 4_000_000
    _, page = open_page("mnist")
    for grid in (1, 4):
        rates = [page.evaluate(f"cardigan.redraws({grid}, 1)") / cpu_fraction() for _ in range(3)]
        print(f"{grid} x {grid}: {sorted(rates)[1]:.0f} redraws per second on a dedicated core")
        assert max(rates) >= 15
