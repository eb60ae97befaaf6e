"""Evaluate a model under a protocol: what `cardigan.evaluate`, `cardigan evaluate` and `cardigan compare` do."""

from functools import partial
from pathlib import Path

from cardigan.data.source_names import absolute_source
from cardigan.errors import CardiganError
from cardigan.files.disk_cache import download
from cardigan.metrics.evaluate import NUM_SAMPLES, OnMetric, evaluate, generator_sampler
from cardigan.metrics.evaluation_devices import ExtractorChoice, open_evaluation
from cardigan.metrics.protocol import Report
from cardigan.metrics.reference import Reference, Sampler
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.snapshot import Snapshot, read_snapshot
from cardigan.overrides import override


def evaluate_model(
    model: Path | Snapshot,
    *,
    reference_source: str | None = None,
    metrics: list[str] | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    truncation: float = 1.0,
    extractor: str | None = None,
    weights: str | None = None,
    baseline: bool = True,
    device: str = "auto",
    num_devices: int = 1,
    on_metric: OnMetric | None = None,
) -> tuple[Report, Sampler, Reference]:
    """Return the report on one model, with its sampler, which runs in this process, and its reference.

    `reference_source` names the real images of a model without a recorded source. `weights` are a file, or
    `https://...#sha256=HASH`, for an extractor that needs them. Raises CardiganError as `metrics.evaluate.evaluate`.
    """
    if not 0 <= seed < 2**63:
        raise CardiganError(f"seed is {seed}: expected 0 <= seed < 2^63.")
    snapshot, path = (model, None) if isinstance(model, Snapshot) else (read_snapshot(model), model)
    name = "the model" if path is None else path
    if reference_source is not None and snapshot.config.data.source:
        raise CardiganError(
            f"{name} was trained on {snapshot.config.data.source!r} and is compared with that: leave --reference out."
        )
    config = (
        snapshot.config
        if reference_source is None
        else override(snapshot.config, {"data.source": absolute_source(reference_source)})
    )
    reference = load_reference(config, path)
    file = None if weights is None else download(weights) if "://" in weights else Path(weights)
    make_sampler = partial(generator_sampler, snapshot, reference, seed, truncation)
    choice = ExtractorChoice(extractor or reference.extractor, reference.image_shape, file)
    with open_evaluation(snapshot, choice, device, num_devices) as (sampling, found):
        report = evaluate(make_sampler(sampling), reference, found, num_samples, metrics, baseline, on_metric)
    return report, make_sampler(), reference
