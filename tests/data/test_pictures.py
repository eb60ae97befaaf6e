"""Sources as a training needs them: decoded once or streamed, always in the same order, held-out pictures apart, bad ones left out and told of."""

import io
import json
import os
import shutil
import signal
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cardigan.config import DataConfig
from cardigan.data import loading, prepared
from cardigan.data.decoding import decoded, frame_of
from cardigan.data.feed import Feed, PicturesLost
from cardigan.data.formats.opening import open_reader
from cardigan.data.pictures import open_pictures, survey_of
from cardigan.data.reader import Unreadable
from cardigan.errors import CardiganError

SIDE = 16


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))


def data(source, **changes) -> DataConfig:
    return DataConfig(source=str(source), height=SIDE, width=SIDE, channels=3, fit="crop", workers=0, **changes)


def picture(number: int, size=(20, 24), mode="RGB") -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (*size, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    return Image.fromarray(noise[:, :, 0] if noise.shape[2] == 1 else noise)


def folder(path, count=10, classes=0):
    for number in range(count):
        place = path / f"class{number % classes}" if classes else path
        place.mkdir(parents=True, exist_ok=True)
        picture(number).save(place / f"{number:03}.png")
    return path


def expected(path) -> dict[bytes, str]:
    """Return the name of every picture by its pixels in the frame."""
    reader, frame = open_reader(str(path)), frame_of(data(path))
    return {decoded(reader.read(index), frame).tobytes(): reader.title(index) for index in range(len(reader))}


def names(pixels: torch.Tensor, known: dict[bytes, str]) -> list[str]:
    return [known[each.permute(1, 2, 0).contiguous().numpy().tobytes()] for each in pixels]


def test_every_picture_is_kept_once_and_held_out_ones_are_others(tmp_path):
    path = folder(tmp_path / "pictures")
    known = expected(path)
    found = open_pictures(data(path, held_out=3))
    training, held_out = names(found.training.pixels, known), names(found.held_out.pixels, known)
    assert len(training) == 7 and len(held_out) == 3
    assert sorted(training + held_out) == sorted(known.values())
    again = open_pictures(data(path, held_out=3))
    assert torch.equal(found.training.pixels, again.training.pixels)
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 1


def test_a_second_opening_decodes_nothing(tmp_path, monkeypatch):
    path = folder(tmp_path / "pictures")
    heard = []
    open_pictures(data(path), told=lambda done, of: heard.append((done, of)))
    assert heard[-1] == (10, 10)
    heard.clear()
    open_pictures(data(path), told=lambda done, of: heard.append(done))
    assert heard == []


def test_a_kept_file_that_was_cut_is_made_anew(tmp_path):
    path = folder(tmp_path / "pictures")
    before = open_pictures(data(path)).training.pixels.clone()
    file = next((tmp_path / "cache" / "pictures").glob("*/pixels.npy"))
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(open_pictures(data(path)).training.pixels, before)


@pytest.mark.parametrize(("workers", "forks"), [(0, True), (2, True), (2, False)])
def test_a_stream_shows_each_picture_once_an_epoch_and_begins_anywhere(tmp_path, monkeypatch, workers, forks):
    monkeypatch.setattr(loading, "FORKS", forks)
    path = folder(tmp_path / "pictures")
    known = expected(path)
    found = open_pictures(replace(data(path, keep="stream", held_out=2), workers=workers))
    stream = found.streamed(seed=5, batch=4, share=slice(0, 4))
    from_start, from_eight = stream(0), stream(8)
    steps = [names(next(from_start)[0], known) for _ in range(6)]
    seen = [name for step in steps for name in step]
    assert sorted(seen[:8]) == sorted(seen[8:16]) == sorted(set(known.values()) - set(names(found.held_out.pixels, known)))
    assert seen[:8] != seen[8:16]
    assert [names(next(from_eight)[0], known) for _ in range(4)] == steps[2:]
    halves = [found.streamed(seed=5, batch=4, share=slice(start, start + 2))(0) for start in (0, 2)]
    assert names(next(halves[0])[0], known) + names(next(halves[1])[0], known) == steps[0]
    for each in (from_start, from_eight, *halves):
        each.close()


def test_mirrored_pictures_come_as_often_as_the_others(tmp_path):
    path = folder(tmp_path / "pictures", count=4)
    known = expected(path)
    kept = open_pictures(data(path, mirror=True)).training
    assert len(kept) == 8
    straight, mirrored = kept.stored(torch.arange(4)), kept.stored(torch.arange(4, 8))
    assert torch.equal(straight.flip(3), mirrored)
    streamed = open_pictures(data(path, mirror=True, keep="stream")).streamed(seed=0, batch=8, share=slice(0, 8))(0)
    pixels = next(streamed)[0]
    both = known | {
        np.ascontiguousarray(np.frombuffer(each, np.uint8).reshape(SIDE, SIDE, 3)[:, ::-1]).tobytes(): f"mirrored {name}"
        for each, name in known.items()
    }
    assert sorted(names(pixels, both)) == sorted(both.values())
    streamed.close()


def test_classes_come_from_folders(tmp_path):
    path = folder(tmp_path / "pictures", count=9, classes=3)
    known = expected(path)
    for keep in ("disk", "stream"):
        source = open_pictures(data(path, labels="folders", keep=keep)).training
        assert source.classes == 3 and source.class_names == ("class0", "class1", "class2")
        assert [int(name.split("/")[0][-1]) for name in names(source.pixels, known)] == source.labels.tolist()


def test_one_bad_picture_in_a_hundred_is_skipped_and_told_of(tmp_path):
    path = folder(tmp_path / "pictures", count=100)
    (path / "050.png").write_bytes((path / "050.png").read_bytes()[:60])
    found = open_pictures(data(path))
    assert len(found.training) == 99
    assert len(found.notes) == 1 and found.notes[0].startswith("1 of 100 pictures were skipped (050.png is damaged (")
    whole = picture(50)
    stamp = (path / "050.png").stat()
    whole.save(path / "050.png")
    os.utime(path / "050.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(open_pictures(data(path)).training) == 100


def test_a_stream_shows_another_picture_in_a_bad_ones_place_but_none_that_is_held_out(tmp_path):
    path = folder(tmp_path / "pictures", count=100)
    (path / "050.png").write_bytes((path / "050.png").read_bytes()[:60])
    known = {decoded(file.read_bytes(), frame_of(data(path))).tobytes(): file.name for file in path.iterdir() if file.name != "050.png"}
    found = open_pictures(data(path, keep="stream", held_out=50))
    streamed = found.streamed(seed=0, batch=50, share=slice(0, 50))(0)
    seen = {name for _ in range(4) for name in names(next(streamed)[0], known)}
    assert not seen & set(names(found.held_out.pixels, known))
    streamed.close()


@pytest.mark.parametrize("keep", ["disk", "stream"])
def test_more_bad_pictures_are_refused_with_one_named(tmp_path, keep):
    path = folder(tmp_path / "pictures", count=50)
    (path / "007.png").write_text("this is no picture")
    (path / "008.png").write_bytes(b"")
    with pytest.raises(CardiganError, match=r"2 of the 50 pictures .* cannot be used \(00[78].png is .*cardigan check"):
        found = open_pictures(data(path, keep=keep))
        stream = found.streamed(seed=0, batch=50, share=slice(0, 50))(0)
        for _ in range(2):
            next(stream)


def test_too_few_pictures_are_refused(tmp_path):
    path = folder(tmp_path / "pictures", count=1)
    with pytest.raises(CardiganError, match=r"holds 1 picture: training needs at least 2"):
        open_pictures(data(path))
    with pytest.raises(CardiganError, match=r"10 held out|, 10 of them held out"):
        open_pictures(data(folder(tmp_path / "more"), held_out=10))


def test_a_huge_picture_is_refused_by_its_header_and_the_setting_named(tmp_path):
    path = folder(tmp_path / "pictures", count=2)
    Image.new("1", (20_000, 20_000)).save(path / "huge.png")
    with pytest.raises(Unreadable, match=r"20,000 x 20,000 pixels and data.max_pixels is 100,000,000"):
        decoded((path / "huge.png").read_bytes(), frame_of(data(path)))
    with pytest.raises(CardiganError, match=r"data.max_pixels"):
        open_pictures(data(path))


def test_a_worker_that_dies_is_named(tmp_path):
    path = folder(tmp_path / "pictures")
    parent = os.getpid()
    reader = open_reader(str(path))

    def deadly(index):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return reader.read(index)

    with pytest.raises(CardiganError, match=r"A process that decodes pictures of .* died .*data.workers"):
        open_pictures(replace(data(path), workers=1), reader=replace(reader, read=deadly))


def test_what_pictures_are_like(tmp_path):
    for number in range(6):
        picture(number, (30, 60)).save(tmp_path / f"{number}.png")
    found = survey_of(data(tmp_path))
    assert (found.count, found.height, found.width, found.one_shape, found.channels) == (6, 30, 60, True, 3)
    for number in range(200):
        picture(number, (40, 40), "L").save(tmp_path / f"grey{number}.png")
    assert survey_of(data(tmp_path)).channels == 1 and not survey_of(data(tmp_path)).one_shape


def test_embedded_digits_keep_their_own_test_part():
    found = open_pictures(DataConfig())
    assert len(found.training) == 60_000 and len(found.held_out) == 10_000 and not found.facts
    with pytest.raises(CardiganError, match=r"data.held_out is 100"):
        open_pictures(DataConfig(held_out=100))


def shards(path, count=3, each=20):
    path.mkdir()
    for shard in range(count):
        with tarfile.open(path / f"train-{shard:03}.tar", "w") as tar:
            for number in range(each):
                buffer = io.BytesIO()
                picture(100 * shard + number).save(buffer, "PNG")
                for name, content in ((f"{shard}-{number}.png", buffer.getvalue()), (f"{shard}-{number}.cls", str(number % 4).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path / "train-{000..002}.tar"


@pytest.mark.parametrize(("workers", "forks"), [(0, True), (2, True), (2, False)])
def test_shards_stream_whole_epochs_with_classes_and_begin_anywhere(tmp_path, monkeypatch, workers, forks):
    monkeypatch.setattr(loading, "FORKS", forks)
    source = shards(tmp_path / "shards")
    found = open_pictures(replace(data(source), workers=workers))
    assert found.training.classes == 4 and len(found.training.pixels) == 60
    stream = found.streamed(seed=3, batch=15, share=slice(0, 15))
    whole, later = stream(0), stream(30)
    steps = [next(whole) for _ in range(8)]
    seen = [each.numpy().tobytes() for pixels, _ in steps[:4] for each in pixels]
    assert len(set(seen)) == 60
    for pixels, labels in steps[2:4]:
        found_pixels, found_labels = next(later)
        assert torch.equal(pixels, found_pixels) and torch.equal(labels, found_labels)
    by_pixels = {each.numpy().tobytes(): int(label) for pixels, labels in steps[:4] for each, label in zip(pixels, labels, strict=True)}
    assert all(by_pixels[each.numpy().tobytes()] == int(label) for pixels, labels in steps[4:] for each, label in zip(pixels, labels, strict=True))
    assert sorted(by_pixels.values()) == sorted([0, 1, 2, 3] * 15)
    whole.close()
    later.close()


def test_shards_cannot_be_limited_and_unknown_classes_are_refused_where_they_matter(tmp_path):
    source = shards(tmp_path / "shards")
    for changes, told in (
        ({"limit": 5}, "data.limit is 5"),
        ({"held_out": 41}, "none would be left"),
        ({"labels": "folders"}, "data.labels is"),
        ({"keep": "disk"}, "data.keep is"),
    ):
        with pytest.raises(CardiganError, match=told):
            open_pictures(data(source, **changes))
    found = open_pictures(data(source, classes=2))
    assert found.unlabelled == 30
    stream = found.streamed(seed=0, batch=30, share=slice(0, 30))
    Feed(stream, 30).at(0)
    with pytest.raises(PicturesLost, match=r"data.classes"):
        Feed(stream, 30, labelled=True).at(0)


def test_whole_shards_are_held_out(tmp_path):
    source = shards(tmp_path / "shards")
    known = {each.permute(1, 2, 0).contiguous().numpy().tobytes() for each in open_pictures(data(source)).training.pixels}
    found = open_pictures(data(source, held_out=25))
    held = {each.permute(1, 2, 0).contiguous().numpy().tobytes() for each in found.held_out.pixels}
    stream = found.streamed(seed=3, batch=10, share=slice(0, 10))(0)
    seen = {each.permute(1, 2, 0).contiguous().numpy().tobytes() for _ in range(4) for each in next(stream)[0]}
    stream.close()
    assert len(held) == 25 and len(seen) == 20 and len(known) == 60  # twice the only shard that is left
    assert not seen & held and seen | held < known
    assert found.facts["fingerprint"] == open_pictures(data(source)).facts["fingerprint"]


def test_two_processes_may_prepare_the_same_pictures_at_once(tmp_path, monkeypatch):
    path = folder(tmp_path / "pictures")
    usual = prepared._prepare

    def overtaken(temporary, *arguments):
        usual(temporary, *arguments)
        shutil.copytree(temporary, temporary.with_name(temporary.name.rpartition("-")[2]))

    monkeypatch.setattr(prepared, "_prepare", overtaken)
    assert len(open_pictures(data(path)).training) == 10


def test_a_lost_shard_ends_the_stream_with_a_sentence(tmp_path):
    source = shards(tmp_path / "shards")
    found = open_pictures(replace(data(source), workers=1))
    (tmp_path / "shards" / "train-001.tar").write_bytes(b"gone wrong" * 100)
    stream = found.streamed(seed=0, batch=30, share=slice(0, 30))(0)
    with pytest.raises(CardiganError, match=r"train-001.tar") as told:
        for _ in range(4):
            next(stream)
    assert "Traceback" not in str(told.value)


def test_facts_survive_being_written_as_json(tmp_path):
    path = folder(tmp_path / "pictures")
    facts = open_pictures(data(path)).facts
    assert facts["count"] == 10 and json.loads(json.dumps(facts)) == facts
