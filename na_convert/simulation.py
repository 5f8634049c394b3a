"""Running an SNN time step by time step: in numpy from the equations, or the file in onnxruntime.

One run of T steps gives the outputs after 1, 2, ... T steps: the readout acts on the mean over the
steps so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike, NDArray

from . import kernels, neurons, snn
from .cut import cut_model
from .errors import DataError, ModelError, UsageError
from .evaluate import Stateful, evaluate
from .forms.folded import TIMESTEPS
from .graph import is_ours
from .neurons import IFState, MaxPoolCountsState
from .snn import Snn

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Simulation:
    """What an SNN did over T time steps, for N samples.

    Attributes:
        outputs: the network's outputs by name, for each number of steps from 1 to T.
        currents: of the recorded neuron layers by node name, ``[T, N, ...]``.
        spikes: their outputs, amplitude or 0, ``[T, N, ...]``.
    """

    outputs: dict[int, dict[str, Array]]
    currents: dict[str, Array]
    spikes: dict[str, Array]


Engine: TypeAlias = Callable[[Feeds], Simulation]


def simulate(
    source: Snn | onnx.ModelProto,
    feeds: Feeds,
    timesteps: int,
    *,
    record: Sequence[str] = (),
    batch: int = 64,
) -> Simulation:
    """Run ``source`` for ``timesteps`` steps on ``feeds`` [N, ...] by input name.

    An `Snn` runs in numpy, from the equations; the model of a folded file runs in onnxruntime.

    Args:
        record: names of neuron nodes whose currents and spikes are kept.
        batch: samples that run together; bounds the memory.

    Raises UsageError where ``timesteps`` is less than 1, ModelError where ``record`` names no
    neuron of the network or onnxruntime does not take the model.
    """
    if isinstance(source, Snn):
        engine = numpy_engine(source, timesteps, record)
    else:
        engine = onnxruntime_engine(source, timesteps, record)
    count = len(next(iter(feeds.values())))
    size = fixed_batch(source) or batch
    if count % size and fixed_batch(source):
        raise DataError(f"{count} samples do not fill batches of {size}, which the model fixes")
    parts = [
        engine({name: values[start : start + size] for name, values in feeds.items()})
        for start in range(0, count, size)
    ]
    return _joined(parts)


# --- numpy: the equations -------------------------------------------------------------------------


def numpy_engine(
    network: Snn, timesteps: int, record: Sequence[str] = (), dtype: DTypeLike = np.float32
) -> Engine:
    """``network`` for a fixed number of steps: constant part once, spiking part at each step,
    readout on the mean so far."""
    _check_timesteps(timesteps)
    graph = network.graph
    recorded = _recorded(
        {n.name: (n.inputs[0].name, n.outputs[0].name) for n in snn.neuron_nodes(graph)}, record
    )
    names = [o.name for o in graph.outputs]
    encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]
    decoded = [n for n in graph.nodes if is_ours(n, "Decode")]
    spiking = [n.inputs[0].name for n in decoded]
    each_step = [*spiking, *_both(recorded)]

    def run(feeds: Feeds) -> Simulation:
        constant = {**feeds, **evaluate(graph, feeds, encoded, dtype=dtype)}
        total = dict.fromkeys(spiking, np.zeros((), dtype))
        advance, outputs, steps = layers_with_state(), {}, []
        for t in range(1, timesteps + 1):
            now = evaluate(graph, constant, each_step, dtype=dtype, stateful=advance)
            total = {name: total[name] + now[name] for name in spiking}
            mean = {n.outputs[0].name: total[n.inputs[0].name] / t for n in decoded}
            outputs[t] = evaluate(graph, {**feeds, **mean}, names, dtype=dtype)
            steps.append({name: now[name] for name in _both(recorded)})
        currents = {k: np.stack([s[pair[0]] for s in steps]) for k, pair in recorded.items()}
        spikes = {k: np.stack([s[pair[1]] for s in steps]) for k, pair in recorded.items()}
        return Simulation(outputs, currents, spikes)

    return run


def layers_with_state() -> Stateful:
    """A function that advances neurons and max-pools by one time step at each call.

    The first call for a node starts it; see `neurons` for the equations.
    """
    states: dict[str, IFState | MaxPoolCountsState] = {}

    def advance(node: gs.Node, x: Array) -> Array:
        key = node.outputs[0].name
        if node.op == "MaxPoolCounts":
            return _advance_pool(node, x, states, key)
        state = states.get(key)
        if not isinstance(state, IFState):
            p = snn.parameters(node)
            state = states[key] = IFState.start(x, p.threshold, p.amplitude, p.initial)
        return state.step(x)

    return advance


def _advance_pool(
    node: gs.Node, x: Array, states: dict[str, IFState | MaxPoolCountsState], key: str
) -> Array:
    unit = x.dtype.type(node.attrs["unit"])  # pools counts, so that the differences are exact
    state = states.get(key)
    if not isinstance(state, MaxPoolCountsState):
        nothing = kernels.max_pool(node, [np.zeros_like(x)], x.dtype)
        state = states[key] = MaxPoolCountsState.start(x, nothing.shape)
    state.total = state.total + x / unit
    pooled = kernels.max_pool(node, [state.total], x.dtype)
    grown = np.asarray((pooled - state.pooled) * unit)
    state.pooled = pooled
    return grown


# --- onnxruntime: the file ------------------------------------------------------------------------


def onnxruntime_engine(
    model: onnx.ModelProto, timesteps: int, record: Sequence[str] = ()
) -> Engine:
    """The model of a folded file for a fixed number of steps, cut at its Decode nodes."""
    _check_timesteps(timesteps)
    ours = [n for n in model.graph.node if n.domain == neurons.DOMAIN]
    recorded = _recorded(
        {n.name: (n.input[0], n.output[0]) for n in ours if n.op_type in neurons.NEURON_OPS},
        record,
    )
    decoded = {n.output[0]: n.input[0] for n in ours if n.op_type == "Decode"}
    names = [o.name for o in model.graph.output]
    spiking = cut_model(model, (), [*decoded.values(), *_both(recorded)])
    readout = cut_model(model, list(decoded), [n for n in names if n not in decoded])

    def run(feeds: Feeds) -> Simulation:
        values = spiking({**feeds, TIMESTEPS: np.asarray(timesteps, np.int64)})
        in_time = {k: v.reshape(timesteps, -1, *v.shape[1:]) for k, v in values.items()}
        sums = {mean: np.cumsum(in_time[name], axis=0) for mean, name in decoded.items()}
        outputs = {}
        for t in range(1, timesteps + 1):
            mean = {name: (total[t - 1] / t).astype(total.dtype) for name, total in sums.items()}
            read = {**mean, **readout({**feeds, **mean})}
            outputs[t] = {name: read[name] for name in names}
        currents = {name: in_time[pair[0]] for name, pair in recorded.items()}
        spikes = {name: in_time[pair[1]] for name, pair in recorded.items()}
        return Simulation(outputs, currents, spikes)

    return run


# --- shared ---------------------------------------------------------------------------------------


def fixed_batch(source: Snn | onnx.ModelProto) -> int | None:
    """The batch size, where the network's inputs fix it."""
    if isinstance(source, Snn):
        first = [t.shape[0] for t in source.graph.inputs if t.shape]
        return next((n for n in first if isinstance(n, int)), None)
    shapes = [i.type.tensor_type.shape.dim for i in source.graph.input if i.name != TIMESTEPS]
    return next((d[0].dim_value for d in shapes if d and d[0].dim_value), None)


def _check_timesteps(timesteps: int) -> None:
    if timesteps < 1:
        raise UsageError(f"{timesteps} time steps: at least one is needed")


Recorded: TypeAlias = dict[str, tuple[str, str]]


def _recorded(known: Recorded, record: Sequence[str]) -> Recorded:
    """The current's and the spikes' tensor of each neuron node in ``record``."""
    unknown = [name for name in record if name not in known]
    if unknown:
        raise ModelError(f"the network has no neuron layer {unknown[0]!r}", node=unknown[0])
    return {name: known[name] for name in record}


def _both(recorded: Recorded) -> list[str]:
    return [tensor for pair in recorded.values() for tensor in pair]


def _joined(parts: Sequence[Simulation]) -> Simulation:
    """Simulations of consecutive samples as one."""
    first = parts[0]
    return Simulation(
        {
            t: {name: np.concatenate([p.outputs[t][name] for p in parts]) for name in outputs}
            for t, outputs in first.outputs.items()
        },
        {k: np.concatenate([p.currents[k] for p in parts], axis=1) for k in first.currents},
        {k: np.concatenate([p.spikes[k] for p in parts], axis=1) for k in first.spikes},
    )
