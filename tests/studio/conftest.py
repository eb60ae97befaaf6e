"""A browser and pages that fail a test on any error in them."""

import pytest
from browser_pages import CHROMIUM, TIMEOUT_MILLISECONDS, WATCH_LAYOUT_SHIFTS, WIDE


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found: `apt install chromium`, or put chromium on the PATH")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
    )
    playwright.expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that fails the test on any console error, failed request or violation of the content security policy."""
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page, errors = context.new_page(), []
    page.set_default_timeout(TIMEOUT_MILLISECONDS)
    page.on(
        "console",
        lambda message: (
            errors.append(f"{message.text} ({message.location['url']})")
            if message.type in {"error", "warning"}
            else None
        ),
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(WATCH_LAYOUT_SHIFTS)
    page.errors = errors
    yield page
    context.close()
    assert not errors
