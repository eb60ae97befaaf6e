"""What a trained model has learned: paths, sums, directions, inversion, D's features and wishes; each against what it must be by definition."""

import gc
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.errors import CardiganError
from cardigan.explore.arithmetic import mixed
from cardigan.explore.directions import moved, principal_directions
from cardigan.explore.features import features, linear_error, strangeness
from cardigan.explore.forgetting import Window, forgotten, parse_window, window_channels
from cardigan.explore.frames import in_frame
from cardigan.explore.game import guided_backpropagation, heat, opinions, responses, wanted_change
from cardigan.explore.inversion import invert
from cardigan.explore.paths import around, between_four, latents_of, linear, spherical, walk
from cardigan.explore.points import point_text
from cardigan.explore.probing import pictures_of, probed
from cardigan.explore.removal import removed
from cardigan.explore.sheets import feature_rows, removal_rows
from cardigan.figures.film import film
from cardigan.pixels import decode, encode
from cardigan.run.players import read_players
from cardigan.run.snapshot import numbered, sample_pixels

SMALL = {
    **{"batch": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{"generator.initialisation": "torch", "average.half_life_images": 0, "average.ramp_up": 0.0},  # so that untrained pictures differ
}
NETWORKS = {
    "dcgan": {"conditional": False},
    "classes": {},
    "resnet": {"generator.network": "resnet", "discriminator.network": "resnet", "conditional": False},
    "r3gan": {
        "generator.network": "r3gan",
        "discriminator.network": "r3gan",
        "generator.normalisation": "none",
        "generator.width": 8,
        "discriminator.width": 8,
    },
    "mlp": {
        "generator.network": "mlp",
        "discriminator.network": "mlp",
        "discriminator.width": 32,
        "generator.normalisation": "none",
        "conditional": False,
        "objective.r1": 0.0,
        "objective.r2": 0.0,
        "objective.penalty_interval": 1,
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: cardigan.train("mnist", out=folder / name, images=32, overrides={**SMALL, **more}).path for name, more in NETWORKS.items()}


@pytest.fixture(scope="module")
def colourful(tmp_path_factory):
    """A run on pictures that are not square, with transparency; and the folder they are in."""
    folder = tmp_path_factory.mktemp("colourful")
    (folder / "pictures").mkdir()
    chance = np.random.default_rng(0)
    for number in range(24):
        shade = np.full((24, 16, 4), chance.integers(100, 156, 4), np.uint8)
        shade[..., 3] = 200
        Image.fromarray(shade).save(folder / "pictures" / f"{number:02}.png")
    size = {"data.height": 24, "data.width": 16, "data.channels": 4, "augment.operations": "", "augment.probability": 0.0}
    run = cardigan.train(folder / "pictures", out=folder / "run", images=160, overrides={**SMALL, **size})
    return run.path, folder / "pictures"


def players_of(path):
    players = read_players(path)
    count = 12
    pixels = sample_pixels(players.snapshot, numbered(count, 5))
    labels = torch.arange(count) % players.snapshot.spec.classes if players.snapshot.spec.classes else None
    return players, pixels, labels


def test_arcs_and_lines():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    t = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(linear(a, b, t)[1], torch.tensor([1.5, 2.5]))
    arc = spherical(a, b, t)
    assert torch.equal(arc[0], a[0]) and torch.equal(arc[2], b[0])
    assert torch.allclose(arc[1], torch.full((2,), 4 / math.sqrt(2)))  # half the angle, the mean length
    back = spherical(a, -a, torch.tensor([0.5]))
    assert abs(float(back.norm()) - 3) < 1e-5 and abs(float((back * a).sum())) < 1e-5  # even opposite points have an arc


def test_walks_pass_every_stop_and_squares_their_corners(runs):
    config = cardigan.load(runs["dcgan"]).config
    stops = latents_of(config, [3, 1, 4])
    way = walk(config, stops, 9)
    assert len(way) == 9 and torch.equal(way[[0, 4, 8]], stops)
    assert torch.equal(walk(config, stops, 9, loop=True)[[0, 3, 6]], stops)
    corners = latents_of(config, [0, 1, 2, 3])
    places = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert all(torch.equal(between_four(config, corners, *place)[0], corner) for place, corner in zip(places, corners, strict=True))
    assert torch.equal(latents_of(config, [0, point_text(corners[1:2]), point_text(corners[2:3], 7)]), corners[:3])
    assert torch.equal(around(config, corners, 0.5, 0.5, 3, 1.0)[[0, 2, 6, 8]], corners)
    assert np.array_equal(
        encode(cardigan.load(runs["dcgan"]).snapshot.generator(stops)).permute(0, 2, 3, 1), cardigan.load(runs["dcgan"]).sample_seeds([3, 1, 4])
    )
    for wrong, words in (
        (lambda: walk(config, stops[:1], 9), "at least 2"),
        (lambda: latents_of(config, [-1]), "seed is -1"),
        (lambda: latents_of(config, []), "at least one"),
        (lambda: latents_of(config, [point_text(torch.full((1, 64), float("nan")))]), "not finite"),
        (lambda: walk(config, stops, 2), "3.."),
    ):
        with pytest.raises(CardiganError, match=words):
            wrong()


def test_sums_of_averages():
    z = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(mixed([z[:2], z[2:3]], [z[3:]]), z[:2].mean(0, keepdim=True) + z[2:3] - z[3:].mean(0, keepdim=True))
    with pytest.raises(CardiganError, match="Nothing is added"):
        mixed([], [z])


@pytest.mark.parametrize("name", NETWORKS)
def test_directions_are_the_same_again_and_change_pictures(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    found, again = (principal_directions(snapshot, 4, samples=200) for _ in range(2))
    assert torch.equal(found.vectors, again.vectors)
    assert torch.allclose(found.vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    assert (found.share.diff() <= 1e-6).all() and 0 < float(found.share.sum()) <= 1 + 1e-5
    z = latents_of(snapshot.config, [1])
    assert torch.allclose(moved(z, found, {0: 2.0}) - z, 2 * found.spread[0] * found.vectors[:1], atol=1e-5)
    with pytest.raises(CardiganError, match=r"expected 0\.\.3"):
        moved(z, found, {4: 1.0})


def test_directions_of_a_linear_layer_are_its_singular_vectors(runs):
    snapshot = cardigan.load(runs["mlp"]).snapshot
    weight = snapshot.generator.hidden[0].weight
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    weight.copy_(left @ torch.diag(torch.tensor([9.0, 4.0, 2.0, *[0.1] * (len(values) - 3)])) @ right)
    found = principal_directions(snapshot, 3, samples=1000)
    assert ((found.vectors * right[:3]).sum(1).abs() > 0.95).all()  # of 1,000 samples
    assert torch.allclose(found.spread, torch.ones(3), rtol=0.1)  # one standard deviation of z, which is normal
    assert torch.allclose(found.share, torch.tensor([81.0, 16.0, 4.0]) / 101, rtol=0.15)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_d_thinks_and_wants(runs, name):
    """Going a little way along the change it asks for raises D's logit, by the length of the gradient."""
    players, pixels, labels = players_of(runs[name])
    change = wanted_change(players, pixels, labels)
    slope = change.square().flatten(1).sum(1)
    assert (slope > 0).all()
    far = (0.002 / slope)[:, None, None, None]  # to raise every logit by 0.002, far above rounding
    with torch.no_grad():
        before, after = (players.discriminator(decode(pixels) + way * far * change, labels).flatten() for way in (0, 1))
    assert torch.allclose(opinions(players, pixels, labels), before, atol=1e-5)
    assert torch.allclose(after - before, torch.full((12,), 0.002), rtol=0.1)
    assert heat(change).shape == (12, 3, 32, 32)


def test_heat_is_blue_where_darker_and_orange_where_brighter():
    change = torch.zeros(1, 1, 8, 8)
    change[0, 0, 0, 0], change[0, 0, 7, 7] = -1.0, 1.0
    picture = heat(change)[0].int()
    assert picture[2, 0, 0] > picture[0, 0, 0] and picture[0, 7, 7] > picture[2, 7, 7]
    assert len(picture[:, 3, 3].unique()) <= 2  # the rest is paper


def test_guided_gradients_of_two_layers_by_hand(runs):
    """The same by hand for the strongest place of one feature of the first layer: what is positive, through one rectifier."""
    players, pixels, _ = players_of(runs["dcgan"])
    halvings, layer = players.discriminator.halvings, 1
    images = decode(pixels).requires_grad_()
    first = halvings[0](images)
    second = halvings[1](torch.nn.functional.leaky_relu(first, 0.2))
    strongest = second[:, 3].flatten(1).amax(1)
    (above,) = torch.autograd.grad(strongest.sum(), first, retain_graph=True)
    above = torch.where(first > 0, above, above / 0.2)  # what comes to the rectifier, before its slope
    (expected,) = torch.autograd.grad(first, images, above.clamp(min=0) * (first > 0))
    found = guided_backpropagation(players, pixels, None, feature=3, layer=layer)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7) and found.abs().max() > 0
    assert not torch.allclose(found, torch.autograd.grad(halvings[0](images), images, above)[0], rtol=1e-2)  # plain backpropagation


@pytest.mark.parametrize("name", ["dcgan", "classes", "resnet", "r3gan"])
def test_what_excites_features_can_be_shown(runs, name):
    players, pixels, labels = players_of(runs[name])
    strength = responses(players, pixels, labels)
    rows = feature_rows(players, pixels, labels)
    assert all(row.shape == (12, 1, 32, 32) for row in rows) and len(rows) == min(8, strength.shape[1])
    assert any(row[6:].float().std() > 0 for row in rows)
    with pytest.raises(CardiganError, match="feature is 9999"):
        guided_backpropagation(players, pixels, labels, 9999)


def test_maxout_has_no_guided_gradient(runs):
    players, pixels, labels = players_of(runs["mlp"])
    with pytest.raises(CardiganError, match="maxout"):
        guided_backpropagation(players, pixels, labels, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_nothing_changes_nothing_and_all_a_lot(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    z = latents_of(snapshot.config, range(4))
    labels = torch.zeros(4, dtype=torch.long) if snapshot.spec.classes else None
    whole = sample_pixels(snapshot, [(seed, 0) for seed in range(4)], labels)
    assert torch.equal(removed(snapshot, z, labels, [], 0), whole)
    assert not torch.equal(removed(snapshot, z, labels, [0, 1, 2], 0), whole)
    rows = removal_rows(snapshot, [0, 1])
    assert torch.equal(rows[0], sample_pixels(snapshot, [(0, 0), (1, 0)])) and not torch.equal(rows[-1], rows[0])
    with pytest.raises(CardiganError, match="channel is 100000"):
        removed(snapshot, z, labels, [100_000], 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_drawn_in_a_window_is_forgotten(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    windows = [Window(0, 0, 0, 32, 12), Window(3, 0, 4, 32, 12)]
    if name == "mlp":
        with pytest.raises(CardiganError, match="no places"):
            window_channels(snapshot, windows)
        return
    channels = window_channels(snapshot, windows)
    whole, without = forgotten(snapshot, [0, 3], channels)
    assert torch.equal(whole, sample_pixels(snapshot, [(0, 0), (3, 0)])) and not torch.equal(whole, without)
    assert channels == window_channels(snapshot, windows)
    elsewhere = window_channels(snapshot, [Window(0, 0, 20, 32, 32), Window(3, 0, 20, 32, 32)])
    assert set(channels) != set(elsewhere)
    for wrong, words in (([Window(0, 0, 0, 33, 5)], "reaches to 33"), ([Window(0, 0, 0, 32, 32)], "mark a part"), ([], "No window")):
        with pytest.raises(CardiganError, match=words):
            window_channels(snapshot, wrong)


def test_the_features_of_a_window_are_those_that_draw_there(runs):
    """Channel 2 is made strong in the upper half of the last maps but one, and channel 5 in the lower half: the upper window's are 2, not 5."""
    snapshot = cardigan.load(runs["dcgan"]).snapshot
    layer = snapshot.generator.norms[-2]

    def painted(module, given, out):
        out = 0.01 * out
        middle = out.shape[2] // 2
        out[:, 2, :middle] += 1
        out[:, 5, middle:] += 1
        return out

    hook = layer.register_forward_hook(painted)
    try:
        channels = window_channels(snapshot, [Window(1, 0, 0, 32, 16)])
    finally:
        hook.remove()
    assert 2 in channels and 5 not in channels


@pytest.mark.parametrize("text", ["", "3", "3:1,2,3", "3:5,5,5,9", "3:-1,0,4,4", "a:1,2,3,4"])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(CardiganError, match="expected a seed and a box"):
        parse_window(text)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_of_the_generators_own_is_found_again(runs, name):
    snapshot = cardigan.load(runs[name]).snapshot
    pictures = sample_pixels(snapshot, numbered(8, 99))
    found, again = (invert(snapshot, pictures[:1], steps=60) for _ in range(2))
    assert torch.equal(found.z, again.z) and found.error == again.error
    usual = (pictures[1:].double() - pictures[:1].double()).square().mean().sqrt()
    assert found.error <= 0.5 * usual, (found.error, usual)
    assert found.error < 0.8 * invert(snapshot, pictures[:1], steps=1).error
    assert (found.label is None) == (snapshot.spec.classes == 0)


def test_what_cannot_be_inverted_is_refused(runs):
    snapshot = cardigan.load(runs["dcgan"]).snapshot
    picture = sample_pixels(snapshot, numbered(1, 0))
    for arguments, words in (
        ({"picture": picture[:, :, :8]}, "expected 1x1x32x32"),
        ({"picture": picture, "label": 3}, "without classes"),
        ({"picture": picture, "steps": 0}, "steps is 0"),
    ):
        with pytest.raises(CardiganError, match=words):
            invert(snapshot, **arguments)


def test_noise_among_digits_is_strange(runs):
    """Real digits are compared with others; noise and exchanged brightness come first."""
    players = read_players(runs["dcgan"])
    digits = encode(cardigan.mnist("train").images(torch.arange(300), players.snapshot.config.data))
    noise = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    odd = torch.cat([noise, 255 - digits[:3]])
    known, given = features(players, digits[:200]), features(players, torch.cat([digits[200:], odd]))
    order = strangeness(known, given).argsort(descending=True).tolist()
    assert set(order[:6]) == set(range(100, 106))
    alone = strangeness(known, known, themselves=True)
    assert (alone > 0).all() and (strangeness(known, known) < alone).all()
    with pytest.raises(CardiganError, match="at least 6"):
        strangeness(known[:5], given)


def test_strangeness_is_in_terms_of_the_neighbours_own_distances():
    line = torch.arange(100.0)[:, None]
    far = (149.0 - torch.arange(95.0, 100)).mean() / torch.tensor([1.8, 1.8, 1.8, 2.2, 3.0]).mean()  # of 95, ... 99 themselves
    assert torch.allclose(strangeness(line, torch.tensor([[50.5], [149.0]])), torch.stack([torch.tensor(1.3 / 1.8), far]), rtol=1e-4)
    assert torch.allclose(strangeness(line, line, themselves=True)[20:80], torch.ones(60), rtol=1e-4)
    simple, elaborate = torch.randn(200, 20, generator=torch.Generator().manual_seed(0)).split(100)
    known = torch.cat([simple * 0.1, elaborate + 5])
    scores = strangeness(known, torch.cat([known[100:], torch.full((1, 20), 0.5)]))
    assert int(scores.argmax()) == 100  # nearer to its neighbours than elaborate pictures to theirs, but far for a simple one
    copies = torch.cat([line, torch.zeros(50, 1)])
    assert torch.isfinite(strangeness(copies, line)).all()


def test_digits_are_framed_as_they_were_trained_on(runs, tmp_path):
    """Padded, not enlarged, whether they come as a file or among others; of other sources, as data/decoding.py does."""
    config = cardigan.load(runs["dcgan"]).config
    digits = cardigan.mnist("test")
    expected = encode(digits.images(torch.arange(8), config.data))
    for number in range(8):
        Image.fromarray(digits.pixels[number, 0].numpy()).save(tmp_path / f"{number}.png")
    assert torch.equal(in_frame((tmp_path / "0.png").read_bytes(), config.data), expected[:1])
    (tmp_path / "8.png").write_bytes(b"no picture")
    found = pictures_of(config, str(tmp_path), "", 20)
    assert torch.equal(found.pixels, expected) and found.titles == [f"{number}.png" for number in range(8)]
    Image.new("RGB", (90, 60), "white").save(tmp_path / "large.png")
    assert in_frame((tmp_path / "large.png").read_bytes(), config.data).float().mean() == 255 * 21 / 32  # 90x60 becomes 32x21
    other = in_frame((tmp_path / "0.png").read_bytes(), replace(config.data, source="elsewhere"))
    assert other.shape == expected[:1].shape and not torch.equal(other, expected[:1])


@pytest.mark.parametrize("name", NETWORKS)
def test_linear_classifiers_learn_from_features(runs, name):
    players = read_players(runs[name])
    source = cardigan.mnist("train")
    rows = features(players, encode(source.images(torch.arange(400), players.snapshot.config.data)))
    error = linear_error(rows[:300], source.labels[:300], rows[300:], source.labels[300:400])
    assert error < 0.8  # guessing errs on nine of ten


def test_classes_beside_the_picture_leave_no_features(tmp_path):
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides={**SMALL, "discriminator.conditioning": "one-hot"}).path
    with pytest.raises(CardiganError, match="beside the picture"):
        features(read_players(run), torch.zeros(2, 1, 32, 32, dtype=torch.uint8))


def test_pictures_that_are_looked_at_are_spread_over_a_source(runs, tmp_path):
    for number in range(60):
        place = tmp_path / f"class{number // 6}"
        place.mkdir(exist_ok=True)
        Image.new("L", (28, 28), number).save(place / f"{number:02}.png")
    found = pictures_of(cardigan.load(runs["dcgan"]).config, str(tmp_path), "folders", 20)
    assert len(found.titles) == 20 and sorted(set(found.labels.tolist())) == list(range(10))


def test_pictures_of_any_shape_and_colour(colourful):
    path, pictures = colourful
    players = read_players(path)
    found = probed(players, str(pictures))
    assert found.compared_with == "each other" and len(found.given.titles) == 24 and found.linear_error is None
    assert feature_rows(players, found.given.pixels, None)[0].shape == (12, 4, 24, 16)
    assert invert(players.snapshot, found.given.pixels[:1], steps=3).pixels.shape == (1, 4, 24, 16)
    assert heat(wanted_change(players, found.given.pixels, None)).shape == (24, 3, 24, 16)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_films_show_every_frame_for_its_time(tmp_path, kind):
    frames = (torch.arange(6)[:, None, None, None] * 40).expand(6, 1, 20, 12).to(torch.uint8)
    (tmp_path / f"film.{kind}").write_bytes(film(frames, 10.0, kind))
    with Image.open(tmp_path / f"film.{kind}") as shown:
        assert shown.n_frames == 6 and min(shown.size) >= 192
        seen = []
        for frame in range(6):
            shown.seek(frame)
            seen.append(int(np.asarray(shown.convert("L"))[5, 5]))
            assert shown.info["duration"] == 100
    assert seen == [0, 40, 80, 120, 160, 200]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # imageio-ffmpeg leaves its pipes open
def test_an_mp4_is_a_film_of_even_sides_and_the_same_again(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = (torch.arange(6)[:, None, None, None] * 40).expand(6, 4, 201, 199).to(torch.uint8)
    content = film(frames, 10.0, "mp4")
    assert content == film(frames, 10.0, "mp4")
    (tmp_path / "film.mp4").write_bytes(content)
    reader = ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    facts = next(reader)
    assert facts["size"] == (200, 202) and facts["fps"] == 10
    shown = [np.frombuffer(frame, np.uint8).reshape(202, 200, 3)[100, 100] for frame in reader]
    expected = [255 - value + value * value // 255 for value in range(0, 240, 40)]  # transparent on white
    assert np.abs(np.array(shown, int) - np.array(expected)[:, None]).max() <= 4
    del reader
    gc.collect()  # now, not in a later test


def test_without_ffmpeg_an_mp4_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(CardiganError, match=r"cardigan\[video\]"):
        film(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 5.0, "mp4")


def test_films_of_transparent_pictures_stand_on_white():
    clear = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    clear[1] = 255
    assert film(clear, 5.0, "gif")[:3] == b"GIF"
    with pytest.raises(CardiganError, match="expected webp, gif, mp4"):
        film(clear, 5.0, "avi")
    with pytest.raises(CardiganError, match="more than 0 up to 100"):
        film(clear, 0.0, "gif")


def test_players_need_a_checkpoint(runs, tmp_path):
    assert read_players(runs["dcgan"] / "checkpoints" / "00000032").images_seen == 32
    for wrong, words in ((runs["dcgan"] / "generator.safetensors", "only a generator"), (tmp_path, "holds no discriminator")):
        with pytest.raises(CardiganError, match=words):
            read_players(wrong)


def test_packs_are_refused(tmp_path):
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides={**SMALL, "packing": 2, "conditional": False}).path
    players = read_players(run)
    pixels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    for ask in (lambda: opinions(players, pixels, None), lambda: wanted_change(players, pixels, None), lambda: features(players, pixels)):
        with pytest.raises(CardiganError, match="packs of 2"):
            ask()
