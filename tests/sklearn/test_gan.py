"""The estimator: fit on several input types, sample by class value, clone, save and load; invalid input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import cardigan
from cardigan.errors import CardiganError
from cardigan.metrics import quick
from cardigan.sklearn.gan import resolve_seed
from cardigan.sklearn.inputs import class_indices, class_values, has_labels, make_reader

SMALL = {
    **{"batch_size": 8, "generator.width": 4, "discriminator.network": "dcgan", "discriminator.width": 4},
    **{"data.num_workers": 0, "precision": "fp32"},
}
CLASSES = np.array([3, 5, 9, 5] * 6)


def random_images(shape=(24, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module", autouse=True)
def temporary_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARDIGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(quick, "MIN_SAMPLES", 8)
        yield


def small_gan(**parameters):
    return cardigan.GAN(images=16, device="cpu", overrides=SMALL, **{"runs": None, **parameters})


@pytest.fixture(scope="module")
def fitted_gan(tmp_path_factory):
    return small_gan(random_state=0, runs=tmp_path_factory.mktemp("runs")).fit(random_images(), CLASSES)


def test_fitted_attributes(fitted_gan):
    assert fitted_gan.sample(5).shape == (5, 8, 8, 1)
    assert fitted_gan.sample(5).dtype == np.uint8
    assert (fitted_gan.images_seen_, fitted_gan.n_iter_, fitted_gan.stopped_by_) == (16, 2, "images")
    assert fitted_gan.path_.parent == fitted_gan.runs
    assert fitted_gan.path_.name.endswith("-gan")
    assert np.array_equal(cardigan.load(fitted_gan.path_).sample(5, seed=0), fitted_gan.sample(5))


def test_classes_keep_original_values(fitted_gan):
    assert fitted_gan.classes_.tolist() == [3, 5, 9]
    assert np.array_equal(fitted_gan.sample(2, y=[3, 9]), fitted_gan.model_.sample(2, labels=[0, 2], seed=0))
    assert np.array_equal(fitted_gan.sample(2, y=np.int64(5)), fitted_gan.model_.sample(2, labels=1, seed=0))
    with pytest.raises(CardiganError, match="y contains 0: expected one of 3, 5, 9"):
        fitted_gan.sample(1, y=0)
    with pytest.raises(CardiganError, match="3 labels for 2 images"):
        fitted_gan.sample(2, y=[3, 5, 9])


def test_random_state(fitted_gan):
    assert np.array_equal(fitted_gan.sample(3), fitted_gan.sample(3))
    assert np.array_equal(fitted_gan.sample(3, random_state=7), fitted_gan.model_.sample(3, seed=7))
    assert (
        resolve_seed(np.random.RandomState(1))
        == resolve_seed(np.random.RandomState(1))
        != resolve_seed(np.random.RandomState(2))
    )
    assert resolve_seed(np.random.default_rng(1)) == resolve_seed(np.random.default_rng(1))
    assert resolve_seed(None) != resolve_seed(None)
    for wrong in (-1, 2**63, True):
        with pytest.raises(CardiganError, match="expected 0 <= random_state"):
            resolve_seed(wrong)


def test_parameters_and_clone(fitted_gan):
    base = pytest.importorskip("sklearn.base")
    validation = pytest.importorskip("sklearn.utils.validation")
    twin = base.clone(fitted_gan)
    assert twin.get_params() == fitted_gan.get_params()
    assert "model_" not in vars(twin)
    validation.check_is_fitted(fitted_gan)
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


def test_save_and_load_without_pickle(fitted_gan, tmp_path):
    folder = fitted_gan.save(tmp_path / "gan")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "estimator.json",
        "model.safetensors",
    ]
    again = cardigan.GAN.load(folder)
    assert np.array_equal(again.sample(4), fitted_gan.sample(4))
    assert again.classes_.tolist() == [3, 5, 9]
    assert {**again.get_params(), "runs": fitted_gan.runs} == fitted_gan.get_params()
    assert np.array_equal(cardigan.load(folder).sample(4), fitted_gan.sample(4))
    with pytest.raises(CardiganError, match="already: set overwrite"):
        fitted_gan.save(folder)
    content = json.loads((folder / "estimator.json").read_bytes())
    for wrong, words in (
        ({**content, "format": 3}, "from another version"),
        ({**content, "parameters": []}, "is corrupt"),
        ({**content, "parameters": {"verbos": 1}}, "did you mean 'verbose'"),
        ([], "is damaged"),
    ):
        (folder / "estimator.json").write_text(json.dumps(wrong))
        with pytest.raises(CardiganError, match=words):
            cardigan.GAN.load(folder)
    with pytest.raises(CardiganError, match=r"contains no estimator\.json"):
        cardigan.GAN.load(tmp_path)


class LabeledDataset(Dataset):
    """Labeled images that record whether the runs folder exists when they are read."""

    def __init__(self, runs):
        self.runs, self.reads = runs, []

    def __len__(self):
        return len(CLASSES)

    def __getitem__(self, index):
        self.reads.append(self.runs.exists())
        return random_images()[index], int(CLASSES[index])


def test_dataset_labels_and_numpy_scalars(tmp_path):
    dataset = LabeledDataset(tmp_path / "runs")
    gan = cardigan.GAN(
        images=np.int64(16),
        minutes=np.int64(5),
        random_state=np.int64(0),
        device="cpu",
        overrides=SMALL,
        runs=dataset.runs,
    )
    gan.fit(dataset)
    assert gan.classes_.tolist() == [3, 5, 9]
    assert gan.images_seen_ == 16
    assert dataset.reads[-1], "another fit could have taken the same folder meanwhile"
    parameters = json.loads((gan.save(tmp_path / "gan") / "estimator.json").read_bytes())["parameters"]
    assert (parameters["images"], parameters["minutes"]) == (16, 5)
    assert not has_labels(make_reader(list(random_images())))
    with pytest.raises(CardiganError, match="A Dataset yields its classes"):
        gan.fit(dataset, CLASSES)


def test_equal_random_state_gives_equal_fit_and_score():
    first, second = (
        small_gan(random_state=1).fit(list(map(Image.fromarray, random_images((24, 16, 20, 3))))) for _ in range(2)
    )
    assert np.array_equal(first.sample(4), second.sample(4))
    assert first.path_ is None
    assert first.classes_ is None
    assert first.sample(2).shape[3] == 3
    same = random_images((24, 16, 20, 3))
    assert first.score(same) == second.score(same) < 0
    with pytest.raises(CardiganError, match="fitted without classes"):
        first.sample(2, y=3)


def test_failed_fit_keeps_previous_model(fitted_gan):
    before = fitted_gan.model_
    with pytest.raises(CardiganError):
        fitted_gan.fit(random_images((1, 8, 8)))
    assert fitted_gan.model_ is before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (random_images((24, 64)), r"flattened.*X\.reshape\(-1, 8, 8\)"),
        (torch.zeros(24, 60), r"X\.reshape\(-1, height, width\)"),
        (np.linspace(0, 16, 24 * 64).reshape(24, 8, 8), r"floats up to 16: expected 0 to 1.*X / 16"),
        ([1, 2, 3], "X is a list of int: expected an array"),
        ([], "X is a list: expected an array"),
        (np.full((24, 8, 8), "a"), "expected 8 or 16 bits"),
    ],
)
def test_invalid_x(given, words):
    with pytest.raises(CardiganError, match=words):
        make_reader(given)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"minutes": "long"}, "minutes is 'long': expected a number of minutes"),
        ({"images": 1.5}, r"images is 1\.5: expected a number of images"),
        ({"images": True}, "images is True"),
        ({"recipe": 3}, "recipe is 3: expected the name of a recipe"),
        ({"recipe": "mnits"}, "did you mean 'mnist'"),
        ({"overrides": ["batch_size"]}, "overrides is"),
        ({"overrides": {"bach_size": 8}}, "did you mean 'batch_size'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"random_state": -1}, "random_state is -1"),
    ],
)
def test_invalid_parameters(parameters, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CardiganError, match=words):
        small_gan(runs="runs").set_params(**parameters).fit(random_images())
    assert not (tmp_path / "runs").exists()


def test_string_and_one_hot_labels():
    rows = np.eye(3)[[0, 2, 1, 0]]
    assert list(make_reader(random_images((4, 8, 8)), rows).labels or ()) == [0, 2, 1, 0]
    with pytest.raises(CardiganError, match="4 images and 3 labels"):
        make_reader(random_images((4, 8, 8)), [1, 2, 3])
    spec = cardigan.ImageSpec(1, 8, 8, 2, ("cat", "dog"))
    assert class_indices(["dog", "cat"], class_values(spec)) == [1, 0]


def test_verbose_progress_bar(fitted_gan, capsys):
    small_gan(verbose=True).fit(random_images())
    assert "16 images seen" in capsys.readouterr().out
    html = fitted_gan._repr_html_()
    assert "GAN(" in html
    assert "data:image/png" in html


def test_pandas_and_string_labels():
    words = np.array(["5", "6", "7", "6"] * 6, dtype=object)
    gan = small_gan(random_state=0).fit(random_images(), words)
    assert np.array_equal(gan.sample(2, y="5"), gan.sample(2, y=5))
    with pytest.raises(CardiganError, match=r"'01' and '1'|'1' and '01'"):
        make_reader(random_images(), ["01", "1"] * 12)
    with pytest.raises(CardiganError, match="None of the 24 images"):
        small_gan().fit(np.full((24, 8, 8), np.nan, np.float32))
