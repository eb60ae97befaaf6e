"""Helpers of the browser tests: a studio process, views that are ready, accessibility."""

import re
import shutil
import signal
import subprocess
import sys
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_MILLISECONDS = 60_000
"""The first image makes the server import torch, possibly on a busy machine."""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WATCH_LAYOUT_SHIFTS = """window.shifts = 0; new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value })
.observe({ type: 'layout-shift', buffered: true })"""
BLANK = "main canvas.image:not([data-drawn]):not(.thumb *):visible"


def start_process(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "cardigan", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def stop_process(process):
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def studio_of(folder, port=0):
    process = start_process("studio", folder, "--no-open", "--port", port)
    return process, re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]


def open_view(page, address, fragment):
    """Open a view and wait until it is ready and every image on it is drawn."""
    page.goto("about:blank")
    page.goto(address + fragment)
    page.wait_for_selector("main[data-ready]")
    wait_until_drawn(page)


def wait_until_drawn(page):
    import playwright.sync_api as playwright

    playwright.expect(page.locator(BLANK)).to_have_count(0, timeout=TIMEOUT_MILLISECONDS)


def wait_until(page, condition):
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def url_parameters(page):
    return dict(pair.split("=") for pair in page.url.partition("?")[2].split("&") if pair)


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(each["id"], [node["html"][:120] for node in each["nodes"]][:4]) for each in found]


def cpu_fraction():
    """Return the fraction of a core that this process gets now, to scale times to those on an idle core."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 0.2:
        pass
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def fits_viewport(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")
