"""The operators of an SNN as NIR nodes and `Value`s; what has no counterpart raises `Unfit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from .. import graph as g
from ..kernels import pads_of
from ..regions import data_inputs
from ..snn import parameters
from ..unit_scale import bias_of, data_of, data_position, weight_position
from . import geometry
from .builder import CONVOLUTIONS, Builder, Unfit
from .maxima import max_pool
from .network import Array, Node, Shape
from .values import Term, Value, added, concatenated

ValueOf: TypeAlias = Callable[[gs.Tensor], Value]
Operator: TypeAlias = Callable[[gs.Node, ValueOf, Builder], Value]

_KEEP = "keep it behind the network's last linear layer, outside the spiking part"


def neurons(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """IF and IFPerChannel: one edge for each term of the current."""
    fired = parameters(node)
    if np.any(fired.threshold != 1) or np.any(fired.amplitude != 1):
        raise Unfit("its threshold or its spikes are not 1", "convert with --unit-spikes")
    value = value_of(node.inputs[0])
    made = Node("IF", value.shape, value.shape, {}, g.label(node), fired.initial)
    return to.add(made, to.sources(value, g.label(node)))


def convolution(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Conv; groups, dilation and one-sided padding go into the weights (`geometry`)."""
    value, tensor = value_of(data_of(node)), node.inputs[1]
    rank = len(value.shape)
    if rank not in CONVOLUTIONS:
        raise Unfit(f"a convolution over {rank - 1} axes", "NIR has those over one and two")
    if not g.is_constant(tensor):
        raise Unfit("its weights are computed", "export with constant weights")
    weight = np.asarray(tensor.values, np.float64)
    weight = geometry.without_groups(weight, int(node.attrs.get("group", 1)))
    strides = _per_axis(node, "strides", rank - 1)
    dilations = _per_axis(node, "dilations", rank - 1)
    pads = _pads(node, value.shape[1:], weight.shape[2:], strides, dilations)
    try:
        found = geometry.plain(weight, value.shape[1:], pads, strides, dilations)
    except geometry.NoGeometry as why:
        raise Unfit(str(why), "train with a square kernel, padded alike along both axes") from None
    if value.biased and any(found.padding):  # at the border the offset is not there
        value = to.materialised(value, f"{g.label(node)}, with its offset")
    summed = found.weight.reshape(*found.weight.shape[:2], -1).sum(axis=2)
    bias = _vector(bias_of(node), len(weight)) + summed @ value.bias
    return to.convolved(value, found, bias, g.label(node))


def matrix(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Gemm and MatMul on vectors: Affine."""
    tensor = node.inputs[weight_position(node)]
    if not g.is_constant(tensor) or data_position(node) != 0 or node.attrs.get("transA", 0):
        raise Unfit("a product of two computed tensors, or from the left", _KEEP)
    value = value_of(data_of(node))
    if len(value.shape) != 1:
        raise Unfit(
            f"a matrix product on tensors of {len(value.shape)} axes; NIR's Affine is for vectors",
            "flatten in front of it, or write it as a 1x1 convolution",
        )
    attrs = node.attrs if g.is_standard(node, "Gemm") else {}
    weight = np.asarray(tensor.values, np.float64) * float(attrs.get("alpha", 1.0))
    weight = weight if attrs.get("transB", 0) else weight.T
    bias = _vector(bias_of(node), len(weight)) * float(attrs.get("beta", 1.0))
    bias = bias + weight @ value.bias
    return to.linear("Affine", value, weight, bias, (len(weight),), g.label(node), {})


def average(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """AveragePool: sums; 1/k^2 goes into what follows."""
    value = value_of(node.inputs[0])
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    strides = _per_axis(node, "strides", len(kernel))
    pads = _pads(node, value.shape[1:], kernel, strides, [1] * len(kernel))
    if any(p for pair in pads for p in pair) or node.attrs.get("ceil_mode", 0):
        raise Unfit(
            "an average pool with padding or part of a window at the border",
            "train it without padding and ceil_mode, or as a convolution",
        )
    if any(d != 1 for d in _per_axis(node, "dilations", len(kernel))):
        raise Unfit("an average pool with dilations", "train it as a dilated convolution")
    return _pooled(node, value, kernel, strides, 1 / prod(kernel), to)


def mean(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """GlobalAveragePool, ReduceMean and ReduceSum over pixels."""
    value = value_of(node.inputs[0])
    rank = len(value.shape) + 1
    axes = sorted(a % rank for a in _axes(node, rank))
    if not axes or axes[0] < 2:
        raise Unfit(
            f"works along the axes {axes}; NIR sums over the pixels of a channel",
            "average over pixels, as a global average pool does",
        )
    along = [axis - 2 for axis in axes]
    count = prod(value.shape[1 + i] for i in along)
    factor = 1.0 if g.is_standard(node, "ReduceSum") else 1 / count
    found = []
    for term in value.terms:
        given = to.nodes[term.node].shape
        kernel = [1] * (len(given) - 1)
        for axis in _same_axes(value.shape[1:], given[1:], along):
            kernel[axis] = given[1 + axis]
        source = (
            _summed(term.node, kernel, kernel, g.label(node), to) if max(kernel) > 1 else term.node
        )
        found.append(Term(source, term.index, term.factor * factor))
    kept = g.is_standard(node, "GlobalAveragePool") or node.attrs.get("keepdims", 1)
    sides = [
        1 if i in along else n for i, n in enumerate(value.shape[1:]) if kept or i not in along
    ]
    result = Value((value.shape[0], *sides), tuple(found), value.bias * (count * factor))
    return result if sides else to.flat(result, g.label(node))


def _same_axes(pixels: Shape, of_node: Shape, along: Sequence[int]) -> list[int]:
    """Which axes of a node the axes ``along`` of a value are; their sizes differ by ones alone."""
    ours = [i for i, n in enumerate(pixels) if n > 1]
    theirs = [i for i, n in enumerate(of_node) if n > 1]
    if [pixels[i] for i in ours] == [of_node[i] for i in theirs]:
        return [other for own, other in zip(ours, theirs, strict=True) if own in along]
    if len(along) == len(pixels):
        return list(range(len(of_node)))
    raise Unfit("a mean along pixels that were put into another shape", "average over all pixels")


def _pooled(
    node: gs.Node, value: Value, kernel: list[int], strides: list[int], factor: float, to: Builder
) -> Value:
    """Sums over windows, times ``factor``."""
    to.require_pixels(value)
    sides = [(n - k) // s + 1 for n, k, s in zip(value.shape[1:], kernel, strides, strict=True)]
    found = [
        Term(_summed(t.node, kernel, strides, g.label(node), to), t.index, t.factor * factor)
        for t in value.terms
    ]
    return Value((value.shape[0], *sides), tuple(found), value.bias * (factor * prod(kernel)))


def _summed(source: str, kernel: list[int], strides: list[int], onnx: str, to: Builder) -> str:
    """A node that gives sums over windows of the node ``source``."""
    given = to.nodes[source].shape
    sides = [(n - k) // s + 1 for n, k, s in zip(given[1:], kernel, strides, strict=True)]
    pool = _pool(given, (given[0], *sides), kernel, strides, onnx)
    return to.add(pool, [source]).terms[0].node


def _pool(given: Shape, shape: Shape, kernel: list[int], strides: list[int], onnx: str) -> Node:
    """SumPool2d; along one axis, where NIR has none, a convolution with ones."""
    if len(kernel) == 2:
        values = {"kernel_size": np.asarray(kernel), "stride": np.asarray(strides)}
        return Node("SumPool2d", given, shape, values, onnx)
    if len(kernel) != 1:
        raise Unfit(f"a pool over {len(kernel)} axes", "NIR has those over one and two")
    weight = np.repeat(np.eye(shape[0], dtype=np.float32)[:, :, None], kernel[0], axis=2)
    values = {
        "weight": weight,
        "bias": np.zeros(shape[0], np.float32),
        "stride": np.asarray(strides),
        "padding": np.zeros(1, np.int64),
    }
    return Node("Conv1d", given, shape, values, onnx)


def total(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Add, Sub and Sum: terms and a bias per channel."""
    operands = data_inputs(node)
    signs = [-1.0 if i and g.is_standard(node, "Sub") else 1.0 for i in range(len(operands))]
    values = [
        value_of(tensor).scaled(np.asarray(sign))
        for tensor, sign in zip(operands, signs, strict=True)
        if not g.is_constant(tensor)
    ]
    if any(value.shape != values[0].shape for value in values):
        raise Unfit("adds tensors of different shapes", "write both in full in the ANN")
    result = added(values)
    for tensor, sign in zip(operands, signs, strict=True):
        if g.is_constant(tensor):
            result = result.raised(sign * _per_channel(tensor, result.shape))
    return result


def scaling(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Mul and Div by a number, or one per channel."""
    operands = data_inputs(node)
    constants = [t for t in operands if g.is_constant(t)]
    if len(constants) != 1 or (g.is_standard(node, "Div") and g.is_constant(operands[0])):
        raise Unfit("a product of two computed tensors", _KEEP)
    value = value_of(next(t for t in operands if not g.is_constant(t)))
    factor = _per_channel(constants[0], value.shape)
    return value.scaled(1 / factor if g.is_standard(node, "Div") else factor)


def negated(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Neg."""
    return value_of(node.inputs[0]).scaled(np.asarray(-1.0))


def side_by_side(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """Concat of channels."""
    tensors = data_inputs(node)
    if any(g.is_constant(t) for t in tensors):
        raise Unfit("a Concat with a constant", "leave the constant channels out of the ANN")
    values = [value_of(t) for t in tensors]
    if int(node.attrs["axis"]) % (len(values[0].shape) + 1) != 1:
        raise Unfit("a Concat along pixels", "concatenate channels")
    return concatenated(values)


def maxima(node: gs.Node, value_of: ValueOf, to: Builder) -> Value:
    """MaxPoolCounts: neurons that fire once (`maxima`)."""
    return max_pool(node, value_of(node.inputs[0]), to)


OPERATORS: dict[str, Operator] = {
    "IF": neurons,
    "IFPerChannel": neurons,
    "Conv": convolution,
    "Gemm": matrix,
    "MatMul": matrix,
    "AveragePool": average,
    "GlobalAveragePool": mean,
    "ReduceMean": mean,
    "ReduceSum": mean,
    "Add": total,
    "Sub": total,
    "Sum": total,
    "Mul": scaling,
    "Div": scaling,
    "Neg": negated,
    "Concat": side_by_side,
    "MaxPoolCounts": maxima,
}

_REASONS = {
    "MaxPool": ("NIR has no max-pool", "train with average pooling, or a strided convolution"),
    "ConvTranspose": (
        "NIR has no transposed convolution",
        "train with an upsampling that is a convolution",
    ),
}


def why_not(node: gs.Node) -> Unfit:
    """Why an operator that is not in `OPERATORS` cannot be written."""
    if node.op in _REASONS:
        return Unfit(*_REASONS[node.op])
    return Unfit(f"NIR has no counterpart of {node.op}", _KEEP)


# --- attributes -----------------------------------------------------------------------------------


def _per_axis(node: gs.Node, name: str, axes: int) -> list[int]:
    return [int(v) for v in node.attrs.get(name) or [1] * axes]


def _pads(
    node: gs.Node,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """As `pads_of`; raises Unfit where they crop."""
    pads = pads_of(node, size, kernel, strides, dilations)
    if any(p < 0 for pair in pads for p in pair):
        raise Unfit("negative padding", "crop nothing in the ANN")
    return pads


def _axes(node: gs.Node, rank: int) -> list[int]:
    """Axes of a mean, the batch counted."""
    if g.is_standard(node, "GlobalAveragePool"):
        return list(range(2, rank))
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > 1 and g.is_constant(node.inputs[1]):
        return [int(a) for a in np.ravel(node.inputs[1].values)]
    raise Unfit("its axes are not known", "export with constant axes")


def _vector(tensor: gs.Tensor | None, size: int) -> Array:
    """A bias [size]; zeros where there is none."""
    if tensor is None:
        return np.zeros(size)
    if not g.is_constant(tensor):
        raise Unfit("its bias is computed", "export with constant weights")
    return np.broadcast_to(np.asarray(tensor.values, np.float64).ravel(), (size,))


def _per_channel(tensor: gs.Constant, shape: Shape) -> Array:
    """A constant that broadcasts against [N, *shape], as a number or [C]."""
    values = np.asarray(tensor.values, np.float64)
    if values.ndim <= len(shape) + 1:
        values = values.reshape(*[1] * (len(shape) + 1 - values.ndim), *values.shape)
        if values.size == values.shape[1] and values.shape[1] in (1, shape[0]):
            return values.reshape(()) if values.size == 1 else values.ravel()
    raise Unfit(
        f"works with a constant {tensor.name!r} of shape {list(values.shape)}",
        "NIR has numbers per channel: use one per channel in the ANN",
    )
