"""From what the user gave, a path or hf:NAME, to the reader of it: by its name, else by how its content begins.

Knows which reader reads what, and nothing of how.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from cardigan.data.formats.archives import tar_reader, zip_reader
from cardigan.data.formats.array_files import idx_reader, npy_reader, npz_reader
from cardigan.data.formats.databases import hdf5_reader, lmdb_reader
from cardigan.data.formats.entries import no_pictures, reason, why_not
from cardigan.data.formats.folder import Listing, folder_reader, listing
from cardigan.data.formats.huggingface import PREFIX, SAVED, huggingface_reader, saved_reader
from cardigan.data.formats.labels import labelled, parted
from cardigan.data.formats.tables import table_reader, training_files
from cardigan.data.reader import Reader, shown
from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Kind:
    """A kind of file, or of folder."""

    what: str
    suffixes: tuple[str, ...]
    opener: Callable[[Path, str], Reader]
    """Takes the path and the column of classes."""
    begins: bytes = b""
    """What its content has at `offset`, for files that are called otherwise."""
    offset: int = 0


def _plain(what: str, opener: Callable[[Path], Reader]) -> Callable[[Path, str], Reader]:
    """Return the opener of a kind of file without columns."""

    def opened(path: Path, column: str) -> Reader:
        if column:
            raise CardiganError(
                f"The labels {column!r} are no file, and {shown(str(path))!r} ({what}) has no columns: expected folders, FILE or FILE:COLUMN."
            )
        return opener(path)

    return opened


TABLES = (".parquet", ".pq")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FILES = (
    Kind("zip archive", (".zip",), _plain("zip archive", zip_reader), begins=b"PK\x03\x04"),
    Kind("tar archive", TARS, _plain("tar archive", tar_reader), begins=b"ustar", offset=257),
    Kind("NumPy array", (".npy",), _plain("array", npy_reader), begins=b"\x93NUMPY"),
    Kind("NumPy arrays", (".npz",), npz_reader),
    Kind("IDX file", ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"), _plain("IDX file", idx_reader), begins=b"\0\0\x08\x03"),
    Kind("parquet file", TABLES, lambda path, column: table_reader([path], column), begins=b"PAR1"),
    Kind("HDF5 file", (".h5", ".hdf5"), hdf5_reader, begins=b"\x89HDF\r\n"),
    Kind("LMDB database", (".mdb", ".lmdb"), _plain("LMDB", lmdb_reader)),
)
FOLDERS = {"data.mdb": _plain("LMDB", lmdb_reader), **dict.fromkeys(SAVED, saved_reader)}
"""What opens a folder that holds a file called so; any other holds pictures, or, without one, tables or one file of the kinds above."""


def open_reader(source: str, labels: str = "") -> Reader:
    """Return the pictures of a source, with the classes that `labels` asks for: "" is the source's own, "folders", a column, FILE or FILE:COLUMN.

    A source is a folder, an archive, a file of arrays, a table or a database (docs/guides/data.md), or hf:NAME or hf:NAME:SPLIT.
    Raises CardiganError for one that is not there, is damaged or has no pictures.
    """
    file, column = parted(labels)
    return labelled(replace(_opened(source, "" if file else column), name=shown(source)), labels)


def _opened(source: str, column: str) -> Reader:
    if source.startswith(PREFIX):
        return huggingface_reader(source, column)
    path = Path(source).expanduser()
    try:
        if not source or not path.exists():
            raise _missing(source, path)
        return _of_folder(path, column) if path.is_dir() else _of_file(path, column)
    except OSError as error:  # of a path through a folder that must not be entered, or of a name that is too long
        raise CardiganError(f"{shown(source)!r} cannot be opened ({reason(error)}): expected a path that may be read.") from None


def _missing(source: str, path: Path) -> CardiganError:
    beside = [shown(entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(shown(path.name), beside, n=1, cutoff=0.5)
    offer = f"did you mean {shown(str(path.parent / near[0]))!r}?" if near else f"expected a folder, {_kinds()}, or hf:NAME."
    return CardiganError(f"There is no {shown(source)!r}: {offer}")


def _kinds() -> str:
    return ", ".join(f"{kind.what} ({kind.suffixes[0]})" for kind in FILES)


def _of_file(path: Path, column: str) -> Reader:
    kind = _by_name(path) or _by_content(path)
    if kind is not None:
        return kind.opener(path, column)
    if why_not(path.name) == "":
        raise CardiganError(f"{shown(str(path))!r} is one picture: give the folder it lies in.")
    raise CardiganError(f"{shown(str(path))!r} is of no known kind: expected a folder, {_kinds()}.")


def _by_name(path: Path) -> Kind | None:
    return next((kind for kind in FILES if path.name.lower().endswith(kind.suffixes)), None)


def _by_content(path: Path) -> Kind | None:
    with path.open("rb") as file:
        begin = file.read(512)
    return next((kind for kind in FILES if kind.begins and begin[kind.offset :].startswith(kind.begins)), None)


def _of_folder(folder: Path, column: str) -> Reader:
    opener = next((opener for mark, opener in FOLDERS.items() if (folder / mark).is_file()), None)
    if opener is not None:
        return opener(folder, column)
    found = listing(folder)
    if found.pictures:
        return _plain("folder", lambda path: folder_reader(path, found))(folder, column)
    return _of_folder_without_pictures(folder, found, column)


def _of_folder_without_pictures(folder: Path, found: Listing, column: str) -> Reader:
    """Return the pictures in the tables, or in the only archive or array, that a folder holds."""
    known = [folder / other for other in found.others if _by_name(folder / other)]
    tables = [path for path in known if path.name.lower().endswith(TABLES)]
    if tables and len(tables) == len(known):
        return table_reader(training_files(tables), column)
    if len(known) == 1:
        return _of_file(known[0], column)
    if known:
        raise CardiganError(f"{shown(str(folder))!r} holds {len(known):,} files that could be meant, {_some(known)}: give one of them.")
    raise no_pictures(shown(str(folder)), found.passed_over)


def _some(paths: Sequence[Path]) -> str:
    return " and ".join(shown(path.name) for path in paths[:2])
