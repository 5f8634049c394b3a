"""int8 files in onnxruntime, step by step, as a `Simulation` like any other form's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .cut import Runner, cut_model
from .errors import ModelError, UsageError
from .forms import int8_loop, int8_step
from .forms.int8_file import restore
from .forms.int8_loop import FINAL
from .forms.int8_nodes import counts_name
from .integer import IntegerNetwork, Layer, with_moves
from .integer_stepping import counts_step_by_step, whole_current, worth_of
from .runtime import Backend, session, values_of
from .simulation import Simulation
from .snn import TIMESTEPS
from .snn_guard import MOST_TIMESTEPS

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]


def int8_unrolled_runner(
    model: onnx.ModelProto,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Callable[[Feeds, int], Simulation]:
    """An int8 file with a fixed number of steps, for as many or fewer.

    Counts come from the file's own nodes; a recorded layer's currents follow from them, its weights
    and bias, in whole numbers.
    """
    network = restore(model)
    steps = fixed_steps(model)
    layers = {layer.name: layer for layer in network.layers}
    unknown = [name for name in record if name not in layers]
    if unknown:
        raise ModelError(f"the network has no neuron layer {unknown[0]!r}", node=unknown[0])
    recorded = [layers[name] for name in record]
    means = [m.source for m in network.means]
    currents = [s for layer in recorded for s in (layer.output, *layer.sources)]
    tensors = list(dict.fromkeys([*means, *currents]))
    analogs = list(dict.fromkeys(a.tensor for layer in recorded for a in layer.analogs))
    runners: dict[int, Runner] = {}
    names = [o.name for o in model.graph.output]
    readout = cut_model(model, [m.output for m in network.means], names, threads, backend=backend)

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        if timesteps > steps:
            raise UsageError(
                f"T = {timesteps}: this file makes {steps} time steps",
                remedy="convert it again with a larger -T, or with --form loop",
            )
        if timesteps not in runners:
            wanted = [_at(tensor, t) for tensor in tensors for t in range(1, timesteps + 1)]
            runners[timesteps] = cut_model(model, (), [*wanted, *analogs], threads, backend=backend)
        values = runners[timesteps](feeds)
        outputs = {
            t: readout({**feeds, **_means(network, values, t)}) for t in range(1, timesteps + 1)
        }
        found = {layer.name: _recorded(network, layer, values, timesteps) for layer in recorded}
        return Simulation(
            outputs, {k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()}
        )

    return run


def counts_in_onnxruntime(
    model: onnx.ModelProto,
    network: IntegerNetwork,
    feeds: Feeds,
    *,
    optimise: bool = True,
    threads: int = 0,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The counts [T, N, ...] of every layer by name, and the analog currents that led to them."""
    form = next(p.value for p in model.metadata_props if p.key == "na_convert.form")
    if form == int8_step.FORM:
        return counts_step_by_step(model, network, feeds, optimise=optimise, threads=threads)
    if form == int8_loop.FORM:
        return _counts_in_loop(model, network, feeds, optimise=optimise, threads=threads)
    steps = network.timesteps
    tensors = {(layer.name, t): _at(layer.output, t)
               for layer in network.layers for t in range(1, steps + 1)}  # fmt: skip
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
    analogs = [name for name in network.analogs if name not in known]
    wanted = [*tensors.values(), *analogs]
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    runner = session(extended, threads=threads, optimise=optimise)
    found = dict(zip(wanted, values_of(runner, wanted, feeds), strict=True))
    counts = {
        layer.name: np.stack([found[tensors[layer.name, t]] for t in range(1, steps + 1)])
        for layer in network.layers
    }
    inputs = {name: np.asarray(feeds[name]) for name in network.analogs if name in feeds}
    return counts, {**inputs, **{name: found[name] for name in analogs}}


def _counts_in_loop(
    model: onnx.ModelProto,
    network: IntegerNetwork,
    feeds: Feeds,
    *,
    optimise: bool,
    threads: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
    analogs = [name for name in network.analogs if name not in known]
    wanted = [*(_final(layer.output) for layer in network.layers), *analogs]
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    runner = session(extended, threads=threads, optimise=optimise)
    steps = range(1, network.timesteps + 1)
    found = [
        values_of(runner, wanted, {**feeds, TIMESTEPS: np.asarray(t, np.int64)}) for t in steps
    ]
    counts = {
        layer.name: np.stack([each[i] for each in found]) for i, layer in enumerate(network.layers)
    }
    inputs = {name: np.asarray(feeds[name]) for name in network.analogs if name in feeds}
    return counts, {**inputs, **dict(zip(analogs, found[-1][len(network.layers) :], strict=True))}


def int8_loop_runner(
    model: onnx.ModelProto,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Callable[[Feeds, int], Simulation]:
    """An int8 file for any number of steps: run for 1, 2, ... of them, up to what is proved."""
    network = restore(model)
    layers = {layer.name: layer for layer in network.layers}
    unknown = [name for name in record if name not in layers]
    if unknown:
        raise ModelError(f"the network has no neuron layer {unknown[0]!r}", node=unknown[0])
    recorded = [layers[name] for name in record]
    tensors = [layer.output for layer in network.layers] if recorded else []
    analogs = list(dict.fromkeys(a.tensor for layer in recorded for a in layer.analogs))
    names = [o.name for o in model.graph.output]
    finals = [_final(tensor) for tensor in tensors]
    runner = cut_model(model, (), [*names, *finals, *analogs], threads, backend=backend)

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        if timesteps > network.timesteps:
            raise UsageError(
                f"T = {timesteps}: this file is proved for up to {network.timesteps} time steps",
                remedy="convert it again with a larger -T",
            )
        outputs, values = {}, {}
        for t in range(1, timesteps + 1):
            found = runner({**feeds, TIMESTEPS: np.asarray(t, np.int64)})
            outputs[t] = {name: found[name] for name in names}
            if recorded:
                counts = with_moves(network, {e: found[_final(e)] for e in tensors})
                values.update({_at(tensor, t): value for tensor, value in counts.items()})
            values.update({name: found[name] for name in analogs})
        kept = {layer.name: _recorded(network, layer, values, timesteps) for layer in recorded}
        return Simulation(
            outputs, {k: v[0] for k, v in kept.items()}, {k: v[1] for k, v in kept.items()}
        )

    return run


def _final(tensor: str) -> str:
    return f"{counts_name(tensor)}{FINAL}"


def fixed_steps(model: onnx.ModelProto) -> int:
    """The number of steps that an unrolled file makes."""
    text = next((p.value for p in model.metadata_props if p.key == "na_convert.fixed"), "")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MOST_TIMESTEPS:
        raise ModelError(
            f"the SNN's description is damaged: it has {text[:20]!r} time steps",
            remedy="convert the ANN again",
        )
    return int(text)


def _at(tensor: str, t: int) -> str:
    return f"{counts_name(tensor)}_t{t}"


def _means(network: IntegerNetwork, values: Mapping[str, Array], t: int) -> dict[str, Array]:
    return {
        m.output: values[_at(m.source, t)].astype(np.float32) * m.scale / np.float32(t) + m.offset
        for m in network.means
    }


def _recorded(
    network: IntegerNetwork, layer: Layer, values: Mapping[str, Array], timesteps: int
) -> tuple[Array, Array]:
    """Currents [T, N, ...] in real units, and spikes (1 or 0), from the counts."""
    unit = worth_of(network, layer)
    total: Array = np.zeros((), np.float64)
    count: Array = np.zeros((), np.int64)
    currents, spikes = [], []
    for t in range(1, timesteps + 1):
        counts = {name: values[_at(name, t)] for name in layer.sources}
        totals = {
            (layer.name, i): t * each.units(values[each.tensor])
            for i, each in enumerate(layer.analogs)
        }
        now = whole_current(layer, counts, totals, t)
        counted = values[_at(layer.output, t)].astype(np.int64)
        currents.append(((now - total) * unit).astype(np.float32))
        spikes.append((counted - count).astype(np.float32))
        total, count = now, counted
    return np.stack(currents), np.stack(spikes)
