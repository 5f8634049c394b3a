"""SNN files of every form in onnxruntime: each gives a `Simulation`, whatever the form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from . import neurons
from .errors import ModelError, UsageError
from .forms import folded, form_of, step
from .runtime import session
from .simulation import Engine, Simulation, folded_runner

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Runner: TypeAlias = Callable[[Feeds, int], Simulation]


def file_engine(model: onnx.ModelProto, timesteps: int, record: Sequence[str] = ()) -> Engine:
    """``model``, an SNN file of any form, for a fixed number of steps."""
    if timesteps < 1:
        raise UsageError(f"{timesteps} time steps: at least one is needed")
    run = file_runner(model, record)
    return lambda feeds: run(feeds, timesteps)


def file_runner(model: onnx.ModelProto, record: Sequence[str] = (), threads: int = 0) -> Runner:
    """``model``, an SNN file of any form, for any number of steps; its sessions are made once.

    Args:
        record: neuron layers whose currents and spikes are kept.
        threads: of onnxruntime; 0 leaves the choice to it.
    """
    runner = step_runner if form_name(model) == step.FORM else folded_runner
    return runner(model, record, threads)


def step_runner(model: onnx.ModelProto, record: Sequence[str] = (), threads: int = 0) -> Runner:
    """A step file, for any number of steps; ``record``: neuron layers to keep."""
    recorded = {
        node.name: (node.input[0], node.output[0])
        for node in model.graph.node
        if node.domain == neurons.DOMAIN
        and node.op_type.removesuffix("Step") in neurons.NEURON_OPS
        and node.name in record
    }
    unknown = [name for name in record if name not in recorded]
    if unknown:
        raise ModelError(f"the network has no neuron layer {unknown[0]!r}", node=unknown[0])
    kept = step.states(model)
    names = [o.name for o in model.graph.output if o.name not in kept.values()]
    inner = list(dict.fromkeys(t for pair in recorded.values() for t in pair if t not in names))
    runner = session(_with_outputs(model, inner), threads=threads)
    wanted = [*names, *kept.values(), *inner]

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        outputs, steps = {}, []
        state: dict[str, Array] = {}
        for t in range(1, timesteps + 1):
            found = dict(zip(wanted, runner.run(wanted, {**feeds, **state}), strict=True))
            state = {name: found[after] for name, after in kept.items()}
            outputs[t] = {name: found[name] for name in names}
            steps.append(found)
        currents = {k: np.stack([s[pair[0]] for s in steps]) for k, pair in recorded.items()}
        spikes = {k: np.stack([s[pair[1]] for s in steps]) for k, pair in recorded.items()}
        return Simulation(outputs, currents, spikes)

    return run


def form_name(model: onnx.ModelProto) -> str:
    """The form of a file; a folded model may come without metadata, as in a test."""
    if any(p.key == "na_convert.form" for p in model.metadata_props):
        return form_of(model).name
    return folded.FORM


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    return extended
