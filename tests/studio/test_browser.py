"""Every view in a real browser, on a finished and on a training run, by mouse and by keyboard."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from browser_pages import (
    CHROMIUM,
    NARROW,
    TIMEOUT_MILLISECONDS,
    WIDE,
    cpu_fraction,
    fits_viewport,
    open_view,
    start_process,
    stop_process,
    studio_of,
    url_parameters,
    violations,
    wait_until,
    wait_until_drawn,
)
from fake_runs import journal_line, make_run, progress_line, running_studio

import cardigan
import cardigan.studio

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH"
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
)

TINY = {
    "batch_size": 16,
    "generator.width": 8,
    "discriminator.width": 8,
    "device": "cpu",
    "checkpoint_every_images": 32,
    "sample_every_images": 16,
}
STATIC = Path(cardigan.studio.__file__).parent / "static"
MODES = ("interpolation", "seeds", "walk", "arithmetic", "checkpoints", "nearest", "invert")
VIEWS = {
    "runs": "#/runs",
    "compare": "#/compare?runs=finished,conditional",
    "live": "#/run/finished/live",
    "history": "#/run/finished/history?two=1",
    "discriminator": "#/run/finished/discriminator",
    "interpolation": "#/run/conditional/latent?grid=3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs, one with 100,000 readings, one with a fatal fault, one that is unreadable."""
    folder = tmp_path_factory.mktemp("runs")
    for name, conditional in (("finished", False), ("conditional", True)):
        cardigan.train("mnist", out=folder / name, images=64, overrides={**TINY, "conditional": conditional})
    readings = (progress_line(64 * step, generator_loss=1.0 + (step % 97) / 97) for step in range(100_000))
    make_run(folder / "long", readings, [64])
    advice = {
        "message": "D separates real from generated images easily",
        "advice": "Lower D's learning rate.",
        "evidence": {"d_real": 0.999},
    }
    fault = (
        json.dumps(
            {
                "kind": "fault",
                "images_seen": 128,
                "elapsed_seconds": 2.0,
                "name": "discriminator too strong",
                "fatal": True,
                **advice,
            }
        ).encode()
        + b"\n"
    )
    make_run(folder / "sick", [progress_line(64, holdout_gap=0.2), fault, progress_line(192)], [64])
    (make_run(folder / "unreadable") / "config.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    process, address = studio_of(folder)
    yield address
    stop_process(process)


@pytest.fixture(scope="module")
def training(folder):
    """A run that trains during the tests."""
    small = [
        "--batch-size",
        "8",
        "--generator.width",
        "8",
        "--discriminator.width",
        "8",
        "--device",
        "cpu",
        "--sample-every-images",
        "400",
        "--checkpoint-every-images",
        "100000",
    ]
    process = start_process(
        "train", "mnist", "--images", "100000000", "--no-conditional", *small, "--out", folder / "training"
    )
    deadline = time.monotonic() + 60
    while not list((folder / "training" / "samples").glob("[0-9]*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield "training"
    stop_process(process)


def append_line(run, *lines):
    with (run / "journal.jsonl").open("ab") as journal:
        journal.write(b"".join(lines))


def test_static_files_size():
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 300_000


@pytest.mark.alone
def test_page_loads_fast_without_external_requests(page, address):
    urls, seconds = [], []
    page.on("request", lambda request: urls.append(request.url))
    for _ in range(3):
        page.goto("about:blank")
        fraction, started_at = cpu_fraction(), time.monotonic()
        page.goto(address)
        page.wait_for_selector(".runs-table tbody tr")
        seconds.append((time.monotonic() - started_at) * fraction)
    assert min(seconds) < 1
    assert all(url.startswith((address, "about:", "data:", "blob:")) for url in urls)


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_accessible_and_responsive(page, address, view):
    open_view(page, address, VIEWS[view])
    assert page.evaluate("window.shifts") < 0.02
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_timeout(60)
            assert violations(page) == [], (size, theme)
        assert fits_viewport(page), size


def test_pad_and_its_image_fit_on_a_phone_and_say_that_they_load(page, address):
    page.set_viewport_size(NARROW)
    page.route("**/api/interpolation.png*", lambda route: (page.wait_for_timeout(600), route.continue_()))
    page.goto(address + "#/run/finished/latent")
    playwright.expect(page.locator(".big .loading")).to_have_text("Loading the model …")
    wait_until_drawn(page)
    playwright.expect(page.locator(".big .loading")).to_be_hidden()
    boxes = [page.locator(each).bounding_box() for each in (".interpolation-pad", ".big canvas")]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= NARROW["height"] for box in boxes)
    assert all(box["width"] > 140 for box in boxes)


def test_discriminator_view_says_that_it_loads(page, address):
    page.route("**/api/discriminator?*", lambda route: (page.wait_for_timeout(600), route.continue_()))
    page.goto(address + "#/run/finished/discriminator")
    playwright.expect(page.locator(".loading-line .loading")).to_have_text("Loading the networks …")
    wait_until_drawn(page)
    playwright.expect(page.locator(".loading-line .loading")).to_be_hidden()


@pytest.mark.parametrize("mode", MODES[1:])
def test_latent_view_modes(page, address, mode):
    open_view(page, address, f"#/run/finished/latent?mode={mode}")
    assert page.evaluate("window.shifts") < 0.02
    page.emulate_media(color_scheme="dark" if MODES.index(mode) % 2 else "light")
    page.set_viewport_size(NARROW)
    page.wait_for_timeout(60)
    assert fits_viewport(page)
    assert violations(page) == []
    if mode == "walk":
        wait_until(page, lambda: page.evaluate("document.querySelector('img.animation').naturalWidth") > 0)
    if mode == "invert":
        sheet = page.request.get(address + "api/seeds.png?run=finished&seeds=5").body()
        page.set_input_files("#upload", {"name": "five.png", "mimeType": "image/png", "buffer": sheet})
        playwright.expect(page.locator(".readout")).to_contain_text("gray levels", timeout=TIMEOUT_MILLISECONDS)
        page.click("text=Interpolate from it")
        wait_until_drawn(page)
        wait_until(page, lambda: url_parameters(page).get("corners", "").startswith("z"))
        assert page.locator(".modes input:checked").get_attribute("value") == "interpolation"
        page.keyboard.press("ArrowRight")
        wait_until(page, lambda: url_parameters(page).get("x") == "0.02")
        page.fill("label:has-text('Top left') input", "9")
        page.keyboard.press("Tab")
        wait_until(page, lambda: url_parameters(page).get("corners", "").startswith("9,0,"))
    else:
        page.click("text=Copy the Python")
        playwright.expect(page.locator(".code")).to_contain_text("import cardigan")
        assert "import cardigan" in page.evaluate("navigator.clipboard.readText()")


def test_runs_are_filtered_sorted_and_compared(page, address):
    open_view(page, address, "#/runs")
    names = page.locator(".runs-table tbody th")
    assert names.count() == 5
    page.keyboard.press("/")
    page.keyboard.type("unread")
    playwright.expect(names).to_have_count(1)
    page.fill("#filter", "")
    page.click("thead button:has-text('Images') >> nth=0")
    page.click("thead button:has-text('Images') >> nth=0")
    assert page.locator("th[aria-sort=descending]").inner_text() == "Images"
    assert names.first.inner_text().startswith("long")
    for name in ("finished", "conditional"):
        page.check(f"[aria-label='Select {name} to compare']")
    page.click("text=Compare 2 runs")
    playwright.expect(page.locator(".run-column canvas")).to_have_count(2)
    wait_until_drawn(page)
    playwright.expect(page.get_by_role("region", name="Settings that differ")).to_contain_text("conditional")
    page.get_by_text("Chosen seeds").click()
    page.click("text=Next seeds")
    wait_until(page, lambda: url_parameters(page).get("first") == "16")
    playwright.expect(page.locator(".run-column > .count").first).to_have_text("after 64 images")
    page.locator(".run-column").first.get_by_text("Copy the Python").click()
    playwright.expect(page.locator(".run-column .code").first).to_contain_text("import cardigan")


def test_keyboard_navigation(page, address):
    open_view(page, address, "#/run/finished/live")
    page.keyboard.press("?")
    playwright.expect(page.locator("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    playwright.expect(page.locator("dialog")).to_be_hidden()
    page.keyboard.press("2")
    page.wait_for_selector("main[data-ready='history:finished']")
    playwright.expect(page.locator(".history-pane b")).to_contain_text("images")
    last = page.locator(".history-pane b").inner_text()
    page.keyboard.press("Home")
    assert page.locator(".history-pane b").inner_text() == "0 images"
    page.keyboard.press("ArrowRight")
    assert page.locator(".history-pane b").inner_text() == "16 images"
    wait_until(page, lambda: url_parameters(page).get("at") == "16")
    page.keyboard.press("Space")
    playwright.expect(page.locator(".history-pane b")).to_have_text(last)
    page.locator(".tiles button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".tile-history h2")).to_have_text("Tile 2 over training")
    page.locator(".crumb a").focus()
    page.keyboard.press("3")
    page.wait_for_selector("main[data-ready='discriminator:finished']")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("r")
    page.wait_for_selector(".runs-table tbody tr")


def test_discriminator_view_shows_logits_and_gradients(page, address):
    open_view(page, address, "#/run/finished/discriminator")
    frames = page.locator(".discriminator-images button")
    assert frames.count() == 16
    # the default loss compares pairs, so a single image has neither a probability nor a prediction
    spans = page.locator(".discriminator-images button span")
    assert all(re.fullmatch(r"[+-]?[\d.]+(e-\d+)?", words) for words in spans.all_inner_texts())
    assert page.locator("[data-prediction=real], [data-prediction=fake], .legend .dash").count() == 0
    assert "classif" not in page.inner_text("main")
    playwright.expect(page.locator(".logits .readout")).to_contain_text("of the pairs")
    frames.nth(3).click()
    playwright.expect(page.locator(".detail .readout")).to_contain_text("Image 3")
    page.click("text=most real first")
    found = page.evaluate("fetch('/api/discriminator?run=finished&seed=0&count=16').then((answer) => answer.json())")
    names = frames.evaluate_all("buttons => buttons.map((button) => button.getAttribute('aria-label'))")
    order = [int(re.search(r"number (\d+)", name)[1]) for name in names]
    assert order == sorted(range(16), key=lambda index: -found["fake"][index]) != list(range(16))
    page.click("label:has-text('gradients')")
    wait_until(page, lambda: url_parameters(page).get("gradient") == "1")
    playwright.expect(page.locator(".logit-histogram")).to_be_visible()
    page.locator(".crumb a").focus()
    page.keyboard.press("Home")
    playwright.expect(page.locator(".logits .readout")).to_contain_text("0 images")
    page.goto(address + "#/run/50%/live")
    playwright.expect(page.locator(".view [role=alert]")).to_be_visible()
    page.wait_for_timeout(200)
    page.errors[:] = [words for words in page.errors if "404" not in words]


def test_history_view_follows_run(page, tmp_path):
    run = make_run(
        tmp_path / "run",
        [progress_line(64), journal_line("samples", 64, num_samples=4), journal_line("samples", 128, num_samples=4)],
        [64, 128],
    )
    with running_studio(tmp_path) as port:
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/history")
        count = page.locator(".history-pane figcaption small").first
        for images, num_sheets in ((192, 3), (256, 4)):
            make_run(tmp_path / f"other{images}", [], [images])
            (tmp_path / f"other{images}" / "samples" / f"{images:08d}.png").replace(
                run / "samples" / f"{images:08d}.png"
            )
            append_line(run, journal_line("checkpoint", images), journal_line("samples", images, num_samples=4))
            playwright.expect(count).to_contain_text(f"of {num_sheets}")
            playwright.expect(page.locator(".history-pane figcaption b").first).to_contain_text(f"{images} images")
        page.goto("about:blank")


def test_background_tab_catches_up(page, tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64), journal_line("samples", 64, num_samples=4)], [64])
    page.add_init_script(
        "window.isAway = true; Object.defineProperty(Document.prototype, 'hidden', { get: () => window.isAway })"
    )
    with running_studio(tmp_path) as port:
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/live")
        state = page.locator(".state")
        playwright.expect(state).to_have_text("interrupted")
        append_line(run, progress_line(128), journal_line("stop", 128, reason="images"))
        page.evaluate("window.isAway = false; document.dispatchEvent(new Event('visibilitychange'))")
        playwright.expect(state).to_have_text("finished")
        playwright.expect(page.locator(".stop-reason")).to_contain_text("Finished.")
        playwright.expect(page.locator(".readings b").first).to_have_text("128")
        page.goto("about:blank")


def test_late_metric_joins_chart(page, tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64), journal_line("samples", 64, num_samples=4)], [64])
    with running_studio(tmp_path) as port:
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/live")
        losses = page.locator(".panel", has_text="Losses")
        playwright.expect(losses.locator(".name")).to_have_text(["D"])
        losses.locator(".chart").focus()
        append_line(run, progress_line(128, generator_loss=1.25))
        playwright.expect(losses.locator(".name")).to_have_text(["D", "G"])
        playwright.expect(losses.locator("li b")).to_have_text(["0.5", "1.25"])
        assert page.evaluate("document.activeElement.className") == "chart"
        assert page.evaluate("window.shifts") < 0.02
        page.goto("about:blank")


def test_fault_without_text_is_rendered(page, tmp_path):
    make_run(
        tmp_path / "run",
        [
            progress_line(64),
            journal_line("samples", 64, num_samples=4),
            journal_line("fault", 64, name="mode collapse", fatal=True),
        ],
        [64],
    )
    with running_studio(tmp_path) as port:
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/live")
        playwright.expect(page.locator(".panel", has_text="Losses")).to_be_visible()
        playwright.expect(page.locator(".health-panel h4")).to_contain_text("mode collapse")
        page.goto("about:blank")


def test_checkpoint_list_matches_disk(page, tmp_path, folder):
    run = tmp_path / "run"
    shutil.copytree(folder / "finished", run)
    with running_studio(tmp_path) as port:
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/latent?mode=checkpoints&checkpoint=32")
        captions, options = page.locator(".checkpoint-rows figcaption"), page.locator(".sampling-options option")
        playwright.expect(captions).to_have_text(["0 images", "32 images", "64 images"])
        shutil.rmtree(run / "checkpoints" / "00000032")
        append_line(run, journal_line("checkpoint", 64))
        playwright.expect(captions).to_have_text(["0 images", "64 images"])
        playwright.expect(options).to_have_count(4)
        playwright.expect(options.last).to_have_text("32, deleted")
        with page.expect_response(lambda answer: "checkpoints.png" in answer.url) as answer:
            page.click(".stage button:has-text('Next')")
        assert answer.value.status == 200
        open_view(page, f"http://127.0.0.1:{port}/", "#/run/run/discriminator")
        playwright.expect(page.locator("label:has-text('Networks of') option")).to_have_count(3)
        shutil.rmtree(run / "checkpoints" / "00000000")
        append_line(run, journal_line("checkpoint", 64))
        playwright.expect(page.locator("label:has-text('Networks of') option")).to_have_count(2)
        page.goto("about:blank")


def test_interpolation_controls_and_url_state(page, address, browser):
    open_view(page, address, "#/run/conditional/latent")
    pad = page.locator(".interpolation-pad").bounding_box()
    page.mouse.move(pad["x"] + pad["width"] * 0.5, pad["y"] + pad["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(pad["x"] + pad["width"] * 0.25, pad["y"] + pad["height"] * 0.75, steps=5)
    page.mouse.up()
    page.keyboard.press("Shift+ArrowRight")
    page.select_option("select >> nth=0", "7")
    page.locator(".sampling-options .slider input").first.fill("0.7")
    playwright.expect(page.locator(".directions")).to_be_enabled()
    page.locator(".directions input").first.fill("1.5")
    wait_until(
        page, lambda: {"label": "7", "truncation": "0.7", "directions": "0:1.5"}.items() <= url_parameters(page).items()
    )
    found = url_parameters(page)
    assert abs(float(found["x"]) - 0.35) < 0.02
    assert abs(float(found["y"]) - 0.75) < 0.02
    shown = "() => document.querySelector('.big canvas').toDataURL()"
    before = ""
    while before != (now := page.evaluate(shown)):
        before = now
        page.wait_for_timeout(500)
    url = page.url
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_selector("main[data-ready]")
    wait_until(page, lambda: page.evaluate(shown) == before)


def test_standalone_model_opens_latent_view(page, tmp_path, folder):
    shutil.copy(folder / "finished" / "generator.safetensors", tmp_path / "digits.safetensors")
    process, address = studio_of(tmp_path / "digits.safetensors")
    try:
        open_view(page, address, "#/runs")
        playwright.expect(page.locator(".runs-table tbody tr")).to_contain_text("model file")
        page.click(".runs-table tbody a")
        page.wait_for_selector("main[data-ready='latent:digits.safetensors']")
        wait_until_drawn(page)
        playwright.expect(page.locator(".state")).to_have_text("model file")
        assert page.locator("#tabs a").all_inner_texts() == ["Latent space"]
        page.keyboard.press("1")
        page.wait_for_timeout(500)
        page.wait_for_selector("main[data-ready='latent:digits.safetensors']")
        assert violations(page) == []
    finally:
        page.goto("about:blank")
        stop_process(process)


def test_chart_tooltips_and_zoom(page, address):
    open_view(page, address, "#/run/long/live")
    chart = page.locator(".panel", has_text="Losses").locator(".chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 101 + (box["width"] - 56) / 99_999 * 150, box["y"] + 60, steps=3)
    page.mouse.move(box["x"] + 130, box["y"] + 60, steps=3)
    page.mouse.up()
    wait_until(page, lambda: "from" in page.url)
    wait_until(page, lambda: "drawn as" in page.locator(".view > .controls .count").inner_text())
    first, last = int(url_parameters(page)["from"]), int(url_parameters(page)["to"])
    assert 0 < first < last < 6_400_000
    page.goto(f"{address}#/run/long/live?from=6400&to=12800")
    page.wait_for_selector("main[data-ready]")
    wait_until(page, lambda: "drawn as" not in page.locator(".view > .controls .count").inner_text())
    chart.focus()
    page.keyboard.press("Home")
    playwright.expect(page.locator(".panel", has_text="Losses").locator(".at")).to_contain_text(",")
    seen = int(re.sub(r"\D", "", page.locator(".panel", has_text="Losses").locator(".at").inner_text()))
    assert (
        page.locator(".panel", has_text="Losses").locator("li b").nth(1).inner_text()
        == f"{1 + (seen // 64 % 97) / 97:.4g}"
    )
    page.keyboard.press("Escape")
    wait_until(page, lambda: "from" not in page.url)
    page.get_by_text("log", exact=True).click()
    wait_until(page, lambda: url_parameters(page).get("log") == "1")


def test_chart_performance_with_100k_points(page, address):
    open_view(page, address, "#/run/long/live")
    page.wait_for_selector(".panel")
    milliseconds = page.evaluate("""async () => {
        const input = document.querySelector('.controls input[type=range]');
        const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        const times = [];
        for (let turn = 0; turn < 15; turn++) {
            input.value = turn / 20;
            const begin = performance.now();
            input.dispatchEvent(new Event('input'));
            await frame();
            times.push(performance.now() - begin);
        }
        return times.sort((a, b) => a - b)[7];
    }""")
    assert milliseconds * cpu_fraction() < 100


def test_health_view(page, address):
    open_view(page, address, "#/run/sick/live")
    diagnosis = page.locator(".health-panel")
    playwright.expect(diagnosis).to_contain_text("Fatal fault")
    for words in ("discriminator too strong", "0.999", "Lower D's learning rate."):
        playwright.expect(diagnosis).to_contain_text(words)


def test_health_is_not_reassuring_too_early(page, address):
    open_view(page, address, "#/run/finished/live")
    diagnosis = page.locator(".health-panel")
    for words in ("Too early to say", "known from 20,000 images on", "at 64 images", "Finished.", "resume"):
        playwright.expect(diagnosis).to_contain_text(words)


def test_old_numbers_are_marked(page, address):
    open_view(page, address, "#/run/sick/live")
    playwright.expect(page.locator(".health-metrics .old")).to_contain_text("at 64 images, old")


def test_live_run_survives_server_restart(page, folder, training):
    process, address = studio_of(folder)
    try:
        open_view(page, address, f"#/run/{training}/live")
        playwright.expect(page.locator(".state")).to_have_text("training")
        images, caption = page.locator(".readings b").first, page.locator(".sheet .count").first
        before = images.inner_text()
        wait_until(page, lambda: images.inner_text() != before)
        sheet = caption.inner_text()
        wait_until(page, lambda: caption.inner_text() != sheet)
        stop_process(process)
        playwright.expect(page.locator(".connection")).to_contain_text("connection lost")
        process, _ = studio_of(folder, address.rstrip("/").rpartition(":")[2])
        playwright.expect(page.locator(".connection")).to_have_text("", timeout=TIMEOUT_MILLISECONDS)
        before = images.inner_text()
        wait_until(page, lambda: images.inner_text() != before)
        page.errors[:] = [
            words for words in page.errors if "/api/events" not in words and "net::ERR_" not in words
        ]  # of the restart
    finally:
        page.goto("about:blank")
        stop_process(process)


def test_keyboard_run_selection_and_comparison(page, address, training):
    open_view(page, address, "#/runs")
    row = page.locator(".runs-table tbody tr", has_text=training)
    playwright.expect(row).to_contain_text("training")
    row.locator("input[type=checkbox]").focus()
    page.keyboard.press("Space")
    page.locator("[aria-label='Select finished to compare']").focus()
    page.keyboard.press("Space")
    compare = page.locator("a:has-text('Compare 2 runs')")
    compare.focus()
    page.wait_for_timeout(5_500)  # the table reloads every five seconds, which must not take the focus
    assert compare.evaluate("element => element === document.activeElement")
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".run-column canvas")).to_have_count(2)
    wait_until_drawn(page)


def test_keyboard_views_of_live_run(page, address, training):
    open_view(page, address, f"#/run/{training}/live")
    playwright.expect(page.locator(".state")).to_have_text("training")
    chart = page.locator(".panel", has_text="Losses").locator(".chart")
    chart.focus()
    page.keyboard.press("Home")
    playwright.expect(page.locator(".panel", has_text="Losses").locator(".at")).to_contain_text("images")
    assert violations(page) == []
    page.locator(".crumb a").focus()
    page.keyboard.press("2")
    page.wait_for_selector(f"main[data-ready='history:{training}']")
    page.keyboard.press("Home")
    playwright.expect(page.locator(".history-pane b").first).to_have_text("0 images")
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator(".history-pane b").first).to_have_text("400 images")
    page.keyboard.press("End")
    seen = page.locator(".history-pane b").first.inner_text()
    assert int(re.sub(r"\D", "", seen)) >= 400
    assert violations(page) == []
    page.keyboard.press("3")
    page.wait_for_selector(f"main[data-ready='discriminator:{training}']")
    wait_until_drawn(page)
    page.locator(".discriminator-images button").nth(2).focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".detail .readout")).to_contain_text("Image 2")
    assert violations(page) == []
    page.locator(".crumb a").focus()
    page.keyboard.press("4")
    page.wait_for_selector(f"main[data-ready='latent:{training}']")
    wait_until_drawn(page)
    page.locator(".interpolation-pad").focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, lambda: url_parameters(page).get("x") == "0.52")
    assert violations(page) == []
    open_view(page, address, f"#/run/{training}/live")
    playwright.expect(page.locator(".state")).to_have_text("training")  # the views did not stop the training
    page.goto("about:blank")


def test_deleted_run_is_reported(page, address, folder):
    shutil.copytree(folder / "finished", folder / "doomed")
    open_view(page, address, "#/run/doomed/live")
    page.wait_for_timeout(500)
    shutil.rmtree(folder / "doomed")
    playwright.expect(page.locator(".heading .notice")).to_contain_text("deleted", timeout=TIMEOUT_MILLISECONDS)
    page.errors[:] = [words for words in page.errors if "404" not in words]
    page.goto(address + "#/run/nothing/live")
    playwright.expect(page.locator(".view [role=alert]")).to_be_visible()
    page.wait_for_timeout(200)
    page.errors[:] = [words for words in page.errors if "404" not in words]
