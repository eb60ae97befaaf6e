"""The site is built strictly, is complete, and needs nothing from the network."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("zensical", reason="the site generator is not installed: pip install 'cardigan[docs]'")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs" / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that make a browser load something, and the attribute that says what."""
SHOWN = ("index.html", "guides/evaluation.html", "reference/training.html", "recipes.html", "results.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    words = [sys.executable, str(SCRIPTS / "build_site.py"), "--out", str(out)]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return Path(built.stdout.strip()).parent


@pytest.fixture
def build_site(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return pytest.importorskip("build_site")


class LoadedFiles(HTMLParser):
    """Collects what a page loads, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED:
            self.loaded.append(values.get(LOADED[tag]) or "")
        elif tag == "a":
            self.links.append(values.get("href") or "")


def links(page: Path) -> list[str]:
    return LoadedFiles(page).links if page.name != "404.html" else []


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if path.parent.name != "pages"]


def test_every_page_is_linked_and_in_the_search(site):
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert len(sources) > 50
    targets = {(page.parent / link.partition("#")[0]).resolve() for page in pages(site) for link in links(page)}
    assert {name for name in sources if (site / name).resolve() not in targets} == set()
    found = {item["location"].partition("#")[0] for item in json.loads((site / "search.json").read_text())["items"]}
    assert sources - found - {"index.html"} == set()


def test_pages_load_nothing_from_the_network(site):
    loaded = {name for page in pages(site) for name in LoadedFiles(page).loaded}
    assert any(name.endswith(".js") for name in loaded) and any(name.endswith(".css") for name in loaded)
    assert [name for name in sorted(loaded) if re.match(r"(?:\w+:)?//", name)] == []
    assert not [path for path in site.rglob("*.css") if re.search(r"url\(.?https?:|@import", path.read_text())]


def test_generated_parts_are_there(site):
    recipes = (site / "recipes.html").read_text()
    assert 'id="mnist-coarse"' in recipes and "nn-error-mnist-coarse-8e-4-2026-11-28.json" in recipes
    assert "--help-all" in (site / "reference" / "command-line.html").read_text()
    assert "modules.html#errors" in (site / "inside" / "index.html").read_text()
    assert "nets/dcgan.py" in (site / "inside" / "nets.html").read_text()
    assert "<math" in (site / "tutorial" / "dcgan_mnist.html").read_text()
    assert '<a href="../guides/data.html">docs/guides/data.md</a>' in (site / "reference" / "training.html").read_text()
    assert (site / "pages" / "mnist.html").stat().st_size > 500_000


def test_versions_are_listed_newest_first(build_site, tmp_path):
    for name in ("0.2.0", "0.10.0", "0.9.0"):
        (tmp_path / "built").mkdir()
        (tmp_path / "built" / "index.html").write_text(name)
        page = build_site.publish(tmp_path / "built", tmp_path / "out", name)
    assert page.read_text() == "0.9.0"
    listed = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert [(each["version"], each["aliases"]) for each in listed] == [
        ("0.10.0", ["latest"]),
        ("0.9.0", []),
        ("0.2.0", []),
    ]
    assert (tmp_path / "out" / "latest" / "index.html").read_text() == "0.10.0"
    assert "latest/" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a page](missing.md)", "page does not exist"),
        ("[a section](index.md#missing)", "anchor does not exist"),
        ("![a picture](missing.png)", r"(?s)lead nowhere:.*index\.html: missing\.png\b"),
        ("[a file](missing.py)", r"(?s)lead nowhere:.*index\.html: missing\.py\b"),
        ("::: cardigan.missing", "Could not collect"),
    ],
)
def test_fault_of_a_page_ends_the_build(build_site, tmp_path, text, fault):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{text}\n")
    settings = (SCRIPTS / "zensical.toml").read_text().replace("SOURCE_ROOT", str(ROOT / "src"))
    settings = re.sub(r"^nav = \[.*?^\]", 'nav = ["index.md"]', settings, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "zensical.toml").write_text(settings.replace('extra_css = ["assets/site.css"]\n', ""))
    with pytest.raises(SystemExit, match=fault):
        build_site.run_generator(tmp_path)
        build_site.finish_pages(tmp_path / "site")


def test_page_outside_the_navigation_ends_the_build(build_site, tmp_path):
    (tmp_path / "notes").mkdir()
    for name in ("index.md", "stray.md", "notes/first.md"):
        (tmp_path / name).write_text("# Page\n")
    settings = 'nav = [\n    "index.md",\n    "notes/*",\n]\n'
    with pytest.raises(SystemExit, match=r"not in the navigation .*: stray\.md"):
        build_site.with_all_pages(settings, tmp_path)
    (tmp_path / "stray.md").unlink()
    assert '    "notes/first.md",\n' in build_site.with_all_pages(settings, tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: `apt install chromium`, or put chromium on the PATH")
def test_pages_fit_a_telephone_and_the_search_works_from_a_file(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'cardigan[dev]'")
    requested: list[str] = []
    with (
        playwright.sync_playwright() as running,
        running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: requested.append(request.url))
        for name in SHOWN:
            page.goto((site / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.keyboard.press("Control+k")
        page.locator("input[aria-label=Search]").fill("relativistic")
        page.locator("[role=listbox] li").first.wait_for(timeout=60_000)
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
