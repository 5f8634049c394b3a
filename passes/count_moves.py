"""Operators that move counts about, read by `count_sums`: Concat, Slice, Reshape and the like.

What is moved are counts again, and each keeps what it is worth. Of sums, Concat and a flattened
pixel are sums again (`compose_terms`). The batch stays the first axis (`passes.affine`), so that
every axis is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_missing
from na_convert.integer_moves import Move

from .compose_terms import as_dense, beside
from .count_values import Counts, NoIntegerForm, Sum, Term, Value, as_sum, by_channel

if TYPE_CHECKING:
    from .count_sums import Reader


def read_identity(reader: Reader, node: gs.Node) -> list[Value]:
    return [reader.value(node.inputs[0])]


def read_concat(reader: Reader, node: gs.Node) -> list[Value]:
    rank = reader.rank(node)
    if int(node.attrs["axis"]) % rank != 1:
        raise NoIntegerForm("joins counts along another axis than the channels")
    values = [reader.value(t) for t in node.inputs]
    if any(isinstance(value, Sum) for value in values):
        return [_joined_sums(reader, node, values)]
    sources = [reader.counts(t) for t in node.inputs]
    name = node.outputs[0].name
    move = Move(name, "Concat", tuple(c.name for c in sources), {"axis": 1})
    return [reader.moved(name, move, sources)]


def _joined_sums(reader: Reader, node: gs.Node, values: Sequence[Value]) -> Sum:
    shapes = [reader.shape(t) for t in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        raise NoIntegerForm("joins currents of unknown size", "export with static image sizes")
    return beside([as_sum(value) for value in values], known)


def read_reshape(reader: Reader, node: gs.Node) -> list[Value]:
    value, before = reader.value(node.inputs[0]), reader.shape(node.inputs[0])
    if isinstance(value, Sum) and before is not None and before.count(1) >= len(before) - 1:
        shape = _reshaped(node, before)
        if shape == before[:1]:
            return [flattened(reader, node.outputs[0].name, value, shape)]
    source = reader.counts(node.inputs[0])
    shape = _reshaped(node, source.shape)
    name = node.outputs[0].name
    target = np.asarray([-1, *shape], np.int64)
    return [reader.moved(name, Move(name, "Reshape", (source.name,), {}, (target,)), [source])]


def flattened(reader: Reader, name: str, value: Sum, shape: tuple[int, ...]) -> Sum:
    """A sum of one pixel per channel [C, 1, ...] as a vector ``shape`` = [C]: dense layers."""
    if value.pool is not None or value.analogs:
        raise NoIntegerForm("flattens a maximum of currents, or a sum with an analog one")
    terms = []
    for index, term in enumerate(value.terms):
        source = term.source
        if term.window is None:
            terms.append(term)
            continue
        output, target = f"{name}_flat{index}", np.asarray([-1, int(np.prod(source.shape))])
        move = Move(output, "Reshape", (source.name,), {}, (target.astype(np.int64),))
        terms.append(Term(reader.moved(output, move, [source]), as_dense(term), None))
    identities = []
    for index, (counts, gain) in enumerate(value.identities):
        output, target = f"{name}_pixel{index}", np.asarray([-1, *shape], np.int64)
        move = Move(output, "Reshape", (counts.name,), {}, (target,))
        worth = np.broadcast_to(gain, counts.shape).reshape(shape)
        identities.append((reader.moved(output, move, [counts]), worth))
    bias = np.broadcast_to(value.bias, (*shape, *[1] * (np.ndim(value.bias) - 1))).reshape(shape)
    return Sum(tuple(terms), tuple(identities), (), bias)


def _reshaped(node: gs.Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One sample's shape behind a Reshape, Flatten, Squeeze or Unsqueeze that keeps the batch."""
    rank = len(shape) + 1
    if node.op == "Flatten":
        if int(node.attrs.get("axis", 1)) not in (1, 1 - rank):
            raise NoIntegerForm("flattens more than each sample by itself")
        return (int(np.prod(shape)),)
    if node.op in ("Squeeze", "Unsqueeze"):
        axes = constant_ints(node, 1, "axes")
        if node.op == "Squeeze":
            gone = {a % rank for a in axes}
            return tuple(n for i, n in enumerate(shape, 1) if i not in gone)
        wide = [0, *shape]
        for axis in sorted(a % (rank + len(axes)) for a in axes):
            wide.insert(axis, 1)
        return tuple(wide[1:])
    target = node.inputs[1]
    if is_constant(target):
        sizes = [int(n) for n in target.values][1:]
        kept = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(sizes)]
        return np.empty(shape, np.bool_).reshape(kept).shape
    known = node.outputs[0].shape
    if known and all(isinstance(n, int) for n in known[1:]):
        return tuple(int(n) for n in known[1:])
    if known is not None and len(known) == 2:
        return (int(np.prod(shape)),)
    raise NoIntegerForm(
        "its target shape is computed at run time", "export with static image sizes"
    )


def read_transpose(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    order = [int(i) for i in node.attrs["perm"]]
    name = node.outputs[0].name
    return [reader.moved(name, Move(name, "Transpose", (source.name,), {"perm": order}), [source])]


def read_slice(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    starts, ends = constant_ints(node, 1, "starts"), constant_ints(node, 2, "ends")
    axes = constant_ints(node, 3, "axes")
    steps = constant_ints(node, 4, "steps", [1] * len(starts))
    return [_sliced(reader, node.outputs[0].name, source, (starts, ends, axes, steps))]


def read_split(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    axis = int(node.attrs["axis"]) % (len(source.shape) + 1)
    parts = len(node.outputs)
    total = source.shape[axis - 1]
    even = [-(-total // parts)] * (parts - 1)
    sizes = constant_ints(node, 1, "split", [*even, total - sum(even)])
    ends = np.cumsum(sizes).tolist()
    return [
        _sliced(reader, tensor.name, source, ([end - size], [end], [axis], [1]))
        for tensor, size, end in zip(node.outputs, sizes, ends, strict=True)
    ]


def _sliced(reader: Reader, name: str, source: Counts, where: tuple[list[int], ...]) -> Counts:
    constants = tuple(np.asarray(each, np.int64) for each in where)
    return reader.moved(name, Move(name, "Slice", (source.name,), {}, constants), [source])


def read_gather(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    if not is_constant(node.inputs[1]):
        raise NoIntegerForm("its indices are computed at run time")
    axis = int(node.attrs["axis"]) % (len(source.shape) + 1)
    name, indices = node.outputs[0].name, np.asarray(node.inputs[1].values, np.int64)
    move = Move(name, "Gather", (source.name,), {"axis": axis}, (indices,))
    return [reader.moved(name, move, [source])]


def read_pad(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    value = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    zero = value is None or (is_constant(value) and not np.any(value.values))
    axes = len(node.inputs) > 3 and not is_missing(node.inputs[3])
    pads = constant_ints(node, 1, "pads")
    if node.attrs.get("mode", "constant") != "constant" or not zero or axes or min(pads) < 0:
        raise NoIntegerForm("pads with something other than zeros all around")
    if np.any(source.offset):
        raise NoIntegerForm("pads activations whose lowest level is not zero")
    name = node.outputs[0].name
    move = Move(name, "Pad", (source.name,), {}, (np.asarray(pads, np.int64),))
    moved = reader.moved(name, move, [source])
    new_channels = pads[1] or pads[len(pads) // 2 + 1]
    if new_channels or by_channel(source.scale, source.shape) is None:
        return [moved]
    return [replace(moved, scale=source.scale)]  # a zero may be worth what its channel is


def read_blocks(reader: Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    attributes = {"blocksize": int(node.attrs["blocksize"])}
    if node.op == "DepthToSpace":
        attributes["mode"] = node.attrs.get("mode", "DCR")
    name = node.outputs[0].name
    return [reader.moved(name, Move(name, node.op, (source.name,), attributes), [source])]


def constant_ints(
    node: gs.Node, position: int, attribute: str, default: list[int] | None = None
) -> list[int]:
    if attribute in node.attrs:
        return [int(i) for i in np.ravel(node.attrs[attribute])]
    if len(node.inputs) > position and not is_missing(node.inputs[position]):
        if not is_constant(node.inputs[position]):
            raise NoIntegerForm(
                f"its {attribute} are computed at run time", "export them as constants"
            )
        return [int(i) for i in np.ravel(node.inputs[position].values)]
    if default is None:
        raise NoIntegerForm(f"it says nothing about its {attribute}")
    return default
