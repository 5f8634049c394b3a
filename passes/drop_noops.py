"""Nodes that pass their input on unchanged are dropped.

Cases, each with its test:

* ``Identity``; ``Dropout`` in inference; ``Cast`` to the type the tensor already has
* ``Concat``, ``Sum``, ``Max``, ``Min``, ``Mean`` of one tensor; ``Transpose`` that keeps the order
* ``Transpose`` after ``Transpose``: merged, or both dropped where they cancel
* ``Squeeze`` of the axes that a ReduceSum (Max, Mean, Min) before it has kept: it drops them itself
* a node whose output is a graph output: the tensor before it takes the output's name, unless it is
  a graph input, a graph output or a constant itself
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike

from na_convert.axes import axes_argument
from na_convert.graph import (
    all_nodes,
    is_constant,
    is_missing,
    is_output,
    is_standard,
    producer,
    rename,
    sole_consumer,
)

_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
_SINGLE = ("Concat", "Sum", "Max", "Min", "Mean")


def drop_noops(graph: gs.Graph) -> int:
    """Returns how many nodes went."""
    changed = 0
    for node in list(graph.nodes):
        changed += _merge_transposes(graph, node) + _merge_squeeze(graph, node)
        if _is_noop(node) and bypass(graph, node):
            changed += 1
    graph.cleanup().toposort()
    return changed


def bypass(graph: gs.Graph, node: gs.Node) -> bool:
    """Let consumers of ``node`` read its first input instead; False where it must stay."""
    before, after = node.inputs[0], node.outputs[0]
    if not is_output(graph, after):
        rename(graph, after, before)
        node.outputs.clear()
        return True
    source = producer(before)
    if source is None or is_output(graph, before) or _captured(graph, before):
        return False
    node.outputs.clear()
    node.inputs.clear()
    source.outputs = [after if t is before else t for t in source.outputs]
    for consumer in list(before.outputs):
        consumer.inputs = [after if t is before else t for t in consumer.inputs]
    return True


def _captured(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    """Whether ``tensor`` is computed or read inside a subgraph."""
    own = {id(n) for n in graph.nodes}
    inner = [n for n in all_nodes(graph) if id(n) not in own]
    return any(tensor is t for n in inner for t in [*n.inputs, *n.outputs])


def _is_noop(node: gs.Node) -> bool:
    if not node.outputs or not node.inputs or is_constant(node.inputs[0]):
        return False
    if is_standard(node, "Identity"):
        return True
    if is_standard(node, "Dropout"):
        masked = len(node.outputs) > 1 and bool(node.outputs[1].outputs)
        training = len(node.inputs) > 2 and not is_missing(node.inputs[2])
        return not masked and not (training and bool(np.any(node.inputs[2].values)))
    if is_standard(node, "Cast"):
        return _same_type(node.inputs[0].dtype, int(node.attrs["to"]))
    if is_standard(node, *_SINGLE):
        return len(node.inputs) == 1
    if is_standard(node, "Transpose"):
        order = node.attrs.get("perm")
        return bool(order) and list(order) == sorted(order)
    return False


def _same_type(dtype: DTypeLike | int | None, to: int) -> bool:
    """Whether ``dtype`` (numpy's type, or ONNX's number for it) is the ONNX type ``to``."""
    if dtype is None or isinstance(dtype, int):
        return dtype == to
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))) == to


def _merge_transposes(graph: gs.Graph, node: gs.Node) -> int:
    if not is_standard(node, "Transpose") or not node.outputs:
        return 0
    before = producer(node.inputs[0])
    if before is None or not is_standard(before, "Transpose"):
        return 0
    if sole_consumer(graph, before.outputs[0]) is None:
        return 0  # the first one stays anyway
    first, second = before.attrs.get("perm"), node.attrs.get("perm")
    if not first or not second:
        return 0
    node.attrs["perm"] = [first[i] for i in second]
    node.inputs = [before.inputs[0]]
    return 1


def _merge_squeeze(graph: gs.Graph, node: gs.Node) -> int:
    if not is_standard(node, "Squeeze") or not node.outputs:
        return 0
    before = producer(node.inputs[0])
    if before is None or not is_standard(before, *_REDUCTIONS):
        return 0
    kept, squeezed = axes_argument(before), axes_argument(node)
    if not kept or not squeezed or sorted(kept) != sorted(squeezed):
        return 0
    keeps = bool(int(before.attrs.get("keepdims", 1)))
    if not keeps or sole_consumer(graph, before.outputs[0]) is None or not bypass(graph, node):
        return 0
    before.attrs["keepdims"] = 0
    return 1
