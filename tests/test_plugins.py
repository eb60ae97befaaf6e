"""A real plug-in package, installed by pip: commands know its lines, and a model without it says what to install."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cardigan.data.mnist import load_mnist
from cardigan.files.tensors import read_metadata
from cardigan.run.journal import read_events

PACKAGE = Path(__file__).parent / "plugin_package"
SETTINGS = [
    *("--generator.network", "example-flat", "--discriminator.network", "example-flat"),
    *("--generator.normalization", "none", "--generator.initialization", "torch"),
    *("--objective.loss", "example-loss", "--objective.penalties.example-drift", "0.01"),
    *("--latent.distribution", "example-triangular", "--discriminator_optimizer.name", "example-sgd"),
    *("--generator_optimizer.schedule", "example-halving"),
    *("--augment.operations", "example-negative", "--augment.probability", "0.25"),
    *("--recipe", "mnist", "--no-conditional", "--size", "16", "--batch-size", "16", "--precision", "fp32", "--quiet"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Return a folder with the installed package, to be put on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    subprocess.run(["cp", "-r", str(PACKAGE), str(source)], check=True)  # pip builds in the source folder
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder / "site"), str(source)], check=True)
    return folder / "site"


def environment(site: Path | None) -> dict[str, str]:
    paths = [*([] if site is None else [str(site)]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def cardigan(site: Path | None, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cardigan", *map(str, words)],
        env=environment(site),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Return digits in the plug-in's file format."""
    path = tmp_path_factory.mktemp("source") / "digits.raw16"
    path.write_bytes(load_mnist("train").pixels[:256, 0, 6:22, 6:22].numpy().tobytes())
    return path


@pytest.fixture(scope="module")
def run(site, source, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    done = cardigan(site, "train", source, *SETTINGS, "--data.num_workers", "2", "--images", "64", "--out", path)
    assert done.returncode == 0, done.stderr
    return path


def test_run_with_a_plugin_trains_resumes_and_remembers_it(site, source, run):
    done = cardigan(site, "train", source, *SETTINGS, "--images", "96", "--out", run, "--resume")
    assert done.returncode == 0, done.stderr
    progress = [event for event in read_events(run / "journal.jsonl") if event.kind == "progress"]
    assert progress[0].values["example-drift"] >= 0 and progress[-1].images_seen == 96
    rates = {event.images_seen: event.values["generator_learning_rate"] for event in progress}
    assert rates[96] == pytest.approx(2e-3 * 0.5 ** (80 / 32), rel=1e-5)  # the last step began at 80 images
    content = json.loads((run / "config.json").read_bytes())
    assert content["provenance"]["plugins"] == {"cardigan-example": "1.5"}
    assert read_metadata(run / "generator.safetensors")["plugins"] == {"cardigan-example": "1.5"}
    assert "cardigan-example" in cardigan(site, "info", run).stdout


def test_discriminator_on_a_plugins_backbone(site, source, tmp_path):
    settings = ["--recipe", "images", "--discriminator.options.backbone", "example-edges", "--quiet"]
    sizes = ["--size", "16", "--generator.width", "4", "--images", "64", "--minutes", "5"]
    run = tmp_path / "run"
    done = cardigan(site, "train", source, *settings, *sizes, "--out", run)
    assert done.returncode == 0, done.stderr
    refused = cardigan(None, "train", source, *settings, *sizes, "--out", tmp_path / "other")
    assert refused.returncode == 2 and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "RUN", "-n", "4", "--out", "OUT.png"),
        ("check", "SOURCE"),
        ("export", "RUN", "--format", "safetensors", "--out", "OUT.safetensors"),
    ],
    ids=lambda words: words[0],
)
def test_commands_know_the_plugin(site, source, run, tmp_path, words):
    places = {
        "RUN": str(run),
        "SOURCE": str(source),
        "OUT.png": str(tmp_path / "a.png"),
        "OUT.safetensors": str(tmp_path / "a.safetensors"),
    }
    done = cardigan(site, *(places.get(word, word) for word in words))
    assert done.returncode == 0, done.stderr


def test_evaluation_by_a_plugins_metric_and_extractor(site, run):
    words = ["--metrics", "example-mean,frechet", "--extractor", "example-quadrants", "--samples", "100", "--json"]
    done = cardigan(site, "evaluate", run, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["metrics"]) == {"example-mean-distance", "fd_example_quadrants"}
    assert (
        report["metrics"]["example-mean-distance"]["value"]
        > report["metrics"]["example-mean-distance"]["standard_error"]
    )
    assert report["protocol"]["extractor"] == "example-quadrants" and report["protocol"]["num_reference"] == 256


def test_export_in_a_plugins_format(site, run, tmp_path):
    done = cardigan(site, "export", run, "--format", "example-array", "--out", tmp_path / "a.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "a.npy").shape == (16, 1, 16, 16)
    assert '`numpy.load("a.npy")`' in (tmp_path / "a.npy.card.md").read_text()


@pytest.mark.parametrize(
    ("command", "names"),
    [("evaluate", ["example-mean", "example-quadrants"]), ("export", ["example-array"])],
    ids=["evaluate", "export"],
)
def test_help_names_what_the_plugin_adds(site, command, names):
    done = cardigan(site, command, "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in names)


def test_unknown_source_lists_the_plugins_format(site, tmp_path):
    done = cardigan(site, "check", tmp_path / "nothing")
    assert done.returncode == 2 and "raw images (.raw16)" in done.stderr and done.stderr.count("\n") == 1


def test_page_of_a_plugins_distribution_is_refused(site, run, tmp_path):
    done = cardigan(site, "export", run, "--format", "html", "--out", tmp_path / "a.html")
    assert done.returncode == 2 and "samples from 'example-triangular'" in done.stderr and not list(tmp_path.iterdir())


@contextmanager
def server(site: Path, *words: str | Path) -> Iterator[str]:
    """Yield the address of `cardigan serve` or `cardigan studio`, which end with the block."""
    command = [sys.executable, "-m", "cardigan", *map(str, words), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, env=environment(site), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(match[0] for line in process.stdout if (match := re.search(r"http://[^ ]+?:\d+/", line)))
        finally:
            process.terminate()


def test_server_knows_the_plugin(site, run):
    with server(site, "serve", run) as address:
        request = urllib.request.Request(f"{address}v1/images", b'{"n": 2, "seed": 0}', {"accept": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.read().startswith(b"\x89PNG")


def test_studio_knows_the_plugin(site, run):
    with server(site, "studio", run.parent, "--no-open") as address:
        with urllib.request.urlopen(f"{address}api/seeds.png?run={run.name}&seeds=0-3", timeout=60) as response:
            assert response.read().startswith(b"\x89PNG")
        with urllib.request.urlopen(f"{address}api/discriminator?run={run.name}", timeout=60) as response:
            assert len(json.load(response)["fake"]) == 16


def test_several_processes_know_the_plugin(site, source, tmp_path):
    words = [
        "train",
        source,
        *SETTINGS,
        "--data.cache",
        "none",
        "--data.num_workers",
        "1",
        "--images",
        "32",
        "--devices",
        "2",
        "--device",
        "cpu",
    ]
    done = cardigan(site, *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr


def test_missing_plugin_is_named(source, run, tmp_path):
    for words in (
        ("sample", run, "-n", "1", "--out", tmp_path / "a.png"),
        ("train", source, "--out", run, "--resume"),
    ):
        done = cardigan(None, *words)
        assert done.returncode == 2
        assert "pip install cardigan-example" in done.stderr and done.stderr.count("\n") == 1


def test_broken_plugin_is_named(site, tmp_path):
    (tmp_path / "cardigan_example.py").write_text("raise RuntimeError('broken')\n")
    paths = os.pathsep.join([str(tmp_path), str(site)])
    done = cardigan(Path(paths), "recipes")
    assert done.returncode == 2 and "cardigan-example 1.5 cannot be imported (RuntimeError: broken)" in done.stderr
