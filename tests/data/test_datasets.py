"""Datasets for training: cached or streamed, always in the same order, with a holdout and without unreadable images."""

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

from cardigan.config_parts import DataConfig
from cardigan.data import cache, workers
from cardigan.data.datasets import dataset_stats, open_datasets
from cardigan.data.decoding import decode_image, decode_spec
from cardigan.data.formats.detection import open_reader
from cardigan.data.prefetch import DataLost, Prefetcher
from cardigan.data.reader import UnreadableImage
from cardigan.errors import CardiganError

SIDE = 16


@pytest.fixture(autouse=True)
def isolated_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))


def data_config(source, **changes) -> DataConfig:
    return DataConfig(source=str(source), height=SIDE, width=SIDE, channels=3, resize="crop", num_workers=0, **changes)


def random_image(number: int, size=(20, 24), mode="RGB") -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (*size, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    return Image.fromarray(noise[:, :, 0] if noise.shape[2] == 1 else noise)


def image_folder(path, count=10, classes=0):
    for number in range(count):
        folder = path / f"class{number % classes}" if classes else path
        folder.mkdir(parents=True, exist_ok=True)
        random_image(number).save(folder / f"{number:03}.png")
    return path


def expected_images(path) -> dict[bytes, str]:
    """Return the name of every image by its decoded pixels."""
    reader, spec = open_reader(str(path)), decode_spec(data_config(path))
    return {decode_image(reader.read(index), spec).tobytes(): reader.entry_name(index) for index in range(len(reader))}


def image_keys(pixels: torch.Tensor, known: dict[bytes, str]) -> list[str]:
    return [known[each.permute(1, 2, 0).contiguous().numpy().tobytes()] for each in pixels]


def test_cache_and_holdout_partition_the_source(tmp_path):
    path = image_folder(tmp_path / "photos")
    known = expected_images(path)
    found = open_datasets(data_config(path, holdout=3))
    train_keys, holdout_keys = image_keys(found.train.pixels, known), image_keys(found.holdout.pixels, known)
    assert len(train_keys) == 7 and len(holdout_keys) == 3
    assert sorted(train_keys + holdout_keys) == sorted(known.values())
    again = open_datasets(data_config(path, holdout=3))
    assert torch.equal(found.train.pixels, again.train.pixels)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1


def test_second_open_uses_the_cache(tmp_path, monkeypatch):
    path = image_folder(tmp_path / "photos")
    progress = []
    open_datasets(data_config(path), on_progress=lambda done, total: progress.append((done, total)))
    assert progress[-1] == (10, 10)
    progress.clear()
    open_datasets(data_config(path), on_progress=lambda done, total: progress.append(done))
    assert progress == []


def test_truncated_cache_is_rebuilt(tmp_path):
    path = image_folder(tmp_path / "photos")
    before = open_datasets(data_config(path)).train.pixels.clone()
    file = next((tmp_path / "cache" / "decoded").glob("*/pixels.npy"))
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(open_datasets(data_config(path)).train.pixels, before)


@pytest.mark.parametrize(("num_workers", "forks"), [(0, True), (2, True), (2, False)])
def test_stream_epoch_is_a_permutation_and_can_start_anywhere(tmp_path, monkeypatch, num_workers, forks):
    monkeypatch.setattr(workers, "CAN_FORK", forks)
    path = image_folder(tmp_path / "photos")
    known = expected_images(path)
    found = open_datasets(replace(data_config(path, cache="none", holdout=2), num_workers=num_workers))
    stream = found.make_stream(seed=5, batch_size=4, rank_slice=slice(0, 4))
    from_start, from_eight = stream(0), stream(8)
    steps = [image_keys(next(from_start)[0], known) for _ in range(6)]
    seen = [name for step in steps for name in step]
    assert (
        sorted(seen[:8])
        == sorted(seen[8:16])
        == sorted(set(known.values()) - set(image_keys(found.holdout.pixels, known)))
    )
    assert seen[:8] != seen[8:16]
    assert [image_keys(next(from_eight)[0], known) for _ in range(4)] == steps[2:]
    halves = [found.make_stream(seed=5, batch_size=4, rank_slice=slice(start, start + 2))(0) for start in (0, 2)]
    assert image_keys(next(halves[0])[0], known) + image_keys(next(halves[1])[0], known) == steps[0]
    for each in (from_start, from_eight, *halves):
        each.close()


def test_flipped_images_are_as_frequent_as_originals(tmp_path):
    path = image_folder(tmp_path / "photos", count=4)
    known = expected_images(path)
    kept = open_datasets(data_config(path, horizontal_flip=True)).train
    assert len(kept) == 8
    straight, flipped = kept.pixels_at(torch.arange(4)), kept.pixels_at(torch.arange(4, 8))
    assert torch.equal(straight.flip(3), flipped)
    streamed = open_datasets(data_config(path, horizontal_flip=True, cache="none")).make_stream(
        seed=0, batch_size=8, rank_slice=slice(0, 8)
    )(0)
    pixels = next(streamed)[0]
    both = known | {
        np.ascontiguousarray(
            np.frombuffer(each, np.uint8).reshape(SIDE, SIDE, 3)[:, ::-1]
        ).tobytes(): f"mirrored {name}"
        for each, name in known.items()
    }
    assert sorted(image_keys(pixels, both)) == sorted(both.values())
    streamed.close()


def test_class_labels_from_folders(tmp_path):
    path = image_folder(tmp_path / "photos", count=9, classes=3)
    known = expected_images(path)
    for keep in ("disk", "none"):
        source = open_datasets(data_config(path, labels="folders", cache=keep)).train
        assert source.num_classes == 3 and source.class_names == ("class0", "class1", "class2")
        assert [int(name.split("/")[0][-1]) for name in image_keys(source.pixels, known)] == source.labels.tolist()


def test_one_percent_unreadable_images_are_skipped_and_reported(tmp_path):
    path = image_folder(tmp_path / "photos", count=100)
    (path / "050.png").write_bytes((path / "050.png").read_bytes()[:60])
    found = open_datasets(data_config(path))
    assert len(found.train) == 99
    assert len(found.messages) == 1 and found.messages[0].startswith(
        "1 of 100 images were skipped (050.png is damaged ("
    )
    whole = random_image(50)
    stamp = (path / "050.png").stat()
    whole.save(path / "050.png")
    os.utime(path / "050.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(open_datasets(data_config(path)).train) == 100


def test_stream_replaces_unreadable_images_with_training_images(tmp_path):
    path = image_folder(tmp_path / "photos", count=100)
    (path / "050.png").write_bytes((path / "050.png").read_bytes()[:60])
    known = {
        decode_image(file.read_bytes(), decode_spec(data_config(path))).tobytes(): file.name
        for file in path.iterdir()
        if file.name != "050.png"
    }
    found = open_datasets(data_config(path, cache="none", holdout=50))
    streamed = found.make_stream(seed=0, batch_size=50, rank_slice=slice(0, 50))(0)
    seen = {name for _ in range(4) for name in image_keys(next(streamed)[0], known)}
    assert not seen & set(image_keys(found.holdout.pixels, known))
    streamed.close()


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_too_many_unreadable_images_raise(tmp_path, cache):
    path = image_folder(tmp_path / "photos", count=50)
    (path / "007.png").write_text("this is no image")
    (path / "008.png").write_bytes(b"")
    with pytest.raises(CardiganError, match=r"2 of the 50 images .* cannot be used \(00[78].png is .*cardigan check"):
        found = open_datasets(data_config(path, cache=cache))
        stream = found.make_stream(seed=0, batch_size=50, rank_slice=slice(0, 50))(0)
        for _ in range(2):
            next(stream)


def test_too_few_images_raise(tmp_path):
    path = image_folder(tmp_path / "photos", count=1)
    with pytest.raises(CardiganError, match=r"holds 1 image: training needs at least 2"):
        open_datasets(data_config(path))
    with pytest.raises(CardiganError, match=r", 10 of them held out"):
        open_datasets(data_config(image_folder(tmp_path / "more"), holdout=10))


def test_max_pixels_is_checked_from_the_header(tmp_path):
    path = image_folder(tmp_path / "photos", count=2)
    Image.new("1", (20_000, 20_000)).save(path / "huge.png")
    with pytest.raises(UnreadableImage, match=r"20,000 x 20,000 pixels and data.max_pixels is 100,000,000"):
        decode_image((path / "huge.png").read_bytes(), decode_spec(data_config(path)))
    assert "data.max_pixels" in open_datasets(data_config(path)).messages[0]


def test_dead_worker_raises(tmp_path):
    path = image_folder(tmp_path / "photos")
    parent = os.getpid()
    reader = open_reader(str(path))

    def kill_worker(index):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return reader.read(index)

    with pytest.raises(CardiganError, match=r"A process that decodes images of .* died .*data.num_workers"):
        open_datasets(replace(data_config(path), num_workers=1), reader=replace(reader, read=kill_worker))


def test_dataset_stats(tmp_path):
    for number in range(6):
        random_image(number, (30, 60)).save(tmp_path / f"{number}.png")
    found = dataset_stats(data_config(tmp_path))
    assert (found.num_images, found.height, found.width, found.same_aspect_ratio, found.channels) == (
        6,
        30,
        60,
        True,
        3,
    )
    for number in range(200):
        random_image(number, (40, 40), "L").save(tmp_path / f"gray{number}.png")
    assert (
        dataset_stats(data_config(tmp_path)).channels == 1
        and not dataset_stats(data_config(tmp_path)).same_aspect_ratio
    )


def test_mnist_keeps_its_test_split():
    found = open_datasets(DataConfig())
    assert len(found.train) == 60_000 and len(found.holdout) == 10_000 and not found.source_fingerprint
    with pytest.raises(CardiganError, match=r"data.holdout is 100"):
        open_datasets(DataConfig(holdout=100))


def shards(path, count=3, each=20):
    path.mkdir()
    for shard in range(count):
        with tarfile.open(path / f"train-{shard:03}.tar", "w") as tar:
            for number in range(each):
                buffer = io.BytesIO()
                random_image(100 * shard + number).save(buffer, "PNG")
                for name, content in (
                    (f"{shard}-{number}.png", buffer.getvalue()),
                    (f"{shard}-{number}.cls", str(number % 4).encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path / "train-{000..002}.tar"


@pytest.mark.parametrize(("num_workers", "forks"), [(0, True), (2, True), (2, False)])
def test_shard_stream_yields_whole_epochs_and_can_start_anywhere(tmp_path, monkeypatch, num_workers, forks):
    monkeypatch.setattr(workers, "CAN_FORK", forks)
    source = shards(tmp_path / "shards")
    found = open_datasets(replace(data_config(source), num_workers=num_workers))
    assert found.train.num_classes == 4 and len(found.train.pixels) == 60
    stream = found.make_stream(seed=3, batch_size=15, rank_slice=slice(0, 15))
    whole, later = stream(0), stream(30)
    steps = [next(whole) for _ in range(8)]
    seen = [each.numpy().tobytes() for pixels, _ in steps[:4] for each in pixels]
    assert len(set(seen)) == 60
    for pixels, labels in steps[2:4]:
        found_pixels, found_labels = next(later)
        assert torch.equal(pixels, found_pixels) and torch.equal(labels, found_labels)
    by_pixels = {
        each.numpy().tobytes(): int(label)
        for pixels, labels in steps[:4]
        for each, label in zip(pixels, labels, strict=True)
    }
    assert all(
        by_pixels[each.numpy().tobytes()] == int(label)
        for pixels, labels in steps[4:]
        for each, label in zip(pixels, labels, strict=True)
    )
    assert sorted(by_pixels.values()) == sorted([0, 1, 2, 3] * 15)
    whole.close()
    later.close()


def test_shards_reject_max_images_and_unknown_classes(tmp_path):
    source = shards(tmp_path / "shards")
    for changes, message in (
        ({"max_images": 5}, "data.max_images is 5"),
        ({"holdout": 41}, "would be left to train on"),
        ({"labels": "folders"}, "data.labels is"),
        ({"cache": "disk"}, "data.cache is"),
    ):
        with pytest.raises(CardiganError, match=message):
            open_datasets(data_config(source, **changes))
    found = open_datasets(data_config(source, num_classes=2))
    assert found.num_unlabeled == 30
    stream = found.make_stream(seed=0, batch_size=30, rank_slice=slice(0, 30))
    Prefetcher(stream, 30).batch_at(0)
    with pytest.raises(DataLost, match=r"data.num_classes"):
        Prefetcher(stream, 30, require_labels=True).batch_at(0)


def test_holdout_takes_whole_shards(tmp_path):
    source = shards(tmp_path / "shards")
    known = {
        each.permute(1, 2, 0).contiguous().numpy().tobytes() for each in open_datasets(data_config(source)).train.pixels
    }
    found = open_datasets(data_config(source, holdout=25))
    held = {each.permute(1, 2, 0).contiguous().numpy().tobytes() for each in found.holdout.pixels}
    stream = found.make_stream(seed=3, batch_size=10, rank_slice=slice(0, 10))(0)
    seen = {each.permute(1, 2, 0).contiguous().numpy().tobytes() for _ in range(4) for each in next(stream)[0]}
    stream.close()
    assert len(held) == 25 and len(seen) == 20 and len(known) == 60  # twice the only remaining shard
    assert not seen & held and seen | held < known
    assert (
        found.source_fingerprint["fingerprint"] == open_datasets(data_config(source)).source_fingerprint["fingerprint"]
    )


def test_concurrent_cache_builds(tmp_path, monkeypatch):
    path = image_folder(tmp_path / "photos")
    write_cache = cache._write_cache

    def build_in_other_process(temporary, *arguments):
        write_cache(temporary, *arguments)
        shutil.copytree(temporary, temporary.with_name(temporary.name.rpartition("-")[2]))

    monkeypatch.setattr(cache, "_write_cache", build_in_other_process)
    assert len(open_datasets(data_config(path)).train) == 10


def test_missing_shard_raises_data_lost(tmp_path):
    source = shards(tmp_path / "shards")
    found = open_datasets(replace(data_config(source), num_workers=1))
    (tmp_path / "shards" / "train-001.tar").write_bytes(b"gone wrong" * 100)
    stream = found.make_stream(seed=0, batch_size=30, rank_slice=slice(0, 30))(0)
    with pytest.raises(CardiganError, match=r"train-001.tar") as caught:
        for _ in range(4):
            next(stream)
    assert "Traceback" not in str(caught.value)


def test_source_fingerprint_json_round_trip(tmp_path):
    path = image_folder(tmp_path / "photos")
    facts = open_datasets(data_config(path)).source_fingerprint
    assert facts["num_images"] == 10 and json.loads(json.dumps(facts)) == facts
