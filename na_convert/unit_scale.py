"""Scales on which the neurons of a network have threshold 1 and spikes of 1: chosen, not applied.

A scale c says that a tensor is to hold ``c * x`` where it holds x: a number, or one per channel
[C], axis 1 of the tensor. Weights take up any change of scale (weight normalisation, Rueckauer et
al., Front. Neurosci. 2017); sums, pools and reshapes pass a scale on, so that all terms of a sum
need the same. `choose` walks back from the neurons to say which scale each tensor should have, then
forth to say which it gets. `passes.unit_spikes` and `passes.snap` carry it out.

=============  =====================================================================================
absorbing      Conv, ConvTranspose, Gemm, MatMul, Mul and Div by a constant: any scale out
sum            Add, Sub, Sum: the scale of all terms; a term that has another is rescaled
passing        pools, Concat, reshapes, ReLU, ...: the scale of the input
neuron         threshold = scale of the current * threshold; amplitude +-1 by choice of the scale
source         network inputs and what a quantiser of the input gives out
=============  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase, read_activation
from .graph import is_constant, is_ours, is_standard, label, producer
from .regions import MOVING, data_inputs
from .snn import neuron_nodes, parameters

Array: TypeAlias = NDArray[Any]
Scale: TypeAlias = NDArray[np.float64]

ABSORBING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Div")
SUMS = ("Add", "Sub", "Sum")
PASSING = (
    *MOVING, "AveragePool", "Concat", "Expand", "GlobalAveragePool", "MaxPool", "Neg", "Pad",
    "ReduceMean", "ReduceSum", "Relu", "Resize", "Upsample",
)  # fmt: skip
KEEPS_CHANNELS = ("AveragePool", "GlobalAveragePool", "Identity", "MaxPool", "Neg", "Pad", "Relu")
ONE: Scale = np.ones(())


class NotExact(Exception):
    """Why a network cannot be put on a grid."""

    def __init__(self, node: gs.Node | None, reason: str) -> None:
        super().__init__(f"{label(node)}: {reason}" if node is not None else reason)
        self.node = label(node) if node is not None else None
        self.reason = reason


@dataclass(frozen=True)
class Scales:
    """What `choose` decided.

    Attributes:
        nodes: those between the inputs and the last neurons that hold data, in order.
        of: the scale of each of their tensors, by name.
        sums: the scale that the terms of each sum need, by the name of the sum's output.
    """

    nodes: tuple[gs.Node, ...]
    of: Mapping[str, Scale]
    sums: Mapping[str, Scale]


Shapes: TypeAlias = Mapping[str, tuple[int | None, ...] | None]


def choose(
    graph: gs.Graph, levels: Mapping[str, int | None], shapes: Shapes, *, unit: bool = False
) -> Scales:
    """Scales for the tensors of ``graph``; ``levels`` (p) by neuron node, ``shapes`` without batch.

    ``unit``: spikes are worth 1 even where levels start below zero; else p there, so that the
    offset is a whole number without another factor. Raises NotExact for operators that pass no
    scale on.
    """
    nodes = tuple(data_nodes(graph))
    wanted = _wanted(nodes, shapes)
    of: dict[str, Scale] = {}
    sums: dict[str, Scale] = {}
    for node in nodes:
        for tensor in data_inputs(node):
            if producer(tensor) is None and not is_constant(tensor):
                of.setdefault(tensor.name, ONE)
        output = node.outputs[0].name
        if kind(node) == "neuron":
            given = _spike_scale(node, levels[node.name], shapes, unit=unit)
        elif kind(node) == "absorbing":
            given = wanted.get(output, ONE)
        elif kind(node) == "source":
            given = _source_scale(node)
        elif kind(node) == "sum":
            terms = [of[t.name] for t in data_inputs(node) if not is_constant(t)]
            default = np.abs(_offset_scale(node, terms[0], levels)) if unit else terms[0]
            given = sums[output] = wanted.get(output, default)
        else:
            given = _passed(node, of, shapes)
        for tensor in node.outputs:
            of[tensor.name] = given
    return Scales(nodes, of, sums)


def data_nodes(graph: gs.Graph) -> Iterable[gs.Node]:
    """The nodes that neurons get data from, and the neurons; those that compute sizes left out."""
    needed: set[int] = set()
    waiting = list(neuron_nodes(graph))
    while waiting:
        node = waiting.pop()
        if id(node) in needed:
            continue
        needed.add(id(node))
        waiting += [t.inputs[0] for t in data_inputs(node) if t.inputs]
    return (node for node in graph.nodes if id(node) in needed)


def kind(node: gs.Node) -> str:
    """Which row of the table ``node`` is; raises NotExact where it is none."""
    if is_ours(node, "IF", "IFPerChannel"):
        return "neuron"
    if is_ours(node, "Encode", "MaxPoolCounts"):
        return "passing"
    if is_ours(node, "Staircase", "Ramp"):
        return "source"
    if is_standard(node, *SUMS):
        return "sum"
    if is_standard(node, *PASSING):
        return "passing"
    if is_standard(node, *ABSORBING):
        first = data_inputs(node)[0]
        if not is_constant(first) and all(is_constant(t) for t in data_inputs(node)[1:]):
            return "absorbing"
        commutes = is_standard(node, "Mul") and is_constant(first)
        if commutes and not is_constant(node.inputs[1]):
            return "absorbing"
        raise NotExact(node, f"{node.op} with weights that are computed, or on its right side")
    raise NotExact(node, f"{node.op} passes no scale and no grid on")


def data_position(node: gs.Node) -> int:
    """Where an absorbing node has its data."""
    return 1 if is_standard(node, "Mul") and is_constant(node.inputs[0]) else 0


def bias_of(node: gs.Node) -> gs.Tensor | None:
    """The bias of an absorbing node."""
    if is_standard(node, "Mul", "Div", "MatMul") or len(node.inputs) < 3:
        return None
    return None if node.inputs[2].is_empty() else node.inputs[2]


def weight_position(node: gs.Node) -> int:
    return 1 - data_position(node)


def data_of(node: gs.Node) -> gs.Tensor:
    """The one input of an absorbing node that is no constant."""
    return data_inputs(node)[data_position(node)]


def per_axis(scale: Scale, rank: int, axis: int = 1) -> Array:
    """``scale`` so that it broadcasts against a tensor of ``rank``, along ``axis``."""
    if scale.size == 1:
        return scale.reshape(())
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])


def pad_value(node: gs.Node) -> float:
    """What a Pad puts around its input; not a number where it is computed."""
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        values = node.inputs[2]
        return float(np.ravel(values.values)[0]) if is_constant(values) else np.nan
    return float(node.attrs.get("value", 0.0))


def same(a: Scale, b: Scale) -> bool:
    return bool(np.all(a == b))


# --- from the neurons back ------------------------------------------------------------------------


def _wanted(nodes: Sequence[gs.Node], shapes: Shapes) -> dict[str, Scale]:
    """By tensor: the scale that its readers ask for. Sums of spikes come before neurons, which can
    have another threshold instead; where all is constant over time the neurons come first."""
    by_neuron: dict[str, Scale] = {}
    by_sum: dict[str, Scale] = {}
    for node in reversed(nodes):
        if kind(node) == "neuron":
            threshold = _channels(node, parameters(node).threshold, shapes)
            by_neuron.setdefault(node.inputs[0].name, 1 / threshold)
        elif kind(node) in ("sum", "passing"):
            output = node.outputs[0].name
            for tensor in data_inputs(node):
                if is_ours(node, "Encode"):
                    _prefer_neuron(tensor.name, output, by_neuron, by_sum)
                elif output in by_sum or output in by_neuron:
                    asked = by_sum.get(output, by_neuron.get(output, ONE))
                    if _can_pass_back(node, asked):
                        by_sum.setdefault(tensor.name, asked)
    return {**by_neuron, **by_sum}


def _prefer_neuron(
    constant: str, encoded: str, by_neuron: dict[str, Scale], by_sum: dict[str, Scale]
) -> None:
    if encoded in by_neuron:
        by_sum[constant] = by_neuron[encoded]
    elif encoded in by_sum:
        by_sum.setdefault(constant, by_sum[encoded])


def _can_pass_back(node: gs.Node, scale: Scale) -> bool:
    return scale.size == 1 or is_ours(node) or is_standard(node, *KEEPS_CHANNELS, *SUMS)


# --- and forth ------------------------------------------------------------------------------------


def _spike_scale(node: gs.Node, levels: int | None, shapes: Shapes, *, unit: bool) -> Scale:
    """Spikes of 1, or of p where an offset follows: the lowest level is then a whole number.

    ``unit``: of 1 in any case; a spike that is worth less than nothing turns its tensor round.
    """
    amplitude = _channels(node, parameters(node).amplitude, shapes)
    if unit:
        return 1 / amplitude
    amplitude = np.abs(amplitude)
    shifted = any(
        is_standard(r, "Add") and any(is_constant(t) for t in r.inputs)
        for r in node.outputs[0].outputs
    )
    return (levels or 1) / amplitude if shifted else 1 / amplitude


def _offset_scale(node: gs.Node, given: Scale, levels: Mapping[str, int | None]) -> Scale:
    """Of the sum of one layer's spikes and an offset: in levels, which are whole numbers."""
    before = [producer(t) for t in data_inputs(node) if not is_constant(t)]
    if len(before) == 1 and before[0] is not None and kind(before[0]) == "neuron":
        return given * (levels[before[0].name] or 1)
    return given


def _source_scale(node: gs.Node) -> Scale:
    """In output steps: levels are whole numbers then."""
    function = read_activation(node)
    if isinstance(function, Staircase) and function.output_step.size == 1:
        return 1 / np.abs(function.output_step.reshape(()))
    return ONE


def _passed(node: gs.Node, of: Mapping[str, Scale], shapes: Shapes) -> Scale:
    terms = [t for t in data_inputs(node) if not is_constant(t)]
    if len(terms) < len(data_inputs(node)):
        raise NotExact(node, f"{node.op} with a constant")
    first = of[terms[0].name]
    if is_standard(node, "Pad") and pad_value(node) != 0 and not same(first, ONE):
        raise NotExact(node, "pads with another value than 0")
    if not all(same(of[t.name], first) for t in terms):
        return _concatenated(node, terms, of, shapes)
    if first.size > 1 and not (is_ours(node) or is_standard(node, *KEEPS_CHANNELS)):
        if is_standard(node, "Concat"):
            return _concatenated(node, terms, of, shapes)
        raise NotExact(node, f"{node.op} of a tensor with a threshold per channel")
    return first


def _concatenated(
    node: gs.Node, terms: Sequence[gs.Tensor], of: Mapping[str, Scale], shapes: Shapes
) -> Scale:
    """One scale per channel of a Concat along the channels."""
    if int(node.attrs.get("axis", 0)) != 1 or len(terms) < len(node.inputs):
        raise NotExact(node, f"{node.op} of tensors on different scales")
    parts = []
    for tensor in terms:
        size = shapes.get(tensor.name)
        if not size or size[0] is None:
            raise NotExact(node, f"the number of channels of {tensor.name!r} is not known")
        parts.append(np.broadcast_to(of[tensor.name], (size[0],)))
    return np.concatenate(parts)


def _channels(node: gs.Node, values: Array, shapes: Shapes) -> Scale:
    """A parameter of neurons as a number, or one per channel (axis 0 of a sample)."""
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return values.reshape(())
    sample = shapes[node.outputs[0].name] or ()
    if values.ndim != len(sample) or values.shape[0] != values.size:
        raise NotExact(node, "a threshold along another axis than the channels")
    return values.ravel()
