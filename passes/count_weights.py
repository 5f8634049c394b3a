"""Operators with weights, and averages, read by `count_sums`: a sum of weighted counts each.

Behind another sum, with no neurons in between, the two become one (`compose_terms`). Averages of
counts are sums over windows (a move) as long as a uint8 holds them, else weights of 1 / k^2.
ConvTranspose is a convolution of the counts with zeros between the pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import kernels
from na_convert.graph import is_constant, is_missing
from na_convert.integer import UINT8, Window
from na_convert.integer_moves import Move
from na_convert.integer_moves import move as apply

from .compose_terms import answer, convolved, multiplied
from .count_moves import constant_ints, flattened
from .count_values import (
    Array,
    Counts,
    NoIntegerForm,
    Sum,
    Term,
    Value,
    by_channel,
    channels_of,
    channels_or_refuse,
)

if TYPE_CHECKING:
    from .count_sums import Reader


def read_conv(reader: Reader, node: gs.Node) -> list[Value]:
    value, weight = reader.value(node.inputs[0]), _weight(node)
    rank = weight.ndim - 2
    strides = tuple(int(s) for s in node.attrs.get("strides") or [1] * rank)
    dilations = tuple(int(d) for d in node.attrs.get("dilations") or [1] * rank)
    shape = reader.shape(node.inputs[0])
    if shape is None and node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NoIntegerForm("auto_pad depends on the image size", "export with explicit pads")
    pairs = kernels.pads_of(node, (shape or (0,) * (rank + 1))[1:], weight.shape[2:], strides,
                          dilations)  # fmt: skip
    pads = (*(a for a, _ in pairs), *(b for _, b in pairs))
    window = Window(strides, pads, dilations, int(node.attrs.get("group", 1)))
    return [_with_bias(_convolution(value, weight, window, shape), _bias(node), rank)]


def _convolution(value: Value, weight: Array, window: Window, shape: tuple[int, ...] | None) -> Sum:
    if isinstance(value, Sum):
        return convolved(value, weight, window, shape)
    scale = channels_or_refuse(value, "convolves")
    rank, group = weight.ndim - 2, window.group
    per_group = scale.reshape(group, 1, weight.shape[1], *[1] * rank)
    grouped = weight.reshape(group, -1, *weight.shape[1:]) * per_group
    term = Term(value, grouped.reshape(weight.shape), window)
    return Sum(terms=(term,), bias=answer(value.offset, weight, window, value.shape))


def _with_bias(value: Sum, bias: Array, rank: int) -> Sum:
    return replace(value, bias=value.bias + bias.reshape(-1, *[1] * rank))


def read_transposed(reader: Reader, node: gs.Node) -> list[Value]:
    """Zeros between the pixels, by Reshape and Pad; then a convolution with the mirrored kernel."""
    source, weight = reader.counts(node.inputs[0]), _weight(node)
    if np.any(source.offset):
        raise NoIntegerForm("spreads activations whose lowest level is not zero")
    rank, group = weight.ndim - 2, int(node.attrs.get("group", 1))
    strides = [int(s) for s in node.attrs.get("strides") or [1] * rank]
    dilations = tuple(int(d) for d in node.attrs.get("dilations") or [1] * rank)
    extra = [int(e) for e in node.attrs.get("output_padding") or [0] * rank]
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilations, strict=True)]
    space = source.shape[1:]
    full = [
        (n - 1) * s + r + 1 + e for n, s, r, e in zip(space, strides, reach, extra, strict=True)
    ]
    crops = kernels.transposed_pads_of(node, space, full, strides)
    spread = _spread(reader, node.outputs[0].name, source, strides)
    begins = [r - a for r, (a, _) in zip(reach, crops, strict=True)]
    ends = [r + e - b - (s - 1)
            for r, e, (_, b), s in zip(reach, extra, crops, strides, strict=True)]  # fmt: skip
    cut = _cropped(reader, node.outputs[0].name, spread, begins, ends)
    pads = tuple(max(0, p) for p in (*begins, *ends))
    mirrored = np.flip(weight, tuple(range(2, weight.ndim)))
    grouped = mirrored.reshape(group, len(weight) // group, *weight.shape[1:]).swapaxes(1, 2)
    per_output = grouped.reshape(-1, len(weight) // group, *weight.shape[2:])
    window = Window((1,) * rank, pads, dilations, group)
    return [_with_bias(_convolution(cut, per_output, window, cut.shape), _bias(node), rank)]


def _spread(reader: Reader, name: str, source: Counts, strides: list[int]) -> Counts:
    """Each pixel followed by ``stride - 1`` zeros, along every axis."""
    if set(strides) == {1}:
        return source
    channels, *space = source.shape
    apart = [channels, *(size for n in space for size in (n, 1))]
    widths = [0, 0, *(w for s in strides for w in (0, s - 1))]
    joined = [channels, *(n * s for n, s in zip(space, strides, strict=True))]
    made = source
    for suffix, op, values in (
        ("apart", "Reshape", [-1, *apart]),
        ("spread", "Pad", [0] * len(widths) + widths),
        ("joined", "Reshape", [-1, *joined]),
    ):
        output = f"{name}_{suffix}"
        constants = (np.asarray(values, np.int64),)
        made = reader.moved(output, Move(output, op, (made.name,), {}, constants), [made])
    return replace(made, scale=_by_channel_of(source, len(joined)))


def _by_channel_of(source: Counts, rank: int) -> Array:
    """A zero may be worth what its channel is."""
    scale = channels_or_refuse(source, "spreads")
    return scale.reshape(-1, *[1] * (rank - 1))


def _cropped(
    reader: Reader, name: str, source: Counts, begins: list[int], ends: list[int]
) -> Counts:
    """Without what negative pads take away."""
    starts = [max(0, -p) for p in begins]
    stops = [n - max(0, -p) for n, p in zip(source.shape[1:], ends, strict=True)]
    if not any(starts) and list(source.shape[1:]) == stops:
        return source
    axes = list(range(2, 2 + len(starts)))
    constants = tuple(np.asarray(c, np.int64) for c in (starts, stops, axes, [1] * len(axes)))
    output = f"{name}_cropped"
    moved = reader.moved(output, Move(output, "Slice", (source.name,), {}, constants), [source])
    return replace(moved, scale=source.scale)


def read_dense(reader: Reader, node: gs.Node) -> list[Value]:
    value, weight = reader.value(node.inputs[0]), _weight(node)
    rank = reader.rank(node) if isinstance(value, Sum) else len(value.shape) + 1
    if rank != 2 or weight.ndim != 2:
        raise NoIntegerForm("multiplies a stack of matrices")
    if node.op == "Gemm":
        if int(node.attrs.get("transA", 0)):
            raise NoIntegerForm("multiplies the transposed counts")
        weight = weight if int(node.attrs.get("transB", 0)) else weight.T
        weight = weight * float(node.attrs.get("alpha", 1.0))
        bias = _bias(node) * float(node.attrs.get("beta", 1.0))
    else:
        weight, bias = weight.T, np.zeros(1)
    if isinstance(value, Sum):
        product = multiplied(value, weight)
        return [replace(product, bias=product.bias + bias)]
    offset = np.broadcast_to(value.offset, value.shape)
    scale = np.broadcast_to(value.scale, value.shape)
    return [Sum(terms=(Term(value, weight * scale, None),), bias=bias + weight @ offset)]


def _weight(node: gs.Node) -> Array:
    if not is_constant(node.inputs[1]):
        raise NoIntegerForm("its weights are computed in the graph")
    return np.asarray(node.inputs[1].values, np.float64)


def _bias(node: gs.Node) -> Array:
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return np.zeros(1)
    if not is_constant(node.inputs[2]):
        raise NoIntegerForm("its bias is computed in the graph")
    return np.asarray(node.inputs[2].values, np.float64).ravel()


# --- averages -------------------------------------------------------------------------------------


def read_average(reader: Reader, node: gs.Node) -> list[Value]:
    value, shape = reader.value(node.inputs[0]), reader.shape(node.inputs[0])
    if shape is None:
        raise NoIntegerForm("the size of its image is not known", "export with static image sizes")
    kernel, strides, pads = _window(node, shape)
    counted = any(pads) and not int(node.attrs.get("count_include_pad", 0))
    if counted or int(node.attrs.get("ceil_mode", 0)):
        raise NoIntegerForm("averages over windows of unlike size (its padding does not count)")
    flat = node.op == "ReduceMean" and not int(node.attrs.get("keepdims", 1))
    size = int(np.prod(kernel))
    if isinstance(value, Counts) and value.most * size <= UINT8:
        return [_summed(reader, node, value, (kernel, strides, pads), flat)]
    rank = len(kernel)
    window = Window(tuple(strides), tuple(pads), (1,) * rank, shape[0])
    weight = np.full((shape[0], 1, *kernel), 1 / size)
    averaged = _convolution(value, weight, window, shape)
    return [flattened(reader, node.outputs[0].name, averaged, shape[:1]) if flat else averaged]


def _summed(
    reader: Reader,
    node: gs.Node,
    source: Counts,
    window: tuple[list[int], list[int], list[int]],
    flat: bool,
) -> Counts:
    kernel, strides, pads = window
    if any(pads) and np.any(source.offset):
        raise NoIntegerForm("pads activations whose lowest level is not zero")
    if by_channel(source.scale, source.shape) is None:
        raise NoIntegerForm("averages spikes that are not worth the same")
    size, name = int(np.prod(kernel)), node.outputs[0].name
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    move = Move(name, "SumPool", (source.name,), attributes)
    reader.order.append(move)
    shape = apply(move, [np.zeros((1, *source.shape), np.uint8)]).shape[1:]
    most = source.most * size
    if not flat:
        return Counts(name, shape, source.scale / size, source.offset, most)
    reader.order[-1] = replace(move, output=f"{name}_sum")
    target = np.asarray([-1, *shape[:1]], np.int64)
    reader.order.append(Move(name, "Reshape", (f"{name}_sum",), {}, (target,)))
    channels = np.zeros(shape[:1])
    scale = channels_of(source.scale, source.shape) / size + channels
    offset = channels_of(source.offset, source.shape) + channels
    return Counts(name, shape[:1], scale, offset, most)


def _window(node: gs.Node, shape: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    space = list(shape[1:])
    if node.op == "AveragePool":
        kernel = [int(k) for k in node.attrs["kernel_shape"]]
        rank = len(kernel)
        if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise NoIntegerForm("auto_pad depends on the image size", "export with explicit pads")
        if any(int(d) != 1 for d in node.attrs.get("dilations") or []):
            raise NoIntegerForm("averages with dilations")
        strides = [int(s) for s in node.attrs.get("strides") or [1] * rank]
        return kernel, strides, [int(p) for p in node.attrs.get("pads") or [0] * 2 * rank]
    if node.op == "ReduceMean":
        axes = constant_ints(node, 1, "axes")
        rank = len(shape) + 1
        if sorted(a % rank for a in axes) != list(range(2, rank)):
            raise NoIntegerForm("averages over something other than the whole image")
    return space, [1] * len(space), [0] * 2 * len(space)
