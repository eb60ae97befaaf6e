"""The model card: data, recipe, metrics, limits, license, use, and how to reproduce the model.

Markdown with the front matter that the Hugging Face hub reads. Computes no metrics and writes no files.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from torch import nn

from cardigan.config import BUILTIN_SOURCES, Config
from cardigan.exports.anonymize import public_source
from cardigan.exports.front_matter import model_front_matter
from cardigan.exports.quantization_report import QuantizationReport, quantization_lines
from cardigan.exports.training_record import TrainingRecord, training_command, training_record
from cardigan.models.snapshot import BLEND, Snapshot
from cardigan.models.starters import starter_at

UNKNOWN_DATA = "unknown images"
"""Data name of a generator that another program trained."""
LICENSES = dict.fromkeys(
    BUILTIN_SOURCES,
    ("cc-by-sa-3.0", "Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0), "
     "https://creativecommons.org/licenses/by-sa/3.0/; the MNIST digits are by Yann LeCun and Corinna Cortes"),
)  # fmt: skip
"""Licenses of the built-in data: identifier and full text."""
HUB_DATASETS: dict[str, str] = dict.fromkeys(BUILTIN_SOURCES, "ylecun/mnist")
"""The data sets on the hub that the built-in data are made of."""


def model_card(
    snapshot: Snapshot,
    model: Path | None = None,
    files: Mapping[str, str] | None = None,
    export_lines: Sequence[str] = (),
    quantization: QuantizationReport | None = None,
    data_license: str = "",
    weights: str = "float32",
) -> str:
    """Return the card of a snapshot.

    `model` is the model's path. `files` maps the names of the described files to their SHA-256; it is "" for a file
    that embeds the card. `export_lines` describes the export, `quantization` its metrics, `weights` the stored dtype.
    """
    config, record = snapshot.config, training_record(model, snapshot)
    starter = None if model is None else starter_at(model)
    data_license = data_license or ("" if starter is None else starter.license)
    source = public_source(config) or UNKNOWN_DATA
    is_ours = not snapshot.foreign
    sections = {
        "This export": list(export_lines),
        "Data": _data(snapshot, source),
        "Recipe": _recipe(snapshot),
        "Started from": _parent(config, record),
        "Time": _time(snapshot, record) if is_ours else [],
        "Metrics": quantization_lines(quantization) if quantization is not None else _metrics(record, weights),
        "Limits": _limits(snapshot),
        "License of the data": [
            *([] if starter is None else [f"{plain_text(starter.attribution)}.", ""]),
            _license(source, data_license)[1],
        ],
        "Use": _use(snapshot, files or {}),
        "Reproduce": ["```", training_command(config, snapshot.images_seen), "```", _reproducibility_note(record)]
        if is_ours and not config.start_from.startswith(BLEND)
        else [],
        "Hashes": _hashes(snapshot, files or {}),
    }
    body = [line for title, lines in sections.items() if lines for line in (f"## {title}", "", *lines, "")]
    text = "\n".join([*_front_matter(snapshot, source, data_license), "", f"# {_title(snapshot, source)}", "", *body])
    return text.replace(config.data.source, source) if config.data.source else text


def weights_hash(network: nn.Module) -> str:
    """Return the SHA-256 of a network's fp32 weights: names in sorted order, with shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def model_description(snapshot: Snapshot) -> str:
    """Return what a signed claim says of a model's file."""
    source = public_source(snapshot.config) or UNKNOWN_DATA
    return f"generator of a GAN, trained on {source}; SHA-256 of its fp32 weights: {weights_hash(snapshot.generator)}"


def sampling_instructions(config: Config) -> list[str]:
    """Return how latents and classes are sampled, so that any program can sample the same ones."""
    size, distribution = config.latent.size, config.latent.distribution
    distribution_text, expression = {
        "normal": ("sampled independently from N(0, 1)", f"torch.randn(1, {size}, generator=g)"),
        "uniform": ("sampled independently and uniformly from [-1, 1]", f"torch.rand(1, {size}, generator=g) * 2 - 1"),
    }.get(
        distribution,
        (
            f"from the distribution `{distribution}` of a plug-in",
            f'cardigan.latents.sampling.LATENTS["{distribution}"]((1, {size}), g)',
        ),
    )
    lines = [f"`z` has {size} values {distribution_text}. In PyTorch, image i of seed s has "
             f"`z = {expression}` with `g = torch.Generator()"
             '.manual_seed(int.from_bytes(hashlib.blake2b(f"{s}/sample/{i}".encode(), digest_size=8).digest(), "big") '
             ">> 1)`. "
             "`truncation`, from 0 to 1, multiplies `z`: less is more typical and less varied."]  # fmt: skip
    if config.conditional:
        drawn = "torch.randint(classes, (1,), generator=g)"
        if config.data.clusters:
            drawn = "torch.searchsorted(counts.cumsum(0), torch.randint(counts.sum(), (1,), generator=g), right=True)"
        lines.append(
            f"`labels` are class indices. A random label is `{drawn}` with `g` from "
            '`f"{s}/label/{i}"`'
            f"{' and the `class_counts` of the header as the tensor `counts`' if config.data.clusters else ''}."
        )
    return lines


def _front_matter(snapshot: Snapshot, source: str, data_license: str) -> list[str]:
    kind = "conditional" if snapshot.spec.num_classes else "unconditional"
    tags = ["gan", "image-generation", kind, snapshot.config.generator.network]
    dataset = source.removeprefix("hf:").split(":")[0] if source.startswith("hf:") else HUB_DATASETS.get(source, "")
    return model_front_matter(_license_name(snapshot, source, data_license), tags, dataset)


def license_name(snapshot: Snapshot, model: Path | None = None) -> str:
    """Return the license in the front matter of a model's card: an identifier of the hub, or the license's own name."""
    starter = None if model is None else starter_at(model)
    return _license_name(snapshot, public_source(snapshot.config) or UNKNOWN_DATA, starter.license if starter else "")


def _license_name(snapshot: Snapshot, source: str, data_license: str) -> str:
    return "other" if snapshot.config.start_from else _license(source, data_license)[0]


def _parent(config: Config, record: TrainingRecord) -> list[str]:
    """Return the model that training started from, its license and what was adapted, or nothing."""
    if not config.start_from:
        return []
    if config.start_from.startswith(BLEND):
        return [f"These weights are a {plain_text(config.start_from)}. The licenses of both models may apply to it."]
    model, _, sha256 = config.start_from.rpartition("@sha256:")
    facts = (record.environment or {}).get("parent")
    facts = facts if isinstance(facts, dict) else {}
    license_name = facts.get("license")
    license_text = (
        f"The license of that model, {plain_text(str(license_name))}, may apply to this one too."
        if license_name
        else "The license of that model is unknown: find it out before you share this one."
    )
    named = plain_text(str(facts.get("attribution") or ""))
    attribution = f" It learned from: {named}." if named else ""
    adapted = [plain_text(str(line)) for line in facts.get("adapted", [])]
    return [
        f"Training started from the weights of {plain_text(model)} (SHA-256 `{sha256}`), not from random ones. "
        f"{license_text}{attribution}",
        *(f"- {line}" for line in adapted),
    ]


def _title(snapshot: Snapshot, source: str) -> str:
    spec = snapshot.spec
    network = plain_text(snapshot.config.generator.network)
    return f"{plain_text(source)}: {spec.height}x{spec.width} images by a {network} GAN"


def plain_text(text: str) -> str:
    """Return text for Markdown that shows every character: no HTML, links or code."""
    return re.sub(r"[&<>\[\]`*|]", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _license(source: str, data_license: str) -> tuple[str, str]:
    if data_license:
        license_text = plain_text(data_license)
        return (
            data_license,
            f"{license_text}, as stated by the exporter. Decide yourself whether it extends to the weights.",
        )
    if source in LICENSES:
        identifier, license_text = LICENSES[source]
        return identifier, f"{license_text}. To be safe, this card applies it to the weights too."
    return (
        "unknown",
        "Unknown: Cardigan has no record of it. Find it out before you share a model trained on these images.",
    )


def _data(snapshot: Snapshot, source: str) -> list[str]:
    data, spec = snapshot.config.data, snapshot.spec
    if snapshot.foreign:
        origin = "" if source == UNKNOWN_DATA else f": {plain_text(source)}, according to the file format"
        return [
            f"- trained by another program{origin}; the weights do not record the exact training data",
            f"- images: {spec.height}x{spec.width}",
        ]
    color_text = {1: "gray", 3: "RGB", 4: "RGBA"}.get(spec.channels, f"{spec.channels} channels")
    lines = [f"- source: {plain_text(source)} (split `{data.split}`"
             f"{f', {data.max_images:,} of its images' if data.max_images else ''}"
             f"{f', holdout of {data.holdout:,}' if data.holdout else ''})",
             f"- images: {spec.height}x{spec.width} (height first), {color_text}; resize `{data.resize}`"
             f"{', horizontal flip' if data.horizontal_flip else ''}"]  # fmt: skip
    names = ", ".join(map(plain_text, spec.class_names)) or f"0 to {spec.num_classes - 1}"
    if data.clusters and spec.num_classes:
        return [*lines, f"- classes: none; {spec.num_classes} clusters of similar images take their place ({names})"]
    return [*lines, f"- classes: {spec.num_classes} ({names})" if spec.num_classes else "- classes: none"]


def _recipe(snapshot: Snapshot) -> list[str]:
    config = snapshot.config
    quantization_note = (
        []
        if snapshot.weights_dtype == "float32"
        else [f"- read from a file with {snapshot.weights_dtype} weights: they are not exactly the trained ones"]
    )
    parameters = sum(parameter.numel() for parameter in snapshot.generator.parameters())
    network = (
        f"{config.generator.network}, width {config.generator.width}, {parameters:,} parameters, "
        f"latent size {config.latent.size}"
    )
    if snapshot.foreign:
        return [f"- generator: {network}; training unknown", *quantization_note]
    penalties = ", ".join(f"{name} {weight:g}" for name, weight in config.objective.penalties.items()) or "none"
    return [
        *quantization_note,
        f"- recipe `{config.recipe}`, seed {config.seed}, batch size {config.batch_size}, "
        f"{snapshot.images_seen:,} images seen",
        f"- generator: {network}",
        f"- discriminator: {config.discriminator.network}, width {config.discriminator.width}; "
        f"loss `{config.objective.loss}`, penalties {penalties}",
        f"- EMA weights, half-life {config.ema.half_life_images:,} images"
        if config.ema.half_life_images
        else "- weights of the last step, without EMA",
    ]


def _time(snapshot: Snapshot, record: TrainingRecord) -> list[str]:
    images_seen = f"{snapshot.images_seen:,} images"
    if record.seconds is None:
        return [f"{images_seen}; the time is unknown, because the file is not part of a run."]
    environment = record.environment or {}
    machine = ", ".join(
        f"{label} {environment[name]}"
        for name, label in (("platform", "on"), ("num_threads", "threads:"), ("torch_version", "torch"))
        if environment.get(name)
    )
    return [f"{images_seen} in {record.seconds:,.0f} s{f' ({machine})' if machine else ''}."]


def _metrics(record: TrainingRecord, weights: str) -> list[str]:
    quantization_note = (
        []
        if weights == "float32"
        else [f"These metrics are of the weights before quantization to {weights}; its effect was not evaluated.", ""]
    )
    score = (
        []
        if record.score is None
        else [
            f"Score at this checkpoint: {record.score:.2f} (the quick score, of few images and without a standard "
            "error; it only compares checkpoints of one run)."
        ]
    )
    if not record.metric_rows:
        return [
            *score,
            *([""] if score else []),
            "Not evaluated: use `cardigan export --evaluate`, or run `cardigan report` before the export.",
        ]
    table = ["| metric | value | standard error | real baseline |", "|---|---|---|---|"]
    table += [f"| {row.name} | {row.value} | {row.error} | {row.baseline} |" for row in record.metric_rows]
    return [*quantization_note, *table, "", f"Protocol: {record.protocol}", *(["", *score] if score else [])]


def _limits(snapshot: Snapshot) -> list[str]:
    classes = "It supports only the classes above." if snapshot.spec.num_classes else "It is unconditional."
    return [
        f"- It generates {snapshot.spec.height}x{snapshot.spec.width} images like its training images, including their "
        "flaws and imbalances.",
        f"- {classes} Rare kinds of images may be missing or of lower quality.",
        "- It can reproduce training images. The metric `memorization` measures this, if it was evaluated.",
        "- It is meant for study and illustration. It was not tested for any use in which a wrong image does harm.",
    ]


def _use(snapshot: Snapshot, files: Mapping[str, str]) -> list[str]:
    """Return how to sample: Python code if Cardigan loads a file, and a description for any program."""
    spec, instructions = snapshot.spec, sampling_instructions(snapshot.config)
    weights_name = next((name for name in files if name.endswith(".safetensors")), "")
    if not weights_name:
        return instructions
    label = ", labels=0" if spec.num_classes else ""
    return [
        "```python",
        "import cardigan",
        "",
        f'gan = cardigan.load("{weights_name}")',
        f"images = gan.sample(16, seed=0{label})  # uint8 [16, {spec.height}, {spec.width}, {spec.channels}]",
        "```",
        "",
        *instructions,
    ]


def _reproducibility_note(record: TrainingRecord) -> str:
    environment = record.environment or {}
    versions = (
        f"with cardigan {environment['cardigan_version']} and torch {environment['torch_version']}"
        if {"cardigan_version", "torch_version"} <= environment.keys()
        else "with the same versions"
    )
    return (
        f"\nResults are bit-identical {versions} on the same kind of machine. Elsewhere rounding differs, and single "
        "images may differ."
    )


def _hashes(snapshot: Snapshot, files: Mapping[str, str]) -> list[str]:
    rows = [f"| {name} | `{digest}` |" for name, digest in files.items() if digest]
    return [
        "| file | SHA-256 |",
        "|---|---|",
        *rows,
        f"| fp32 weights of the generator | `{weights_hash(snapshot.generator)}` |",
        "",
        f"Written by cardigan {version('cardigan')}.",
    ]
