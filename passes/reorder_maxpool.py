"""Move a max-pool that follows the first neuron layer in front of it, where it is exact.

The pool then acts on a current that is constant over time, and is computed once. Max-pools after
later neurons stay: `to_spiking` turns them into ``MaxPoolCounts``.

Cases:

* activation of a constant current -> MaxPool: swapped; the pooled tensor keeps its name;
* several pools in a row: all swapped;
* the activation's output has other consumers or is a graph output: left, with a reason;
* the activation falls anywhere (negative step or gain): left, with a reason;
* the activation comes after another neuron layer: left (not this pass's business).

Source: ``max`` commutes with any function that never falls.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import Names, is_ours, is_standard, label, sole_consumer
from na_convert.neurons import ACTIVATION_OPS
from na_convert.regions import descendants
from na_convert.results import PassReport, Skip


def run(graph: gs.Graph) -> PassReport:
    """Swap what can be swapped; requires and ensures topological order."""
    names = Names(graph)
    activations = [node for node in graph.nodes if is_ours(node, *ACTIVATION_OPS)]
    later = descendants(graph, activations)
    changed = 0
    skipped: list[Skip] = []
    for activation in activations:
        if id(activation) in later:
            continue
        while pool := _following_pool(activation):
            reason = _obstacle(graph, activation)
            if reason:
                skipped.append(Skip(label(pool), reason))
                break
            _swap(activation, pool, names)
            changed += 1
    graph.toposort()
    return PassReport("reorder_maxpool", changed, tuple(skipped))


def _following_pool(activation: gs.Node) -> gs.Node | None:
    consumers = activation.outputs[0].outputs
    return next((n for n in consumers if is_standard(n, "MaxPool", "GlobalMaxPool")), None)


def _obstacle(graph: gs.Graph, activation: gs.Node) -> str | None:
    if sole_consumer(graph, activation.outputs[0]) is None:
        return f"the output of {label(activation)} is also used elsewhere"
    slopes = (
        [activation.inputs[1], activation.inputs[2]]
        if activation.op == "Staircase"
        else [activation.inputs[4]]
    )
    if any(np.any(t.values <= 0) for t in slopes):
        return f"{label(activation)} falls somewhere, so that a maximum does not commute with it"
    return None


def _swap(activation: gs.Node, pool: gs.Node, names: Names) -> None:
    root, pooled = activation.inputs[0], pool.outputs[0]
    inner = gs.Variable(names.fresh(f"{root.name}_pooled"), dtype=root.dtype)
    pool.inputs[0] = root
    pool.outputs = [inner, *pool.outputs[1:]]
    activation.inputs[0] = inner
    activation.outputs = [pooled]
