"""Gather along the axis that is meant (``x[:, places]`` is exported in a roundabout way).

Cases, each with its test:

* ``GatherND`` of constant indices into one axis: ``Gather`` along the first axis
* ``Gather`` of constant places behind a ``Transpose`` that brought another axis than the batch to
  the front: along that axis itself, in front of the ``Transpose``
* a ``Transpose`` with other readers, or whose result is a graph output: left alone
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_standard, label, producer, sole_consumer

from .node_builder import Builder


def plain_gathers(graph: gs.Graph) -> int:
    """Returns how many nodes changed."""
    builder = Builder(graph)
    changed = 0
    for node in list(graph.nodes):
        changed += _gather_along_one(builder, node)
        changed += _gather_first(graph, builder, node)
    if changed:
        graph.cleanup().toposort()
    return changed


def _gather_along_one(b: Builder, node: gs.Node) -> bool:
    if not is_standard(node, "GatherND") or int(node.attrs.get("batch_dims", 0)):
        return False
    indices = node.inputs[1]
    if not is_constant(indices) or indices.values.ndim < 1 or indices.values.shape[-1] != 1:
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
