"""The int8 form with a fixed number of time steps: one node per neuron layer and step."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph import Parts, constant, export_parts
from ..integer import IntegerNetwork
from .documentation import document_integer
from .int8_file import KEY, describe
from .int8_nodes import StepBuilder, Time

FORM = "int8-unrolled"
_HOW = (
    "whole numbers: int8 weights, uint8 counts of spikes, int32 sums",
    "makes exactly T time steps; LAYER_t3 is a neuron layer at step 3",
)


def int8_parts(network: IntegerNetwork) -> Parts:
    """The model of ``network`` for exactly its largest number of steps."""
    steps = network.timesteps
    graph = network.snn.graph.copy()
    builder = StepBuilder(graph, network)
    units = builder.units()
    counts = None
    made: list[gs.Tensor] = []
    for t in range(1, steps + 1):
        counts = builder.step(f"_t{t}", counts, units, Time(t))
        made += counts.values()
    assert counts is not None
    builder.read_out(counts, constant("timesteps", np.asarray(steps, np.int64)))
    outputs = list(graph.outputs)
    graph.outputs += [tensor for tensor in made if tensor not in outputs]  # kept, read or not
    graph.cleanup().toposort()
    graph.outputs = outputs
    own = {"na_convert.form": FORM, KEY: describe(builder)}
    parts = export_parts(graph, network.snn.carried.with_metadata(own))
    document_integer(parts.light, network, FORM, _HOW)
    return parts
