"""`cardigan check`: findings, text and JSON output, contact sheet and clean copy of a folder with every problem."""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardigan.cli.main import run
from cardigan.data.quality.check import check_source, open_source, write_contact_sheet
from cardigan.data.quality.clean import safe_name, write_clean_archive
from cardigan.data.reader import Reader, UnreadableImage, evenly_spaced_indices
from cardigan.errors import CardiganError

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork")


def random_image(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def clean_folder(tmp_path) -> Path:
    """Sixty images in two classes."""
    for index in range(60):
        path = tmp_path / "good" / ("cat" if index % 4 else "dog") / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(random_image(index)))
    return tmp_path / "good"


@pytest.fixture
def damaged_folder(clean_folder) -> Path:
    """The clean folder with one of each problem."""
    (clean_folder / "cat" / "copy.png").write_bytes(png(random_image(0)))
    random_image(1, (80, 80)).save(clean_folder / "cat" / "near.jpg", quality=60)
    random_image(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(clean_folder / "dog" / "mirrored.png")
    Image.new("RGB", (40, 40), "green").save(clean_folder / "dog" / "blank.png")
    (clean_folder / "empty.jpg").write_bytes(b"")
    (clean_folder / "page.jpg").write_text("<html>not found</html>")
    (clean_folder / "cut.png").write_bytes(png(random_image(3))[:-900])
    (clean_folder / "notes.txt").write_text("mine")
    return clean_folder


def arrays(*pixels: np.ndarray, labels=None) -> Reader:
    return Reader("arrays", len(pixels), str, lambda index: pixels[index], "", labels)


def captured_output(capsys, *words: object) -> tuple[int, str, str]:
    code = run(["check", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_clean_source(capsys, clean_folder):
    code, output, _ = captured_output(capsys, clean_folder, "--labels", "folders")
    assert code == 0
    assert "60 images in " in output and "60 PNG" in output and "all 40 x 40" in output and "None." in output
    assert "classes       2, smallest 'dog' with 15, largest 'cat' with 45" in output
    command = output.strip().splitlines()[-1]
    assert command == f"cardigan train {clean_folder} --data.labels folders"


def test_all_problems_are_reported(capsys, damaged_folder):
    code, output, _ = captured_output(capsys, damaged_folder)
    assert code == 1
    for words in (
        *(
            "67 images",
            "1 not an image",
            "3 cannot be read:",
            "empty.jpg is empty",
            "page.jpg is not an image of a known format",
            "cut.png is damaged",
        ),
        *("1 are blank", "dog/blank.png", "1 are duplicates, in 1 group: cat/copy.png = dog/000.png"),
        *(
            "2 are near duplicates (1 of them mirrored), in 2 groups",
            "cat/001.png ~ cat/near.jpg",
            "cat/002.png ~ dog/mirrored.png",
        ),
        *(
            "cannot be trained on as it is: 4% of the images are unreadable",
            f"cardigan check {damaged_folder} --write-clean clean.zip",
            "cardigan train clean.zip",
        ),
    ):
        assert words in output, words


def test_json_keys_are_stable(capsys, damaged_folder):
    code, output, _ = captured_output(capsys, damaged_folder, "--labels", "folders", "--json", "--num-workers", 0)
    report = json.loads(output)
    assert code == 1 and report["trainable"] is False
    assert list(report) == [
        *(
            "source",
            "num_images",
            "num_readable",
            "num_bytes",
            "formats",
            "color_modes",
            "channels",
            "conversions",
            "skipped",
            "num_exif_rotated",
            "sizes",
        ),
        *(
            "unreadable",
            "duplicates",
            "near_duplicates",
            "blank",
            "class_balance",
            "decode_seconds_per_epoch",
            "notes",
            "trainable",
            "dropped_indices",
            "near_duplicate_indices",
            "advice",
            "written",
        ),
    ]
    assert list(report["sizes"]) == [
        *("num_distinct", "smallest", "median", "largest", "most_common", "median_short_side"),
        *("min_aspect_ratio", "median_aspect_ratio", "max_aspect_ratio", "num_non_square", "smallest_entries"),
    ]
    assert list(report["advice"]) == [
        "resolution",
        "channels",
        "num_images",
        "decoded_bytes",
        "augment",
        "num_dropped",
        "recommendations",
        "commands",
    ]
    assert [entry["name"] for entry in report["unreadable"]] == ["cut.png", "empty.jpg", "page.jpg"]
    assert report["duplicates"][0]["members"] == [
        {"index": 45, "name": "cat/copy.png"},
        {"index": 48, "name": "dog/000.png"},
    ]
    assert report["duplicates"][0]["same_bytes"] is True and report["duplicates"][0]["same_class"] is False
    assert report["class_balance"]["counts"] == {"cat": 47, "dog": 17} and report["written"] == {
        "contact_sheet": None,
        "clean_archive": None,
        "num_clean_images": 0,
    }
    assert (
        report["sizes"]["largest"] == {"width": 80, "height": 80, "count": 1} and report["decode_seconds_per_epoch"] > 0
    )
    again = json.loads(captured_output(capsys, damaged_folder, "--labels", "folders", "--json", "--num-workers", 2)[1])
    for each in (report, again):
        each.pop("decode_seconds_per_epoch")
        each["advice"].pop("recommendations")
    assert report == again


def test_clean_archive_keeps_original_bytes(capsys, tmp_path, damaged_folder):
    out = tmp_path / "clean.zip"
    code, output, _ = captured_output(capsys, damaged_folder, "--labels", "folders", "--write-clean", out)
    assert code == 1 and "holds the 62 images" in output and output.strip().splitlines()[-1] == f"cardigan train {out}"
    with zipfile.ZipFile(out) as archive:
        names = set(archive.namelist())
        assert archive.read("cat/near.jpg") == (damaged_folder / "cat" / "near.jpg").read_bytes()
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
    assert {"cat/copy.png", "dog/mirrored.png"} < names and not {
        "dog/000.png",
        "dog/blank.png",
        "empty.jpg",
        "page.jpg",
        "cut.png",
    } & names
    assert labels == {name: name[:3] for name in names - {"dataset.json"}}
    code, output, _ = captured_output(capsys, out)
    assert (
        code == 0
        and "62 images" in output
        and "classes       2, smallest 'dog' with 15, largest 'cat' with 47" in output
    )
    assert "cannot be read" not in output and "are duplicates" not in output and "are blank" not in output


def test_drop_near_duplicates_keeps_the_largest(tmp_path, damaged_folder):
    reader = open_source(str(damaged_folder))
    found = check_source(reader, num_workers=0)
    assert write_clean_archive(reader, found, tmp_path / "near.zip", drop_near_duplicates=True) == 60
    with zipfile.ZipFile(tmp_path / "near.zip") as archive:
        names = archive.namelist()
    assert (
        "cat/near.jpg" in names
        and "cat/002.png" in names
        and "cat/001.png" not in names
        and "dog/mirrored.png" not in names
    )
    assert "dataset.json" not in names


def test_clean_archive_is_deterministic(tmp_path, clean_folder):
    for name in ("one.zip", "two.zip"):
        reader = open_source(str(clean_folder))
        write_clean_archive(reader, check_source(reader, num_workers=0), tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_arrays_become_png(tmp_path):
    pixels = [np.asarray(random_image(seed)) for seed in range(11)]
    reader = arrays(*pixels, labels=[*range(10), None])
    assert write_clean_archive(reader, check_source(reader), tmp_path / "out.zip") == 11
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"{index:02d}.png" for index in range(11)] + ["dataset.json"]
        assert (np.asarray(Image.open(io.BytesIO(archive.read("03.png")))) == pixels[3]).all()
        assert json.loads(archive.read("dataset.json"))["labels"] == [
            [f"{index:02d}.png", index] for index in range(10)
        ]


@pytest.mark.parametrize(
    "title, name",
    [
        *(
            ("a/b.png", "a/b.png"),
            ("../../etc/x.png", "etc/x.png"),
            ("/root/x.JPG", "root/x.JPG"),
            ("C:\\x\\y.png", "C_/x/y.png"),
        ),
        *(
            ("7", "007.webp"),
            ("cat", "cat.webp"),
            ("notes.txt", "notes.txt.webp"),
            (".hidden/.x.png", "hidden/x.png"),
            ("a\0b\n.png", "a_b_.png"),
        ),
        *(
            ("..", "007.webp"),
            ("", "007.webp"),
            ("__MACOSX/x.png", "007.webp"),
            ("train 0.parquet row 5", "train 0.parquet row 5.webp"),
            (" /x.png", "x.png"),
        ),
    ],
)
def test_safe_names(title, name):
    assert safe_name(title, 7, 1000, "webp") == name


def test_equal_names_are_all_kept(tmp_path):
    titles = ["a.png", "A.png", "x/../a.png", "a-2.png"]
    stored = [png(random_image(seed)) for seed in range(4)]
    reader = Reader("odd", 4, lambda index: titles[index], lambda index: stored[index], "")
    write_clean_archive(reader, check_source(reader), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["a.png", "A-2.png", "x/a.png", "a-2-2.png"]
        assert [archive.read(name) for name in archive.namelist()] == stored


def test_clean_archive_is_atomic_and_never_overwrites(capsys, tmp_path, clean_folder):
    (tmp_path / "mine.zip").write_text("precious")
    (tmp_path / "mine.png").write_text("precious")
    for option in (
        ["--write-clean", tmp_path / "mine.zip"],
        ["--write-clean", tmp_path / "mine.zip", "--overwrite"],
        ["--contact-sheet", tmp_path / "mine.png"],
    ):
        code, output, message = captured_output(capsys, clean_folder, *option)
        assert code == 2 and not output and "exists already" in message
    assert (tmp_path / "mine.zip").read_text() == (tmp_path / "mine.png").read_text() == "precious"
    stored = {index: png(random_image(index)) for index in range(5)}
    reader = Reader("fleeting", 5, str, lambda index: read_or_raise(stored, index), "")
    found = check_source(reader)
    del stored[4]
    with pytest.raises(CardiganError, match="4 is gone, but it was readable before"):
        write_clean_archive(reader, found, tmp_path / "half.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "mine.png", "mine.zip"]


def test_file_created_meanwhile_is_not_overwritten(tmp_path):
    stored = [png(random_image(seed)) for seed in range(3)]
    found = check_source(Reader("slow", 3, str, lambda index: stored[index], ""))

    def read(index: int) -> bytes:
        (tmp_path / "out.zip").write_text("another's")
        return stored[index]

    with pytest.raises(CardiganError, match="exists already"):
        write_clean_archive(Reader("slow", 3, str, read, ""), found, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_text() == "another's" and len(list(tmp_path.iterdir())) == 1


def read_or_raise(stored: dict[int, bytes], index: int) -> bytes:
    if index not in stored:
        raise UnreadableImage("is gone")
    return stored[index]


def test_contact_sheet(capsys, tmp_path, damaged_folder):
    assert (
        captured_output(capsys, damaged_folder, "--contact-sheet", tmp_path / "sheet.png", "--num-workers", 0)[0] == 1
    )
    assert size(tmp_path / "sheet.png") == (
        10 * 98 - 2,
        5 * 22 + (7 + 4) * 98,
    )  # most, then a row each of blank, equal, nearly the same and smallest
    assert (
        captured_output(
            capsys, damaged_folder, "--contact-sheet", tmp_path / "sheet.png", "--overwrite", "--num-workers", 0
        )[0]
        == 1
    )
    reader = arrays(np.full((9, 9), 7, np.uint8))
    write_contact_sheet(reader, check_source(reader), tmp_path / "one.png")
    assert size(tmp_path / "one.png") == (978, 2 * 22 + 2 * 98)
    reader = Reader("none", 1, str, lambda index: b"", "")
    write_contact_sheet(reader, check_source(reader), tmp_path / "none.png")
    assert size(tmp_path / "none.png") == (978, 22)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_contact_sheet_sample_is_evenly_spread():
    assert evenly_spaced_indices(4, 10) == [0, 2, 5, 7]
    assert evenly_spaced_indices(3, 3) == [0, 1, 2] and evenly_spaced_indices(0, 3) == []


INVALID_ARGUMENTS = {
    "no source": (["nowhere"], "There is no 'nowhere'"),
    "built-in": (["mnist"], "is built in"),
    "missing shards": (["photos-{000..009}.tar"], "The shard photos-000.tar cannot be read (No such file"),
    "remote shards": (["https://host/photos-{0..9}.tar?key=secret"], "https://host/photos-{0..9}.tar is on a server"),
    "labels of shards": (["photos-{0..9}.tar", "--labels", "a"], "shards hold their own classes: leave --labels out"),
    "near alone": (["good", "--drop-near-duplicates"], "--drop-near-duplicates has no effect without --write-clean"),
    "sheet among the images": (["good", "--contact-sheet", "good/sheet.png"], "lies in the source"),
    "sheet of another kind": (["good", "--contact-sheet", "sheet.jpg"], "ending in .png"),
    "archive of another kind": (["good", "--write-clean", "out.tar"], "ending in .zip"),
    "no folder": (["good", "--write-clean", "away/out.zip"], "There is no folder"),
    "workers": (["good", "--num-workers", "-1"], "num_workers is -1"),
    "pixels": (["good", "--max-pixels", "0"], "max_pixels is 0"),
    "option": (["good", "--fast"], "Unknown option '--fast'"),
}


@pytest.mark.parametrize("words, message", INVALID_ARGUMENTS.values(), ids=INVALID_ARGUMENTS.keys())
def test_bad_input_gives_one_line_error(capsys, monkeypatch, clean_folder, words, message):
    monkeypatch.chdir(clean_folder.parent)
    code, output, report = captured_output(capsys, *words)
    assert code == 2 and not output and message in report and "Traceback" not in report


def test_labels_of_open_reader_raise():
    with pytest.raises(CardiganError, match="is open already"):
        check_source(arrays(np.zeros((9, 9), np.uint8)), labels="folders")


def test_source_without_readable_images(capsys, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(b"")
    code, output, _ = captured_output(capsys, tmp_path / "source", "--write-clean", tmp_path / "out.zip")
    assert (
        code == 1
        and "a.png is empty" in output
        and "No image can be read" in output
        and not (tmp_path / "out.zip").exists()
    )
    found = check_source(str(tmp_path / "source"))
    with pytest.raises(CardiganError, match="nothing to write"):
        write_clean_archive(arrays(), found, tmp_path / "out.zip")


def test_max_pixels_setting(capsys, tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(png(random_image(seed)))
    code, output, _ = captured_output(capsys, tmp_path, "--max-pixels", 1599)
    assert code == 1 and "has 40 x 40 pixels and data.max_pixels is 1,599" in output
    code, output, _ = captured_output(capsys, tmp_path, "--max-pixels", 1600)
    assert code == 0 and output.strip().endswith("--data.max-pixels 1600")


@needs_fork
def test_worker_count_does_not_change_findings(clean_folder):
    reader = open_source(str(clean_folder))
    heard: list[tuple[int, int]] = []
    by_three = check_source(reader, num_workers=3, on_progress=lambda done, of: heard.append((done, of)))
    here = check_source(reader, num_workers=0)
    assert {**vars(by_three), "decode_seconds_per_epoch": 0} == {**vars(here), "decode_seconds_per_epoch": 0}
    assert heard == [(16, 60), (32, 60), (48, 60), (60, 60)]


@needs_fork
@pytest.mark.parametrize(
    "end", [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL)], ids=["exit", "kill"]
)
def test_dead_worker_error_names_the_image(end):
    stored, parent = png(random_image(1)), os.getpid()

    def read(index: int) -> bytes:
        if index == 77 and os.getpid() != parent:
            end()
        return stored

    reader = Reader("deadly", 200, lambda index: f"image {index}", read, "")
    with pytest.raises(CardiganError, match=r"died at .*\bimage 77\b.*\. If memory ran out") as caught:
        check_source(reader, num_workers=2)
    assert str(caught.value).count(" or image ") <= 1
    with pytest.raises(CardiganError, match=r"died at image 77\."):
        check_source(reader, num_workers=1)
    assert check_source(reader, num_workers=0).num_readable == 200


@needs_fork
def test_reader_bug_is_raised():
    def read(index: int) -> bytes:
        raise AssertionError(f"bug at {index}")

    with pytest.raises(AssertionError, match="bug at 0"):
        check_source(Reader("buggy", 40, str, read, ""), num_workers=2)


def test_help_lists_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        run(["check", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert (
        stop.value.code == 0
        and "exit code is 0 if the source can be trained on, 1 if" in output
        and "2 if it could not be checked" in output
    )


def test_check_does_not_import_torch():
    check = (
        "import sys; from cardigan.cli import check; from cardigan.data.quality import check as checkup; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
