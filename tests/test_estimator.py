"""A GAN as an estimator: fitted to what people hold, sampled by their own classes, cloned, saved and loaded; and what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import cardigan
from cardigan.errors import CardiganError
from cardigan.estimator import seed_of
from cardigan.given import class_values, given_reader, numbers_of, tells_classes
from cardigan.metrics import quick

SMALL = {"batch": 8, "generator.width": 4, "discriminator.width": 4, "data.workers": 0, "precision": "fp32"}
CLASSES = np.array([3, 5, 9, 5] * 6)


def pictures(shape=(24, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARDIGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(quick, "FEWEST", 8)
        yield


def small(**parameters):
    return cardigan.GAN(images=16, device="cpu", overrides=SMALL, **{"runs": None, **parameters})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return small(random_state=0, runs=tmp_path_factory.mktemp("runs")).fit(pictures(), CLASSES)


def test_fitted(fitted):
    assert fitted.sample(5).shape == (5, 8, 8, 1)
    assert fitted.sample(5).dtype == np.uint8
    assert (fitted.images_seen_, fitted.n_iter_, fitted.stopped_by_) == (16, 2, "images")
    assert fitted.path_.parent == fitted.runs
    assert fitted.path_.name.endswith("-gan")
    assert np.array_equal(cardigan.load(fitted.path_).sample(5, seed=0), fitted.sample(5))


def test_classes_go_by_the_values_they_were_given_as(fitted):
    assert fitted.classes_.tolist() == [3, 5, 9]
    assert np.array_equal(fitted.sample(2, y=[3, 9]), fitted.model_.sample(2, labels=[0, 2], seed=0))
    assert np.array_equal(fitted.sample(2, y=np.int64(5)), fitted.model_.sample(2, labels=1, seed=0))
    with pytest.raises(CardiganError, match="y holds 0: expected one of 3, 5, 9"):
        fitted.sample(1, y=0)
    with pytest.raises(CardiganError, match="3 labels for 2 pictures"):
        fitted.sample(2, y=[3, 5, 9])


def test_random_state(fitted):
    assert np.array_equal(fitted.sample(3), fitted.sample(3))
    assert np.array_equal(fitted.sample(3, random_state=7), fitted.model_.sample(3, seed=7))
    assert seed_of(np.random.RandomState(1)) == seed_of(np.random.RandomState(1)) != seed_of(np.random.RandomState(2))
    assert seed_of(np.random.default_rng(1)) == seed_of(np.random.default_rng(1))
    assert seed_of(None) != seed_of(None)
    for wrong in (-1, 2**63, True):
        with pytest.raises(CardiganError, match="expected 0 <= random_state"):
            seed_of(wrong)


def test_parameters_and_clone(fitted):
    base = pytest.importorskip("sklearn.base")
    validation = pytest.importorskip("sklearn.utils.validation")
    twin = base.clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert "model_" not in vars(twin)
    validation.check_is_fitted(fitted)
    with pytest.raises(cardigan.NotFittedError, match="not fitted yet: call fit"):
        twin.sample(1)
    assert issubclass(cardigan.NotFittedError, ValueError | AttributeError)
    assert twin.set_params(minutes=3, images=None) is twin
    assert twin.get_params()["minutes"] == 3
    with pytest.raises(CardiganError, match="Unknown parameter 'minuts': did you mean 'minutes'"):
        twin.set_params(minuts=1, images=5)
    assert twin.images is None
    assert repr(cardigan.GAN(minutes=2.0, random_state=0)) == "GAN(minutes=2.0, random_state=0)"
    pipeline = pytest.importorskip("sklearn.pipeline").Pipeline([("gan", cardigan.GAN())])
    assert pipeline.set_params(gan__minutes=4).named_steps["gan"].minutes == 4


def test_saved_and_loaded_without_pickle(fitted, tmp_path):
    folder = fitted.save(tmp_path / "gan")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "estimator.json", "model.safetensors"]
    again = cardigan.GAN.load(folder)
    assert np.array_equal(again.sample(4), fitted.sample(4))
    assert again.classes_.tolist() == [3, 5, 9]
    assert {**again.get_params(), "runs": fitted.runs} == fitted.get_params()
    assert np.array_equal(cardigan.load(folder).sample(4), fitted.sample(4))
    with pytest.raises(CardiganError, match="already: set overwrite"):
        fitted.save(folder)
    content = json.loads((folder / "estimator.json").read_bytes())
    for wrong, words in (
        ({**content, "format": 2}, "of another version"),
        ({**content, "parameters": []}, "is damaged"),
        ({**content, "parameters": {"verbos": 1}}, "did you mean 'verbose'"),
        ([], "is damaged"),
    ):
        (folder / "estimator.json").write_text(json.dumps(wrong))
        with pytest.raises(CardiganError, match=words):
            cardigan.GAN.load(folder)
    with pytest.raises(CardiganError, match="holds no estimator"):
        cardigan.GAN.load(tmp_path)


class Classified(Dataset):
    """Pictures that tell their classes, and note whether their run has its folder when they are read."""

    def __init__(self, runs):
        self.runs, self.seen = runs, []

    def __len__(self):
        return len(CLASSES)

    def __getitem__(self, index):
        self.seen.append(self.runs.exists())
        return pictures()[index], int(CLASSES[index])


def test_a_dataset_tells_classes_and_numbers_may_be_of_numpy(tmp_path):
    dataset = Classified(tmp_path / "runs")
    gan = cardigan.GAN(images=np.int64(16), minutes=np.int64(5), random_state=np.int64(0), device="cpu", overrides=SMALL, runs=dataset.runs)
    gan.fit(dataset)
    assert gan.classes_.tolist() == [3, 5, 9]
    assert gan.images_seen_ == 16
    assert dataset.seen[-1], "another fit could have taken the same folder meanwhile"
    parameters = json.loads((gan.save(tmp_path / "gan") / "estimator.json").read_bytes())["parameters"]
    assert (parameters["images"], parameters["minutes"]) == (16, 5)
    assert not tells_classes(given_reader(list(pictures())))
    with pytest.raises(CardiganError, match="A Dataset tells its classes itself"):
        gan.fit(dataset, CLASSES)


def test_equal_states_give_equal_fits_and_scores():
    first, second = (small(random_state=1).fit(list(map(Image.fromarray, pictures((24, 16, 20, 3))))) for _ in range(2))
    assert np.array_equal(first.sample(4), second.sample(4))
    assert first.path_ is None
    assert first.classes_ is None
    assert first.sample(2).shape[3] == 3
    same = pictures((24, 16, 20, 3))
    assert first.score(same) == second.score(same) < 0
    with pytest.raises(CardiganError, match="fitted without classes"):
        first.sample(2, y=3)


def test_a_refused_fit_leaves_what_was_fitted(fitted):
    before = fitted.model_
    with pytest.raises(CardiganError):
        fitted.fit(pictures((1, 8, 8)))
    assert fitted.model_ is before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pictures((24, 64)), r"laid flat.*X\.reshape\(-1, 8, 8\)"),
        (torch.zeros(24, 60), r"X\.reshape\(-1, height, width\)"),
        (np.linspace(0, 16, 24 * 64).reshape(24, 8, 8), r"floats up to 16: expected 0 to 1.*X / 16"),
        ([1, 2, 3], "X is a list of int: expected an array"),
        ([], "X is a list: expected an array"),
        (np.full((24, 8, 8), "a"), "expected 8 or 16 bits"),
    ],
)
def test_what_are_no_pictures(given, words):
    with pytest.raises(CardiganError, match=words):
        given_reader(given)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"minutes": "long"}, "minutes is 'long': expected a number of minutes"),
        ({"images": 1.5}, r"images is 1\.5: expected a number of images"),
        ({"images": True}, "images is True"),
        ({"recipe": 3}, "recipe is 3: expected a recipe's name"),
        ({"recipe": "mnits"}, "did you mean 'mnist'"),
        ({"overrides": ["batch"]}, "overrides is"),
        ({"overrides": {"bach": 8}}, "did you mean 'batch'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"random_state": -1}, "random_state is -1"),
    ],
)
def test_parameters_that_make_no_sense(parameters, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CardiganError, match=words):
        small(runs="runs").set_params(**parameters).fit(pictures())
    assert not (tmp_path / "runs").exists()


def test_classes_as_words_and_rows():
    rows = np.eye(3)[[0, 2, 1, 0]]
    assert list(given_reader(pictures((4, 8, 8)), rows).labels or ()) == [0, 2, 1, 0]
    with pytest.raises(CardiganError, match="4 pictures and 3 labels"):
        given_reader(pictures((4, 8, 8)), [1, 2, 3])
    spec = cardigan.ImageSpec(1, 8, 8, 2, ("cat", "dog"))
    assert numbers_of(["dog", "cat"], class_values(spec)) == [1, 0]


def test_a_bar_is_shown_when_asked(fitted, capsys):
    small(verbose=True).fit(pictures())
    assert "16 images seen" in capsys.readouterr().out
    html = fitted._repr_html_()
    assert "GAN(" in html
    assert "data:image/png" in html


def test_classes_as_tables_and_words_give_them():
    words = np.array(["5", "6", "7", "6"] * 6, dtype=object)
    gan = small(random_state=0).fit(pictures(), words)
    assert np.array_equal(gan.sample(2, y="5"), gan.sample(2, y=5))
    with pytest.raises(CardiganError, match=r"'01' and '1'|'1' and '01'"):
        given_reader(pictures(), ["01", "1"] * 12)
    with pytest.raises(CardiganError, match="None of the 24 pictures"):
        small().fit(np.full((24, 8, 8), np.nan, np.float32))
