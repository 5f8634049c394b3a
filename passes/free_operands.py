"""Operands that carry the batch, other than Reshape's (the cases are listed in `free_batch`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_missing, is_standard, label, producer

from .freeing import Freeing, with_batch_of, with_network_batch
from .single_node import Array
from .walk_shapes import Shape, batch_axis, has_open_sizes


def name_squeezed_axes(work: Freeing, node: gs.Node) -> None:
    if len(node.inputs) > 1 and not is_missing(node.inputs[1]):
        return
    shapes = [t.shape(node.inputs[0]) for t in work.trials]
    if shapes[0] is None or any(s is None for s in shapes):
        work.skip(node, "its axes are not named and its input is unknown")
        return
    axes = [k for k in range(len(shapes[0])) if all(s is not None and s[k] == 1 for s in shapes)]
    named = work.builder.constant(f"{label(node)}_axes", np.asarray(axes, np.int64))
    node.inputs = [node.inputs[0], named]
    work.changed += 1


def free_resize(work: Freeing, node: gs.Node) -> None:
    if len(node.inputs) < 4 or is_missing(node.inputs[3]) or node.attrs.get("axes"):
        return
    x, sizes = node.inputs[0], node.inputs[3]
    shape = work.trials[0].shape(x)
    if not is_constant(sizes) or shape is None or batch_axis(work.trials, x) != 0:
        return
    wanted = [int(v) for v in sizes.values]
    ratios = [1.0, *(w / d for w, d in zip(wanted[1:], shape[1:], strict=True))]
    if all(r == int(r) for r in ratios) and not has_open_sizes(work.graph):
        scales = work.builder.constant(f"{label(node)}_scales", np.asarray(ratios, np.float32))
        node.inputs = [x, node.inputs[1], scales]
    else:
        rest = work.builder.constant(f"{label(node)}_rest", sizes.values[1:])
        freed = with_batch_of(work, x, rest, label(node))
        for trial in work.trials:
            full = trial.shape(x)
            assert full is not None
            trial.values[freed.name] = np.asarray([full[0], *wanted[1:]], np.int64)
            trial.shapes[freed.name] = (len(wanted),)
        node.inputs = [*node.inputs[:3], freed]
    work.changed += 1


def free_expand(work: Freeing, node: gs.Node) -> None:
    """The batch of an Expand: 1 where its input has it already, else the network input's."""
    x, target = node.inputs[0], node.inputs[1]
    targets = [t.value(target) for t in work.trials]
    known = [np.asarray(t) for t in targets if t is not None]
    if len(known) < len(targets) or _tiled(work, node, known) or is_constant(target):
        return
    first, second = known[:2]
    varying = np.flatnonzero(first != second)
    if len(varying) != 1 or any(not np.array_equal(first, t) for t in known[2:]):
        return
    axis = int(varying[0])
    if first[axis] != work.trials[0].batch:
        return
    rest = [1 if k == axis else int(v) for k, v in enumerate(first)]
    if batch_axis(work.trials, x) is not None:
        shape: gs.Tensor = work.builder.constant(f"{label(node)}_shape", np.asarray(rest, np.int64))
    else:
        shape = with_network_batch(work, rest[:axis], rest[axis + 1 :], label(node))
    node.inputs = [x, shape]
    work.changed += 1


def _tiled(work: Freeing, node: gs.Node, targets: Sequence[Array]) -> bool:
    """An Expand of samples to larger samples is a Tile, which does not name the batch."""
    x = node.inputs[0]
    if batch_axis(work.trials, x) != 0:
        return False
    repeats = []
    for trial, target in zip(work.trials, targets, strict=True):
        shape = trial.shape(x)
        batches = {1, work.fixed if is_constant(node.inputs[1]) else trial.batch}
        if shape is None or len(shape) != len(target) or int(target[0]) not in batches:
            return False
        repeats.append(
            [1, *(max(int(t) // d, 1) for t, d in zip(target[1:], shape[1:], strict=True))]
        )
    if any(r != repeats[0] for r in repeats):
        return False
    if max(repeats[0]) == 1:
        return _without_batch(work, node, targets[0])
    node.op = "Tile"
    node.inputs = [x, work.builder.constant(f"{label(node)}_repeats", np.asarray(repeats[0]))]
    work.changed += 1
    return True


def _without_batch(work: Freeing, node: gs.Node, target: Array) -> bool:
    """An Expand of samples to their own size names the batch all the same where it is fixed."""
    if not is_constant(node.inputs[1]) or int(target[0]) == 1:
        return False
    nothing = work.builder.constant(f"{label(node)}_shape", np.ones(1, np.int64))
    node.inputs = [node.inputs[0], nothing]
    work.changed += 1
    return True


def expand_constants(work: Freeing, node: gs.Node) -> None:
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
            rest = [int(d) for d in tensor.shape[1:]]
            row = work.builder.constant(f"{tensor.name}_row", tensor.values[:1])
            shape = with_network_batch(work, [], rest, f"{label(node)}_{tensor.name}")
            part = work.builder.emit("Expand", [row, shape], f"{tensor.name}_rows")
            for trial in work.trials:
                trial.shapes[part.name] = (trial.batch, *rest)
            work.changed += 1
        inputs.append(part)
    node.inputs = inputs


def free_gather(work: Freeing, node: gs.Node) -> None:
    """A Gather over all samples at once, by constant places: the same places of each sample."""
    x, indices = node.inputs[0], node.inputs[1]
    shapes = [t.shape(x) for t in work.trials]
    rank = len(shapes[0] or ())
    along = int(node.attrs.get("axis", 0)) % max(rank, 1) == 0
    if work.fixed is None or not along or batch_axis(work.trials, x) != 0:
        return
    if not is_constant(indices):
        return
    first = shapes[0] or (0,)
    each = first[0] // work.trials[0].batch
    places = np.where(indices.values < 0, indices.values + each * work.fixed, indices.values)
    samples = np.arange(work.fixed).reshape(-1, *[1] * (places.ndim - 1)) * each
    whole = places.ndim > 0 and places.shape[0] == work.fixed
    if not whole or not np.array_equal(places, places[:1] + samples):
        work.refuse(node, "picks values by their sample's place in the batch")
        return
    b, name = work.builder, label(node)
    target = b.constant(f"{name}_samples", np.asarray([-1, each, *first[1:]], np.int64))
    apart = b.emit("Reshape", [x, target], f"{name}_apart", dtype=x.dtype)
    for trial in work.trials:
        trial.shapes[apart.name] = (trial.batch, each, *first[1:])
    node.inputs = [apart, b.constant(f"{name}_places", places[0])]
    node.attrs["axis"] = 1
    work.changed += 1


def shrink_operands(work: Freeing, node: gs.Node) -> None:
    if _is_plumbing(work, node):
        return
    for position, tensor in enumerate(node.inputs):  # before axes are compared
        others = _others(node, position)
        if is_constant(tensor) and not tensor.is_empty():
            _exchange(work, node, position, _one_row(work, node, tensor, others))
    for position, tensor in enumerate(node.inputs):
        if is_missing(tensor):
            continue
        others = _others(node, position)
        smaller = _unexpanded(work, tensor, others)
        if smaller is None:
            shrink = _collapsed if is_constant(tensor) else _number
            smaller = shrink(work, tensor, others)
        _exchange(work, node, position, smaller)


def _others(node: gs.Node, position: int) -> list[gs.Tensor]:
    return [t for k, t in enumerate(node.inputs) if k != position and not is_missing(t)]


def _exchange(work: Freeing, node: gs.Node, position: int, smaller: gs.Tensor | None) -> None:
    if smaller is not None:
        node.inputs = [smaller if k == position else t for k, t in enumerate(node.inputs)]
        work.changed += 1


def _is_plumbing(work: Freeing, node: gs.Node) -> bool:
    """Whether the node computes with shapes alone, so that its value is known in every trial."""
    given = [x for x in node.inputs if not is_missing(x)]
    return all(t.value(x) is not None for t in work.trials for x in given)


def _unexpanded(work: Freeing, tensor: gs.Tensor, others: Sequence[gs.Tensor]) -> gs.Tensor | None:
    """The constant behind an Expand that broadcasting does anyway."""
    source = producer(tensor)
    if source is None or not is_standard(source, "Expand") or not is_constant(source.inputs[0]):
        return None
    own = tuple(source.inputs[0].shape)
    for trial in work.trials:
        shape = trial.shape(tensor)
        rest = [trial.shape(t) for t in others]
        if shape is None or any(s is None for s in rest) or not rest:
            return None
        if np.broadcast_shapes(own, *rest) != np.broadcast_shapes(shape, *rest):  # type: ignore[arg-type]
            return None
    constant: gs.Tensor = source.inputs[0]
    return constant


def _number(work: Freeing, tensor: gs.Tensor, others: Sequence[gs.Tensor]) -> gs.Tensor | None:
    """One number, whatever the batch, that is repeated along axes that other operands have."""
    numbers = [trial.number(tensor) for trial in work.trials]
    first = numbers[0]
    if first is None or any(n is None or not np.array_equal(n, first) for n in numbers):
        return None
    for trial in work.trials:
        shape, rest = trial.shape(tensor), [trial.shape(t) for t in others]
        known = [s for s in rest if s is not None]
        if not shape or not known or len(known) < len(rest):
            return None
        if not _broadcast_alike((), shape, known):
            return None
    return work.builder.constant(f"{tensor.name}_number", first)


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


def _collapsed(work: Freeing, tensor: gs.Tensor, others: Sequence[gs.Tensor]) -> gs.Tensor | None:
    """A constant that repeats itself along axes that other operands have (``full_like``): once."""
    kept = values = np.asarray(tensor.values)
    for axis in range(values.ndim):
        first = kept.take([0], axis)
        if kept.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, kept.shape), kept):
            kept = first
    if kept.size == values.size:
        return None
    for trial in work.trials:
        shapes = [trial.shape(t) for t in others]
        known = [s for s in shapes if s is not None]
        if len(known) < len(shapes):
            return None
        if not _broadcast_alike(kept.shape, values.shape, known):
            return None
    return work.builder.constant(f"{tensor.name}_once", kept)


def _broadcast_alike(smaller: Shape, larger: Shape, others: Sequence[Shape]) -> bool:
    """Whether ``others`` make the same shape with one as with the other."""
    try:
        return np.broadcast_shapes(smaller, *others) == np.broadcast_shapes(larger, *others)
    except ValueError:  # of the fixed batch, where that is another
        return False


def _equal_rows(values: Array) -> bool:
    return bool(np.all(values == values[:1]))
