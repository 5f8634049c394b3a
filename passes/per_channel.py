"""Constant Sub, Div, Mul and Add per channel behind a linear layer, as one affine function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.graph import is_constant, is_standard, sole_consumer

from .linear_layers import Affine, Linear

_OPS = ("Add", "Sub", "Mul", "Div")
_LIMITING = ("Clip", "Min", "Max", "Relu")
_ROUNDING = ("Round", "Floor", "Ceil", "Cast")
_LONGEST = 64


@dataclass(frozen=True)
class Chain:
    nodes: tuple[gs.Node, ...]
    affine: Affine


@dataclass(frozen=True)
class _Step:
    node: gs.Node
    affine: Affine
    shifts: bool
    vector: bool


def affine_chain(graph: gs.Graph, linear: Linear, rank: int) -> Chain | None:
    """The nodes to fold into ``linear``, up to the last that shifts each channel; None if none.

    A lone scale is left alone, and so is all that leads to a rounding: it belongs to a quantiser.
    Numbers that are the same for all channels fold only between others that are not.
    """
    steps = _steps(graph, linear, rank)
    shifts = [k for k, step in enumerate(steps) if step.shifts and step.vector]
    if not shifts:
        return None
    kept = steps[: shifts[-1] + 1]
    if len(kept) == len(steps) and _leads_to_rounding(kept[-1].node):
        return None
    affine = kept[0].affine
    for step in kept[1:]:
        affine = affine.then(step.affine)
    return Chain(tuple(step.node for step in kept), affine)


def _steps(graph: gs.Graph, linear: Linear, rank: int) -> list[_Step]:
    steps: list[_Step] = []
    tensor = linear.output
    while len(steps) < _LONGEST:
        node = sole_consumer(graph, tensor)
        step = _step(node, tensor, linear.channels, rank) if node is not None else None
        if step is None:
            break
        if linear.node.op == "MatMul" and linear.add is None and not steps and step.shifts:
            break  # that is the MatMul's bias, and it stays one
        steps.append(step)
        tensor = step.node.outputs[0]
    return steps


def _step(node: gs.Node, x: gs.Tensor, channels: int, rank: int) -> _Step | None:
    if not is_standard(node, *_OPS):
        return None
    first = node.inputs[0] is x
    other = node.inputs[1 if first else 0]
    if not is_constant(other) or (node.op == "Div" and (not first or not other.values.all())):
        return None
    vector = _per_channel(other.values, channels, rank)
    if vector is None:
        return None
    ones, zeros = np.ones(channels), np.zeros(channels)
    affine = {
        "Add": lambda: Affine(ones, vector),
        "Sub": lambda: Affine(ones, -vector) if first else Affine(-ones, vector),
        "Mul": lambda: Affine(vector, zeros),
        "Div": lambda: Affine(1 / vector, zeros),
    }[node.op]()
    shifts = node.op in ("Add", "Sub")
    return _Step(node, affine, shifts, other.values.size == channels)


def _per_channel(
    values: NDArray[np.generic], channels: int, rank: int
) -> NDArray[np.float64] | None:
    """``values`` as a vector [C] if they broadcast per channel (axis 1 of ``rank`` axes)."""
    if values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if any(d != 1 for k, d in enumerate(shape) if k != 1) or shape[1] not in (1, channels):
        return None
    return np.zeros(channels) + np.asarray(values, np.float64).ravel()


def _leads_to_rounding(node: gs.Node) -> bool:
    waiting, seen = list(node.outputs[0].outputs), set()
    while waiting:
        current = waiting.pop()
        if is_standard(current, *_ROUNDING):
            return True
        if id(current) not in seen and is_standard(current, *_LIMITING):
            seen.add(id(current))
            waiting.extend(c for t in current.outputs for c in t.outputs)
    return False
