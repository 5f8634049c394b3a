"""Each node on the scale that `na_convert.unit_scale` chose, and how that gets into the graph.

`unit_spikes` writes the nodes as they are then, `snap` rounds their constants first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.exactness import Grids
from na_convert.regions import data_inputs
from na_convert.results import Neuron, SnappedLayer
from na_convert.snn import Snn, neuron_nodes, parameters
from na_convert.unit_scale import (
    ONE,
    NotExact,
    Scale,
    Scales,
    Shapes,
    bias_of,
    data_of,
    kind,
    per_axis,
    same,
)

from .rescale import Weights, rescaled, write
from .stem_parts import Stem

Array = NDArray[Any]


@dataclass
class OnGrid:
    """A node's constants, rescaled and then rounded; positions count its data inputs.

    Attributes:
        kind: as in `na_convert.unit_scale`.
        addends: constant terms of a sum.
        factors: of terms of a sum that come on another scale.
        rounds: exponents of the grids to which inputs are rounded that lie on none.
        unit: of a source, or a stem: the exponent of the grid its values are rounded to; None: they
            are not rounded.
        grids: exponents of the grids of weights and bias; None: on no grid.
        stem: the parts in which the weights are kept.
    """

    node: gs.Node
    kind: str
    weights: Weights | None = None
    addends: dict[int, Array] = field(default_factory=dict)
    factors: dict[int, Array] = field(default_factory=dict)
    rounds: dict[int, int] = field(default_factory=dict)
    threshold: Array = field(default_factory=lambda: np.ones(()))
    amplitude: Array = field(default_factory=lambda: np.ones(()))
    unit: int | None = None
    grids: tuple[int | None, int | None] = (0, 0)
    stem: Stem | None = None
    errors: list[SnappedLayer] = field(default_factory=list)


def rescaled_nodes(scales: Scales, shapes: Shapes) -> list[OnGrid]:
    """The nodes of ``scales`` with their constants on the scales of their outputs.

    Raises NotExact where a scale per channel does not fit.
    """
    return [_rescaled(node, scales, shapes) for node in scales.nodes]


def _rescaled(node: gs.Node, scales: Scales, shapes: Shapes) -> OnGrid:
    of, sums = scales.of, scales.sums
    output = node.outputs[0].name
    size = shapes.get(output)
    rank = None if size is None else len(size) + 1
    made = OnGrid(node, kind(node))
    if made.kind == "absorbing":
        made.weights = rescaled(node, of[data_of(node).name], of[output], rank)
    elif made.kind == "sum":
        for position, tensor in enumerate(data_inputs(node)):
            if g.is_constant(tensor):
                values = np.asarray(tensor.values, np.float64)
                made.addends[position] = values * _spread(node, sums[output], rank)
            elif not same(of[tensor.name], sums[output]):
                ratio = sums[output] / of[tensor.name]
                made.factors[position] = _spread(node, ratio, rank)
    elif made.kind == "neuron":
        found, axes = parameters(node), len(size or ())
        made.threshold = _neuron_value(found.threshold, of[node.inputs[0].name], axes)
        made.amplitude = np.round(_neuron_value(found.amplitude, of[output], axes))
    return made


def scaled_neurons(snn: Snn, graph: gs.Graph, scales: Scales) -> tuple[Neuron, ...]:
    """The layers of ``snn``, which tell the scales of their currents and outputs in ``graph``."""
    ends = {n.name: (n.inputs[0].name, n.outputs[0].name) for n in neuron_nodes(graph)}
    return tuple(
        replace(
            n,
            current_scale=_plain(scales.of[ends[n.name][0]] * np.asarray(n.current_scale)),
            output_scale=_plain(scales.of[ends[n.name][1]] * np.asarray(n.output_scale)),
        )
        for n in snn.neurons
    )


def _plain(scale: Array) -> float | list[float]:
    return float(scale) if scale.ndim == 0 else [float(v) for v in scale]


def _spread(node: gs.Node, scale: Scale, rank: int | None) -> Array:
    """``scale`` to multiply a tensor of ``rank`` with."""
    if scale.size > 1 and rank is None:
        raise NotExact(node, "its output has an unknown number of dimensions")
    return per_axis(scale, rank or 0)


def _neuron_value(value: Array, scale: Scale, axes: int) -> Array:
    """A parameter on the scale; 1 where only the rounding of the scale keeps it from 1.

    ``axes`` of a sample of the neurons.
    """
    values = np.asarray(value, np.float64) * per_axis(scale, axes, 0)
    return np.where(np.abs(values - 1) < 1e-9, 1.0, values)


def write_on_grid(graph: gs.Graph, plan: Sequence[OnGrid], scales: Scales, shapes: Shapes) -> Grids:
    """Change ``graph`` in place; what its file has to say of its grids."""
    writer = _Writer(graph, scales, shapes)
    # A source works on the analog value too: its input may have another reader, and its scale.
    inside = {id(each.node) for each in plan if each.kind != "source"}
    outside = [
        (each, tensor, list(tensor.outputs)) for each in plan for tensor in each.node.outputs
    ]
    for each in plan:
        writer.write(each)
    for each, tensor, readers in outside:
        if each.kind != "source":
            writer.unscale(tensor, [r for r in readers if id(r) not in inside])
    graph.cleanup().toposort()
    return Grids(writer.grids, frozenset(writer.rounds), frozenset(writer.fine))


class _Writer:
    def __init__(self, graph: gs.Graph, scales: Scales, shapes: Shapes) -> None:
        self._graph, self._scales, self._shapes = graph, scales, shapes
        self._names = g.Names(graph)
        self._rounded: dict[tuple[str, int], gs.Tensor] = {}
        self.grids: dict[str, int] = {}
        self.rounds: list[str] = []
        self.fine: list[str] = []

    def write(self, each: OnGrid) -> None:
        node = each.node
        for position, exponent in each.rounds.items():
            self._round_input(each, position, exponent)
        if each.stem is not None and each.unit is not None:
            self._write_stem(node, each.stem, each.unit)
        elif each.weights is not None:
            self._write_weights(node, each.weights, each.grids)
        elif each.kind == "neuron":
            self._write_neuron(each)
        elif each.kind == "source":
            self._round_source(each)
        elif g.is_ours(node, "MaxPoolCounts"):
            node.attrs = {**node.attrs, "unit": 1.0}
        for position, values in each.addends.items():
            old = node.inputs[position]
            self._set(node, position, self._constant(f"{old.name}_snapped", values, each.grids[0]))
        for position, factor in each.factors.items():
            if position not in each.rounds:
                scaled = self._scaled(node.inputs[position], factor, each.grids[0])
                self._set(node, position, scaled)

    def unscale(self, tensor: gs.Tensor, readers: Sequence[gs.Node]) -> None:
        """Give ``readers``, which work on the analog value, what they had."""
        scale = self._scales.of[tensor.name]
        if same(scale, ONE):
            return
        for reader in readers:
            if g.is_ours(reader, "Decode"):
                self._unscale_mean(reader, scale)
            elif not g.is_standard(reader, "Shape", "Size"):
                back = self._back(tensor, scale, f"{tensor.name}_analog")
                reader.inputs = [back if t is tensor else t for t in reader.inputs]
        if g.is_output(self._graph, tensor):
            name = tensor.name
            tensor.name = self._names.fresh(f"{name}_scaled")
            back = self._back(tensor, scale, name)
            back.name, back.dtype, back.shape = name, tensor.dtype, tensor.shape
            self._graph.outputs = [back if t is tensor else t for t in self._graph.outputs]

    def _unscale_mean(self, decode: gs.Node, scale: Scale) -> None:
        mean = decode.outputs[0]
        scaled = gs.Variable(self._names.fresh(f"{mean.name}_scaled"), mean.dtype)
        decode.outputs = [scaled]
        size = self._shapes.get(decode.inputs[0].name)
        back = 1 / self._spread(scale, decode, None if size is None else len(size) + 1)
        factor = g.constant(self._names.fresh(f"{mean.name}_scale"), back.astype(np.float32))
        name = self._names.fresh(f"{decode.name}_scale")
        self._graph.nodes.append(g.node("Mul", [scaled, factor], [mean], name))

    def _back(self, tensor: gs.Tensor, scale: Scale, base: str) -> gs.Variable:
        size = self._shapes.get(tensor.name)
        back = 1 / self._spread(scale, None, None if size is None else len(size) + 1)
        return self._node("Mul", tensor, back, base, None)

    def _spread(self, scale: Scale, node: gs.Node | None, rank: int | None) -> Array:
        if scale.size > 1 and rank is None:
            raise NotExact(node, "its input has an unknown number of dimensions")
        return per_axis(scale, rank or 0)

    def _write_weights(
        self, node: gs.Node, weights: Weights, grids: tuple[int | None, int | None]
    ) -> None:
        old = bias_of(node)
        bias = None
        if old is not None and weights.bias is not None:
            bias = self._constant(f"{old.name}_snapped", weights.bias, grids[1])
        position = next(i for i, t in enumerate(node.inputs) if g.is_constant(t))
        name = f"{node.inputs[position].name}_snapped"
        write(node, self._constant(name, weights.weight, grids[0]), bias)

    def _write_stem(self, node: gs.Node, stem: Stem, unit: int) -> None:
        """``node`` keeps the high part. The fine ones have negated weights and are subtracted: for
        an addition onnxruntime would start the convolution from the other term, off its grid."""
        at = next(i for i, t in enumerate(node.inputs) if t is data_of(node))
        given, result = node.inputs[at], node.outputs[0]
        base = g.label(node)
        high = self._round(given, np.ones(()), stem.input_high)
        rest = self._join("Sub", given, high, f"{given.name}_rest")
        low = self._round(rest, np.ones(()), stem.input_low)
        fine = [
            self._fine(node, at, high, -stem.low, stem.low_grid, f"{base}_fine_weights"),
            self._fine(node, at, low, -stem.high.weight, None, f"{base}_fine_input"),
        ]
        self._set(node, at, high)
        self._write_weights(node, stem.high, (None, stem.bias_grid))
        node.outputs = [gs.Variable(self._names.fresh(f"{result.name}_high"), result.dtype)]
        both = self._join("Add", fine[0], fine[1], f"{result.name}_fine")
        total = self._join("Sub", node.outputs[0], both, f"{result.name}_sum")
        rounded = self._round(total, np.ones(()), unit)
        rounded.inputs[0].outputs = [result]

    def _fine(
        self, node: gs.Node, at: int, given: gs.Tensor, weight: Array, grid: int | None, base: str
    ) -> gs.Tensor:
        """Another ``node`` without bias, on ``given``."""
        made = gs.Variable(self._names.fresh(f"{base}_out"), node.outputs[0].dtype)
        inputs = list(node.inputs)
        inputs[at] = given
        copy = g.node(node.op, inputs[:2], [made], self._names.fresh(base), dict(node.attrs))
        write(copy, self._constant(f"{base}_snapped", weight, grid), None)
        self._graph.nodes.append(copy)
        self.fine.append(copy.name)
        return made

    def _join(self, op: str, a: gs.Tensor, b: gs.Tensor, base: str) -> gs.Variable:
        made = gs.Variable(self._names.fresh(base), a.dtype)
        self._graph.nodes.append(g.node(op, [a, b], [made], self._names.fresh(f"{base}_{op}")))
        return made

    def _write_neuron(self, each: OnGrid) -> None:
        """One threshold where all are 1."""
        node = each.node
        initial = {"initial": float(node.attrs["initial"])}
        if np.ptp(each.threshold) == 0 and np.ptp(each.amplitude) == 0:
            node.op, node.inputs = "IF", [node.inputs[0]]
            threshold, amplitude = float(each.threshold.flat[0]), float(each.amplitude.flat[0])
            node.attrs = {"threshold": threshold, "amplitude": amplitude, **initial}
            return
        node.op, node.attrs = "IFPerChannel", dict(initial)
        shape = np.broadcast_shapes(each.threshold.shape, each.amplitude.shape)
        node.inputs = [
            node.inputs[0],
            *(
                g.constant(
                    self._names.fresh(f"{node.name}_{which}"),
                    np.broadcast_to(values, shape).astype(np.float32),
                )
                for which, values in (
                    ("threshold", each.threshold),
                    ("amplitude", each.amplitude),
                )
            ),
        ]

    def _round_source(self, each: OnGrid) -> None:
        """Readers inside get the values on their scale, rounded; others what they had."""
        raw = each.node.outputs[0]
        readers = [r for r in raw.outputs if r in [*self._scales.nodes]]
        scale = self._scales.of[raw.name]
        if each.unit is None:
            rounded: gs.Tensor = self._node("Mul", raw, scale, f"{raw.name}_levels", None)
        else:
            rounded = self._round(raw, scale, each.unit)
        for reader in readers:
            reader.inputs = [rounded if t is raw else t for t in reader.inputs]

    def _round_input(self, each: OnGrid, position: int, exponent: int) -> None:
        """An input of the network, or a tensor that is constant over time and on another scale."""
        node = each.node
        tensor = data_inputs(node)[position]
        at = next(i for i, t in enumerate(node.inputs) if t is tensor)
        factor = each.factors.get(position, np.ones(()))
        before = g.producer(tensor)
        if before is not None and g.is_ours(before, "Encode"):
            rounded = self._round(before.inputs[0], factor, exponent)
            self._set(node, at, self._encoded(rounded, f"{tensor.name}_rounded"))
        else:
            self._set(node, at, self._round(tensor, factor, exponent))

    def _scaled(self, tensor: gs.Tensor, factor: Array, grid: int | None) -> gs.Variable:
        """What is analog is scaled before it is spread over the time steps."""
        before = g.producer(tensor)
        if before is None or not g.is_ours(before, "Encode"):
            return self._node("Mul", tensor, factor, f"{tensor.name}_scaled", grid)
        analog = before.inputs[0]
        scaled = self._node("Mul", analog, factor, f"{analog.name}_scaled", grid)
        return self._encoded(scaled, f"{tensor.name}_scaled")

    def _encoded(self, analog: gs.Tensor, base: str) -> gs.Variable:
        encoded = gs.Variable(self._names.fresh(base), analog.dtype)
        label = self._names.fresh(f"Encode_{encoded.name}")
        self._graph.nodes.append(g.node("Encode", [analog], [encoded], label, {}, "na_convert"))
        return encoded

    def _round(self, tensor: gs.Tensor, factor: Array, exponent: int) -> gs.Tensor:
        """``factor`` times ``tensor``, rounded to the grid; one node for all who need it."""
        key = (tensor.name, exponent)
        if np.size(factor) == 1 and float(factor) == 1 and key in self._rounded:
            return self._rounded[key]
        units = self._node("Mul", tensor, factor * 2.0**-exponent, f"{tensor.name}_units", None)
        whole = gs.Variable(self._names.fresh(f"{tensor.name}_whole"), tensor.dtype)
        name = self._names.fresh(f"{tensor.name}_Round")
        self._graph.nodes.append(g.node("Round", [units], [whole], name))
        self.rounds.append(name)
        unit = np.asarray(2.0**exponent)
        rounded = self._node("Mul", whole, unit, f"{tensor.name}_rounded", None)
        if np.size(factor) == 1 and float(factor) == 1:
            self._rounded[key] = rounded
        return rounded

    def _node(
        self, op: str, tensor: gs.Tensor, values: Array, base: str, grid: int | None
    ) -> gs.Variable:
        made = gs.Variable(self._names.fresh(base), tensor.dtype)
        constant = self._constant(f"{base}_factor", np.asarray(values), grid)
        self._graph.nodes.append(
            g.node(op, [tensor, constant], [made], self._names.fresh(f"{base}_{op}"))
        )
        return made

    def _constant(self, base: str, values: Array, grid: int | None) -> gs.Constant:
        name = self._names.fresh(base)
        if grid is not None:
            self.grids[name] = grid
        return g.constant(name, values.astype(np.float32, copy=False))

    def _set(self, node: gs.Node, position: int, tensor: gs.Tensor) -> None:
        inputs = list(node.inputs)
        inputs[position] = tensor
        node.inputs = inputs
