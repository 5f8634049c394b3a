"""Gather along the axis that is meant (``x[:, places]`` is exported in a roundabout way).

Cases, each with its test:

* ``GatherND`` of constant indices into one axis: ``Gather`` along the first axis
* ``GatherND`` of constant indices into the last two axes, between the ``Transpose`` that brought
  them to the front and the one that takes them back: a ``Gather`` along each and a ``Reshape``,
  where the first dimensions of the indices choose the rows and the others the columns
  (``x[..., rows, columns]``, as uneven adaptive pooling is exported)
* ``Gather`` of constant places behind a ``Transpose`` that brought another axis than the batch to
  the front: along that axis itself, in front of the ``Transpose``
* a ``Transpose`` with other readers, or whose result is a graph output: left alone
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.graph import is_constant, is_standard, label, producer, sole_consumer

from .node_builder import Builder

Indices = NDArray[Any]


def plain_gathers(graph: gs.Graph) -> int:
    """Returns how many nodes changed."""
    builder = Builder(graph)
    changed = 0
    for node in list(graph.nodes):
        changed += _gather_along_two(graph, builder, node)
        changed += _gather_along_one(builder, node)
        changed += _gather_first(graph, builder, node)
    if changed:
        graph.cleanup().toposort()
    return changed


def _gather_along_two(graph: gs.Graph, b: Builder, node: gs.Node) -> bool:
    if not is_standard(node, "GatherND") or int(node.attrs.get("batch_dims", 0)):
        return False
    if not is_constant(node.inputs[1]) or node.inputs[1].values.shape[-1] != 2:
        return False
    before, after = producer(node.inputs[0]), sole_consumer(graph, node.outputs[0])
    if before is None or after is None or not _is_only_reader(graph, before, node):
        return False
    places = node.inputs[1].values
    shape, order = places.shape[:-1], _order(before)
    kept, new = range(len(order) - 2), range(len(shape))
    if order != [len(kept), len(kept) + 1, *kept]:
        return False
    chosen = _rows_and_columns(places)
    if chosen is None or _order(after) != [*(len(new) + k for k in kept), *new]:
        return False
    x, name, dtype = before.inputs[0], label(node), node.outputs[0].dtype
    output = b.take_output(after)
    for axis, along in enumerate(chosen, start=len(kept)):
        indices = b.constant(f"{name}_places", along)
        x = b.emit("Gather", [x, indices], f"{name}_along_{axis}", {"axis": axis}, dtype)
    target = b.constant(f"{name}_shape", np.array([0 for _ in kept] + [*shape], np.int64))
    b.emit_into("Reshape", [x, target], output)
    return True


def _gather_along_one(b: Builder, node: gs.Node) -> bool:
    if not is_standard(node, "GatherND") or int(node.attrs.get("batch_dims", 0)):
        return False
    indices = node.inputs[1]
    if not is_constant(indices) or indices.values.shape[-1] != 1:
        return False
    if is_constant(node.inputs[0]):
        return False
    node.op, node.attrs = "Gather", {"axis": 0}
    node.inputs = [
        node.inputs[0], b.constant(f"{label(node)}_places", indices.values[..., 0])
    ]  # fmt: skip
    return True


def _gather_first(graph: gs.Graph, b: Builder, node: gs.Node) -> bool:
    if not is_standard(node, "Gather") or not is_constant(node.inputs[1]):
        return False
    before = producer(node.inputs[0])
    if before is None or not _is_only_reader(graph, before, node):
        return False
    order = _order(before)
    if not order or order[0] == 0 or node.inputs[1].values.ndim != 1:
        return False
    axis = order[int(node.attrs.get("axis", 0)) % len(order)]
    if axis == 0:
        return False
    x, places, name = before.inputs[0], node.inputs[1], label(node)
    output = b.take_output(node)
    gathered = b.emit("Gather", [x, places], f"{name}_first", {"axis": axis}, output.dtype)
    b.emit_into("Transpose", [gathered], output, {"perm": order})
    return True


def _is_only_reader(graph: gs.Graph, before: gs.Node, node: gs.Node) -> bool:
    return sole_consumer(graph, before.outputs[0]) is node


def _order(node: gs.Node) -> list[int]:
    """How ``node`` permutes its axes; empty if it is no Transpose that says so."""
    return [int(k) for k in node.attrs.get("perm") or []] if is_standard(node, "Transpose") else []


def _rows_and_columns(places: Indices) -> tuple[Indices, Indices] | None:
    """Indices [..., 2] as those of rows, from the first dimensions alone, and of columns."""
    row, column = places[..., 0], places[..., 1]
    for end in range(row.ndim + 1):
        rows = row.reshape(*row.shape[:end], -1)[..., :1]
        columns = column.reshape(-1, *row.shape[end:])[:1]
        along_rows = rows.reshape(*row.shape[:end], *[1] * (row.ndim - end))
        if np.all(row == along_rows) and np.all(column == columns[0]):
            return rows.ravel(), columns.ravel()
    return None
