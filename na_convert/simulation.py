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
from .cut import cut_model, light_of
from .errors import DataError, UsageError
from .evaluate import Stateful, evaluate
from .graph import is_ours
from .neurons import IFState, MaxPoolCountsState
from .runtime import Backend, Model
from .snn import TIMESTEPS, Snn, chosen_layers

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

    @classmethod
    def joined(cls, parts: Sequence[Simulation]) -> Simulation:
        """Simulations of consecutive samples as one."""
        first = parts[0]
        return cls(
            {
                t: {name: np.concatenate([p.outputs[t][name] for p in parts]) for name in outputs}
                for t, outputs in first.outputs.items()
            },
            {k: np.concatenate([p.currents[k] for p in parts], axis=1) for k in first.currents},
            {k: np.concatenate([p.spikes[k] for p in parts], axis=1) for k in first.spikes},
        )


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

    An `Snn` runs in numpy, from the equations; the model of a file (of any form) in onnxruntime.

    Args:
        record: names of neuron nodes whose currents and spikes are kept.
        batch: samples that run together; bounds the memory.

    Raises UsageError where ``timesteps`` is less than 1, ModelError where ``record`` names no
    neuron of the network or onnxruntime does not take the model.
    """
    if isinstance(source, Snn):
        engine = numpy_engine(source, timesteps, record)
    else:
        from .running import file_engine

        engine = file_engine(source, timesteps, record)
    count = len(next(iter(feeds.values())))
    size = fixed_batch(source) or batch
    if count % size and fixed_batch(source):
        raise DataError(f"{count} samples do not fill batches of {size}, which the model fixes")
    parts = [
        engine({name: values[start : start + size] for name, values in feeds.items()})
        for start in range(0, count, size)
    ]
    return Simulation.joined(parts)


# --- numpy: the equations -------------------------------------------------------------------------


def numpy_engine(
    network: Snn, timesteps: int, record: Sequence[str] = (), dtype: DTypeLike = np.float32
) -> Engine:
    """``network`` for a fixed number of steps: constant part once, spiking part at each step,
    readout on the mean so far."""
    _check_timesteps(timesteps)

    def run(feeds: Feeds) -> Simulation:
        state = NumpyState(network, record, dtype)
        outputs, currents, spikes = {}, [], []
        for t in range(1, timesteps + 1):
            outputs[t] = state.step(feeds if t == 1 else None)
            currents.append(state.currents)
            spikes.append(state.spikes)
        names = list(currents[0])
        return Simulation(
            outputs,
            {name: np.stack([step[name] for step in currents]) for name in names},
            {name: np.stack([step[name] for step in spikes]) for name in names},
        )

    return run


class NumpyState:
    """A network between two time steps, in numpy.

    Attributes:
        t: steps made.
        currents, spikes: of the recorded neuron layers, at the last step, ``[N, ...]``.
    """

    def __init__(
        self, network: Snn, record: Sequence[str] = (), dtype: DTypeLike = np.float32
    ) -> None:
        graph = self._graph = network.graph
        neuron_nodes = snn.neuron_nodes(graph)
        self._recorded = chosen_layers(
            {n.name: (n.inputs[0].name, n.outputs[0].name) for n in neuron_nodes}, record
        )
        self._encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]
        self._decoded = {
            n.outputs[0].name: n.inputs[0].name for n in graph.nodes if is_ours(n, "Decode")
        }
        self._outputs = [o.name for o in graph.outputs]
        self._dtype = dtype
        self._advance = layers_with_state()
        self._feeds: Feeds = {}
        self._constant: dict[str, Array] = {}
        self._total: dict[str, Array] = {}
        self.t = 0
        self.currents: dict[str, Array] = {}
        self.spikes: dict[str, Array] = {}

    def step(self, feeds: Feeds | None = None) -> dict[str, Array]:
        """One time step on ``feeds`` (None: those of the step before); the outputs so far.

        The part before the neurons is computed when feeds are given, the readout at each step, on
        the mean over the steps so far.
        """
        if feeds is not None:
            self._feeds = feeds
            early = evaluate(self._graph, feeds, self._encoded, dtype=self._dtype)
            self._constant = {**feeds, **early}
        wanted = [*self._decoded.values(), *_both(self._recorded)]
        now = evaluate(
            self._graph, self._constant, wanted, dtype=self._dtype, stateful=self._advance
        )
        self.t += 1
        self._total = {
            name: self._total.get(name, 0) + now[name] for name in self._decoded.values()
        }
        self.currents = {name: now[pair[0]] for name, pair in self._recorded.items()}
        self.spikes = {name: now[pair[1]] for name, pair in self._recorded.items()}
        mean = {name: self._total[before] / self.t for name, before in self._decoded.items()}
        return evaluate(self._graph, {**self._feeds, **mean}, self._outputs, dtype=self._dtype)


States: TypeAlias = dict[str, IFState | MaxPoolCountsState]


def layers_with_state() -> Stateful:
    """A function that advances neurons and max-pools by one time step at each call.

    The first call for a node starts it; see `neurons` for the equations.
    """
    states: States = {}

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


def _advance_pool(node: gs.Node, x: Array, states: States, key: str) -> Array:
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


def folded_runner(
    model: Model,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Callable[[Feeds, int], Simulation]:
    """The model of a folded file, for any number of steps; its sessions are made once."""
    graph = light_of(model).graph
    ours = [n for n in graph.node if n.domain == neurons.DOMAIN]
    recorded = chosen_layers(
        {n.name: (n.input[0], n.output[0]) for n in ours if n.op_type in neurons.NEURON_OPS},
        record,
    )
    decoded = {n.output[0]: n.input[0] for n in ours if n.op_type == "Decode"}
    names = [o.name for o in graph.output]
    wanted = [*decoded.values(), *_both(recorded)]
    rest = [n for n in names if n not in decoded]
    spiking = cut_model(model, (), wanted, threads, backend=backend)
    readout = cut_model(model, list(decoded), rest, threads, backend=backend)

    def run(feeds: Feeds, timesteps: int) -> Simulation:
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


def membranes(current: Array, spikes: Array, neuron: snn.IFParameters) -> Array:
    """Membranes ``[T, N, ...]`` after each step, from a layer's currents and spikes [T, N, ...].

    In the currents' float type, operation by operation as in `neurons`: what the file itself holds.
    """
    theta = np.asarray(neuron.threshold, current.dtype)
    membrane = np.broadcast_to(theta * current.dtype.type(neuron.initial), current.shape[1:])
    result = np.empty_like(current)
    for t in range(len(current)):
        fired = (spikes[t] != 0).astype(current.dtype)
        membrane = result[t] = (membrane + current[t]) - fired * theta
    return result


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


def _both(recorded: Recorded) -> list[str]:
    return [tensor for pair in recorded.values() for tensor in pair]
