"""Quantisers of the input: staircases in front of every neuron, which stay what they are.

A float error decides at their edges, too, and one level of a pixel moves all currents around it.
Where ANN and SNN are compared behind them, both get the ANN's levels; the levels themselves are
compared by `round_trip`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase, read_activation
from .evaluate import evaluate
from .graph import is_ours, label
from .layers import Layer, spiking_behind
from .snn import Snn, neuron_nodes

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class InputQuantiser:
    """A staircase of the ANN after the passes, ``output`` as a function of ``root``."""

    name: str
    root: str
    output: str
    function: Staircase


def input_quantisers(
    staircase_ann: gs.Graph, layers: Sequence[Layer]
) -> tuple[InputQuantiser, ...]:
    """Those of ``staircase_ann``, in order: what reads none of the ``layers``' activations."""
    names = {layer.neuron.output: layer.name for layer in layers}
    outputs = ((n, t.name) for n in staircase_ann.nodes for t in n.outputs)
    firing = {id(node): names[output] for node, output in outputs if output in names}
    return tuple(
        InputQuantiser(label(n), n.inputs[0].name, n.outputs[0].name, _function(n))
        for n in _in_front(staircase_ann, firing)
    )


def in_snn(
    quantisers: Sequence[InputQuantiser], graph: gs.Graph, values: Mapping[str, Array]
) -> dict[str, Array]:
    """The ANN's levels, from its ``values``, in the units of the SNN in ``graph``, by tensor."""
    nodes = {n.outputs[0].name: n for n in graph.nodes if is_ours(n, "Staircase")}
    found = {}
    for each in quantisers:
        if each.output in nodes:
            own = _function(nodes[each.output])
            steps = values[each.output] / each.function.output_step
            level = np.round(steps - each.function.lowest_level)
            found[each.output] = own.output_step * (own.lowest_level + level)
    return found


def as_in_file(network: Snn, feeds: Mapping[str, Array], dtype: np.dtype[Any]) -> dict[str, Array]:
    """What the quantisers of ``network`` make of ``feeds`` in its file's float type, by tensor."""
    firing = {id(node): node.name for node in neuron_nodes(network.graph)}
    names = [node.outputs[0].name for node in _in_front(network.graph, firing)]
    return evaluate(network.graph, feeds, names, dtype=dtype) if names else {}


def _in_front(graph: gs.Graph, firing: Mapping[int, str]) -> Iterator[gs.Node]:
    """The Staircase nodes that are none of ``firing``, and depend on none."""
    staircases = (n for n in graph.nodes if is_ours(n, "Staircase") and id(n) not in firing)
    return (node for node in staircases if not spiking_behind(node.inputs[:1], firing))


def _function(node: gs.Node) -> Staircase:
    function = read_activation(node)
    assert isinstance(function, Staircase)
    return function
