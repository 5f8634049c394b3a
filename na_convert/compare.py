"""The proof that an SNN does what its ANN did: a ladder of checks, each with its limit.

==================  ===============================================================================
replay              the ANN's own values through the SNN's operators and neurons: same levels
                    (`replay`), same currents within rounding, same outputs behind the last layer
round trip          the ANN before and after the passes fires the same levels (`round_trip`)
engines, charge     onnxruntime against the equations in numpy, layer by layer (`engines`)
constant current    where the current is constant the spikes are even
end to end          accuracy, agreement, unevenness: reported; limits are the user's (`statistics`)
==================  ===============================================================================
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

from .cut import takes
from .data import Samples
from .engines import LayerEngines, compare_engines
from .layers import Layer, match_layers, reference_values, split_by_owner
from .replay import LayerReplay, replay
from .results import Equivalence, LayerResult, TimestepResult
from .round_trip import round_trip
from .rungs import engine_figures, even_figure, replay_figures, stop_at_failure
from .running import file_engine
from .simulation import Engine, Simulation, numpy_engine
from .snn import Snn
from .statistics import LayerCounts, count_layer, timestep_result
from .teacher_forcing import Difference, runner, teacher_forced_error

__all__ = ["Difference", "teacher_forced_error", "verify"]

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[float], None]

EXACT_SAMPLES = 32
MEMORY = 256 << 20  # bytes: about what one batch of recorded or replayed values may take
_LARGEST_BATCH = 64


def verify(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    file: onnx.ModelProto,
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
        network: the SNN; ``file`` is the model made of it, in any form.
        timesteps: the T at which accuracy and agreement are measured, beside the SNN's own.
        exact_samples: how many samples go through replay and engine comparison (in float64).
        progress: called with the share done, 0 to 1.

    Raises CheckFailed at the first rung that breaks its limit, naming the layer.
    """
    layers = match_layers(network, staircase_ann)
    few = _rows(samples.feeds, 0, exact_samples)
    batches = list(_batches(few, _batch_size(layers, copies=12)))
    replayed = replay(ann, staircase_ann, network, batches, lambda share: progress(0.4 * share))
    figures = replay_figures(replayed)
    stop_at_failure(figures)
    figures.append(round_trip(ann, staircase_ann, network.carried, layers, batches))
    stop_at_failure(figures)
    stages = _Stages(ann, staircase_ann, network, file, layers)
    steps = sorted({*timesteps, network.timesteps})
    ran = _run(stages, samples, steps, exact_samples, lambda s: progress(0.5 + 0.5 * s))
    figures += engine_figures(ran.engines, ran.output_error)
    figures.append(even_figure(layers, ran.counts))
    stop_at_failure(figures)
    return Equivalence(
        data=samples.description,
        samples=len(samples),
        fold_error=None,
        replay_mismatches=sum(r.mismatches for r in replayed.layers),
        replay_ties=sum(r.ties for r in replayed.layers),
        engine_differences=sum(e.differences for e in ran.engines),
        by_timestep=ran.by_timestep,
        layers=tuple(
            _layer_result(r, c, network.timesteps)
            for r, c in zip(replayed.layers, ran.counts, strict=True)
        ),
        figures=tuple(figures),
    )


@dataclass(frozen=True)
class _Stages:
    """What is compared: the network at every stage of its conversion."""

    ann: gs.Graph
    staircase_ann: gs.Graph
    network: Snn
    file: onnx.ModelProto
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class _Ran:
    """What running the file on all samples showed."""

    counts: tuple[LayerCounts, ...]
    engines: tuple[LayerEngines, ...]
    output_error: float
    by_timestep: tuple[TimestepResult, ...]


def _run(
    stages: _Stages,
    samples: Samples,
    steps: Sequence[int],
    exact_samples: int,
    progress: Progress,
) -> _Ran:
    """Run the file on all samples; compare the engines on the first ``exact_samples``."""
    layers, network = stages.layers, stages.network
    output = stages.ann.outputs[0].name
    reference = _reference(stages, output)
    in_onnxruntime = _runs_in_onnxruntime(stages.file)
    engine = _engine(stages, max(steps), in_onnxruntime)
    counts: list[list[LayerCounts]] = []
    engines: list[tuple[LayerEngines, ...]] = []
    expected: list[Array] = []
    found: dict[int, list[Array]] = {t: [] for t in steps}
    output_error, done = 0.0, 0
    for feeds in _batches(samples.feeds, _batch_size(layers, copies=3 * max(steps))):
        values, run = reference(feeds), engine(feeds)
        counts.append([count_layer(layer, run, values, network.timesteps) for layer in layers])
        left = exact_samples - done
        if left > 0 and in_onnxruntime:
            rows, part = _rows(feeds, 0, left), _first_samples(run, left)
            compared, error = compare_engines(network, layers, rows, part, network.timesteps)
            engines.append(compared)
            output_error = max(output_error, error)
        expected.append(values[output])
        for t in steps:
            found[t].append(run.outputs[t][output])
        done += len(values[output])
        progress(done / len(samples))
    ann_output = np.concatenate(expected)
    return _Ran(
        tuple(reduce(LayerCounts.merged, each) for each in zip(*counts, strict=True)),
        tuple(reduce(LayerEngines.merged, each) for each in zip(*engines, strict=True)),
        output_error,
        tuple(
            timestep_result(t, ann_output, np.concatenate(found[t]), samples.labels) for t in steps
        ),
    )


def _runs_in_onnxruntime(file: onnx.ModelProto) -> bool:
    """Always, but in double, where onnxruntime lacks many operators."""
    kinds = {value.type.tensor_type.elem_type for value in file.graph.input}
    return onnx.TensorProto.DOUBLE not in kinds or takes(file)


def _engine(stages: _Stages, timesteps: int, in_onnxruntime: bool) -> Engine:
    names = [layer.name for layer in stages.layers]
    if in_onnxruntime:
        return file_engine(stages.file, timesteps, names)
    return numpy_engine(stages.network, timesteps, names, np.float64)


def _reference(stages: _Stages, output: str) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """The ANN's activations and its output, by tensor name."""
    activations = [layer.neuron.output for layer in stages.layers]
    own, others = split_by_owner(stages.ann, activations)
    carried = stages.network.carried
    run_ann = runner(stages.ann, carried, (), [*own, output])
    run_staircase_ann = runner(stages.staircase_ann, carried, own, others)
    return lambda feeds: reference_values(run_ann, run_staircase_ann, feeds)


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


def _rows(feeds: Mapping[str, Array], start: int, count: int) -> dict[str, Array]:
    return {name: values[start : start + count] for name, values in feeds.items()}


def _batches(feeds: Mapping[str, Array], size: int) -> Iterator[dict[str, Array]]:
    count = len(next(iter(feeds.values())))
    return (_rows(feeds, start, size) for start in range(0, count, size))


def _first_samples(run: Simulation, count: int) -> Simulation:
    return Simulation(
        {t: _rows(outputs, 0, count) for t, outputs in run.outputs.items()},
        {name: values[:, :count] for name, values in run.currents.items()},
        {name: values[:, :count] for name, values in run.spikes.items()},
    )


def _batch_size(layers: Sequence[Layer], copies: int) -> int:
    """Samples whose neurons fit into `MEMORY`, ``copies`` float32 values each."""
    one = 4 * copies * sum(layer.size for layer in layers)
    return max(1, min(_LARGEST_BATCH, MEMORY // one))
