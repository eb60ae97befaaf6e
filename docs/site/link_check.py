"""Dead links of the built site: files and sections that a page names and that do not exist.

The generator checks links between Markdown pages. This also checks pictures, other files, and the generated parts.
"""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ATTRIBUTES = {"a": "href", "img": "src", "link": "href", "script": "src", "source": "src"}
ERROR_PAGE = "404.html"
"""Its links depend on where the site is served, and no page leads to it."""


class PageLinks(HTMLParser):
    """The links of a page, and the names of its sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names |= {values.get("id") or "", values.get("name") or ""}
        address = values.get(ATTRIBUTES.get(tag, ""))
        if address:
            self.links.append(address)


def dead_links(site: Path, pages: Sequence[str]) -> list[str]:
    """Return one line for each link of these pages that leads nowhere inside the site. Other hosts are not asked."""
    found = {page: PageLinks((site / page).read_text(encoding="utf-8")) for page in pages if page != ERROR_PAGE}
    return [
        f"{page}: {address}"
        for page, parsed in found.items()
        for address in dict.fromkeys(parsed.links)
        if not _exists(site, page, address, found)
    ]


def _exists(site: Path, page: str, address: str, found: dict[str, PageLinks]) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    target = (site / page).parent / unquote(parts.path) if parts.path else site / page
    target = target.resolve()
    target = target / "index.html" if target.is_dir() else target
    name = target.relative_to(site.resolve()).as_posix() if target.is_relative_to(site.resolve()) else ""
    if not target.is_file() or not name:
        return False
    return not parts.fragment or name not in found or unquote(parts.fragment) in found[name].names
