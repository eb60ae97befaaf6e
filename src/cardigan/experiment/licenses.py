"""Whose work a model is: the license on its card or of the model it was trained from, and whom to name."""

import re
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError
from cardigan.models.hub import CARD_FILE, download_card, is_hub_address, parse_hub_address
from cardigan.models.snapshot import weights_file
from cardigan.models.starters import starter_at
from cardigan.run.directory import RunDirectory, read_provenance

NO_DERIVATIVES = re.compile(r"-nd\b|no[- ]?deriv", re.IGNORECASE)
LICENSE_LINES = re.compile(r"^license(?:_name)?:[ ]*([^\n]*(?:\n[ ]*- [^\n]+)*)", re.MULTILINE)
"""A license in the front matter of a card, or a list of several."""
MAX_DEPTH_IN_RUN = 3
"""Folders above the weights of a checkpoint, up to its run."""


def license_of(model: Path) -> str:
    """Return the license of a run, checkpoint, weights file, model folder, hub model or starter, or nothing."""
    return card_license(model, weights_file(model).parent)


def card_license(path: Path, folder: Path) -> str:
    """Return the licenses in the front matter of the model's card, or that of the parent of its run, or nothing."""
    try:
        card = download_card(parse_hub_address(path)) if is_hub_address(path) else folder / CARD_FILE
        with card.open(encoding="utf-8") as file:
            head = file.read(10_000)
    except (OSError, UnicodeDecodeError, CardiganError):
        head = ""
    front_matter = re.match(r"---\n(.*?)\n---", head, re.DOTALL)
    found = [
        re.sub(r"\n[ ]*- ", " ", each).strip()
        for each in LICENSE_LINES.findall(front_matter[1] if front_matter else "")
    ]
    if any(found):
        return ", ".join(filter(None, found))
    return str(_facts_of_run(path).get("license", ""))


def attribution(path: Path) -> str:
    """Return whom to name for a starter's images, or for those of the starter that its run was started from."""
    starter = starter_at(path)
    return str(_facts_of_run(path).get("attribution", "")) if starter is None else starter.attribution


def _facts_of_run(path: Path) -> dict[str, Any]:
    """Return what a run, or that of a checkpoint or a file of weights, remembers of its parent."""
    for run in (path, *path.absolute().parents[:MAX_DEPTH_IN_RUN]):
        if RunDirectory(run).config.exists():
            try:
                parent = read_provenance(RunDirectory(run)).get("parent")
            except CardiganError:
                return {}
            return parent if isinstance(parent, dict) else {}
    return {}
