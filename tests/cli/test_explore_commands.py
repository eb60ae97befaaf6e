"""walk, mix, invert and probe: outputs and errors."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.cli.main import run as command
from cardigan.config import Config
from cardigan.config_parts import NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.explore.blend import blend, num_stages, stage_of
from cardigan.explore.views import SamplingOptions, interpolation_images
from cardigan.files.sha256 import file_sha256
from cardigan.files.tensors import read_metadata
from cardigan.latents.sampling import sample_labels
from cardigan.nets.table import build_generator

SMALL = {
    **{"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{"generator.initialization": "torch", "ema.half_life_images": 0, "ema.rampup_ratio": 0.0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cardigan.train("mnist", out=tmp_path_factory.mktemp("runs") / "run", images=32, overrides=SMALL).path


def test_walk_writes_animation_through_its_seeds(model, tmp_path, capsys):
    out = tmp_path / "walk.webp"
    words = ["walk", str(model), "--seeds", "3,7", "--frames", "5", "--fps", "10", "--label", "4", "--out", str(out)]
    assert command(words) == 0
    assert "5 frames through 2 seeds, 0.5 s" in capsys.readouterr().out
    stops = cardigan.load(model).sample_seeds([3, 7], 4)
    with Image.open(out) as animation:
        assert animation.n_frames == 5
        for frame, stop in ((0, stops[0]), (4, stops[1])):
            animation.seek(frame)
            shown = np.asarray(animation.convert("L"))
            factor = shown.shape[0] // 32
            assert np.array_equal(shown[::factor, ::factor], stop[:, :, 0])
    assert command(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert command([*words, "--overwrite", "--loop"]) == 0


def test_parallel_walks_start_at_consecutive_seeds(model, tmp_path):
    out = tmp_path / "wall.webp"
    words = [
        "walk",
        str(model),
        "--seeds",
        "3,7,1",
        "--frames",
        "6",
        "--loop",
        "--columns",
        "2",
        "--label",
        "4",
        "--out",
        str(out),
    ]
    assert command(words) == 0
    stops = cardigan.load(model).sample_seeds([3, 7], 4)
    with Image.open(out) as animation:
        shown = np.asarray(animation.convert("L"))
    factor = shown.shape[0] // 32
    assert np.array_equal(
        shown[::factor, ::factor], np.concatenate([stops[0], np.zeros((32, 2, 1), np.uint8), stops[1]], axis=1)[:, :, 0]
    )


def test_mix_latents(model, tmp_path):
    out = tmp_path / "mix.png"
    assert command(["mix", str(model), "--add", "1-3", "--add", "4,5", "--subtract", "6", "--out", str(out)]) == 0
    assert np.asarray(Image.open(out)).shape == (4 * 34 - 2, 9 * 34 - 2)
    pad = [
        "mix",
        str(model),
        "--corners",
        "0,1,2,3",
        "--position",
        "0,1",
        "--label",
        "2",
        "--directions",
        "",
        "--out",
        str(tmp_path / "pad.png"),
    ]
    assert command(pad) == 0
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "pad.png")), cardigan.load(model).sample_seeds([2], 2)[0, :, :, 0]
    )
    grid = interpolation_images(
        cardigan.load(model).snapshot, [0, 1, 2, 3], (0.5, 0.5), 3, 1.0, SamplingOptions("2"), None
    )
    assert np.array_equal(grid[8, 0].numpy(), cardigan.load(model).sample_seeds([3], 2)[0, :, :, 0])


def test_mix_ablate_box(model, tmp_path, capsys):
    out = tmp_path / "without.png"
    assert (
        command(["mix", str(model), "--ablate-box", "3:0,0,32,10", "--seeds", "0-4", "--label", "7", "--out", str(out)])
        == 0
    )
    assert "features of G are active there; 5 images" in capsys.readouterr().out
    shown = np.asarray(Image.open(out))
    assert shown.shape == (2 * 34 - 2, 5 * 34 - 2)
    assert np.array_equal(shown[:32, :32], cardigan.load(model).sample_seeds([0], 7)[0, :, :, 0])
    assert (
        command(["mix", str(model), "--ablate-box", "3:0,0,32,10", "--add", "1", "--out", str(tmp_path / "no.png")])
        == 2
    )
    assert (
        command(
            ["mix", str(model), "--ablate-box", "3:0,0,32,10", "--truncation", "0.5", "--out", str(tmp_path / "no.png")]
        )
        == 2
    )


def test_info_escapes_what_cannot_be_printed(model, tmp_path):
    """A journal with half a surrogate pair ends neither in a traceback nor in lost lines."""
    run = tmp_path / "run"
    shutil.copytree(model, run)
    with (run / "journal.jsonl").open("a") as journal:
        journal.write('{"kind": "stop", "images_seen": 32, "elapsed_seconds": 1, "reason": "\\ud83d"}\n')
    found = subprocess.run([sys.executable, "-m", "cardigan", "info", str(run)], capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    assert rb"Stopped by \ud83d" in found.stdout and b"latest_sample" in found.stdout


def test_invert_images(model, tmp_path, capsys):
    image = cardigan.load(model).sample(1, seed=3, labels=5)[0, :, :, 0]
    Image.fromarray(image).save(tmp_path / "one.png")
    assert (
        command(
            ["invert", str(model), str(tmp_path / "one.png"), "--steps", "20", "--out", str(tmp_path / "found.npz")]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert "gray levels, class" in output
    point = next(line.strip() for line in output.splitlines() if line.startswith("  z"))
    assert (
        command(
            [
                "mix",
                str(model),
                "--corners",
                f"{point},1,2,3",
                "--position",
                "0,0",
                "--out",
                str(tmp_path / "corner.png"),
            ]
        )
        == 0
    )
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "corner.png")), found["images"][0, :, :, 0])
    assert command(["mix", str(model), "--corners", f"{point}A,1,2,3", "--out", str(tmp_path / "no.png")]) == 2
    assert "numbers, but this generator takes 64" in capsys.readouterr().err
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        assert found["z"].shape == (1, 64) and found["images"].shape == (1, 32, 32, 1) and found["labels"].shape == (1,)
    words = ["invert", str(model), str(tmp_path / "one.png"), str(tmp_path / "one.png"), "--label", "5", "--steps", "2"]
    assert command([*words, "--out", str(tmp_path / "found.png")]) == 0
    assert np.asarray(Image.open(tmp_path / "found.png")).shape == (66, 66)


def test_probe_lists_strongest_outliers_first(model, tmp_path, capsys):
    folder = tmp_path / "images"
    digits = cardigan.load_mnist("test").pixels[:60].reshape(60, 28, 28).numpy()
    for number, digit in enumerate(digits):
        class_folder = folder / str(number % 2)
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit).save(class_folder / f"{number:02}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)).save(folder / "0" / "noise.png")
    words = [
        "probe",
        str(model),
        str(folder),
        "--labels",
        "folders",
        "--max-images",
        "200",
        "--out",
        str(tmp_path / "probe"),
    ]
    assert command(words) == 0
    printed = capsys.readouterr().out
    assert (
        "61 images compared with 200 images of mnist; strongest outlier: 0/noise.png" in printed
        and "linear classifier" in printed
    )
    with (tmp_path / "probe" / "outliers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["image"] == "0/noise.png" and len(rows) == 61
    assert sorted((float(row["local_outlier_factor"]) for row in rows), reverse=True) == [
        float(row["local_outlier_factor"]) for row in rows
    ]
    assert {path.name for path in (tmp_path / "probe").iterdir()} == {
        *("outliers.csv", "outliers.png", "features.png", "features-untrained.png", "ablation.png"),
    }
    assert (tmp_path / "probe" / "features.png").read_bytes() != (
        tmp_path / "probe" / "features-untrained.png"
    ).read_bytes()
    assert command(words) == 2 and "never replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["walk", "RUN", "--seeds", "1"], "give at least two"),
        (["walk", "RUN", "--seeds", "a"], "--seeds is 'a'"),
        (["walk", "RUN", "--out", "walk.avi"], "expected a name ending in"),
        (["walk", "RUN", "--label", "12"], "label 12 is out of range"),
        (["walk", "RUN", "--directions", "9:1"], "direction is 9"),
        (["walk", "RUN", "--directions", "x"], "--directions is 'x'"),
        (["walk", "RUN", "--fps", "0"], "a rate above 0"),
        (["walk", "RUN", "--columns", "5"], "expected 1..4"),
        (["mix", "RUN"], "Expected exactly one of"),
        (["mix", "RUN", "--corners", "1,2,3"], "expected four"),
        (["mix", "RUN", "--corners", "1,2,3,4", "--position", "2,0"], "--position is '2,0'"),
        (["mix", "RUN", "--add", "1", "--corners", "1,2,3,4"], "Expected exactly one of"),
        (["mix", "RUN", "--add", "1", "--truncation", "3"], "truncation is 3"),
        (["invert", "RUN", "no.png"], "no.png cannot be read as an image"),
        (["invert", "RUN", "RUN/config.json"], "config.json cannot be read as an image"),
        (["invert", "RUN", "RUN/samples/00000032.png", "--steps", "0"], "steps is 0"),
        (["probe", "RUN", "no-such-folder"], "no-such-folder"),
        (["probe", "RUN/generator.safetensors", "mnist"], "holds no discriminator"),
        (["probe", "RUN", "mnist", "--max-images", "3"], "expected at least 6"),
        (["probe", "RUN", "mnist", "--out", "RUN"], "never replaced"),
    ],
)
def test_bad_arguments_give_one_line_error(model, tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "RUN")
    before = set(tmp_path.iterdir())
    assert command(words) == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_walk_and_mix_show_each_seed_with_its_own_class(model, tmp_path):
    """Also where the seeds' classes differ, a seed's image is the image of `sample --seeds`, to the byte."""
    snapshot, seeds = cardigan.load(model).snapshot, [3, 7, 1, 0]
    assert len(sample_labels([(seed, 0) for seed in seeds], 10).unique()) == 4
    expected = cardigan.load(model).sample_seeds(seeds)[..., 0]
    walk, pad, sums = tmp_path / "walk.webp", tmp_path / "pad.png", tmp_path / "sums.png"
    assert command(["walk", str(model), "--seeds", "3,7,1,0", "--frames", "10", "--out", str(walk)]) == 0
    with Image.open(walk) as animation:
        for index in range(4):
            animation.seek(3 * index)
            shown = np.asarray(animation.convert("L"))
            factor = shown.shape[0] // 32
            assert np.array_equal(shown[::factor, ::factor], expected[index])
    words = ["mix", str(model), "--corners", "3,7,1,0", "--grid", "2", "--extent", "1", "--out", str(pad)]
    assert command(words) == 0
    assert np.array_equal(
        np.asarray(Image.open(pad))[:, :32], np.concatenate([expected[0], np.zeros((2, 32)), expected[2]])
    )
    assert np.array_equal(np.asarray(Image.open(pad))[:32, 34:], expected[1])
    words = ["mix", str(model), "--add", "3", "--subtract", "7,1", "--add", "0", "--out", str(sums)]
    assert command(words) == 0
    rows = np.asarray(Image.open(sums))
    for row, image in enumerate([[0, 0], [3, 3], [1, 2]]):
        for column, index in enumerate(image):
            assert np.array_equal(rows[34 * row : 34 * row + 32, 34 * column : 34 * column + 32], expected[index])
    grid = interpolation_images(snapshot, seeds, (0.5, 0.5), 2, 1.0, SamplingOptions(), None)
    assert np.array_equal(grid[:, 0].numpy(), expected)


@pytest.fixture(scope="module")
def child(model, tmp_path_factory):
    """A model that was trained from the other one."""
    out = tmp_path_factory.mktemp("runs") / "child"
    settings = {"device": "cpu", "precision": "fp32"}
    return cardigan.train("mnist", start_from=model, out=out, images=64, overrides=settings).path


def test_blend_goes_from_one_model_to_the_other(model, child, tmp_path, capsys):
    out = tmp_path / "blend.png"
    words = ["mix", str(model), "--blend", str(child), "--label", "4", "--seeds", "3,7", "--out", str(out)]
    assert command([*words, "--weights", "0,0.5,1"]) == 0
    assert "2 seeds, each with 3 blends" in capsys.readouterr().out
    sheet = np.asarray(Image.open(out))
    for row, seed in enumerate((3, 7)):
        for column, path in ((0, model), (2, child)):
            wanted = cardigan.load(path).sample_seeds([seed], 4)[0, :, :, 0]
            assert np.array_equal(sheet[34 * row : 34 * row + 32, 34 * column : 34 * column + 32], wanted)


def test_blended_model_is_the_mean_of_its_weights(model, child, tmp_path):
    out = tmp_path / "blend.safetensors"
    words = ["mix", str(model), "--blend", str(child), "--weights", "0.5", "--out", str(out)]
    assert command(words) == 0
    tensors = [cardigan.load(path).snapshot.generator.state_dict() for path in (model, child, out)]
    for first, second, blended in zip(*(each.values() for each in tensors), strict=True):
        if first.is_floating_point():
            assert np.allclose(blended, (first + second) / 2, atol=1e-6)
    assert command([*words, "--overwrite", "--stages", "1,0,0,0"]) == 0
    coarse = cardigan.load(out).snapshot.generator.state_dict()
    names = ("from_latent.weight", "up_convs.2.weight")
    assert not np.allclose(coarse[names[0]], tensors[0][names[0]])
    assert np.array_equal(coarse[names[1]], tensors[0][names[1]])


def test_film_of_a_blend(model, child, tmp_path):
    out = tmp_path / "blend.webp"
    assert (
        command(["mix", str(model), "--blend", str(child), "--seeds", "3", "--weights", "0,1", "--out", str(out)]) == 0
    )
    with Image.open(out) as film:
        assert film.n_frames >= 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weights", "0.5,2"], "--weights is '0.5,2': expected numbers from 0 to 1"),
        (["--weights", "half"], "--weights is 'half'"),
        (["--stages", "1,0"], "--stages has 2 numbers: expected 4"),
        (["--add", "1,2"], "Expected exactly one of"),
        (["--weights", ""], "--weights is ''"),
        (["--directions", "0:1"], "--directions does not work with --blend"),
        (["--out", "blend.safetensors"], "expected one number for"),
    ],
)
def test_bad_blends(model, child, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert command(["mix", str(model), "--blend", str(child), *words]) == 2
    assert sentence in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_blend_of_different_shapes(model, tmp_path, capsys):
    other = tmp_path / "other"
    cardigan.train("mnist", out=other, images=32, overrides={**SMALL, "generator.width": 8})
    assert command(["mix", str(model), "--blend", str(other), "--out", str(tmp_path / "blend.png")]) == 2
    assert "their generator differ (dcgan of width 4" in capsys.readouterr().err
    assert command(["mix", str(model), "--corners", "0,1,2,3", "--stages", "1"]) == 2
    assert "--weights and --stages belong to --blend" in capsys.readouterr().err


def test_blend_is_between_a_model_and_an_equal_child(model, tmp_path):
    """The embeddings of the classes must have the same basis in both."""
    untouched = tmp_path / "untouched"
    settings = {"device": "cpu", "precision": "fp32", "generator_optimizer.learning_rate": 1e-12}
    cardigan.train("mnist", start_from=model, out=untouched, images=16, overrides=settings)
    first, second = (cardigan.load(path).snapshot for path in (model, untouched))
    halfway = blend(first, second, 0.5)
    z, labels = torch.randn(4, 64), torch.arange(4)
    assert torch.allclose(halfway.generator(z, labels), first.generator(z, labels), atol=1e-2)


def test_blend_says_what_it_is(model, child, tmp_path, capsys):
    out = tmp_path / "blend.safetensors"
    assert command(["mix", str(model), "--blend", str(child), "--weights", "0.25", "--out", str(out)]) == 0
    hashes = [file_sha256(path / "generator.safetensors")[:12] for path in (model, child)]
    blended = f"blend of run (SHA-256 {hashes[0]}) and child (SHA-256 {hashes[1]}), 0.25 of the second"
    assert cardigan.load(out).config.start_from == blended
    cardigan.load(out).save_pretrained(tmp_path / "model")
    for card in ((tmp_path / "model" / "README.md").read_text(), read_metadata(out)["card"]):
        assert f"These weights are a {blended}." in card and "## Reproduce" not in card
    assert "- run: license unknown." in card


@pytest.mark.parametrize(
    ("network", "stages"),
    [
        ("dcgan", {"from_latent.weight": 0, "norms.0.weight": 0, "up_convs.0.weight": 1, "norms.1.weight": 1}),
        (
            "resnet",
            {"from_latent.weight": 0, "up_stages.0.blocks.0.conv1.weight": 1, "norm.weight": 2, "to_image.bias": 2},
        ),
        ("r3gan", {"basis": 0, "blocks.0.0.expand.weight": 0, "blocks.2.0.expand.weight": 2, "to_image.bias": 2}),
        ("light", {"first.0.weight": 0, "stages.1.1.weight": 2, "to_image.bias": 2, "excitations.2.excite.bias": 2}),
        ("mlp", {"hidden.0.weight": 0}),
    ],
)
def test_stages_of_tensors(network, stages):
    fields = {"normalization": "batch"} if network in {"dcgan", "resnet", "light"} else {}
    options = {"skip": 1} if network == "light" else {}
    config = Config(generator=NetworkConfig(network=network, width=4, options=options, **fields))
    generator = build_generator(config, ImageSpec(3, 16, 16, 0))
    names = generator.state_dict()
    for name, stage in stages.items():
        assert name in names and stage_of(generator, name) == stage, name
    assert max(stage_of(generator, name) for name in names) == num_stages(generator) - 1
