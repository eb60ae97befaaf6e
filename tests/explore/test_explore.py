"""Exploration tools against their definitions: interpolation, arithmetic, directions, inversion, saliency, features."""

import gc
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.backbones.efficientnet import is_installed
from cardigan.errors import CardiganError
from cardigan.explore.ablation import SeedBox, ablate_channels, ablation_rows, box_channels, parse_box, without_channels
from cardigan.explore.arithmetic import latent_arithmetic
from cardigan.explore.directions import move_along_directions, principal_directions
from cardigan.explore.features import discriminator_features, linear_probe_error, local_outlier_factor
from cardigan.explore.inversion import invert
from cardigan.explore.preprocessing import preprocess_image
from cardigan.explore.probe import load_probe_images, probe_discriminator
from cardigan.explore.saliency import (
    discriminator_logits,
    feature_rows,
    guided_backpropagation,
    input_gradient,
    max_activations,
    signed_heatmap,
)
from cardigan.figures.animation import encode_animation
from cardigan.latents.interpolation import (
    interpolate_corners,
    interpolation_grid_latents,
    lerp,
    point_latents,
    slerp,
    walk_latents,
)
from cardigan.latents.points import encode_latent
from cardigan.models.run_networks import load_networks
from cardigan.models.sampling import generate_pixels, sample_keys, sample_pixels
from cardigan.nets.interface import Generator, mean_over_heads
from cardigan.pixels import decode, encode

SMALL = {
    **{"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{
        "generator.initialization": "torch",
        "ema.half_life_images": 0,
        "ema.rampup_ratio": 0.0,
    },  # so that images of untrained networks differ
}
NETWORKS = {
    "dcgan": {"conditional": False},
    "classes": {},
    "resnet": {"generator.network": "resnet", "discriminator.network": "resnet", "conditional": False},
    "r3gan": {
        "generator.network": "r3gan",
        "discriminator.network": "r3gan",
        "generator.normalization": "none",
        "generator.width": 8,
        "discriminator.width": 8,
    },
    "mlp": {
        "generator.network": "mlp",
        "discriminator.network": "mlp",
        "discriminator.width": 32,
        "generator.normalization": "none",
        "conditional": False,
        "objective.penalties.r1": 0.0,
        "objective.penalties.r2": 0.0,
        "objective.penalty_interval": 1,
    },
    "light": {"generator.network": "light", "discriminator.network": "r3gan", "discriminator.normalization": "none"},
}
if is_installed("efficientnet-lite0"):
    NETWORKS["projected"] = {
        **{"generator.network": "light", "discriminator.network": "projected"},
        **{"discriminator.options.head_width": 8, "discriminator.options.image_width": 4},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: cardigan.train("mnist", out=folder / name, images=32, overrides={**SMALL, **more}).path
        for name, more in NETWORKS.items()
    }


@pytest.fixture(scope="module")
def color_runs(tmp_path_factory):
    """A run on non-square RGBA images, and the folder of the images."""
    folder = tmp_path_factory.mktemp("color")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        image = np.full((24, 16, 4), rng.integers(100, 156, 4), np.uint8)
        image[..., 3] = 200
        Image.fromarray(image).save(folder / "images" / f"{number:02}.png")
    size = {
        "data.height": 24,
        "data.width": 16,
        "data.channels": 4,
        "augment.operations": "",
        "augment.probability": 0.0,
    }
    overrides = {**SMALL, **size}
    run = cardigan.train(folder / "images", recipe="images-dcgan", out=folder / "run", images=160, overrides=overrides)
    return run.path, folder / "images"


def networks_and_images(path):
    networks = load_networks(path)
    count = 12
    pixels = sample_pixels(networks.snapshot, sample_keys(count, 5))
    labels = torch.arange(count) % networks.snapshot.spec.num_classes if networks.snapshot.spec.num_classes else None
    return networks, pixels, labels


def test_slerp_and_lerp():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    t = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(lerp(a, b, t)[1], torch.tensor([1.5, 2.5]))
    arc = slerp(a, b, t)
    assert torch.equal(arc[0], a[0]) and torch.equal(arc[2], b[0])
    assert torch.allclose(arc[1], torch.full((2,), 4 / math.sqrt(2)))  # half the angle, the mean length
    back = slerp(a, -a, torch.tensor([0.5]))
    assert abs(float(back.norm()) - 3) < 1e-5 and abs(float((back * a).sum())) < 1e-5  # opposite points have an arc too


def test_walks_and_grids_pass_their_latents(runs):
    config = cardigan.load(runs["dcgan"]).config
    stops = point_latents(config, [3, 1, 4])
    walk = walk_latents(config, stops, 9)
    assert len(walk) == 9 and torch.equal(walk[[0, 4, 8]], stops)
    assert torch.equal(walk_latents(config, stops, 9, loop=True)[[0, 3, 6]], stops)
    corners = point_latents(config, [0, 1, 2, 3])
    positions = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert all(
        torch.equal(interpolate_corners(config, corners, *position)[0], corner)
        for position, corner in zip(positions, corners, strict=True)
    )
    assert torch.equal(
        point_latents(config, [0, encode_latent(corners[1:2]), encode_latent(corners[2:3], 7)]), corners[:3]
    )
    assert torch.equal(interpolation_grid_latents(config, corners, 0.5, 0.5, 3, 1.0)[[0, 2, 6, 8]], corners)
    assert np.array_equal(
        encode(cardigan.load(runs["dcgan"]).snapshot.generator(stops)).permute(0, 2, 3, 1),
        cardigan.load(runs["dcgan"]).sample_seeds([3, 1, 4]),
    )
    for wrong, words in (
        (lambda: walk_latents(config, stops[:1], 9), "at least 2"),
        (lambda: point_latents(config, [-1]), "seed is -1"),
        (lambda: point_latents(config, []), "at least one"),
        (lambda: point_latents(config, [encode_latent(torch.full((1, 64), float("nan")))]), "not finite"),
        (lambda: walk_latents(config, stops, 2), "3.."),
    ):
        with pytest.raises(CardiganError, match=words):
            wrong()


class LabelGenerator(Generator):
    """A generator of a plug-in that takes labels only: each image has its class as its gray value."""

    def __init__(self):
        super().__init__()
        self.levels = torch.nn.Parameter(torch.linspace(-1, 1, 5))

    def forward(self, z, labels=None):
        assert not labels.is_floating_point()
        return self.levels[labels][:, None, None, None].expand(-1, 1, 8, 8)


def test_generator_of_labels_gets_the_largest_class_weight():
    weights = torch.tensor([[0.0, 1, 0, 0, 0], [0.1, 0.2, 0.3, 0, 0.4], [0, 0, 0.5, 0.5, 0]])
    pixels = generate_pixels(LabelGenerator(), torch.zeros(3, 4), weights)
    assert torch.equal(pixels, generate_pixels(LabelGenerator(), torch.zeros(3, 4), torch.tensor([1, 4, 2])))


def test_latent_arithmetic():
    z = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(
        latent_arithmetic([z[:2], z[2:3]], [z[3:]]), z[:2].mean(0, keepdim=True) + z[2:3] - z[3:].mean(0, keepdim=True)
    )
    with pytest.raises(CardiganError, match="No group to add"):
        latent_arithmetic([], [z])


@pytest.mark.parametrize("name", NETWORKS)
def test_directions_are_deterministic_and_change_images(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    found, again = (principal_directions(snapshot, 4, samples=200) for _ in range(2))
    assert torch.equal(found.vectors, again.vectors)
    assert torch.allclose(found.vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    assert (found.explained_variance_ratio.diff() <= 1e-6).all() and 0 < float(
        found.explained_variance_ratio.sum()
    ) <= 1 + 1e-5
    z = point_latents(snapshot.config, [1])
    assert torch.allclose(
        move_along_directions(z, found, {0: 2.0}) - z, 2 * found.std[0] * found.vectors[:1], atol=1e-5
    )
    with pytest.raises(CardiganError, match=r"expected 0\.\.3"):
        move_along_directions(z, found, {4: 1.0})


def test_directions_of_linear_layer_are_singular_vectors(runs):
    snapshot = cardigan.load(runs["mlp"]).snapshot
    weight = snapshot.generator.hidden[0].weight
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    weight.copy_(left @ torch.diag(torch.tensor([9.0, 4.0, 2.0, *[0.1] * (len(values) - 3)])) @ right)
    found = principal_directions(snapshot, 3, samples=1000)
    assert ((found.vectors * right[:3]).sum(1).abs() > 0.95).all()  # of 1,000 samples
    assert torch.allclose(found.std, torch.ones(3), rtol=0.1)  # one standard deviation of z, which is normal
    assert torch.allclose(found.explained_variance_ratio, torch.tensor([81.0, 16.0, 4.0]) / 101, rtol=0.15)


@pytest.mark.parametrize("name", NETWORKS)
def test_discriminator_logits_and_input_gradient(runs, name):
    """A small step along the input gradient raises D's logit by step size times squared gradient norm."""
    networks, pixels, labels = networks_and_images(runs[name])
    gradient = input_gradient(networks, pixels, labels)
    squared_norm = gradient.square().flatten(1).sum(1)
    assert (squared_norm > 0).all()
    step = (5e-4 / squared_norm)[:, None, None, None]  # raises every logit by 5e-4, far above rounding
    with torch.no_grad():
        before, after = (
            mean_over_heads(networks.discriminator(decode(pixels) + scale * step * gradient, labels))
            for scale in (0, 1)
        )
    assert torch.allclose(discriminator_logits(networks, pixels, labels), before, atol=1e-5)
    assert torch.allclose(after - before, torch.full((12,), 5e-4), rtol=0.1)
    assert signed_heatmap(gradient).shape == (12, 3, 32, 32)


def test_saliency_colors():
    gradient = torch.zeros(1, 1, 8, 8)
    gradient[0, 0, 0, 0], gradient[0, 0, 7, 7] = -1.0, 1.0
    image = signed_heatmap(gradient)[0].int()
    assert image[2, 0, 0] > image[0, 0, 0] and image[0, 7, 7] > image[2, 7, 7]
    assert len(image[:, 3, 3].unique()) <= 2  # the rest is neutral


def test_guided_backpropagation_closed_form(runs):
    """Equals a manual computation through one rectifier, for the strongest position of one feature."""
    networks, pixels, _ = networks_and_images(runs["dcgan"])
    convs, layer = networks.discriminator.down_convs, 1
    images = decode(pixels).requires_grad_()
    first = convs[0](images)
    second = convs[1](torch.nn.functional.leaky_relu(first, 0.2))
    strongest = second[:, 3].flatten(1).amax(1)
    (above,) = torch.autograd.grad(strongest.sum(), first, retain_graph=True)
    above = torch.where(first > 0, above, above / 0.2)  # gradient at the rectifier's output
    (expected,) = torch.autograd.grad(first, images, above.clamp(min=0) * (first > 0))
    found = guided_backpropagation(networks, pixels, None, feature=3, layer=layer)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7) and found.abs().max() > 0
    assert not torch.allclose(
        found, torch.autograd.grad(convs[0](images), images, above)[0], rtol=1e-2
    )  # plain backpropagation


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_feature_visualization(runs, name):
    networks, pixels, labels = networks_and_images(runs[name])
    activations = max_activations(networks, pixels, labels)
    rows = feature_rows(networks, pixels, labels)
    assert all(row.shape == (12, 1, 32, 32) for row in rows) and len(rows) == min(8, activations.shape[1])
    assert any(row[6:].float().std() > 0 for row in rows)
    with pytest.raises(CardiganError, match="feature is 9999"):
        guided_backpropagation(networks, pixels, labels, 9999)


def test_guided_backpropagation_rejects_maxout(runs):
    networks, pixels, labels = networks_and_images(runs["mlp"])
    with pytest.raises(CardiganError, match="maxout"):
        guided_backpropagation(networks, pixels, labels, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_ablating_no_or_all_channels(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    z = point_latents(snapshot.config, range(4))
    labels = torch.zeros(4, dtype=torch.long) if snapshot.spec.num_classes else None
    original = sample_pixels(snapshot, [(seed, 0) for seed in range(4)], labels)
    assert torch.equal(ablate_channels(snapshot, z, labels, [], 0), original)
    assert not torch.equal(ablate_channels(snapshot, z, labels, [0, 1, 2], 0), original)
    rows = ablation_rows(snapshot, [0, 1])
    assert torch.equal(rows[0], sample_pixels(snapshot, [(0, 0), (1, 0)])) and not torch.equal(rows[-1], rows[0])
    with pytest.raises(CardiganError, match="channel is 100000"):
        ablate_channels(snapshot, z, labels, [100_000], 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_ablation_removes_box_content(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    boxes = [SeedBox(0, 0, 0, 32, 12), SeedBox(3, 0, 4, 32, 12)]
    if name == "mlp":
        with pytest.raises(CardiganError, match="no positions"):
            box_channels(snapshot, boxes)
        return
    channels = box_channels(snapshot, boxes)
    original, ablated = without_channels(snapshot, [0, 3], channels)
    assert torch.equal(original, sample_pixels(snapshot, [(0, 0), (3, 0)])) and not torch.equal(original, ablated)
    assert channels == box_channels(snapshot, boxes)
    elsewhere = box_channels(snapshot, [SeedBox(0, 0, 20, 32, 32), SeedBox(3, 0, 20, 32, 32)])
    assert set(channels) != set(elsewhere)
    for wrong, words in (
        ([SeedBox(0, 0, 0, 33, 5)], "extends to 33"),
        ([SeedBox(0, 0, 0, 32, 32)], "mark a part"),
        ([], "No box"),
    ):
        with pytest.raises(CardiganError, match=words):
            box_channels(snapshot, wrong)


def test_box_channels_are_those_active_in_the_box(runs):
    """Channel 2 is raised in the upper half of the feature maps, channel 5 in the lower: an upper box selects 2."""
    snapshot = cardigan.load(runs["dcgan"]).snapshot
    layer = snapshot.generator.norms[-2]

    def raise_channels(module, inputs, out):
        out = 0.01 * out
        middle = out.shape[2] // 2
        out[:, 2, :middle] += 1
        out[:, 5, middle:] += 1
        return out

    hook = layer.register_forward_hook(raise_channels)
    try:
        channels = box_channels(snapshot, [SeedBox(1, 0, 0, 32, 16)])
    finally:
        hook.remove()
    assert 2 in channels and 5 not in channels


@pytest.mark.parametrize("text", ["", "3", "3:1,2,3", "3:5,5,5,9", "3:-1,0,4,4", "a:1,2,3,4"])
def test_invalid_box_raises(text):
    with pytest.raises(CardiganError, match="expected a seed and a box"):
        parse_box(text)


@pytest.mark.parametrize("name", NETWORKS)
def test_inversion_recovers_generated_image(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    images = sample_pixels(snapshot, sample_keys(8, 99))
    found, again = (invert(snapshot, images[:1], steps=60) for _ in range(2))
    assert torch.equal(found.z, again.z) and found.rmse == again.rmse
    between_images = (images[1:].double() - images[:1].double()).square().mean().sqrt()
    assert found.rmse <= 0.5 * between_images, (found.rmse, between_images)
    assert found.rmse < 0.8 * invert(snapshot, images[:1], steps=1).rmse
    assert (found.label is None) == (snapshot.spec.num_classes == 0)


def test_inversion_rejects_unsupported_input(runs):
    snapshot = cardigan.load(runs["dcgan"]).snapshot
    image = sample_pixels(snapshot, sample_keys(1, 0))
    for arguments, words in (
        ({"image": image[:, :, :8]}, "expected 1x1x32x32"),
        ({"image": image, "label": 3}, "unconditional"),
        ({"image": image, "steps": 0}, "steps is 0"),
    ):
        with pytest.raises(CardiganError, match=words):
            invert(snapshot, **arguments)


def test_noise_among_digits_is_an_outlier(runs):
    """Among real digits, noise and inverted digits have the largest scores."""
    networks = load_networks(runs["dcgan"])
    digits = encode(cardigan.load_mnist("train").images_at(torch.arange(300), networks.snapshot.config.data))
    noise = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    odd = torch.cat([noise, 255 - digits[:3]])
    reference, query = (
        discriminator_features(networks, digits[:200]),
        discriminator_features(networks, torch.cat([digits[200:], odd])),
    )
    order = local_outlier_factor(reference, query).argsort(descending=True).tolist()
    assert set(order[:6]) == set(range(100, 106))
    same_rows = local_outlier_factor(reference, reference, same_rows=True)
    assert (same_rows > 0).all() and (local_outlier_factor(reference, reference) < same_rows).all()
    with pytest.raises(CardiganError, match="at least 6"):
        local_outlier_factor(reference[:5], query)


def test_local_outlier_factor_closed_form():
    line = torch.arange(100.0)[:, None]
    far = (149.0 - torch.arange(95.0, 100)).mean() / torch.tensor(
        [1.8, 1.8, 1.8, 2.2, 3.0]
    ).mean()  # mean distances of 95, ..., 99
    assert torch.allclose(
        local_outlier_factor(line, torch.tensor([[50.5], [149.0]])),
        torch.stack([torch.tensor(1.3 / 1.8), far]),
        rtol=1e-4,
    )
    assert torch.allclose(local_outlier_factor(line, line, same_rows=True)[20:80], torch.ones(60), rtol=1e-4)
    dense, sparse = torch.randn(200, 20, generator=torch.Generator().manual_seed(0)).split(100)
    reference = torch.cat([dense * 0.1, sparse + 5])
    scores = local_outlier_factor(reference, torch.cat([reference[100:], torch.full((1, 20), 0.5)]))
    # Closer to its neighbors than rows of the sparse cluster are to theirs, but far for the dense one.
    assert int(scores.argmax()) == 100
    copies = torch.cat([line, torch.zeros(50, 1)])
    assert torch.isfinite(local_outlier_factor(copies, line)).all()


def test_probe_resizes_digits_as_in_training(runs, tmp_path):
    """Digits are padded, not enlarged, as a single file and in a folder; other sources follow data/decoding.py."""
    config = cardigan.load(runs["dcgan"]).config
    digits = cardigan.load_mnist("test")
    expected = encode(digits.images_at(torch.arange(8), config.data))
    for number in range(8):
        Image.fromarray(digits.pixels[number, 0].numpy()).save(tmp_path / f"{number}.png")
    assert torch.equal(preprocess_image((tmp_path / "0.png").read_bytes(), config.data), expected[:1])
    (tmp_path / "8.png").write_bytes(b"not an image")
    found = load_probe_images(config, str(tmp_path), "", 20)
    assert torch.equal(found.pixels, expected) and found.titles == [f"{number}.png" for number in range(8)]
    Image.new("RGB", (90, 60), "white").save(tmp_path / "large.png")
    assert (
        preprocess_image((tmp_path / "large.png").read_bytes(), config.data).float().mean() == 255 * 21 / 32
    )  # 90x60 becomes 32x21
    other = preprocess_image((tmp_path / "0.png").read_bytes(), replace(config.data, source="elsewhere"))
    assert other.shape == expected[:1].shape and not torch.equal(other, expected[:1])


@pytest.mark.parametrize("name", NETWORKS)
def test_linear_probe_learns_from_features(runs, name):
    networks = load_networks(runs[name])
    source = cardigan.load_mnist("train")
    rows = discriminator_features(networks, encode(source.images_at(torch.arange(400), networks.snapshot.config.data)))
    error = linear_probe_error(rows[:300], source.labels[:300], rows[300:], source.labels[300:400])
    assert error < 0.8  # guessing has an error of 0.9


def test_probe_rejects_one_hot_conditioned_discriminator(tmp_path):
    run = cardigan.train(
        "mnist", out=tmp_path / "run", images=16, overrides={**SMALL, "discriminator.conditioning": "one-hot"}
    ).path
    with pytest.raises(CardiganError, match="depend on the class"):
        discriminator_features(load_networks(run), torch.zeros(2, 1, 32, 32, dtype=torch.uint8))


def test_probed_images_are_spread_over_the_source(runs, tmp_path):
    for number in range(60):
        folder = tmp_path / f"class{number // 6}"
        folder.mkdir(exist_ok=True)
        Image.new("L", (28, 28), number).save(folder / f"{number:02}.png")
    found = load_probe_images(cardigan.load(runs["dcgan"]).config, str(tmp_path), "folders", 20)
    assert len(found.titles) == 20 and sorted(set(found.labels.tolist())) == list(range(10))


def test_images_of_any_shape_and_channels(color_runs):
    path, images = color_runs
    networks = load_networks(path)
    found = probe_discriminator(networks, str(images))
    assert found.compared_with == "each other" and len(found.images.titles) == 24 and found.linear_probe_error is None
    assert feature_rows(networks, found.images.pixels, None)[0].shape == (12, 4, 24, 16)
    assert invert(networks.snapshot, found.images.pixels[:1], steps=3).pixels.shape == (1, 4, 24, 16)
    assert signed_heatmap(input_gradient(networks, found.images.pixels, None)).shape == (24, 3, 24, 16)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animation_frame_durations(tmp_path, kind):
    frames = (torch.arange(6)[:, None, None, None] * 40).expand(6, 1, 20, 12).to(torch.uint8)
    (tmp_path / f"animation.{kind}").write_bytes(encode_animation(frames, 10.0, kind))
    with Image.open(tmp_path / f"animation.{kind}") as shown:
        assert shown.n_frames == 6 and min(shown.size) >= 192
        values = []
        for frame in range(6):
            shown.seek(frame)
            values.append(int(np.asarray(shown.convert("L"))[5, 5]))
            assert shown.info["duration"] == 100
    assert values == [0, 40, 80, 120, 160, 200]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)  # imageio-ffmpeg leaves its pipes open
def test_mp4_is_padded_to_even_size_and_deterministic(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = (torch.arange(6)[:, None, None, None] * 40).expand(6, 4, 201, 199).to(torch.uint8)
    content = encode_animation(frames, 10.0, "mp4")
    assert content == encode_animation(frames, 10.0, "mp4")
    (tmp_path / "animation.mp4").write_bytes(content)
    reader = ffmpeg.read_frames(str(tmp_path / "animation.mp4"))
    facts = next(reader)
    assert facts["size"] == (200, 202) and facts["fps"] == 10
    shown = [np.frombuffer(frame, np.uint8).reshape(202, 200, 3)[100, 100] for frame in reader]
    expected = [255 - value + value * value // 255 for value in range(0, 240, 40)]  # transparent on white
    assert np.abs(np.array(shown, int) - np.array(expected)[:, None]).max() <= 4
    del reader
    gc.collect()  # now, not in a later test


def test_mp4_without_ffmpeg_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(CardiganError, match=r"cardigan\[video\]"):
        encode_animation(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 5.0, "mp4")


def test_animation_composites_alpha_on_white():
    clear = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    clear[1] = 255
    assert encode_animation(clear, 5.0, "gif")[:3] == b"GIF"
    with pytest.raises(CardiganError, match="expected webp, gif, mp4"):
        encode_animation(clear, 5.0, "avi")
    with pytest.raises(CardiganError, match="a rate above 0, at most 100"):
        encode_animation(clear, 0.0, "gif")


def test_networks_need_a_checkpoint(runs, tmp_path):
    assert load_networks(runs["dcgan"] / "checkpoints" / "00000032").images_seen == 32
    for wrong, words in (
        (runs["dcgan"] / "generator.safetensors", "only a generator"),
        (tmp_path, "holds no discriminator"),
    ):
        with pytest.raises(CardiganError, match=words):
            load_networks(wrong)


def test_packed_discriminator_is_rejected(tmp_path):
    run = cardigan.train(
        "mnist", out=tmp_path / "run", images=16, overrides={**SMALL, "pac": 2, "conditional": False}
    ).path
    networks = load_networks(run)
    pixels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    for call in (
        lambda: discriminator_logits(networks, pixels, None),
        lambda: input_gradient(networks, pixels, None),
        lambda: discriminator_features(networks, pixels),
    ):
        with pytest.raises(CardiganError, match="packs of 2"):
            call()
