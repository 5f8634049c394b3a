"""Any batch size: the SNN folds time into the batch, so no shape may fix it.

What depends on the batch is found by meaning: shapes, and the integers computed from them, are
followed at two batch sizes (`walk_shapes`). Cases, each with its test:

* axis 0 of inputs and outputs becomes symbolic
* ``Reshape`` to a fixed shape, or to one computed from ``Shape``: ``[-1, rest]``, where -1 stands
  where the batch goes (``allowzero``, 0 and -1 in the target resolved first)
* ``Reshape`` where image sizes are open too: ``Flatten``, or the batch taken from the tensor that
  is reshaped
* values computed from shapes that do not depend on the batch: constants. Floats are constant if
  equal up to rounding (LSQ's gradient scale ``s g + (s - s g)``), and take the value of the
  constant they come from
* ``Expand`` of samples to larger samples: ``Tile``
* ``Expand``/``ConstantOfShape`` of one value as an operand of elementwise operators: the value
  itself; elsewhere its batch is read from the network's input
* a constant with one equal row per sample: one row; in ``Concat``: expanded to the batch
* a constant operand that repeats itself along axes that other operands have (``full_like``): once
* an operand that is computed of such, and one number in every place (`repeated`): that number
* ``Resize`` to fixed sizes that include the batch: scales, or the batch of its own input
* ``Gather`` of constant places out of all samples at once (``as_strided``): out of each sample;
  refused where it picks some samples
* ``Squeeze`` without axes: the axes that are 1 at every batch size
* ``Reshape``, ``Flatten``, ``Expand``, ... that keep the shape at every size: dropped
* a Reshape that mixes samples, an output that does not keep them apart: refused
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_output, is_standard, producer
from na_convert.results import Refusal, Skip

from .drop_noops import bypass
from .fold_constants import to_constants
from .free_operands import (
    expand_constants,
    free_expand,
    free_gather,
    free_resize,
    name_squeezed_axes,
    shrink_operands,
)
from .free_reshape import free_reshape
from .freeing import Freeing
from .node_builder import Builder
from .single_node import Array
from .walk_shapes import Trial, batch_axis, has_open_sizes, walk

BATCH = "N"
_SAME_VALUES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand")
_BATCHES = (2, 5)
_SIZES = (64, 96)
_ROUNDING = 1e-6
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where", "PRelu", "Sum", "Mean",
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Mod", "Clip",
)  # fmt: skip


def free_batch(graph: gs.Graph) -> tuple[int, tuple[Skip, ...], tuple[Refusal, ...]]:
    """Returns how many nodes changed, what was left alone, and what fixes the batch for good."""
    fixed = _fixed_batch(graph)
    trials = [Trial(b, _SIZES[0]) for b in _BATCHES]
    if has_open_sizes(graph):
        trials.append(Trial(_BATCHES[0], _SIZES[1]))
    graph.toposort()
    work = Freeing(graph, Builder(graph), trials, fixed)
    walk(graph, trials, lambda node: _rewrite(work, node), lambda node: _settle(work, node))
    _free_interface(work)
    graph.cleanup().toposort()
    return work.changed, tuple(work.skipped), tuple(work.refused)


def _fixed_batch(graph: gs.Graph) -> int | None:
    """The batch size that the model's first input fixes, None where it is open."""
    for tensor in graph.inputs:
        if tensor.shape:
            first = tensor.shape[0]
            return first if isinstance(first, int) and first > 0 else None
    return None


def _free_interface(work: Freeing) -> None:
    for tensor in work.graph.inputs:
        if tensor.shape:
            first = tensor.shape[0]
            name = first if isinstance(first, str) and first else BATCH
            tensor.shape = [name, *tensor.shape[1:]]
    symbol = next((t.shape[0] for t in work.graph.inputs if t.shape), BATCH)
    for tensor in work.graph.outputs:
        found = [t.shape(tensor) for t in work.trials]
        shapes = [s for s in found if s is not None]
        if len(shapes) < len(found) or len({len(s) for s in shapes}) > 1:
            if tensor.shape:
                tensor.shape = [symbol, *tensor.shape[1:]]
            continue
        source = producer(tensor)
        axis = batch_axis(work.trials, tensor)
        if source is not None and axis:
            work.refuse_order(source, tensor.name, axis)
            continue
        if source is not None and axis is None:
            work.refuse(source, f"output {tensor.name} does not keep the samples apart on axis 0")
            continue
        by_axis = [set(dims) for dims in zip(*shapes, strict=True)]
        dims = [d.pop() if len(d) == 1 else f"{tensor.name}_{k}" for k, d in enumerate(by_axis)]
        tensor.shape = [symbol if shapes[0][:1] == (_BATCHES[0],) else dims[0], *dims[1:]]


def _rewrite(work: Freeing, node: gs.Node) -> None:
    if is_standard(node, "Reshape"):
        free_reshape(work, node)
    elif is_standard(node, "Squeeze"):
        name_squeezed_axes(work, node)
    elif is_standard(node, "Resize"):
        free_resize(work, node)
    elif is_standard(node, "Expand"):
        free_expand(work, node)
    elif is_standard(node, "Gather"):
        free_gather(work, node)
    elif is_standard(node, "Concat"):
        expand_constants(work, node)
    elif is_standard(node, *_ELEMENTWISE):
        shrink_operands(work, node)


def _settle(work: Freeing, node: gs.Node) -> None:
    """Make constants of what was computed from shapes and does not depend on them."""
    outputs = [t for t in node.outputs if t.name]
    if is_standard(node, *_SAME_VALUES) and _keeps_shape(work, node):
        work.changed += bypass(work.graph, node)
        return
    if not outputs or any(is_output(work.graph, t) for t in outputs):
        return
    found = [[t.values.get(o.name) for t in work.trials] for o in outputs]
    if any(v is None for values in found for v in values):
        return
    settled = [_settled(node, values) for values in found]  # type: ignore[arg-type]
    if any(v is None for v in settled):
        return
    node.outputs = outputs
    to_constants(node, settled)  # type: ignore[arg-type]
    work.changed += 1


def _keeps_shape(work: Freeing, node: gs.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if is_constant(x):
        return False
    pairs = [(t.shape(x), t.shape(y)) for t in work.trials]
    return all(a is not None and a == b for a, b in pairs)


def _settled(node: gs.Node, values: Sequence[Array]) -> Array | None:
    """The common value of all trials, None if they differ by more than rounding."""
    first = values[0]
    if any(v.shape != first.shape for v in values):
        return None
    if all(np.array_equal(first, v) for v in values):
        return _origin(node, first) if first.dtype.kind == "f" else first
    if first.dtype.kind != "f":
        return None
    if all(np.allclose(first, v, rtol=_ROUNDING, atol=0) for v in values):
        return _origin(node, first)
    return None


def _origin(node: gs.Node, value: Array) -> Array:
    """The constant that ``value`` is a rounded copy of, else ``value``."""
    waiting, seen = [node], set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        for tensor in current.inputs:
            if is_constant(tensor):
                if tuple(tensor.shape) != value.shape or np.dtype(tensor.dtype) != value.dtype:
                    continue
                if np.allclose(tensor.values, value, rtol=_ROUNDING, atol=0):
                    return np.asarray(tensor.values)
            else:
                waiting.extend(tensor.inputs)
    return value
