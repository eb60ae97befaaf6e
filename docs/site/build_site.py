"""Build the documentation site: copy docs/, add the generated parts of pages, and run the site generator.

    python docs/site/build_site.py [--out build/site]

The site is written to OUT/VERSION, beside the versions that are there, and the newest one to OUT/latest. A dead link,
a page that is missing in the navigation, or a public name that cannot be found ends the build.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import command_pages
import link_check
import math_markup
import recipe_pages
import room_pages

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs"
FOLDER_ENTRY = re.compile(r'^(\s*)"([\w-]+)/\*",\n', re.MULTILINE)
"""An entry of the navigation that stands for all pages of a folder that it does not name itself."""
NAMED_PAGE = re.compile(r'(?<![\w/">])docs/([\w/-]+)\.md(?![^<]*</(?:a|code|span|title|script)>)')
"""A page that a text names, but neither code, nor a link, nor a title."""
EXPORTED = "pages/"
"""Pages that `cardigan export` wrote: they are kept as they are."""
LATEST = "latest"
REDIRECT = f'<!doctype html><meta http-equiv="refresh" content="0; url={LATEST}/"><a href="{LATEST}/">Cardigan</a>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    options = parser.parse_args()
    work = options.out.resolve().parent / "site-work"
    prepare(work)
    run_generator(work)
    finish_pages(work / "site")
    print(publish(work / "site", options.out, version()))
    shutil.rmtree(work)


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def prepare(work: Path) -> None:
    """Write the sources of the site and its settings into a folder, which is replaced."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(SOURCE, work / "docs", ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copytree(SOURCE / "site" / "assets", work / "docs" / "assets")
    for name, text in generated_parts().items():
        append(work / "docs" / name, text)
    settings = (SOURCE / "site" / "zensical.toml").read_text(encoding="utf-8")
    settings = settings.replace("SOURCE_ROOT", str(ROOT / "src"))
    (work / "zensical.toml").write_text(with_all_pages(settings, work / "docs"), encoding="utf-8")


def generated_parts() -> dict[str, str]:
    """Return the Markdown that is made from the code and the results, by the page that it ends."""
    return {
        "recipes.md": recipe_pages.recipes_markdown(),
        "reference/command-line.md": command_pages.commands_markdown(),
        **room_pages.room_parts(),
    }


def append(page: Path, text: str) -> None:
    """Add text to a page. A page that nobody has written consists of it alone."""
    written = page.read_text(encoding="utf-8").rstrip() + "\n\n" if page.exists() else ""
    page.write_text(written + text, encoding="utf-8")


def with_all_pages(settings: str, docs: Path) -> str:
    """Return the settings with each entry `"folder/*"` replaced by the folder's pages that no other entry names."""

    def entries(match: re.Match[str]) -> str:
        indent, folder = match.groups()
        pages = [path.relative_to(docs).as_posix() for path in sorted((docs / folder).glob("*.md"))]
        return "".join(f'{indent}"{page}",\n' for page in pages if f'"{page}"' not in settings)

    complete = FOLDER_ENTRY.sub(entries, settings)
    missing = [page for page in all_pages(docs) if f'"{page}"' not in complete]
    if missing:
        raise SystemExit(f"These pages are not in the navigation of docs/site/zensical.toml: {', '.join(missing)}.")
    return complete


def all_pages(folder: Path, pattern: str = "*.md") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


def run_generator(work: Path) -> None:
    """Run Zensical; end with its output if it has found anything wrong."""
    words = [str(Path(sys.executable).parent / "zensical"), "build", "--clean", "--strict"]
    words += ["--config-file", str(work / "zensical.toml")]
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}The site has faults: see above.")


def finish_pages(site: Path) -> None:
    """Write formulas as MathML, link the pages of docs/ that a docstring names, and end if a link is dead."""
    pages = [path for path in all_pages(site, "*.html") if not path.startswith(EXPORTED)]
    for path in pages:
        text = math_markup.with_formulas((site / path).read_text(encoding="utf-8"))
        (site / path).write_text(linked(text, Path(path).parent, site), encoding="utf-8")
    dead = link_check.dead_links(site, pages)
    if dead:
        raise SystemExit("These links lead nowhere:\n" + "\n".join(dead))


def linked(text: str, folder: Path, site: Path) -> str:
    """Return a page with a link for each `docs/page.md` that stands in its text. A page that is missing is an error."""
    up = "../" * len(folder.parts)

    def link(match: re.Match[str]) -> str:
        if not (site / f"{match[1]}.html").exists():
            raise SystemExit(f"A page in {folder or 'docs'} names docs/{match[1]}.md, which does not exist.")
        return f'<a href="{up}{match[1]}.html">{match[0]}</a>'

    return NAMED_PAGE.sub(link, text)


def publish(built: Path, out: Path, name: str) -> Path:
    """Move a built site to its version's folder; return its first page.

    The newest version is also in the folder `latest`, for links that last. `versions.json` lists the versions for the
    theme's menu.
    """
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    shutil.move(built, folder)
    found = [path.parent.name for path in out.glob("*/index.html") if path.parent.name != LATEST]
    versions = sorted(found, key=_number, reverse=True)
    shutil.rmtree(out / LATEST, ignore_errors=True)
    shutil.copytree(out / versions[0], out / LATEST)
    aliases = {versions[0]: [LATEST]}
    listed = [{"version": each, "title": each, "aliases": aliases.get(each, [])} for each in versions]
    (out / "versions.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    (out / "index.html").write_text(REDIRECT, encoding="utf-8")
    return folder / "index.html"


def _number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name))


if __name__ == "__main__":
    main()
