"""The proof that an SNN does what its ANN did: a ladder of checks, each with its limit.

======================  ===========================================================================
parameters              threshold, amplitude and initial membrane are those the activations ask for
replay                  the ANN's own values through the SNN's operators and neurons: same levels
                        (`replay`); and the outputs behind the last neurons
round trip              onnxruntime: the ANN before and after the passes fires the same levels
engines                 onnxruntime against the equations in numpy, layer by layer (`engines`)
charge                  what flows into a neuron is what it fires and what is left
constant current        the first layer's spikes are even: as many as its mean current asks for
end to end              accuracy, agreement, unevenness: reported, limited by the user if at all
======================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase
from .data import Samples
from .engines import FLOAT_NOISE, LayerEngines, compare_engines
from .errors import CheckFailed
from .layers import Layer, match_layers, reference_values, split_by_owner
from .replay import LayerReplay, Replay, replay
from .results import Equivalence, Figure, LayerResult, TimestepResult
from .simulate import Simulation, onnxruntime_engine
from .snn import Snn
from .statistics import LayerCounts, batch_size, count_layer, timestep_result
from .teacher_forcing import Difference, runner, runs_in_onnxruntime, teacher_forced_error

__all__ = ["Difference", "teacher_forced_error", "verify"]

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[float], None]

EXACT_SAMPLES = 32
MEMORY = 256 << 20  # bytes of recorded currents and spikes, and of replayed values


def verify(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    folded: onnx.ModelProto,
    samples: Samples,
    *,
    timesteps: Sequence[int] = (),
    exact_samples: int = EXACT_SAMPLES,
    progress: Progress = lambda share: None,
) -> Equivalence:
    """Climb the ladder on ``samples``; every rung is a `Figure` of the result.

    Args:
        ann: the network as exported, BatchNorm and activations as they were.
        staircase_ann: the same after the passes, each activation one node.
        network: the SNN; ``folded`` is the file made of it.
        timesteps: the T at which accuracy and agreement are measured, beside the SNN's own.
        exact_samples: how many samples go through replay and engine comparison (float64).
        progress: called with the share done, 0 to 1.

    Raises CheckFailed, naming the layer, at the first rung that breaks its limit.
    """
    layers = match_layers(network, staircase_ann)
    few = _first(samples.feeds, exact_samples)
    replayed = replay(
        ann, staircase_ann, network, list(_batches(few, _replay_batch(layers))),
        progress=_steps(progress, 0.0, 0.4, _replay_batch(layers), few),
    )  # fmt: skip
    figures = list(_replay_figures(replayed))
    _stop_at_first_failure(figures)
    figures += _round_trip_figures(ann, staircase_ann, network, layers, few)
    _stop_at_first_failure(figures)
    progress(0.5)
    steps = sorted({*timesteps, network.timesteps})
    behaviour = _behaviour(
        ann, staircase_ann, network, folded, layers, samples, steps, exact_samples,
        lambda share: progress(0.5 + 0.5 * share),
    )  # fmt: skip
    figures += _engine_figures(behaviour)
    figures += _even_figures(layers, behaviour.counts)
    _stop_at_first_failure(figures)
    return Equivalence(
        data=samples.description,
        samples=len(samples),
        fold_error=None,
        replay_mismatches=sum(r.mismatches for r in replayed.layers),
        replay_ties=sum(r.ties for r in replayed.layers),
        engine_differences=sum(e.differences for e in behaviour.engines),
        by_timestep=behaviour.by_timestep,
        layers=tuple(
            _layer_result(r, c, network.timesteps)
            for r, c in zip(replayed.layers, behaviour.counts, strict=True)
        ),
        figures=tuple(figures),
    )


def _stop_at_first_failure(figures: Sequence[Figure]) -> None:
    for figure in figures:
        if not figure.passed:
            raise CheckFailed(
                f"{figure.name}: {figure.detail} (limit {figure.limit:.3g}, "
                f"{figure.value:.3g} would have passed)",
                node=figure.node,
                remedy="the SNN does not do what the ANN does; this is a defect of na-convert "
                "unless the SNN's file was changed",
            )


# --- replay ---------------------------------------------------------------------------------------


def _replay_figures(replayed: Replay) -> Iterator[Figure]:
    for each in replayed.layers:
        yield from _layer_replay_figures(each)
    total = sum(r.mismatches for r in replayed.layers)
    ties = sum(r.ties for r in replayed.layers)
    elements = sum(r.elements for r in replayed.layers)
    idle = [r.layer.name for r in replayed.layers if not r.between]
    note = f"; not exercised: {', '.join(idle)}" if idle else ""
    yield Figure(
        "replay", total, 0, total == 0,
        f"{len(replayed.layers)} layers, {elements} neurons, {ties} ties{note}",
    )  # fmt: skip
    limit = FLOAT_NOISE * max(float(np.finfo(r.layer.dtype).eps) for r in replayed.layers)
    yield Figure(
        "readout", replayed.readout_error, limit, replayed.readout_error <= limit,
        f"output {replayed.readout_where!r} behind the ANN's last activations differs",
        replayed.readout_where or None,
    )  # fmt: skip


def _layer_replay_figures(each: LayerReplay) -> Iterator[Figure]:
    name, unit = each.layer.name, _unit(each.layer)
    yield Figure(
        "replay", each.mismatches, 0, each.mismatches == 0,
        f"layer {name!r}: {each.mismatches} of {each.elements} neurons do not fire at the ANN's "
        f"level, {each.ties} ties left out; currents differ by up to {each.current_error:.2g} "
        f"{unit} (rounding explains {each.tolerance:.2g})",
        name,
    )  # fmt: skip
    yield Figure(
        "current", each.current_error, each.tolerance, each.current_error <= each.tolerance,
        f"layer {name!r}: currents differ from the ANN's by up to {each.current_error:.2g} {unit}",
        name,
    )  # fmt: skip
    limit = FLOAT_NOISE * float(np.finfo(each.layer.dtype).eps)
    yield Figure(
        "parameters", each.parameter_error, limit, each.parameter_error <= limit,
        f"layer {name!r}: threshold, amplitude or initial membrane is not the activation's", name,
    )  # fmt: skip
    if isinstance(each.layer.function, Staircase):
        limit *= each.layer.function.levels + float(
            np.max(np.abs(each.layer.function.lowest_level))
        )
        yield Figure(
            "level height", each.output_error, limit, each.output_error <= limit,
            f"layer {name!r}: its output is off the ANN's by up to {each.output_error:.2g} levels",
            name,
        )  # fmt: skip


def _unit(layer: Layer) -> str:
    return "stairs" if isinstance(layer.function, Staircase) else "thresholds"


# --- round trip -----------------------------------------------------------------------------------


def _round_trip_figures(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    layers: Sequence[Layer],
    feeds: Mapping[str, Array],
) -> list[Figure]:
    """The ANN against the ANN after the passes, each activation fed the former's values."""
    outputs = [layer.neuron.output for layer in layers]
    inside, _ = split_by_owner(ann, outputs)
    checked = [
        layer
        for layer in layers
        if layer.neuron.output in inside and isinstance(layer.function, Staircase)
    ]
    roots = list(dict.fromkeys(layer.root for layer in checked))
    run_ann = runner(ann, network.carried, (), inside)
    run_roots = runner(staircase_ann, network.carried, inside, roots)
    flips = dict.fromkeys((layer.name for layer in checked), 0)
    ties = elements = 0
    for batch in _batches(feeds, _replay_batch(layers)):
        values = run_ann(batch)
        found = run_roots({**batch, **values})
        for layer in checked:
            far, near = _flips(layer, values[layer.neuron.output], found[layer.root])
            flips[layer.name] += far
            ties += near
            elements += values[layer.neuron.output].size
    worst = max(flips, key=lambda name: flips[name], default=None)
    total = sum(flips.values())
    engine = "onnxruntime" if runs_in_onnxruntime(ann) else "numpy float32 (QONNX operators)"
    where = f", most in layer {worst!r}" if total else ""
    detail = f"{total} of {elements} levels flip{where}, {ties} ties left out; by {engine}"
    return [Figure("round trip", total, 0, total == 0, detail, worst if total else None)]


def _flips(layer: Layer, output: Array, root: Array) -> tuple[int, int]:
    """Levels that differ: away from the edges, and within float error of one."""
    function = layer.function
    assert isinstance(function, Staircase)
    eps = float(np.finfo(root.dtype).eps)
    x = np.asarray(root, np.float64)
    level = np.round(layer.unit_output(np.asarray(output, np.float64)) * function.levels)
    differs = level != function.level(x)
    reach = float(np.max(np.abs(x / function.input_step), initial=0)) + function.levels
    tie = function.distance_to_edge(x) <= FLOAT_NOISE * eps * reach
    return int(np.count_nonzero(differs & ~tie)), int(np.count_nonzero(differs & tie))


# --- the file in onnxruntime ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Behaviour:
    counts: tuple[LayerCounts, ...]
    engines: tuple[LayerEngines, ...]
    output_error: float
    by_timestep: tuple[TimestepResult, ...]


def _behaviour(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    folded: onnx.ModelProto,
    layers: Sequence[Layer],
    samples: Samples,
    steps: Sequence[int],
    exact_samples: int,
    progress: Progress,
) -> _Behaviour:
    """Run the file on all samples; compare the engines on the first ``exact_samples``."""
    outputs = [t.name for t in ann.outputs]
    own, others = split_by_owner(ann, [layer.neuron.output for layer in layers])
    run_ann = runner(ann, network.carried, (), [*own, *outputs])
    run_staircase_ann = runner(staircase_ann, network.carried, own, others)
    engine = onnxruntime_engine(folded, max(steps), [layer.name for layer in layers])
    size = batch_size(layers, max(steps), MEMORY)
    counts: list[list[LayerCounts]] = []
    compared: list[tuple[LayerEngines, ...]] = []
    ann_outputs, snn_outputs = [], {t: [] for t in steps}  # type: ignore[var-annotated]
    output_error, done = 0.0, 0
    for feeds in _batches(samples.feeds, size):
        values = reference_values(run_ann, run_staircase_ann, feeds)
        run = engine(feeds)
        counts.append([count_layer(layer, run, values, network.timesteps) for layer in layers])
        if done < exact_samples:
            few = _first_of_run(run, exact_samples - done)
            rows = _first(feeds, exact_samples - done)
            found, error = compare_engines(network, layers, rows, few, network.timesteps)
            compared.append(found)
            output_error = max(output_error, error)
        ann_outputs.append(values[outputs[0]])
        for t in steps:
            snn_outputs[t].append(run.outputs[t][outputs[0]])
        done += len(next(iter(feeds.values())))
        progress(done / len(samples))
    expected = np.concatenate(ann_outputs)
    return _Behaviour(
        tuple(reduce(LayerCounts.merged, each) for each in zip(*counts, strict=True)),
        tuple(reduce(LayerEngines.merged, each) for each in zip(*compared, strict=True)),
        output_error,
        tuple(
            timestep_result(t, expected, np.concatenate(snn_outputs[t]), samples.labels)
            for t in steps
        ),
    )


def _engine_figures(behaviour: _Behaviour) -> Iterator[Figure]:
    for each in behaviour.engines:
        name = each.layer.name
        yield Figure(
            "engines", each.unexplained, 0, each.unexplained == 0,
            f"layer {name!r}: onnxruntime and numpy decide {each.unexplained} spikes differently "
            f"away from the threshold (by more than {each.tolerance:.2g} of it)",
            name,
        )  # fmt: skip
        yield Figure(
            "engine currents", each.current_error, each.tolerance,
            each.current_error <= each.tolerance,
            f"layer {name!r}: currents in onnxruntime and numpy differ by up to "
            f"{each.current_error:.2g} thresholds",
            name,
        )  # fmt: skip
        yield Figure(
            "charge", each.charge_error, each.charge_limit, each.charge_error <= each.charge_limit,
            f"layer {name!r}: current in, spikes out and membrane left do not balance, by "
            f"{each.charge_error:.2g} thresholds",
            name,
        )  # fmt: skip
    limit = max((e.tolerance for e in behaviour.engines), default=0.0)
    yield Figure(
        "engine outputs", behaviour.output_error, limit, behaviour.output_error <= limit,
        "outputs of onnxruntime and numpy under the same spikes differ, relative to the largest",
    )  # fmt: skip


def _even_figures(layers: Sequence[Layer], counts: Sequence[LayerCounts]) -> Iterator[Figure]:
    for layer, count in zip(layers, counts, strict=True):
        if layer.neuron.constant_input:
            yield Figure(
                "constant current", count.uneven, 0, count.uneven == 0,
                f"layer {layer.name!r}: {count.uneven} of {count.neurons} neurons fire unevenly "
                "although their current is constant",
                layer.name,
            )  # fmt: skip


def _layer_result(replayed: LayerReplay, count: LayerCounts, timesteps: int) -> LayerResult:
    return LayerResult(
        name=replayed.layer.name,
        spike_rate=count.spikes / (count.neurons * timesteps),
        unevenness=count.uneven / count.neurons,
        occasional=count.occasional / count.neurons,
        mean_error=count.error / count.neurons,
        at_lowest=replayed.at_lowest / replayed.elements,
        between=replayed.between / replayed.elements,
        at_highest=replayed.at_highest / replayed.elements,
        exercised=replayed.between > 0,
    )


# --- samples --------------------------------------------------------------------------------------


def _first(feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
    return {name: values[:count] for name, values in feeds.items()}


def _first_of_run(run: Simulation, count: int) -> Simulation:
    return Simulation(
        {t: _first(outputs, count) for t, outputs in run.outputs.items()},
        {name: values[:, :count] for name, values in run.currents.items()},
        {name: values[:, :count] for name, values in run.spikes.items()},
    )


def _batches(feeds: Mapping[str, Array], size: int) -> Iterator[dict[str, Array]]:
    count = len(next(iter(feeds.values())))
    for start in range(0, count, size):
        yield {name: values[start : start + size] for name, values in feeds.items()}


def _replay_batch(layers: Sequence[Layer]) -> int:
    """Samples per replay: it holds about six float64 copies of each layer."""
    return max(1, min(EXACT_SAMPLES, MEMORY // (48 * sum(layer.size for layer in layers))))


def _steps(
    progress: Progress, start: float, end: float, size: int, feeds: Mapping[str, Array]
) -> Callable[[], None]:
    """A callback that moves ``progress`` from ``start`` to ``end``, batch by batch."""
    total = -(-len(next(iter(feeds.values()))) // size)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(start + (end - start) * done / total)

    return step
