"""Clusters in place of classes: what they are, where they are refused, and how training uses them."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.config_parts import DataConfig
from cardigan.data.clusters import coarse_values, find_clusters, k_means
from cardigan.data.datasets import open_datasets
from cardigan.data.mnist import load_mnist
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.experiment.start_from import class_rows
from cardigan.latents.sampling import sample_labels
from cardigan.models.sampling import sample_pixels
from cardigan.models.snapshot import class_counts, read_snapshot


def striped_images(count):
    """Images of four kinds: bright on one of the four sides, with noise. Returns pixels and kinds."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(4, (count,), generator=generator)
    pixels = torch.randint(60, (count, 3, 20, 24), generator=generator, dtype=torch.uint8)
    for pixel, kind in zip(pixels, kinds.tolist(), strict=True):
        side = [pixel[:, :6], pixel[:, -6:], pixel[..., :6], pixel[..., -6:]][kind]
        side += 180
    return pixels, kinds


def test_clusters_hold_similar_images():
    pixels, kinds = striped_images(400)
    labels = find_clusters(pixels, 4).nearest(pixels)
    assert len(set(zip(kinds.tolist(), labels.tolist(), strict=True))) == 4


def test_k_means_finds_the_means_of_separate_groups():
    points = torch.tensor([[0.0], [10.0], [0.2], [10.4], [-0.2], [9.6]], dtype=torch.float64)
    assert k_means(points, 2).flatten().tolist() == pytest.approx([0.0, 10.0])


def test_colors_of_transparent_pixels_do_not_matter():
    pixels = torch.randint(256, (2, 4, 16, 16), dtype=torch.uint8)
    pixels[:, 3] = 0
    assert not coarse_values(pixels).any()


def test_clusters_replace_the_classes_of_digits():
    """Both parts get them; those of the test digits are the nearest ones. Images and their order stay."""
    plain, clustered = (open_datasets(DataConfig(source="mnist", max_images=2_000, clusters=n)) for n in (0, 50))
    assert torch.equal(clustered.train.pixels, plain.train.pixels)
    assert clustered.train.num_classes == clustered.holdout.num_classes == 50
    digits, labels = plain.train.labels, clustered.train.labels
    purity = sum(int(torch.bincount(digits[labels == cluster]).max()) for cluster in range(50)) / 2_000
    assert purity > 0.6  # 0.1 for random labels of large clusters, about 0.2 for 40 images
    test_digits, test_labels = load_mnist("test").labels, clustered.holdout.labels
    agreement = sum(int(torch.bincount(test_digits[test_labels == cluster]).max()) for cluster in range(50)) / 10_000
    assert agreement > 0.6
    again = open_datasets(DataConfig(source="mnist", max_images=2_000, clusters=50))
    assert torch.equal(again.train.labels, labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "striped"
    folder.mkdir()
    for number, pixels in enumerate(striped_images(64)[0]):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["--data.clusters", "9"], "data.clusters is 9 and there are 64 images to train on: expected at most 8"),
        (["--data.clusters", "1"], "data.clusters is 1: expected at least 2, or 0 for none"),
        (["--data.clusters", "4", "--data.cache", "none"], "is streamed: clusters need all images before"),
        (["--data.clusters", "4", "--no-conditional"], "data.clusters is 4 and conditional is off"),
    ],
)
def test_clusters_that_cannot_be_had_are_refused(folder, tmp_path, capsys, settings, sentence):
    options = ["--recipe", "mnist", "--data.holdout", "0", "--conditional", *settings]
    assert cardigan_command(["train", str(folder), *options, "--out", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_on_clusters(folder, tmp_path):
    """Resumes with the same bits. Samples of drawn clusters have no labels for metrics of classes."""
    overrides = {
        **{"data.clusters": 8, "conditional": True, "data.holdout": 0, "batch_size": 16, "device": "cpu"},
        **{"generator.width": 4, "discriminator.width": 4, "data.height": 16, "data.width": 16, "data.channels": 3},
        **{"checkpoint_every_images": 32, "sample_every_images": 64},
    }
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    for out, parts in zip(runs, [(64,), (32, 64)], strict=True):
        for images in parts:
            cardigan.train(folder, recipe="mnist", images=images, overrides=overrides, out=out, resume=out.exists())
    whole, resumed = (out.joinpath("generator.safetensors").read_bytes() for out in runs)
    assert whole == resumed
    sheet = cardigan.load(runs[0]).sample(8, labels=list(range(8)))
    assert len(sheet) == 8
    with pytest.raises(CardiganError, match="no labels to fit a classifier on"):
        cardigan.evaluate(runs[0], num_samples=100, metrics=["nn_error"], baseline=False)


def test_clusters_are_drawn_as_often_as_they_are_in_the_images(folder, tmp_path):
    keys = [(0, number) for number in range(4_000)]
    drawn = torch.bincount(sample_labels(keys, 4, (30, 0, 20, 50)), minlength=4)
    assert drawn[1] == 0
    for index, share in ((0, 0.3), (2, 0.2), (3, 0.5)):
        assert abs(int(drawn[index]) - 4_000 * share) < 5 * (4_000 * share * (1 - share)) ** 0.5
    overrides = {"data.clusters": 3, "conditional": True, "data.holdout": 0, "generator.width": 4}
    overrides |= {"discriminator.width": 4, "batch_size": 16, "device": "cpu", "data.channels": 3}
    run = cardigan.train(folder, recipe="mnist", images=16, overrides=overrides, out=tmp_path / "run").path
    snapshot = read_snapshot(run)
    train = open_datasets(snapshot.config.data).train
    assert snapshot.spec.class_counts == tuple(torch.bincount(train.labels, minlength=3).tolist())
    keys = [(5, number) for number in range(12)]
    expected = sample_pixels(snapshot, keys, sample_labels(keys, 3, snapshot.spec.class_counts))
    assert torch.equal(torch.from_numpy(cardigan.load(run).sample(12, seed=5)).permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("counts", [[5, 5], [5, 5, 5, 5], [0, 0, 0], [9, -1, 2], [0.5, 0.25, 0.25], [2**62, 1, 1]])
def test_wrong_counts_of_a_file_are_refused(counts):
    with pytest.raises(ValueError, match="counts of 3 classes"):
        class_counts({"num_classes": 3, "class_counts": counts})


def test_a_start_keeps_clusters_of_the_same_images_only():
    parent = ImageSpec(1, 32, 32, 3, class_counts=(5, 6, 7))
    assert class_rows(parent, parent) == [0, 1, 2]
    assert class_rows(replace(parent, class_counts=(6, 6, 6)), parent) == [None] * 3
    assert class_rows(replace(parent, class_counts=()), parent) == [None] * 3
