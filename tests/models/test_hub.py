"""Model folders and the hub: saving, downloading, verification and errors. Runs offline against a fake hub."""

import dataclasses
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.exports.card import model_card, weights_hash
from cardigan.files.sha256 import file_sha256
from cardigan.models.hub import is_hub_address, parse_hub_address
from cardigan.models.snapshot import read_snapshot, write_snapshot
from cardigan.overrides import override
from fake_hub import fake_hub
from tiny_runs import small_run, small_snapshot


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs") / "run", small_snapshot(classes=10))


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return cardigan.load(run).save_pretrained(tmp_path_factory.mktemp("saved") / "deep" / "model")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Yield a fake hub with an empty cache."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_detect_agent, "detect_agent", lambda: None, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with fake_hub() as (server, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield server


def test_saved_folder_is_the_model(run, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_bytes())
    assert config["library_name"] == "cardigan"
    assert config["config"]["generator"]["width"] == 8
    assert config["sha256"] == {"model.safetensors": file_sha256(folder / "model.safetensors")}
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert card.count('gan = cardigan.load("model.safetensors")') == 1
    expected = cardigan.load(run).sample(3)
    for again in (cardigan.load(folder), cardigan.from_pretrained(folder), cardigan.Model.from_pretrained(str(folder))):
        assert np.array_equal(again.sample(3), expected)


def test_save_overwrites_only_with_overwrite(run, folder, tmp_path):
    model, copy = cardigan.load(run), shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(
        CardiganError, match=r"holds model\.safetensors, config\.json, README\.md already: set overwrite"
    ):
        model.save_pretrained(copy)
    (copy / "mine.txt").write_text("keep me")
    model.save_pretrained(copy, overwrite=True)
    assert (copy / "mine.txt").read_text() == "keep me"
    before = (run / "config.json").read_bytes()
    with pytest.raises(CardiganError, match="is a run"):
        model.save_pretrained(run, overwrite=True)
    assert (run / "config.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CardiganError, match="is a file"):
        model.save_pretrained(tmp_path / "file")


def test_card_stays_with_weights(folder, tmp_path):
    known = shutil.copytree(folder, tmp_path / "known")
    card = (known / "README.md").read_text() + "\nEvaluated: 3.1\n"
    (known / "README.md").write_text(card)
    assert (cardigan.load(known).save_pretrained(tmp_path / "again") / "README.md").read_text() == card
    other = cardigan.Model(small_snapshot(classes=10, images_seen=16), known)
    card = (other.save_pretrained(tmp_path / "other") / "README.md").read_text()
    assert "Evaluated" not in card
    assert weights_hash(other.snapshot.generator) in card
    assert "16 images seen" in card


def test_folder_holds_one_model(run, folder, tmp_path):
    """Other model files in the folder are ignored when loading, and block saving."""
    shared, copy = tmp_path / "shared", shutil.copytree(folder, tmp_path / "copy")
    shared.mkdir()
    for name in ("generator.safetensors", "state.safetensors"):
        write_snapshot(copy / name, small_snapshot(classes=10, images_seen=16))
        assert cardigan.load(copy).images_seen == 32
    shutil.copy(copy / "generator.safetensors", shared)
    with pytest.raises(CardiganError, match=r"holds generator\.safetensors, which is another model"):
        cardigan.load(run).save_pretrained(shared, overwrite=True)
    assert [path.name for path in shared.iterdir()] == ["generator.safetensors"]


def test_sha256_checks(run, folder, tmp_path):
    sha256 = file_sha256(folder / "model.safetensors")
    assert cardigan.load(folder, sha256=sha256).images_seen == 32
    assert cardigan.load(folder / "model.safetensors", sha256=f"sha256:{sha256.upper()}").images_seen == 32
    assert cardigan.load(run, sha256=file_sha256(run / "generator.safetensors")).images_seen == 32
    for wrong, message in (("0" * 64, "has the SHA-256"), ("abc", "expected the 64 hexadecimal digits")):
        with pytest.raises(CardiganError, match=message):
            cardigan.load(folder, sha256=wrong)
    changed = shutil.copytree(folder, tmp_path / "changed")
    content = bytearray((changed / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "model.safetensors").write_bytes(content)
    with pytest.raises(CardiganError, match="was changed or damaged"):
        cardigan.load(changed)


def test_mismatching_config_json(folder, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "changed")
    config = json.loads((changed / "config.json").read_bytes())
    for content, message in (
        (json.dumps({**config, "images_seen": 33}), "does not describe model.safetensors"),
        (json.dumps({**config, "sha256": {"model.safetensors": 3}}), "expected the 64 hexadecimal digits"),
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "is damaged"),
    ):
        (changed / "config.json").write_text(content)
        with pytest.raises(CardiganError, match=message):
            cardigan.load(changed)
    (changed / "config.json").unlink()
    assert cardigan.load(changed).images_seen == 32  # the weights have their own header


def test_push_and_load(run, folder, hub):
    model = cardigan.load(run)
    address = model.push_to_hub("me/digits", private=True, commit_message="first", token="hf_mine")
    assert "/me/digits/commit/" in address
    assert hub.private["me/digits"] in (True, "private")
    uploaded = hub.models["me/digits"][hub.refs["me/digits", "main"]]
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]
    assert uploaded["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    hub.requests.clear()
    model_from_hub = cardigan.load("hf:me/digits")
    assert np.array_equal(model_from_hub.sample(3), model.sample(3))
    downloaded = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert downloaded == {"config.json", "model.safetensors"}
    assert np.array_equal(cardigan.from_pretrained("me/digits").sample(3), model.sample(3))


def test_private_push_to_public_repo_raises(run, folder, hub):
    hub.commit_folder("me/open", folder)
    before = dict(hub.refs)
    with pytest.raises(CardiganError, match="is already public"):
        cardigan.load(run).push_to_hub("me/open", private=True)
    assert hub.refs == before
    cardigan.load(run).push_to_hub("me/open")


def test_only_two_files_are_downloaded(folder, hub, tmp_path):
    """Other files in the repo, such as code and pickles, are not downloaded."""
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "modeling.py").write_text("raise SystemExit('executed')")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    hub.commit_folder("me/digits", tmp_path / "model")
    cardigan.load("hf:me/digits")
    assert not any(name in line for line in hub.requests for name in ("modeling", "pytorch_model", "README"))
    assert not list((tmp_path / "cache").rglob("*.py"))


def test_other_cache_files_are_ignored(folder, hub, tmp_path):
    hub.commit_folder("me/digits", folder)
    cardigan.load("hf:me/digits")
    (config,) = (tmp_path / "cache").rglob("config.json")
    config.with_name("journal.jsonl").touch()
    for name in ("generator.safetensors", "state.safetensors"):
        write_snapshot(config.with_name(name), small_snapshot(classes=10, images_seen=16))
    assert cardigan.load("hf:me/digits").images_seen == 32
    assert cardigan.from_pretrained("me/digits").images_seen == 32


def test_files_are_of_one_commit(run, folder, hub, tmp_path):
    """Even if there is a new commit between the two downloads."""
    first = hub.commit_folder("me/digits", folder)
    cardigan.Model(small_snapshot(classes=10, images_seen=16)).save_pretrained(tmp_path / "newer")
    hub.on_request = lambda: hub.commit_folder("me/digits", tmp_path / "newer")
    assert cardigan.load("hf:me/digits").images_seen == 32
    hub.on_request = None
    assert cardigan.load("hf:me/digits").images_seen == 16
    assert cardigan.load(f"hf:me/digits@{first}").images_seen == 32
    assert cardigan.from_pretrained("me/digits", revision=first).images_seen == 32
    with pytest.raises(CardiganError, match="has no such revision"):
        cardigan.load("hf:me/digits@nothing")


def test_cached_model_works_offline(folder, hub, monkeypatch):
    hub.commit_folder("me/digits", folder)
    expected = cardigan.load("hf:me/digits").sample(2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nothing listens on this port
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert np.array_equal(cardigan.load("hf:me/digits").sample(2), expected)
        assert np.array_equal(cardigan.from_pretrained("me/digits", local_files_only=True).sample(2), expected)
        with pytest.raises(CardiganError, match="cannot be reached and is not cached"):
            cardigan.from_pretrained("me/other", local_files_only=True)
        with pytest.raises(CardiganError, match=r"hf:me/digits: .*Check the name"):
            cardigan.load(folder).push_to_hub("me/digits")


def test_hub_errors(folder, hub):
    hub.commit("me/empty", {"config.json": b"{}"})
    for address, message in (
        ("hf:me/nothing", "The model hf:me/nothing does not exist"),
        ("hf:me/empty", "is not a Cardigan model"),
    ):
        with pytest.raises(CardiganError, match=message):
            cardigan.load(address)
    hub.error_status = 403
    with pytest.raises(CardiganError, match="403"):
        cardigan.load(folder).push_to_hub("me/digits")
    assert "me/digits" not in hub.models


@pytest.mark.parametrize(
    "name", ["digits", "me/", "/digits", "../etc", "me/dig its", "me/a..b", "me/digits/more", "", "me/" + "x" * 200]
)
def test_invalid_repo_ids(name):
    with pytest.raises(CardiganError, match="is not a valid name of a model"):
        cardigan.load(f"hf:{name}")
    with pytest.raises(
        CardiganError, match="does not exist" if name == "/digits" else "is not a valid name of a model"
    ):
        cardigan.from_pretrained(name or "hf:")


def test_local_path_does_not_query_hub(hub):
    for path in ("/nowhere/digits", Path("/nowhere/digits")):
        with pytest.raises(CardiganError, match="/nowhere/digits does not exist"):
            cardigan.from_pretrained(path)
    assert not hub.requests


def test_parse_hub_address():
    assert str(parse_hub_address("hf:me/digits@v1.0")) == "hf:me/digits@v1.0"
    assert parse_hub_address(Path("hf://me/digits")).repo_id == "me/digits"
    assert is_hub_address(Path("hf:me/digits"))
    assert not is_hub_address("me/digits")
    with pytest.raises(CardiganError, match="has no valid revision"):
        parse_hub_address("hf:me/digits@")


def test_commands_accept_hub_address(folder, hub, tmp_path, capsys, monkeypatch):
    hub.commit_folder("me/digits", folder)
    monkeypatch.chdir(tmp_path)
    assert cardigan_command(["sample", "hf:me/digits", "-n", "4", "--out", "a.png"]) == 0
    assert cardigan_command(["sample", str(folder), "-n", "4", "--out", "b.png"]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert cardigan_command(["walk", "hf:me/digits", "--frames", "4", "--out", "walk.webp"]) == 0
    assert cardigan_command(["mix", "hf:me/digits", "--corners", "0,1,2,3", "--out", "mix.png"]) == 0
    assert cardigan_command(["info", "hf:me/digits"]) == 0
    assert (
        cardigan_command(["evaluate", "hf:me/digits", "--samples", "100", "--metrics", "classes", "--no-baseline"]) == 0
    )
    capsys.readouterr()
    assert cardigan_command(["info", str(folder)]) == 0
    assert "32x32x1" in capsys.readouterr().out
    for model in ("hf:me/digits", str(folder)):
        assert cardigan_command(["probe", model, "mnist", "--out", "probe"]) == 2
        assert "holds no discriminator, only a generator" in capsys.readouterr().err


def test_push_command(run, hub, capsys):
    assert cardigan_command(["push", str(run), "me/digits", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "Nothing was sent" in output
    assert all(name in output for name in ("config.json", "model.safetensors", "README.md", "library_name: cardigan"))
    assert not hub.requests
    assert cardigan_command(["push", str(run), "me/digits@tried", "--message", "once"]) == 0
    assert "cardigan sample hf:me/digits@tried" in capsys.readouterr().out
    assert "model.safetensors" in hub.models["me/digits"][hub.refs["me/digits", "tried"]]
    assert cardigan_command(["push", str(run), "digits"]) == 2
    assert "expected user/name" in capsys.readouterr().err


def test_push_space(run, folder, hub, capsys):
    words = [
        "push",
        str(run),
        "me/demo",
        "--space",
        "--title",
        'Digits: a "demo"',
        "--direction-names",
        "slant",
        "weight",
    ]
    assert cardigan_command([*words, "--dry-run"]) == 0
    assert "sdk: static" in capsys.readouterr().out
    assert not hub.requests
    assert cardigan_command([*words, "--private"]) == 0
    assert "/spaces/me/demo\n" in capsys.readouterr().out
    assert hub.sdks == {"spaces/me/demo": "static"}
    assert hub.private["spaces/me/demo"] in (True, "private")
    files = hub.models["spaces/me/demo"][hub.refs["spaces/me/demo", "main"]]
    assert sorted(files) == ["README.md", "index.html"]
    page = files["index.html"].decode()
    assert "<title>Digits: a &quot;demo&quot;</title>" in page
    assert '"names": ["slant", "weight"]' in page
    ((repo_type, front_matter),) = hub.validated
    assert repo_type == "space"
    assert front_matter["title"] == 'Digits: a "demo"'
    assert front_matter["license"] == "cc-by-sa-3.0"
    assert front_matter["app_file"] == "index.html"
    hub.commit_folder("me/digits", folder)
    assert cardigan_command(["push", "hf:me/digits", "me/demo", "--space"]) == 0
    assert hub.validated[-1][1]["models"] == ["me/digits"]
    assert hub.validated[-1][1]["title"] == "What a network learned from mnist"
    assert list(hub.models) == ["spaces/me/demo", "me/digits"]  # the model itself was not sent


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--title", "A"], "--title has no effect without --space"),
        (["--direction-names", "a"], "--direction-names has no effect without --space"),
        (["--space", "--direction-names", *"abcdefg"], "7 names of directions were given"),
        (["--space", "--title", "A" * 201], "has 201 characters"),
    ],
)
def test_invalid_space_sends_nothing(run, hub, words, message, capsys):
    assert cardigan_command(["push", str(run), "me/demo", *words]) == 2
    assert message in capsys.readouterr().err
    assert cardigan_command(["push", str(run), "me/demo@branch", "--space"]) == 2
    assert "shown from its main branch" in capsys.readouterr().err
    assert not hub.requests


@pytest.mark.parametrize("data_license", ["", "CC-BY-4.0", "My-Own-1.0", 'a license: with [ and " in it', "Unknown"])
@pytest.mark.parametrize("source", ["mnist", "hf:me/photos:train", "hf:odd name: {x}", "", "/home/me/photos"])
def test_model_cards_pass_the_hubs_validator(run, hub, source, data_license, monkeypatch):
    """Through huggingface_hub's own `ModelCard.validate`, against a hub with the documented rules."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", os.environ["HF_ENDPOINT"])
    snapshot = read_snapshot(run)
    snapshot = dataclasses.replace(snapshot, config=override(snapshot.config, {"data.source": source}))
    card = huggingface_hub.ModelCard(model_card(snapshot, data_license=data_license))
    card.validate()
    assert hub.requests == ["POST /api/validate-yaml"]
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.library_name == "cardigan"
    assert card.data.get("datasets") == {"mnist": ["ylecun/mnist"], "hf:me/photos:train": ["me/photos"]}.get(source)
    assert (card.data.get("license_name") == "my-own-1.0") == (data_license == "My-Own-1.0")
    assert "gan" in card.data.tags
    with pytest.raises(ValueError, match="must be one of the listed ones"):
        huggingface_hub.ModelCard("---\nlicense: my-own-1.0\n---\n").validate()


def test_rejected_card_is_not_uploaded(folder, hub, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = (copy / "README.md").read_text()
    (copy / "README.md").write_text(card.replace("license: cc-by-sa-3.0", "license: mine"))
    with pytest.raises(CardiganError, match="must be one of the listed ones"):
        cardigan.load(copy).push_to_hub("me/digits")
    assert hub.models["me/digits"] == {}


def test_missing_package_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for action in (lambda: cardigan.load("hf:me/digits"), lambda: cardigan.load(folder).push_to_hub("me/digits")):
        with pytest.raises(CardiganError, match=r"pip install 'cardigan\[hub\]'"):
            action()
    assert cardigan.from_pretrained(folder).images_seen == 32
