"""Writes one HTML page that runs a generator offline, in any browser, without network access.

`lowering` produces the program, `static/` contains the page's files.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from importlib import resources
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

from cardigan.data.source_names import default_run_name
from cardigan.errors import CardiganError
from cardigan.explore.directions import Directions, principal_directions
from cardigan.exports.checking import largest_difference, pytorch_generate_fn
from cardigan.exports.webpage.interpreter import run_program
from cardigan.exports.webpage.lowering import lower_generator
from cardigan.exports.webpage.matmul import matmul_module
from cardigan.exports.webpage.program import Program
from cardigan.exports.webpage.weight_block import pack_tensors, unpack_tensors
from cardigan.files import atomic
from cardigan.models.snapshot import Snapshot
from cardigan.nets.interface import Generator
from cardigan.shapes import ClassWeights, Images, Labels, Latents

TOLERANCE = 2e-2
"""Largest allowed difference from PyTorch, for images in [-1, 1] and float weights. For int8 it is only reported."""
MAX_PAGE_BYTES = 400 * 2**20
"""Browsers limit strings to 512 MiB."""
NUM_SLIDERS = 6
"""Principal directions that get a slider."""
MAX_TITLE, MAX_DIRECTION_NAME = 200, 40
"""Longest texts, in characters."""
ENGINE_FILES = ("engine.js", "worker.js")
PAGE_DISTRIBUTIONS = ("normal", "uniform")
"""Latent distributions that `latents.js` can sample from."""
HOMEPAGE_LABELS = ("homepage", "repository", "source")
SCRIPT_FILES = ("latents.js", "interpolation.js", "markdown.js", "page.js")


def write_page(
    snapshot: Snapshot,
    out: Path,
    card: str = "",
    weights: str = "float16",
    title: str = "",
    direction_names: tuple[str, ...] = (),
) -> float:
    """Write a page that runs this generator; return the largest difference of its fp32 program from PyTorch.

    `card` is Markdown, shown in a collapsed section. `weights` is float16, int8 or float32. `direction_names` name the
    first principal directions. Raises CardiganError, and writes nothing, for an unsupported operation or distribution,
    for weights out of range, for images that differ, and for more names than directions.
    """
    _check_texts(snapshot, title, direction_names)
    distribution = snapshot.config.latent.distribution
    if distribution not in PAGE_DISTRIBUTIONS:
        raise CardiganError(
            f"This model samples from {distribution!r}, but a page only from "
            f"{' and '.join(PAGE_DISTRIBUTIONS)}: "
            "export as onnx or pt2."
        )
    program = snapshot_program(snapshot)
    tensors, weight_block = pack_tensors(program.tensors, weights)
    exact_difference = largest_difference(snapshot, pytorch_generate_fn(program_snapshot(snapshot, program)))
    difference = largest_difference(
        snapshot,
        pytorch_generate_fn(
            program_snapshot(snapshot, replace(program, tensors=unpack_tensors(tensors, weight_block)))
        ),
    )
    if not exact_difference <= TOLERANCE or (not difference <= TOLERANCE and weights != "int8"):
        raise CardiganError(
            f"With {weights} weights the page's images differ from PyTorch's by up to {difference:.2g} (tolerance "
            f"{TOLERANCE}, images in [-1, 1]): use float32 weights, or export as onnx or safetensors."
        )
    data = page_data(snapshot, program, tensors, card, weights, difference, direction_names)
    page = page_html(snapshot.config.latent.size, data, weight_block, title).encode()
    if len(page) > MAX_PAGE_BYTES:
        raise CardiganError(
            f"The page would have {len(page) / 2**20:.0f} MiB, but the maximum is {MAX_PAGE_BYTES // 2**20}: "
            "use int8 weights, or export as onnx or safetensors."
        )
    atomic.write_bytes(out, page)
    return exact_difference


def num_directions(snapshot: Snapshot) -> int:
    """Return the number of principal directions that the page of a generator has."""
    return min(NUM_SLIDERS, snapshot.config.latent.size) if snapshot.generator.feature_modules else 0


def _check_texts(snapshot: Snapshot, title: str, direction_names: tuple[str, ...]) -> None:
    count = num_directions(snapshot)
    if len(direction_names) > count:
        raise CardiganError(
            f"{len(direction_names)} names of directions were given, but the page of this model has {count}: "
            "leave the last ones out."
        )
    for text, limit in ((title, MAX_TITLE), *((name, MAX_DIRECTION_NAME) for name in direction_names)):
        if len(text) > limit:
            raise CardiganError(f"{text[:40]!r}... has {len(text)} characters, but the page has room for {limit}.")


def snapshot_program(snapshot: Snapshot) -> Program:
    """Return a generator's program; raises CardiganError for an unsupported operation."""
    return lower_generator(snapshot.generator.eval(), snapshot.config.latent.size, snapshot.spec.num_classes)


def quantized_page_snapshot(snapshot: Snapshot, weights: str) -> Snapshot:
    """Return a snapshot that runs the page's program with quantized weights."""
    program = snapshot_program(snapshot)
    return program_snapshot(snapshot, replace(program, tensors=unpack_tensors(*pack_tensors(program.tensors, weights))))


def program_snapshot(snapshot: Snapshot, program: Program) -> Snapshot:
    """Return a snapshot that runs a program on the CPU."""
    return replace(snapshot, generator=ProgramGenerator(program))


class ProgramGenerator(Generator):
    """A program as a generator."""

    accepts_class_weights = True

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program
        # Callers read the device from a parameter.
        self.device_parameter = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None = None) -> Images:
        """Return images clipped to [-1, 1]."""
        if labels is not None and not labels.is_floating_point():
            labels = one_hot(labels, self._program.classes).float()
        return run_program(self._program, z, labels).clamp(-1, 1)


def page_data(
    snapshot: Snapshot,
    program: Program,
    tensors: list[dict[str, Any]],
    card: str,
    weights: str,
    difference: float,
    direction_names: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the model data for the page's script."""
    config, spec = snapshot.config, snapshot.spec
    count = num_directions(snapshot)
    directions = (
        principal_directions(snapshot, count, max(2000, 2 * program.latent_size))
        if count
        else Directions(*torch.zeros(3, 0, 0))
    )
    steps = [
        {"kind": step.kind, "inputs": step.inputs, "shape": step.shape, "tensors": step.tensors, **step.settings}
        for step in program.operations
    ]
    return {
        "name": data_title(snapshot),
        "image": {"channels": spec.channels, "height": spec.height, "width": spec.width},
        "class_names": spec.class_names,
        "class_counts": spec.class_counts,
        "distribution": config.latent.distribution,
        "images_seen": snapshot.images_seen,
        "parameters": sum(parameter.numel() for parameter in snapshot.generator.parameters()),
        "weights": weights,
        "max_difference": difference,
        "directions": {
            "vectors": [[round(number, 6) for number in vector] for vector in directions.vectors.tolist()],
            "std": directions.std.flatten().tolist(),
            "explained_variance_ratio": directions.explained_variance_ratio.flatten().tolist(),
            "names": [" ".join(name.split()) for name in direction_names],
        },
        "program": {
            "latent_size": program.latent_size,
            "classes": program.classes,
            "tensors": tensors,
            "operations": steps,
        },
        "matmul_wasm": base64.b64encode(matmul_module()).decode(),
        "card": card,
    }


def data_title(snapshot: Snapshot) -> str:
    """Return the data source's name, preceded by its parent folder if the name is a number."""
    source = snapshot.config.data.source or "other images"
    name = default_run_name(source)
    parent = default_run_name(str(Path(source.rstrip("/")).parent)) if name.isdecimal() else ""
    return f"{parent}/{name}" if parent else name or snapshot.config.recipe


def default_title(data_name: str) -> str:
    """Return the title of a page whose maker gave none."""
    return f"What a network learned from {data_name}"


def page_html(latent_size: int, data: dict[str, Any], weight_block: bytes, title: str = "") -> str:
    """Return the page. External text is escaped HTML, or JSON without `<`, so it cannot close an element."""
    title = " ".join(title.split()) or default_title(data["name"])
    lead = (
        f"None of these images is real. A neural network with {data['parameters']:,} parameters generates them on your "
        "device, on demand."
    )
    engine, script, theme = read_assets(ENGINE_FILES), read_assets(SCRIPT_FILES), read_assets(("theme.js",))
    style = fill_template(read_assets(("page.css",)), {"font": data_url("font/woff2", studio_asset("plex.woff2"))})
    return fill_template(
        read_assets(("page.html",)),
        {
            "content_security_policy": content_security_policy([engine, script, theme], style),
            "version": html.escape(version("cardigan")),
            "title": html.escape(title),
            "introduction": html.escape(lead),
            "latent_size": str(latent_size),
            "project": project_line(),
            "logo": data_url("image/svg+xml", studio_asset("mark.svg")),
            "style": style,
            "theme": theme,
            "engine": engine,
            "script": script,
            "model": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
            "weights": base64.b64encode(weight_block).decode(),
        },
    )


def project_line() -> str:
    """Return HTML that names the program which made the page, with a link if the package's metadata has its address."""
    name = f"Cardigan {html.escape(version('cardigan'))}"
    homepage = next(
        (
            address.strip()
            for label, _, address in (text.partition(",") for text in metadata("cardigan").get_all("Project-URL") or ())
            if label.strip().lower() in HOMEPAGE_LABELS and address.strip().startswith("https://")
        ),
        "",
    )
    link = f'<a href="{html.escape(homepage)}" target="_blank" rel="noopener">{name}</a>' if homepage else name
    return f"Made with {link}, which trains image GANs on ordinary computers."


def content_security_policy(scripts: list[str], style: str) -> str:
    """Return a content security policy that allows only these scripts and no network access."""
    script_sources = " ".join(f"'{csp_digest(script)}'" for script in scripts)
    directives = {
        "default-src": "'none'",
        "script-src": f"{script_sources} 'wasm-unsafe-eval'",
        "worker-src": "blob:",
        "style-src": f"'{csp_digest(style)}'",
        "img-src": "data: blob:",
        "font-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def csp_digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def fill_template(template: str, values: dict[str, str]) -> str:
    """Return the template with each {{name}} replaced once. Inserted text is not scanned again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def read_assets(names: tuple[str, ...]) -> str:
    folder = resources.files("cardigan.exports.webpage") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def studio_asset(name: str) -> bytes:
    """Return a font or logo file that the page shares with the studio."""
    return (resources.files("cardigan") / "studio" / "static" / name).read_bytes()


def data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
