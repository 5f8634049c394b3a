"""Put a spiking network on grids of powers of two, so that every engine computes the same counts.

Float sums depend on their order, and one count that differs multiplies from layer to layer. A sum
of multiples of one power of two below 2^24 of it is exact in float32, in any order. So the network
is rescaled first (thresholds 1, spikes of 1: `na_convert.unit_scale`), then each layer's weights
are rounded to the finest grid on which no sum can reach 2^24 units: not of its inputs, not of the
membrane in `timesteps` steps (`na_convert.worst_case`). Under a constant current the membrane need
not be exact: from the threshold on the neuron fires at every step, below 0 at none.

Cases:

* weights and biases of Conv, ConvTranspose, Gemm, MatMul; constants of Mul, Div and Add;
* neurons: threshold 1, spikes of 1, or of p where levels start below zero (the offset is whole);
* neurons on a sum that others share: one gets threshold 1, the others a threshold on the grid;
* a term of a sum that has another scale (identity shortcuts): a Mul by a constant on the grid;
* weights on the network's input, or on its input times and plus constants: in three parts, each of
  them exact (`passes.stem_parts`);
* the network's input elsewhere: rounded to 2^-11 of its bound; a quantised input to its own levels;
* analog tensors that join sums: rounded once, before they are repeated over time;
* the readout gets what it got, by a Mul behind Decode;
* constants that place the edges between levels: rounded so that a value on one falls to the side
  that the ANN takes (`passes.edges`);
* anything else, or a grid so coarse that a layer's weights change by more than 1 %: the network
  stays as it was, and the reason is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert import worst_case
from na_convert.activation import Staircase, read_activation
from na_convert.exactness import with_exactness
from na_convert.layers import THRESHOLD_ROUNDING
from na_convert.regions import data_inputs
from na_convert.results import Exactness, SnappedLayer
from na_convert.shapes import of_one_step
from na_convert.snn import Snn, float_type, neuron_nodes
from na_convert.unit_scale import (
    NotExact,
    Scales,
    Shapes,
    choose,
    data_of,
    kind,
)
from na_convert.worst_case import Bound

from .edges import EITHER, edge_terms, on_side
from .on_grid import OnGrid, rescaled_nodes, scaled_neurons, write_on_grid
from .rescale import Weights
from .stem_parts import GROWTH, INPUT_BITS, MANTISSA, divided, nearest

Array = NDArray[Any]

WEIGHT_ERROR_LIMIT = 1e-2  # root mean square, of a layer's weights; int8 weights have about this
LINEAR_BITS = 12  # of values that more weights follow before the next neuron
OFFSET_GRID = -8  # of lowest levels that are no multiple of a half


def run(snn: Snn, bounds: Mapping[str, float], timesteps: int) -> tuple[Snn, Exactness]:
    """``snn`` on grids, for inputs of at most ``bounds`` (by name) and up to ``timesteps`` steps.

    Where grids cannot be, the same ``snn``, and the reason.
    """
    try:
        return _snapped(snn, bounds, timesteps)
    except NotExact as found:
        return snn, Exactness(False, timesteps, reason=str(found))


@dataclass(frozen=True)
class _Network:
    """What each step below needs to know."""

    scales: Scales
    shapes: Shapes
    bounds: Mapping[str, float]
    timesteps: int
    constant: frozenset[str]  # neuron nodes whose current is the same at every step
    free: frozenset[str]  # analog tensors on no grid, which every engine computes alike
    edges: Mapping[str, int]  # on which side edges are to be, by the node that moves them


def _snapped(snn: Snn, bounds: Mapping[str, float], timesteps: int) -> tuple[Snn, Exactness]:
    graph = snn.graph.copy()
    if any(float_type(node) != np.float32 for node in neuron_nodes(graph)):
        raise NotExact(None, "the network does not compute in float32")
    edges = edge_terms(graph, snn.neurons)
    shapes = of_one_step(replace(snn, graph=graph))
    scales = choose(graph, {n.name: n.levels for n in snn.neurons}, shapes)
    constant = frozenset(n.name for n in snn.neurons if n.constant_input)
    free = _free(scales, bounds)
    network = _Network(scales, shapes, bounds, timesteps, constant, free, edges)
    plan = rescaled_nodes(scales, shapes)
    targets = _targets(plan, network)
    units = _round(plan, targets, network)
    _prove(plan, units, network)
    layers = tuple(layer for each in plan for layer in each.errors)
    for layer in layers:
        if layer.weight_error > WEIGHT_ERROR_LIMIT:
            raise NotExact(
                None,
                f"{layer.name}: sums below 2^{MANTISSA} units leave a grid of 2^{layer.grid}, "
                f"which changes its weights by {layer.weight_error:.1%}",
            )
    neurons = scaled_neurons(snn, graph, scales)
    grids = write_on_grid(graph, plan, scales, shapes)
    exactness = Exactness(True, timesteps, bounds=dict(bounds), layers=layers)
    made = replace(snn, graph=graph, neurons=neurons)
    return with_exactness(made, exactness, grids), exactness


def _free(scales: Scales, inputs: Mapping[str, float]) -> frozenset[str]:
    """The inputs, and what is made of one by a constant factor or term: rounded elementwise, once
    for each operation, and so alike everywhere."""
    free = set(inputs)
    for node in scales.nodes:
        data = [t.name for t in data_inputs(node) if not g.is_constant(t)]
        elementwise = g.is_standard(node, "Mul", "Div", "Add", "Sub")
        if elementwise and len(data) == 1 and data[0] in free:
            free.add(node.outputs[0].name)
    return frozenset(free)


# --- bounds, and the grids that follow ------------------------------------------------------------


def _bounds(plan: Sequence[OnGrid], network: _Network) -> dict[str, Bound]:
    """Of every tensor, with the constants as they stand in ``plan``."""
    found: dict[str, Bound] = {name: (-b, b) for name, b in network.bounds.items()}
    for each in plan:
        node = each.node
        terms = [
            _term(each, i, found.get(t.name, (0.0, 0.0))) for i, t in enumerate(data_inputs(node))
        ]
        if each.weights is not None:
            given = found[data_of(node).name]
            bound = worst_case.of_weighted(node, each.weights.weight, each.weights.bias, given)
        elif each.kind == "sum":
            bound = worst_case.of_sum(node, terms)
        elif each.kind == "neuron":
            bound = worst_case.of_constant(each.amplitude)
        elif each.kind == "source":
            bound = _source_bound(node, terms[0], network.scales)
        else:
            bound = worst_case.of_passing(node, terms, worst_case.summed(node, network.shapes))
        for tensor in node.outputs:
            found[tensor.name] = bound
    return found


def _term(each: OnGrid, position: int, bound: Bound) -> Bound:
    if position in each.addends:
        return worst_case.of_constant(each.addends[position])
    if position in each.factors:
        low, high = bound
        factor = each.factors[position]
        ends = [float(f) * end for f in (factor.min(), factor.max()) for end in (low, high)]
        return (min(0.0, *ends), max(0.0, *ends))
    return bound


def _source_bound(node: gs.Node, given: Bound, scales: Scales) -> Bound:
    function = read_activation(node)
    scale, before = scales.of[node.outputs[0].name], scales.of[node.inputs[0].name]
    if isinstance(function, Staircase):
        step = function.output_step * scale
        ends = [step * function.lowest_level, step * (function.lowest_level + function.levels)]
    else:
        edges = [np.clip(end / before, function.low, function.high) for end in given]
        ends = [scale * (function.output_low + function.gain * (e - function.low)) for e in edges]
    return worst_case.of_constant(np.asarray([np.min(ends), np.max(ends)]))


def _targets(plan: Sequence[OnGrid], network: _Network) -> dict[str, int]:
    """The exponent of the grid that the constants behind each tensor are rounded for."""
    bounds = _bounds(plan, network)
    need = {name: max(-low, high) for name, (low, high) in bounds.items()}
    fires: set[str] = set()  # feeds neurons: half a threshold must be on the grid
    coarse: set[str] = set()  # feeds weights, which need bits, too
    for each in reversed(plan):
        node, output = each.node, each.node.outputs[0].name
        if any(g.is_ours(r, "Decode") for t in node.outputs for r in t.outputs):
            need[output] = max(need[output], network.timesteps * _size(bounds[output]))
        if _may_round(node) or each.kind == "source":
            continue
        for position, tensor in enumerate(data_inputs(node)):
            if tensor.name not in need:
                continue
            before = tensor.name
            if each.kind == "neuron":
                need[before] = max(need[before], _membrane(each, bounds[before], network))
                fires.add(before)
            elif each.kind == "absorbing":
                coarse.add(before)
            elif position not in each.factors:
                need[before] = max(
                    need[before], need[output], _pooled(each, bounds[before], network)
                )
                if output in fires:
                    fires.add(before)
                if output in coarse:
                    coarse.add(before)
    exponents = {}
    for name, size in need.items():
        exponent = ceil(log2(max(size, 2**-60) * GROWTH)) - MANTISSA
        if name in coarse:
            exponent = max(exponent, ceil(log2(max(_size(bounds[name]), 2**-60))) - LINEAR_BITS)
        exponents[name] = min(exponent, -1) if name in fires else exponent
    return exponents


def _may_round(node: gs.Node) -> bool:
    """Whether a tensor that is constant over time joins sums of spikes, or their weights, here: it
    may be computed on a finer grid, and is rounded once."""
    readers = [reader for t in node.outputs for reader in t.outputs]
    return g.is_ours(node, "Encode") and not all(kind(r) == "neuron" for r in readers)


def _size(bound: Bound) -> float:
    return max(-bound[0], bound[1])


def _membrane(each: OnGrid, current: Bound, network: _Network) -> float:
    """The largest membrane that has to be exact."""
    threshold = float(np.max(each.threshold))
    if each.node.name in network.constant:
        return _size(current) + 2 * threshold
    return network.timesteps * _size(current) + threshold


def _pooled(each: OnGrid, given: Bound, network: _Network) -> float:
    """What a pool adds up."""
    size = _size(given)
    if g.is_ours(each.node, "MaxPoolCounts"):
        return network.timesteps * size
    count = worst_case.summed(each.node, network.shapes) if each.kind == "passing" else 1
    return count * size


# --- rounding -------------------------------------------------------------------------------------


def _round(plan: Sequence[OnGrid], targets: Mapping[str, int], network: _Network) -> dict[str, int]:
    """Round the constants in ``plan``; by tensor, the exponent of what its values are made of."""
    bounds = _bounds(plan, network)
    units = {name: ceil(log2(_size(bounds[name]))) - INPUT_BITS for name in network.free}
    for each in plan:
        node, output = each.node, each.node.outputs[0].name
        given = [units[t.name] for t in data_inputs(node) if t.name in units]
        if output in network.free:
            each.grids = (None, None)
            continue
        if each.kind == "absorbing":
            units[output] = (
                _divide(each, targets[output], bounds)
                if data_of(node).name in network.free
                else _round_weights(each, targets[output], given[0])
            )
        elif each.kind == "sum":
            side = network.edges.get(node.name, EITHER)
            units[output] = _round_terms(each, targets[output], units, side)
        elif each.kind == "neuron":
            each.threshold = _round_threshold(each, given[0] + 1)
            units[output] = 0
        elif each.kind == "source":
            each.unit = units[output] = _source_unit(node, targets[output])
        elif _may_round(node) and given[0] < targets[output]:
            each.rounds[0] = units[output] = targets[output]
        else:
            units[output] = min(given)
            if worst_case.divides(node):
                units[output] -= int(log2(worst_case.summed(node, network.shapes)))
        for tensor in node.outputs[1:]:
            units[tensor.name] = units[output]
        for position, tensor in enumerate(data_inputs(node)):
            if tensor.name in network.free and each.kind != "source" and each.stem is None:
                each.rounds.setdefault(position, units[tensor.name])
    return units


def _divide(each: OnGrid, target: int, bounds: Mapping[str, Bound]) -> int:
    assert each.weights is not None
    each.stem = divided(each.node, each.weights, bounds[data_of(each.node).name])
    each.weights, each.unit = each.stem.weights, target
    each.errors.append(SnappedLayer(g.label(each.node), each.stem.error, each.stem.low_grid))
    return target


def _round_weights(each: OnGrid, target: int, given: int) -> int:
    assert each.weights is not None
    weight, bias = each.weights.weight, each.weights.bias
    grid = target - given
    rounded = nearest(weight, grid)
    size = _root_mean_square(weight)
    error = _root_mean_square(rounded - weight) / size if size else 0.0
    each.errors.append(SnappedLayer(g.label(each.node), error, grid))
    each.weights = Weights(rounded, None if bias is None else nearest(bias, target))
    if g.is_standard(each.node, "Mul", "Div") and np.array_equal(rounded, weight):
        each.grids = (None, None)  # such as the p of an offset: nothing was rounded
        return given + _unit_of(rounded, grid)
    each.grids = (grid, target)
    return target


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values), dtype=np.float64)))


def _round_threshold(each: OnGrid, exponent: int) -> Array:
    rounded = nearest(each.threshold, exponent)
    error = float(np.max(np.abs(rounded - each.threshold) / each.threshold))
    if error > THRESHOLD_ROUNDING:
        raise NotExact(each.node, f"its threshold would change by {error:.1%}")
    return rounded


def _round_terms(each: OnGrid, target: int, units: Mapping[str, int], side: int) -> int:
    """Constants and factors of a sum; a term that is constant over time is rounded as a whole."""
    found = []
    for position, tensor in enumerate(data_inputs(each.node)):
        if position in each.addends:
            each.addends[position] = on_side(each.addends[position], target, side)
            found.append(_unit_of(each.addends[position], target))
        elif position in each.factors:
            before = g.producer(tensor)
            if before is not None and g.is_ours(before, "Encode"):
                each.rounds[position] = target
            else:
                factor, grid = each.factors[position], target - units[tensor.name]
                rounded = each.factors[position] = nearest(factor, grid)
                error = float(np.max(np.abs(rounded - factor) / np.abs(factor)))
                name = f"{g.label(each.node)} ({tensor.name})"
                each.errors.append(SnappedLayer(name, error, grid))
            found.append(target)
        else:
            found.append(units[tensor.name])
    each.grids = (target, target)
    return min(found)


def _source_unit(node: gs.Node, target: int) -> int:
    """Levels are whole numbers, if the lowest is one."""
    function = read_activation(node)
    if not isinstance(function, Staircase) or function.output_step.size > 1:
        return target
    return _unit_of(np.asarray(function.lowest_level), OFFSET_GRID)


def _unit_of(values: Array, exponent: int) -> int:
    """The largest exponent, at most 0, of a power of two whose multiples ``values`` are."""
    coarser = range(0, exponent, -1)
    return next((e for e in coarser if np.array_equal(values, nearest(values, e))), exponent)


# --- the proof ------------------------------------------------------------------------------------


def _prove(plan: Sequence[OnGrid], units: Mapping[str, int], network: _Network) -> None:
    """Every sum, with the rounded constants, stays within 2^24 units of its grid; else NotExact."""
    bounds = _bounds(plan, network)
    for each in plan:
        node, output = each.node, each.node.outputs[0].name
        reached = {output: _size(bounds[output])}
        if each.kind == "neuron":
            current = node.inputs[0].name
            reached[current] = _membrane(each, bounds[current], network)
            if units[current] > -1 or not np.all(each.threshold > 0):
                raise NotExact(node, "half a threshold does not lie on the grid of its current")
        elif each.kind == "passing":
            given = node.inputs[0].name
            reached[given] = _pooled(each, bounds[given], network)
        if any(g.is_ours(r, "Decode") for t in node.outputs for r in t.outputs):
            reached[output] = max(reached[output], network.timesteps * _size(bounds[output]))
        for name, size in reached.items():
            if size > 2.0 ** (MANTISSA + units[name]):
                raise NotExact(node, f"sums can reach {size:.3g}, over 2^{MANTISSA} units")
