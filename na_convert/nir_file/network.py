"""A NIR graph as plain data: what `lowering` makes and `file` writes.

Shapes are of one sample, without batch and time, as NIR has them. Edges into one node add up.

=============  =====================================================================================
``Input``      the network's input, the same at every time step
``Conv1d/2d``  ``weight`` [O, I, ...], ``bias`` [O], ``stride`` and ``padding`` per axis; no groups,
               no dilation: both are written into the weights
``Affine``     ``weight`` [O, I], ``bias`` [O]
``SumPool2d``  ``kernel_size`` and ``stride``; without padding
``Flatten``    of all axes
``IF``         threshold 1, r = 1, spikes of 1; ``initial`` is the membrane before the first step
``Output``     currents at each step; their mean over the steps is the ANN's output
=============  =====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

LINEAR = ("Conv1d", "Conv2d", "Affine")


@dataclass(frozen=True)
class Node:
    """One node of a NIR graph.

    Attributes:
        kind: NIR's name for it, one of the table above.
        given, shape: of its input and its output.
        values: its parameters by NIR's names; float32 arrays, and whole numbers per axis.
        onnx: the node or tensor of the SNN that it stands for.
        initial: membrane of an IF before the first step; a number, or one per channel.
    """

    kind: str
    given: Shape
    shape: Shape
    values: dict[str, Array] = field(default_factory=dict)
    onnx: str = ""
    initial: float | Array = 0.0


@dataclass(frozen=True)
class Network:
    """A NIR graph.

    Attributes:
        nodes: by name, in an order in which they can run.
        input: the SNN's tensor that the Input node receives.
        outputs: the SNN's tensor that each Output node gives, by the node's name.
        layers: the IF node of each neuron layer, by the layer's name.
        statements: what is left to whoever runs the file.
    """

    nodes: dict[str, Node]
    edges: tuple[tuple[str, str], ...]
    input: str
    outputs: dict[str, str]
    layers: dict[str, str]
    statements: tuple[str, ...] = ()


def tidied(network: Network) -> Network:
    """The same with fewer nodes: no scaling behind weights, no weights beside each other."""
    return _without_twins(_without_needless_scaling(network))


def _without_twins(network: Network) -> Network:
    """Linear nodes with the same inputs, geometry and reader become one, the sum of both: the parts
    of a stem on grids (`passes.stem_parts`), which fit into float32 together."""
    nodes, edges = dict(network.nodes), list(network.edges)
    known: dict[tuple[object, ...], str] = {}
    for name, node in network.nodes.items():
        if node.kind not in LINEAR:
            continue
        ends = tuple(sorted(a for a, b in edges if b == name))
        readers = tuple(b for a, b in edges if a == name)
        shape = [values.shape for values in node.values.values()]
        steps = [tuple(node.values[k]) for k in ("stride", "padding") if k in node.values]
        twin = known.setdefault((node.kind, ends, readers, str(shape), str(steps)), name)
        if twin == name or len(readers) != 1:
            continue
        both = {k: nodes[twin].values[k] + node.values[k] for k in ("weight", "bias")}
        nodes[twin] = replace(nodes[twin], values={**node.values, **both})
        del nodes[name]
        edges = [(a, b) for a, b in edges if name not in (a, b)]
    return replace(network, nodes=nodes, edges=tuple(edges))


def _without_needless_scaling(network: Network) -> Network:
    """Channel-by-channel factors behind a linear node that nobody else reads go into its weights.

    Such a node is a 1x1 convolution (or an Affine) with one input; ``network`` computes the same.
    """
    nodes, edges = dict(network.nodes), list(network.edges)
    for name, node in list(nodes.items()):
        before = [a for a, b in edges if b == name]
        if not _is_pointwise(node) or len(before) != 1:
            continue
        source = nodes[before[0]]
        readers = [b for a, b in edges if a == before[0]]
        if source.kind not in LINEAR or len(readers) != 1:
            continue
        nodes[before[0]] = _joined(source, node)
        del nodes[name]
        edges = [(before[0] if a == name else a, b) for a, b in edges if b != name]
    return replace(network, nodes=nodes, edges=tuple(edges))


def _is_pointwise(node: Node) -> bool:
    """Whether ``node`` mixes channels alone."""
    if node.kind == "Affine":
        return node.onnx.startswith(SCALING)
    return (
        node.kind in LINEAR
        and all(n == 1 for n in node.values["weight"].shape[2:])
        and all(s == 1 for s in node.values["stride"])
        and not any(node.values["padding"])
        and node.onnx.startswith(SCALING)
    )


SCALING = "scaling of "  # what `onnx` of a node begins with that the SNN has none for


def _joined(first: Node, second: Node) -> Node:
    """The linear node that does what both do."""
    mixing = second.values["weight"].astype(np.float64)
    mixing = mixing.reshape(mixing.shape[:2])
    weight = np.tensordot(mixing, first.values["weight"].astype(np.float64), axes=1)
    bias = mixing @ first.values["bias"].astype(np.float64) + second.values["bias"]
    values = {
        **first.values,
        "weight": weight.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    return replace(first, shape=second.shape, values=values)
