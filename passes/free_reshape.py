"""Reshape for every batch size (the cases are listed in `free_batch`)."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, label

from .freeing import Freeing, with_batch_of
from .reshape_targets import freed_target, resolve
from .walk_shapes import Shape, Trial, batch_axis


def free_reshape(work: Freeing, node: gs.Node) -> None:
    x, target = node.inputs[0], node.inputs[1]
    if is_constant(x):
        return
    shapes = [t.shape(x) for t in work.trials]
    targets = [t.value(target) for t in work.trials]
    if any(t is None for t in targets):
        work.skip(node, "its target shape is not computed from shapes alone")
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
        if axis == 0 and _keeps_batch(work, node):
            _batch_of_input(work, node)
        else:
            work.skip(node, "image sizes are open, and its first axis is more than the batch")


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
    if not is_constant(target) or target.values.size == 0:
        return
    entries = [int(v) for v in target.values]
    if entries[0] != work.fixed:
        return
    if -1 in entries:
        _batch_of_input(work, node)
    else:
        _set_target(work, node, [-1, *entries[1:]])


def _keeps_batch(work: Freeing, node: gs.Node) -> bool:
    """Whether the first entry of the target is the first axis of the input, in every trial."""
    zero = bool(node.attrs.get("allowzero", 0))
    for trial in work.trials:
        shape, target = trial.shape(node.inputs[0]), trial.value(node.inputs[1])
        assert shape is not None
        assert target is not None
        if work.fixed and is_constant(node.inputs[1]):
            shape = (shape[0] // trial.batch * work.fixed, *shape[1:])
        result = resolve(target, shape, zero)
        if not result or result[0] != shape[0]:
            return False
    return True


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
    shape = with_batch_of(work, x, rest, label(node))
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
    return work.builder.emit("Slice", [tensor, starts, ends], f"{base}_rest", dtype=np.int64)
