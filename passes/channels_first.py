"""Operators of onnxruntime on channels-last tensors become the same on channels-first ones.

onnxruntime writes them where it optimises with ORT_ENABLE_ALL. A Transpose comes in front and one
behind; most cancel (`drop_noops`). Weights are channels-first in either.

* ``QLinearConv``, ``QLinearAveragePool``, ``QLinearGlobalAveragePool`` (com.microsoft) with
  ``channels_last``
* ``NhwcMaxPool`` (com.microsoft)
* ``QLinearAdd``, ``QLinearMul`` (com.microsoft) of what these give: the Transposes go behind them
* where the number of axes is not known: left
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from na_convert.graph import is_standard, producer
from na_convert.tensor_types import TensorType, tensor_types

from .node_builder import Builder
from .single_node import MICROSOFT

_JOINING = ("QLinearAdd", "QLinearMul")
_TERMS = (0, 3)  # their data
_MARKED = ("QLinearConv", "QLinearAveragePool", "QLinearGlobalAveragePool")


def channels_first(graph: gs.Graph) -> int:
    """Returns how many operators were changed."""
    last = [node for node in graph.nodes if _is_channels_last(node)]
    if not last:
        return 0
    types, builder, changed = tensor_types(graph), Builder(graph), 0
    for node in last:
        rank = _rank(node, types)
        if rank:
            _turn(builder, node, rank)
            changed += 1
    graph.toposort()
    for node in [n for n in graph.nodes if n.domain == MICROSOFT and n.op in _JOINING]:
        _join(builder, node)
    graph.toposort()
    return changed


def _is_channels_last(node: gs.Node) -> bool:
    if node.domain != MICROSOFT:
        return False
    return node.op == "NhwcMaxPool" or (
        node.op in _MARKED and bool(node.attrs.get("channels_last"))
    )


def _rank(node: gs.Node, types: dict[str, TensorType]) -> int:
    """The number of axes of the node's data; 0 where it is not known."""
    if "kernel_shape" in node.attrs:
        return 2 + len(node.attrs["kernel_shape"])
    shape = types.get(node.inputs[0].name, TensorType()).shape
    return 0 if shape is None else len(shape)


def _turn(b: Builder, node: gs.Node, rank: int) -> None:
    base = b.base(node)
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    data = b.emit("Transpose", [node.inputs[0]], f"{base}_channels_first", {"perm": first})
    node.inputs = [data, *node.inputs[1:]]
    node.attrs.pop("channels_last", None)
    if node.op == "NhwcMaxPool":
        node.op, node.domain = "MaxPool", None
    output = b.take_output(node)
    turned = b.variable(f"{base}_turned", output.dtype)
    node.outputs = [turned]
    b.emit_into("Transpose", [turned], output, {"perm": last})


def _join(b: Builder, node: gs.Node) -> None:
    """Let ``node`` work in front of the Transposes that all its terms come from, if they do."""
    before = [producer(node.inputs[position]) for position in _TERMS]
    turned = [t for t in before if t is not None and is_standard(t, "Transpose")]
    orders = {tuple(t.attrs.get("perm", ())) for t in turned}
    if len(turned) < len(_TERMS) or len(orders) != 1:
        return
    for position, transpose in zip(_TERMS, turned, strict=True):
        node.inputs[position] = transpose.inputs[0]
    output = b.take_output(node)
    joined = b.variable(f"{b.base(node)}_turned", output.dtype)
    node.outputs = [joined]
    b.emit_into("Transpose", [joined], output, {"perm": list(orders.pop())})
