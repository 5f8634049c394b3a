"""The folded form: time lies in the batch, ``[T * N, ...]``, time-major; T is an input.

Readable in Netron (one node per neuron layer) and runnable for any T and N on stock onnxruntime.
``timesteps`` is an initialiser that is also a graph input: a default that a caller may override.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..errors import ModelError
from ..graph import Parts, all_nodes, export_parts, import_graph, is_ours
from ..shapes import annotate
from ..snn import STATEFUL_OPS, TIMESTEPS, Snn, neurons_from, require_form, written_as
from .documentation import document

FORM = "folded"
TIMED_OPS = (*STATEFUL_OPS, "Encode", "Decode")


def to_folded(snn: Snn) -> onnx.ModelProto:
    """The model of ``snn``, weights inside; see `folded_parts`."""
    return folded_parts(snn).whole()


def folded_parts(snn: Snn) -> Parts:
    """The model of ``snn``; its nodes and tensors have the names they have in ``snn.graph``.

    Raises ModelError where the network already has a tensor called ``timesteps``.
    """
    graph = snn.graph.copy()
    if TIMESTEPS in graph.tensors():
        raise ModelError(
            f"the network has a tensor called {TIMESTEPS!r}",
            node=TIMESTEPS,
            remedy="rename it in the export: the SNN needs that name",
        )
    timesteps = gs.Variable(TIMESTEPS, np.dtype(np.int64), [])
    graph.inputs.append(timesteps)
    for node in graph.nodes:
        if is_ours(node, *TIMED_OPS):
            node.inputs.insert(1, timesteps)
    parts = export_parts(graph, written_as(snn, FORM))
    model = parts.light
    default = onnx.numpy_helper.from_array(np.asarray(snn.timesteps, np.int64), TIMESTEPS)
    model.graph.initializer.append(default)
    how = [
        "runs any number of time steps: input timesteps, a default that",
        "may be left out; outputs are those on the mean over the steps",
        "between Encode and Decode tensors are [T*N, ...], time-major",
    ]
    document(model, snn, FORM, how, {TIMESTEPS: "number of time steps T; may be left out"})
    annotate(parts)
    return parts


def from_folded(model: onnx.ModelProto) -> Snn:
    """The description behind a folded file; raises ModelError if it is none of ours."""
    graph, carried = import_graph(model)
    props = carried.metadata
    require_form(props, FORM)
    for node in all_nodes(graph):
        if is_ours(node, *TIMED_OPS):
            del node.inputs[1]
    graph.inputs = [t for t in graph.inputs if t.name != TIMESTEPS]
    graph.cleanup().toposort()
    return Snn(graph, neurons_from(props), int(props["na_convert.timesteps"]), carried)
