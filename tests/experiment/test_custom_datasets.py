"""`cardigan train FOLDER`: automatic settings and their reasons, errors, and bit-exact resume."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.cli import evaluate, sample
from cardigan.data.formats.detection import open_reader
from cardigan.data.stats import DatasetStats
from cardigan.errors import CardiganError
from cardigan.experiment import build as experiment_build
from cardigan.experiment.auto import auto_config
from cardigan.metrics import quick
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event, read_events

SMALL = {
    **{
        "batch_size": 8,
        "data.height": 16,
        "data.width": 16,
        "generator.width": 4,
        "discriminator.width": 4,
        "discriminator.network": "dcgan",  # for images of any number and a quick start
        "device": "cpu",
        "precision": "fp32",
    },
    **{"sample_every_images": 1000, "checkpoint_every_images": 16, "data.num_workers": 0},
}
SMALL_ARGUMENTS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(autouse=True)
def isolated_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quick, "MIN_SAMPLES", 8)


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "photos"
    for number in range(24):
        place = path / ("left", "right")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 28, 3), np.uint8)).save(
            place / f"{number:02}.png"
        )
    return path


def command(*words: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cardigan", *words], capture_output=True, text=True, check=False, cwd=cwd
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = cardigan.load(run).snapshot.generator.state_dict()
    return {name: tensor.clone() for name, tensor in found.items()}


def tensors_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_train_on_folder_prints_and_saves_chosen_settings(tmp_path, folder):
    done = command(
        "train", str(folder), "--images", "16", "--batch-size", "8", "--device", "cpu", "--out", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    for reason in ("images: 24, in color", "augmentation: none", "holdout: none", "networks: width"):
        assert reason in done.stdout
    config = read_config(RunDirectory(tmp_path / "run"))
    assert (config.recipe, config.data.source, config.images) == ("images", str(folder), 16)
    shape = (config.data.height, config.data.width, config.data.channels)
    assert shape == (24, 32, 3)  # all images have the same aspect ratio, which is kept
    assert config.augment.operations == ""
    start = next(event for event in read_events(tmp_path / "run" / "journal.jsonl") if event.kind == "start")
    assert any("augmentation: none" in message for message in start.values["messages"])
    assert cardigan.load(tmp_path / "run").sample(3).shape == (3, 24, 32, 3)


@pytest.mark.parametrize(("cache", "num_workers"), [("disk", 0), ("none", 0), ("none", 2)])
def test_resume_is_bit_exact(tmp_path, folder, cache, num_workers):
    overrides = {
        **SMALL,
        "data.cache": cache,
        "data.num_workers": num_workers,
        "data.max_images": 20,
        "data.labels": "folders",
        "conditional": True,
        "augment.target": 0.6,
        "augment.operations": "integer-translation",
    }
    whole = cardigan.train(folder, images=48, out=tmp_path / "whole", overrides=overrides)
    cardigan.train(folder, images=24, out=tmp_path / "parts", overrides=overrides)
    again = cardigan.train(folder, images=48, out=tmp_path / "parts", overrides=overrides, resume=True)
    assert whole.images_seen == again.images_seen == 48
    assert tensors_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert whole.config.augment.operations == "integer-translation"


def test_worker_count_does_not_change_training(tmp_path, folder):
    wait_fractions = []
    overrides = {**SMALL, "data.cache": "none", "data.num_workers": 1}

    def listen(event: Event) -> None:
        wait_fractions.extend([event.values["data_wait_fraction"]] if "data_wait_fraction" in event.values else [])

    cardigan.train(folder, images=32, out=tmp_path / "streamed", overrides=overrides, on_event=listen)
    assert wait_fractions and all(0 <= fraction <= 1 for fraction in wait_fractions)
    single_process = cardigan.train(
        folder, images=32, out=tmp_path / "alone", overrides={**overrides, "data.num_workers": 0}
    )
    assert single_process.images_seen == 32
    assert tensors_equal(weights(tmp_path / "streamed"), weights(tmp_path / "alone"))


def test_changed_source_is_rejected_on_resume(tmp_path, folder):
    words = ["train", str(folder), *SMALL_ARGUMENTS, "--out", str(tmp_path / "run"), "--resume"]
    assert command(*words, "--images", "16").returncode == 0
    before = (tmp_path / "run" / "generator.safetensors").read_bytes()
    (folder / "left" / "00.png").unlink()
    done = command(*words, "--images", "32")
    assert done.returncode == 2
    assert "there were 24, now there are 23; 1 are gone, such as left/00.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == before


def test_resume_keeps_chosen_settings(tmp_path, folder, monkeypatch):
    first = cardigan.train(folder, images=16, out=tmp_path / "run", overrides={**SMALL})
    monkeypatch.setattr(
        experiment_build, "measure_throughput", lambda config, devices: pytest.fail("settings were chosen again")
    )
    again = cardigan.train(folder, images=32, out=tmp_path / "run", overrides={**SMALL}, resume=True)
    assert replace(again.config, images=16) == first.config
    with pytest.raises(CardiganError, match=r"other settings"):
        cardigan.train(folder, images=32, out=tmp_path / "run", overrides={**SMALL, "latent.size": 5}, resume=True)


def test_train_on_arrays_and_datasets(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    from_array = cardigan.train(pixels, images=16, out=tmp_path / "array", overrides=SMALL)
    assert from_array.config.data.channels == 3

    class CustomDataset(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            return Image.fromarray(pixels[index]), index % 3

    from_dataset = cardigan.train(CustomDataset(), images=16, out=tmp_path / "dataset", overrides=SMALL)
    assert tensors_equal(weights(from_array.path), weights(from_dataset.path))


def test_clusters_of_a_folder(tmp_path, folder):
    run = cardigan.train(
        folder, images=16, out=tmp_path / "run", overrides={**SMALL, "conditional": True, "data.clusters": 3}
    )
    assert run.config.data.clusters == 3 and run.images_seen == 16


def test_out_of_memory_halves_the_microbatch(tmp_path, folder, monkeypatch):
    """The device has memory for at most two images at a time."""
    build = experiment_build.build_state

    def build_limited(config, spec, devices):
        state = build(config, spec, devices)

        def raise_out_of_memory(_, inputs):
            if len(inputs[0]) > 2 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("no room")

        state.networks.generator.register_forward_pre_hook(raise_out_of_memory)
        return state

    monkeypatch.setattr(experiment_build, "build_state", build_limited)
    monkeypatch.setattr(experiment_build, "measure_throughput", lambda config, devices: 100.0)
    events = []
    run = cardigan.train(folder, images=24, out=tmp_path / "run", overrides={**SMALL}, on_event=events.append)
    assert run.images_seen == 24 and run.config.gradient_accumulation == 4 and run.config.batch_size == 8
    messages = [message for event in events if event.kind == "start" for message in event.values["messages"]]
    assert any("4 images at a time do not fit into memory, so it is 2 now" in message for message in messages)
    assert read_config(RunDirectory(tmp_path / "run")).gradient_accumulation == 4


def test_out_of_memory_error_is_one_line(tmp_path, folder, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(experiment_build, "build_state", out_of_memory)
    monkeypatch.setattr(experiment_build, "measure_throughput", lambda config, devices: 100.0)
    with pytest.raises(
        CardiganError, match=r"images of 16x16 at a time do not fit into memory: make the networks narrower"
    ):
        cardigan.train(folder, images=24, out=tmp_path / "run", overrides={**SMALL, "generator.normalization": "none"})


def dataset_stats(**changes) -> DatasetStats:
    return replace(
        DatasetStats(num_images=5_000, height=200, width=300, same_aspect_ratio=False, channels=3), **changes
    )


def auto_settings(stats: DatasetStats, device="cpu", images_per_second=500.0, given=frozenset(), **settings):
    config = override(config_for("anything", "images-dcgan"), settings)
    return auto_config(
        config, {*given, *settings}, stats, device, lambda config: images_per_second * 32 / config.generator.width
    )


def test_auto_settings_fit_images():
    config, reasons = auto_settings(dataset_stats())
    assert (config.data.height, config.data.width, config.data.channels, config.data.resize) == (64, 64, 3, "crop")
    assert (
        config.augment.target == 0.6 and config.data.holdout == 250 and config.minutes == 60 and config.images is None
    )
    assert len(reasons) == 5
    assert (
        auto_settings(dataset_stats(num_images=400))[0].augment.probability == 1.0
        and auto_settings(dataset_stats(num_images=400))[0].data.holdout == 0
    )
    assert (
        auto_settings(dataset_stats(num_images=50_000))[0].augment.operations == ""
        and auto_settings(dataset_stats(num_images=50_000))[0].data.holdout == 1_000
    )
    assert (
        auto_settings(dataset_stats(num_images=50_000, num_shards=25))[0].data.holdout == 1_000
        and auto_settings(dataset_stats(num_images=50_000, num_shards=19))[0].data.holdout == 0
    )
    assert auto_settings(dataset_stats(height=28, width=28, channels=1))[0].data.height == 32
    reason = "classes: found but not used; --conditional trains on them"
    assert reason in auto_settings(dataset_stats(), **{"data.labels": "folders"})[1] and reason not in reasons
    assert reason not in auto_settings(dataset_stats(), **{"data.labels": "folders", "conditional": True})[1]
    assert (
        auto_settings(dataset_stats(num_images=50_000), **{"data.max_images": 300})[0].augment.probability == 1.0
    )  # only the training images count
    wide, _ = auto_settings(dataset_stats(height=48, width=96, same_aspect_ratio=True))
    assert (wide.data.height, wide.data.width) == (48, 96)
    assert (
        auto_settings(dataset_stats(), "cuda")[0].data.height == 128
        and auto_settings(dataset_stats(), minutes=5.0)[0].data.height == 32
    )


def test_auto_settings_fit_machine():
    assert auto_settings(dataset_stats())[0].generator.width == 32
    assert (
        auto_settings(dataset_stats(), images_per_second=50.0)[0].generator.width == 24
    )  # an hour on a slow machine is too short for a wider network
    assert auto_settings(dataset_stats(), "cuda", images_per_second=2000.0)[0].generator.width == 64
    assert 20_000 <= auto_settings(dataset_stats())[0].sample_every_images <= 60_000


def test_given_settings_are_kept():
    settings = {
        "data.height": 96,
        "data.width": 40,
        "generator.width": 16,
        "augment.operations": "",
        "augment.probability": 0.0,
    }
    config, _ = auto_settings(
        dataset_stats(num_images=400), images=1_000, **settings, **{"data.holdout": 7, "sample_every_images": 123}
    )
    assert (config.data.height, config.data.width, config.data.holdout, config.images, config.minutes) == (
        96,
        40,
        7,
        1_000,
        None,
    )
    assert config.augment.operations == "" and config.sample_every_images == 123 and config.generator.width == 16


def test_auto_setting_reasons():
    config, reasons = auto_settings(dataset_stats(), images=1_000_000, **{"generator.width": 16})
    assert (config.generator.width, config.discriminator.width) == (16, 32)
    assert any(
        "width 16 and 32, measured 1,000 images/s, so 1,000,000 images take about 17 minutes" in reason
        for reason in reasons
    )
    assert any(
        "width 24, measured 667 images/s, so 5 minutes cover up to 200,000 images" in reason
        for reason in auto_settings(dataset_stats(), minutes=5.0)[1]
    )
    assert any("so 60 minutes cover up to 1,800,000 images" in reason for reason in auto_settings(dataset_stats())[1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "no-such-folder"], "no-such-folder"),
        (["train", "mnst"], "mnist"),
        (["train", "empty"], "empty"),
        (["train", "photos", "--size", "big"], "expected one number, as in 64, or height and width, as in 96x64"),
        (["train", "photos", "--conditional"], "no classes"),
        (["train", "photos", "--data.labels", "nothing.csv"], "nothing.csv"),
        (["train", "mnist", "--data.labels", "folders"], "data.labels is 'folders'"),
        (["train", "photos", "--data.holdout", "24"], "24 of them held out"),
        (["train", "photos", "--data.channels", "2"], "expected 1 (gray), 3 (RGB) or 4"),
        (["train", "photos", "--data.split", "test"], "nothing is held out"),
        (["train", "photos", "--data.max_images", "500"], "has 24 images to train on"),
        (["train", "photos", "--size", "64", "--data.height", "32"], "were both given"),
        (["train", "mnist", "--data.cache", "none"], "data.cache is 'none', which mnist does not read"),
    ],
)
def test_bad_arguments_give_one_line_error(tmp_path, folder, words, expected):
    (tmp_path / "empty").mkdir()
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_existing_run_is_rejected_first(tmp_path, folder):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    shutil.rmtree(folder)
    with pytest.raises(CardiganError, match=r"exists already"):
        cardigan.train(str(folder), out=tmp_path / "run")


def test_source_fingerprint_is_saved_with_run(tmp_path, folder):
    cardigan.train(folder, images=16, out=tmp_path / "run", overrides=SMALL)
    metadata = json.loads((tmp_path / "run" / "source.json").read_bytes())
    assert metadata["num_images"] == 24 and metadata["names"][0] == "left/00.png"


def test_dead_worker_saves_and_stops(tmp_path, folder):
    """Reading an image kills the worker after a while."""
    reader, parent, num_reads = open_reader(str(folder)), os.getpid(), 0

    def kill_worker(index):
        nonlocal num_reads
        num_reads += 1
        if os.getpid() != parent and num_reads > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return reader.read(index)

    source = replace(reader, read=kill_worker)
    overrides = {**SMALL, "data.cache": "none", "data.num_workers": 1, "checkpoint_every_images": 10_000}
    with pytest.raises(CardiganError, match=r"A process that decodes images of .* died .*data.num_workers"):
        cardigan.train(source, images=800, out=tmp_path / "run", overrides=overrides)
    assert cardigan.load(tmp_path / "run").images_seen > 0
    again = cardigan.train(
        reader, images=160, out=tmp_path / "run", overrides={**overrides, "data.num_workers": 0}, resume=True
    )
    assert again.images_seen == 160


def test_mixed_image_modes_train_together(tmp_path):
    path = tmp_path / "mixed"
    path.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 4), np.uint8)
    for number, mode in enumerate(("L", "RGB", "RGBA", "P", "CMYK", "1", "I;16", "LA")):
        image = (
            Image.fromarray(noise[:, :, 0].astype(np.uint16) * 256)
            if mode == "I;16"
            else Image.fromarray(noise).convert(mode)
        )
        image.save(path / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}")
    for channels in (1, 3, 4):
        run = cardigan.train(
            path, images=8, out=tmp_path / f"run{channels}", overrides={**SMALL, "data.channels": channels}
        )
        assert cardigan.load(run.path).sample(2).shape == (2, 16, 16, channels)
    start = next(event for event in read_events(run.path / "journal.jsonl") if event.kind == "start")
    assert {"1 images: CMYK converted to RGB", "1 images: more than 8 bits a value, reduced to 8"} <= set(
        start.values["messages"]
    )


def test_missing_labels_raise_only_when_conditional(tmp_path, folder):
    rows = [f"{side}/{number:02}.png,{side}" for number in range(1, 24) for side in [("left", "right")[number % 2]]]
    (tmp_path / "labels.csv").write_text("\n".join(["file,side", *reversed(rows)]))
    words = {**SMALL, "data.labels": f"{tmp_path / 'labels.csv'}:side"}
    with pytest.raises(CardiganError, match=r"1 of the images of .* have no class: add the missing labels"):
        cardigan.train(folder, images=8, out=tmp_path / "run", overrides={**words, "conditional": True})
    assert cardigan.train(folder, images=8, out=tmp_path / "run", overrides=words).images_seen == 8
    with pytest.raises(CardiganError, match="side"):
        cardigan.train(
            folder,
            images=8,
            out=tmp_path / "other",
            overrides={**words, "data.labels": f"{tmp_path / 'labels.csv'}:sid"},
        )


def test_sample_by_class_name(tmp_path, folder):
    run = cardigan.train(
        folder, images=8, out=tmp_path / "run", overrides={**SMALL, "data.labels": "folders", "conditional": True}
    )
    model = cardigan.load(run.path)
    right = model.sample(3, labels=1)
    assert right.shape == (3, 16, 16, 3)
    assert np.array_equal(model.sample(3, labels="right"), right)
    assert np.array_equal(model.sample(2, labels=["left", "right"])[1], right[1])
    for wrong, words in ((2, r"expected 0\.\.1"), ("rigth", r"Unknown class 'rigth': did you mean 'right'\?")):
        with pytest.raises(CardiganError, match=words):
            model.sample(3, labels=wrong)
    assert sample.main([str(run.path), "-n", "3", "--label", "right", "--out", str(tmp_path / "right.npy")]) == 0
    assert sample.main([str(run.path), "-n", "3", "--label", "1", "--out", str(tmp_path / "one.npy")]) == 0
    assert (tmp_path / "right.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()


def test_evaluate_uses_holdout_images(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    np.save(tmp_path / "photos.npy", pixels)
    cardigan.train(tmp_path / "photos.npy", images=16, out=tmp_path / "run", overrides={**SMALL, "data.holdout": 120})
    assert evaluate.main([str(tmp_path / "run"), "--samples", "100", "--extractor", "pixels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["reference_split"] == "holdout" and found["protocol"]["num_reference"] == 120
    assert found["metrics"]["fd_pixels"]["value"] > 0
    (tmp_path / "photos.npy").unlink()
    with pytest.raises(CardiganError, match=r"photos.npy"):
        evaluate.main([str(tmp_path / "run"), "--samples", "100"])


def test_run_name_from_source(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = cardigan.train("photos", images=16, overrides=SMALL)
    other = tmp_path / "more photos"
    shutil.copytree(folder, other)
    second = cardigan.train("./more photos/", images=16, overrides=SMALL)
    assert first.path.name.endswith("-photos") and second.path.name.endswith("-more-photos")
    again = cardigan.train(str(folder), images=32, resume=True, overrides=SMALL)
    assert again.path == first.path and again.images_seen == 32
    with pytest.raises(CardiganError, match=r"other settings \(data.source"):
        cardigan.train(other, images=48, out=first.path, resume=True, overrides=SMALL)
    monkeypatch.chdir("/")
    assert (
        evaluate.main([str(tmp_path / first.path), "--samples", "100", "--extractor", "pixels", "--metrics", "frechet"])
        == 0
    )


def test_two_processes_choose_equal_settings(tmp_path, folder):
    words = [word for word in SMALL_ARGUMENTS if word not in {"--generator.width", "--discriminator.width", "4"}]
    done = command("train", str(folder), *words, "--images", "32", "--devices", "2", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("networks: width") == 1
    together = read_config(RunDirectory(tmp_path / "two"))
    alone = cardigan.train(
        folder,
        images=32,
        out=tmp_path / "one",
        overrides={
            **SMALL,
            "generator.width": together.generator.width,
            "discriminator.width": together.discriminator.width,
        },
    )
    ours, theirs = weights(tmp_path / "two"), weights(alone.path)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4) for name in ours)


def test_config_file_and_recipe_override_auto_settings(tmp_path, folder):
    (tmp_path / "mine.toml").write_text("batch_size = 8\n[generator]\nwidth = 64\n[data]\nheight = 16\nwidth = 16\n")
    words = ["--images", "8", "--device", "cpu", "--discriminator.width", "4", "--data.num_workers", "0"]
    assert (
        command(
            "train", str(folder), "--config", str(tmp_path / "mine.toml"), *words, "--out", str(tmp_path / "file")
        ).returncode
        == 0
    )
    config = read_config(RunDirectory(tmp_path / "file"))
    # A setting in the file counts as given, even if it equals the recipe's value.
    assert (config.generator.width, config.data.height) == (64, 16)
    by_name = auto_config(
        config_for("anything", "gan2014"), set(), dataset_stats(), "cpu", lambda config: 100.0, recipe_given=True
    )[0]
    assert (
        by_name.generator.width == 1200
        and by_name.images == 1_500_000
        and by_name.augment.operations == ""
        and by_name.data.channels == 3
    )


def test_mlp_width_follows_image_size():
    networks = {
        "generator.network": "mlp",
        "generator.normalization": "none",
        "generator.initialization": "torch",
        "discriminator.network": "mlp",
    }
    sizes = {(28, 28, 1): 1_200, (8, 8, 1): 300, (64, 64, 3): 2_400}
    for (height, width, channels), expected in sizes.items():
        shape = {"data.height": height, "data.width": width, "data.channels": channels}
        config, _ = auto_settings(dataset_stats(), images_per_second=1e9, **networks, **shape)
        assert (config.generator.width, config.discriminator.width) == (expected, expected)
    slow, _ = auto_settings(dataset_stats(), images_per_second=1.0, **networks, **shape)
    assert (slow.generator.width, slow.discriminator.width) == (1_200, 1_200)
    mixed, _ = auto_settings(
        dataset_stats(), images_per_second=1e9, **{**networks, **shape, "discriminator.network": "dcgan"}
    )
    assert (mixed.generator.width, mixed.discriminator.width) == (2_400, 32)
    mixed, _ = auto_settings(dataset_stats(), images_per_second=1e9, **{**networks, **shape, "generator.width": 77})
    assert (mixed.generator.width, mixed.discriminator.width) == (77, 2_400)


@pytest.mark.parametrize(
    "given", [{"augment.operations": ""}, {"augment.operations": "translation", "augment.probability": 1.0}]
)
@pytest.mark.parametrize("count", [400, 5_000])
def test_given_augmentation_is_kept(count, given):
    config, _ = auto_settings(dataset_stats(num_images=count), **given)
    assert config.augment.operations == given["augment.operations"] and config.augment.target == 0


def test_config_of_other_source(tmp_path, folder):
    digits = override(config_for("mnist"), {**SMALL, "data.channels": 3, "images": 8})
    with pytest.raises(CardiganError, match=r"--no-conditional.*data.labels"):
        cardigan.train(folder, config=digits, out=tmp_path / "run")
    run = cardigan.train(folder, config=override(digits, {"conditional": False}), out=tmp_path / "run")
    assert run.config.data.source == str(folder) and cardigan.load(run.path).sample(1).shape == (1, 16, 16, 3)


def test_changed_labels_and_images_are_detected(tmp_path, folder):
    rows = ["file,side", *(f"{('left', 'right')[number % 2]}/{number:02}.png,{number % 3}" for number in range(24))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    overrides = {**SMALL, "data.labels": str(tmp_path / "labels.csv"), "data.holdout": 6}
    cardigan.train(folder, images=8, out=tmp_path / "run", overrides=overrides)
    (tmp_path / "labels.csv").write_text("\n".join([*rows[:-1], "right/23.png,0"]))
    with pytest.raises(CardiganError, match="the images are the same, but their labels differ"):
        cardigan.train(folder, images=16, out=tmp_path / "run", overrides=overrides, resume=True)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    shutil.copy(folder / "left" / "00.png", folder / "left" / "new.png")
    for model in (tmp_path / "run", tmp_path / "run" / "generator.safetensors"):
        with pytest.raises(CardiganError, match="cannot be evaluated with them"):
            evaluate.main([str(model), "--samples", "100", "--extractor", "pixels"])
