"""Format detection: from a path or an address (hf:NAME) to its reader, by file name or else by the first bytes.

Knows which reader reads which format, not how. Plug-ins add formats to `SOURCE_FORMATS` and `ADDRESS_READERS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from cardigan.data.formats.archives import tar_reader, zip_reader
from cardigan.data.formats.file_names import no_images_error, skip_reason
from cardigan.data.formats.folder import FolderListing, folder_reader, list_folder
from cardigan.data.formats.hdf5 import hdf5_reader
from cardigan.data.formats.huggingface import DATASET_MARKERS, HF_PREFIX, huggingface_reader, saved_dataset_reader
from cardigan.data.formats.idx import idx_reader
from cardigan.data.formats.labels import parse_labels_setting, with_labels
from cardigan.data.formats.lmdb import lmdb_reader
from cardigan.data.formats.numpy_files import npy_reader, npz_reader
from cardigan.data.formats.parquet import parquet_reader, train_files
from cardigan.data.formats.splits import without_test_folders
from cardigan.data.formats.watch import watch_files
from cardigan.data.reader import Reader, printable
from cardigan.errors import CardiganError, error_reason
from cardigan.files.special_files import reject_special_file


@dataclass(frozen=True)
class SourceFormat:
    """A format of files or folders: how it is recognized and how it is opened."""

    description: str
    suffixes: tuple[str, ...]
    """Endings of its files' names, in lower case. The longest ending of all formats decides."""
    make_reader: Callable[[Path, str], Reader]
    """Takes the path and the label column ("" for the format's own labels); see `without_column`."""
    magic: bytes = b""
    """Bytes at `offset` that identify files with another suffix."""
    offset: int = 0
    folder_markers: tuple[str, ...] = ()
    """A folder that holds a file of this name is a source of this format."""


def without_column(description: str, make_reader: Callable[[Path], Reader]) -> Callable[[Path, str], Reader]:
    """Return the reader function of a format without columns. It raises CardiganError if a column is given."""

    def checked_reader(path: Path, column: str) -> Reader:
        if column:
            raise CardiganError(
                f"The labels {column!r} are not a file, and {printable(str(path))!r} ({description}) has no columns: "
                "expected folders, FILE or FILE:COLUMN."
            )
        return make_reader(path)

    return checked_reader


PARQUET_SUFFIXES = (".parquet", ".pq")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SOURCE_FORMATS: dict[str, SourceFormat] = {
    "zip": SourceFormat("zip archive", (".zip",), without_column("zip archive", zip_reader), magic=b"PK\x03\x04"),
    "tar": SourceFormat(
        "tar archive", TAR_SUFFIXES, without_column("tar archive", tar_reader), magic=b"ustar", offset=257
    ),
    "npy": SourceFormat("NumPy array", (".npy",), without_column("array", npy_reader), magic=b"\x93NUMPY"),
    "npz": SourceFormat("NumPy arrays", (".npz",), npz_reader),
    "idx": SourceFormat(
        "IDX file",
        ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"),
        without_column("IDX file", idx_reader),
        magic=b"\0\0\x08\x03",
    ),
    "parquet": SourceFormat(
        "parquet file", PARQUET_SUFFIXES, lambda path, column: parquet_reader([path], column), magic=b"PAR1"
    ),
    "hdf5": SourceFormat("HDF5 file", (".h5", ".hdf5"), hdf5_reader, magic=b"\x89HDF\r\n"),
    "lmdb": SourceFormat(
        "LMDB database", (".mdb", ".lmdb"), without_column("LMDB", lmdb_reader), folder_markers=("data.mdb",)
    ),
    "huggingface": SourceFormat("Hugging Face dataset", (), saved_dataset_reader, folder_markers=DATASET_MARKERS),
}
"""Formats of files and folders by name.

A folder without a marker of a format holds images, or else parquet files or a single file of these formats.
"""
ADDRESS_READERS: dict[str, Callable[[str, str], Reader]] = {HF_PREFIX: huggingface_reader}
"""Readers of sources that are not paths, by the prefix of their address. They take the source and the label column."""


def is_address(source: str) -> bool:
    """Return whether a source begins with a prefix of `ADDRESS_READERS`, so that it is not a path."""
    return source.startswith(tuple(ADDRESS_READERS))


def open_reader(source: str, labels: str = "", all_parts: bool = False) -> Reader:
    """Return the images of a source with the classes that `labels` selects.

    Images in test and validation folders beside a train folder are left out, unless `all_parts`.

    `labels` is "" (the source's own), "folders", a column, FILE or FILE:COLUMN. A source is a folder, an archive, an
    array file, a table or a database (docs/guides/data.md), or an address: hf:NAME, hf:NAME:SPLIT or a plug-in's.
    Raises CardiganError if the source is missing, damaged or has no images.
    """
    file, column = parse_labels_setting(labels)
    reader = replace(_open_path_or_dataset(source, "" if file else column), name=printable(source))
    return with_labels(reader if all_parts else without_test_folders(reader), labels)


def _open_path_or_dataset(source: str, column: str) -> Reader:
    if is_address(source):
        return ADDRESS_READERS[max(filter(source.startswith, ADDRESS_READERS), key=len)](source, column)
    path = Path(source).expanduser()
    try:
        if not source or not path.exists():
            raise _missing_source_error(source, path)
        return _folder_reader(path, column) if path.is_dir() else _file_reader(path, column)
    except OSError as error:  # no permission for a parent folder, or a name that is too long
        raise CardiganError(
            f"{printable(source)!r} cannot be opened ({error_reason(error)}): expected a readable path."
        ) from None


def _missing_source_error(source: str, path: Path) -> CardiganError:
    sibling_names = [printable(entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close_matches = get_close_matches(printable(path.name), sibling_names, n=1, cutoff=0.5)
    hint = (
        f"did you mean {printable(str(path.parent / close_matches[0]))!r}?"
        if close_matches
        else f"expected a folder, {_format_list()}, or {' or '.join(f'{prefix}NAME' for prefix in ADDRESS_READERS)}."
    )
    return CardiganError(f"There is no {printable(source)!r}: {hint}")


def _format_list() -> str:
    return ", ".join(
        f"{known.description} ({known.suffixes[0]})" for known in SOURCE_FORMATS.values() if known.suffixes
    )


def _file_reader(path: Path, column: str) -> Reader:
    reject_special_file(path)
    source_format = _format_by_suffix(path) or _format_by_magic(path)
    if source_format is not None:
        return watch_files(source_format.make_reader(path, column), [path])
    if skip_reason(path.name) == "":
        raise CardiganError(f"{printable(str(path))!r} is one image: give its folder.")
    raise CardiganError(f"{printable(str(path))!r} has an unknown format: expected a folder, {_format_list()}.")


def _format_by_suffix(path: Path) -> SourceFormat | None:
    """Return the format with the longest suffix that the file's name ends in."""
    name = path.name.lower()
    suffixes = {suffix: known for known in SOURCE_FORMATS.values() for suffix in known.suffixes}
    return suffixes.get(max(filter(name.endswith, suffixes), key=len, default=""))


def _format_by_magic(path: Path) -> SourceFormat | None:
    with path.open("rb") as file:
        head = file.read(512)
    return next(
        (known for known in SOURCE_FORMATS.values() if known.magic and head[known.offset :].startswith(known.magic)),
        None,
    )


def _folder_reader(folder: Path, column: str) -> Reader:
    for known in SOURCE_FORMATS.values():
        if any((folder / marker).is_file() for marker in known.folder_markers):
            return watch_files(known.make_reader(folder, column), [*folder.glob("*.mdb"), *folder.rglob("*.arrow")])
    folder_listing = list_folder(folder)
    if folder_listing.images:
        return without_column("folder", lambda path: folder_reader(path, folder_listing))(folder, column)
    return _reader_of_files_in(folder, folder_listing, column)


def _reader_of_files_in(folder: Path, folder_listing: FolderListing, column: str) -> Reader:
    """Return the images of a folder that holds only parquet files, or a single file of another format."""
    recognized = [folder / other for other in folder_listing.others if _format_by_suffix(folder / other)]
    tables = [path for path in recognized if path.name.lower().endswith(PARQUET_SUFFIXES)]
    if tables and len(tables) == len(recognized):
        files = train_files(tables)
        for file in files:
            reject_special_file(file)
        return _with_note(watch_files(parquet_reader(files, column), files), _unread_files_note(tables, files))
    if len(recognized) == 1:
        return _file_reader(recognized[0], column)
    if recognized:
        raise CardiganError(
            f"{printable(str(folder))!r} holds {len(recognized):,} possible sources, {_first_names(recognized)}: "
            "give one of them."
        )
    raise no_images_error(printable(str(folder)), folder_listing.skipped)


def _unread_files_note(files: Sequence[Path], read: Sequence[Path]) -> str:
    unread = [file for file in files if file not in read]
    return f"images: {len(unread):,} files are not read, such as {printable(unread[0].name)}" if unread else ""


def _with_note(reader: Reader, note: str) -> Reader:
    return replace(reader, notes=(*reader.notes, note)) if note else reader


def _first_names(paths: Sequence[Path]) -> str:
    return " and ".join(printable(path.name) for path in paths[:2])
