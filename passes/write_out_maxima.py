"""Write maxima between neurons as MaxPool, which `to_spiking` turns into ``MaxPoolCounts``.

Requires Staircase and Ramp nodes (`find_activations`). A maximum of sums over time is what
``MaxPoolCounts`` gives, whatever axes it is taken over.

Cases:

* ``GlobalMaxPool``, and ``ReduceMax`` over all spatial axes: ``MaxPool`` with the image as kernel;
* ``ReduceMax`` over other axes (channels, tokens): these go last, into one axis, which is pooled;
* ``Max`` of several tensors of one shape (maxout): joined along a new axis, which is pooled;
* ``ReduceMin``, ``Min``: the same of the negatives;
* before the first activation or behind the last, sizes that are open, the batch axis, operands of
  unlike shapes, constant operands: left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_ours, is_standard, label
from na_convert.neurons import ACTIVATION_OPS
from na_convert.regions import spiking_nodes
from na_convert.results import PassReport
from na_convert.tensor_types import TensorType, tensor_types

from .node_builder import Builder

NAME = "write_out_maxima"
_REDUCING = ("GlobalMaxPool", "ReduceMax", "ReduceMin")
_JOINING = ("Max", "Min")

Sizes = list[int]  # of one sample: the axes behind the batch


def run(graph: gs.Graph) -> PassReport:
    """Rewrite the maxima of ``graph`` in place."""
    neurons = [node for node in graph.nodes if is_ours(node, *ACTIVATION_OPS)]
    found = [n for n in spiking_nodes(graph, neurons) if is_standard(n, *_REDUCING, *_JOINING)]
    if not found:
        return PassReport(NAME, 0)
    types, builder, changed = tensor_types(graph), Builder(graph), 0
    for node in found:
        sizes = _sizes(types, node)
        if sizes is None:
            continue
        if node.op in _JOINING:
            changed += _write_joined(builder, node, sizes)
        else:
            axes = _axes(node, len(sizes) + 1)
            changed += axes is not None and _write_reduced(builder, node, sizes, axes)
    graph.cleanup().toposort()
    return PassReport(NAME, changed)


def _sizes(types: Mapping[str, TensorType], node: gs.Node) -> Sizes | None:
    """The one shape of the data inputs of ``node``, without the batch; None if it is not known.

    Batches that are open count as one, whatever shape inference calls them.
    """
    data = node.inputs if node.op in _JOINING else node.inputs[:1]
    if any(is_constant(t) for t in data):
        return None
    shapes = [types.get(t.name, TensorType()).shape or () for t in data]
    behind = {shape[1:] for shape in shapes}
    batches = {n if isinstance(n, int) else None for shape in shapes for n in shape[:1]}
    sizes = [n for n in behind.pop() if isinstance(n, int)]
    if behind or len(batches) != 1 or not sizes or len(sizes) != len(shapes[0]) - 1:
        return None
    return sizes


def _axes(node: gs.Node, rank: int) -> list[int] | None:
    """The axes that ``node`` reduces, sorted; None if they are computed, or include the batch."""
    if node.op == "GlobalMaxPool":
        return list(range(2, rank))
    given = node.attrs.get("axes")
    if given is None:
        if len(node.inputs) < 2 or node.inputs[1].is_empty() or not is_constant(node.inputs[1]):
            return None
        given = np.ravel(node.inputs[1].values)
    axes = sorted({int(a) % rank for a in given})
    return axes if axes and axes[0] > 0 else None


def _write_reduced(b: Builder, node: gs.Node, sizes: Sizes, axes: list[int]) -> bool:
    name, x = label(node), node.inputs[0]
    keep = node.op == "GlobalMaxPool" or bool(int(node.attrs.get("keepdims", 1)))
    falls = node.op == "ReduceMin"
    rank = len(sizes) + 1
    kept = [k for k in range(1, rank) if k not in axes]
    after = [1 if k in axes else sizes[k - 1] for k in range(1, rank) if keep or k not in axes]
    output = b.take_output(node)
    x = b.emit("Neg", [x], f"{name}_negative", dtype=output.dtype) if falls else x
    if axes == list(range(2, rank)) and 3 <= rank <= 5:
        kernel = sizes[1:]
    else:
        if axes[0] < max(kept, default=0):
            order = [0, *kept, *axes]
            x = b.emit("Transpose", [x], f"{name}_moved", {"perm": order}, output.dtype)
        kernel = [1, int(np.prod([sizes[k - 1] for k in axes]))]
        x = _reshaped(b, x, [1, int(np.prod([sizes[k - 1] for k in kept])), kernel[1]], name)
    _pool(b, x, kernel, after, output, name, negative=falls)
    return True


def _write_joined(b: Builder, node: gs.Node, sizes: Sizes) -> bool:
    name, falls = label(node), node.op == "Min"
    last = b.constant(f"{name}_axis", np.asarray([len(sizes) + 1], np.int64))
    parts: list[gs.Tensor] = []
    output = b.take_output(node)
    for tensor in node.inputs:
        part = b.emit("Neg", [tensor], f"{name}_negative", dtype=output.dtype) if falls else tensor
        parts.append(b.emit("Unsqueeze", [part, last], f"{name}_part", dtype=output.dtype))
    joined = b.emit("Concat", parts, f"{name}_parts", {"axis": len(sizes) + 1}, output.dtype)
    flat = _reshaped(b, joined, [1, int(np.prod(sizes)), len(parts)], name)
    _pool(b, flat, [1, len(parts)], sizes, output, name, negative=falls)
    return True


def _pool(
    b: Builder,
    x: gs.Tensor,
    kernel: Sequence[int],
    after: Sizes,
    output: gs.Tensor,
    name: str,
    *,
    negative: bool,
) -> None:
    """MaxPool of ``x``, in the shape ``after``, turned round again if ``negative``."""
    pooled = b.emit("MaxPool", [x], f"{name}_pooled", {"kernel_shape": list(kernel)}, output.dtype)
    target = b.constant(f"{name}_after", np.asarray([-1, *after], np.int64))
    if negative:
        shaped = b.emit("Reshape", [pooled, target], f"{name}_shaped", dtype=output.dtype)
        b.emit_into("Neg", [shaped], output)
    else:
        b.emit_into("Reshape", [pooled, target], output)


def _reshaped(b: Builder, x: gs.Tensor, sizes: Sizes, name: str) -> gs.Tensor:
    target = b.constant(f"{name}_flat_shape", np.asarray([-1, *sizes], np.int64))
    return b.emit("Reshape", [x, target], f"{name}_flat", dtype=x.dtype)
