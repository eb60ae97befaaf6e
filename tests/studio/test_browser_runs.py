"""The table as a tree, the comparison of runs, the details of a run, on runs made without training."""

import json
import math
import re

import pytest
from browser_pages import (
    CHROMIUM,
    NARROW,
    WIDE,
    fits_viewport,
    open_view,
    stop_process,
    studio_of,
    url_parameters,
    violations,
    wait_until,
)
from fake_runs import journal_line, make_run, progress_line

from cardigan.config import Config
from cardigan.overrides import override

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH"
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
)

SCORES = [740.0, 300.0, 90.0, 30.0, 12.0, 9.0, 8.0, 9.5, 8.5, 9.0]
"""Scores as they fall in a run: the first are far above the rest."""
COMPARED = "#/compare?runs=parent,child,photos"


def journal(factor, num_steps, **metrics):
    """Return the journal of a run with a checkpoint and a sheet every 100 images, after an untrained one."""
    lines = [journal_line("samples", 0, file="", num_samples=4), journal_line("checkpoint", 0, score=760.0)]
    for step in range(1, num_steps + 1):
        score = factor * SCORES[min(step, len(SCORES)) - 1]
        lines.append(progress_line(100 * step, generator_loss=1 / step, d_real=0.6, real_margin_sign=0.1, **metrics))
        lines.append(journal_line("samples", 100 * step, file="", num_samples=4))
        lines.append(journal_line("checkpoint", 100 * step, score=score))
    return [*lines, journal_line("stop", 100 * num_steps, reason="images")]


def set_provenance(run, **provenance):
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**content, "provenance": provenance}))


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A parent, its child of half the length in four processes, and a run on photos, whose score is of another kind."""
    folder = tmp_path_factory.mktemp("family")
    sheets = [100 * step for step in range(11)]
    make_run(folder / "parent", journal(1.0, 10), sheets)
    started = {"parent": {"model": "parent", "images_seen": 1_000}, "num_processes": 4}
    make_run(folder / "child", journal(0.5, 5), sheets[:6], override(Config(), {"seed": 0, "batch_size": 32}))
    set_provenance(folder / "child", command=["cardigan", "train", "mnist", "--from", "parent"], **started)
    photos = override(Config(), {"data.source": "/data/photos", "seed": 7})
    make_run(folder / "photos", journal(0.01, 10, augment_probability=0.0), sheets, photos)
    return folder


@pytest.fixture(scope="module")
def address(family):
    process, address = studio_of(family)
    yield address
    stop_process(process)


def names(page):
    return [text.splitlines()[0] for text in page.locator(".runs-table tbody th").all_inner_texts()]


def chart(page, title):
    return page.locator(".panel", has=page.get_by_role("heading", name=title))


def test_table_draws_families_as_a_tree(page, address):
    open_view(page, address, "#/runs?sort=name")
    assert names(page) == ["parent", "child", "photos"]
    depths = [row.evaluate("e => e.style.getPropertyValue('--depth')") for row in page.locator("tbody tr").all()]
    assert depths == ["0", "1", "0"]
    playwright.expect(page.locator("tbody tr", has_text="child").first).to_contain_text("from parent")
    page.get_by_text("As a list").click()
    assert names(page) == ["child", "parent", "photos"]
    page.check("[aria-label='Select child to compare']")
    page.click("text=Compare with its parent")
    playwright.expect(page.locator(".run-column")).to_have_count(2)
    assert url_parameters(page)["runs"] == "parent,child"


def test_scores_of_different_kinds_are_not_sorted_together(page, address):
    open_view(page, address, "#/runs?sort=score&list=1")
    assert names(page) == ["child", "parent", "photos"]  # the lowest score of all is that of the photos
    playwright.expect(page.locator("tbody tr", has_text="photos").first).to_contain_text("to photos, 32x32")
    page.click("thead button:has-text('Best score')")
    assert names(page) == ["parent", "child", "photos"]
    best = page.locator("tbody tr", has_text="the best").all_inner_texts()
    assert len(best) == 2  # one of each kind


def test_comparison_draws_curves_and_sheets_at_the_same_images(page, address):
    open_view(page, address, COMPARED)
    captions = page.locator(".run-column > .count")
    playwright.expect(captions).to_have_text(["after 500 images"] * 3)
    playwright.expect(page.locator(".block.first")).to_contain_text("different seeds")
    playwright.expect(chart(page, "Score: distance to test digits").locator(".legend li")).to_have_count(2)
    playwright.expect(chart(page, "Score: distance to photos").locator(".legend li")).to_have_count(1)
    playwright.expect(chart(page, "Loss of G").locator(".legend li")).to_have_count(3)
    playwright.expect(chart(page, "Augmentation")).to_have_count(0)  # off
    table = page.get_by_role("region", name="Settings that differ")
    playwright.expect(table).to_contain_text("batch_size")
    playwright.expect(table).not_to_contain_text("latent.size")
    cost = page.get_by_role("region", name="Runs").locator("tr", has_text="child").locator("td").nth(3)
    assert cost.inner_text() == "20 s"  # 5 seconds of 4 processes
    page.get_by_text("by cost").click()
    wait_until(page, lambda: url_parameters(page).get("axis") == "cost")
    losses = chart(page, "Loss of G")
    losses.locator(".chart").focus()
    page.keyboard.press("End")
    playwright.expect(losses.locator(".at")).to_have_text("20 s")
    page.get_by_text("with the parents' images").click()
    playwright.expect(captions.nth(1)).to_have_text("after 1,000 images")  # where the parent ended
    page.set_viewport_size(NARROW)
    page.wait_for_timeout(60)
    assert fits_viewport(page)


def test_lines_have_values_between_their_readings(page, address):
    open_view(page, address, COMPARED)
    found = page.evaluate("""async () => {
        const { merged } = await import("/static/compare.js");
        return merged([["a", [[0, 10, 10, 10], [4, 2, 2, 2]]], ["b", [[1, 5, 4, 6]]]], true);
    }""")
    assert found["x"] == [0, 1, 4]
    assert found["series"]["a"]["mean"] == [10, 8, 2] and found["series"]["a"]["dots"] == [True, False, True]
    assert found["series"]["b"]["mean"] == [None, 5, None]
    assert found["best"] == {"line": "a", "x": 4, "y": 2}


def test_axis_of_the_score_is_robust(page, address):
    open_view(page, address, "#/run/parent/live")
    score = chart(page, "Score at checkpoints")
    playwright.expect(score).to_be_visible()
    assert page.evaluate(
        """async (scores) => {
        const { robustLimit } = await import("/static/chart.js");
        return [robustLimit(scores), robustLimit([700, 5]), robustLimit([1, 2, 3, null, 4])];
    }""",
        SCORES,
    ) == [28.5, math.inf, 6]  # three times the median
    labels = page.evaluate("""() => {
        const drawn = [], fillText = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (words, ...at) {
            drawn.push([this.canvas.closest("figure")?.querySelector("h3").textContent, words]);
            return fillText.call(this, words, ...at);
        };
        document.dispatchEvent(new Event("theme"));
        return new Promise((done) => setTimeout(() => done(drawn), 300));
    }""")
    score_labels = [words for title, words in labels if title and title.startswith("Score")]
    assert "best 8" in score_labels
    vertical = [float(words) for words in score_labels if re.fullmatch(r"[\d.]+", words) and float(words) < 100]
    assert vertical and max(vertical) < 30


def test_parts_that_are_off_have_no_chart(page, address):
    open_view(page, address, "#/run/photos/live")
    playwright.expect(chart(page, "Losses")).to_be_visible()
    playwright.expect(chart(page, "Augmentation")).to_have_count(0)


@pytest.mark.parametrize("view", [COMPARED, "#/run/child/details", "#/runs"])
def test_views_are_accessible(page, address, view):
    open_view(page, address, view)
    playwright.expect(page.locator(".run-column, .annotations, tbody tr").first).to_be_visible()
    assert page.evaluate("window.shifts") < 0.02 or view != "#/runs"
    for size, theme in ((WIDE, "light"), (NARROW, "dark")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(60)
        assert violations(page) == [], (size, theme)
        assert fits_viewport(page), size


def test_details_show_origin_and_settings(page, address):
    open_view(page, address, "#/run/child/details")
    view = page.locator(".view")
    playwright.expect(view).to_contain_text("Started from parent after 1,000 images")
    playwright.expect(view).to_contain_text("cardigan train mnist --from parent")
    playwright.expect(view).to_contain_text("has not been evaluated")
    page.get_by_label("Filter the settings").fill("batch_size")
    playwright.expect(view.locator("details tr:visible")).to_have_text(re.compile("batch_size"))
    page.get_by_role("link", name="Compare them").click()
    playwright.expect(page.locator(".run-column")).to_have_count(2)


def test_run_is_named_starred_and_deleted(page, tmp_path):
    make_run(tmp_path / "first", journal(1.0, 3), [300])
    make_run(tmp_path / "second", journal(1.0, 3), [300])
    process, address = studio_of(tmp_path)
    try:
        open_view(page, address, "#/run/second/details")
        page.get_by_label("Name").fill("Wide discriminator")
        page.get_by_label("Note").fill("collapses after 300 images")
        page.get_by_role("button", name="Save").click()
        playwright.expect(page.locator("h1")).to_have_text("Wide discriminator")
        open_view(page, address, "#/runs?sort=name")
        assert names(page) == ["first", "Wide discriminator"]
        page.get_by_label("Star second").click()
        wait_until(page, lambda: names(page) == ["Wide discriminator", "first"])
        page.fill("#filter", "collapses")
        playwright.expect(page.locator("tbody tr")).to_have_count(1)
        page.check("[aria-label='Select second to compare']")
        page.get_by_role("button", name="Delete …").click()
        page.get_by_role("button", name="Cancel").click()
        assert (tmp_path / "second").exists()
        page.get_by_role("button", name="Delete …").click()
        playwright.expect(page.get_by_role("dialog")).to_contain_text(".trash")
        assert violations(page) == []
        page.get_by_role("button", name="Delete the run").click()
        playwright.expect(page.locator("tbody tr")).to_have_count(0)
        assert not (tmp_path / "second").exists() and len(list((tmp_path / ".trash").iterdir())) == 1
    finally:
        page.goto("about:blank")
        stop_process(process)


def test_slow_view_says_that_it_loads(page, address):
    page.route("**/api/run?*", lambda route: (page.wait_for_timeout(600), route.continue_()))
    page.goto(address + "#/run/parent/details")
    playwright.expect(page.locator("main")).to_contain_text("Loading the run")
    playwright.expect(page.locator(".annotations")).to_be_visible()
