"""One HTML page that runs a generator: offline, from disk, in any browser, with nothing loaded and nothing sent.

Knows what is in the page, not how its pictures are computed: `lowering` writes the program, `paper/` is the page.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

from cardigan.data.pictures import called
from cardigan.errors import CardiganError
from cardigan.explore.directions import Directions, principal_directions
from cardigan.explore.layers import FEATURES
from cardigan.exports.block import packed, unpacked
from cardigan.exports.checking import drawing_of, largest_difference
from cardigan.exports.interpreter import interpreted
from cardigan.exports.lowering import lowered
from cardigan.exports.product import product_module
from cardigan.exports.program import Program
from cardigan.nets.interface import Generator
from cardigan.run import atomic
from cardigan.run.snapshot import Snapshot
from cardigan.shapes import Images, Labels, Latents

TOLERANCE = 2e-2
"""Largest difference from PyTorch, in [-1, 1], of a page whose weights are floats; what 8-bit weights cost is reported instead."""
MOST_BYTES = 400 * 2**20
"""Browsers hold no text longer than 512 MiB."""
DIRECTIONS = 6
"""Principal directions that get a slider."""
ENGINE = ("engine.js", "worker.js")
SCRIPT = ("latents.js", "mixing.js", "markdown.js", "page.js")


def write_page(snapshot: Snapshot, out: Path, card: str = "", weights: str = "float16") -> float:
    """Write a page that runs this generator; return the largest difference from PyTorch, in [-1, 1], that its steps make with whole weights.

    `card` is Markdown, shown in a fold. `weights` is float16, int8 or float32. Raises CardiganError for a generator with a part that the page's
    engine does not know (naming it), for weights that do not fit, and for pictures that come out different; nothing is written then.
    """
    program = program_of(snapshot)
    tensors, block = packed(program.tensors, weights)
    exact = largest_difference(snapshot, drawing_of(snapshot_of(snapshot, program)))
    difference = largest_difference(snapshot, drawing_of(snapshot_of(snapshot, replace(program, tensors=unpacked(tensors, block)))))
    if not exact <= TOLERANCE or (not difference <= TOLERANCE and weights != "int8"):
        raise CardiganError(
            f"With {weights} weights a page would draw up to {difference:.2g} beside PyTorch on a scale from -1 to 1, "
            f"and at most {TOLERANCE} is allowed: keep them as float32, or export the generator as onnx or safetensors instead."
        )
    page = page_of(snapshot, told(snapshot, program, tensors, card, weights, difference), block).encode()
    if len(page) > MOST_BYTES:
        raise CardiganError(
            f"The page would have {len(page) / 2**20:.0f} MiB, and browsers read at most {MOST_BYTES // 2**20}: "
            "keep the weights as int8, or export the generator as onnx or safetensors instead."
        )
    atomic.write_bytes(out, page)
    return exact


def program_of(snapshot: Snapshot) -> Program:
    """Return the steps that a generator draws by; raises CardiganError for a part that the page's engine does not know."""
    return lowered(snapshot.generator.eval(), snapshot.config.latent.size, snapshot.spec.classes)


def page_snapshot(snapshot: Snapshot, weights: str) -> Snapshot:
    """Return what a page draws with, its weights stored in so many bits."""
    program = program_of(snapshot)
    return snapshot_of(snapshot, replace(program, tensors=unpacked(*packed(program.tensors, weights))))


def snapshot_of(snapshot: Snapshot, program: Program) -> Snapshot:
    """Return a snapshot that draws by a program's steps, on the CPU."""
    return replace(snapshot, generator=Interpreted(program))


class Interpreted(Generator):
    """A program as a generator."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # where it computes, which callers ask of a parameter

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        """Return pictures in [-1, 1], clipped: what lies beyond is never shown."""
        classes = None if labels is None else one_hot(labels, self._program.classes).float()
        return interpreted(self._program, z, classes).clamp(-1, 1)


def told(snapshot: Snapshot, program: Program, tensors: list[dict[str, Any]], card: str, weights: str, difference: float) -> dict[str, Any]:
    """Return what the page's script is told of the model."""
    config, spec = snapshot.config, snapshot.spec
    known, size = type(snapshot.generator) in FEATURES, program.latent_size
    directions = principal_directions(snapshot, min(DIRECTIONS, size), max(2000, 2 * size)) if known else Directions(*torch.zeros(3, 0, 0))
    steps = [{"kind": step.kind, "inputs": step.inputs, "shape": step.shape, "tensors": step.tensors, **step.settings} for step in program.steps]
    return {
        "name": name_of(snapshot),
        "pictures": {"channels": spec.channels, "height": spec.height, "width": spec.width},
        "class_names": spec.class_names,
        "distribution": config.latent.distribution,
        "images_seen": snapshot.images_seen,
        "parameters": sum(parameter.numel() for parameter in snapshot.generator.parameters()),
        "weights": weights,
        "difference": difference,
        "directions": {
            "vectors": [[round(number, 6) for number in vector] for vector in directions.vectors.tolist()],
            "spread": directions.spread.flatten().tolist(),
            "share": directions.share.flatten().tolist(),
        },
        "program": {"latent": program.latent_size, "classes": program.classes, "tensors": tensors, "steps": steps},
        "kernel": base64.b64encode(product_module()).decode(),
        "card": card,
    }


def name_of(snapshot: Snapshot) -> str:
    """Return what the pictures are called: their source's own name, without the folders it lies in unless it is a mere number."""
    source = snapshot.config.data.source or "other pictures"
    name = called(source)
    above = called(str(Path(source.rstrip("/")).parent)) if name.isdecimal() else ""
    return f"{above}/{name}" if above else name or snapshot.config.recipe


def page_of(snapshot: Snapshot, model: dict[str, Any], block: bytes) -> str:
    """Return the whole page. Text from outside stands in it as escaped HTML or as JSON without a `<`, so none of it can end an element."""
    title = f"What a network learned from {model['name']}"
    lead = (
        f"None of these pictures exists anywhere else. A neural network of {model['parameters']:,} numbers makes each of them up, "
        "on your own device, the moment you ask for it."
    )
    engine, script, theme = joined(ENGINE), joined(SCRIPT), joined(("theme.js",))
    style = filled(joined(("page.css",)), {"font": data_address("font/woff2", studio("plex.woff2"))})
    return filled(
        joined(("page.html",)),
        {
            "policy": policy([engine, script, theme], style),
            "version": html.escape(version("cardigan")),
            "title": html.escape(title),
            "lead": html.escape(lead),
            "latent": str(snapshot.config.latent.size),
            "mark": data_address("image/svg+xml", studio("mark.svg")),
            "style": style,
            "theme": theme,
            "engine": engine,
            "script": script,
            "model": json.dumps(model, allow_nan=False).replace("<", "\\u003c"),
            "weights": base64.b64encode(block).decode(),
        },
    )


def policy(scripts: list[str], style: str) -> str:
    """Return a content security policy under which the page can load nothing and run only these scripts."""
    allowed = " ".join(f"'{digest(script)}'" for script in scripts)
    rules = {
        "default-src": "'none'",
        "script-src": f"{allowed} 'wasm-unsafe-eval'",
        "worker-src": "blob:",
        "style-src": f"'{digest(style)}'",
        "img-src": "data: blob:",
        "font-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def filled(template: str, values: dict[str, str]) -> str:
    """Return the template with each {{name}} replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def joined(names: tuple[str, ...]) -> str:
    folder = resources.files("cardigan.exports") / "paper"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def studio(name: str) -> bytes:
    """Return one of the files that the studio shows too: its type and its mark."""
    return (resources.files("cardigan") / "studio" / "static" / name).read_bytes()


def data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
