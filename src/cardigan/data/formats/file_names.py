"""File names: which entries of a folder or archive are images. Opens no files."""

import unicodedata
from collections.abc import Mapping

from cardigan.errors import CardiganError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "ppm", "pgm"})
SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "lost+found"})
HIDDEN = "hidden"
NOT_AN_IMAGE = "not an image"


def skip_reason(path: str) -> str:
    """Return why an entry is not an image according to its name; "" for an image."""
    if any(_is_hidden(part) for part in path.split("/")):
        return HIDDEN
    stem, _, suffix = path.rpartition(".")
    return "" if stem and suffix.lower() in IMAGE_SUFFIXES else NOT_AN_IMAGE


def _is_hidden(part: str) -> bool:
    return part.lower() in SYSTEM_FILES or (part.startswith(".") and part not in {".", ".."})


def no_images_error(source: str, skipped: Mapping[str, int]) -> CardiganError:
    """Return the error for a source without images. It lists what was skipped."""
    found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
    return CardiganError(
        f"{source!r} holds no images ({found}): expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}."
    )


def compose(name: str) -> str:
    """Return a name in Unicode's composed form (NFC). Some systems store names in the decomposed form."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def normalize_path(path: str) -> str:
    """Return a path inside an archive or a label file with forward slashes and no leading `./`."""
    return path.replace("\\", "/").removeprefix("./")
