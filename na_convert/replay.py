"""The replay: the SNN's own operators and neurons, fed the ANN's values, must give its levels.

Between two neuron layers an SNN is affine. Feed the ANN's activations of the layers before as a
constant current through the SNN's own convolutions, biases and pools, let the layer's own neurons
run for T = p steps, and each must fire as often as the ANN's level says (DESIGN: the replay). All
in float64, the ANN recomputed too, so that only what conversion did is left of the differences:
weights rounded to the file's float type once more, or to the grids of `passes.snap`. That noise is
measured, not assumed. A network on grids must also fire, without exception, at the levels of the
ANN that has its rounded weights.

Quantisers of the input are no layers: ANN and SNN get the ANN's levels (`input_quantisers`).

Where biases were calibrated, the recorded shift of a layer's current is taken back first: what is
left must be the ANN's. A shift in the file that is not the recorded one is an error in the current.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase
from .evaluate import evaluate
from .exactness import exactness_of, moved_off_grid
from .input_quantisers import in_snn, input_quantisers
from .layers import Layer, group_sources, in_groups, match_layers, reference_values, split_by_owner
from .neurons import IFState
from .snn import Snn

Array: TypeAlias = NDArray[Any]

# Tolerance: this often the effect of rounding every input of a layer by half a unit in the last
# place, at random. Weights are rounded once or twice, some of them alike for a whole channel.
NOISE_MARGIN = 8.0
GIVEN_UNITS = 2.0**20
ALL_AT_ONCE = 1 << 62
_BLOCK = 1 << 15  # elements whose neurons run together: they stay in the cache


@dataclass(frozen=True)
class LayerReplay:
    """One layer's replay; currents in stairs (for a ramp: in thresholds).

    Attributes:
        mismatches: elements whose count differs from the ANN's level, ties left out.
        ties: elements whose count differs, so close to an edge that rounding may decide.
        current_error: largest difference of the SNN's current from the ANN's.
        tolerance: what rounding can do to a current; also the distance that makes a tie.
        output_error: largest difference of the neurons' output from the ANN's, in output steps,
            where the counts agree.
        off_grid: elements whose count is not the level of the ANN with the rounded weights.
        parameter_error: largest relative difference of threshold, amplitude and initial membrane
            from those the activation asks for.
        at_lowest, between, at_highest: numbers of elements by the ANN's level.
    """

    layer: Layer
    elements: int
    mismatches: int
    ties: int
    current_error: float
    tolerance: float
    output_error: float
    parameter_error: float
    at_lowest: int
    between: int
    at_highest: int
    off_grid: int = 0

    def merged(self, other: LayerReplay) -> LayerReplay:
        """Of two sets of samples, together."""
        return LayerReplay(
            self.layer,
            self.elements + other.elements,
            self.mismatches + other.mismatches,
            self.ties + other.ties,
            max(self.current_error, other.current_error),
            max(self.tolerance, other.tolerance),
            max(self.output_error, other.output_error),
            max(self.parameter_error, other.parameter_error),
            self.at_lowest + other.at_lowest,
            self.between + other.between,
            self.at_highest + other.at_highest,
            self.off_grid + other.off_grid,
        )


@dataclass(frozen=True)
class Replay:
    """All layers in order, and the largest relative error of the outputs behind the last."""

    layers: tuple[LayerReplay, ...]
    readout_error: float
    readout_where: str


def replay(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    batches: Sequence[Mapping[str, Array]],
    progress: Callable[[float], None] = lambda share: None,
    at_once: int = ALL_AT_ONCE,
) -> Replay:
    """Replay ``network`` against ``ann`` on ``batches`` of inputs.

    Args:
        ann: the network as exported (BatchNorm and activations as they were).
        staircase_ann: the same with one node per activation, which says what each layer stands for.
        progress: called with the share done, 0 to 1.
        at_once: neurons of one sample whose values are held together; a larger network is replayed
            in groups of layers, each fed the ANN's activations before it.

    Raises CheckFailed where a layer has no counterpart in the ANN.
    """
    layers = match_layers(network, staircase_ann)
    grouped = in_groups(layers, at_once)
    before = [group_sources(network, layers, group) for group in grouped]
    quantisers = input_quantisers(staircase_ann, layers)
    outputs = [t.name for t in ann.outputs]
    on_grid = exactness_of(network) is not None
    merged: list[LayerReplay] = []
    readout, where = 0.0, ""
    for index, feeds in enumerate(batches):
        found: list[LayerReplay] = []
        known: dict[str, Array] = {}  # the ANN's activations that layers to come need
        entering = _tensors(ann, staircase_ann, feeds, [q.output for q in quantisers])
        given = {**feeds, **in_snn(quantisers, network.graph, entering)}
        for number, group in enumerate(grouped):
            ends = outputs if number == len(grouped) - 1 else []
            values = _values(ann, staircase_ann, group, {**feeds, **known}, ends)
            known.update({layer.neuron.output: values[layer.neuron.output] for layer in group})
            currents, noise = _currents(
                network, group, before[number], known, given, ends, seed=index, on_grid=on_grid
            )
            found += [_replay_layer(layer, values, currents, noise, on_grid) for layer in group]
            later = {each.neuron.output for each in chain(*before[number + 1 :])}
            known = {name: value for name, value in known.items() if name in later}
            for name in ends:
                error = relative_error(values[name], currents[name])
                if error > readout:
                    readout, where = error, name
        merged = [a.merged(b) for a, b in zip(merged, found, strict=True)] if merged else found
        progress((index + 1) / len(batches))
    return Replay(tuple(merged), readout, where)


def _values(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    layers: Sequence[Layer],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
) -> dict[str, Array]:
    """The ANN's activations, what they are functions of, and its ``outputs``."""
    names = [name for layer in layers for name in (layer.neuron.output, layer.root)]
    return _tensors(ann, staircase_ann, feeds, names, outputs)


def _tensors(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    feeds: Mapping[str, Array],
    names: Sequence[str],
    outputs: Sequence[str] = (),
) -> dict[str, Array]:
    """``names`` as the ANN has them, in float64, and its ``outputs``."""
    own, others = split_by_owner(ann, names)
    return reference_values(
        lambda given: evaluate(ann, given, [*own, *outputs]),
        lambda given: evaluate(staircase_ann, given, others),
        feeds,
    )


def _currents(
    network: Snn,
    layers: Sequence[Layer],
    before: Sequence[Layer],
    values: Mapping[str, Array],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    seed: int,
    on_grid: bool,
) -> tuple[dict[str, Array], dict[str, float]]:
    """The SNN's currents under the ANN's activations, and what rounding does to each at most."""
    given = {**feeds, **{layer.spikes: _given(layer, values, on_grid) for layer in before}}
    tensors = [layer.current for layer in layers]
    currents = evaluate(network.graph, given, tensors)
    if outputs:  # the readout is on no grid: it gets what the ANN's gets
        decoded = {**feeds, **{layer.spikes: _given(layer, values, False) for layer in before}}
        currents |= evaluate(network.graph, decoded, outputs)
    rng = np.random.default_rng(seed)
    eps = {layer.spikes: float(np.finfo(layer.dtype).eps) for layer in before}
    default = max(float(np.finfo(layer.dtype).eps) for layer in layers)
    rounded = {
        name: value * (1 + rng.uniform(-0.5, 0.5, value.shape) * eps.get(name, default))
        if value.dtype.kind == "f"
        else value
        for name, value in given.items()
    }
    shifted = evaluate(moved_off_grid(network, rng), rounded, tensors)
    noise = {}
    for layer in layers:
        difference = (shifted[layer.current] - currents[layer.current]) / layer.current_scale
        noise[layer.current] = float(np.max(np.abs(difference), initial=0))
    return currents, noise


def _given(layer: Layer, values: Mapping[str, Array], on_grid: bool) -> Array:
    """The ANN's activation as a constant output of the layer: an n-th of a spike, which is on no
    grid, as near to it as keeps float64 exact."""
    output = (values[layer.neuron.output] - _offset(layer)) * layer.output_scale
    return np.round(output * GIVEN_UNITS) / GIVEN_UNITS if on_grid else output


def _offset(layer: Layer) -> Array:
    return layer.expected.output_offset


def _replay_layer(
    layer: Layer,
    values: Mapping[str, Array],
    currents: Mapping[str, Array],
    noise: Mapping[str, float],
    on_grid: bool,
) -> LayerReplay:
    expected = layer.expected
    wanted = values[layer.root] * expected.current_gain + expected.current_offset
    current = currents[layer.current] / layer.current_scale - layer.bias_shift
    difference = np.abs(current - wanted) / layer.stair
    position = np.abs(wanted) + np.abs(layer.bias_shift)
    tolerance = _tolerance(layer, position / layer.stair, noise[layer.current])
    output = values[layer.neuron.output] - _offset(layer)
    if not isinstance(layer.function, Staircase):
        return _ramp(layer, output, difference, tolerance)
    level = np.round(output / expected.amplitude * layer.function.levels)
    counts = fire(layer, current * layer.current_scale, layer.function.levels)
    differs = counts != level
    tie = layer.function.distance_to_edge(values[layer.root]) <= tolerance
    step = np.abs(expected.amplitude) / layer.function.levels
    made = counts / layer.function.levels * layer.fired.amplitude / layer.output_scale
    output_error = np.where(differs, 0, np.abs(made - output) / step)
    return LayerReplay(
        layer,
        level.size,
        int(np.count_nonzero(differs & ~tie)),
        int(np.count_nonzero(differs & tie)),
        float(difference.max(initial=0)),
        tolerance,
        float(output_error.max(initial=0)),
        _parameter_error(layer),
        int(np.count_nonzero(level <= 0)),
        int(np.count_nonzero((level > 0) & (level < layer.function.levels))),
        int(np.count_nonzero(level >= layer.function.levels)),
        _off_grid(layer, currents[layer.current], layer.function.levels) if on_grid else 0,
    )


def _off_grid(layer: Layer, current: Array, levels: int) -> int:
    """Counts that are not the level of a staircase on the SNN's own current, ties included.

    Everything is a multiple of one power of two, so that nothing is rounded here.
    """
    theta = np.asarray(layer.fired.threshold, np.float64)
    level = np.clip(np.floor_divide(2 * levels * current + theta, 2 * theta), 0, levels)
    return int(np.count_nonzero(fire(layer, current, levels) != level))


def _ramp(layer: Layer, output: Array, difference: Array, tolerance: float) -> LayerReplay:
    """A ramp has no levels to compare: its neurons must get the ANN's current, and no other."""
    share = output / layer.expected.amplitude
    lowest, highest = share <= 0, share >= 1
    return LayerReplay(
        layer,
        share.size,
        int(np.count_nonzero(difference > tolerance)),
        0,
        float(difference.max(initial=0)),
        tolerance,
        0.0,
        _parameter_error(layer),
        int(np.count_nonzero(lowest)),
        int(np.count_nonzero(~lowest & ~highest)),
        int(np.count_nonzero(highest)),
    )


def _tolerance(layer: Layer, position: Array, noise: float) -> float:
    """In stairs: rounding of what goes in, and of the currents and edges themselves."""
    eps = float(np.finfo(layer.dtype).eps)
    levels = layer.function.levels if isinstance(layer.function, Staircase) else 1
    largest = float(np.max(np.abs(position), initial=0)) + levels + 1
    return NOISE_MARGIN * noise / float(np.min(layer.stair)) + 2 * eps * largest


def _parameter_error(layer: Layer) -> float:
    """Relative; the initial membrane must be half a threshold."""
    pairs = (
        (layer.threshold, layer.expected.threshold),
        (layer.fired.amplitude / layer.output_scale, layer.expected.amplitude),
        (layer.fired.initial, 0.5),
    )
    return max(float(np.max(np.abs(np.asarray(a) - b) / np.abs(b))) for a, b in pairs)


def fire(layer: Layer, current: Array, timesteps: int) -> Array:
    """Counts of the layer's own neurons under constant ``current`` [N, ...], as int64."""
    theta = np.asarray(layer.fired.threshold, np.float64)
    per_sample = theta.reshape(()) if theta.size == 1 else theta
    shape = current.shape if theta.size > 1 else (current.size,)
    thresholds = np.broadcast_to(per_sample, shape).reshape(-1)
    counts = np.zeros(current.size, np.int64)
    for block in _blocks(current.size):
        z = current.reshape(-1)[block]
        state = IFState.start(z, thresholds[block], np.ones(()), layer.fired.initial)
        for _ in range(timesteps):
            counts[block] += state.step(z).astype(np.int64)
    return counts.reshape(current.shape)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def relative_error(expected: Array, found: Array, allowed: float = 0.0) -> float:
    """Largest difference, relative to the largest value expected; infinite if shapes differ.

    Differences up to ``allowed`` count as none.
    """
    if expected.shape != found.shape:
        return float("inf")
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    scale = float(np.max(np.abs(a), initial=0)) or 1.0
    apart = np.abs(a - b)
    return float(np.max(np.where(apart <= allowed, 0, apart), initial=0)) / scale
