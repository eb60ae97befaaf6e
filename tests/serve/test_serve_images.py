"""Served images are bit-identical to the model's, under any load and in every media type."""

import base64
import io
import threading
import zipfile

import numpy as np
import pytest
from http_client import NAMES, http_request, load_served_model, running_server, save_random_model, slow_down
from PIL import Image

import cardigan
from cardigan.serve.app import RequestLimits


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def model(path):
    return cardigan.load(path)


@pytest.fixture(scope="module")
def port(path):
    with running_server(load_served_model(path)) as (port, _):
        yield port


def npz_arrays(content):
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def generated_images(port, body):
    status, _, content = http_request(port, body, "application/x-npz")
    assert status == 200, content
    return npz_arrays(content)


def decode_image(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_seed_and_index_equal_sample(port, model):
    found = generated_images(port, {"n": 5, "seed": 3, "truncation": 0.5})
    assert np.array_equal(found["images"], model.sample(5, seed=3, truncation=0.5))
    assert len(np.unique(found["images"])) > 50  # the images are not flat
    assert found["seed"] == 3
    assert found["labels"].shape == (5,)


def test_seeds_and_labels_equal_sample_seeds(port, model):
    found = generated_images(port, {"seeds": [5, 2**63 - 1, 5], "labels": [1, 2, 9]})
    assert np.array_equal(found["images"], model.sample_seeds([5, 2**63 - 1, 5], labels=[1, 2, 9]))
    assert found["labels"].tolist() == [1, 2, 9]
    one = generated_images(port, {"seeds": [5, 6], "labels": 1})
    assert np.array_equal(one["images"], model.sample_seeds([5, 6], labels=1))
    assert not np.array_equal(one["images"][0], found["images"][2])


def test_latents_are_used_unchanged(port, model):
    from cardigan.latents.sampling import sample_latents

    z = sample_latents("normal", [(7, 0), (8, 0)], model.config.latent.size)
    body = {"latents": z.tolist(), "labels": [3, 4], "truncation": 0.5}
    assert np.array_equal(
        generated_images(port, body)["images"], model.sample_seeds([7, 8], labels=[3, 4], truncation=0.5)
    )


def test_random_seed_is_returned(port, model):
    first, second = (generated_images(port, {"n": 3}) for _ in range(2))
    assert len({*first["seeds"].tolist(), *second["seeds"].tolist()}) == 6
    assert np.array_equal(first["images"], model.sample_seeds(first["seeds"].tolist()))
    status, headers, content = http_request(port, None, "*/*")
    assert (status, headers["content-type"]) == (200, "image/png")
    seed, label = int(headers["cardigan-seeds"]), int(headers["cardigan-labels"])
    assert np.array_equal(decode_image(content), model.sample_seeds([seed], labels=label)[0, :, :, 0])


@pytest.mark.parametrize("kind", ["image/png", "image/webp"])
def test_one_image_or_a_grid(port, model, kind):
    expected = model.sample(4, seed=1)
    _, headers, content = http_request(port, {"n": 1, "seed": 1}, kind)
    assert headers["content-type"] == kind
    shown = decode_image(content)
    assert np.array_equal(shown if shown.ndim == 2 else shown[:, :, 0], expected[0, :, :, 0])
    sheet = decode_image(http_request(port, {"n": 4, "seed": 1}, kind)[2])
    sheet = sheet if sheet.ndim == 2 else sheet[:, :, 0]
    assert sheet.shape == (66, 66)
    assert np.array_equal(sheet[34:, 34:], expected[3, :, :, 0])


def test_json_and_zip_contain_pngs(port, model):
    import json

    expected = model.sample(3, seed=1)
    found = json.loads(http_request(port, {"n": 3, "seed": 1}, "application/json")[2])
    assert (found["seed"], found["seeds"], found["truncation"], len(found["labels"])) == (1, None, 1.0, 3)
    assert all(
        np.array_equal(decode_image(base64.b64decode(image)), part[:, :, 0])
        for image, part in zip(found["images"], expected, strict=True)
    )
    with zipfile.ZipFile(io.BytesIO(http_request(port, {"n": 3, "seed": 1}, "application/zip")[2])) as archive:
        assert archive.namelist() == ["000000.png", "000001.png", "000002.png", "index.json"]
        assert np.array_equal(decode_image(archive.read("000002.png")), expected[2, :, :, 0])
        assert json.loads(archive.read("index.json"))["labels"] == found["labels"]


@pytest.mark.parametrize(("accept", "kind"), [
    ("image/*", "image/png"),
    ("text/html,image/webp;q=0.9,*/*;q=0.1", "image/webp"),
    ("image/png;q=0, */*", "image/webp"),
    ("application/*", "application/json"),
    ("APPLICATION/ZIP", "application/zip"),
])  # fmt: skip
def test_content_negotiation(port, accept, kind):
    assert http_request(port, {"seed": 0}, accept)[1]["content-type"] == kind


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_color_channels(tmp_path, channels):
    path = save_random_model(tmp_path / "generator.safetensors", classes=0, channels=channels)
    with running_server(load_served_model(path)) as (port, _):
        expected = cardigan.load(path).sample(2, seed=4)
        assert np.array_equal(generated_images(port, {"n": 2, "seed": 4})["images"], expected)
        shown = decode_image(http_request(port, {"seed": 4}, "image/png")[2])
        assert np.array_equal(shown, expected[0] if channels > 2 else expected[0, :, :, 0])


def test_class_names(tmp_path):
    path = save_random_model(tmp_path / "generator.safetensors", classes=3, names=NAMES)
    with running_server(load_served_model(path)) as (port, _):
        found = generated_images(port, {"seeds": [1, 2, 3], "labels": ["dog", 0, "10"]})
        assert found["labels"].tolist() == [1, 0, 2]
        status, _, content = http_request(port, {"labels": "dgo"})
        assert status == 400
        assert b"did you mean 'dog'" in content


def test_image_does_not_depend_on_batch(path, model):
    """Forty concurrent requests of different sizes share batches; each gets the same images as when alone."""
    slow, sizes = slow_down(load_served_model(path), 0.01)
    wrong, requests = (
        [],
        [
            {"n": 1 + number * 7 % 90, "seed": number, "labels": number % 10, "truncation": 1 - number / 100}
            for number in range(40)
        ],
    )
    expected = [model.sample(body["n"], body["seed"], body["labels"], body["truncation"]) for body in requests]
    with running_server(slow, RequestLimits(max_queued_images=4_000)) as (port, service):
        del sizes[:]

        def check(number):
            if not np.array_equal(generated_images(port, requests[number])["images"], expected[number]):
                wrong.append(number)

        threads = [threading.Thread(target=check, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total = sum(body["n"] for body in requests)
        text = service.metrics.render().decode()
    assert wrong == []
    assert len(sizes) < 1.5 * total / 16 + 8  # they shared their batches
    assert f'cardigan_images_total{{media_type="application/x-npz"}} {float(total)}' in text
    assert f"cardigan_batch_images_sum {float(total)}" in text
    assert 'cardigan_requests_total{path="/v1/images",status="200"} 40.0' in text
    assert "cardigan_queue_images 0.0" in text
    assert "cardigan_request_seconds_count 40.0" in text
