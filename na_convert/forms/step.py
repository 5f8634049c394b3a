"""The step form: one time step of the network, its state as inputs and outputs.

For streaming, for hardware work, and for reading. Beside the network's own inputs and outputs the
model has, for each state, an input NAME and an output NAME_next that holds it after the step:

======================  ============================  ==============================================
input                   shape                         state
======================  ============================  ==============================================
``LAYER_membrane``      [N, ...] of the layer         membrane of a neuron layer
``POOL_total``          [N, ...] in front of a pool   sums of spikes up to now (``MaxPoolCounts``)
``POOL_pooled``         [N, ...] behind it            their maxima
``DECODE_sum``          [N, ...]                      sum of what the readout takes the mean of
``steps``               []                            time steps made, int64
======================  ============================  ==============================================

Every state is an initialiser too, the state before the first step (of size 1 along axes that it
does not depend on): the first call gives the network's inputs alone, each later one also what the
call before returned. Outputs are those after the steps up to now. N is free, and stays the same
from the first step on. What is constant over time is computed at each step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .. import snn as description
from ..errors import ModelError
from ..graph import (
    Carried,
    Names,
    Parts,
    all_nodes,
    constant,
    export_parts,
    import_graph,
    is_ours,
)
from ..graph import node as make_node
from ..neurons import DOMAIN, NEURON_OPS
from ..shapes import annotate, of_one_step, rows_of_samples
from ..snn import Snn, neurons_from, require_form, written_as
from .documentation import document

FORM = "step"
STEPS = "steps"
NEXT = "_next"
_SUFFIXES = {
    "Encode": (),
    "Decode": ("sum",),
    "IF": ("membrane",),
    "IFPerChannel": ("membrane",),
    "MaxPoolCounts": ("total", "pooled"),
}
HOW = (
    "makes one time step; state NAME comes back as NAME_next",
    "first step: leave the states out; then pass on what came back",
    "outputs are those on the mean over the steps up to now",
)

Array = NDArray[Any]
Size = tuple[int | None, ...]


def to_step(snn: Snn) -> onnx.ModelProto:
    """The model of ``snn``, weights inside; see `step_parts`."""
    return step_parts(snn).whole()


def step_parts(snn: Snn) -> Parts:
    """The model of ``snn`` for one time step; nodes and tensors keep the names of ``snn.graph``.

    Raises ModelError where the network already has a tensor with the name of a state, or where the
    number of dimensions of a state cannot be inferred.
    """
    graph = snn.graph.copy()
    shapes, whole = of_one_step(snn), rows_of_samples(export_parts(snn.graph, snn.carried))
    dtype = description.float_type(description.neuron_nodes(graph)[0])
    kept = States(graph)
    steps, steps_next = _added(kept, STEPS, np.asarray(0, np.int64), None)
    for node in list(graph.nodes):
        if is_ours(node, *_SUFFIXES):
            _keep_state(node, shapes, whole, kept, steps, dtype)
    one = constant(kept.names.fresh("one_step"), np.asarray(1, np.int64))
    count = make_node("Add", [steps, one], [steps_next], kept.names.fresh("count_steps"))
    graph.nodes.append(count)
    parts = kept.export(written_as(snn, FORM))
    document(parts.light, snn, FORM, HOW, kept.docs())
    annotate(parts)
    return parts


def from_step(model: onnx.ModelProto) -> Snn:
    """The description behind a step file; raises ModelError if it is none of ours."""
    graph, carried = import_graph(model)
    props = carried.metadata
    require_form(props, FORM)
    names = states(model)
    for node in all_nodes(graph):
        op = node.op.removesuffix("Step")
        if is_ours(node) and op in _SUFFIXES and op != node.op:
            extra = len(_SUFFIXES[op]) + (op == "Decode")
            node.op = op
            node.inputs = [node.inputs[0], *node.inputs[1 + extra :]]
            node.outputs = [node.outputs[0]]
    graph.inputs = [t for t in graph.inputs if t.name not in names]
    graph.outputs = [t for t in graph.outputs if t.name not in names.values()]
    graph.cleanup().toposort()
    return Snn(graph, neurons_from(props), int(props["na_convert.timesteps"]), carried)


def states(model: onnx.ModelProto) -> dict[str, str]:
    """The states of a step file: the name of each one's input, and of its output."""
    pairs = {STEPS: STEPS + NEXT}
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type.endswith("Step"):
            pairs.update({out.removesuffix(NEXT): out for out in node.output[1:]})
    return pairs


class States:
    """The states of a graph: inputs and outputs that are added to it, and their first values."""

    def __init__(self, graph: gs.Graph) -> None:
        self.names = Names(graph)
        self.starts: dict[str, Array] = {}
        self._graph = graph

    def enter(self, name: str, start: Array) -> gs.Variable:
        """A new input; raises ModelError where its name, or that of its output, is taken."""
        for wanted in (name, name + NEXT):
            if self.names.fresh(wanted) != wanted:
                raise ModelError(
                    f"the network has a tensor called {wanted!r}",
                    node=wanted,
                    remedy="rename it in the export: the step form needs that name",
                )
        before = gs.Variable(name, start.dtype, [None] * start.ndim)
        self.starts[name] = start
        self._graph.inputs.append(before)
        return before

    def leave(
        self, before: gs.Variable, after: gs.Variable, size: Size | None, batch: str | None = "N"
    ) -> None:
        """``after`` becomes the output that belongs to ``before``; ``size`` without the batch."""
        after.name = before.name + NEXT
        after.shape = [] if size is None else [batch, *size]
        self._graph.outputs.append(after)

    def docs(self) -> dict[str, str]:
        """What each input and output is, for somebody who reads the file."""
        found = {}
        for name in self.starts:
            found[name] = "state before the step; left out: before the first step"
            found[name + NEXT] = f"state after the step: {name} of the next one"
        return found

    def export(self, carried: Carried) -> Parts:
        """The model of the graph, with the first values as initialisers."""
        parts = export_parts(self._graph, carried)
        for name, start in self.starts.items():
            parts.light.graph.initializer.append(onnx.numpy_helper.from_array(start, name))
        return parts


def _added(
    states: States, name: str, start: Array, size: Size | None, batch: str | None = "N"
) -> tuple[gs.Variable, gs.Variable]:
    before = states.enter(name, start)
    after = gs.Variable(name + NEXT, start.dtype)
    states.leave(before, after, size, batch)
    return before, after


def _keep_state(
    node: gs.Node,
    shapes: Mapping[str, Size | None],
    whole: Collection[str],
    kept: States,
    steps: gs.Variable,
    dtype: np.dtype[np.floating],
) -> None:
    """Turn ``node`` into its operator for one step, with its state as inputs and outputs."""
    x, y = node.inputs[0], node.outputs[0]
    made = []
    for suffix in _SUFFIXES[node.op]:
        like = y if suffix in ("membrane", "pooled") else x
        size = shapes[like.name]
        if size is None:
            raise ModelError(
                f"the shape of {x.name!r} is not known before the network runs, and its state "
                "needs one",
                node=node.name,
                remedy="export with sizes that are constant, or take another --form",
            )
        start = _start(node, len(size) + 1, dtype)
        batch = "N" if like.name in whole else None  # no name where rows are parts of samples
        made.append(_added(kept, f"{node.name}_{suffix}", start, size, batch))
    read = [before for before, _ in made]
    node.inputs = [x, *read, *([steps] if node.op == "Decode" else node.inputs[1:])]
    node.outputs = [y, *(after for _, after in made)]
    node.op = f"{node.op}Step"


def _start(node: gs.Node, rank: int, dtype: np.dtype[np.floating]) -> Array:
    """The state before the first step, of ``rank`` dimensions, 1 where it is the same along one."""
    if node.op not in NEURON_OPS:
        return np.zeros([1] * rank, dtype)
    p = description.parameters(node)
    start = np.asarray(p.threshold, dtype) * dtype.type(p.initial)
    return np.asarray(start).reshape([1] * (rank - start.ndim) + list(start.shape))
