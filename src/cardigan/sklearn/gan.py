"""A scikit-learn style estimator: `GAN(minutes=5).fit(X, y).sample(16)`.

Works with scikit-learn's `clone`, and without scikit-learn. Training itself is `cardigan.train`.
"""

import copy
import html
import json
import math
import secrets
import tempfile
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from cardigan.api import train
from cardigan.errors import CardiganError, unknown
from cardigan.inference.model import Model, load
from cardigan.metrics.quick import quick_distance
from cardigan.models.pretrained import read_json
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.models.snapshot import read_snapshot, write_snapshot
from cardigan.run.directory import reserve_run
from cardigan.sklearn.inputs import ImagesLike, class_indices, class_values, has_labels, make_reader
from cardigan.sklearn.progress import progress_bar

DEFAULT_MINUTES = 10.0
PARAMETER_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "recipe": ((str, type(None)), "the name of a recipe, or None"),
    "minutes": ((int, float, np.integer, np.floating, type(None)), "a number of minutes, or None"),
    "images": ((int, np.integer, type(None)), "a number of images, or None"),
    "runs": ((str, Path, type(None)), "a folder, or None for a temporary one"),
    "device": ((str,), "cpu, cuda, mps or auto"),
    "overrides": ((dict, type(None)), "a dict of settings by dotted name, or None"),
    "warm_start_from": ((str, Path, type(None)), "a run, a file of weights or a hub address, or None"),
}
ESTIMATOR_FILE, MODEL_FILE = "estimator.json", "model.safetensors"
RandomStateLike: TypeAlias = int | np.integer | np.random.RandomState | np.random.Generator | None
"""A seed, a NumPy generator to draw one from, or None for a new seed at each call."""


class NotFittedError(CardiganError, ValueError, AttributeError):
    """Raised if the estimator is not fitted. Like scikit-learn's, it is a ValueError and an AttributeError.

    Examples:
        >>> import cardigan
        >>> cardigan.GAN().sample(4)
        Traceback (most recent call last):
        ...
        cardigan.sklearn.gan.NotFittedError: This GAN is not fitted yet: call fit with images first.
    """


class InvalidInputError(CardiganError, ValueError):
    """Raised by `fit` for parameters or data that cannot be used. Like scikit-learn's errors, it is a ValueError."""


class GAN:
    """A GAN that is fitted to images and then sampled.

    Parameters are validated in `fit`:

    - `recipe`: a name from `cardigan recipes`. Default: chosen from the images.
    - `minutes`, `images`: the training budget. Default: the recipe's, or ten minutes without a recipe.
    - `random_state`: an int for a reproducible result, None for a new seed each time.
    - `runs`: the folder in which each fit creates a run, `runs/<date>-<time>-gan`. None uses a temporary folder.
    - `device`: cpu, cuda, mps or auto.
    - `overrides`: any setting by its dotted name, as in `train`.
    - `warm_start_from`: a trained model to start from, as `start_from` of `train`. Without `random_state` the seed is
      the model's.
    - `accept_license`: start from a model although its license forbids derivatives.
    - `verbose`: show a progress bar.

    Fitted attributes: `model_`, a `Model`; `path_`, its run or None; `images_seen_`; `n_iter_`, the number of steps;
    `stopped_by_`; `classes_`, the values of y or None; `n_features_in_`, the values of one image, if X was an array.

    Examples:
        >>> import cardigan
        >>> import numpy as np
        >>> X = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
        >>> small = {"generator.width": 4, "discriminator.width": 4, "batch_size": 8}
        >>> gan = cardigan.GAN("images-dcgan", images=16, runs=None, random_state=0, overrides=small)
        >>> gan.fit(X).sample(3).shape
        (3, 16, 16, 1)
        >>> gan.n_iter_
        2
    """

    def __init__(
        self,
        recipe: str | None = None,
        *,
        minutes: float | np.number | None = None,
        images: int | np.integer | None = None,
        random_state: RandomStateLike = None,
        runs: str | Path | None = "runs",
        device: str = "auto",
        overrides: dict[str, Any] | None = None,
        warm_start_from: str | Path | None = None,
        accept_license: bool = False,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.minutes = minutes
        self.images = images
        self.random_state = random_state
        self.runs = runs
        self.device = device
        self.overrides = overrides
        self.warm_start_from = warm_start_from
        self.accept_license = accept_license
        self.verbose = verbose

    def fit(self, X: ImagesLike, y: Any = None) -> "GAN":  # noqa: N803 - scikit-learn's name for it
        """Train on images, class-conditional if `y` is given, and return the estimator.

        `X` is an array or tensor [N, height, width], [N, height, width, C] or [N, C, height, width], uint8 or float in
        [0, 1] or [-1, 1]; a list of arrays or Pillow images of any sizes; or a torch Dataset. `y` is a number or string
        per image. A Dataset yields (image, class) instead; `overrides={"conditional": False}` ignores its classes.
        Raises CardiganError for unsupported data, such as flattened images; a fitted estimator is then unchanged.
        """
        self._validate_parameters()
        try:
            reader = make_reader(X, y)
        except CardiganError as error:
            raise InvalidInputError(str(error)) from error
        has_budget = self.recipe is not None or self.images is not None or self.minutes is not None
        images = None if self.images is None else int(self.images)
        minutes = None if self.minutes is None else float(self.minutes)
        minutes = minutes if has_budget else DEFAULT_MINUTES
        settings = {"device": self.device, "conditional": y is not None or has_labels(reader), **(self.overrides or {})}
        # A model that training starts from decides on the seed, unless one is given: with another seed, its
        # discriminator may have to begin anew.
        is_start_alone = self.warm_start_from is not None and self.random_state is None
        seed = None if is_start_alone else resolve_seed(self.random_state)
        folder_context = tempfile.TemporaryDirectory() if self.runs is None else nullcontext(self.runs)
        with (
            folder_context as folder,
            reserve_run(Path(folder), "gan") as reserved,
            progress_bar(minutes, images, bool(self.verbose)) as report,
        ):
            run = train(
                reader,
                recipe=self.recipe,
                out=reserved.path,
                images=images,
                minutes=minutes,
                seed=seed,
                overrides=settings,
                on_event=report,
                verbose=False,  # it has a bar of its own
                start_from=self.warm_start_from,
                accept_license=bool(self.accept_license),
            )
            snapshot = copy.deepcopy(load(run.path).snapshot)  # the file may be temporary
        path = None if self.runs is None else run.path
        self._set_fitted(Model(snapshot, path), path, run.images_seen, run.stopped_by)
        vars(self).pop("n_features_in_", None)
        if isinstance(X, np.ndarray | torch.Tensor):
            self.n_features_in_ = math.prod(X.shape[1:])
        return self

    def _validate_parameters(self) -> None:
        for name, (kinds, expected) in PARAMETER_TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise InvalidInputError(f"{name} is {value!r}: expected {expected}.")

    def _set_fitted(self, model: Model, path: Path | None, images_seen: int, stopped_by: str) -> None:
        self.model_, self.path_, self.images_seen_, self.stopped_by_ = model, path, images_seen, stopped_by
        self.n_iter_ = images_seen // model.config.batch_size
        self.classes_ = class_values(model.snapshot.spec)

    def sample(
        self, n_samples: int = 1, y: Any = None, random_state: RandomStateLike = None, truncation: float = 1.0
    ) -> np.ndarray:
        """Return images as uint8 [n_samples, height, width, channels], in the training shape (`model_.config.data`).

        `n_samples` is the number of images. `y` is one class for all or one per image, with the values of `fit`.
        Default: random classes, if there are any. `random_state` defaults to the estimator's: an int gives the same
        images every time, None new ones. `truncation` goes from 1 (as trained) to 0 (the average image).
        """
        model = self._fitted_model()
        seed = resolve_seed(self.random_state if random_state is None else random_state)
        return model.sample(n_samples, seed, None if y is None else class_indices(y, self.classes_), truncation)

    def score(self, X: ImagesLike, y: Any = None) -> float:  # noqa: N803
        """Return the negative Frechet distance between samples and the images `X`. Larger is better; 0 is the best.

        `y` is not used; scikit-learn gives it. Uses the first 500 images at most, and as many samples. Features come
        from the pretrained backbone if it is installed (seconds), else from thumbnails. Compare only scores on the same
        images; `cardigan evaluate` reports metrics with standard errors and a protocol.
        """
        model = self._fitted_model()
        return -quick_distance(
            make_reader(X),
            model.config.data,
            lambda count: sample_pixels(model.snapshot, sample_keys(count, 0)),
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name. `deep` is not used; scikit-learn gives it."""
        return {name: getattr(self, name) for name in _constructor_parameters()}

    def set_params(self, **parameters: Any) -> "GAN":
        """Set `parameters` for the next fit and return the estimator; raises CardiganError for an unknown name."""
        for name in parameters:
            if name not in _constructor_parameters():
                raise unknown("parameter", name, _constructor_parameters())
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the fitted estimator (the files of `save_pretrained`, and its parameters) and return the folder.

        `path` is the folder. Raises CardiganError if one of the files exists, unless `overwrite`, and NotFittedError.
        """
        model = self._fitted_model()
        content = {
            "format": 2,
            "parameters": _json_parameters(self.get_params()),
            "images_seen": self.images_seen_,
            "stopped_by": self.stopped_by_,
        }
        return model.save_with_files(
            Path(path), {ESTIMATOR_FILE: (json.dumps(content, indent=1) + "\n").encode()}, overwrite
        )

    @staticmethod
    def load(path: str | Path) -> "GAN":
        """Load a fitted estimator from `path`, a folder written by `save`. Unpickles nothing.

        Raises CardiganError for any other folder.
        """
        file = Path(path) / ESTIMATOR_FILE
        if not file.exists():
            raise CardiganError(
                f"{path} contains no {ESTIMATOR_FILE}: give a folder of GAN.save, or use cardigan.load for a model."
            )
        content = read_json(file)
        parameters, images_seen, stopped_by = (
            content.get("parameters"),
            content.get("images_seen"),
            content.get("stopped_by"),
        )
        if (
            content.get("format") != 2
            or not isinstance(parameters, dict)
            or not isinstance(images_seen, int)
            or not isinstance(stopped_by, str)
        ):
            raise CardiganError(f"{file} is corrupt or from another version: save the estimator again.")
        gan = GAN().set_params(**parameters)
        gan._set_fitted(load(path), Path(path), images_seen, stopped_by)
        return gan

    def _fitted_model(self) -> Model:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError("This GAN is not fitted yet: call fit with images first.")
        return self.model_

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for `pickle` and `copy`: the parameters, and the model as the content of a safetensors file.

        Cardigan itself never unpickles; parallel searches of scikit-learn do.
        """
        state = vars(self).copy()
        model = state.pop("model_", None)
        if model is not None:
            with tempfile.TemporaryDirectory() as folder:
                write_snapshot(Path(folder) / MODEL_FILE, model.snapshot)
                state[MODEL_FILE] = (Path(folder) / MODEL_FILE).read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; raises CardiganError for a damaged model."""
        content = state.pop(MODEL_FILE, None)
        vars(self).update(state)
        if content is not None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / MODEL_FILE).write_bytes(content)
                self.model_ = Model(copy.deepcopy(read_snapshot(Path(folder) / MODEL_FILE)), self.path_)

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        """Return the estimator's tags. Called only by scikit-learn."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )

    def __repr__(self) -> str:
        defaults = {name: parameter.default for name, parameter in _constructor_parameters().items()}
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name] and value != defaults[name]
        ]
        return f"GAN({', '.join(changed)})"

    def _repr_html_(self) -> str:
        model_html = self.model_._repr_html_() if self.__sklearn_is_fitted__() else ""
        return f"<code>{html.escape(repr(self))}</code>{model_html}"


def _constructor_parameters() -> dict[str, Any]:
    return dict(signature(GAN).parameters)


def _json_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON values. A NumPy generator is stored as None, because its state has advanced."""
    state = parameters["random_state"]
    paths = {name: parameters[name] for name in ("runs", "warm_start_from")}
    plain = {
        "random_state": int(state) if isinstance(state, int | np.integer) else None,
        **{name: None if path is None else str(path) for name, path in paths.items()},
    }
    try:
        return json.loads(json.dumps({**parameters, **plain}, default=_python_number))
    except (TypeError, ValueError) as error:
        raise CardiganError(f"A parameter cannot be saved ({error}): set it to text, a number or None.") from error


def _python_number(value: object) -> object:
    """Convert a NumPy scalar to Python; raises TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


def resolve_seed(state: RandomStateLike) -> int:
    """Return the seed of a `random_state`, 0 <= seed < 2^63; raises CardiganError for an invalid one."""
    if state is None:
        return secrets.randbits(32)
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31 - 1))
    if isinstance(state, np.random.Generator):
        return int(state.integers(2**63))
    if isinstance(state, bool) or not isinstance(state, int | np.integer) or not 0 <= state < 2**63:
        raise CardiganError(
            f"random_state is {state!r}: expected 0 <= random_state < 2^63, a NumPy RandomState or Generator, or None."
        )
    return int(state)
