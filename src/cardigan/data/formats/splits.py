"""The training part of a source with folders or shards such as `train` and `test`: test images are not trained on.

Knows only the names of images and shards.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

from cardigan.data.reader import Reader, fingerprint

TRAIN, TEST = "train(ing)?", "(test(ing)?|val(id(ation)?)?|dev)"
TRAIN_FOLDER = re.compile(rf"{TRAIN}[_-]?[ab]?", re.IGNORECASE)
TEST_FOLDER = re.compile(rf"{TEST}[_-]?[ab]?", re.IGNORECASE)
TRAIN_SHARD, TEST_SHARD = (
    re.compile(rf"(?:.*[-_.])?{word}(?:[-_.\d].*)?", re.IGNORECASE | re.DOTALL) for word in (TRAIN, TEST)
)
"""Shards such as train-000.tar and cc3m-validation-0001.tar."""


def without_test_folders(reader: Reader) -> Reader:
    """Return the reader without the images in test and validation folders that lie beside a train folder."""
    folder_of = [reader.entry_name(index).rpartition("/")[0] for index in range(len(reader))]
    folders = _all_folders(folder_of)
    test_folder_of = {folder: _test_folder(folder, folders) for folder in folders}
    left_out = Counter(test_folder_of[folder] for folder in folder_of if test_folder_of.get(folder))
    if not left_out:
        return reader
    kept = [index for index, folder in enumerate(folder_of) if not test_folder_of.get(folder)]
    return _select(reader, kept, _note(left_out))


def without_test_shards(names: Sequence[str]) -> list[int]:
    """Return the indices of the shards without test and validation shards, if there are training shards beside them."""
    is_train = [TRAIN_SHARD.fullmatch(name) is not None for name in names]
    if not any(is_train):
        return list(range(len(names)))
    return [index for index, name in enumerate(names) if is_train[index] or not TEST_SHARD.fullmatch(name)]


def _all_folders(folders: Iterable[str]) -> set[str]:
    """Return these folders and those that contain them."""
    return {
        "/".join(parts[:length])
        for folder in set(folders)
        for parts in [folder.split("/")]
        for length in range(1, len(parts) + 1)
        if folder
    }


def _test_folder(folder: str, folders: Set[str]) -> str:
    """Return the test folder beside a train folder that holds a folder; "" for none."""
    while folder:
        parent, _, name = folder.rpartition("/")
        if TEST_FOLDER.fullmatch(name) and any(
            TRAIN_FOLDER.fullmatch(other.rpartition("/")[2]) for other in folders if other.rpartition("/")[0] == parent
        ):
            return folder
        folder = parent
    return ""


def _note(counts: Counter[str]) -> str:
    folders = list(counts)
    listed = ", ".join(f"{folder}/" for folder in folders[:3]) + (", ..." if len(folders) > 3 else "")
    return (
        f"images: {counts.total():,} in {listed} are not read, because there is a train folder beside "
        f"{'it' if len(folders) == 1 else 'them'} (--data.split all reads all)"
    )


def _select(reader: Reader, indices: Sequence[int], note: str) -> Reader:
    labels = reader.labels
    return replace(
        reader,
        num_images=len(indices),
        entry_name=lambda index: reader.entry_name(indices[index]),
        read=lambda index: reader.read(indices[index]),
        fingerprint=fingerprint([reader.fingerprint, "train"]),
        labels=None if labels is None else [labels[index] for index in indices],
        notes=(*reader.notes, note),
    )
