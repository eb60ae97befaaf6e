"""The demo page in a real browser with a token: error without it, generated images, link to the API description."""

import shutil

import pytest
from http_client import load_served_model, running_server, save_random_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH"
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'cardigan[dev]'"
)

TOKEN = "a-token-of-a-test"
TIMEOUT_MILLISECONDS = 60_000


def test_demo_page_sends_token(tmp_path):
    model = load_served_model(save_random_model(tmp_path / "generator.safetensors", classes=0))
    playwright.expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    with running_server(model, token=TOKEN) as (port, _), playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        page.goto(f"http://127.0.0.1:{port}/")
        playwright.expect(page.locator("#message")).to_contain_text("The token is missing")
        page.fill("#token", TOKEN)
        page.click("button")
        playwright.expect(page.locator("#image")).to_have_attribute(
            "alt", "16 generated images, seed 0", timeout=TIMEOUT_MILLISECONDS
        )
        assert "generator.safetensors: 32x32x1" in page.inner_text("#model-info")
        page.click("#openapi-link")
        playwright.expect(page.locator("body")).to_contain_text("Images of generator.safetensors")
        browser.close()
