"""Quantisers whose scale comes from the values of the batch at hand: refused, each once.

Requires integer operators taken apart (`dequantise`). Does not change the graph.

* ``DynamicQuantizeLinear``, as onnxruntime's ``quantize_dynamic`` writes: with whatever carries its
  scale, up to where that meets the values
* ``DynamicQuantizeMatMul`` and ``DynamicQuantizeLSTM`` (com.microsoft), onnxruntime's fusions of it
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from na_convert.graph import is_standard, label
from na_convert.regions import descendants
from na_convert.results import Refusal

from .single_node import MICROSOFT

DYNAMIC_OPS = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")

REASON = (
    "takes its scale from the smallest and the largest value of the whole batch: results of a "
    "sample depend on the others, and no threshold fits"
)
REMEDY = (
    "convert the model from before quantize_dynamic, which has the same activations, or quantise "
    "with stored scales (quantize_static)"
)


def dynamic_scales(graph: gs.Graph) -> tuple[Refusal, ...]:
    """One for each such quantiser; `Refusal.nodes` are those that only scale by it."""
    return tuple(
        Refusal(label(node), node.op, REASON, REMEDY, _scaled_by(graph, node))
        for node in graph.nodes
        if is_standard(node, DYNAMIC_OPS[0])
        or (node.domain == MICROSOFT and node.op in DYNAMIC_OPS[1:])
    )


def _scaled_by(graph: gs.Graph, node: gs.Node) -> tuple[str, ...]:
    """``node``, and what its scale and zero point go through until they meet the values."""
    if node.op != DYNAMIC_OPS[0]:
        return (label(node),)
    values = descendants(graph, node.outputs[0].outputs) | {id(n) for n in node.outputs[0].outputs}
    found, pending = {id(node): node}, [n for t in node.outputs[1:] for n in t.outputs]
    while pending:
        reader = pending.pop()
        if id(reader) not in found:
            found[id(reader)] = reader
            if id(reader) not in values:
                pending += [n for t in reader.outputs for n in t.outputs]
    return tuple(label(n) for n in graph.nodes if id(n) in found)
