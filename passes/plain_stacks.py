"""Sums of stacked tensors as sums (``torch.stack(parts).sum(0)``).

A stack along a new first axis puts it where time steps and samples are folded together; what is
then summed over that axis needs no such axis at all. Cases, each with its test:

* ``ReduceSum``, ``ReduceMean``, ``ReduceMax`` or ``ReduceMin`` over the first axis alone, not kept,
  of a ``Concat`` along it of tensors that were each unsqueezed there: ``Sum``, ``Mean``, ``Max`` or
  ``Min`` of those
* over other axes as well, or kept, or of a tensor that had the axis before: left alone
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_standard, producer

JOINED = {"ReduceSum": "Sum", "ReduceMean": "Mean", "ReduceMax": "Max", "ReduceMin": "Min"}


def plain_stacks(graph: gs.Graph) -> int:
    """Returns how many nodes changed."""
    changed = 0
    for node in graph.nodes:
        parts = _stacked(node)
        if parts:
            node.op, node.attrs, node.inputs = JOINED[node.op], {}, parts
            changed += 1
    if changed:
        graph.cleanup().toposort()
    return changed


def _stacked(node: gs.Node) -> list[gs.Tensor]:
    """The tensors whose stack along a first axis ``node`` reduces to one; none if it does not."""
    if not is_standard(node, *JOINED) or _axes(node) != [0] or int(node.attrs.get("keepdims", 1)):
        return []
    stack = producer(node.inputs[0])
    if stack is None or not is_standard(stack, "Concat") or int(stack.attrs["axis"]) != 0:
        return []
    before = [producer(tensor) for tensor in stack.inputs]
    if any(b is None or not is_standard(b, "Unsqueeze") or _axes(b) != [0] for b in before):
        return []
    return [b.inputs[0] for b in before if b is not None]


def _axes(node: gs.Node) -> list[int]:
    """The axes that the second input names; empty where none are known."""
    known = len(node.inputs) > 1 and is_constant(node.inputs[1])
    return [int(k) for k in node.inputs[1].values.ravel()] if known else []
