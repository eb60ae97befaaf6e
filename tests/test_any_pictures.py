"""`cardigan train FOLDER`: what is chosen, what is told, what is refused, and that a run goes on bit for bit."""

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
from cardigan import assemble
from cardigan.choosing import chosen
from cardigan.cli import evaluate, sample
from cardigan.config import override
from cardigan.data.formats.opening import open_reader
from cardigan.data.survey import Survey
from cardigan.errors import CardiganError
from cardigan.metrics import quick
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event, read_events

SMALL = {
    **{"batch": 8, "data.height": 16, "data.width": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{"sample_every": 1000, "checkpoint_every": 16, "data.workers": 0},
}
WORDS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quick, "FEWEST", 8)


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "pictures"
    for number in range(24):
        place = path / ("left", "right")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 28, 3), np.uint8)).save(place / f"{number:02}.png")
    return path


def command(*words: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "cardigan", *words], capture_output=True, text=True, check=False, cwd=cwd)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = cardigan.load(run).snapshot.generator.state_dict()
    return {name: tensor.clone() for name, tensor in found.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_alone_is_enough_and_the_choice_is_told_and_kept(tmp_path, folder):
    done = command("train", str(folder), "--images", "16", "--batch", "8", "--device", "cpu", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    for reason in ("pictures: 24, in colour", "augmentation: DiffAugment", "held out: nothing", "networks: width"):
        assert reason in done.stdout
    config = read_config(RunDirectory(tmp_path / "run"))
    assert (config.recipe, config.data.source, config.images) == ("images", str(folder), 16)
    assert (config.data.height, config.data.width, config.data.channels) == (24, 32, 3)  # all of one shape, which is kept
    assert config.augment.probability == 1.0
    start = next(event for event in read_events(tmp_path / "run" / "journal.jsonl") if event.kind == "start")
    assert any("DiffAugment" in message for message in start.values["messages"])
    assert cardigan.load(tmp_path / "run").sample(3).shape == (3, 24, 32, 3)


@pytest.mark.parametrize(("keep", "workers"), [("disk", 0), ("stream", 0), ("stream", 2)])
def test_a_run_goes_on_bit_for_bit(tmp_path, folder, keep, workers):
    overrides = {
        **SMALL,
        "data.keep": keep,
        "data.workers": workers,
        "data.limit": 20,
        "data.labels": "folders",
        "conditional": True,
        "augment.target": 0.6,
        "augment.operations": "shift",
    }
    whole = cardigan.train(folder, images=48, out=tmp_path / "whole", overrides=overrides)
    cardigan.train(folder, images=24, out=tmp_path / "parts", overrides=overrides)
    again = cardigan.train(folder, images=48, out=tmp_path / "parts", overrides=overrides, resume=True)
    assert whole.images_seen == again.images_seen == 48
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert whole.config.augment.operations == "shift"


def test_the_number_of_decoding_processes_changes_nothing_and_waiting_is_told_of(tmp_path, folder):
    waited = []
    overrides = {**SMALL, "data.keep": "stream", "data.workers": 1}

    def listen(event: Event) -> None:
        waited.extend([event.values["waiting_for_data"]] if "waiting_for_data" in event.values else [])

    cardigan.train(folder, images=32, out=tmp_path / "streamed", overrides=overrides, report=listen)
    assert waited and all(0 <= share <= 1 for share in waited)
    one_by_one = cardigan.train(folder, images=32, out=tmp_path / "alone", overrides={**overrides, "data.workers": 0})
    assert one_by_one.images_seen == 32
    assert same(weights(tmp_path / "streamed"), weights(tmp_path / "alone"))


def test_a_source_that_changed_is_told_of_and_nothing_is_lost(tmp_path, folder):
    words = ["train", str(folder), *WORDS, "--out", str(tmp_path / "run"), "--resume"]
    assert command(*words, "--images", "16").returncode == 0
    before = (tmp_path / "run" / "generator.safetensors").read_bytes()
    (folder / "left" / "00.png").unlink()
    done = command(*words, "--images", "32")
    assert done.returncode == 2
    assert "there were 24, and now there are 23; 1 are gone, such as left/00.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == before


def test_the_choice_of_the_first_run_is_kept_when_it_goes_on(tmp_path, folder, monkeypatch):
    first = cardigan.train(folder, images=16, out=tmp_path / "run", overrides={**SMALL})
    monkeypatch.setattr(assemble, "measured_pace", lambda config, devices: pytest.fail("nothing is to be chosen again"))
    again = cardigan.train(folder, images=32, out=tmp_path / "run", overrides={**SMALL}, resume=True)
    assert replace(again.config, images=16) == first.config
    with pytest.raises(CardiganError, match=r"other settings"):
        cardigan.train(folder, images=32, out=tmp_path / "run", overrides={**SMALL, "latent.size": 5}, resume=True)


def test_arrays_and_datasets_train_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    from_array = cardigan.train(pixels, images=16, out=tmp_path / "array", overrides=SMALL)
    assert from_array.config.data.channels == 3

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            return Image.fromarray(pixels[index]), index % 3

    from_dataset = cardigan.train(Own(), images=16, out=tmp_path / "dataset", overrides=SMALL)
    assert same(weights(from_array.path), weights(from_dataset.path))


def test_memory_that_runs_out_halves_what_is_computed_at_a_time(tmp_path, folder, monkeypatch):
    """A device on which more than two pictures at a time do not fit."""
    build = assemble.build_state

    def small(config, spec, devices):
        state = build(config, spec, devices)

        def refuse(_, given):
            if len(given[0]) > 2 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("no room")

        state.players.generator.register_forward_pre_hook(refuse)
        return state

    monkeypatch.setattr(assemble, "build_state", small)
    monkeypatch.setattr(assemble, "measured_pace", lambda config, devices: 100.0)
    told = []
    run = cardigan.train(folder, images=24, out=tmp_path / "run", overrides={**SMALL}, report=told.append)
    assert run.images_seen == 24 and run.config.accumulate == 4 and run.config.batch == 8
    messages = [message for event in told if event.kind == "start" for message in event.values["messages"]]
    assert any("4 pictures at a time do not fit into memory, so it is 2 now" in message for message in messages)
    assert read_config(RunDirectory(tmp_path / "run")).accumulate == 4


def test_memory_that_is_never_enough_is_one_sentence(tmp_path, folder, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(assemble, "build_state", never)
    monkeypatch.setattr(assemble, "measured_pace", lambda config, devices: 100.0)
    with pytest.raises(CardiganError, match=r"pictures of 16x16 at a time do not fit into memory: make the networks narrower"):
        cardigan.train(folder, images=24, out=tmp_path / "run", overrides={**SMALL, "generator.normalisation": "none"})


def found(**changes) -> Survey:
    return replace(Survey(count=5_000, height=200, width=300, one_shape=False, channels=3), **changes)


def choice(survey: Survey, device="cpu", pace=500.0, given=frozenset(), **settings):
    config = override(config_for("anything"), settings)
    return chosen(config, {*given, *settings}, survey, device, lambda tried: pace * 32 / tried.generator.width)


def test_what_is_chosen_fits_the_pictures():
    config, reasons = choice(found())
    assert (config.data.height, config.data.width, config.data.channels, config.data.fit) == (64, 64, 3, "crop")
    assert config.augment.target == 0.6 and config.data.held_out == 250 and config.minutes == 60 and config.images is None
    assert len(reasons) == 5
    assert choice(found(count=400))[0].augment.probability == 1.0 and choice(found(count=400))[0].data.held_out == 0
    assert choice(found(count=50_000))[0].augment.operations == "" and choice(found(count=50_000))[0].data.held_out == 1_000
    assert choice(found(count=50_000, shards=25))[0].data.held_out == 1_000 and choice(found(count=50_000, shards=19))[0].data.held_out == 0
    assert choice(found(height=28, width=28, channels=1))[0].data.height == 32
    told = "classes: read, but the players are not told them (--conditional)"
    assert told in choice(found(), **{"data.labels": "folders"})[1] and told not in reasons
    assert told not in choice(found(), **{"data.labels": "folders", "conditional": True})[1]
    assert choice(found(count=50_000), **{"data.limit": 300})[0].augment.probability == 1.0  # what is not trained on does not count
    wide, _ = choice(found(height=48, width=96, one_shape=True))
    assert (wide.data.height, wide.data.width) == (48, 96)
    assert choice(found(), "cuda")[0].data.height == 128 and choice(found(), minutes=5.0)[0].data.height == 32


def test_what_is_chosen_fits_the_machine():
    assert choice(found())[0].generator.width == 32
    assert choice(found(), pace=50.0)[0].generator.width == 24  # a slow machine's hour is too short for more
    assert choice(found(), "cuda", pace=2000.0)[0].generator.width == 64
    assert 20_000 <= choice(found())[0].sample_every <= 60_000


def test_nothing_that_was_given_is_changed():
    settings = {"data.height": 96, "data.width": 40, "generator.width": 16, "augment.operations": "", "augment.probability": 0.0}
    config, _ = choice(found(count=400), images=1_000, **settings, **{"data.held_out": 7, "sample_every": 123})
    assert (config.data.height, config.data.width, config.data.held_out, config.images, config.minutes) == (96, 40, 7, 1_000, None)
    assert config.augment.operations == "" and config.sample_every == 123 and config.generator.width == 16


def test_the_reasons_tell_what_was_asked_for():
    config, reasons = choice(found(), images=1_000_000, **{"generator.width": 16})
    assert (config.generator.width, config.discriminator.width) == (16, 32)
    assert any("width 16 and 32, measured 1,000 images/s, so 1,000,000 images take about 17 minutes" in reason for reason in reasons)
    assert any("width 24, measured 667 images/s, so 5 minutes show about 200,000" in reason for reason in choice(found(), minutes=5.0)[1])
    assert any("so 60 minutes show about 1,800,000" in reason for reason in choice(found())[1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "no-such-folder"], "no-such-folder"),
        (["train", "mnst"], "mnist"),
        (["train", "empty"], "empty"),
        (["train", "pictures", "--size", "big"], "expected one number, as in 64, or height and width, as in 96x64"),
        (["train", "pictures", "--conditional"], "no classes"),
        (["train", "pictures", "--data.labels", "nothing.csv"], "nothing.csv"),
        (["train", "mnist", "--data.labels", "folders"], "data.labels is 'folders'"),
        (["train", "pictures", "--data.held-out", "24"], "24 of them held out"),
        (["train", "pictures", "--data.channels", "2"], "expected 1 (grey), 3 (RGB) or 4"),
        (["train", "pictures", "--data.split", "test"], "nothing is held out"),
        (["train", "pictures", "--data.limit", "500"], "has 24 pictures to train on"),
        (["train", "pictures", "--size", "64", "--data.height", "32"], "were both given"),
        (["train", "mnist", "--data.keep", "stream"], "data.keep is 'stream', which mnist does not read"),
    ],
)
def test_bad_words_are_one_sentence(tmp_path, folder, words, told):
    (tmp_path / "empty").mkdir()
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_is_refused_before_anything_is_read(tmp_path, folder):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    shutil.rmtree(folder)
    with pytest.raises(CardiganError, match=r"exists already"):
        cardigan.train(str(folder), out=tmp_path / "run")


def test_facts_are_written_with_the_run(tmp_path, folder):
    cardigan.train(folder, images=16, out=tmp_path / "run", overrides=SMALL)
    facts = json.loads((tmp_path / "run" / "source.json").read_bytes())
    assert facts["count"] == 24 and facts["pictures"][0] == "left/00.png"


def test_a_decoding_process_that_dies_ends_the_run_with_everything_saved(tmp_path, folder):
    """A picture that is asked for after a while kills the worker."""
    whole, parent, asked = open_reader(str(folder)), os.getpid(), []

    def deadly(index):
        asked.append(index)
        if os.getpid() != parent and len(asked) > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole.read(index)

    source = replace(whole, read=deadly)
    overrides = {**SMALL, "data.keep": "stream", "data.workers": 1, "checkpoint_every": 10_000}
    with pytest.raises(CardiganError, match=r"A process that decodes pictures of .* died .*data.workers"):
        cardigan.train(source, images=800, out=tmp_path / "run", overrides=overrides)
    assert cardigan.load(tmp_path / "run").images_seen > 0
    again = cardigan.train(whole, images=160, out=tmp_path / "run", overrides={**overrides, "data.workers": 0}, resume=True)
    assert again.images_seen == 160


def test_pictures_of_every_kind_train_together(tmp_path):
    path = tmp_path / "mixed"
    path.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 4), np.uint8)
    for number, mode in enumerate(("L", "RGB", "RGBA", "P", "CMYK", "1", "I;16", "LA")):
        image = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(noise).convert(mode)
        image.save(path / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}")
    for channels in (1, 3, 4):
        run = cardigan.train(path, images=8, out=tmp_path / f"run{channels}", overrides={**SMALL, "data.channels": channels})
        assert cardigan.load(run.path).sample(2).shape == (2, 16, 16, channels)
    start = next(event for event in read_events(run.path / "journal.jsonl") if event.kind == "start")
    assert {"1 pictures: CMYK converted to RGB", "1 pictures: more than 8 bits a value, reduced to 8"} <= set(start.values["messages"])


def test_classes_that_are_missing_for_some_are_refused_only_where_they_are_needed(tmp_path, folder):
    rows = [f"{side}/{number:02}.png,{side}" for number in range(1, 24) for side in [("left", "right")[number % 2]]]
    (tmp_path / "labels.csv").write_text("\n".join(["file,side", *reversed(rows)]))
    words = {**SMALL, "data.labels": f"{tmp_path / 'labels.csv'}:side"}
    with pytest.raises(CardiganError, match=r"1 of the pictures of .* have no class: add the missing labels"):
        cardigan.train(folder, images=8, out=tmp_path / "run", overrides={**words, "conditional": True})
    assert cardigan.train(folder, images=8, out=tmp_path / "run", overrides=words).images_seen == 8
    with pytest.raises(CardiganError, match="side"):
        cardigan.train(folder, images=8, out=tmp_path / "other", overrides={**words, "data.labels": f"{tmp_path / 'labels.csv'}:sid"})


def test_a_picture_of_a_class_can_be_asked_for_by_its_name(tmp_path, folder):
    run = cardigan.train(folder, images=8, out=tmp_path / "run", overrides={**SMALL, "data.labels": "folders", "conditional": True})
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


def test_the_judge_takes_held_out_pictures_and_says_so(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    np.save(tmp_path / "pictures.npy", pixels)
    cardigan.train(tmp_path / "pictures.npy", images=16, out=tmp_path / "run", overrides={**SMALL, "data.held_out": 120})
    assert evaluate.main([str(tmp_path / "run"), "--samples", "100", "--extractor", "pixels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["reference_split"] == "held-out" and found["protocol"]["num_reference"] == 120
    assert found["measures"]["pixel_distance"]["value"] > 0
    (tmp_path / "pictures.npy").unlink()
    with pytest.raises(CardiganError, match=r"pictures.npy"):
        evaluate.main([str(tmp_path / "run"), "--samples", "100"])


def test_a_run_is_called_after_its_source_and_found_again_from_anywhere(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = cardigan.train("pictures", images=16, overrides=SMALL)
    other = tmp_path / "more pictures"
    shutil.copytree(folder, other)
    second = cardigan.train("./more pictures/", images=16, overrides=SMALL)
    assert first.path.name.endswith("-pictures") and second.path.name.endswith("-more-pictures")
    again = cardigan.train(str(folder), images=32, resume=True, overrides=SMALL)
    assert again.path == first.path and again.images_seen == 32
    with pytest.raises(CardiganError, match=r"other settings \(data.source"):
        cardigan.train(other, images=48, out=first.path, resume=True, overrides=SMALL)
    monkeypatch.chdir("/")
    assert evaluate.main([str(tmp_path / first.path), "--samples", "100", "--extractor", "pixels", "--metrics", "distance"]) == 0


def test_two_processes_choose_alike_and_train_as_one(tmp_path, folder):
    words = [word for word in WORDS if word not in {"--generator.width", "--discriminator.width", "4"}]
    done = command("train", str(folder), *words, "--images", "32", "--devices", "2", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("networks: width") == 1
    together = read_config(RunDirectory(tmp_path / "two"))
    alone = cardigan.train(
        folder,
        images=32,
        out=tmp_path / "one",
        overrides={**SMALL, "generator.width": together.generator.width, "discriminator.width": together.discriminator.width},
    )
    ours, theirs = weights(tmp_path / "two"), weights(alone.path)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4) for name in ours)


def test_a_config_file_and_a_named_recipe_are_followed(tmp_path, folder):
    (tmp_path / "mine.toml").write_text("batch = 8\n[generator]\nwidth = 64\n[data]\nheight = 16\nwidth = 16\n")
    words = ["--images", "8", "--device", "cpu", "--discriminator.width", "4", "--data.workers", "0"]
    assert command("train", str(folder), "--config", str(tmp_path / "mine.toml"), *words, "--out", str(tmp_path / "file")).returncode == 0
    config = read_config(RunDirectory(tmp_path / "file"))
    assert (config.generator.width, config.data.height) == (64, 16)  # what happens to be the recipe's own is given all the same
    by_name = chosen(config_for("anything", "gan2014"), set(), found(), "cpu", lambda tried: 100.0, by_recipe=True)[0]
    assert by_name.generator.width == 1200 and by_name.images == 1_500_000 and by_name.augment.operations == "" and by_name.data.channels == 3


def test_width_of_a_network_without_convolutions_follows_the_size():
    networks = {"generator.network": "mlp", "generator.normalisation": "none", "generator.initialisation": "torch", "discriminator.network": "mlp"}
    sizes = {(28, 28, 1): 1_200, (8, 8, 1): 300, (64, 64, 3): 2_400}
    for (height, width, channels), expected in sizes.items():
        shape = {"data.height": height, "data.width": width, "data.channels": channels}
        config, _ = choice(found(), pace=1e9, **networks, **shape)
        assert (config.generator.width, config.discriminator.width) == (expected, expected)
    slow, _ = choice(found(), pace=1.0, **networks, **shape)
    assert (slow.generator.width, slow.discriminator.width) == (1_200, 1_200)
    mixed, _ = choice(found(), pace=1e9, **{**networks, **shape, "discriminator.network": "dcgan"})
    assert (mixed.generator.width, mixed.discriminator.width) == (2_400, 32)
    mixed, _ = choice(found(), pace=1e9, **{**networks, **shape, "generator.width": 77})
    assert (mixed.generator.width, mixed.discriminator.width) == (77, 2_400)


@pytest.mark.parametrize("given", [{"augment.operations": ""}, {"augment.operations": "translation", "augment.probability": 1.0}])
@pytest.mark.parametrize("count", [400, 5_000])
def test_augmentation_that_is_given_is_not_chosen(count, given):
    config, _ = choice(found(count=count), **given)
    assert config.augment.operations == given["augment.operations"] and config.augment.target == 0


def test_a_config_of_another_source_follows_the_source(tmp_path, folder):
    digits = override(config_for("mnist"), {**SMALL, "data.channels": 3, "images": 8})
    with pytest.raises(CardiganError, match=r"--no-conditional.*data.labels"):
        cardigan.train(folder, config=digits, out=tmp_path / "run")
    run = cardigan.train(folder, config=override(digits, {"conditional": False}), out=tmp_path / "run")
    assert run.config.data.source == str(folder) and cardigan.load(run.path).sample(1).shape == (1, 16, 16, 3)


def test_changed_classes_and_changed_pictures_are_noticed(tmp_path, folder):
    rows = ["file,side", *(f"{('left', 'right')[number % 2]}/{number:02}.png,{number % 3}" for number in range(24))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    overrides = {**SMALL, "data.labels": str(tmp_path / "labels.csv"), "data.held_out": 6}
    cardigan.train(folder, images=8, out=tmp_path / "run", overrides=overrides)
    (tmp_path / "labels.csv").write_text("\n".join([*rows[:-1], "right/23.png,0"]))
    with pytest.raises(CardiganError, match="the pictures are the same, but their classes are not"):
        cardigan.train(folder, images=16, out=tmp_path / "run", overrides=overrides, resume=True)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    shutil.copy(folder / "left" / "00.png", folder / "left" / "new.png")
    for model in (tmp_path / "run", tmp_path / "run" / "generator.safetensors"):
        with pytest.raises(CardiganError, match="cannot be judged by them"):
            evaluate.main([str(model), "--samples", "100", "--extractor", "pixels"])
