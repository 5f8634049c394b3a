"""The int8 form for any number of steps up to one that is proved: one step inside an ONNX Loop.

``timesteps`` is an initialiser that is also a graph input, as in the folded form. Fewer than one or
more than the T that is proved fail in the file itself, as in the step form: the number is looked up
in a table that ends there.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .. import graph as g
from ..errors import ModelError
from ..graph import Parts, constant, export_parts
from ..integer import IntegerNetwork, Layer
from ..integer_moves import Move
from ..snn import TIMESTEPS
from .documentation import document_integer
from .int8_file import KEY, describe
from .int8_nodes import StepBuilder, Tensors, counts_name, theta_of

FORM = "int8-loop"
FINAL = "_final"
_HOW = (
    "whole numbers: int8 weights, uint8 counts of spikes, int32 sums",
    "input timesteps: up to T; the Loop called time makes one a turn",
)


def int8_loop_parts(network: IntegerNetwork) -> Parts:
    """The model of ``network`` for 1 to its largest number of steps.

    Raises ModelError where the network already has a tensor called ``timesteps``.
    """
    graph = network.snn.graph.copy()
    if TIMESTEPS in graph.tensors():
        raise ModelError(
            f"the network has a tensor called {TIMESTEPS!r}",
            node=TIMESTEPS,
            remedy="rename it in the export: the SNN needs that name",
        )
    timesteps = gs.Variable(TIMESTEPS, np.dtype(np.int64), [])
    outside = StepBuilder(graph, network)
    units = outside.units()
    one = outside.constant("timesteps", "one", np.asarray(1, np.int64))
    index = outside.emit("Sub", [timesteps, one], "steps_before", "steps_before", np.int64,
                         domain="")  # fmt: skip
    trips = outside.proved(index, "timesteps_made")
    body = gs.Graph(nodes=[], inputs=[], outputs=[], opset=graph.opset, name="time_step")
    inside = StepBuilder(body, network)
    before = _step(body, inside, network, units)
    layers = network.layers
    starts = [_zeros(outside, graph, layer) for layer in layers]
    finals = [gs.Variable(f"{counts_name(e.output)}{FINAL}", np.dtype(np.uint8)) for e in layers]
    always = constant("always", np.asarray(True))
    loop = g.node("Loop", [trips, always, *starts], list(finals), "time", {"body": body})
    graph.nodes.append(loop)
    assert len(before) == len(finals)
    counts: Tensors = {layer.output: t for layer, t in zip(layers, finals, strict=True)}
    for operation in network.operations:
        if isinstance(operation, Move):
            sources = [counts[s] for s in operation.sources]
            counts[operation.output] = outside.move(operation, sources, FINAL)
    outside.read_out(counts, trips)
    graph.inputs.append(timesteps)
    graph.cleanup().toposort()
    own = {"na_convert.form": FORM, KEY: describe(inside, outside)}
    parts = export_parts(graph, network.snn.carried.with_metadata(own))
    default = onnx.numpy_helper.from_array(np.asarray(network.timesteps, np.int64), TIMESTEPS)
    parts.light.graph.initializer.append(default)
    what = {TIMESTEPS: f"number of time steps, 1 to {network.timesteps}; may be left out"}
    document_integer(parts.light, network, FORM, _HOW, what)
    return parts


def _step(
    body: gs.Graph, inside: StepBuilder, network: IntegerNetwork, units: Tensors
) -> list[gs.Variable]:
    """Fill the loop's body; returns the counts that enter it."""
    index = gs.Variable("step_index", np.dtype(np.int64), [])
    going = gs.Variable("going_on", np.dtype(np.bool_), [])
    before = [
        gs.Variable(f"{counts_name(e.output)}_before", np.dtype(np.uint8), _shape(e))
        for e in network.layers
    ]
    one = inside.constant("step", "one", np.asarray(1, np.int64))
    now = inside.emit("Add", [index, one], "step", "step", np.int64, domain="")
    time = LoopTime(inside, now)
    known = {layer.output: t for layer, t in zip(network.layers, before, strict=True)}
    counts = inside.step("", known, units, time)
    still = inside.emit("Identity", [going], "go_on", "going_on_next", np.bool_, domain="")
    still.shape = []
    body.inputs = [index, going, *before]
    body.outputs = [still, *(counts[layer.output] for layer in network.layers)]
    for layer in network.layers:
        counts[layer.output].shape = _shape(layer)
    return before


def _shape(layer: Layer) -> list[str | int]:
    return ["N", *layer.shape]


def _zeros(builder: StepBuilder, graph: gs.Graph, layer: Layer) -> gs.Variable:
    """Counts before the first step, [N, ...]."""
    name = f"{counts_name(layer.output)}_start"
    batch = builder.emit("Shape", [graph.inputs[0]], f"{name}_batch", f"{name}_batch", np.int64,
                         {"start": 0, "end": 1}, domain="")  # fmt: skip
    rest = builder.constant(name, "shape", np.asarray(layer.shape, np.int64))
    shape = builder.emit("Concat", [batch, rest], f"{name}_size", f"{name}_size", np.int64,
                         {"axis": 0}, domain="")  # fmt: skip
    zero = builder.constant("counts", "zero", np.asarray(0, np.uint8))
    return builder.emit("Expand", [zero, shape], name, name, np.uint8, domain="")


class LoopTime:
    """The time where it is known when the file runs: ``now`` is the number of the step, from 1."""

    def __init__(self, builder: StepBuilder, now: gs.Variable) -> None:
        self._whole = builder.emit("Cast", [now], "step_int32", "step_int32", np.int32,
                                   {"to": int(onnx.TensorProto.INT32)}, domain="")  # fmt: skip
        self._float = builder.emit("Cast", [now], "step_float", "step_float", np.float32,
                                   {"to": int(onnx.TensorProto.FLOAT)}, domain="")  # fmt: skip

    def bias(self, builder: StepBuilder, layer: Layer) -> gs.Tensor:
        bias = np.broadcast_to(layer.bias, layer.threshold.shape).reshape(-1).astype(np.int32)
        per_step = builder.constant(layer.name, "bias", bias)
        name = f"{layer.name}_bias_now"
        return builder.emit("Mul", [per_step, self._whole], name, name, np.int32, domain="")

    def constant(
        self,
        builder: StepBuilder,
        layer: Layer,
        units: gs.Tensor,
        before: gs.Tensor | None,
        suffix: str,
    ) -> gs.Variable:
        name = f"{layer.name}_units_now"
        total = builder.emit("Mul", [units, self._float], name, name, np.float32, domain="")
        theta = builder.constant(layer.name, "theta", theta_of(layer))
        return builder.if_constant(layer, total, theta, suffix)

    def wide(self, builder: StepBuilder, layer: Layer) -> list[gs.Tensor]:
        return [self.wide_bias(builder, layer), self._float]

    def wide_bias(self, builder: StepBuilder, layer: Layer) -> gs.Variable:
        """``t * b`` in float32."""
        per_step = builder.constant(layer.name, "bias", layer.bias.astype(np.float32))
        name = f"{layer.name}_bias_now"
        return builder.emit("Mul", [per_step, self._float], name, name, np.float32, domain="")
