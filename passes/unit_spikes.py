"""Fold thresholds and amplitudes into weights: every neuron has threshold 1, a spike is worth 1.

Weight normalisation without data (Rueckauer et al., Front. Neurosci. 2017): a layer with threshold
theta and amplitude a fires the same spikes where its weights and biases are divided by theta, and
the weights behind it multiplied by a. `na_convert.unit_scale` chooses the scales.

Cases:

* weights and biases of Conv, ConvTranspose, Gemm, MatMul, constants of Mul, Div and Add take the
  factors up;
* thresholds per channel: the same, channel by channel;
* a term of a sum that comes on another scale (identity shortcuts): a Mul by a constant. In the SNN
  it stays one, since a convolution would do C times the work; it is a diagonal 1x1 convolution
  where there is no Mul (`na_convert.nir_file`);
* neurons on a current that others read, with other thresholds: a Mul in front of each;
* levels that start below zero: spikes of 1, then a Mul by p, so that the offset is a whole number;
* spikes that are worth less than nothing: the weights behind turn round;
* a layer whose neurons have threshold 1 and spikes of 1 already: stays as it is;
* an operator that passes no scale on, or a network that is not in float32: refused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import graph as g
from na_convert.errors import NotConvertible, PassFailed
from na_convert.evaluate import evaluate
from na_convert.layers import per_channel
from na_convert.replay import relative_error
from na_convert.results import PassReport
from na_convert.runtime import Feeds
from na_convert.shapes import of_one_step, rows_per_sample
from na_convert.snn import Snn, float_type, neuron_nodes, parameters, recorded
from na_convert.unit_scale import NotExact, Scales, choose

from .on_grid import rescaled_nodes, scaled_neurons, write_on_grid

NAME = "unit_spikes"
NOTE = "thresholds and spikes are 1 in the file; tables have them in the ANN's units"
LIMIT = 1e-4  # of the relative change of a current or output, as of any pass


def run(snn: Snn, feeds: Feeds | None = None) -> tuple[Snn, PassReport]:
    """``snn`` with thresholds and spikes of 1; checked on ``feeds``, a few samples, if given.

    Raises NotConvertible with the node that has no such form, PassFailed where numbers changed.
    """
    if has_unit_spikes(snn):
        return snn, PassReport(NAME, 0)
    try:
        made = _scaled(snn)
    except NotExact as found:
        raise NotConvertible(
            f"{found}: thresholds and spikes cannot be made 1",
            node=found.node,
            remedy="convert it as it is, without --unit-spikes and not to NIR",
        ) from None
    report = PassReport(NAME, len(snn.neurons))
    if feeds is not None:
        error = _largest_change(snn, made, feeds)
        if not error <= LIMIT:
            raise PassFailed(
                f"pass {NAME} changed a current or output by {error:.2g} relative (limit "
                f"{LIMIT:g}; {error:.2g} would have passed)",
                remedy="this is a defect of na-convert: please report it with the model",
            )
        report = replace(report, max_rel_error=error)
    return made, report


def has_unit_spikes(snn: Snn) -> bool:
    """Whether every neuron of ``snn`` has threshold 1 and spikes of 1."""
    found = [parameters(node) for node in neuron_nodes(snn.graph)]
    return all(np.all(p.threshold == 1) and np.all(p.amplitude == 1) for p in found)


def _scaled(snn: Snn) -> Snn:
    graph = snn.graph.copy()
    if any(float_type(node) != np.float32 for node in neuron_nodes(graph)):
        raise NotExact(None, "the network does not compute in float32")
    levels = {n.name: n.levels for n in snn.neurons}
    shapes = of_one_step(snn)
    scales = choose(graph, levels, shapes, unit=True)
    if _give_own_current(graph, scales):
        shapes = of_one_step(replace(snn, graph=graph))
        scales = choose(graph, levels, shapes, unit=True)
    for node in scales.nodes:
        if g.is_ours(node, "MaxPoolCounts") or g.is_standard(node, "MaxPool", "Relu"):
            _require_rising(node, scales)
    neurons = scaled_neurons(snn, graph, scales)
    write_on_grid(graph, rescaled_nodes(scales, shapes), scales, shapes)
    return recorded(replace(snn, graph=graph, neurons=neurons))


def _give_own_current(graph: gs.Graph, scales: Scales) -> bool:
    """A Mul in front of each neuron layer whose current has another layer's scale; any made?"""
    names, made = g.Names(graph), False
    for node in neuron_nodes(graph):
        current = node.inputs[0]
        threshold = np.asarray(parameters(node).threshold, np.float64).ravel()
        if np.allclose(threshold * scales.of[current.name], 1, rtol=1e-9, atol=0):
            continue
        before = g.producer(current)
        encoded = before is not None and g.is_ours(before, "Encode")
        source = before.inputs[0] if before is not None and encoded else current
        own = gs.Variable(names.fresh(f"{source.name}_own"), source.dtype)
        one = g.constant(names.fresh(f"{source.name}_factor"), np.ones((), np.float32))
        graph.nodes.append(g.node("Mul", [source, one], [own], names.fresh(f"{node.name}_scale")))
        if encoded:  # what is analog is scaled before it is spread over the time steps
            own = _encoded(graph, own, names)
        node.inputs = [own, *node.inputs[1:]]
        made = True
    graph.cleanup().toposort()
    return made


def _encoded(graph: gs.Graph, analog: gs.Variable, names: g.Names) -> gs.Variable:
    made = gs.Variable(names.fresh(f"{analog.name}_encoded"), analog.dtype)
    name = names.fresh(f"{analog.name}_encode")
    graph.nodes.append(g.node("Encode", [analog], [made], name, {}, "na_convert"))
    return made


def _require_rising(node: gs.Node, scales: Scales) -> None:
    """A maximum of values that were turned round would be their minimum."""
    if np.any(scales.of[node.outputs[0].name] < 0):
        raise NotExact(node, "a maximum of spikes that are worth less than nothing")


def _largest_change(before: Snn, after: Snn, feeds: Feeds) -> float:
    """Of currents and outputs, both given the same spikes, on the scale of ``before``; relative."""
    rng = np.random.default_rng(0)
    given = {name: np.asarray(values, np.float64) for name, values in feeds.items()}
    rows = len(next(iter(given.values())))
    nodes = [{n.name: n for n in neuron_nodes(snn.graph)} for snn in (before, after)]
    parts = rows_per_sample(before, feeds)
    spikes = [dict(given), dict(given)]
    for old, new in zip(before.neurons, after.neurons, strict=True):
        fired = rng.integers(0, 2, (rows * parts[old.name], *old.shape)).astype(np.float64)
        for made, found in zip(spikes, (nodes[0][old.name], nodes[1][new.name]), strict=True):
            made[found.outputs[0].name] = fired * np.asarray(parameters(found).amplitude)
    largest = 0.0
    values = [
        evaluate(
            snn.graph,
            made,
            [
                *(found[n.name].inputs[0].name for n in snn.neurons),
                *(t.name for t in snn.graph.outputs),
            ],
        )
        for snn, made, found in zip((before, after), spikes, nodes, strict=True)
    ]
    for old, new in zip(before.neurons, after.neurons, strict=True):
        scale = np.asarray(new.current_scale) / np.asarray(old.current_scale)
        expected = values[0][nodes[0][old.name].inputs[0].name]
        found = values[1][nodes[1][new.name].inputs[0].name] / per_channel(scale, old.shape)
        largest = max(largest, relative_error(expected, found))
    for tensor in before.graph.outputs:
        largest = max(largest, relative_error(values[0][tensor.name], values[1][tensor.name]))
    return largest
