"""Shift each layer's current, per channel, so that its mean over time and data is the ANN's.

Spikes of deeper layers come unevenly, and what fired too early is not taken back: on average a
spiking layer gives out more than its activation. Layer by layer, with those before it corrected,
the mean difference between the ANN's and the SNN's current at T is added to the bias. A second
round would find nothing: after the first, the means are equal.

Optional: runs after `to_spiking`, where the user gives data. Requires the description of
`na_convert.snn`; ensures that each `Neuron.bias_shift` is what its current gained.

Cases:

* a layer behind other neurons: shifted by one constant per channel (axis 1), in units of its
  current; thresholds per channel, falling steps and offsets are in the current already;
* a layer whose mean current is the ANN's already: left alone. So are those whose current is
  constant over time, and at T = levels the layers that read nothing but their spikes;
* where the shift goes, and currents that others read too: `add_bias`;
* a quarter of the samples, drawn at random, is held out and decides: where the shifted network
  agrees less with the ANN there, the network is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.behaviour import batch_size, batches
from na_convert.errors import DataError
from na_convert.layer_currents import Currents, layer_currents, spikes_behind
from na_convert.layers import Layer, match_layers, per_channel
from na_convert.lazy import pick
from na_convert.neurons import IFState
from na_convert.outputs import ann_output, snn_output
from na_convert.results import BiasCalibration, LayerShift, Neuron, PassReport, Skip
from na_convert.snn import BIAS_TIMESTEPS, Snn, neuron_nodes, recorded
from na_convert.spec import check_graph, check_spiking
from na_convert.statistics import count_outputs, predictions
from na_convert.teacher_forcing import runner

from .add_bias import add_to_current

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Any]  # arrays, or lazy ones

LEAST_SAMPLES = 8
_EXACT = "its mean current is the ANN's already"
_ROUNDING = 1e-5  # thresholds
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
    shifts = measure(network, staircase_ann, fit, lambda share: progress(0.7 * share))
    shifted = apply(network, layers, shifts)
    expected = ann_output(staircase_ann, network, layers, held_out)
    steps = network.timesteps
    before = snn_output(network, layers, held_out)[steps]
    progress(0.85)
    after = snn_output(shifted, layers, held_out)[steps]
    kept = _is_better(expected, before, after)
    found = BiasCalibration(
        timesteps=steps,
        samples=_count(fit),
        held_out=_count(held_out),
        plain=count_outputs(steps, expected, before, None).result(),
        calibrated=count_outputs(steps, expected, after, None).result(),
        kept=kept,
        layers=tuple(_layer_shift(layer, shifts[layer.name]) for layer in layers),
    )
    skipped = tuple(Skip(e.name, _EXACT) for e in layers if not shifts[e.name].any())
    changed = len(layers) - len(skipped) if kept else 0
    report = PassReport("calibrate_bias", changed, skipped)
    return BiasFold(shifted if kept else network, report, found)


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


def measure(
    network: Snn,
    staircase_ann: gs.Graph,
    feeds: Feeds,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Array]:
    """The shift of each layer by name, [C], in units of its current; zeros where it needs none."""
    layers = match_layers(network, staircase_ann)
    wanted = _ann_means(staircase_ann, network, layers, feeds)
    return _shifts(network, layers, feeds, wanted, progress)


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


# --- measuring ------------------------------------------------------------------------------------


def _ann_means(
    ann: gs.Graph, network: Snn, layers: Sequence[Layer], feeds: Feeds
) -> dict[str, Array]:
    """The ANN's mean current of each layer [C], in the neuron's units."""
    run_ann = runner(ann, network.carried, (), [layer.root for layer in layers])
    means = {layer.name: _Mean() for layer in layers}
    for part in batches(feeds, batch_size(layers, copies=4)):
        values = run_ann(part)
        for layer in layers:
            expected = layer.expected
            root = np.asarray(values[layer.root], np.float64)
            means[layer.name].add(root * expected.current_gain + expected.current_offset)
    return {name: mean.value for name, mean in means.items()}


def _shifts(
    network: Snn,
    layers: Sequence[Layer],
    feeds: Feeds,
    wanted: Mapping[str, Array],
    progress: Callable[[float], None],
) -> dict[str, Array]:
    """What each layer's current lacks of ``wanted`` [C], with the layers before it shifted."""
    steps = network.timesteps
    widest = max(layers, key=lambda layer: layer.size)
    size = batch_size([widest], copies=8 * steps)
    currents = layer_currents(network, layers, steps)
    behind = [spikes_behind(network, layer, layers) for layer in layers]
    last_use = {name: index for index, names in enumerate(behind) for name in names}
    fired: dict[str, list[_Spikes]] = {}
    shifts: dict[str, Array] = {}
    for index, layer in enumerate(layers):
        current = currents.pop(0)  # with its onnxruntime session
        read = {name: fired[name] for name in behind[index]}
        shifts[layer.name] = np.zeros_like(wanted[layer.name])
        if not layer.neuron.constant_input:
            mean = _Mean()
            for z in _run(current, batches(feeds, size), read):
                mean.add(z.mean(axis=0, dtype=np.float64))
            shifts[layer.name] = _beyond_rounding(wanted[layer.name] - mean.value, layer)
        if layer.spikes in last_use:
            shift = per_channel(shifts[layer.name], layer.neuron.shape)
            fired[layer.spikes] = [
                _fire(layer, z + shift) for z in _run(current, batches(feeds, size), read)
            ]
        fired = {name: kept for name, kept in fired.items() if last_use[name] > index}
        progress((index + 1) / len(layers))
    return shifts


def _run(
    current: Currents, parts: Iterator[dict[str, Array]], fired: Mapping[str, Sequence[_Spikes]]
) -> Iterator[Array]:
    """The current [T, N, ...] of each batch, under the spikes of the layers before."""
    for index, feeds in enumerate(parts):
        yield current(feeds, {name: kept[index].unpacked() for name, kept in fired.items()})


@dataclass(frozen=True)
class _Spikes:
    """The spikes of a layer for some samples, a bit for each neuron and time step."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]
    amplitude: Array

    def unpacked(self) -> Array:
        """``[T, N, ...]``: the amplitude where a neuron fired, else 0."""
        fired = np.unpackbits(self.bits, count=int(np.prod(self.shape))).reshape(self.shape)
        return fired * self.amplitude


def _fire(layer: Layer, current: Array) -> _Spikes:
    """What the layer's neurons make of ``current`` [T, N, ...]."""
    current = current.astype(layer.dtype, copy=False)
    parameters = layer.fired
    state = IFState.start(current[0], parameters.threshold, np.ones(()), parameters.initial)
    fired = np.stack([state.step(z) > 0 for z in current])
    amplitude = np.asarray(parameters.amplitude, layer.dtype)
    return _Spikes(np.packbits(fired), fired.shape, amplitude)


class _Mean:
    """Mean per channel (axis 1) over samples and positions, in float64, a batch at a time."""

    def __init__(self) -> None:
        self._total: Array = np.zeros(())
        self._count = 0

    def add(self, values: Array) -> None:
        """``values`` [N, C, ...]; [N] has no channels, and its mean is a scalar."""
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        self._total = self._total + values.sum(axis=axes, dtype=np.float64)
        self._count += values.size // self._total.size

    @property
    def value(self) -> Array:
        return np.asarray(self._total / self._count)


def _beyond_rounding(shift: Array, layer: Layer) -> Array:
    """``shift``, or zeros where no channel of it is more than rounding."""
    return shift if _layer_shift(layer, shift).largest > _ROUNDING else np.zeros_like(shift)


def _layer_shift(layer: Layer, shift: Array) -> LayerShift:
    broadcast = per_channel(shift, layer.neuron.shape)
    in_thresholds = np.abs(broadcast / np.asarray(layer.fired.threshold, np.float64))
    return LayerShift(layer.name, float(in_thresholds.mean()), float(in_thresholds.max()))


# --- deciding -------------------------------------------------------------------------------------


def _is_better(expected: Array, before: Array, after: Array) -> bool:
    """Whether ``after`` is nearer to ``expected`` than ``before``: outputs [N, ...].

    By the share of equal classes, where it differs by more than twice its standard error; else by
    the mean square error.
    """
    classes = predictions(expected)
    gained = [predictions(found) == classes for found in (after, before)]
    gain = (gained[0].astype(np.float64) - gained[1]).reshape(len(expected), -1).mean(axis=1)
    if abs(gain.mean()) > 2 * gain.std() / np.sqrt(len(gain)):
        return bool(gain.mean() > 0)
    errors = [np.mean((np.asarray(f, np.float64) - expected) ** 2) for f in (after, before)]
    return bool(errors[0] < errors[1])
