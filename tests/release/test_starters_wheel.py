"""The distribution `cardigan-starters` is built and installed without a network, and its starters are found."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardigan.files.sha256 import file_sha256
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE
from cardigan.models.hub import WEIGHTS_FILE
from cardigan.models.starters import FACTS_FILE, PREVIEW_FILE
from tiny_starters import starters_package

__all__ = ["starters_package"]  # fixture
PROJECT = Path(__file__).parents[2] / "packages" / "starters"


def pip(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--no-input", *map(str, words)], check=True)


def test_wheel_holds_every_starter(starters_package, tmp_path):
    """Built from the project's files with the starters of a test in place of its own."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(starters_package / "cardigan_starters", source / "cardigan_starters")
    offline = ("--no-index", "--no-deps")
    pip("wheel", *offline, "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("cardigan_starters-*.whl")
    pip("install", *offline, "--target", tmp_path / "installed", wheel)
    installed = tmp_path / "installed" / "cardigan_starters"
    for name in ("red-32", "blue-32"):
        files = {path.name for path in (starters_package / "cardigan_starters" / name).iterdir()}
        assert {FACTS_FILE, PREVIEW_FILE, DISCRIMINATOR_FILE, "README.md"} <= files
        assert {path.name for path in (installed / name).iterdir()} == files
    listed = subprocess.run(
        [sys.executable, "-m", "cardigan", "starters", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [row["name"] for row in json.loads(listed.stdout)] == ["blue-32", "red-32"]


@pytest.mark.parametrize("folder", sorted((PROJECT / "cardigan_starters").glob("*/")), ids=lambda folder: folder.name)
def test_cards_of_the_starters_say_how_to_make_them(folder):
    if not (folder / FACTS_FILE).exists():
        pytest.skip("not a starter")
    facts, card = json.loads((folder / FACTS_FILE).read_text()), (folder / "README.md").read_text()
    assert f"```\n{facts['command']}\n```" in card and f"Lite2: {facts['score']:g} " in card
    assert facts["attribution"] in card and f"license: {facts['license'].lower()}" in card
    for file in (WEIGHTS_FILE, DISCRIMINATOR_FILE):
        assert f"| {file} | `{file_sha256(folder / file)}` |" in card
