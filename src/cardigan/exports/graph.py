"""A generator as PyTorch's own graph: latents, classes and a truncation in, pictures in [-1, 1] out, for any number at a time.

Knows torch.export; `onnx.py` and `pt2.py` write the graph down. Nothing of the machine it was made on stays in it.
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cardigan.errors import CardiganError
from cardigan.nets.interface import Generator
from cardigan.run.snapshot import Snapshot

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Drawn(nn.Module):
    """A generator without classes, with the truncation as an input."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, truncation: Tensor) -> Tensor:
        return self.generator(z * truncation).clamp(-1, 1)


class DrawnByClass(nn.Module):
    """A generator with classes, with the truncation as an input."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor, truncation: Tensor) -> Tensor:
        return self.generator(z * truncation, labels).clamp(-1, 1)


def inputs(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the names of a graph's inputs, in their order."""
    return ("z", "labels", "truncation") if snapshot.spec.classes else ("z", "truncation")


def plain(generator: Generator) -> Generator:
    """Return a copy whose weights are stored as they are used: divided by their spectral norms, where they have them.

    PyTorch's own `remove_parametrizations` would take them from the original too: a copy shares the class that they live in.
    """
    copy = deepcopy(generator).eval().requires_grad_(False)
    for module in [each for each in copy.modules() if parametrize.is_parametrized(each)]:
        parts: Any = module
        used = {name: getattr(parts, name).detach().clone() for name in parts.parametrizations}
        parts.__class__ = parametrize.type_before_parametrizations(module)
        del parts.parametrizations
        for name, tensor in used.items():
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return copy


def graph(snapshot: Snapshot) -> "ExportedProgram":
    """Return the graph of a snapshot's generator; raises CardiganError for a network with a part that torch.export cannot follow."""
    from torch.export import Dim, export

    batch = {0: Dim("batch")}
    z, truncation = torch.zeros(2, snapshot.config.latent.size), torch.ones(())
    labels = torch.zeros(2, dtype=torch.int64)
    module, arguments, shapes = (
        (DrawnByClass(snapshot.generator), (z, labels, truncation), (batch, batch, None))
        if snapshot.spec.classes
        else (Drawn(snapshot.generator), (z, truncation), (batch, None))
    )
    try:
        program = export(module.eval(), arguments, dynamic_shapes=shapes)
    except Exception as error:
        raise unsupported(snapshot, error) from error
    return _anonymous(program)


def unsupported(snapshot: Snapshot, error: BaseException) -> CardiganError:
    """Return the error for a network with a part that has no counterpart, naming it as far as the exporter does."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200].rstrip(".")
    return CardiganError(
        f"The {snapshot.config.generator.network} generator has a part that cannot be exported ({said}): "
        "export it as safetensors, which holds every network, or change that part."
    )


def _anonymous(program: "ExportedProgram") -> "ExportedProgram":
    """Leave out what the graph remembers of source files' paths, and the examples, which would be stored as a pickle."""
    found: Any = program
    for node in found.graph.nodes:
        for word in ("stack_trace", "source_fn_stack", "from_node"):
            node.meta.pop(word, None)
    found.example_inputs = None
    return program
