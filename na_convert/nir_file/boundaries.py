"""Where the NIR graph begins and ends in an SNN, and what is left to whoever runs it.

It begins at the network's input, or behind a quantiser of that input, which NIR cannot hold; it
ends at the network's outputs, or in front of the first thing in the readout that is not linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .. import graph as g
from ..errors import NotConvertible
from ..evaluate import evaluate
from ..regions import MOVING, ancestors, data_inputs, descendants
from ..snn import neuron_nodes
from .network import Array, Shape
from .operators import OPERATORS

MOVED = (*MOVING, "Cast", "Dropout", "Expand", "Pad")  # what `movement` finds out by running it


@dataclass(frozen=True)
class Boundaries:
    """The part of a graph that is written.

    Attributes:
        nodes: that hold data, in order; between `input` and `outputs`.
        input: the tensor that NIR's Input stands for, and its shape, of one sample.
        outputs: the tensors that NIR's Outputs stand for.
        statements: what is computed outside.
    """

    nodes: tuple[gs.Node, ...]
    input: str
    shape: Shape
    outputs: tuple[str, ...]
    statements: tuple[str, ...]


def boundaries(graph: gs.Graph, feeds: Mapping[str, Array]) -> Boundaries:
    """Where to cut ``graph``; ``feeds`` are samples of its inputs.

    Raises NotConvertible where more than one tensor would have to be given.
    """
    neurons = neuron_nodes(graph)
    ends, said = _ends(graph, neurons)
    entry, more = _entry(graph, neurons, ends)
    nodes = _between(graph, entry, ends)
    shape = evaluate(graph, feeds, [entry])[entry].shape[1:]
    return Boundaries(nodes, entry, shape, tuple(ends), (*more, *said))


def _known(node: gs.Node) -> bool:
    """Whether there is a NIR counterpart, as far as the operator goes."""
    if g.is_ours(node):
        return node.op in (*OPERATORS, "Encode", "Decode")
    return g.is_standard(node, *OPERATORS, *MOVED)


def _ends(graph: gs.Graph, neurons: Sequence[gs.Node]) -> tuple[list[str], list[str]]:
    """The tensors at which the graph ends: in front of what is not linear."""
    readout = descendants(graph, neurons) - ancestors(graph, neurons)
    ends: list[str] = []
    said: list[str] = []
    for output in graph.outputs:
        tensor = output
        behind = {id(n) for n in _upstream([output])} & readout
        unknown = [n for n in graph.nodes if id(n) in behind and not _known(n)]
        if unknown:
            data = [t for t in data_inputs(unknown[0]) if not g.is_constant(t)]
            if len(data) == 1:
                tensor = data[0]
                said.append(
                    f"the Output gives {tensor.name!r}: {g.label(unknown[0])!r} "
                    f"({unknown[0].op}) and what follows up to {output.name!r} is computed outside "
                    "on its mean over the time steps"
                )
        if tensor.name not in ends:
            ends.append(tensor.name)
    return ends, said


def _entry(
    graph: gs.Graph, neurons: Sequence[gs.Node], ends: Sequence[str]
) -> tuple[str, list[str]]:
    """The tensor at which the graph begins: behind what NIR cannot hold in front of the neurons."""
    tensors = graph.tensors()
    needed = {id(n) for n in _upstream([tensors[name] for name in ends])}
    later = descendants(graph, neurons) | {id(n) for n in neurons}
    analog = [n for n in graph.nodes if id(n) in needed - later]
    unknown = [n for n in analog if not _known(n)]
    if not unknown:
        name = graph.inputs[0].name
        others = _read_beside(graph, name, ends)
        if others:
            raise NotConvertible(
                f"the network reads {others[0]!r} beside {name!r}: a NIR graph has one Input",
                node=others[0],
                remedy="export the ANN with one input",
            )
        return name, []
    behind = analog[analog.index(unknown[-1]) :]
    for node in behind:
        name = node.outputs[0].name
        if not _read_beside(graph, name, ends):
            return name, [
                f"the Input takes {name!r}: {g.label(node)!r} ({node.op}) and what comes before it "
                "is computed outside, by the ONNX model in the metadata (input_model)"
            ]
    raise NotConvertible(
        f"{g.label(unknown[-1])!r} ({unknown[-1].op}) cannot be written to NIR, and what it gives "
        "is not all that the neurons get",
        node=g.label(unknown[-1]),
        remedy="a NIR graph has one Input: quantise it, or not, for all that comes after",
    )


def _read_beside(graph: gs.Graph, entry: str, ends: Sequence[str]) -> list[str]:
    """Tensors that nothing computes and that are needed beside ``entry``."""
    return [
        t.name
        for n in _between(graph, entry, ends)
        for t in data_inputs(n)
        if t.name != entry and not t.inputs and not g.is_constant(t)
    ]


def _between(graph: gs.Graph, entry: str, ends: Sequence[str]) -> tuple[gs.Node, ...]:
    tensors = graph.tensors()
    needed = {id(n) for n in _upstream([tensors[name] for name in ends], entry)}
    return tuple(n for n in graph.nodes if id(n) in needed)


def _upstream(tensors: Sequence[gs.Tensor], stop: str = "") -> list[gs.Node]:
    """The nodes that ``tensors`` get data from, down to the tensor ``stop``."""
    found: dict[int, gs.Node] = {}
    waiting = [t for t in tensors if t.name != stop]
    while waiting:
        for node in waiting.pop().inputs:
            if id(node) not in found:
                found[id(node)] = node
                waiting += [t for t in data_inputs(node) if t.name != stop]
    return list(found.values())
