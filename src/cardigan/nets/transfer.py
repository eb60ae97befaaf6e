"""Copies the weights of a trained network into one of the same architecture with another shape.

Image size, channels, classes and latent size may differ. New weights are zero where they multiply what was copied, so
that the copied part computes at first what it did before (Chen et al. 2016, Net2Net, arXiv:1511.05641, section 3).
Knows of the architectures only what `interface.py` lets them declare.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrize import is_parametrized

from cardigan.nets.conditioning import ConditionalLatent
from cardigan.nets.interface import Discriminator, Generator
from cardigan.nets.spectral import INITIAL_POWER_ITERATIONS, SpectralNorm

PARAMETRIZED = ".parametrizations.weight.original"
OPAQUE = 3.0
"""Bias of an alpha channel that is added: tanh(3) = 0.995."""

ClassRows = Sequence[int | None]
"""For each class of the new network, the class of the trained one, or None for the mean of all."""


@dataclass
class Transfer:
    """What became of the new network's tensors, by name."""

    copied: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    """Resized, cut off, or filled up with new rows and zero columns."""
    new: list[str] = field(default_factory=list)
    """As initialized: the trained network has nothing like them."""


@dataclass(frozen=True)
class _Pair:
    """Two networks of one architecture, and how their images and classes correspond."""

    new: Generator | Discriminator
    trained: Generator | Discriminator
    channels: tuple[int, int]
    """Image channels of the trained and of the new network."""
    class_rows: ClassRows

    @property
    def has_equal_classes(self) -> bool:
        """Whether each class has the number that it had, or there are none."""
        return list(self.class_rows) == list(range(len(self.class_rows)))

    def trained_name(self, name: str) -> str:
        """Return the name that a tensor of the new network has in the trained one; empty for an added stage of D.

        Stages are counted from the smallest maps: G's lists begin there, D's end there.
        """
        list_name, _, rest = name.partition(".")
        if list_name not in self.new.stage_lists or isinstance(self.new, Generator):
            return name
        shift = len(getattr(self.new, list_name)) - len(getattr(self.trained, list_name))
        index, _, inner = rest.partition(".")
        return f"{list_name}.{int(index) - shift}.{inner}" if int(index) >= shift else ""


@torch.no_grad()
def transfer_weights(
    new: Generator | Discriminator,
    trained: Generator | Discriminator,
    channels: tuple[int, int],
    class_rows: ClassRows = (),
) -> Transfer:
    """Copy what fits from `trained` to `new`, in place, and return what became of each tensor.

    Args:
        channels: image channels of the trained and of the new network.
        class_rows: for each class of the new network, which class of the trained one it is.
    """
    pair, result = _Pair(new, trained, channels, class_rows), Transfer()
    sources = trained.state_dict()
    modules = dict(new.named_modules())
    tensors = {name: value for name, value in new.state_dict().items() if _is_transferable(name)}
    for name, tensor in tensors.items():
        source = sources.get(pair.trained_name(name))
        fitted = None if source is None else _fitted(pair, name, modules[owner_name(name)], tensor, source)
        if fitted is None:
            result.new.append(name)
            continue
        is_equal = source is not None and tensor.shape == source.shape and torch.equal(fitted, source)
        (result.copied if is_equal else result.adapted).append(name)
        tensor.copy_(fitted)
    converge_singular_vectors(new)
    return result


def _is_transferable(name: str) -> bool:
    """Return whether a tensor is learned, or a batch statistic. Counters, digests and singular vectors are not."""
    return not name.endswith(("num_batches_tracked", "_extra_state")) and ".parametrizations.weight.0." not in name


def owner_name(name: str) -> str:
    """Return the name of the layer that a tensor belongs to. A weight that is computed belongs to its layer too."""
    return name.removesuffix(PARAMETRIZED) if name.endswith(PARAMETRIZED) else name.rpartition(".")[0]


def _fitted(pair: _Pair, name: str, owner: nn.Module, tensor: Tensor, source: Tensor) -> Tensor | None:
    """Return the trained tensor in the shape of the new one, or None if nothing of it can be used."""
    layer, is_generator = owner_name(name), isinstance(pair.new, Generator)
    reads_images = _is_image_layer(layer, pair.new)
    if reads_images != _is_image_layer(owner_name(pair.trained_name(name)), pair.trained):
        return None  # the trained layer is at the edge of its network, the new one is not, or the other way round
    if isinstance(owner, nn.Embedding) or name.endswith((".scales", ".shifts")):
        is_latent = is_generator and isinstance(owner, nn.Embedding)
        return None if is_latent else _fit_class_table(tensor, source, pair.class_rows)
    if not (pair.has_equal_classes or is_generator) and reads_images and isinstance(owner, nn.Linear):
        return None  # pixels and one-hot classes in one row
    if tensor.shape != source.shape and _is_flat(owner, reads_images, pair):
        return None
    axis = input_axis(owner)
    if isinstance(pair.new, Generator) and layer == pair.new.latent_layer and source.dim() > 1:
        return _fit_latent_layer(pair, pair.new, tensor, source, axis)
    if reads_images and is_generator:
        source = _with_output_channels(source, 1 - axis if source.dim() > 1 else 0, pair.channels)
    elif reads_images and source.dim() == 4:
        source = _with_input_channels(source, pair.channels, pair.class_rows)
    return fit(tensor, source, axis, pair.new.output_parts(layer), is_sum=not is_generator)


def _is_flat(layer: nn.Module, reads_images: bool, pair: _Pair) -> bool:
    """Return whether rows or columns of a layer are pixels, or channels of a group: they fit no other shape."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return True
    sizes = [getattr(network, "base_shape", (0,))[1:] for network in (pair.new, pair.trained)]
    return isinstance(layer, nn.Linear) and (reads_images or sizes[0] != sizes[1])


def input_axis(layer: nn.Module) -> int:
    """Return the axis of a layer's weight that its input has; the other one of the first two is the output's."""
    return 0 if isinstance(layer, nn.ConvTranspose2d) else 1


def fit(tensor: Tensor, source: Tensor, axis: int, num_parts: int = 1, is_sum: bool = False) -> Tensor | None:
    """Return a copy of `tensor` with what fits of the trained `source`, or None if their kernels differ.

    Weights have inputs along `axis`. Outputs of `num_parts` equal parts are fitted part by part. Added outputs stay as
    they are in `tensor`; for copied outputs, added inputs are 0. A kernel as large as its maps is resized, and with
    `is_sum`, of a layer that sums over its maps, divided by how much larger it is.
    """
    if tensor.dim() != source.dim():
        return None
    if tensor.dim() >= 3 and tensor.shape[-2:] != source.shape[-2:]:
        if min(*tensor.shape[-2:], *source.shape[-2:]) < 4:
            return None
        source = _resized(source, tensor.shape[-2:], is_sum)
    output_axis = 1 - axis if tensor.dim() in {2, 4} else 0
    parts = [
        _fit_part(new, old, axis, output_axis)
        for new, old in zip(tensor.chunk(num_parts, output_axis), source.chunk(num_parts, output_axis), strict=True)
    ]
    return torch.cat(parts, output_axis)


def _fit_part(tensor: Tensor, source: Tensor, axis: int, output_axis: int) -> Tensor:
    fitted, outputs = tensor.clone(), min(tensor.shape[output_axis], source.shape[output_axis])
    rows, source_rows = fitted.narrow(output_axis, 0, outputs), source.narrow(output_axis, 0, outputs)
    if tensor.dim() not in {2, 4}:
        rows.copy_(source_rows)
        return fitted
    inputs = min(tensor.shape[axis], source.shape[axis])
    rows.zero_()
    rows.narrow(axis, 0, inputs).copy_(source_rows.narrow(axis, 0, inputs))
    return fitted


def _resized(source: Tensor, size: Sequence[int], is_sum: bool) -> Tensor:
    maps = source if source.dim() == 4 else source[None]
    resized = interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
    factor = maps.shape[-1] * maps.shape[-2] / (size[0] * size[1]) if is_sum else 1.0
    return (resized if source.dim() == 4 else resized[0]) * factor


def _with_output_channels(source: Tensor, axis: int, channels: tuple[int, int]) -> Tensor:
    """Return a layer that draws images, with other channels: gray repeated, colors averaged, alpha opaque."""
    old, new = channels
    if old == new:
        return source
    image = source.movedim(axis, 0)
    color = image[: min(old, 3)]
    if min(new, 3) != len(color):
        color = (
            color.mean(0, keepdim=True) if min(new, 3) == 1 else color.mean(0, keepdim=True).expand(3, *image.shape[1:])
        )
    parts = [color]
    if new == 4:
        parts.append(image[3:4] if old == 4 else torch.full_like(image[:1], OPAQUE if source.dim() == 1 else 0.0))
    return torch.cat(parts).movedim(0, axis)


def _with_input_channels(source: Tensor, channels: tuple[int, int], class_rows: ClassRows) -> Tensor:
    """Return a layer that reads images, with other channels: a third of gray's weights for each color, or their sum.

    One-hot planes of classes, which follow the image, are put into the order of the new classes.
    """
    old, new = channels
    planes = source[:, old:]
    if planes.shape[1] and class_rows:
        planes = torch.stack([planes.mean(1) if row is None else planes[:, row] for row in class_rows], dim=1)
    if old == new:
        return torch.cat([source[:, :old], planes], dim=1)
    color = source[:, : min(old, 3)]
    if min(new, 3) != color.shape[1]:
        total = color.sum(1, keepdim=True)
        color = total if min(new, 3) == 1 else (total / 3).expand(-1, 3, *source.shape[2:])
    alpha = [source[:, 3:4] if old == 4 else torch.zeros_like(source[:, :1])] if new == 4 else []
    return torch.cat([color, *alpha, planes], dim=1)


def _fit_class_table(tensor: Tensor, source: Tensor, class_rows: ClassRows) -> Tensor:
    """Return one row of the trained table for each class, with zeros for added features."""
    rows = torch.stack([source.mean(0) if row is None else source[row] for row in class_rows])
    fitted, columns = torch.zeros_like(tensor), min(tensor.shape[1], source.shape[1])
    fitted[:, :columns] = rows[:, :columns]
    return fitted


def _fit_latent_layer(pair: _Pair, network: Generator, tensor: Tensor, source: Tensor, axis: int) -> Tensor | None:
    """Return the layer that reads latent and class: new numbers of the latent count 0, classes keep their part.

    What each trained class adds to the layer's output is computed. The new layer reads it from new embeddings, or from
    one-hot vectors.
    """
    new, trained = _latent(network), _latent(pair.trained)
    old_size, new_size = _latent_size(trained), _latent_size(new)
    parts, kernel = network.output_parts(network.latent_layer), source.movedim(axis, 0)
    template = tensor.movedim(axis, 0)
    from_z = fit(template[:new_size], kernel[:old_size], 0, parts)
    if from_z is None:
        return None
    num_conditions = len(template) - new_size
    if not num_conditions:
        return from_z.movedim(0, axis).contiguous()
    both = [each.embedding for each in (new, trained) if each.embedding is not None]
    if pair.has_equal_classes and len(both) == 2 and both[0].weight.shape == both[1].weight.shape:
        both[0].weight.copy_(both[1].weight)
        of_classes = fit(template[new_size:], kernel[old_size:], 0, parts)
        assert of_classes is not None
        return torch.cat([from_z, of_classes]).movedim(0, axis).contiguous()
    if trained.num_classes:
        of_classes = kernel[old_size:]
        added = of_classes if trained.embedding is None else torch.tensordot(trained.embedding.weight, of_classes, 1)
        rows = torch.stack([added.mean(0) if row is None else added[row] for row in pair.class_rows])
        wanted = fit(torch.zeros_like(template[:1]).expand(len(rows), *template.shape[1:]).clone(), rows, 0, parts)
        assert wanted is not None
    else:
        wanted = torch.zeros(new.num_classes, *template.shape[1:])
    if new.embedding is not None:
        # The closest that embeddings of this size can come (Eckart and Young): their left singular vectors.
        vectors = torch.linalg.svd(wanted.flatten(1), full_matrices=True)[0][:, :num_conditions]
        new.embedding.weight.copy_(vectors * new.num_classes**0.5)
        wanted = torch.tensordot(new.embedding.weight.T, wanted, 1) / new.num_classes
    return torch.cat([from_z, wanted]).movedim(0, axis).contiguous()


def _latent(network: nn.Module) -> ConditionalLatent:
    latent = network.get_submodule("latent")
    assert isinstance(latent, ConditionalLatent)
    return latent


def _latent_size(latent: ConditionalLatent) -> int:
    return latent.out_features - (latent.embedding.embedding_dim if latent.embedding else latent.num_classes)


def _is_image_layer(layer: str, network: Generator | Discriminator) -> bool:
    """Return whether this layer reads or draws images. In a declared name, -1 is the last of a list."""
    names = set()
    for name in network.image_layers:
        list_name, _, index = name.partition(".")
        names.add(f"{list_name}.{len(getattr(network, list_name)) - 1}" if index == "-1" else name)
    return layer in names


@torch.no_grad()
def converge_singular_vectors(network: nn.Module) -> None:
    """Estimate the largest singular value of each changed weight anew, as for initial weights."""
    was_training = network.training
    network.train()
    for module in network.modules():
        if is_parametrized(module, "weight") and isinstance(
            module.get_submodule("parametrizations.weight.0"), SpectralNorm
        ):
            for _ in range(INITIAL_POWER_ITERATIONS):
                getattr(module, "weight")  # noqa: B009 - each reading is one power iteration
    network.train(was_training)
