"""FINN's ``MultiThreshold`` in standard operators: the comparisons, counted, scaled and shifted.

Cases, each with its test:

* one row of thresholds for all channels, or one for each; images with channels first or last,
  tensors without height and width
* thresholds that are computed, or that belong to channels of an input of unknown rank: left for
  `to_spiking` to refuse

Source: QONNX operator definitions, ``qonnx.custom_op.general/MultiThreshold``.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx.helper import np_dtype_to_tensor_dtype

from na_convert import qonnx
from na_convert.graph import is_constant

from .node_builder import Builder
from .walk_shapes import ranks


def plain_thresholds(graph: gs.Graph) -> int:
    """Returns how many nodes were written out."""
    found = [n for n in graph.nodes if n.domain in qonnx.DOMAINS and n.op == "MultiThreshold"]
    if not found:
        return 0
    rank_of, builder, changed = ranks(graph), Builder(graph), 0
    for node in found:
        thresholds = node.inputs[1]
        rank = rank_of.get(node.inputs[0].name)
        if is_constant(thresholds) and (len(thresholds.values) == 1 or rank is not None):
            _write_out(builder, node, qonnx.beside(thresholds.values, rank, node.attrs))
            changed += 1
    graph.cleanup().toposort()
    return changed


def _write_out(b: Builder, node: gs.Node, thresholds: np.ndarray) -> None:
    name, dtype = b.base(node), thresholds.dtype
    last = b.constant(f"{name}_last", np.asarray([-1], np.int64))
    scale, bias = (
        b.constant(f"{name}_{part}", np.asarray(value, dtype))
        for part, value in zip(("scale", "bias"), qonnx.output_scale(node.attrs), strict=True)
    )
    x = b.emit("Unsqueeze", [node.inputs[0], last], f"{name}_beside", dtype=dtype)
    steps = b.constant(f"{name}_thresholds", thresholds)
    reached = b.emit("GreaterOrEqual", [x, steps], f"{name}_reached", dtype=np.dtype(bool))
    ones = b.emit("Cast", [reached], f"{name}_ones", {"to": np_dtype_to_tensor_dtype(dtype)}, dtype)
    count = b.emit("ReduceSum", [ones, last], f"{name}_count", {"keepdims": 0}, dtype)
    scaled = b.emit("Mul", [count, scale], f"{name}_scaled", dtype=dtype)
    b.emit_into("Add", [scaled, bias], b.take_output(node))
    b.remove(node)
