"""A generator as a torch.export graph: latents, labels and truncation in, images in [-1, 1] out, for any batch size.

`onnx.py` and `pt2.py` write the graph. It contains no information about this machine.
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cardigan.errors import CardiganError
from cardigan.models.snapshot import Snapshot
from cardigan.nets.interface import Generator

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class UnconditionalExportModule(nn.Module):
    """An unconditional generator with truncation as an input."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, truncation: Tensor) -> Tensor:
        return self.generator(z * truncation).clamp(-1, 1)


class ConditionalExportModule(nn.Module):
    """A class-conditional generator with truncation as an input."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor, truncation: Tensor) -> Tensor:
        return self.generator(z * truncation, labels).clamp(-1, 1)


def input_names(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the names of a graph's inputs, in order."""
    return ("z", "labels", "truncation") if snapshot.spec.num_classes else ("z", "truncation")


def without_parametrizations(generator: Generator) -> Generator:
    """Return a copy with effective weights: already divided by their spectral norms, if they have any.

    PyTorch's `remove_parametrizations` would also change the original, because a copy shares its parametrized class.
    """
    copy = deepcopy(generator).eval().requires_grad_(False)
    for module in [submodule for submodule in copy.modules() if parametrize.is_parametrized(submodule)]:
        parametrized: Any = module
        effective_weights = {
            name: getattr(parametrized, name).detach().clone() for name in parametrized.parametrizations
        }
        parametrized.__class__ = parametrize.type_before_parametrizations(module)
        del parametrized.parametrizations
        for name, tensor in effective_weights.items():
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return copy


def exported_program(snapshot: Snapshot) -> "ExportedProgram":
    """Return the graph of a snapshot's generator; raises CardiganError if torch.export cannot trace it."""
    from torch.export import Dim, export

    batch_axis = {0: Dim("batch")}
    z, truncation = torch.zeros(2, snapshot.config.latent.size), torch.ones(())
    labels = torch.zeros(2, dtype=torch.int64)
    module, arguments, shapes = (
        (ConditionalExportModule(snapshot.generator), (z, labels, truncation), (batch_axis, batch_axis, None))
        if snapshot.spec.num_classes
        else (UnconditionalExportModule(snapshot.generator), (z, truncation), (batch_axis, None))
    )
    try:
        program = export(module.eval(), arguments, dynamic_shapes=shapes)
    except Exception as error:
        raise unsupported_network_error(snapshot, error) from error
    return _without_metadata(program)


def unsupported_network_error(snapshot: Snapshot, error: BaseException) -> CardiganError:
    """Return the error for an unsupported network, with the first line of the exporter's message."""
    exporter_message = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ].rstrip(".")
    return CardiganError(
        f"The {snapshot.config.generator.network} generator has a part that cannot be exported ({exporter_message}): "
        "export it as safetensors, which supports every network, or change that part."
    )


def _without_metadata(program: "ExportedProgram") -> "ExportedProgram":
    """Remove source file paths, and the example inputs, which would be stored as a pickle."""
    graph_program: Any = program
    for node in graph_program.graph.nodes:
        for key in ("stack_trace", "source_fn_stack", "from_node"):
            node.meta.pop(key, None)
    graph_program.example_inputs = None
    return program
