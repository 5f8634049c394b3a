"""Outputs of a Sigmoid: which they are, and what floats are off by that is no share of the value.

onnxruntime's Sigmoid is right to some units in the last place of 1: where all it gives is close to
0 (a detector, on a picture of nothing), that is as much as the values themselves, and no relative
limit holds.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs

from .graph import is_ours, is_standard, producer
from .regions import MOVING, data_inputs

_UNITS = 4  # measured: 1.4 on each side of a comparison


def saturation_error(tensor: gs.Tensor) -> float:
    """What onnxruntime may be off by in ``tensor``, however small its values; 0 if not at all."""
    if not saturating_nodes(tensor):
        return 0.0
    kind = np.dtype(tensor.dtype) if tensor.dtype is not None else np.dtype(np.float32)
    return _UNITS * float(np.finfo(kind).eps)


def is_probability(graph: gs.Graph) -> bool:
    """Whether the first output of ``graph`` holds what Sigmoids gave, quantised or not."""
    rounding = ("Cast", "QuantizeLinear", "DequantizeLinear", "Staircase", "Ramp")
    return bool(saturating_nodes(graph.outputs[0], rounding))


def saturating_nodes(tensor: gs.Tensor, through: Collection[str] = ()) -> list[gs.Node]:
    """The Sigmoids whose values, moved about, are all ``tensor`` holds; [] if it holds more.

    The operators ``through`` count as moving.
    """
    pending, seen, found = [tensor], set(), []
    while pending:
        node = producer(pending.pop())
        known = (*MOVING, "Concat", "Sigmoid", *through)
        if node is None or not (is_standard(node, *known) or is_ours(node, *through)):
            return []
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "Sigmoid":
            found.append(node)
        else:
            pending.extend(data_inputs(node)[:1] if node.op in through else data_inputs(node))
    return found
