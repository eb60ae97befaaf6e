"""What a user notes about a run in the studio: a name, a star, a note. They are in `studio.json` of the run.

The studio is the only writer of this file, and it writes no other file of a run.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cardigan.files.atomic import write_bytes
from cardigan.http.errors import BadRequest
from cardigan.run.directory import RunDirectory

FILE_NAME = "studio.json"
MAX_FILE_BYTES = 1 << 16
MAX_TITLE, MAX_NOTE = 80, 4_000
"""Maximum number of characters of a name and of a note."""


@dataclass(frozen=True)
class Annotations:
    """What a user noted about one run."""

    title: str = ""
    """The name that the studio shows. Default: the name of the folder."""
    starred: bool = False
    note: str = ""


def annotations_path(run: RunDirectory) -> Path:
    return run.path / FILE_NAME


def read_annotations(run: RunDirectory) -> Annotations:
    """Return the annotations of a run. A missing or damaged file counts as empty."""
    path = annotations_path(run)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Annotations()
        return parse_annotations(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, BadRequest):
        return Annotations()


def write_annotations(run: RunDirectory, annotations: Annotations) -> None:
    """Write the annotations of a run. Raises CardiganError if the file cannot be written."""
    write_bytes(annotations_path(run), json.dumps(asdict(annotations), indent=1).encode())


def parse_annotations(values: Any) -> Annotations:
    """Return the annotations of JSON values. Raises BadRequest if they are of another kind or too long."""
    if not isinstance(values, dict) or not values.keys() <= {"title", "starred", "note"}:
        raise BadRequest("The annotations are invalid: expected an object with title, starred and note.")
    title, note, starred = values.get("title", ""), values.get("note", ""), values.get("starred", False)
    if not isinstance(title, str) or not isinstance(note, str) or not isinstance(starred, bool):
        raise BadRequest("The annotations are invalid: expected texts for title and note, true or false for starred.")
    title, note = " ".join(title.split()), note.strip()
    for name, text, limit in (("name", title, MAX_TITLE), ("note", note, MAX_NOTE)):
        if len(text) > limit:
            raise BadRequest(f"The {name} has {len(text):,} characters: expected at most {limit:,}.")
    return Annotations(title, starred, note)
