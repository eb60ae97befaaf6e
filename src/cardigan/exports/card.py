"""The model card: what a generator is, what it was trained on and how, how good it is, what it is not good for, and how to have it again.

Markdown, with the front matter that the Hugging Face hub reads. Words only; judges nothing, writes nothing.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from torch import nn

from cardigan.config import Config
from cardigan.exports.anonymize import public_source
from cardigan.exports.quantization_report import QuantizationReport, quantization_lines
from cardigan.exports.training_record import TrainingRecord, training_command, training_record
from cardigan.models.snapshot import Snapshot

UNKNOWN_DATA = "unknown images"
"""What the data of a generator is called that another program trained."""
LICENSES = dict.fromkeys(
    ("mnist", "stacked-mnist"),
    ("cc-by-sa-3.0", "Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0), https://creativecommons.org/licenses/by-sa/3.0/; "
     "the MNIST digits are by Yann LeCun and Corinna Cortes"),
)  # fmt: skip
"""Of the embedded pictures: the short name and the sentence."""


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

    `model` is where it came from, `files` are the names of what the card is of and their SHA-256, "" where the card is to lie inside, `export_lines` says
    what this export is, `quantization` what the judge found, `weights` what they are stored as.
    """
    config, record = snapshot.config, training_record(model, snapshot)
    source = public_source(config) or UNKNOWN_DATA
    is_ours = not snapshot.foreign
    sections = {
        "This export": list(export_lines),
        "Data": _data(snapshot, source),
        "Recipe": _recipe(snapshot),
        "Time": _time(snapshot, record) if is_ours else [],
        "Metrics": quantization_lines(quantization) if quantization is not None else _metrics(record, weights),
        "Limits": _limits(snapshot),
        "License of the data": [_license(source, data_license)[1]],
        "Use": _use(snapshot, files or {}),
        "Reproduce": ["```", training_command(config, snapshot.images_seen), "```", _reproducibility_note(record)]
        if is_ours
        else [],
        "Hashes": _hashes(snapshot, files or {}),
    }
    body = [line for title, lines in sections.items() if lines for line in (f"## {title}", "", *lines, "")]
    text = "\n".join([*_front_matter(snapshot, source, data_license), "", f"# {_title(snapshot, source)}", "", *body])
    return text.replace(config.data.source, source) if config.data.source else text


def weights_hash(network: nn.Module) -> str:
    """Return the SHA-256 of a network's fp32 weights: every name in order, its shape and its numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sampling_instructions(config: Config) -> list[str]:
    """Return how latents and classes are drawn, so that any program can draw the same ones."""
    size, distribution = config.latent.size, config.latent.distribution
    distribution_text = {"normal": "from N(0, 1)", "uniform": "uniformly from [-1, 1]"}[distribution]
    expression = {
        "normal": f"torch.randn(1, {size}, generator=g)",
        "uniform": f"torch.rand(1, {size}, generator=g) * 2 - 1",
    }[distribution]
    lines = [f"`z` is {size} numbers drawn independently {distribution_text}. Picture i of seed s has, in PyTorch, `{expression}`, where `g = torch.Generator()"
             '.manual_seed(int.from_bytes(hashlib.blake2b(f"{s}/sample/{i}".encode(), digest_size=8).digest(), "big") >> 1)`. '
             "`truncation`, from 0 to 1, multiplies `z`: less is more typical and less varied."]  # fmt: skip
    if config.conditional:
        lines.append(
            '`labels` are class numbers; one that is not asked for is drawn by `torch.randint(classes, (1,), generator=g)` of `f"{s}/label/{i}"`.'
        )
    return lines


def _front_matter(snapshot: Snapshot, source: str, data_license: str) -> list[str]:
    kind = "conditional" if snapshot.spec.num_classes else "unconditional"
    tags = ["gan", "image-generation", kind, snapshot.config.generator.network]
    name = source.removeprefix("hf:").split(":")[0]
    datasets = ["datasets:", f"- {_yaml_quoted(name)}"] if source in LICENSES or source.startswith("hf:") else []
    return ["---", "library_name: cardigan", f"license: {_license(source, data_license)[0]}", "pipeline_tag: unconditional-image-generation",
            "tags:", *(f"- {tag}" for tag in tags), *datasets, "---"]  # fmt: skip


def _yaml_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _title(snapshot: Snapshot, source: str) -> str:
    spec = snapshot.spec
    return f"{source}: {spec.height}x{spec.width} pictures by a {snapshot.config.generator.network} GAN"


def _license(source: str, data_license: str) -> tuple[str, str]:
    if data_license:
        identifier = data_license.lower() if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", data_license) else "other"
        license_text = " ".join(data_license.split())
        return (
            identifier,
            f"{license_text}, as told by who exported this. Whether it extends to the weights is for you to judge.",
        )
    if source in LICENSES:
        return LICENSES[source][
            0
        ], f"{LICENSES[source][1]}. The card passes it on to the weights, to be on the safe side."
    return (
        "unknown",
        "Not recorded: Cardigan does not know it. Find it out before you share what was learned from the pictures.",
    )


def _data(snapshot: Snapshot, source: str) -> list[str]:
    data, spec = snapshot.config.data, snapshot.spec
    if snapshot.foreign:
        origin = "" if source == UNKNOWN_DATA else f": {source}, by what kind of file it is"
        return [
            f"- another program trained it{origin}; what exactly it saw, these weights do not tell",
            f"- pictures: {spec.height}x{spec.width}",
        ]
    color_text = {1: "grey", 3: "RGB", 4: "RGB and transparency"}.get(spec.channels, f"{spec.channels} channels")
    lines = [f"- source: {source} (part `{data.split}`{f', {data.max_images:,} of its pictures' if data.max_images else ''}"
             f"{f', {data.holdout:,} held out' if data.holdout else ''})",
             f"- pictures: {spec.height}x{spec.width} (height first), {color_text}; fit `{data.resize}`{', mirrored' if data.horizontal_flip else ''}"]  # fmt: skip
    names = ", ".join(spec.class_names) or f"0 to {spec.num_classes - 1}"
    return [*lines, f"- classes: {spec.num_classes} ({names})" if spec.num_classes else "- classes: none told"]


def _recipe(snapshot: Snapshot) -> list[str]:
    config = snapshot.config
    quantization_note = (
        []
        if snapshot.weights_dtype == "float32"
        else [f"- read from a file that stored its weights as {snapshot.weights_dtype}: these are not those trained"]
    )
    parameters = sum(parameter.numel() for parameter in snapshot.generator.parameters())
    network = f"{config.generator.network}, width {config.generator.width}, {parameters:,} parameters, latent of {config.latent.size}"
    if snapshot.foreign:
        return [f"- generator: {network}; how it was trained is not known", *quantization_note]
    return [
        *quantization_note,
        f"- recipe `{config.recipe}`, seed {config.seed}, batch {config.batch_size}, {snapshot.images_seen:,} images seen",
        f"- generator: {network}",
        f"- discriminator: {config.discriminator.network}, width {config.discriminator.width}; loss `{config.objective.loss}`, "
        f"R1 {config.objective.r1:g}, R2 {config.objective.r2:g}",
        f"- these are averaged weights, half-life {config.ema.half_life_images:,} images"
        if config.ema.half_life_images
        else "- these are the last weights, not averaged",
    ]


def _time(snapshot: Snapshot, record: TrainingRecord) -> list[str]:
    images_seen = f"{snapshot.images_seen:,} images"
    if record.seconds is None:
        return [f"{images_seen}; how long they took is not known, since this file lies in no run."]
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
        else [f"Of the weights before they were stored as {weights}; what that costs was not judged.", ""]
    )
    score = [] if record.score is None else [f"Score at this checkpoint: {record.score:.2f} (the quick score, of few pictures and without an error: "
                                             "it compares checkpoints of one run, nothing else)."]  # fmt: skip
    if not record.metric_rows:
        return [
            *score,
            *([""] if score else []),
            "Not evaluated: `cardigan export --evaluate` or `cardigan evaluate` does it.",
        ]
    table = ["| metric | value | standard error | real baseline |", "|---|---|---|---|"]
    table += [f"| {row.name} | {row.value} | {row.error} | {row.baseline} |" for row in record.metric_rows]
    return [*quantization_note, *table, "", f"Protocol: {record.protocol}", *(["", *score] if score else [])]


def _limits(snapshot: Snapshot) -> list[str]:
    classes = "Only the classes above can be asked for." if snapshot.spec.num_classes else "No class can be asked for."
    return [
        f"- It draws {snapshot.spec.height}x{snapshot.spec.width} pictures like those it was trained on, with their faults and imbalances.",
        f"- {classes} Rare kinds of pictures may be missing or worse than others.",
        "- It can repeat training pictures: the metric `memorization` looks for it, where it was judged.",
        "- It was made to study and illustrate; nothing was checked for any use in which a wrong picture does harm.",
    ]


def _use(snapshot: Snapshot, files: Mapping[str, str]) -> list[str]:
    """Return how to draw: the code where a file is one that Cardigan loads, and in words for any program."""
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
        f"pictures = gan.sample(16, seed=0{label})  # uint8 [16, {spec.height}, {spec.width}, {spec.channels}]",
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
    return f"\nThe bits are the same {versions} on the same kind of machine; elsewhere rounding differs, and so do single pictures."


def _hashes(snapshot: Snapshot, files: Mapping[str, str]) -> list[str]:
    rows = [f"| {name} | `{digest}` |" for name, digest in files.items() if digest]
    return [
        "| what | SHA-256 |",
        "|---|---|",
        *rows,
        f"| the weights of this generator in fp32 | `{weights_hash(snapshot.generator)}` |",
        "",
        f"Written by cardigan {version('cardigan')}.",
    ]
