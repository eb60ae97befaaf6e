"""`cardigan train --from MODEL`: settings and weights of a trained model for other images."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.backbones.efficientnet import is_installed
from cardigan.cli.main import run as run_command
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.experiment.start_from import class_rows
from cardigan.files.tensors import read_tensors
from cardigan.models.run_networks import load_networks
from cardigan.models.snapshot import write_snapshot
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
    assert "The license of that model is unknown" in card and "- generator: 16 tensors copied" in card
    assert "\nlicense: other\n" in card and f"--from parent@sha256:{facts['sha256']}" in card


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
    config = read_config(RunDirectory(tmp_path / "child"))
    assert config.recipe == "images" and config.batch_size == 16  # the game is that of the source
    assert config.generator.network == "dcgan" and config.data.height == 32


@pytest.mark.parametrize(
    ("source", "overrides", "line"),
    [
        (pictures(1), {}, "channels: 3 -> 1"),
        (pictures(4), {}, "channels: 3 -> 4"),
        (pictures(3, 64), {"data.height": 64, "data.width": 64}, "size: 32x32 -> 64x64"),
        (pictures(3, 16), {"data.height": 16, "data.width": 16}, "size: 32x32 -> 16x16"),
        (pictures(3, 24), {"data.height": 24, "data.width": 40}, "size: 32x32 -> 24x40"),
        (pictures(), {"latent.size": 64}, "generator: "),
        (pictures(), {"discriminator.width": 8}, "begins anew, because these settings differ: discriminator.width"),
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
    start(
        tmp_path / "child",
        tmp_path / "grandchild",
        source=cats,
        overrides={"conditional": True, "data.labels": "folders"},
    )
    assert "classes: all 2 are among the 4 of the parent; the others are left out" in messages(tmp_path / "grandchild")
    start(tmp_path / "parent", tmp_path / "plain", source=more, overrides={"data.labels": "folders"})
    assert "classes: none" in messages(tmp_path / "plain")
    branch = start(tmp_path / "parent", tmp_path / "branch", source=cats)
    assert branch.config.conditional  # the same images, so as before


def test_entries_of_tables_can_be_given_alone(parent, tmp_path):
    settings = {"objective.penalties.r1": 5.0}
    config = start(parent, tmp_path / "child", overrides=settings).config
    assert config.objective.penalties == {"r1": 5.0, "r2": 1.0}


def test_another_discriminator_brings_its_own_settings(parent, tmp_path):
    settings = {"discriminator.network": "mlp", "discriminator.width": 8}
    config = start(parent, tmp_path / "child", overrides=settings).config
    assert config.generator.width == 4 and config.discriminator.network == "mlp"
    assert "begins anew, because these settings differ: discriminator.network, discriminator.width" in messages(
        tmp_path / "child"
    )


def test_packs_of_another_shape_begin_anew(tmp_path):
    settings = {**SMALL, "data.height": 16, "data.width": 16, "pac": 2}
    cardigan.train(pictures(), recipe="images-dcgan", images=16, out=tmp_path / "parent", overrides=settings)
    start(tmp_path / "parent", tmp_path / "child", source=pictures(1))
    assert "discriminator: begins anew, because it reads packs of images of another shape" in messages(
        tmp_path / "child"
    )
    start(tmp_path / "parent", tmp_path / "same")
    assert "discriminator: 6 tensors copied" in messages(tmp_path / "same")


def test_parent_with_one_hot_classes_starts_a_run_without_classes(tmp_path):
    one_hot = {f"{network}.conditioning": "one-hot" for network in ("generator", "discriminator")}
    settings = {**SMALL, **one_hot, "data.height": 16, "data.width": 16}
    cardigan.train("mnist", images=16, out=tmp_path / "parent", overrides=settings)
    start(tmp_path / "parent", tmp_path / "child", source=pictures(1))
    config = read_config(RunDirectory(tmp_path / "child"))
    assert not config.conditional and "classes: none; what each of the parent's 10 adds is left out" in messages(
        tmp_path / "child"
    )


def test_run_ended_before_its_first_checkpoint_starts_again_from_its_parent(parent, tmp_path):
    start(parent, tmp_path / "whole")
    start(parent, tmp_path / "ended")
    shutil.rmtree(tmp_path / "ended" / "checkpoints")
    with pytest.raises(CardiganError, match=r"was ended before its first checkpoint.*resume it with --from"):
        cardigan.train(pictures(seed=1), images=16, out=tmp_path / "ended", resume=True)
    start(parent, tmp_path / "ended", resume=True)
    for name, value in first_state(tmp_path / "whole").items():
        assert torch.equal(first_state(tmp_path / "ended")[name], value), name


def test_config_of_a_started_run_resumes_it_and_keeps_its_origin(parent, tmp_path):
    config = start(parent, tmp_path / "child").config
    again = cardigan.override(config, {"images": 32})
    cardigan.train(pictures(seed=1), config=again, out=tmp_path / "child", resume=True)
    provenance = read_provenance(RunDirectory(tmp_path / "child"))
    assert provenance["parent"]["model"] == "parent"


def test_best_checkpoint_of_a_run_is_taken(parent, tmp_path):
    """A run that was stopped for its score ends with the generator of its best checkpoint."""
    copy = shutil.copytree(parent, tmp_path / "copy")
    best = cardigan.load(copy / "checkpoints" / "00000032")
    write_snapshot(copy / "generator.safetensors", best.snapshot)
    start(copy, tmp_path / "child")
    state, trained = first_state(tmp_path / "child"), load_networks(copy / "checkpoints" / "00000032").discriminator
    assert "started from copy (32 images seen" in messages(tmp_path / "child")
    for name, value in trained.state_dict().items():
        assert torch.equal(state[f"discriminator.{name}"], value), name


def test_weights_that_are_not_finite_are_refused(parent, tmp_path):
    snapshot = cardigan.load(parent).snapshot
    next(iter(snapshot.generator.state_dict().values())).fill_(float("nan"))
    write_snapshot(tmp_path / "broken.safetensors", snapshot)
    with pytest.raises(CardiganError, match="weights that are not finite"):
        start(tmp_path / "broken.safetensors", tmp_path / "child")


@pytest.mark.skipif(not is_installed("efficientnet-lite0"), reason="needs the extra features")
def test_heads_keep_their_projections_at_another_size(tmp_path):
    settings = {**SMALL, "discriminator.options.head_width": 8, "data.height": 32, "data.width": 32}
    cardigan.train(pictures(), recipe="images", images=16, out=tmp_path / "parent", overrides=settings)
    larger = {"data.height": 64, "data.width": 64}
    start(tmp_path / "parent", tmp_path / "larger", source=pictures(4, 64), overrides=larger)
    mixers = [
        load_networks(tmp_path / name).discriminator.projection.network.channel_mixers for name in ("parent", "larger")
    ]
    for old, new in zip(*mixers, strict=True):
        directions = [mixer.weight / mixer.weight.norm() for mixer in (old, new)]
        assert torch.allclose(directions[0], directions[1], atol=1e-6)
    start(tmp_path / "parent", tmp_path / "other", overrides={"seed": 9})
    assert "begins anew, because its frozen projections belong to --seed 0" in messages(tmp_path / "other")


def test_class_rows():
    named, plain = ImageSpec(3, 8, 8, 2, ("a", "b")), ImageSpec(3, 8, 8, 2)
    assert class_rows(ImageSpec(3, 8, 8, 3, ("b", "c", "a")), named) == [1, None, 0]
    assert class_rows(plain, plain) == [0, 1] and class_rows(ImageSpec(3, 8, 8, 3), plain) == [None, None, None]
    digits = ImageSpec(3, 8, 8, 3, ("2", "0", "A"))
    assert class_rows(plain, digits) == [1, None] and class_rows(digits, plain) == [None, 0, None]
    clusters = ImageSpec(3, 8, 8, 2, (), (5, 5))
    assert class_rows(clusters, digits) == [None, None] and class_rows(digits, clusters) == [None] * 3
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
        (["--from", "{parent}", "--latent.distribution", "uniform"], "latent.distribution is 'uniform', but that of"),
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


@pytest.mark.parametrize(
    "lines",
    [
        "license:\n- mit\n- cc-by-nd-4.0",
        "license: other\nlicense_name: studio, no derivatives",
        "license: [cc-by-nc-nd-4.0]",
    ],
)
def test_licenses_without_derivatives_are_found(parent, tmp_path, lines):
    cardigan.load(parent).save_pretrained(tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    card.write_text(re.sub(r"license: [^\n]*", lines, card.read_text(), count=1))
    with pytest.raises(CardiganError, match="forbids derivatives"):
        start(tmp_path / "model", tmp_path / "child")


def test_license_of_a_runs_own_parent_holds_for_its_checkpoints(parent, tmp_path):
    cardigan.load(parent).save_pretrained(tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    card.write_text(card.read_text().replace("license: ", "license: cc-by-nd-4.0 #", 1))
    start(tmp_path / "model", tmp_path / "child", accept_license=True)
    checkpoint = max((tmp_path / "child" / "checkpoints").iterdir())
    for model in (tmp_path / "child", checkpoint, tmp_path / "child" / "generator.safetensors"):
        with pytest.raises(CardiganError, match="forbids derivatives"):
            start(model, tmp_path / "grandchild")


def test_embedded_source_starts_and_resumes(tmp_path):
    settings = {**SMALL, "data.height": 16, "data.width": 16}
    cardigan.train("mnist", images=32, out=tmp_path / "parent", overrides=settings)
    start(tmp_path / "parent", tmp_path / "child", source="mnist", images=32)
    config = read_config(RunDirectory(tmp_path / "child"))
    assert config.generator.width == 4 and config.data.height == 16 and config.conditional
    start(tmp_path / "parent", tmp_path / "child", source="mnist", images=64, resume=True)
    assert json.loads((tmp_path / "child" / "checkpoints" / "00000064" / "state.json").read_text())["images_seen"] == 64


def test_frozen_stages_keep_the_parents_weights_and_the_others_learn(parent, tmp_path):
    frozen = {"discriminator.frozen_stages": 2, "generator.frozen_stages": 1}
    start(parent, tmp_path / "child", images=64, overrides=frozen)
    first, last = (
        first_state(tmp_path / "child"),
        read_tensors(tmp_path / "child/checkpoints/00000064/state.safetensors"),
    )
    kept = ("discriminator.down_convs.0.", "discriminator.down_convs.1.", "generator.from_latent.")
    learned = ("discriminator.down_convs.2.", "discriminator.head.weight", "generator.up_convs.0.")
    for name in (name for name in first if name.endswith((".weight", ".bias"))):
        if name.startswith(kept):
            assert torch.equal(first[name], last[name]), name
        elif name.startswith(learned):
            assert not torch.equal(first[name], last[name]), name
    assert "4 frozen (2 stages)" in messages(tmp_path / "child")
    resumed = tmp_path / "resumed"
    start(parent, resumed, images=32, overrides=frozen)
    cardigan.train(pictures(seed=1), images=64, out=resumed, resume=True)
    again = read_tensors(resumed / "checkpoints/00000064/state.safetensors")
    assert last.keys() == again.keys() and all(torch.equal(last[name], again[name]) for name in last)
    grandchild = start(tmp_path / "child", tmp_path / "grandchild").config
    assert grandchild.discriminator.frozen_stages == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator.frozen_stages": 9}, "discriminator.frozen_stages is 9, but this network has 3 stages"),
        (
            {"discriminator.frozen_stages": 1, "discriminator.depth": 2},
            "discriminator.frozen_stages is 1, but the discriminator begins anew, because these settings differ",
        ),
        (
            {"discriminator.frozen_stages": 1, "data.height": 64, "data.width": 64},
            r"discriminator.frozen_stages is 1, but down_convs.0.weight has no weights of the model to keep",
        ),
    ],
)
def test_stages_that_cannot_be_frozen_are_refused(parent, tmp_path, settings, message):
    with pytest.raises(CardiganError, match=message):
        start(parent, tmp_path / "child", overrides=settings)
    assert not (tmp_path / "child").exists()


def test_frozen_stages_need_a_model_to_start_from(tmp_path):
    with pytest.raises(CardiganError, match=r"generator\.frozen_stages is 1, but training starts from initial weights"):
        cardigan.train(
            pictures(), images=16, out=tmp_path / "run", recipe="images-dcgan",
            overrides={**SMALL, "generator.frozen_stages": 1},
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def similarity_change(run: Path) -> float:
    """How far the similarities between a run's images are from those at its start, lately."""
    progress = [event for event in read_events(RunDirectory(run).journal) if event.kind == "progress"]
    return progress[-1].values["correspondence"]


def test_correspondence_keeps_the_similarities_of_the_start(parent, tmp_path):
    source, rate = pictures(seed=1, count=16), {"generator_optimizer.learning_rate": 1e-3}
    for name, weight in (("free", 1e-6), ("kept", 1e6)):
        start(parent, tmp_path / name, source, images=512, overrides={**rate, "objective.correspondence": weight})
    assert 0 < similarity_change(tmp_path / "kept") < 0.75 * similarity_change(tmp_path / "free")
    assert start(tmp_path / "kept", tmp_path / "grandchild", source).config.objective.correspondence == 0


def test_run_with_correspondence_resumes_without_its_parent_bit_for_bit(parent, tmp_path):
    copy, settings = shutil.copytree(parent, tmp_path / "copy"), {"objective.correspondence": 1000.0}
    start(copy, tmp_path / "whole", images=64, overrides=settings)
    start(copy, tmp_path / "parts", images=32, overrides=settings)
    shutil.rmtree(copy)
    cardigan.train(pictures(seed=1), images=64, out=tmp_path / "parts", resume=True)
    whole, parts = (
        read_tensors(tmp_path / name / "checkpoints" / "00000064" / "state.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(value, parts[name]) for name, value in whole.items())
    first = first_state(tmp_path / "whole")
    weights = [name for name in whole if name.startswith("start_generator.") and name.endswith(".weight")]
    assert weights and all(torch.equal(whole[name], first[name.removeprefix("start_")]) for name in weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "objective.correspondence is 10, but training starts from initial weights"),
        ({"start_from": "parent", "batch_size": 2}, "which compares at least 3 images, but 2 are computed at a time"),
    ],
)
def test_correspondence_that_cannot_be_computed_is_refused(parent, tmp_path, settings, message):
    overrides = {**SMALL, "objective.correspondence": 10.0, **settings}
    overrides["start_from"] = str(parent) if "start_from" in settings else ""
    with pytest.raises(CardiganError, match=message):
        cardigan.train(pictures(), images=16, out=tmp_path / "run", recipe="images-dcgan", overrides=overrides)
    assert not (tmp_path / "run").exists()
