"""Thresholds along identity shortcuts made equal: counts can then be added as they are.

Where a layer adds the spikes of another one (an identity shortcut), and a spike of either is worth
its own threshold, both get the larger threshold of the two; all along a chain of such shortcuts.
A neuron whose threshold is raised fires less often, each spike worth more: its levels are coarser,
and it clips later. Cases:

* a chain of layers with thresholds of their own: the largest of the chain, per channel if any is;
* spikes that are worth something other than their threshold, or that were moved on the way: left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.integer_moves import Move
from na_convert.results import Neuron
from na_convert.snn import Snn, described, neuron_nodes, parameters

from .count_sums import Reader

_EQUAL = 1e-6


@dataclass(frozen=True)
class Tied:
    """The network with tied thresholds; `raised`: by layer, the largest factor, where not 1."""

    network: Snn
    raised: dict[str, float]


def tie_shortcuts(network: Snn) -> Tied:
    """A copy of ``network`` with equal thresholds along its identity shortcuts."""
    chains = _chains(network)
    graph = network.graph.copy()
    names = g.Names(graph)
    raised: dict[str, float] = {}
    changed: dict[str, NDArray[np.floating]] = {}
    nodes = {node.name: node for node in neuron_nodes(graph)}
    for chain in chains:
        old = {name: np.asarray(parameters(nodes[name]).threshold, np.float64) for name in chain}
        largest = old[chain[0]]
        for threshold in old.values():
            largest = np.maximum(largest, threshold)
        for name in chain:
            factor = largest / old[name]
            if np.any(factor != 1):
                raised[name] = float(factor.max())
                changed[name] = _raise(nodes[name], factor, names)
    neurons = tuple(
        _described(neuron, nodes[neuron.name]) if neuron.name in changed else neuron
        for neuron in network.neurons
    )
    tied = replace(network, graph=graph, neurons=neurons)
    return Tied(described(tied), raised)


def _chains(network: Snn) -> list[list[str]]:
    """Names of neurons that a chain of identity shortcuts connects, two or more."""
    nodes = {node.name: node for node in neuron_nodes(network.graph)}
    owner = {node.outputs[0].name: node for node in nodes.values()}
    leader = {name: name for name in nodes}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for item in Reader(network, 1).walk():
        name, identities = ("", ()) if isinstance(item, Move) else (item[0], item[1].identities)
        for counts, gain in identities:
            source = owner.get(counts.name)
            if source is not None and _worth_its_threshold(source, counts.scale * gain):
                leader[find(source.name)] = find(name)
    chains: dict[str, list[str]] = {}
    for name in nodes:
        chains.setdefault(find(name), []).append(name)
    return [chain for chain in chains.values() if len(chain) > 1]


def _worth_its_threshold(node: gs.Node, worth: NDArray[np.float64]) -> bool:
    """Or minus that, which is taken off as it is."""
    return bool(np.all(np.abs(np.abs(worth / parameters(node).threshold) - 1) <= _EQUAL))


def _raise(node: gs.Node, factor: NDArray[np.float64], names: g.Names) -> NDArray[np.floating]:
    """Multiply threshold and amplitude; returns the new threshold."""
    own = parameters(node)
    threshold = (np.asarray(own.threshold, np.float64) * factor).astype(own.threshold.dtype)
    amplitude = (np.asarray(own.amplitude, np.float64) * factor).astype(own.amplitude.dtype)
    if node.op == "IF" and threshold.size == 1:
        node.attrs["threshold"] = float(threshold.item())
        node.attrs["amplitude"] = float(amplitude.item())
        return threshold
    constants = [
        g.constant(names.fresh(f"{node.name}_{which}_tied"), values)
        for which, values in (("threshold", threshold), ("amplitude", amplitude))
    ]
    node.op = "IFPerChannel"
    node.attrs = {"initial": node.attrs["initial"]}
    node.inputs = [node.inputs[0], *constants]
    return threshold


def _described(neuron: Neuron, node: gs.Node) -> Neuron:
    own = parameters(node)
    plain = [
        float(v.item()) if v.size == 1 else [float(e) for e in v.ravel()]
        for v in (own.threshold, own.amplitude)
    ]
    return replace(neuron, threshold=plain[0], amplitude=plain[1])
