"""int8 files in onnxruntime, step by step, as a `Simulation` like any other form's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .cut import Runner, cut_model
from .errors import UsageError
from .forms import int8_loop, int8_step
from .forms.int8_file import restore
from .forms.int8_loop import FINAL
from .forms.int8_nodes import counts_name
from .integer import IntegerNetwork, Layer, whole_current, with_moves
from .integer_stepping import counts_step_by_step
from .integer_view import worth
from .runtime import Backend, session, values_of, with_outputs
from .simulation import Simulation
from .snn import TIMESTEPS, chosen_layers

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
    layers = {layer.name: layer for layer in network.layers}
    recorded = list(chosen_layers(layers, record).values())
    means = [m.source for m in network.means]
    currents = [s for layer in recorded for s in (layer.output, *layer.sources)]
    tensors = list(dict.fromkeys([*means, *currents]))
    analogs = list(dict.fromkeys(a.tensor for layer in recorded for a in layer.analogs))
    runners: dict[int, Runner] = {}
    names = [o.name for o in model.graph.output]
    readout = cut_model(model, [m.output for m in network.means], names, threads, backend=backend)

    def run(feeds: Feeds, timesteps: int) -> Simulation:
        if timesteps > network.timesteps:
            raise UsageError(
                f"T = {timesteps}: this file makes {network.timesteps} time steps",
                remedy="convert it again with a larger -T, or with --form loop",
            )
        if timesteps not in runners:
            wanted = [_at(tensor, t) for tensor in tensors for t in range(1, timesteps + 1)]
            runners[timesteps] = cut_model(model, (), [*wanted, *analogs], threads, backend=backend)
        values = runners[timesteps](feeds)
        outputs = {}
        for t in range(1, timesteps + 1):
            at_t = {m.output: m.value(values[_at(m.source, t)], t) for m in network.means}
            outputs[t] = readout({**feeds, **at_t})
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
    analogs = [name for name in network.analogs if name not in feeds]
    layers, steps = network.layers, range(1, network.timesteps + 1)
    if form == int8_loop.FORM:
        wanted = [*(_final(layer.output) for layer in layers), *analogs]
        run = _whole_file(model, wanted, optimise, threads)
        each = [run({**feeds, TIMESTEPS: np.asarray(t, np.int64)}) for t in steps]
        found = each[-1]
        counts = {e.name: np.stack([values[_final(e.output)] for values in each]) for e in layers}
    else:
        wanted = [*(_at(layer.output, t) for layer in layers for t in steps), *analogs]
        found = _whole_file(model, wanted, optimise, threads)(feeds)
        counts = {e.name: np.stack([found[_at(e.output, t)] for t in steps]) for e in layers}
    known = {**feeds, **found}
    return counts, {name: np.asarray(known[name]) for name in network.analogs}


def _whole_file(
    model: onnx.ModelProto, tensors: Sequence[str], optimise: bool, threads: int
) -> Runner:
    """The file as it is, every node of it, and what it makes of ``tensors``."""
    runner = session(with_outputs(model, tensors), threads=threads, optimise=optimise)
    return lambda feeds: dict(zip(tensors, values_of(runner, tensors, feeds), strict=True))


def int8_loop_runner(
    model: onnx.ModelProto,
    record: Sequence[str] = (),
    threads: int = 0,
    backend: Backend | None = None,
) -> Callable[[Feeds, int], Simulation]:
    """An int8 file for any number of steps: run for 1, 2, ... of them, up to what is proved."""
    network = restore(model)
    layers = {layer.name: layer for layer in network.layers}
    recorded = list(chosen_layers(layers, record).values())
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


def _at(tensor: str, t: int) -> str:
    return f"{counts_name(tensor)}_t{t}"


def _recorded(
    network: IntegerNetwork, layer: Layer, values: Mapping[str, Array], timesteps: int
) -> tuple[Array, Array]:
    """Currents [T, N, ...] in real units, and spikes (1 or 0), from the counts."""
    unit = worth(network, layer)
    total: Array = np.zeros((), np.float64)
    count: Array = np.zeros((), np.int64)
    currents, spikes = [], []
    per_step = [each.units(values[each.tensor]) for each in layer.analogs]
    for t in range(1, timesteps + 1):
        counts = {name: values[_at(name, t)] for name in layer.sources}
        totals = {(layer.name, i): t * units for i, units in enumerate(per_step)}
        now = whole_current(layer, counts, totals, t)
        counted = values[_at(layer.output, t)].astype(np.int64)
        currents.append(((now - total) * unit).astype(np.float32))
        spikes.append((counted - count).astype(np.float32))
        total, count = now, counted
    return np.stack(currents), np.stack(spikes)
