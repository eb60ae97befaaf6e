"""`cardigan train --from MODEL`: settings and weights of a trained model for other images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.cli.main import run as run_command
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.experiment.start_from import class_rows
from cardigan.files.tensors import read_tensors
from cardigan.models.run_networks import load_networks
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import read_events

SMALL = {
    **{"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{"sample_every_images": 10_000, "checkpoint_every_images": 32},
}
WATCHED = {name: SMALL[name] for name in ("device", "precision", "sample_every_images", "checkpoint_every_images")}


def pictures(channels=3, side=32, count=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """A run of color images of 32x32, 64 images long."""
    out = tmp_path_factory.mktemp("parent") / "parent"
    settings = {**SMALL, "data.height": 32, "data.width": 32, "seed": 3}
    cardigan.train(pictures(), recipe="images-dcgan", images=64, out=out, overrides=settings)
    return out


def start(parent, out, source=None, images=16, **options):
    overrides = {**WATCHED, **options.pop("overrides", {})}
    source = pictures(seed=1) if source is None else source
    return cardigan.train(source, start_from=parent, images=images, out=out, overrides=overrides, **options)


def messages(run: Path) -> str:
    return "\n".join(read_events(RunDirectory(run).journal)[0].values["messages"])


def first_state(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "checkpoints" / "00000000" / "state.safetensors")


def test_run_begins_with_the_parents_networks_and_settings(parent, tmp_path):
    start(parent, tmp_path / "child")
    config, before = read_config(RunDirectory(tmp_path / "child")), read_config(RunDirectory(parent))
    assert (config.generator, config.discriminator, config.latent) == (
        before.generator,
        before.discriminator,
        before.latent,
    )
    assert (config.batch_size, config.recipe) == (
        8,
        "images-dcgan",
    ) and config.generator_optimizer == before.generator_optimizer
    assert config.augment.operations  # chosen anew for so few images
    networks, state = load_networks(parent), first_state(tmp_path / "child")
    for name, value in networks.snapshot.generator.state_dict().items():
        assert torch.equal(state[f"generator.{name}"], value) or name.endswith("num_batches_tracked"), name
        assert torch.equal(state[f"ema_generator.{name}"], value) or name.endswith("num_batches_tracked"), name
    for name, value in networks.discriminator.state_dict().items():
        assert torch.equal(state[f"discriminator.{name}"], value), name
    assert "started from parent (64 images seen, SHA-256" in messages(tmp_path / "child")


def test_parent_is_remembered(parent, tmp_path, capsys):
    start(parent, tmp_path / "child")
    run = RunDirectory(tmp_path / "child")
    facts = read_provenance(run)["parent"]
    assert facts["model"] == "parent" and facts["images_seen"] == 64 and facts["recipe"] == "images-dcgan"
    assert any(line.startswith("generator: ") for line in facts["adapted"])
    assert read_config(run).start_from == f"parent@sha256:{facts['sha256']}"
    assert cardigan.load(tmp_path / "child").config.start_from.startswith("parent@sha256:")  # also in a lone file
    assert run_command(["info", str(tmp_path / "child")]) == 0
    assert f"started_from:              parent@sha256:{facts['sha256']}" in capsys.readouterr().out
    cardigan.load(tmp_path / "child").save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"started from the weights of parent (SHA-256 `{facts['sha256']}`)" in card
    assert "License of that model: unknown" in card and "- generator: 16 tensors copied" in card


def test_run_needs_its_parent_no_more_and_resumes_bit_for_bit(parent, tmp_path):
    copy = shutil.copytree(parent, tmp_path / "copy")
    start(copy, tmp_path / "whole", images=64)
    start(copy, tmp_path / "parts", images=32)
    shutil.rmtree(copy)
    start(copy, tmp_path / "parts", images=64, resume=True)
    cardigan.train(pictures(seed=1), images=64, out=tmp_path / "parts", resume=True)  # without --from
    whole, parts = (
        read_tensors(tmp_path / name / "checkpoints" / "00000064" / "state.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_resume_with_another_parent_is_refused(parent, tmp_path):
    start(parent, tmp_path / "child")
    with pytest.raises(CardiganError, match=r"was started from parent .* is another model"):
        start(tmp_path / "child", tmp_path / "child", resume=True, images=32)
    cardigan.train(pictures(), images=16, out=tmp_path / "plain", overrides={**SMALL, "discriminator.network": "dcgan"})
    with pytest.raises(CardiganError, match="was not started from another model"):
        start(parent, tmp_path / "plain", source=pictures(), resume=True, images=32)


def test_lone_generator_meets_a_new_discriminator(parent, tmp_path):
    start(parent / "generator.safetensors", tmp_path / "child")
    assert "discriminator: begins anew, because generator.safetensors holds only a generator" in messages(
        tmp_path / "child"
    )
    state = first_state(tmp_path / "child")
    trained = load_networks(parent).discriminator.state_dict()
    assert not torch.equal(state["discriminator.down_convs.0.weight"], trained["down_convs.0.weight"])


@pytest.mark.parametrize(
    ("source", "overrides", "line"),
    [
        (pictures(1), {}, "channels: 3 -> 1"),
        (pictures(4), {}, "channels: 3 -> 4"),
        (pictures(3, 64), {"data.height": 64, "data.width": 64}, "size: 32x32 -> 64x64"),
        (pictures(3, 16), {"data.height": 16, "data.width": 16}, "size: 32x32 -> 16x16"),
        (pictures(3, 24), {"data.height": 24, "data.width": 40}, "size: 32x32 -> 24x40"),
        (pictures(), {"latent.size": 64}, "generator: "),
        (pictures(), {"discriminator.width": 8}, "discriminator: begins anew, because its width is another one"),
        (pictures(), {"n_critic": 2, "objective.loss": "hinge"}, "discriminator: "),
    ],
)
def test_other_shapes_are_adapted_and_said(parent, tmp_path, source, overrides, line):
    start(parent, tmp_path / "child", source=source, overrides=overrides, images=32)
    assert line in messages(tmp_path / "child")
    config = read_config(RunDirectory(tmp_path / "child"))
    assert all(dict_value(config, name) == value for name, value in overrides.items())


def dict_value(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def test_classes_are_found_by_name(tmp_path):
    def folder(name, classes):
        for number, label in enumerate(classes):
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(8):
                Image.fromarray(pictures(count=1, seed=8 * number + index)[0]).save(
                    tmp_path / name / label / f"{index}.png"
                )
        return tmp_path / name

    settings = {**SMALL, "data.height": 16, "data.width": 16, "conditional": True, "data.labels": "folders"}
    cats = folder("first", ["cat", "dog"])
    cardigan.train(cats, recipe="images-dcgan", images=16, out=tmp_path / "parent", overrides=settings)
    more = folder("second", ["bird", "cat", "dog", "fish"])
    start(
        tmp_path / "parent", tmp_path / "child", source=more, overrides={"conditional": True, "data.labels": "folders"}
    )
    assert "classes: 2 of 4 are classes of the parent; the others begin as the mean of its 2" in messages(
        tmp_path / "child"
    )
    start(tmp_path / "parent", tmp_path / "plain", source=more, overrides={"data.labels": "folders"})
    assert "classes: none" in messages(tmp_path / "plain")
    branch = start(tmp_path / "parent", tmp_path / "branch", source=cats)
    assert branch.config.conditional  # the same images, so as before


def test_class_rows():
    named, plain = ImageSpec(3, 8, 8, 2, ("a", "b")), ImageSpec(3, 8, 8, 2)
    assert class_rows(ImageSpec(3, 8, 8, 3, ("b", "c", "a")), named) == [1, None, 0]
    assert class_rows(plain, plain) == [0, 1] and class_rows(ImageSpec(3, 8, 8, 3), plain) == [None, None, None]
    assert class_rows(ImageSpec(3, 8, 8, 0), named) == [] and class_rows(named, ImageSpec(3, 8, 8, 0)) == [None, None]


def test_recipe_keeps_its_rates(parent, tmp_path):
    start(parent, tmp_path / "child", recipe="images-dcgan", overrides={"batch_size": 8, "discriminator.width": 4})
    config = read_config(RunDirectory(tmp_path / "child"))
    assert config.generator.width == 4 and config.objective.penalties == {"r1": 1.0, "r2": 1.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--from", "{missing}"], "--from: There is no file {missing}"),
        (["--from", "{parent}", "--generator.width", "8"], "generator.width is 8, but that of parent"),
        (["--from", "{parent}", "--generator.network", "resnet"], "generator.network is 'resnet', but that of parent"),
        (["--from", "{damaged}"], "--from: {damaged}"),
        (["--from", "{parent}@sha256:" + "0" * 64], "--from: "),
        (["--from", "{forbidden}"], "forbids derivatives"),
    ],
)
def test_bad_parents(parent, tmp_path, capsys, words, sentence):
    model = cardigan.load(parent)
    model.save_pretrained(tmp_path / "forbidden")
    card = tmp_path / "forbidden" / "README.md"
    card.write_text(card.read_text().replace("license: ", "license: cc-by-nd-4.0 #", 1))
    (tmp_path / "damaged.safetensors").write_bytes((parent / "generator.safetensors").read_bytes()[:-100])
    places = {
        **{"parent": parent, "missing": tmp_path / "missing", "damaged": tmp_path / "damaged.safetensors"},
        "forbidden": tmp_path / "forbidden",
    }
    np.save(tmp_path / "images.npy", pictures())
    words = [word.format(**places) for word in words]
    code = run_command(
        ["train", str(tmp_path / "images.npy"), *words, "--images", "16", "--out", str(tmp_path / "new")]
    )
    error = capsys.readouterr().err
    assert code == 2 and sentence.format(**places) in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_permission_for_a_license_without_derivatives(parent, tmp_path):
    cardigan.load(parent).save_pretrained(tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    card.write_text(card.read_text().replace("license: ", "license: cc-by-nd-4.0 #", 1))
    start(tmp_path / "model", tmp_path / "child", accept_license=True)
    assert read_provenance(RunDirectory(tmp_path / "child"))["parent"]["license"].startswith("cc-by-nd-4.0")


def test_embedded_source_starts_and_resumes(tmp_path):
    settings = {**SMALL, "data.height": 16, "data.width": 16}
    cardigan.train("mnist", images=32, out=tmp_path / "parent", overrides=settings)
    start(tmp_path / "parent", tmp_path / "child", source="mnist", images=32)
    config = read_config(RunDirectory(tmp_path / "child"))
    assert config.generator.width == 4 and config.data.height == 16 and config.conditional
    start(tmp_path / "parent", tmp_path / "child", source="mnist", images=64, resume=True)
    assert json.loads((tmp_path / "child" / "checkpoints" / "00000064" / "state.json").read_text())["images_seen"] == 64
