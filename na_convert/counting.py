"""An SNN run once for T steps: its outputs at every step, and per layer sums in place of records.

Where `simulation` keeps every current and spike ``[T, N, ...]``, here only the number of spikes and
the sum of the current of each neuron leave the engine, ``[N, ...]``: onnxruntime adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray

from . import neurons, snn
from .cut import Runner, cut_model, light_of
from .evaluate import evaluate
from .forms import folded
from .graph import is_ours
from .running import file_engine, form_name
from .runtime import Model
from .simulation import layers_with_state
from .snn import TIMESTEPS, Snn

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Counted:
    """What an SNN did on N samples.

    Attributes:
        outputs: by name, for each number of steps from 1 to T.
        counts: by node name of the neuron layer: at how many of the first steps each neuron
            fired, ``[N, ...]``.
        totals: the sum of its current over these steps.
    """

    outputs: dict[int, dict[str, Array]]
    counts: dict[str, Array]
    totals: dict[str, Array]


Counter: TypeAlias = Callable[[Mapping[str, Array]], Counted]


# --- onnxruntime: the file ------------------------------------------------------------------------


def file_counter(model: Model, timesteps: int, first: int, layers: Sequence[str]) -> Counter:
    """``model``, an SNN file of any form, for ``timesteps`` steps; counts and totals of ``layers``
    over the ``first`` of them."""
    if form_name(model) == folded.FORM:
        return folded_counter(model, timesteps, first, layers)
    engine = file_engine(model, timesteps, layers)

    def run(feeds: Mapping[str, Array]) -> Counted:
        found = engine(feeds)
        return Counted(
            found.outputs,
            {k: np.count_nonzero(v[:first], axis=0) for k, v in found.spikes.items()},
            {k: v[:first].sum(axis=0) for k, v in found.currents.items()},
        )

    return run


def folded_counter(model: Model, timesteps: int, first: int, layers: Sequence[str]) -> Counter:
    """The same for a folded file: onnxruntime adds up, so that no record is made."""
    graph = light_of(model).graph
    ours = [n for n in graph.node if n.domain == neurons.DOMAIN]
    firing = [n for n in ours if n.op_type in neurons.NEURON_OPS and n.name in layers]
    decoded = {n.output[0]: n.input[0] for n in ours if n.op_type == "Decode"}
    counts = {n.name: f"{n.output[0]}/count" for n in firing}
    totals = {n.name: f"{n.input[0]}/total" for n in firing}
    added = _time_axis(first)
    for node in firing:
        added += _summed(node.output[0], counts[node.name], spikes=True)
    for current in dict.fromkeys(n.input[0] for n in firing):
        added += _summed(current, f"{current}/total", spikes=False)
    names = [o.name for o in graph.output]
    wanted = [*decoded.values(), *counts.values(), *totals.values()]
    spiking = cut_model(model, (), list(dict.fromkeys(wanted)), added=added)
    readout = cut_model(model, list(decoded), [n for n in names if n not in decoded])

    def run(feeds: Mapping[str, Array]) -> Counted:
        values = spiking({**feeds, TIMESTEPS: np.asarray(timesteps, np.int64)})
        return Counted(
            _outputs(values, decoded, readout, feeds, names, timesteps),
            {name: values[tensor] for name, tensor in counts.items()},
            {name: values[tensor] for name, tensor in totals.items()},
        )

    return run


def _outputs(
    values: Mapping[str, Array],
    decoded: Mapping[str, str],
    readout: Runner,
    feeds: Mapping[str, Array],
    names: Sequence[str],
    timesteps: int,
) -> dict[int, dict[str, Array]]:
    """At every number of steps: the readout of the mean over the steps so far."""
    sums = {
        mean: np.cumsum(values[name].reshape(timesteps, -1, *values[name].shape[1:]), axis=0)
        for mean, name in decoded.items()
    }
    outputs = {}
    for t in range(1, timesteps + 1):
        mean = {name: (total[t - 1] / t).astype(total.dtype) for name, total in sums.items()}
        read = {**mean, **readout({**feeds, **mean})}
        outputs[t] = {name: read[name] for name in names}
    return outputs


_TIME, _MINUS1, _ZERO, _FIRST = "/time", "/minus1", "/zero", "/first"  # names no exporter gives


def _time_axis(first: int) -> list[onnx.NodeProto]:
    make = onnx.helper.make_node
    return [
        make("Constant", [], [_MINUS1], value_ints=[-1]),
        make("Constant", [], [_ZERO], value_ints=[0]),
        make("Constant", [], [_FIRST], value_ints=[first]),
        make("Reshape", [TIMESTEPS, _MINUS1], [_TIME]),
    ]


def _summed(tensor: str, result: str, *, spikes: bool) -> list[onnx.NodeProto]:
    """Nodes that sum ``tensor`` [T*N, ...] over the first steps; of ``spikes`` the number."""
    make = onnx.helper.make_node
    rest, wide, whole, part = (f"{result}/{name}" for name in ("rest", "wide", "whole", "part"))
    nodes = [
        make("Shape", [tensor], [rest], start=1),
        make("Concat", [_TIME, _MINUS1, rest], [wide], axis=0),
        make("Reshape", [tensor, wide], [whole]),
        make("Slice", [whole, _ZERO, _FIRST, _ZERO], [part]),
    ]
    if spikes:
        fired, number = f"{result}/fired", f"{result}/number"
        nodes.append(make("Cast", [part], [fired], to=onnx.TensorProto.BOOL))
        nodes.append(make("Cast", [fired], [number], to=onnx.TensorProto.FLOAT))
        part = number
    nodes.append(make("ReduceSum", [part, _ZERO], [result], keepdims=0))
    return nodes


# --- numpy: the equations -------------------------------------------------------------------------


def numpy_counter(
    network: Snn,
    timesteps: int,
    first: int,
    layers: Sequence[str],
    dtype: DTypeLike = np.float64,
) -> Counter:
    """The same from the equations, for files that onnxruntime does not run."""
    graph = network.graph
    firing = [n for n in snn.neuron_nodes(graph) if n.name in layers]
    currents = {n.name: n.inputs[0].name for n in firing}
    spikes = {n.name: n.outputs[0].name for n in firing}
    names = [o.name for o in graph.outputs]
    encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]
    decoded = {n.outputs[0].name: n.inputs[0].name for n in graph.nodes if is_ours(n, "Decode")}
    wanted = list(dict.fromkeys([*decoded.values(), *currents.values(), *spikes.values()]))

    def run(feeds: Mapping[str, Array]) -> Counted:
        constant = {**feeds, **evaluate(graph, feeds, encoded, dtype=dtype)}
        advance, outputs = layers_with_state(), {}
        sums: dict[str, Array] = {}
        counts: dict[str, Array] = {}
        totals: dict[str, Array] = {}
        for t in range(1, timesteps + 1):
            now = evaluate(graph, constant, wanted, dtype=dtype, stateful=advance)
            sums = {mean: sums.get(mean, 0) + now[name] for mean, name in decoded.items()}
            means = {mean: total / t for mean, total in sums.items()}
            outputs[t] = evaluate(graph, {**feeds, **means}, names, dtype=dtype)
            if t <= first:
                counts = {k: counts.get(k, 0) + (now[v] != 0) for k, v in spikes.items()}
                totals = {k: totals.get(k, 0) + now[v] for k, v in currents.items()}
        return Counted(outputs, counts, totals)

    return run
