"""The proof that an SNN does what its ANN did: a ladder of checks, each with its limit.

==================  ===============================================================================
replay              the ANN's own values through the SNN's operators and neurons: same levels
                    (`replay`), same currents within rounding, same outputs behind the last layer
round trip          the ANN before and after the passes fires the same levels (`round_trip`)
engines, charge     onnxruntime against the equations in numpy, layer by layer (`engines`)
constant current    where the current is constant the spikes are even
end to end          accuracy, agreement, unevenness: reported; limits are the user's (`behaviour`)
==================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .batches import batch_size, batches, neurons_at_once, rows
from .behaviour import Behaviour, Elsewhere, Stages, observe
from .checks import SELECTABLE
from .connectivity import count_work, pool_sources
from .data import Samples
from .diagnosis import diagnose
from .energy import DEFAULT, Constants, estimate
from .engines import LayerEngines, OutputsError, compare_engines
from .exactness import as_ann, exactness_of
from .input_range import proven_inputs, ranges_of
from .layers import Layer, group_sources, in_groups, match_layers
from .replay import Replay, replay
from .results import Energy, Equivalence, Figure, LayerResult, Rounding
from .round_trip import round_trip
from .rungs import engine_figures, even_figure, of_check, replay_figures
from .running import file_engine
from .runtime import Model
from .same_counts import same_counts_figure
from .saturation import is_probability
from .snn import Snn
from .statistics import LayerCounts, count_outputs
from .teacher_forcing import runner

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[float], None]

EXACT_SAMPLES = 32


def measure(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    file: Model,
    samples: Samples,
    *,
    timesteps: Sequence[int] = (),
    exact_samples: int = EXACT_SAMPLES,
    checks: frozenset[str] = frozenset(SELECTABLE),
    constants: Constants = DEFAULT,
    elsewhere: Elsewhere | None = None,
    unrounded: Snn | None = None,
    progress: Progress = lambda share: None,
) -> Equivalence:
    """Climb the whole ladder on ``samples``; every rung is a `Figure` of the result.

    Args:
        ann: the network as exported, BatchNorm and activations as they were.
        staircase_ann: the same after the passes, each activation one node.
        network: the SNN; ``file`` is the model made of it, in any form.
        timesteps: the T at which accuracy and agreement are measured, beside the SNN's own.
        exact_samples: how many samples go through replay and engine comparison (in float64).
        checks: names of those to make (`checks`); what the others would find is None or empty.
        constants: energy of an operation.
        elsewhere: where both networks run on all samples, if not in this process.
        unrounded: the SNN before `passes.snap` put it on grids; it is replayed as well, and no
            rounding excuses its levels.
        progress: called with the share done, 0 to 1.

    Raises CheckFailed where a layer of the SNN has no counterpart in the ANN.
    """
    layers = match_layers(network, staircase_ann)
    stages = Stages(ann, staircase_ann, network, file, layers)
    few = rows(samples.feeds, 0, exact_samples)
    parts = list(batches(few, batch_size(layers, copies=12)))
    found = Equivalence(data=samples.description, samples=len(samples))
    on_grid = exactness_of(network) is not None
    replayed: Replay | None = None
    if "replay" in checks:
        if unrounded is not None:
            before = _replay_unrounded(ann, staircase_ann, unrounded, parts)
            found = _with(found, "replay", before)
        replayed = replay(
            ann, staircase_ann, network, parts, lambda share: progress(0.4 * share),
            at_once=neurons_at_once(copies=12),
        )  # fmt: skip
        found = _with(found, "replay", replay_figures(replayed, on_grid=on_grid))
        found = replace(
            found,
            replay_mismatches=sum(r.mismatches for r in replayed.layers),
            replay_ties=sum(r.ties for r in replayed.layers),
        )
    if "round-trip" in checks:
        figure = round_trip(ann, staircase_ann, network.carried, layers, parts)
        found = _with(found, "round-trip", [figure])
    progress(0.5)
    if "engines" in checks:
        engines, outputs = _engines(stages, few)
        found = _with(found, "engines", engine_figures(engines, outputs, on_grid=on_grid))
        if on_grid and stages.runs_in_onnxruntime():
            found = _with(found, "engines", [same_counts_figure(network, file, layers, few)])
        found = replace(found, engine_differences=sum(e.differences for e in engines))
    if not checks & {"constant-current", "end-to-end"}:
        return replace(found, input_ranges=ranges_of(proven_inputs(network), few))
    steps = sorted({*timesteps, network.timesteps})
    seen = observe(stages, samples, steps, lambda share: progress(0.6 + 0.4 * share), elsewhere)
    if "constant-current" in checks:
        found = _with(found, "constant-current", [even_figure(layers, seen.layers)])
    found = replace(
        found,
        by_timestep=seen.results(),
        layers=tuple(
            _layer_result(layer, counts, network.timesteps)
            for layer, counts in zip(layers, seen.layers, strict=True)
        ),
        timesteps=network.timesteps,
        layer_samples=seen.layers[0].samples,
        by_class=seen.classes(network.timesteps),
        energy=_energy(stages, seen, rows(samples.feeds, 0, 1), constants),
        input_ranges=seen.inputs,
        rounding=_rounding(stages, samples, replayed) if on_grid and replayed else None,
    )
    return replace(found, diagnosis=diagnose(found, network.neurons))


def _with(found: Equivalence, check: str, figures: Sequence[Figure]) -> Equivalence:
    return replace(found, figures=(*found.figures, *of_check(check, figures)))


def _energy(
    stages: Stages, seen: Behaviour, feeds: Mapping[str, Array], constants: Constants
) -> Energy:
    network = stages.network
    work = count_work(
        network,
        {x.name: counts.per_neuron for x, counts in zip(stages.layers, seen.layers, strict=True)},
        dict(zip(pool_sources(network), seen.pooled, strict=True)),
        seen.layers[0].samples,
        feeds,
    )
    return estimate(work, constants, network.timesteps, len(stages.layers))


def _rounding(stages: Stages, samples: Samples, replayed: Replay) -> Rounding:
    """The ANN with the rounded weights beside the ANN."""
    name, carried = stages.output, stages.network.carried
    before = runner(stages.ann, carried, (), [name])
    after = runner(as_ann(stages.network), carried, (), [name])
    size, sigmoid = batch_size(stages.layers, copies=4), is_probability(stages.ann)
    counted = None
    for start in range(0, len(samples), size):
        feeds = rows(samples.feeds, start, size)
        labels = None if samples.labels is None else samples.labels[start : start + size]
        part = count_outputs(0, before(feeds)[name], after(feeds)[name], labels, sigmoid=sigmoid)
        counted = part if counted is None else counted.merged(part)
    assert counted is not None
    found = counted.result()
    return Rounding(
        levels=sum(r.elements for r in replayed.layers),
        flips=sum(r.ties for r in replayed.layers),
        agreement=found.agreement,
        accuracy_before=found.ann_accuracy,
        accuracy=found.snn_accuracy,
    )


def _replay_unrounded(
    ann: gs.Graph, staircase_ann: gs.Graph, network: Snn, parts: Sequence[Mapping[str, Array]]
) -> list[Figure]:
    """The replay of the network as it was before rounding, under names of its own."""
    figures = replay_figures(replay(ann, staircase_ann, network, parts))
    return [replace(figure, name=f"{figure.name} before rounding") for figure in figures]


def _engines(
    stages: Stages, feeds: Mapping[str, Array]
) -> tuple[tuple[LayerEngines, ...], OutputsError]:
    """onnxruntime and numpy on ``feeds``, if onnxruntime runs the file; the outputs' error.

    The layers of a network too large to be recorded at once are recorded in groups.
    """
    if not stages.runs_in_onnxruntime():
        return (), OutputsError()
    layers, copies = stages.layers, 3 * stages.network.timesteps
    found: list[LayerEngines] = []
    outputs = OutputsError()
    for group in in_groups(layers, neurons_at_once(copies)):
        compared, error = _engines_of(stages, group, feeds, batch_size(layers, copies))
        found += compared
        outputs = outputs.merged(error)
    return tuple(found), outputs


def _engines_of(
    stages: Stages, group: Sequence[Layer], feeds: Mapping[str, Array], size: int
) -> tuple[tuple[LayerEngines, ...], OutputsError]:
    network, last = stages.network, group[-1] is stages.layers[-1]
    before = group_sources(network, stages.layers, group)
    names = list(dict.fromkeys(each.name for each in (*before, *group)))
    engine = file_engine(stages.file, network.timesteps, names)
    merged: tuple[LayerEngines, ...] = ()
    outputs = OutputsError()
    for part in batches(feeds, size):
        found, error = compare_engines(
            network, group, before, part, engine(part), network.timesteps, outputs=last
        )
        merged = tuple(a.merged(b) for a, b in zip(merged, found, strict=True)) if merged else found
        outputs = outputs.merged(error)
    return merged, outputs


def _layer_result(layer: Layer, count: LayerCounts, timesteps: int) -> LayerResult:
    error = count.split()
    between = count.neurons - count.at_lowest - count.at_highest
    return LayerResult(
        name=layer.name,
        spike_rate=count.spikes / (count.neurons * timesteps),
        unevenness=count.uneven / count.neurons,
        occasional=count.occasional / count.neurons,
        mean_error=error.total.mean,
        at_lowest=count.at_lowest / count.neurons,
        between=between / count.neurons,
        at_highest=count.at_highest / count.neurons,
        exercised=between > 0,
        saturation=count.saturated / count.neurons,
        relative_error=count.relative_error(),
        error=error,
    )
