"""The options of the game, each by what it must do: small networks, fp32, one or a few steps."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import cardigan
from cardigan.config import Config
from cardigan.data import datasets
from cardigan.data.batches import Batches
from cardigan.data.mnist import load_mnist
from cardigan.errors import CardiganError
from cardigan.experiment import training_run
from cardigan.experiment.build import build_source, build_spec, build_state, build_step_config
from cardigan.metrics.reference_loader import load_reference
from cardigan.nets.table import NETS
from cardigan.objective.losses import LOSSES
from cardigan.objective.penalties import PENALTIES
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import read_events
from cardigan.training import recorder
from cardigan.training.budget import Budget, Clock
from cardigan.training.devices import open_devices
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import Trainer, make_step, run_step
from cardigan.training.optimizers import OPTIMIZERS
from cardigan.training.schedule import penalty_factor, step_kind
from cardigan.training.state import TrainState, load_state_tensors, state_tensors
from cardigan.training.step_types import metric_names

SMALL = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"}
RESNETS = dict.fromkeys(("generator.network", "discriminator.network"), "resnet")
UNPENALIZED = {
    "objective.loss": "wasserstein",
    "objective.penalties.r1": 0.0,
    "objective.penalties.r2": 0.0,
    "objective.penalty_interval": 1,
}
PLAIN = {"generator.normalization": "none", "objective.penalty_interval": 1}


def small_config(**changes: object) -> Config:
    return override(
        config_for("mnist"), {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    )


def run_steps(config: Config, steps: int, state: TrainState | None = None) -> tuple[TrainState, list[dict[str, float]]]:
    devices, source = open_devices(config), build_source(config)
    state = build_state(config, build_spec(config, source), devices) if state is None else state
    batches, step_config = Batches(source, config.data, config.seed), build_step_config(config, devices)
    trainer = Trainer(
        config,
        batches,
        step_config,
        make_step(state, batches, step_config),
        Budget(config, devices.process_group, Clock()),
        None,
    )
    rows = []
    for _ in range(steps):
        state, measured = run_step(trainer, state)
        rows.append(dict(zip(metric_names(config.objective), measured.tolist(), strict=True)))
    return state, rows


def weights(state: TrainState, role: str) -> torch.Tensor:
    return torch.cat([tensor.flatten() for name, tensor in state_tensors(state).items() if name.startswith(f"{role}.")])


def test_gradient_accumulation_equals_full_batch():
    changes = {name.replace(".", "__"): value for name, value in PLAIN.items()}
    (whole, whole_metrics), (accumulated, accumulated_metrics) = (
        run_steps(small_config(**changes), 2),
        run_steps(small_config(gradient_accumulation=4, **changes), 2),
    )
    for role in ("generator", "discriminator", "ema_generator"):
        # Adam's first steps are signs of gradients, which rounding may flip where they are nearly 0
        assert (weights(whole, role) - weights(accumulated, role)).abs().mean() < 2e-6
    assert accumulated_metrics[0] == pytest.approx(whole_metrics[0], rel=1e-4, abs=1e-6)


def test_discriminator_steps_per_generator_step():
    config = small_config(n_critic=3)
    assert [step_kind(config, 16 * step).update_generator for step in range(6)] == [False, False, True] * 2
    start, _ = run_steps(config, 0)
    before = {role: weights(start, role).clone() for role in ("generator", "discriminator", "ema_generator")}
    state, rows = run_steps(config, 2, start)
    assert torch.equal(weights(state, "ema_generator"), before["ema_generator"])
    assert not torch.equal(weights(state, "discriminator"), before["discriminator"])
    assert rows[0]["generator_gradient_norm"] == 0
    parameters = [parameter.clone() for parameter in state.networks.generator.parameters()]
    state, rows = run_steps(config, 1, state)
    assert rows[0]["generator_gradient_norm"] > 0
    assert any(
        not torch.equal(old, new) for old, new in zip(parameters, state.networks.generator.parameters(), strict=True)
    )


@pytest.mark.alone  # lines of the journal are by the clock
def test_journal_means_of_lazy_penalties(tmp_path, monkeypatch):
    """No network changes, so D stays undecided; with G and the penalties due on every second step only, their numbers
    are not halved."""
    monkeypatch.setattr(
        recorder, "PROGRESS_SECONDS", 1e9
    )  # one line of the first step and one of all others, on a slow machine too
    still = {f"{role}_optimizer.learning_rate": 1e-9 for role in ("generator", "discriminator")}
    settings = {
        **SMALL,
        **still,
        "n_critic": 2,
        "objective.penalty_interval": 2,
        "objective.loss": "non-saturating",
    }
    cardigan.train("mnist", out=tmp_path / "run", images=16 * 40, overrides=settings)
    progress = [event.values for event in read_events(tmp_path / "run" / "journal.jsonl") if event.kind == "progress"]
    later = [
        values for values in progress if "generator_loss" in values
    ]  # the first line is of one step, in which D learned alone
    assert "generator_loss" not in progress[0] and later
    for values in later:
        assert values["generator_loss"] == pytest.approx(0.693, abs=0.05) and values[
            "d_fake_after_update"
        ] == pytest.approx(0.5, abs=0.05)
        assert "wgan_gp" not in values and "augment_probability" not in values
    penalized = [values["r1"] for values in progress if "r1" in values]
    assert min(penalized) > 0.6 * max(penalized)


def test_penalty_weight_decays_along_cosine():
    objective = small_config(objective__penalty_initial_factor=10.0, objective__penalty_decay_images=1000).objective
    assert [penalty_factor(objective, seen) for seen in (0, 500, 1000, 10**6)] == pytest.approx([10, 5.5, 1, 1])


@pytest.mark.parametrize(
    "changes",
    [
        {
            "objective.loss": "wasserstein",
            "objective.penalties.r1": 0.0,
            "objective.penalties.r2": 0.0,
            "objective.penalties.wgan_gp": 10.0,
            "objective.penalty_interval": 1,
        },
        {"objective.penalties.dragan": 10.0, "objective.loss": "non-saturating"},
        {"objective.loss": "hinge"},
        *(
            {f"{role}_optimizer.name": name for role in ("generator", "discriminator")}
            for name in sorted(OPTIMIZERS)
            if name != "adam"
        ),
        {"objective.loss": "least-squares"},
        {"objective.loss": "minimax"},
        {"pac": 2, "conditional": False},
        {
            "discriminator.spectral_norm": True,
            "discriminator.minibatch_stddev": 4,
            "objective.penalty_initial_factor": 3.0,
            "objective.penalty_decay_images": 64,
        },
        {
            **dict.fromkeys(("generator.network", "discriminator.network"), "resnet"),
            "discriminator.spectral_norm": True,
            "conditional": True,
        },
        {
            **dict.fromkeys(("generator.network", "discriminator.network"), "r3gan"),
            "generator.normalization": "none",
            "generator.initialization": "torch",
        },
        {"augment.operations": "color,translation,cutout", "augment.probability": 1.0},
        {
            "augment.operations": "integer-translation,rotate,brightness",
            "augment.target": 0.6,
            "augment.ramp_images": 320,
        },
        {
            "gradient_accumulation": 2,
            "pac": 2,
            "conditional": False,
            "n_critic": 2,
            "augment.operations": "translation",
            "augment.probability": 0.5,
        },
    ],
    ids=" ".join,
)
def test_every_option_resumes_bit_exact(changes):
    config = override(small_config(), changes)
    whole, _ = run_steps(config, 5)
    half, _ = run_steps(config, 2)
    saved = {name: tensor.clone() for name, tensor in state_tensors(half).items()}
    fresh, _ = run_steps(config, 0)
    load_state_tensors(fresh, saved)
    again, rows = run_steps(config, 3, replace(fresh, images_seen=half.images_seen))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert state_tensors(again).keys() == state_tensors(whole).keys()
    assert all(torch.equal(state_tensors(again)[name], tensor) for name, tensor in state_tensors(whole).items())


def test_ada_probability_rises_with_overfitting():
    unpenalized = {
        "objective.penalties.r1": 0.0,
        "objective.penalties.r2": 0.0,
        "objective.penalty_interval": 1,
        "objective.loss": "non-saturating",
    }
    still = {"generator_optimizer.learning_rate": 1e-9}  # a generator that stands still is found out
    adaptive = {"augment.operations": "integer-translation", "augment.target": 0.2, "augment.ramp_images": 320}
    config = override(small_config(), {**unpenalized, **still, **adaptive, "discriminator.width": 8})
    _, rows = run_steps(config, 30)
    assert rows[0]["augment_probability"] < rows[15]["augment_probability"] < rows[-1]["augment_probability"] <= 1
    assert rows[-1]["real_margin_sign"] > 0.2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pac": 3}, "pac is 3: expected a divisor of the 16 images computed at a time, such as 2"),
        ({"pac": 2, "conditional": True}, "different classes"),
        ({"gradient_accumulation": 5}, "divisor of the batch of 16, such as 4"),
        ({"n_critic": 0}, "at least 1"),
        ({"objective.penalty_interval": 0}, "at least 1"),
        (
            {
                "objective.loss": "wasserstein",
                "objective.penalties.r1": 0.0,
                "objective.penalties.r2": 0.0,
                "objective.penalty_interval": 1,
            },
            "nothing bounds",
        ),
        (
            {**UNPENALIZED, "discriminator.spectral_norm": True, "discriminator.normalization": "batch"},
            "normalization 'none' and no attention",
        ),
        (
            {
                **UNPENALIZED,
                **RESNETS,
                "discriminator.spectral_norm": True,
                "discriminator.options.attention_resolution": 8,
            },
            "normalization 'none' and no attention",
        ),
        ({"n_critic": 5}, "images is 64: expected at least 80"),
        ({"ema.half_life_images": 0}, "no average is kept"),
        ({"generator_optimizer.warmup_images": 200_000}, "at least 200000, or 0"),
        ({"generator_optimizer.schedule": "cosine"}, "decays to 0 there: set it to the images of the whole run"),
        (
            {"generator_optimizer.schedule": "linear", "generator_optimizer.decay_end_images": 100_000},
            "at least 100,001 (after decay_start_images and warmup_images)",
        ),
        ({"generator_optimizer.decay_end_images": 64}, "has no end, so it has no effect"),
        ({"discriminator_optimizer.schedule": "constant"}, "schedule is constant, so it has no effect: set it to 0"),
        ({"discriminator_optimizer.schedule": "step"}, "Unknown schedule 'step': expected one of: inverse_sqrt,"),
        (
            {
                "generator_optimizer.schedule": "linear",
                "generator_optimizer.decay_start_images": 0,
                "generator_optimizer.decay_end_images": 63,
            },
            "images is 64, but generator_optimizer.decay_end_images 63",
        ),
        ({"augment.operations": "cutout,translation,cutout", "augment.probability": 0.5}, "more than once"),
        ({"data.num_workers": 2}, "data.num_workers"),
        ({"objective.penalties.wgan_gp": 10.0, "discriminator.normalization": "batch"}, "whole batch"),
        ({"objective.penalty_decay_images": 1000}, "needs both"),
        (
            {
                "objective.penalty_initial_factor": 3.0,
                "objective.penalties.r1": 0.0,
                "objective.penalties.r2": 0.0,
                "objective.penalty_interval": 1,
            },
            "no effect",
        ),
        ({"augment.operations": "cutout"}, "nothing would be done"),
        ({"augment.probability": 0.5}, "nothing would be done"),
        ({"augment.operations": "hue", "augment.probability": 0.5}, "have no effect on grayscale images"),
        (
            {"augment.operations": "integer-translation", "augment.probability": 0.5, "augment.ramp_images": 7},
            "augment.target too",
        ),
        ({"discriminator.minibatch_stddev": 3}, "divisor of the 16 logits computed at a time, such as 2"),
        ({"data.source": "stacked-mnist"}, "set data.channels to 3"),
        ({"data.max_images": 70_000}, "has 60,000 images"),
        ({"augment.operations": "cutoff", "augment.probability": 0.5}, "Did you mean"),
        ({"generator.minibatch_stddev": 1}, "group of at least 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_invalid_combinations_raise_before_writing(tmp_path, changes, words):
    with pytest.raises(CardiganError) as caught:
        cardigan.train("mnist", out=tmp_path / "run", images=64, overrides={**SMALL, **changes})
    assert words.lower() in str(caught.value).lower()
    assert not (tmp_path / "run").exists()


def test_spectral_norm_alone_bounds_wasserstein():
    config = override(small_config(), {**UNPENALIZED, "discriminator.spectral_norm": True})
    assert build_step_config(config, open_devices(config)).loss is LOSSES["wasserstein"]


def test_invalid_network_raises_before_decoding(tmp_path, monkeypatch):
    def decoded(*_: object) -> None:
        pytest.fail("the images were opened")

    monkeypatch.setattr(training_run, "open_datasets", decoded)
    for changes in (
        {"objective.loss": "hinges"},
        {"generator.options.attention_resolution": 8},
        UNPENALIZED,
        {"augment.operations": "cutoff", "augment.target": 0.5},
        {"generator_optimizer.name": "adan"},
        {"generator_optimizer.schedule": "cosin"},
    ):
        with pytest.raises(CardiganError):
            cardigan.train("mnist", out=tmp_path / "run", images=64, overrides={**SMALL, **changes})
    assert not (tmp_path / "run").exists()


PENALIZED = [{"penalties": on, "penalty_interval": 1} for on in ({}, *({name: 1.0} for name in PENALTIES))]
AUGMENTED = [
    {},
    {"operations": "translation,cutout", "probability": 1.0},
    {"operations": "integer-translation,rotate", "target": 0.6},
]
CONDITIONED = [None, "projection", "one-hot"]
GENERATORS = sorted(name for name, family in NETS.items() if family.generator)
"""Networks; where one has no discriminator, dcgan's takes part."""


def combinations() -> Iterator[tuple[str, int, str, int, str | None]]:
    """Yield choices of loss, penalty, network, augmentation and conditioning that hold every pair of them, where
    it can be had, at least once."""
    for (first, loss), second in itertools.product(enumerate(sorted(LOSSES)), range(len(PENALIZED))):
        network = GENERATORS[(4 * first + 3 * second) % len(GENERATORS)]
        augmentation, conditioning = (
            (first + second) % len(AUGMENTED),
            CONDITIONED[(2 * second + first) % len(CONDITIONED)],
        )
        yield (
            loss,
            second,
            network,
            augmentation,
            "projection" if conditioning == "one-hot" and not NETS[network].supports_one_hot else conditioning,
        )


def test_combinations_cover_every_pair():
    kinds = [sorted(LOSSES), range(len(PENALIZED)), GENERATORS, range(len(AUGMENTED)), CONDITIONED]
    for one, other in itertools.combinations(range(len(kinds)), 2):
        pairs = set(itertools.product(kinds[one], kinds[other]))
        if (one, other) == (2, 4):
            pairs -= {(name, "one-hot") for name, family in NETS.items() if not family.supports_one_hot}
        assert pairs == {(parts[one], parts[other]) for parts in combinations()}, (
            one,
            other,
            pairs - {(p[one], p[other]) for p in combinations()},
        )


@pytest.mark.parametrize(("loss", "penalty", "network", "augmentation", "conditioning"), list(combinations()))
def test_every_pair_of_options_trains(loss, penalty, network, augmentation, conditioning):
    """Two steps change both networks, and every metric is finite."""
    networks = {"network": network, **({} if conditioning is None else {"conditioning": conditioning})}
    bare = loss == "wasserstein" and not penalty  # needs a bound of another kind; r3gan takes no spectral norm
    changes = {
        **{f"{role}.{key}": value for role in ("generator", "discriminator") for key, value in networks.items()},
        **({} if NETS[network].discriminator else {"discriminator.network": "dcgan"}),
        **{
            "generator.normalization": "none",
            "generator.initialization": "torch",
            "conditional": conditioning is not None,
        },
        **{"objective.loss": loss, **{f"objective.{key}": value for key, value in PENALIZED[penalty].items()}},
        **({"objective.penalties.r1": 1.0} if bare and network == "r3gan" else {"discriminator.spectral_norm": bare}),
        **{f"augment.{key}": value for key, value in AUGMENTED[augmentation].items()},
        **{"batch_size": 4, "data.height": 8, "data.width": 8, "data.max_images": 64},
    }
    config = override(small_config(), changes)
    start, _ = run_steps(config, 0)
    before = {role: weights(start, role).clone() for role in ("generator", "discriminator")}
    state, rows = run_steps(config, 2, start)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(not torch.equal(weights(state, role), before[role]) for role in before)


def test_gradient_penalty_mixes_whole_packs():
    config = override(small_config(), {"pac": 4, "conditional": False, "objective.penalties.wgan_gp": 10.0})
    source = build_source(config)
    mix = step_inputs(config, Batches(source, config.data, 0), 0, open_devices(config)).interpolation.reshape(4, 4)
    assert torch.equal(mix, mix[:, :1].expand(4, 4)) and len(mix[:, 0].unique()) == 4


def test_unbounded_custom_loss_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "endless", replace(LOSSES["wasserstein"]))
    bare = {"objective.penalties.r1": 0.0, "objective.penalties.r2": 0.0, "objective.penalty_interval": 1}
    with pytest.raises(CardiganError, match="nothing bounds"):
        cardigan.train(
            "mnist", out=tmp_path / "run", images=64, overrides={**SMALL, **bare, "objective.loss": "endless"}
        )


def test_max_images_limits_training_images_only(tmp_path):
    """All holdout images stay, and evaluation looks for duplicates among the images trained on."""
    run = cardigan.train("mnist", out=tmp_path / "run", images=16, overrides={**SMALL, "data.max_images": 11_000})
    reference = load_reference(run.config)
    assert (len(reference.train), len(reference.holdout)) == (11_000, 10_000)
    assert torch.equal(reference.train, build_source(run.config).pixels) and "11,000" in reference.name


@pytest.mark.parametrize(
    ("changes", "recipe", "expected"),
    [
        ({"data.max_images": 100}, None, ("translation,cutout", 1.0, 0.0)),
        (
            {"data.max_images": 5_000},
            None,
            ("integer-translation,isotropic-scale,rotate,anisotropic-scale,fractional-translation", 0.0, 0.6),
        ),
        ({"data.max_images": 30_000}, None, ("", 0.0, 0.0)),
        ({}, None, ("", 0.0, 0.0)),
        ({"data.max_images": 100}, "mnist", ("", 0.0, 0.0)),
        ({"data.max_images": 100, "augment.operations": ""}, None, ("", 0.0, 0.0)),
    ],
)
def test_small_dataset_is_augmented_by_default(tmp_path, changes, recipe, expected):
    cardigan.train(
        "mnist",
        recipe=recipe,
        out=tmp_path / "run",
        images=16,
        overrides={**SMALL, "data.height": 8, "data.width": 8, **changes},
    )
    augment = read_config(RunDirectory(tmp_path / "run")).augment
    assert (augment.operations, augment.probability, augment.target) == expected


def test_stacked_mnist_trains_and_is_scored(tmp_path):
    settings = {**SMALL, "checkpoint_every_images": 16}
    cardigan.train("stacked-mnist", out=tmp_path / "run", images=32, overrides=settings)
    progress = [
        event.values
        for event in read_events(tmp_path / "run" / "journal.jsonl")
        if event.kind == "checkpoint" and "score" in event.values
    ]
    assert progress and 0 < progress[-1]["score"] < 7 and 1 <= progress[-1]["modes_covered"] <= 1000
    assert "modes_covered" in (tmp_path / "run" / "report.html").read_text()
    assert config_for("stacked-mnist", "sngan").data.channels == 3


def test_packed_discriminator_groups_images():
    state, _ = run_steps(small_config(pac=2, conditional=False), 0)
    discriminator = state.networks.discriminator
    assert discriminator.inner.down_convs[0].in_channels == 2
    images = torch.rand(8, 1, 32, 32)
    logits = discriminator(images)
    assert logits.shape == (4,)
    images[3] = 0  # its pack is the second
    assert (discriminator(images) != logits).tolist() == [False, True, False, False]
    with pytest.raises(CardiganError, match="packs of 2"):
        discriminator(images[:7])


def test_conditional_needs_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.BUILTIN_DATASETS, "mnist", lambda split: replace(load_mnist(split), num_classes=0))
    with pytest.raises(CardiganError, match="no classes"):
        cardigan.train("mnist", out=tmp_path / "run", images=64, overrides={**SMALL, "conditional": True})


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        *({"objective.loss": loss} for loss in sorted(LOSSES)),
        {"objective.penalties": {"wgan_gp": 10.0}, "objective.loss": "wasserstein"},
        {"gradient_accumulation": 2},
        {"augment.operations": "rotate,translation", "augment.target": 0.6, "augment.ramp_images": 100},
        {"discriminator.spectral_norm": True, "discriminator.minibatch_stddev": 2, "n_critic": 2},
    ],
    ids=str,
)
def test_projected_discriminator_trains_with_every_option(changes, conditional):
    """Penalties are taken with respect to features. Two steps change both networks, and every metric is finite."""
    base = {
        **{"generator.network": "light", "discriminator.network": "projected", "conditional": conditional},
        **{"generator.normalization": "batch", "generator.initialization": "torch", "generator.width": 2},
        **{"discriminator.width": 4, "discriminator.options.head_width": 8},
        **{"batch_size": 4, "data.height": 8, "data.width": 8, "data.max_images": 64, "objective.penalty_interval": 1},
    }
    config = override(small_config(), {**base, **changes})
    start, _ = run_steps(config, 0)
    before = {role: weights(start, role).clone() for role in ("generator", "discriminator")}
    frozen = start.networks.discriminator.projection.digest()
    state, rows = run_steps(config, 2, start)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(not torch.equal(weights(state, role), before[role]) for role in before)
    state.networks.discriminator.projection._digest = b""  # computed again
    assert state.networks.discriminator.projection.digest() == frozen


def test_penalty_on_noisy_images_is_refused_with_frozen_features():
    config = override(
        small_config(),
        {
            "discriminator.network": "projected",
            "objective.penalties": {"dragan": 10.0},
            "objective.penalty_interval": 1,
        },
    )
    with pytest.raises(CardiganError, match="takes penalties with respect to its frozen features: set r1 and r2"):
        run_steps(config, 0)
