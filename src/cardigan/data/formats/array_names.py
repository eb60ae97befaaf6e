"""The names of arrays in a file: which holds the images and which their classes.

Knows names and shapes. Does not open files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from cardigan.data.formats.columns import untaken_note
from cardigan.data.reader import printable
from cardigan.errors import CardiganError, unknown

IMAGE_NAMES = (
    *("images", "x", "arr_0", "x_train", "train_x", "train_images", "images_train"),
    *("data", "train_data", "image", "imgs"),
)
LABEL_NAMES = (
    *("y", "labels", "label", "y_train", "train_y", "train_labels", "labels_train", "arr_1", "targets", "target"),
    *("train_label", "train_targets", "classes"),
)
TEST_WORD = re.compile(r"[xy]?(test|val|valid|validation)[xy]?")
PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"), ("arr0", "arr1"))
"""Parts of the names of images, and of their classes."""


def choose_images(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Return the array of the images: one with 3 or 4 axes, with a name in `IMAGE_NAMES` if any, and of no test part.

    None if there is none.
    """
    fitting = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    candidates = [key for key in fitting if not is_test(key)] or fitting
    order = [_plain(name) for name in IMAGE_NAMES]
    return min(candidates, key=lambda key: _position(_plain(_last_part(key)), order), default=None)


def is_named_images(key: str) -> bool:
    """Return whether a name alone says that an array holds images."""
    return _plain(_last_part(key)) in [_plain(name) for name in IMAGE_NAMES]


def is_named_labels(key: str) -> bool:
    """Return whether a name alone says that an array holds classes."""
    return _plain(_last_part(key)) in [_plain(name) for name in LABEL_NAMES]


def choose_labels(name: str, requested: str, images: str, shapes: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    """Return the array of the classes, "" for none, and the column of it that `NAME:COLUMN` requests.

    Raises CardiganError if a requested array does not exist.
    """
    if requested:
        key, _, column = (requested, "", "") if requested in shapes else requested.rpartition(":")
        if key not in shapes:
            raise unknown(f"array of {name}", requested, [key for key in shapes if key != images])
        return key, column
    plain_images = _plain(_last_part(images))
    order = [plain_images.replace(*pair) for pair in PAIRS if pair[0] in plain_images]
    order += [_plain(name) for name in LABEL_NAMES]
    candidates = [
        key
        for key in shapes
        if key != images and is_test(key) == is_test(images) and _plain(_last_part(key)) in order and shapes[key]
    ]
    fits = {key: shapes[key][0] == shapes[images][0] and _folder(key) == _folder(images) for key in candidates}
    return min(candidates, key=lambda key: (not fits[key], _position(_plain(_last_part(key)), order)), default=""), ""


def array_notes(images: str, labels: str, requested: str, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return notes on other arrays of images, and on arrays that could hold classes."""
    count = shapes[images][0]
    others = [key for key, shape in shapes.items() if len(shape) in (3, 4) and key not in (images, labels)]
    classes = [
        key
        for key, shape in shapes.items()
        if len(shape) in (1, 2) and shape[0] == count and not (is_test(key) and not is_test(images))
    ]
    unread = f"images: {printable(images)}; not read: {', '.join(printable(other) for other in others[:5])}"
    note = () if labels or requested else untaken_note(None, classes)
    return (*([unread] if others else []), *note)


def column_index(name: str, column: str, count: int, names: Sequence[str] = ()) -> int:
    """Return the index of a column of an array from its number or its name. Raises CardiganError for others."""
    if column in names:
        return list(names).index(column)
    if column.isascii() and column.isdecimal() and int(column) < count:
        return int(column)
    raise CardiganError(
        f"{name!r} has no column {column!r} of classes: expected a number from 0 to {count - 1}"
        f"{', or one of ' + ', '.join(names[:5]) + ', ...' if names else ''}."
    )


def is_test(key: str) -> bool:
    """Return whether a name is one of a test or validation part: `X_test`, `val/images`."""
    return any(TEST_WORD.fullmatch(word) for word in re.split(r"[^a-z0-9]+", key.lower()))


def _last_part(key: str) -> str:
    return key.rpartition("/")[2]


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _position(name: str, order: Iterable[str]) -> int:
    names = list(order)
    return names.index(name) if name in names else len(names)
