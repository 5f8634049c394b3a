"""SNN files of every form in onnxruntime: each gives a `Simulation`, whatever the form."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from . import neurons
from .cut import Runner as CutRunner
from .cut import cut_model, light_of
from .errors import UsageError
from .forms import (
    INT8_FORMS,
    folded,
    form_of,
    int8_file,
    int8_loop,
    int8_step,
    int8_unrolled,
    step,
    unrolled,
)
from .graph import Parts
from .integer_running import int8_loop_runner, int8_unrolled_runner
from .integer_stepping import Int8Stepper
from .runtime import Backend, Model, session, values_of, with_outputs
from .simulation import Engine, Simulation, folded_runner
from .snn import Snn, chosen_layers

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Runner: TypeAlias = Callable[[Feeds, int], Simulation]


def file_engine(model: Model, timesteps: int, record: Sequence[str] = ()) -> Engine:
    """``model``, an SNN file of any form, for a fixed number of steps."""
    if timesteps < 1:
        raise UsageError(f"{timesteps} time steps: at least one is needed")
    run = file_runner(model, record)
    return lambda feeds: run(feeds, timesteps)


def file_runner(
    model: Model,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Runner:
    """``model``, an SNN file of any form, for any number of steps; its sessions are made once.

    Args:
        record: neuron layers whose currents and spikes are kept.
        threads: of onnxruntime; 0 leaves the choice to it.
        backend: makes the sessions instead of onnxruntime's defaults (`runtime`).
    """
    runners = {
        step.FORM: step_runner,
        unrolled.FORM: unrolled_runner,
        int8_unrolled.FORM: int8_unrolled_runner,
        int8_loop.FORM: int8_loop_runner,
        int8_step.FORM: step_runner,
    }
    runner = runners.get(form_name(model))
    if runner is None:
        return folded_runner(model, record, threads, backend)
    return runner(model.whole() if isinstance(model, Parts) else model, record, threads, backend)


def unrolled_runner(
    model: onnx.ModelProto,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Runner:
    """An unrolled file, for as many steps as it has at most; ``record``: neuron layers to keep."""
    network = unrolled.network_of(model)
    ours = [n for n in network.graph.node if n.domain == neurons.DOMAIN]
    layers = {n.name: (n.input[0], n.output[0]) for n in ours if n.op_type in neurons.NEURON_OPS}
    recorded = chosen_layers(layers, record)
    made = {t for node in model.graph.node for t in node.output}
    decoded = {n.output[0]: n.input[0] for n in ours if n.op_type == "Decode"}
    names = [o.name for o in model.graph.output]
    longest = max(
        int(t.rsplit("/", 1)[1]) for x in decoded.values() for t in made if t.rsplit("/", 1)[0] == x
    )
    rest = [n for n in names if n not in decoded]
    readout = cut_model(model, list(decoded), rest, threads, backend=backend)
    spiking: dict[int, CutRunner] = {}

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        if timesteps > longest:
            raise UsageError(
                f"T = {timesteps}: this unrolled file has {longest} time steps",
                remedy="ask for no more, or convert with --form folded",
            )
        steps = range(1, timesteps + 1)
        wanted = [f"{x}/{t}" for x in decoded.values() for t in steps]
        for name, ends in recorded.items():
            wanted += _recorded_tensors(name, ends, steps, made)
        if timesteps not in spiking:
            tensors = list(dict.fromkeys(wanted))
            spiking[timesteps] = cut_model(model, (), tensors, threads, backend=backend)
        values = spiking[timesteps](feeds)
        outputs: dict[int, dict[str, Array]] = {}
        sums: dict[str, Array] = {}
        for t in steps:
            now = {mean: values[f"{x}/{t}"] for mean, x in decoded.items()}
            sums = {mean: sums[mean] + x if sums else x for mean, x in now.items()}
            means = {n: (total / t).astype(total.dtype) for n, total in sums.items()}
            read = {**means, **readout({**feeds, **means})}
            outputs[t] = {name: read[name] for name in names}
        return Simulation(
            outputs,
            {name: _currents_of(name, layers[name], steps, values) for name in record},
            {name: np.stack([values[f"{layers[name][1]}/{t}"] for t in steps]) for name in record},
        )

    return run


def _recorded_tensors(
    name: str, layer: tuple[str, str], steps: range, made: Container[str]
) -> list[str]:
    current, spikes = layer
    tensors = [f"{spikes}/{t}" for t in steps]
    if f"{name}/{unrolled.MEMBRANE}/1" in made:
        before = [f"{name}/{unrolled.MEMBRANE}/{t}" for t in steps]
        return [*tensors, *before, *(f"{name}/{unrolled.AFTER}/{t}" for t in steps[:-1])]
    return tensors + ([f"{current}/{t}" for t in steps] if f"{current}/1" in made else [current])


def _currents_of(
    name: str, layer: tuple[str, str], steps: range, values: Mapping[str, Array]
) -> Array:
    """Of a layer that keeps ``1/2 - u`` alone, what that fell by."""
    current, _ = layer
    if f"{name}/{unrolled.MEMBRANE}/1" in values:
        first = -values[f"{name}/{unrolled.MEMBRANE}/1"]
        later = [
            values[f"{name}/{unrolled.AFTER}/{t - 1}"] - values[f"{name}/{unrolled.MEMBRANE}/{t}"]
            for t in steps[1:]
        ]
        return np.stack([first, *later])
    if current in values:
        return np.stack([values[current]] * len(steps))
    return np.stack([values[f"{current}/{t}"] for t in steps])


def step_runner(
    model: onnx.ModelProto,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Runner:
    """A step file, float or int8, for any number of steps; ``record``: neuron layers to keep."""
    make = Int8Stepper if form_name(model) == int8_step.FORM else Stepper
    stepper = make(model, record, threads, backend)

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        stepper.reset()
        outputs, currents, spikes = {}, [], []
        for t in range(1, timesteps + 1):
            outputs[t] = stepper.step(feeds)
            currents.append(stepper.currents)
            spikes.append(stepper.spikes)
        return Simulation(
            outputs,
            {name: np.stack([step[name] for step in currents]) for name in stepper.recorded},
            {name: np.stack([step[name] for step in spikes]) for name in stepper.recorded},
        )

    return run


class Stepper:
    """A step file with its state between two time steps; the session is made once.

    Attributes:
        t: steps made.
        currents, spikes, membranes: of the recorded layers at the last step, ``[N, ...]``.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        record: Sequence[str] = (),
        threads: int = 0,
        backend: Backend | None = None,
    ) -> None:
        nodes = {
            node.name: node
            for node in model.graph.node
            if node.domain == neurons.DOMAIN
            and node.op_type.removesuffix("Step") in neurons.NEURON_OPS
        }
        self.recorded = tuple(record)
        self._nodes = chosen_layers(nodes, record)
        self._states = step.states(model)
        self._outputs = [o.name for o in model.graph.output if o.name not in self._states.values()]
        inner = [t for n in self._nodes.values() for t in (n.input[0], n.output[0])]
        extra = [t for t in dict.fromkeys(inner) if t not in self._outputs]
        self._wanted = [*self._outputs, *self._states.values(), *extra]
        make = backend or partial(session, threads=threads)
        self._session = make(with_outputs(model, extra))
        self.reset()

    def reset(self) -> None:
        """To the state before the first step."""
        self.t = 0
        self._state: dict[str, Array] = {}
        self.currents: dict[str, Array] = {}
        self.spikes: dict[str, Array] = {}
        self.membranes: dict[str, Array] = {}

    def keep(self, rows: Array) -> None:
        """Go on with these samples alone: ``rows`` is a mask [N]."""
        self._state = {name: _kept(value, rows) for name, value in self._state.items()}

    def step(self, feeds: Feeds) -> dict[str, Array]:
        """One time step; the outputs on the mean over the steps so far."""
        values = values_of(self._session, self._wanted, {**feeds, **self._state})
        found = dict(zip(self._wanted, values, strict=True))
        self._state = {name: found[after] for name, after in self._states.items()}
        self.t += 1
        self.currents = {name: found[node.input[0]] for name, node in self._nodes.items()}
        self.spikes = {name: found[node.output[0]] for name, node in self._nodes.items()}
        self.membranes = {name: self._state[node.input[1]] for name, node in self._nodes.items()}
        return {name: found[name] for name in self._outputs}


def stepper_for(
    model: onnx.ModelProto, network: Snn, record: Sequence[str] = (), threads: int = 0
) -> Stepper | Int8Stepper:
    """The step form of an SNN file, made of it where it is in another form; its session.

    Args:
        network: the description behind the file.
    """
    name = form_name(model)
    if name in {form.name for form in INT8_FORMS.values()}:
        if name != int8_step.FORM:
            model = int8_step.int8_step_parts(int8_file.restore(model)).whole()
        return Int8Stepper(model, record, threads)
    return Stepper(model if name == step.FORM else step.to_step(network), record, threads)


def form_name(model: Model) -> str:
    """The form of a file; a folded model may come without metadata, as in a test."""
    light = light_of(model)
    if any(p.key == "na_convert.form" for p in light.metadata_props):
        return form_of(light).name
    return folded.FORM


def _kept(state: Array, samples: Array) -> Array:
    """The rows of ``state`` that belong to ``samples``, a mask; all of what has none of theirs."""
    rows = len(state) if state.ndim else 0
    if not rows or rows % len(samples):
        return state
    return np.asarray(state[np.repeat(samples, rows // len(samples))])
