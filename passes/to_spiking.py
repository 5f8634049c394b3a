"""Turn each activation into integrate-and-fire neurons, and mark where time begins and ends.

Requires Staircase and Ramp nodes (`find_activations`). Ensures the description of `na_convert.snn`:
one IF node per layer, ``Encode`` at every edge where a tensor that is constant over time enters
the spiking region, ``Decode`` at every edge that leaves it, affine operators between.

Cases:

* Staircase or Ramp after weights and before weights or pooling: an ``IF`` node (one threshold) or
  ``IFPerChannel`` (thresholds per channel, or tensors that are not float32);
* an offset or falling steps: an Add or Mul on the current before, an Add on the spikes after;
* an activation on the network's input (no weights before it): an encoder, stays analog;
* an activation that only the output follows: a readout quantiser, stays analog;
* an activation behind the node that the user named as the readout's beginning: stays analog;
* a ReLU without threshold before the first neurons or behind the last: stays analog; between
  neurons it is refused, unless it was calibrated;
* skip connections and Concat with analog tensors: ``Encode`` on each such edge;
* MaxPool between neurons: ``MaxPoolCounts`` (other maxima are MaxPools by now);
* a graph output that is a spiking tensor: ``Decode`` before it, the output keeps its name;
* an operator between neurons that is not affine in its spiking inputs, or that touches the batch
  axis, into which time is folded: refused, all of them at once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.activation import NeuronParameters, Ramp, Staircase, read_activation
from na_convert.neurons import ACTIVATION_OPS, INITIAL_MEMBRANE
from na_convert.regions import (
    AVERAGING_OPS,
    MOVING,
    ancestors,
    carries_weights,
    data_inputs,
    descendants,
    spiking_nodes,
)
from na_convert.results import Neuron, PassReport, Refusal, Skip

from .affine import obstacle, pool_attributes
from .unbounded import without_threshold
from .walk_shapes import ranks

NAME = "to_spiking"

_KEEPING = (*MOVING, "Concat", "Neg")  # spikes stay spikes of the same size, or turn round


@dataclass(frozen=True)
class Spiking:
    """What the pass did, and the neuron layers it made (none if `report.refused` is not empty)."""

    report: PassReport
    neurons: tuple[Neuron, ...]


def run(
    graph: gs.Graph, shapes: dict[str, tuple[int, ...]], readout_from: gs.Node | None = None
) -> Spiking:
    """Convert ``graph`` in place; ``shapes`` of one sample of the activations' outputs, by name.

    Everything behind ``readout_from`` stays analog and works on the time-mean. Where anything is
    refused the graph is left as it was.
    """
    chosen, skipped = choose_neurons(graph, readout_from)
    refused = refusals(graph, chosen)
    if refused:
        return Spiking(PassReport(NAME, 0, skipped, refused), ())
    names = g.Names(graph)
    later = descendants(graph, chosen)
    _pool_counts(graph, chosen)
    made = {id(a): _make_neuron(graph, a, id(a) not in later, shapes, names) for a in chosen}
    neuron_nodes = [node for node, _ in made.values()]
    graph.toposort()
    _encode(graph, neuron_nodes, names)
    _decode(graph, neuron_nodes, names)
    graph.cleanup().toposort()
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    layers = sorted(made.values(), key=lambda pair: order[id(pair[0])])
    report = PassReport(NAME, len(layers), skipped)
    return Spiking(report, tuple(neuron for _, neuron in layers))


def choose_neurons(
    graph: gs.Graph, readout_from: gs.Node | None = None
) -> tuple[list[gs.Node], tuple[Skip, ...]]:
    """The activations that become neurons, and those that stay analog, with the reason.

    Where nothing is left to become a neuron otherwise, activations on the output and ReLUs
    without a bound are taken too.
    """
    activations = [node for node in graph.nodes if g.is_ours(node, *ACTIVATION_OPS)]
    after_weights, before_sums = between_weights(graph)
    readout = descendants(graph, [readout_from]) if readout_from is not None else set()
    inner = [a for a in activations if id(a) in after_weights and id(a) not in readout]
    inner = [a for a in inner if id(a) in before_sums] or inner
    bounded = [a for a in inner if _is_bounded(a)]
    chosen = _with_relus_between(graph, inner, bounded) if bounded else inner
    kept = {id(a) for a in chosen}

    def reason(activation: gs.Node) -> str:
        if id(activation) in readout:
            return "behind the node where the readout begins: stays analog"
        if not _is_bounded(activation):
            return "a ReLU without threshold, outside the spiking part: stays analog"
        if id(activation) in after_weights:
            return "quantises the network's output: stays analog, in the readout"
        return "quantises the network's input: stays analog, constant over time"

    skipped = tuple(Skip(g.label(a), reason(a)) for a in activations if id(a) not in kept)
    return chosen, skipped


def between_weights(
    graph: gs.Graph, neurons: Collection[gs.Node] = ()
) -> tuple[set[int], set[int]]:
    """Ids of the nodes behind some weights, and of those in front of weights or averages.

    A nonlinear function in both sets stands where neurons would. Behind ``neurons`` only weights
    that come after them count.
    """
    weighted = [node for node in graph.nodes if carries_weights(node)]
    averaging = [node for node in graph.nodes if g.is_standard(node, *AVERAGING_OPS)]
    after = descendants(graph, weighted, stop=neurons)
    return after, ancestors(graph, [*weighted, *averaging])


def _is_bounded(activation: gs.Node) -> bool:
    function = read_activation(activation)
    return isinstance(function, Staircase) or function.bounded


def _with_relus_between(
    graph: gs.Graph, inner: list[gs.Node], bounded: list[gs.Node]
) -> list[gs.Node]:
    """``bounded``, and the ReLUs of ``inner`` that a neuron comes before and another behind."""
    after, before = descendants(graph, bounded), ancestors(graph, bounded)
    kept = {id(a) for a in bounded}
    return [a for a in inner if id(a) in kept or (id(a) in after and id(a) in before)]


def refusals(graph: gs.Graph, neurons: list[gs.Node]) -> tuple[Refusal, ...]:
    """Every node between ``neurons`` that cannot work on spikes, and neurons without threshold."""
    refused = []
    after = descendants(graph, neurons)
    chosen, axes = {id(n) for n in neurons}, ranks(graph)
    for node in spiking_nodes(graph, neurons):
        if id(node) not in chosen:
            spiking = [_is_spiking(t, after, chosen) for t in node.inputs]
            found = obstacle(node, spiking, axes)
            if found:
                refused.append(Refusal(g.label(node), node.op, found.reason, found.remedy))
        elif _is_bounded(node) and _threshold_vanishes(node):
            refused.append(
                Refusal(
                    g.label(node),
                    node.op,
                    "its threshold is below the smallest normal number of its float type",
                    "scale the layer before it: the step of the quantiser is next to nothing",
                )
            )
        elif not _is_bounded(node):
            refused.append(without_threshold(node))
    return tuple(refused)


def _threshold_vanishes(node: gs.Node) -> bool:
    smallest = np.finfo(node.inputs[1].values.dtype).tiny
    return bool(np.any(np.abs(read_activation(node).neuron().threshold) < smallest))


def nonlinear_nodes(
    graph: gs.Graph, neurons: Collection[gs.Node] = (), readout_from: gs.Node | None = None
) -> tuple[Refusal, ...]:
    """Nodes that stand where ``neurons`` would and are not affine: activations nobody recognised.

    Before the first neuron they would stay analog, and nobody would be told.
    """
    after, before = between_weights(graph, neurons)
    readout = descendants(graph, [readout_from]) if readout_from is not None else set()
    refused, axes = [], ranks(graph)
    for node in graph.nodes:
        inner = id(node) in after and id(node) in before and id(node) not in readout
        if inner and not g.is_ours(node):
            found = obstacle(node, [_is_spiking(t, after, set()) for t in node.inputs], axes)
            if found:
                refused.append(Refusal(g.label(node), node.op, found.reason, found.remedy))
    return tuple(refused)


def _is_spiking(tensor: gs.Tensor, after: set[int], neurons: set[int]) -> bool:
    return bool(tensor.inputs) and (id(tensor.inputs[0]) in after | neurons)


# --- neurons --------------------------------------------------------------------------------------


def _make_neuron(
    graph: gs.Graph,
    activation: gs.Node,
    constant_input: bool,
    shapes: dict[str, tuple[int, ...]],
    names: g.Names,
) -> tuple[gs.Node, Neuron]:
    """Replace ``activation`` by a neuron node; the activation's output keeps its name."""
    root, output = activation.inputs[0], activation.outputs[0]
    dtype = activation.inputs[1].values.dtype
    function = read_activation(activation)
    firing = function.neuron()
    activation.outputs.clear()
    name = g.label(activation) if activation.name else names.fresh(f"IF_{output.name}")
    current = _current(graph, root, firing, dtype, names)
    if np.any(firing.output_offset != 0):
        spikes = gs.Variable(names.fresh(f"{output.name}_spikes"), dtype)
        offset = g.constant(names.fresh(f"{output.name}_offset"), _as(firing.output_offset, dtype))
        shift = g.node("Add", [spikes, offset], [output], names.fresh(f"{name}_offset"))
        graph.nodes.append(shift)
    else:
        spikes = output
    neuron_node = _firing_node(name, current, spikes, firing, dtype, names)
    graph.nodes.append(neuron_node)
    return neuron_node, _describe(
        name, root.name, output.name, activation, function, firing, constant_input, shapes
    )


def _current(
    graph: gs.Graph, root: gs.Tensor, firing: NeuronParameters, dtype: np.dtype, names: g.Names
) -> gs.Tensor:
    """``current_gain * root + current_offset``, without the parts that do nothing."""
    current = root
    for op, values, neutral in (
        ("Mul", firing.current_gain, 1),
        ("Add", firing.current_offset, 0),
    ):
        if np.all(values == neutral):
            continue
        factor = g.constant(names.fresh(f"{root.name}_{op.lower()}"), _as(values, dtype))
        shifted = gs.Variable(names.fresh(f"{root.name}_current"), dtype)
        node = g.node(op, [current, factor], [shifted], names.fresh(f"{root.name}_{op}"))
        graph.nodes.append(node)
        current = shifted
    return current


def _firing_node(
    name: str,
    current: gs.Tensor,
    spikes: gs.Tensor,
    firing: NeuronParameters,
    dtype: np.dtype,
    names: g.Names,
) -> gs.Node:
    initial: dict[str, object] = {"initial": float(INITIAL_MEMBRANE)}
    if firing.threshold.size == 1 and firing.amplitude.size == 1 and dtype == np.float32:
        attrs = {
            "threshold": float(np.float32(firing.threshold.item())),
            "amplitude": float(np.float32(firing.amplitude.item())),
        }
        return g.node("IF", [current], [spikes], name, {**attrs, **initial}, "na_convert")
    parameters = [
        g.constant(names.fresh(f"{name}_{which}"), _as(values, dtype))
        for which, values in (("threshold", firing.threshold), ("amplitude", firing.amplitude))
    ]
    return g.node("IFPerChannel", [current, *parameters], [spikes], name, initial, "na_convert")


def _describe(
    name: str,
    root: str,
    output: str,
    activation: gs.Node,
    function: Staircase | Ramp,
    firing: NeuronParameters,
    constant_input: bool,
    shapes: dict[str, tuple[int, ...]],
) -> Neuron:
    stair = function if isinstance(function, Staircase) else None
    return Neuron(
        name=name,
        root=root,
        output=output,
        kind="staircase" if stair else str(activation.attrs["kind"]),
        threshold=_plain(firing.threshold),
        amplitude=_plain(firing.amplitude),
        input_step=_plain(stair.input_step) if stair else None,
        output_step=_plain(stair.output_step) if stair else None,
        levels=stair.levels if stair else None,
        lowest_level=_plain(stair.lowest_level) if stair else 0.0,
        phase=_plain(stair.phase) if stair else 0.5,
        tie_rule=stair.tie_rule if stair else "none",
        constant_input=constant_input,
        shape=shapes[output],
    )


def _plain(values: NDArray[np.floating]) -> float | list[float]:
    if values.size == 1:
        return float(values.item())
    return [float(v) for v in values.ravel()]


def _as(values: NDArray[np.floating], dtype: np.dtype) -> NDArray[np.floating]:
    return np.asarray(values).astype(dtype)


# --- the borders of time --------------------------------------------------------------------------


def _pool_counts(graph: gs.Graph, neurons: list[gs.Node]) -> None:
    """MaxPool between neurons -> MaxPoolCounts, in units of one spike where they are all equal."""
    for node in spiking_nodes(graph, neurons):
        if not g.is_standard(node, "MaxPool"):
            continue
        node.attrs = {**pool_attributes(node), "unit": _spike_value(node.inputs[0])}
        node.op, node.domain = "MaxPoolCounts", "na_convert"


def _spike_value(tensor: gs.Tensor) -> float:
    """What one spike in ``tensor`` is worth, where it holds nothing but spikes; else 1."""
    source = g.producer(tensor)
    if source is None:
        return 1.0
    if g.is_ours(source, *ACTIVATION_OPS):
        amplitude = read_activation(source).neuron().amplitude
        return float(np.float32(abs(amplitude.item()))) if amplitude.size == 1 else 1.0
    if g.is_ours(source, "MaxPoolCounts") or g.is_standard(source, *_KEEPING):
        parts = {_spike_value(t) for t in data_inputs(source)}
        return parts.pop() if len(parts) == 1 else 1.0
    return 1.0


def _encode(graph: gs.Graph, neurons: list[gs.Node], names: g.Names) -> None:
    """An Encode on every edge from a tensor that is constant over time to a spiking node."""
    spiking = {id(n) for n in spiking_nodes(graph, neurons)}
    after = descendants(graph, neurons) | {id(n) for n in neurons}
    encoded: dict[int, gs.Variable] = {}
    for node in [n for n in graph.nodes if id(n) in spiking]:
        for tensor in data_inputs(node):
            source = g.producer(tensor)
            if g.is_constant(tensor) or (source is not None and id(source) in after):
                continue
            if id(tensor) not in encoded:
                repeated = gs.Variable(names.fresh(f"{tensor.name}_encoded"), tensor.dtype)
                name = names.fresh(f"Encode_{tensor.name}")
                graph.nodes.append(g.node("Encode", [tensor], [repeated], name, {}, "na_convert"))
                encoded[id(tensor)] = repeated
            node.inputs = [encoded[id(tensor)] if t is tensor else t for t in node.inputs]
    graph.toposort()


def _decode(graph: gs.Graph, neurons: list[gs.Node], names: g.Names) -> None:
    """A Decode on every edge from a spiking node to the readout or to a graph output."""
    spiking = {id(n) for n in spiking_nodes(graph, neurons)}
    stays = spiking | _shape_readers(graph, neurons)
    for node in [n for n in graph.nodes if id(n) in spiking]:
        for tensor in node.outputs:
            readers = [r for r in tensor.outputs if id(r) not in stays]
            leaves = g.is_output(graph, tensor)
            if not readers and not leaves:
                continue
            mean = gs.Variable(names.fresh(f"{tensor.name}_mean"), tensor.dtype)
            for reader in readers:
                reader.inputs = [mean if t is tensor else t for t in reader.inputs]
            if leaves:
                mean.shape = tensor.shape
                _take_output_name(graph, tensor, mean, names)
            name = names.fresh(f"Decode_{mean.name}")
            graph.nodes.append(g.node("Decode", [tensor], [mean], name, {}, "na_convert"))
    graph.toposort()


def _shape_readers(graph: gs.Graph, neurons: list[gs.Node]) -> set[int]:
    """Ids of the Shape and Size nodes from which spiking nodes take their sizes.

    These read the spiking tensor itself: its first axis counts time steps times samples.
    """
    before = ancestors(graph, neurons)
    return {id(n) for n in graph.nodes if g.is_standard(n, "Shape", "Size") and id(n) in before}


def _take_output_name(
    graph: gs.Graph, spiking: gs.Tensor, mean: gs.Variable, names: g.Names
) -> None:
    """The graph output keeps its name; the spiking tensor behind it gets another."""
    graph.outputs = [mean if t is spiking else t for t in graph.outputs]
    mean.name, spiking.name = spiking.name, names.fresh(f"{spiking.name}_spiking")
