"""Bounds that no input can break: of every tensor between the inputs and the last neurons.

A bound is a pair (low, high) with low <= 0 <= high that holds for every value of the tensor, and
for every partial sum on the way to it, in whatever order an engine adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .graph import is_constant, is_standard
from .unit_scale import NotExact, Shapes, pad_value

Array: TypeAlias = NDArray[Any]
Bound: TypeAlias = tuple[float, float]


def of_weighted(node: gs.Node, weight: Array, bias: Array | None, given: Bound) -> Bound:
    """Of Conv, ConvTranspose, Gemm, MatMul and Mul with these constants, on an input ``given``."""
    low, high = -given[0], given[1]
    if is_standard(node, "Mul", "Div"):
        rise, fall = float(np.max(weight, initial=0)), -float(np.min(weight, initial=0))
        up, down = rise * high + fall * low, rise * low + fall * high
        return (-down, up)
    rising = _per_output(node, np.maximum(weight, 0))
    falling = -_per_output(node, np.minimum(weight, 0))
    over = np.zeros(()) if bias is None else np.maximum(bias, 0)
    under = np.zeros(()) if bias is None else np.maximum(-bias, 0)
    if bias is not None and bias.size not in (1, rising.size):
        over, under = over.max(), under.max()
    up = float(np.max(rising * high + falling * low + over.ravel()))
    down = float(np.max(rising * low + falling * high + under.ravel()))
    return (-down, up)


def _per_output(node: gs.Node, weight: Array) -> NDArray[np.float64]:
    """Sums of ``weight`` over what goes into each output; exact for weights on a grid."""
    if is_standard(node, "Conv"):
        return _sum(weight.reshape(len(weight), -1), 1)
    if is_standard(node, "ConvTranspose"):
        group = int(node.attrs.get("group", 1))
        grouped = weight.reshape(group, len(weight) // group, weight.shape[1], -1)
        return _sum(grouped, (1, 3)).ravel()
    transposed = is_standard(node, "Gemm") and node.attrs.get("transB", 0)
    return _sum(weight, -1 if transposed else -2).ravel()


def _sum(values: Array, axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(np.sum(values, axis=axis, dtype=np.float64))


def of_sum(node: gs.Node, terms: Sequence[Bound]) -> Bound:
    """Of Add, Sub and Sum."""
    if is_standard(node, "Sub"):
        terms = [terms[0], (-terms[1][1], -terms[1][0])]
    return (sum(low for low, _ in terms), sum(high for _, high in terms))


def of_passing(node: gs.Node, terms: Sequence[Bound], count: int) -> Bound:
    """Of a node that passes values on, or adds up ``count`` of them."""
    low, high = min(low for low, _ in terms), max(high for _, high in terms)
    if is_standard(node, "Neg"):
        return (-high, -low)
    if is_standard(node, "Relu"):
        return (0.0, high)
    if is_standard(node, "ReduceSum"):
        return (low * count, high * count)
    return (low, high)


def of_constant(values: Array) -> Bound:
    """Of a constant."""
    return (min(0.0, float(np.min(values))), max(0.0, float(np.max(values))))


def summed(node: gs.Node, shapes: Shapes) -> int:
    """How many values a node that passes values on adds up for one output.

    Raises NotExact where it divides by a number that is no power of two, or is not known.
    """
    if is_standard(node, "AveragePool"):
        kernel = [int(k) for k in node.attrs["kernel_shape"]]
        padded = any(node.attrs.get("pads") or []) or node.attrs.get("auto_pad", "NOTSET") not in (
            "NOTSET",
            "VALID",
        )
        partial = (padded and not node.attrs.get("count_include_pad", 0)) or node.attrs.get(
            "ceil_mode", 0
        )
        if partial and max(kernel) > 2:
            raise NotExact(node, "an average over fewer pixels at the border")
        return _power_of_two(node, prod(kernel))
    if is_standard(node, "GlobalAveragePool"):
        return _power_of_two(node, _sizes(node, shapes, None))
    if is_standard(node, "ReduceMean"):
        return _power_of_two(node, _sizes(node, shapes, _axes(node)))
    if is_standard(node, "ReduceSum"):
        return _sizes(node, shapes, _axes(node))
    if is_standard(node, "Resize", "Upsample") and _mode(node) != "nearest":
        raise NotExact(node, f"{node.op} in mode {_mode(node)}")
    if is_standard(node, "Pad") and pad_value(node) != 0:
        raise NotExact(node, "pads with another value than 0")
    return 1


def divides(node: gs.Node) -> bool:
    """Whether the values that `summed` counts are averaged."""
    return is_standard(node, "AveragePool", "GlobalAveragePool", "ReduceMean")


def _power_of_two(node: gs.Node, count: int) -> int:
    if count & (count - 1):
        raise NotExact(node, f"an average over {count} values, which is no power of two")
    return count


def _sizes(node: gs.Node, shapes: Shapes, axes: Sequence[int] | None) -> int:
    """Product of the sizes along ``axes``; None: all behind the channels."""
    size = shapes.get(node.inputs[0].name)
    if size is None:
        raise NotExact(node, f"the shape of {node.inputs[0].name!r} is not known")
    places = range(2, len(size) + 1) if axes is None else [a % (len(size) + 1) for a in axes]
    if 0 in places:
        raise NotExact(node, "adds up the samples of a batch")
    chosen = [size[place - 1] for place in places]
    if any(n is None for n in chosen):
        raise NotExact(node, f"the shape of {node.inputs[0].name!r} is not known")
    return prod(int(n or 1) for n in chosen)


def _axes(node: gs.Node) -> list[int]:
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > 1 and is_constant(node.inputs[1]):
        return [int(a) for a in np.ravel(node.inputs[1].values)]
    raise NotExact(node, "its axes are not known")


def _mode(node: gs.Node) -> str:
    return str(node.attrs.get("mode", "nearest"))
