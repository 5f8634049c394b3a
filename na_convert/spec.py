"""What must hold of every graph between two passes; the pipeline checks it after each."""

from __future__ import annotations

from collections import Counter

import onnx_graphsurgeon as gs

from .errors import PassFailed
from .graph import is_constant, is_missing, is_ours, label, producer
from .neurons import ACTIVATION_OPS
from .regions import data_inputs, descendants, spiking_nodes
from .snn import STATEFUL_OPS, neuron_nodes


def check_graph(graph: gs.Graph, after: str) -> None:
    """Raise PassFailed, naming the pass ``after``, unless ``graph`` is well formed.

    Nodes are in topological order; each tensor has one producer and a name of its own; each node
    input is produced, constant, a graph input or left out; each graph output is produced.
    """
    available = {t.name for t in graph.inputs}
    produced = Counter(t.name for node in graph.nodes for t in node.outputs if t.name)
    for name, count in produced.items():
        if count > 1 or name in available:
            raise PassFailed(
                f"after {after}: tensor {name!r} is produced more than once", node=name
            )
    for node in graph.nodes:
        for tensor in node.inputs:
            if not (is_missing(tensor) or is_constant(tensor) or tensor.name in available):
                raise PassFailed(
                    f"after {after}: {label(node)} reads {tensor.name!r} before it is computed",
                    node=label(node),
                )
        available.update(t.name for t in node.outputs)
    for tensor in graph.outputs:
        if tensor.name not in available and not is_constant(tensor):
            raise PassFailed(
                f"after {after}: output {tensor.name!r} is not computed", node=tensor.name
            )


def check_spiking(graph: gs.Graph, after: str) -> None:
    """Raise PassFailed unless the borders of time are marked, as `na_convert.snn` describes.

    No tensor that is constant over time enters a spiking node without Encode, no spiking tensor
    leaves without Decode, and no activation is left between neurons.
    """
    neurons = neuron_nodes(graph)
    spiking = {id(n) for n in spiking_nodes(graph, neurons)}
    timed = descendants(graph, neurons) | {id(n) for n in neurons}
    for node in graph.nodes:
        if is_ours(node, "Encode", "Decode"):
            continue
        if id(node) in spiking:
            _check_spiking_node(node, timed, after)
        elif is_ours(node, *STATEFUL_OPS):
            raise PassFailed(f"after {after}: {label(node)} keeps state outside the spiking region")
        else:
            for tensor in data_inputs(node):
                source = producer(tensor)
                if source is not None and id(source) in spiking and not is_ours(source, "Decode"):
                    raise PassFailed(f"after {after}: no Decode before {label(node)}")
    for tensor in graph.outputs:
        source = producer(tensor)
        if source is not None and id(source) in spiking:
            raise PassFailed(f"after {after}: no Decode before the output {tensor.name!r}")


def _check_spiking_node(node: gs.Node, timed: set[int], after: str) -> None:
    if is_ours(node, *ACTIVATION_OPS):
        raise PassFailed(f"after {after}: activation {label(node)} is left between neurons")
    for tensor in data_inputs(node):
        source = producer(tensor)
        encoded = source is not None and (id(source) in timed or is_ours(source, "Encode"))
        if not is_constant(tensor) and not encoded:
            raise PassFailed(f"after {after}: no Encode between {tensor.name!r} and {label(node)}")
