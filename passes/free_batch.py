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
* ``Expand``/``ConstantOfShape`` of one value as an operand of elementwise operators: the value
  itself; elsewhere its batch is read from the network's input
* a constant with one equal row per sample: one row; in ``Concat``: expanded to the batch
* ``Resize`` to fixed sizes that include the batch: scales, or the batch of its own input
* ``Squeeze`` without axes: the axes that are 1 at every batch size
* ``Reshape``, ``Flatten``, ``Expand``, ... that keep the shape at every size: dropped
* a Reshape that mixes samples, an output that does not keep them apart: refused
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_missing, is_output, is_standard, label, producer
from na_convert.results import Refusal, Skip

from .drop_noops import bypass
from .fold_constants import to_constants
from .node_builder import Builder
from .reshape_targets import freed_target, resolve
from .single_node import Array
from .walk_shapes import Shape, Trial, batch_axis, walk

BATCH = "N"
REMEDY = "export with a dynamic batch size (dynamic_shapes, or dynamic_axes), or one sample"
_SAME_VALUES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand")
_BATCHES = (2, 5)
_SIZES = (64, 96)
_ROUNDING = 1e-6
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where", "PRelu", "Sum", "Mean",
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Mod", "Clip",
)  # fmt: skip


@dataclass
class Freeing:
    """The work in progress: the graph, its trials, the batch that the model fixes (or None)."""

    graph: gs.Graph
    builder: Builder
    trials: list[Trial]
    fixed: int | None
    changed: int = 0
    skipped: list[Skip] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, node: gs.Node, reason: str) -> None:
        self.refused.append(Refusal(label(node), node.op, reason, REMEDY))


def free_batch(graph: gs.Graph) -> tuple[int, tuple[Skip, ...], tuple[Refusal, ...]]:
    """Returns how many nodes changed, what was left alone, and what fixes the batch for good."""
    fixed = _fixed_batch(graph)
    trials = [Trial(b, _SIZES[0]) for b in _BATCHES]
    if _has_open_sizes(graph):
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


def _has_open_sizes(graph: gs.Graph) -> bool:
    return any(
        not (isinstance(d, int) and d > 0) for t in graph.inputs for d in (t.shape or ())[1:]
    )


def _free_interface(work: Freeing) -> None:
    for tensor in work.graph.inputs:
        if tensor.shape:
            first = tensor.shape[0]
            name = first if isinstance(first, str) and first else BATCH
            tensor.shape = [name, *tensor.shape[1:]]
    symbol = next((t.shape[0] for t in work.graph.inputs if t.shape), BATCH)
    for tensor in work.graph.outputs:
        shapes = [t.shape(tensor) for t in work.trials]
        first = shapes[0]
        if first is None or any(s is None or len(s) != len(first) for s in shapes):
            if tensor.shape:
                tensor.shape = [symbol, *tensor.shape[1:]]
            continue
        source = producer(tensor)
        if source is not None and batch_axis(work.trials, tensor) != 0:
            work.refuse(source, f"output {tensor.name} does not keep the samples apart on axis 0")
            continue
        same = [len(set(dims)) == 1 for dims in zip(*shapes, strict=True)]  # type: ignore[arg-type]
        rest = [
            d if fixed else f"{tensor.name}_{k}" for k, (d, fixed) in enumerate(zip(first, same))
        ]
        tensor.shape = [symbol if first[0] == work.trials[0].batch else rest[0], *rest[1:]]


# --- before a node's shapes are inferred ----------------------------------------------------------


def _rewrite(work: Freeing, node: gs.Node) -> None:
    if is_standard(node, "Reshape"):
        _free_reshape(work, node)
    elif is_standard(node, "Squeeze"):
        _name_squeezed_axes(work, node)
    elif is_standard(node, "Resize"):
        _free_resize(work, node)
    elif is_standard(node, "Expand"):
        _free_expand(work, node)
    elif is_standard(node, "Concat"):
        _expand_constants(work, node)
    elif is_standard(node, *_ELEMENTWISE):
        _shrink_operands(work, node)


def _free_reshape(work: Freeing, node: gs.Node) -> None:
    x, target = node.inputs[0], node.inputs[1]
    if is_constant(x):
        return
    shapes = [t.shape(x) for t in work.trials]
    targets = [t.value(target) for t in work.trials]
    if any(t is None for t in targets):
        work.skipped.append(Skip(label(node), "its target shape is not computed from shapes alone"))
        return
    if any(s is None for s in shapes):
        _free_blindly(work, node)
        return
    axis = batch_axis(work.trials, x)
    if axis is None:
        return
    zero = bool(node.attrs.get("allowzero", 0))
    fixed = work.fixed if is_constant(target) else None
    freed = freed_target(shapes, targets, axis, [t.batch for t in work.trials], fixed, zero)  # type: ignore[arg-type]
    if freed is None:
        work.refuse(node, f"reshapes to {np.asarray(targets[0]).tolist()}, which mixes samples")
    elif isinstance(freed, list):
        _set_target(work, node, freed)
    elif not is_constant(target) or work.fixed:
        _batch_of_input(work, node)


def _set_target(work: Freeing, node: gs.Node, target: list[int]) -> None:
    old = node.inputs[1]
    node.attrs.pop("allowzero", None)
    if is_constant(old) and old.values.tolist() == target:
        return
    shape = work.builder.constant(f"{label(node)}_shape", np.asarray(target, np.int64))
    node.inputs = [node.inputs[0], shape]
    work.changed += 1


def _free_blindly(work: Freeing, node: gs.Node) -> None:
    """The shape of the input is unknown: a leading entry that equals the fixed batch is it."""
    target = node.inputs[1]
    if not is_constant(target) or work.fixed is None or target.values.size == 0:
        return
    entries = [int(v) for v in target.values]
    if entries[0] != work.fixed:
        return
    if -1 in entries:
        _batch_of_input(work, node)
    else:
        _set_target(work, node, [-1, *entries[1:]])


def _batch_of_input(work: Freeing, node: gs.Node) -> None:
    """Flatten where that is what the Reshape does, else take its batch from its own input."""
    x, target = node.inputs[0], node.inputs[1]
    entries = work.trials[0].value(target)
    if entries is not None and len(entries) == 2:
        node.op, node.attrs, node.inputs = "Flatten", {"axis": 1}, [x]
        work.changed += 1
        return
    zero = bool(node.attrs.get("allowzero", 0))
    rest = _slice(work, target, 1, label(node))
    shape = _with_batch_of(work, x, rest, label(node))
    for trial, result in _resolved(work, node, zero):
        trial.shapes[shape.name] = (len(result),)
        trial.values[shape.name] = np.asarray(result, np.int64)
    node.inputs = [x, shape]
    node.attrs.pop("allowzero", None)
    work.changed += 1


def _resolved(work: Freeing, node: gs.Node, zero: bool) -> list[tuple[Trial, Shape]]:
    """What the Reshape makes of its input in each trial with its own batch in front."""
    found = []
    for trial in work.trials:
        shape, target = trial.shape(node.inputs[0]), trial.value(node.inputs[1])
        if shape is not None and target is not None:
            result = resolve(np.asarray([shape[0], *target[1:]]), shape, zero)
            if result is not None:
                found.append((trial, result))
    return found


def _slice(work: Freeing, tensor: gs.Tensor, start: int, base: str) -> gs.Tensor:
    if is_constant(tensor):
        return work.builder.constant(f"{base}_rest", tensor.values[start:])
    starts = work.builder.constant(f"{base}_start", np.asarray([start], np.int64))
    ends = work.builder.constant(f"{base}_end", np.asarray([np.iinfo(np.int64).max], np.int64))
    return work.builder.emit("Slice", [tensor, starts, ends], f"{base}_rest")


def _with_batch_of(work: Freeing, x: gs.Tensor, rest: gs.Tensor, base: str) -> gs.Tensor:
    batch = work.builder.emit("Shape", [x], f"{base}_batch", {"start": 0, "end": 1})
    return work.builder.emit("Concat", [batch, rest], f"{base}_shape", {"axis": 0})


def _name_squeezed_axes(work: Freeing, node: gs.Node) -> None:
    if len(node.inputs) > 1 and not is_missing(node.inputs[1]):
        return
    shapes = [t.shape(node.inputs[0]) for t in work.trials]
    if shapes[0] is None or any(s is None for s in shapes):
        work.skipped.append(Skip(label(node), "its axes are not named and its input is unknown"))
        return
    axes = [k for k in range(len(shapes[0])) if all(s is not None and s[k] == 1 for s in shapes)]
    named = work.builder.constant(f"{label(node)}_axes", np.asarray(axes, np.int64))
    node.inputs = [node.inputs[0], named]
    work.changed += 1


def _free_resize(work: Freeing, node: gs.Node) -> None:
    if len(node.inputs) < 4 or is_missing(node.inputs[3]) or node.attrs.get("axes"):
        return
    x, sizes = node.inputs[0], node.inputs[3]
    shape = work.trials[0].shape(x)
    if not is_constant(sizes) or shape is None or batch_axis(work.trials, x) != 0:
        return
    wanted = [int(v) for v in sizes.values]
    ratios = [1.0, *(w / d for w, d in zip(wanted[1:], shape[1:], strict=True))]
    if all(r == int(r) for r in ratios) and not _has_open_sizes(work.graph):
        scales = work.builder.constant(f"{label(node)}_scales", np.asarray(ratios, np.float32))
        node.inputs = [x, node.inputs[1], scales]
    else:
        rest = work.builder.constant(f"{label(node)}_rest", sizes.values[1:])
        freed = _with_batch_of(work, x, rest, label(node))
        for trial in work.trials:
            full = trial.shape(x)
            trial.values[freed.name] = np.asarray([full[0] if full else 1, *wanted[1:]], np.int64)
            trial.shapes[freed.name] = (len(wanted),)
        node.inputs = [*node.inputs[:3], freed]
    work.changed += 1


def _free_expand(work: Freeing, node: gs.Node) -> None:
    """The batch of an Expand: 1 where its input has it already, else that of the network's input."""
    x, target = node.inputs[0], node.inputs[1]
    targets = [t.value(target) for t in work.trials]
    if any(t is None for t in targets) or is_constant(target):
        return
    first, second = (np.asarray(t) for t in targets[:2])
    varying = np.flatnonzero(first != second)
    if len(varying) != 1 or any(not np.array_equal(first, t) for t in targets[2:]):
        return
    axis = int(varying[0])
    if first[axis] != work.trials[0].batch:
        return
    rest = [1 if k == axis else int(v) for k, v in enumerate(first)]
    if batch_axis(work.trials, x) is not None:
        shape: gs.Tensor = work.builder.constant(f"{label(node)}_shape", np.asarray(rest, np.int64))
    else:
        shape = _network_batch(work, rest, axis, label(node))
    node.inputs = [x, shape]
    work.changed += 1


def _network_batch(work: Freeing, rest: list[int], axis: int, base: str) -> gs.Tensor:
    """``rest`` as a shape tensor, with the batch of the network's input at ``axis``."""
    b = work.builder
    batch = b.emit("Shape", [work.graph.inputs[0]], f"{base}_batch", {"start": 0, "end": 1})
    before = b.constant(f"{base}_before", np.asarray(rest[:axis], np.int64))
    after = b.constant(f"{base}_after", np.asarray(rest[axis + 1 :], np.int64))
    shape = b.emit("Concat", [before, batch, after], f"{base}_shape", {"axis": 0})
    for trial in work.trials:
        full = [trial.batch if k == axis else d for k, d in enumerate(rest)]
        trial.values[shape.name] = np.asarray(full, np.int64)
        trial.shapes[shape.name] = (len(full),)
    return shape


def _expand_constants(work: Freeing, node: gs.Node) -> None:
    """A constant that the exporter gave the fixed batch cannot be concatenated with free ones."""
    if work.fixed is None or not any(batch_axis(work.trials, t) == 0 for t in node.inputs):
        return
    inputs = []
    for tensor in node.inputs:
        part = tensor
        if is_constant(tensor) and tensor.shape and tensor.shape[0] == work.fixed:
            if not _equal_rows(tensor.values):
                work.refuse(node, f"constant {tensor.name} differs between the samples of a batch")
                return
            rest = [1, *(int(d) for d in tensor.shape[1:])]
            row = work.builder.constant(f"{tensor.name}_row", tensor.values[:1])
            shape = _network_batch(work, rest, 0, f"{label(node)}_{tensor.name}")
            part = work.builder.emit("Expand", [row, shape], f"{tensor.name}_rows")
            for trial in work.trials:
                trial.shapes[part.name] = (trial.batch, *rest[1:])
            work.changed += 1
        inputs.append(part)
    node.inputs = inputs


def _shrink_operands(work: Freeing, node: gs.Node) -> None:
    for position, tensor in enumerate(node.inputs):
        if is_missing(tensor):
            continue
        others = [t for k, t in enumerate(node.inputs) if k != position and not is_missing(t)]
        smaller = _unexpanded(work, tensor, others)
        if smaller is None and is_constant(tensor):
            smaller = _one_row(work, node, tensor, others)
        if smaller is not None:
            node.inputs = [smaller if k == position else t for k, t in enumerate(node.inputs)]
            work.changed += 1


def _unexpanded(work: Freeing, tensor: gs.Tensor, others: Sequence[gs.Tensor]) -> gs.Tensor | None:
    """The constant behind an Expand or ConstantOfShape that broadcasting does anyway."""
    source = producer(tensor)
    if source is None or not is_standard(source, "Expand", "ConstantOfShape"):
        return None
    for trial in work.trials:
        shape = trial.shape(tensor)
        rest = [trial.shape(t) for t in others]
        if shape is None or any(s is None for s in rest) or not rest:
            return None
        if np.broadcast_shapes(*rest) != np.broadcast_shapes(shape, *rest):  # type: ignore[arg-type]
            return None
    if source.op == "Expand":
        return source.inputs[0] if is_constant(source.inputs[0]) else None
    value = source.attrs.get("value")
    number = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
    return work.builder.constant(f"{tensor.name}_value", number.reshape(()))


def _one_row(
    work: Freeing, node: gs.Node, tensor: gs.Tensor, others: Sequence[gs.Tensor]
) -> gs.Tensor | None:
    """One row of a constant that repeats it for each sample of the fixed batch."""
    if work.fixed in (None, 1) or not tensor.shape or tensor.shape[0] != work.fixed:
        return None
    rank = len(tensor.shape)
    beside = [t for t in others if batch_axis(work.trials, t) == 0]
    if not any(len(work.trials[0].shape(t) or ()) == rank for t in beside):
        return None
    if _equal_rows(tensor.values):
        return work.builder.constant(f"{tensor.name}_row", tensor.values[:1])
    work.refuse(node, f"constant {tensor.name} differs between the samples of a batch")
    return None


def _equal_rows(values: Array) -> bool:
    return bool(np.all(values == values[:1]))


# --- after ----------------------------------------------------------------------------------------


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
