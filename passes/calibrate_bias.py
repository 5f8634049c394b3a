"""Shift each layer's current, per channel, so that on data the SNN's means are the ANN's.

Spikes of deeper layers come unevenly, and what fired too early is not taken back: on average a
spiking layer gives out more than its activation. Layer by layer, with those before it corrected,
a constant per channel is added to the bias: either the mean difference between the ANN's and the
SNN's current at T, or what makes the neurons' mean output the ANN's (`bias_shifts`). A second round
would find nothing: after the first, the means are equal.

Optional: runs after `to_spiking`, where the user gives data. Requires the description of
`na_convert.snn`; ensures that each `Neuron.bias_shift` is what its current gained.

Cases:

* a layer behind other neurons: shifted by one constant per channel (axis 1), in units of its
  current; thresholds per channel, falling steps and offsets are in the current already;
* a layer whose mean is the ANN's already: left alone. So are those whose current is constant over
  time, and at T = levels the layers that read nothing but their spikes;
* where the shift goes, and currents that others read too: `add_bias`;
* a quarter of the samples, drawn at random, is held out and decides between the two ways, and the
  network as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.errors import DataError
from na_convert.layers import Layer, match_layers, per_channel
from na_convert.lazy import pick
from na_convert.outputs import ann_output, snn_output
from na_convert.results import BiasCalibration, BiasTrial, LayerShift, Neuron, PassReport, Skip
from na_convert.saturation import is_probability
from na_convert.snn import BIAS_TIMESTEPS, Snn, neuron_nodes, recorded
from na_convert.spec import check_graph, check_spiking
from na_convert.statistics import OutputCounts, count_outputs, predictions

from .add_bias import add_to_current
from .bias_shifts import Feeds, Match, in_thresholds, measure

Array: TypeAlias = NDArray[Any]

MATCHES: tuple[Match, ...] = ("current", "output")
LEAST_SAMPLES = 8
_EXACT = "its mean current is the ANN's already"
_HELD_OUT = 4  # one sample in so many


@dataclass(frozen=True)
class BiasFold:
    """The network, shifted or as it was, and what was measured."""

    network: Snn
    report: PassReport
    found: BiasCalibration


def run(
    network: Snn,
    staircase_ann: gs.Graph,
    feeds: Feeds,
    progress: Callable[[float], None] = lambda share: None,
) -> BiasFold:
    """Calibrate ``network`` for its own T on ``feeds`` [N, ...]; a new network, the old is kept.

    Args:
        staircase_ann: the ANN, each activation one node.
        progress: called with the share done, 0 to 1.

    Raises DataError where there are fewer than 8 samples.
    """
    fit, held_out = split(feeds)
    layers = match_layers(network, staircase_ann)
    steps = network.timesteps
    expected = ann_output(staircase_ann, network, layers, held_out)
    plain = nearest = snn_output(network, layers, held_out)[steps]
    chosen, kept, trials = network, None, []
    sigmoid = is_probability(network.graph)
    for index, match in enumerate(MATCHES):
        shifts = measure(network, staircase_ann, fit, match)
        shifted = apply(network, layers, shifts)
        found = snn_output(shifted, layers, held_out)[steps]
        counts = count_outputs(steps, expected, found, None, sigmoid=sigmoid)
        trials.append(_trial(match, layers, shifts, counts))
        if _is_better(expected, nearest, found, sigmoid=sigmoid):
            chosen, kept, nearest = shifted, match, found
        progress((index + 1) / len(MATCHES))
    calibration = BiasCalibration(
        timesteps=steps,
        samples=_count(fit),
        held_out=_count(held_out),
        plain=count_outputs(steps, expected, plain, None).result(),
        trials=tuple(trials),
        kept=kept,
    )
    changed = [neuron.name for neuron in chosen.neurons if neuron.bias_shift is not None]
    skipped = [Skip(e.name, _EXACT) for e in layers if kept and e.name not in changed]
    report = PassReport("calibrate_bias", len(changed), tuple(skipped))
    return BiasFold(chosen, report, calibration)


def _trial(
    match: Match, layers: Sequence[Layer], shifts: Mapping[str, Array], found: OutputCounts
) -> BiasTrial:
    sizes = {layer.name: in_thresholds(layer, shifts[layer.name]) for layer in layers}
    moved = tuple(LayerShift(n, float(s.mean()), float(s.max())) for n, s in sizes.items())
    return BiasTrial(match, found.result(), moved)


def split(feeds: Feeds) -> tuple[dict[str, Any], dict[str, Any]]:
    """The samples to measure on, and a quarter to decide on: drawn from a fixed seed.

    Drawn, because data sets are often sorted by class. Raises DataError where there are too few.
    """
    total = _count(feeds)
    if total < LEAST_SAMPLES:
        raise DataError(
            f"--calibrate-bias: {total} samples; at least {LEAST_SAMPLES} are needed",
            remedy="give a few hundred, of which a quarter is held out",
        )
    order = np.random.default_rng(0).permutation(total)
    held_out = np.sort(order[: total // _HELD_OUT])
    fit = np.sort(order[total // _HELD_OUT :])
    return _rows(feeds, fit), _rows(feeds, held_out)


def _count(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _rows(feeds: Feeds, rows: NDArray[np.int64]) -> dict[str, Any]:
    return {name: pick(values, rows) for name, values in feeds.items()}


def apply(network: Snn, layers: Sequence[Layer], shifts: Mapping[str, Array]) -> Snn:
    """A copy of ``network`` with ``shifts`` ([C] by layer name) in its currents, and recorded."""
    graph = network.graph.copy()
    nodes = {node.name: node for node in neuron_nodes(graph)}
    names = g.Names(graph)
    neurons: list[Neuron] = []
    for layer in layers:
        shift = shifts[layer.name]
        if not shift.any():
            neurons.append(layer.neuron)
            continue
        broadcast = per_channel(shift, layer.neuron.shape)
        added = add_to_current(graph, nodes[layer.name], broadcast, layer.dtype, names)
        neurons.append(replace(layer.neuron, bias_shift=added.reshape(-1).tolist()))
    graph.cleanup().toposort()
    check_graph(graph, "calibrate_bias")
    check_spiking(graph, "calibrate_bias")
    shifted = replace(network, graph=graph, neurons=tuple(neurons))
    return recorded(shifted, {BIAS_TIMESTEPS: str(network.timesteps)})


# --- deciding -------------------------------------------------------------------------------------


def _is_better(expected: Array, before: Array, after: Array, *, sigmoid: bool = False) -> bool:
    """Whether ``after`` is nearer to ``expected`` than ``before``: outputs [N, ...].

    By the share of equal classes, where it differs by more than twice its standard error; else by
    the mean square error.
    """
    classes = predictions(expected, sigmoid=sigmoid)
    gained = [predictions(found, sigmoid=sigmoid) == classes for found in (after, before)]
    gain = (gained[0].astype(np.float64) - gained[1]).reshape(len(expected), -1).mean(axis=1)
    if abs(gain.mean()) > 2 * gain.std() / np.sqrt(len(gain)):
        return bool(gain.mean() > 0)
    errors = [np.mean((np.asarray(f, np.float64) - expected) ** 2) for f in (after, before)]
    return bool(errors[0] < errors[1])
