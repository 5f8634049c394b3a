"""Where each spike goes: operations per weighted operator, counted through the graph's connections.

A spike costs one accumulate for every connection that leaves its neuron. How many those are depends
on where the neuron lies (at a border a convolution has fewer), on strides, groups and dilation; so
nothing is estimated: the operators are run with every weight set to 1, on spike counts in place of
values. Connections are linear, so the counts of many samples can be added up first. Weights that
are zero count as connections; multiplications with padding do not. The three parts of a stem on
grids (`passes.stem_parts`) count once: they stand for one operator with wider sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import kernels, neurons
from .evaluate import evaluate
from .exactness import grids_of
from .graph import is_constant, is_ours, is_standard, label, producer
from .regions import data_inputs, influences
from .results import OperatorWork
from .snn import Snn

Array: TypeAlias = NDArray[Any]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
UNCOUNTED = ("Einsum", "LSTM", "GRU", "RNN", "ConvInteger", "MatMulInteger", "QLinearConv",
             "QLinearMatMul", "Attention")  # fmt: skip
_CONSTANT, _SPIKING, _READOUT = "constant", "spiking", "readout"
_REGIONS = (_CONSTANT, _SPIKING, _READOUT)


class _Events(NamedTuple):
    """What a tensor carries, for one sample.

    Attributes:
        spikes: how many spikes reach each element, over all samples; 0 where none can.
        region: "constant" over time, "spiking", or "readout".
        graded: its values at a time step are not sums of spikes: weighted, or analog.
        bits: of the ANN's activations that it is made of; None: analog.
    """

    spikes: Array
    region: str
    graded: bool
    bits: int | None


@dataclass(frozen=True)
class Work:
    """Operations of every weighted operator; ``uncounted`` names operators that are not known."""

    operators: tuple[OperatorWork, ...]
    uncounted: tuple[str, ...]


def count_work(
    network: Snn,
    spikes: Mapping[str, Array],
    pooled: Mapping[str, Array],
    samples: int,
    feeds: Mapping[str, Array],
) -> Work:
    """Operations per sample in each weighted operator of ``network``.

    Args:
        spikes: of each neuron, by layer, summed over ``samples`` [R, ...]: the rows of one sample.
        pooled: the same behind each max-pool that works on one layer's spikes.
        feeds: inputs, one sample, for the sizes.
    """
    graph = network.graph
    bits = {n.name: None if n.levels is None else n.levels.bit_length() for n in network.neurons}
    fired = {n.name: spikes[n.name].astype(np.float64) for n in network.neurons}
    known: dict[str, _Events] = {
        name: _Events(np.zeros((1, *value.shape[1:])), _CONSTANT, False, None)
        for name, value in feeds.items()
    }
    sizes = _sizes(graph, feeds, fired)
    operators, uncounted, fine = [], [], grids_of(network).fine
    for node in graph.nodes:
        if node.name in fired and is_ours(node, *neurons.NEURON_OPS):
            found = _Events(fired[node.name], _SPIKING, False, bits[node.name])
            known[node.outputs[0].name] = found
            continue
        given = [known[t.name] for t in data_inputs(node) if t.name in known]
        if not given:
            known |= _looked_up(node, known, graph, feeds)
            continue
        joined = _joined(given)
        if is_standard(node, *WEIGHTED) and node.name not in fine:
            operators.append(_work(node, known, joined, network.timesteps, samples))
        elif node.op in UNCOUNTED:
            uncounted.append(f"{label(node)} ({node.op})")
        for tensor, value in zip(node.outputs, _through(node, known, sizes, graph), strict=False):
            known[tensor.name] = _after(node, value, joined, pooled)
    return Work(tuple(operators), tuple(uncounted))


def _sizes(
    graph: gs.Graph, feeds: Mapping[str, Array], fired: Mapping[str, Array]
) -> dict[str, Array]:
    """Sizes, axes and indices that the graph computes itself, for one sample."""
    wanted = {
        t.name
        for node in graph.nodes
        for t in node.inputs
        if not (t.is_empty() or is_constant(t)) and not any(t is d for d in data_inputs(node))
    }
    spikes = {
        n.outputs[0].name: np.zeros_like(fired[n.name]) for n in graph.nodes if n.name in fired
    }
    return evaluate(graph, {**feeds, **spikes}, sorted(wanted)) if wanted else {}


def _looked_up(
    node: gs.Node, known: Mapping[str, _Events], graph: gs.Graph, feeds: Mapping[str, Array]
) -> dict[str, _Events]:
    """What ``node`` takes from constants, as an embedding does, where the input says which."""
    chosen = [t for t in influences(node) if t.name in known and known[t.name].region == _CONSTANT]
    if not chosen:
        return {}
    values = evaluate(graph, feeds, [t.name for t in node.outputs])
    return {
        name: _Events(np.zeros(value.shape), _CONSTANT, False, None)
        for name, value in values.items()
    }


def _joined(given: list[_Events]) -> _Events:
    regions = [_REGIONS.index(each.region) for each in given]
    bits = [each.bits for each in given]
    return _Events(
        given[0].spikes,
        _REGIONS[max(regions)],
        any(each.graded for each in given),
        None if None in bits else max(b for b in bits if b is not None),
    )


def _after(node: gs.Node, value: Array, joined: _Events, pooled: Mapping[str, Array]) -> _Events:
    if is_ours(node, "Encode"):
        return _Events(value, _SPIKING, True, None)
    if is_ours(node, "Decode"):
        return joined._replace(spikes=value, region=_READOUT)
    if is_ours(node, "MaxPoolCounts"):
        if node.name in pooled:
            return joined._replace(spikes=pooled[node.name].astype(np.float64))
        return joined._replace(spikes=value, graded=True)
    if is_standard(node, *WEIGHTED):
        return joined._replace(spikes=value, graded=True, bits=None)
    return joined._replace(spikes=value)


def _work(
    node: gs.Node, known: Mapping[str, _Events], joined: _Events, timesteps: int, samples: int
) -> OperatorWork:
    macs = round(float(_connected(node, known, ones=True).sum()))
    spiking = joined.region == _SPIKING and not joined.graded
    return OperatorWork(
        name=label(node),
        op=node.op,
        region=joined.region,
        bits=joined.bits,
        ann_macs=macs,
        snn_macs=0 if spiking else macs * (timesteps if joined.region == _SPIKING else 1),
        synaptic_operations=(
            float(_connected(node, known, ones=False).sum()) / samples if spiking else 0.0
        ),
    )


def _connected(node: gs.Node, known: Mapping[str, _Events], *, ones: bool) -> Array:
    """What reaches each output of a weighted ``node``, every weight being 1; no bias.

    With ``ones`` every input element sends one, else as many as there were spikes.
    """
    operands = []
    for tensor in node.inputs[:2]:
        if tensor.name not in known:
            operands.append(np.ones_like(tensor.values, np.float64))
        else:
            spikes = known[tensor.name].spikes
            operands.append(np.ones_like(spikes) if ones else spikes)
    plain = gs.Node(node.op, node.name, {**node.attrs, "alpha": 1.0}, node.inputs, node.outputs)
    return kernels.STANDARD[node.op](plain, operands, np.dtype(np.float64))


def _through(
    node: gs.Node, known: Mapping[str, _Events], sizes: Mapping[str, Array], graph: gs.Graph
) -> list[Array]:
    """Spikes behind ``node``: every spike in front arrives wherever its value would."""
    arrays = [known[t.name].spikes for t in data_inputs(node) if t.name in known]
    if is_standard(node, *WEIGHTED):
        return [_connected(node, known, ones=False)]
    if is_standard(node, "Add", "Sub", "Sum", "Mean", "Mul", "Div"):
        total = sum(arrays)
        rest = [np.zeros(t.values.shape) for t in node.inputs if is_constant(t)]
        return [np.asarray(sum(rest, total))]
    if is_standard(node, "BatchNormalization", "Neg", "Identity") or is_ours(
        node, "Encode", "Decode", "Staircase", "Ramp"
    ):
        return [arrays[0]]
    if is_standard(node, "AveragePool"):
        return [kernels.sum_pool(node, arrays[0])]
    if is_standard(node, "GlobalAveragePool"):
        return [arrays[0].sum(axis=tuple(range(2, arrays[0].ndim)), keepdims=True)]
    routed = _routed(node, known, sizes, graph)
    if is_standard(node, "ReduceMean"):
        return [routed[0] * (arrays[0].size / routed[0].size)]
    return routed


def _routed(
    node: gs.Node, known: Mapping[str, _Events], sizes: Mapping[str, Array], graph: gs.Graph
) -> list[Array]:
    """An operator that moves elements, run on spikes; what it adds by itself is taken off."""
    names = [t.name for t in node.outputs]
    inside = {t.name for t in node.inputs}
    fixed = {name: value for name, value in sizes.items() if name in inside}
    spikes = {name: known[name].spikes for name in inside if name in known}
    silent = {name: np.zeros_like(value) for name, value in spikes.items()}
    with np.errstate(all="ignore"):  # a readout may divide, or take logarithms
        with_spikes = evaluate(graph, {**fixed, **spikes}, names)
        without = evaluate(graph, {**fixed, **silent}, names)
        return [with_spikes[n].astype(np.float64) - without[n] for n in names]


def pool_sources(network: Snn) -> dict[str, tuple[gs.Node, str]]:
    """Max-pools that work on the spikes of one layer: by name, the node and the name of the layer
    or of the max-pool in front."""
    found: dict[str, tuple[gs.Node, str]] = {}
    for node in network.graph.nodes:
        if not is_ours(node, "MaxPoolCounts"):
            continue
        source = producer(node.inputs[0])
        while source is not None and _shifts(source):
            source = next(producer(t) for t in source.inputs if not is_constant(t))
        if source is None:
            continue
        if is_ours(source, *neurons.NEURON_OPS) or source.name in found:
            found[node.name] = (node, source.name)
    return found


def _shifts(node: gs.Node) -> bool:
    """An offset on spikes: it moves all values alike, and their order stays."""
    return is_standard(node, "Add") and any(is_constant(t) for t in node.inputs)
