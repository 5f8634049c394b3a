"""The analog part of a network on grids, so that every engine computes the same currents.

Integers from the first neurons on count alike in every engine, if they get the same current; that
current is a float sum, whose last bits depend on the order of addition. Here the part before the
neurons, and it alone, goes through `snap`: an SNN of nothing but that part, with neurons behind it,
is put on grids, and what computes its currents takes the place of the original. Names of the
currents stay, and so does what they are worth. Cases:

* a current that feeds neurons: on the grid that these neurons need;
* one that joins sums of spikes alone: on the grid of neurons with threshold 1;
* an input that is a current itself, or a network without an analog part: nothing to do;
* whatever `snap` cannot put on grids: the network stays as it was, and the reason is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import graph as g
from na_convert.exactness import Grids, grids_of, with_exactness
from na_convert.neurons import INITIAL_MEMBRANE, NEURON_OPS
from na_convert.results import Exactness, Neuron
from na_convert.shapes import of_one_step
from na_convert.snn import Snn
from na_convert.unit_scale import Shapes

from . import snap


def run(snn: Snn, bounds: Mapping[str, float], timesteps: int) -> tuple[Snn, Exactness]:
    """``snn`` with exact currents for inputs of at most ``bounds`` (by name); or the same, with the
    reason in the `Exactness`. The proof goes into the metadata."""
    currents = _currents(snn.graph)
    if not currents:
        exactness = Exactness(True, timesteps, dict(bounds))
        return with_exactness(snn, exactness, Grids()), exactness
    alone = _analog_part(snn, currents)
    if isinstance(alone, str):
        return snn, Exactness(False, timesteps, reason=alone)
    made, exactness = snap.run(alone, bounds, timesteps)
    if not exactness.exact:
        return snn, exactness
    graph = snn.graph.copy()
    names = _transplanted(made.graph, currents, graph)
    before = grids_of(made)
    grids = Grids(  # a Round behind a current was for the neurons of that part alone
        rounds=frozenset(names[name] for name in before.rounds & names.keys()),
        fine=frozenset(names[name] for name in before.fine),
    )
    return with_exactness(replace(snn, graph=graph), exactness, grids), exactness


def _currents(graph: gs.Graph) -> list[str]:
    """Analog tensors that are computed."""
    inputs = {t.name for t in graph.inputs}
    encoded = (n.inputs[0].name for n in graph.nodes if g.is_ours(n, "Encode"))
    return [name for name in dict.fromkeys(encoded) if name not in inputs]


def _analog_part(snn: Snn, currents: list[str]) -> Snn | str:
    """An SNN of ``currents``, each with neurons of its own behind it; its outputs are the currents,
    and the means of these neurons. A reason where there is none."""
    graph, shapes = snn.graph.copy(), of_one_step(snn)
    known = {n.name: n for n in snn.neurons}
    names, tensors = g.Names(graph), g.tensors_by_name(graph)
    neurons, means = [], []
    for name in currents:
        encode = next(n for n in graph.nodes if g.is_ours(n, "Encode") and
                      n.inputs[0].name == name)  # fmt: skip
        reader = next((n for n in encode.outputs[0].outputs if g.is_ours(n, *NEURON_OPS)), None)
        if reader is None:
            found = _neurons_of_one(name, names.fresh(f"{name}_neurons"), shapes)
            if found is None:
                return f"{name}: the size of its image is not known"
            spikes = gs.Variable(names.fresh(f"{name}_spikes"), np.dtype(np.float32))
            attributes: dict[str, object] = {
                "threshold": 1.0,
                "amplitude": 1.0,
                "initial": float(INITIAL_MEMBRANE),
            }
            graph.nodes.append(g.node("IF", [encode.outputs[0]], [spikes], found.name, attributes,
                                      "na_convert"))  # fmt: skip
        else:
            found, spikes = known[reader.name], reader.outputs[0]
        neurons.append(found)
        mean = gs.Variable(names.fresh(f"{name}_mean"), np.dtype(np.float32))
        graph.nodes.append(g.node("Decode", [spikes], [mean], names.fresh(f"{name}_decode"), {},
                                  "na_convert"))  # fmt: skip
        means.append(mean)
    graph.outputs = [*(tensors[name] for name in currents), *means]
    graph.cleanup().toposort()
    return replace(snn, graph=graph, neurons=tuple(neurons))


def _neurons_of_one(current: str, name: str, shapes: Shapes) -> Neuron | None:
    """Neurons of threshold 1 on ``current``: a measure for its grid."""
    size = shapes.get(current)
    if size is None or None in size:
        return None
    shape = tuple(int(n) for n in size if n is not None)
    return Neuron(name, current, name, "staircase", 1.0, 1.0, 1.0, 1.0, 1, 0.0, 0.5, "half_up",
                  True, shape)  # fmt: skip


def _transplanted(exact: gs.Graph, currents: list[str], graph: gs.Graph) -> dict[str, str]:
    """Let ``exact`` compute ``currents`` in ``graph``; new names of its nodes, by the old."""
    exact.outputs = [t for t in exact.outputs if t.name in currents]
    exact.cleanup().toposort()
    ends = {id(t): t.name for t in exact.outputs}
    inside, names = g.tensors_by_name(graph), g.Names(graph)
    for name in currents:
        inside[name].inputs.clear()
    taken: dict[int, gs.Tensor] = {}

    def here(tensors: Iterable[gs.Tensor]) -> list[gs.Tensor]:
        return [_here(t) for t in tensors]

    def _here(tensor: gs.Tensor) -> gs.Tensor:
        if id(tensor) in ends:
            return inside[ends[id(tensor)]]
        if any(tensor.name == t.name for t in exact.inputs):
            return inside[tensor.name]
        if id(tensor) not in taken:
            name = names.fresh(tensor.name) if tensor.name else ""
            taken[id(tensor)] = (
                g.constant(name, tensor.values)
                if g.is_constant(tensor)
                else gs.Variable(name, tensor.dtype)
            )
        return taken[id(tensor)]

    renamed = {}
    for node in exact.nodes:
        name = renamed[node.name] = names.fresh(node.name)
        inputs, outputs = here(node.inputs), here(node.outputs)
        attributes = dict(node.attrs)
        graph.nodes.append(g.node(node.op, inputs, outputs, name, attributes, node.domain or ""))
    graph.cleanup().toposort()
    return renamed
