"""Values exactly on an edge between two levels: on the side that the ANN takes.

Zeros are on one where an edge lies at 0 (``x > 0``, sign, ceil) and a convolution has no bias. A
neuron fires from the threshold on, so an edge belongs to the level above; and what is added to its
current, for the place of the edges, is rounded to a grid, or to whole numbers. So it is rounded up
where the ANN takes the level above, too, and to less than it is, by a unit or a little more, where
the ANN takes the one below.

Cases, each with its test:

* a constant is added to the current alone: it is what is rounded
* none is, the current has other readers, or it is spread over time: one is added, 0 as yet, in
  front of where it is spread
* int8: the bias, in whole numbers (`quantise_weights`)
* rules that take now the one, now the other level (half to even, half away from zero): left
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.results import Neuron
from na_convert.snn import neuron_nodes

from .stem_parts import nearest

Array = NDArray[np.float64]

ABOVE, EITHER, BELOW = 1, 0, -1
_SIDES = {"floor": ABOVE, "half_up": ABOVE, "ceil": BELOW, "half_down": BELOW}


def sides(neurons: Sequence[Neuron]) -> dict[str, int]:
    """On which side the ANN has an edge, by neuron node: that of the level above, or below, or
    now the one, now the other."""
    return {n.name: _SIDES.get(n.tie_rule, EITHER) for n in neurons}


def edge_terms(graph: gs.Graph, neurons: Sequence[Neuron]) -> dict[str, int]:
    """By name, the Add nodes of constants to currents, and the side on which edges are to be.

    Adds such nodes where edges are to be below, and there is none.
    """
    side_of = sides(neurons)
    names, terms = g.Names(graph), {}
    for node in neuron_nodes(graph):
        side = side_of.get(node.name, EITHER)
        add = _own_term(graph, node)
        if add is None and side == BELOW:
            add = _add_term(graph, node, names)
        if add is not None:
            terms[add.name] = side
    graph.cleanup().toposort()
    return terms


def on_side(values: Array, exponent: int, side: int) -> Array:
    """``values`` on the grid of 2^exponent, next to where they are on ``side``.

    For `BELOW`, what is a quarter of a unit above the grid at most counts as on it: the float error
    of ``values``.
    """
    if side == EITHER:
        return np.asarray(nearest(values, exponent))
    unit = 2.0**exponent
    if side == ABOVE:
        return np.asarray(np.ceil(values / unit) * unit)
    return np.asarray((np.ceil(values / unit - 0.25) - 1) * unit)


def _own_term(graph: gs.Graph, node: gs.Node) -> gs.Node | None:
    encode = _encode(node)
    current = node.inputs[0] if encode is None else encode.inputs[0]
    alone = g.sole_consumer(graph, node.inputs[0]) and g.sole_consumer(graph, current)
    add = g.producer(current)
    if not alone or add is None or not g.is_standard(add, "Add"):
        return None
    return add if any(g.is_constant(t) for t in add.inputs) else None


def _add_term(graph: gs.Graph, node: gs.Node, names: g.Names) -> gs.Node:
    encode = _encode(node)
    current = node.inputs[0] if encode is None else encode.inputs[0]
    zero = g.constant(names.fresh(f"{current.name}_edge"), np.zeros((), np.float32))
    moved = gs.Variable(names.fresh(f"{current.name}_moved"), current.dtype)
    add = g.node("Add", [current, zero], [moved], names.fresh(f"{node.name}_edge"))
    graph.nodes.append(add)
    if encode is not None:
        spread = gs.Variable(names.fresh(f"{moved.name}_encoded"), moved.dtype)
        label = names.fresh(f"{node.name}_edge_encode")
        graph.nodes.append(g.node("Encode", [moved], [spread], label, {}, "na_convert"))
        moved = spread
    node.inputs = [moved, *node.inputs[1:]]
    return add


def _encode(node: gs.Node) -> gs.Node | None:
    before = g.producer(node.inputs[0])
    return before if before is not None and g.is_ours(before, "Encode") else None
