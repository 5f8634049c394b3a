"""The int8 step form: one time step of the integer network, its state as inputs and outputs.

As in the float step form (`step`), each state is an input NAME, an initialiser that holds it before
the first step, and an output NAME_next:

======================  ============================  ==============================================
input                   shape                         state
======================  ============================  ==============================================
``LAYER_counts``        [N, ...] of the layer, uint8  spikes of a neuron layer up to now
``LAYER_current``       [N, ...], float32             sum of an analog current up to now, in whole
                                                      units; of a second one: ``_current1``, ...
``steps``               [], int64                     time steps made
======================  ============================  ==============================================

Max-pools and the readout work on counts up to now, and need no state of their own. The input may
change from step to step; its current into a layer is limited to what float32 can add up T times,
at least four thresholds a step. More steps than the T that is proved fail in the file itself: the
number of the step is looked up in a table that ends there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from ..graph import Parts
from ..integer import IntegerNetwork, Layer
from ..integer_bounds import FLOAT32
from ..snn import neuron_nodes
from .documentation import document_integer
from .int8_file import KEY, describe
from .int8_loop import LoopTime
from .int8_nodes import StepBuilder, counts_name, unit_key
from .step import HOW, STEPS, States

FORM = "int8-step"


def int8_step_parts(network: IntegerNetwork) -> Parts:
    """The model of ``network`` for one time step.

    Raises ModelError where the network already has a tensor with the name of a state.
    """
    network = for_changing_input(network)
    graph = network.snn.graph.copy()
    for node in neuron_nodes(graph):  # float, to be cut off: their names are those of the layers
        node.name = f"{node.name}_float"
    states = States(graph)
    steps = states.enter(STEPS, np.zeros((), np.int64))
    before = {
        layer.output: states.enter(counts_state(layer), np.zeros(_one_each(layer), np.uint8))
        for layer in network.layers
    }
    builder = StepBuilder(graph, network, states.names)
    now = builder.proved(steps, "step")
    totals = _totals(builder, states)
    counts = builder.step("", dict(before), dict(totals), StepTime(builder, now))
    builder.read_out(counts, now)
    for layer in network.layers:
        after = counts[layer.output]
        assert isinstance(after, gs.Variable)
        states.leave(before[layer.output], after, layer.shape)
    states.leave(steps, now, None)
    graph.cleanup().toposort()
    own = {"na_convert.form": FORM, KEY: describe(builder)}
    parts = states.export(network.snn.carried.with_metadata(own))
    document_integer(parts.light, network, FORM, HOW, states.docs())
    return parts


def counts_state(layer: Layer) -> str:
    """The name of the input that holds the counts of ``layer``."""
    return f"{layer.name}_counts"


def current_state(layer: Layer, index: int) -> str:
    """The name of the input that holds the sum of an analog current of ``layer``."""
    return f"{layer.name}_current{index or ''}"


def for_changing_input(network: IntegerNetwork) -> IntegerNetwork:
    """``network`` with the room that float32 leaves for analog currents: where these change from
    step to step, a neuron has to keep what is more than a threshold, or less than nothing."""
    most = np.asarray(FLOAT32 // (2 * network.timesteps), np.int64)
    operations = tuple(
        replace(op, analogs=tuple(replace(a, low=-most, high=most) for a in op.analogs))
        if isinstance(op, Layer) and op.constant
        else op
        for op in network.operations
    )
    return replace(network, operations=operations)


def _totals(builder: StepBuilder, states: States) -> dict[str, gs.Variable]:
    """Analog currents summed up to now, by layer and number (`unit_key`)."""
    units, totals = builder.units(), {}
    for layer in builder.network.layers:
        for index in range(len(layer.analogs)):
            before = states.enter(
                current_state(layer, index), np.zeros(_one_each(layer), np.float32)
            )
            key = unit_key(layer, index)
            totals[key] = builder.emit("Add", [before, units[key]], f"{before.name}_sum",
                                       f"{before.name}_sum", np.float32, domain="")  # fmt: skip
            states.leave(before, totals[key], (None,) * len(layer.shape))
    return totals


def _one_each(layer: Layer) -> list[int]:
    return [1] * (len(layer.shape) + 1)


class StepTime(LoopTime):
    """The time of a step file: analog currents come as sums up to now."""

    def __init__(self, builder: StepBuilder, now: gs.Variable) -> None:
        super().__init__(builder, now)
        self._once = builder.constant("step", "once", np.ones((), np.float32))

    def constant(
        self,
        builder: StepBuilder,
        layer: Layer,
        units: gs.Tensor,
        before: gs.Tensor | None,
        suffix: str,
    ) -> gs.Variable:
        assert before is not None
        theta = builder.constant(layer.name, "theta", np.asarray(layer.threshold, np.float32))
        name, output = layer.name + suffix, counts_name(layer.output) + suffix
        return builder.emit("IFAnalog", [units, before, theta], name, output, np.uint8)

    def wide(self, builder: StepBuilder, layer: Layer) -> list[gs.Tensor]:
        return [self.wide_bias(builder, layer), self._once]
