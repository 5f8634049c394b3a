"""The axes of tensors inside an elementwise function: which axis of the root each of them is.

Rules for single operators, used by `elementwise`. An axis is a pair (axis of the root, size), with
size 1 where all values agree, so that only constants that differ along an axis make it longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from .graph import is_constant, is_standard, producer

EXTRA = -1  # an axis that the root does not have
SCATTERED = -2  # an axis of data after a Reshape: no longer one axis of the root

Axes: TypeAlias = tuple[tuple[int, int], ...]  # (axis of the root, size); size 1 where values agree

LAYOUT = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
RESHAPING = ("Flatten", "Reshape", "Squeeze", "Transpose")  # a root is taken behind them
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ArgMax", "ArgMin")
COUNTING_AXES = ("Concat", "Squeeze", "Unsqueeze", *REDUCTIONS)  # given axes by their numbers
_MAX_CONSTANT = 1 << 12  # elements: a staircase per channel takes milliseconds each to find


def data_inputs(node: gs.Node) -> list[gs.Tensor]:
    """The inputs that carry data and are not constants."""
    if is_standard(node, *LAYOUT, *REDUCTIONS, "CastLike"):
        used = node.inputs[:1]
    elif is_standard(node, "ConstantOfShape"):
        shape = producer(node.inputs[0])
        used = shape.inputs if shape is not None and is_standard(shape, "Shape") else []
    else:
        used = node.inputs
    return [t for t in used if not t.is_empty() and not is_constant(t)]


def broadcast_axes(node: gs.Node, axes: Mapping[int, Axes], rank: int) -> Axes | None:
    """numpy's broadcasting of the tracked inputs and the constants."""
    tracked = [axes[id(t)] for t in node.inputs if id(t) in axes]
    constants = []
    for tensor in node.inputs:
        if is_constant(tensor) and not tensor.is_empty():
            shape = _constant_shape(node, tensor, rank)
            if shape is None:
                return None
            constants.append(shape)
    width = max(len(a) for a in [*tracked, *constants])
    result = []
    for i in range(-width, 0):
        here = [a[i] for a in tracked if len(a) >= -i]
        labels = {label for label, _ in here} or {EXTRA}
        sizes = {s for _, s in here} | {c[i] for c in constants if len(c) >= -i}
        label, size = min(labels), max(sizes, default=1)
        aligned = len(here) == len(tracked) or label == EXTRA
        if len(labels) > 1 or not aligned or len(sizes - {1}) > 1:
            return None
        if size > 1 and label in (0, SCATTERED):
            return None
        result.append((label, size))
    varying = [label for label, size in result if size > 1 and label != EXTRA]
    return tuple(result) if len(varying) <= 1 else None


def _constant_shape(node: gs.Node, tensor: gs.Constant, rank: int) -> tuple[int, ...] | None:
    """How a constant lines up with the data, which has ``rank`` axes."""
    shape = tuple(int(n) for n in tensor.shape)
    count = int(np.prod(shape))
    if count > _MAX_CONSTANT:
        return None
    per_axis = node.op in ("QuantizeLinear", "DequantizeLinear", "BatchNormalization")
    if per_axis:
        axis = int(node.attrs.get("axis", 1))
        if count == 1:
            return ()
        if len(shape) != 1 or not -rank <= axis < rank:
            return None
        return tuple(count if i == axis % rank else 1 for i in range(rank))
    return shape


def axes_argument(node: gs.Node) -> list[int] | None:
    """``axes`` (or ``axis``) of a node, attribute or input; None if unknown or left out."""
    if node.op in ("ArgMax", "ArgMin", "Concat"):
        return [int(node.attrs.get("axis", 0))]
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > 1 and is_constant(node.inputs[1]) and not node.inputs[1].is_empty():
        return [int(a) for a in np.ravel(node.inputs[1].values)]
    return None


def reduced_axes(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = axes_argument(node)
    if not wanted or not _within(wanted, len(axes)):
        return None
    dropped = {a % len(axes) for a in wanted}
    if any(axes[a][0] != EXTRA for a in dropped):
        return None
    keep = bool(int(node.attrs.get("keepdims", 1)))
    kept = [
        (EXTRA, 1) if i in dropped else a for i, a in enumerate(axes) if keep or i not in dropped
    ]
    return tuple(kept)


def _within(wanted: list[int], rank: int) -> bool:
    return all(-rank <= axis < rank for axis in wanted)


def unsqueezed(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = axes_argument(node)
    if wanted is None or not _within(wanted, rank := len(axes) + len(wanted)):
        return None
    new = {a % rank for a in wanted}
    rest = iter(axes)
    return tuple((EXTRA, 1) if i in new else next(rest) for i in range(rank))


def squeezed(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = axes_argument(node)
    if wanted is None or not _within(wanted, len(axes)):
        return None
    dropped = {a % len(axes) for a in wanted}
    if any(axes[a][1] > 1 or axes[a][0] == 0 for a in dropped):
        return None
    return tuple(a for i, a in enumerate(axes) if i not in dropped)


def looked_up_axes(node: gs.Node, axes: Axes) -> Axes | None:
    """A table of numbers, looked up at computed indices."""
    table = node.inputs[0]
    if not is_constant(table) or len(table.shape) != 1:
        return None
    if node.op == "Gather":
        return axes
    return axes[:-1] if axes[-1] == (EXTRA, 1) else None


def joined_axes(node: gs.Node, axes: Mapping[int, Axes]) -> Axes | None:
    """Concat along an extra axis."""
    parts = [axes.get(id(t)) for t in node.inputs]
    first = parts[0]
    axis = int(node.attrs["axis"])
    if first is None or not _within([axis], len(first)):
        return None
    axis %= len(first)
    if any(p is None or len(p) != len(first) or p[axis][0] != EXTRA for p in parts):
        return None
    rest = [[p[i] for i in range(len(p)) if i != axis] for p in parts if p is not None]
    if any(r != rest[0] for r in rest):
        return None
    total = sum(p[axis][1] for p in parts if p is not None)
    return tuple((EXTRA, total) if i == axis else a for i, a in enumerate(first))
