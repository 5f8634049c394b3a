"""What each layer's current lacks, per channel, with the layers before it corrected already.

Two ways to say what it lacks:

``current``   its mean over time, samples and positions shall be the ANN's: one difference;
``output``    the mean of what the neurons give out shall be the ANN's activation: found by
              bisection, since spikes grow with the shift. Currents are affine in the outputs before
              them, so that their means, before the shift, are the ANN's as well.

Spikes of all samples are kept packed, a bit each, and dropped after their last use; everything else
streams by in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.batches import batch_size, batches
from na_convert.layer_currents import Currents, layer_currents, spikes_behind
from na_convert.layers import Layer, match_layers, per_channel
from na_convert.neurons import IFState
from na_convert.snn import Snn
from na_convert.teacher_forcing import runner

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Any]  # arrays, or lazy ones
Match: TypeAlias = Literal["current", "output"]
Parts: TypeAlias = Iterator[Array]

ROUNDING = 1e-5  # thresholds: smaller shifts are none
_POSITIONS = 64  # of a channel at most, that outputs are compared at
_SEARCHED = 16 << 20  # values of a layer at most, that a search runs on
_BISECTIONS = 12  # to a 4096th of a threshold


def measure(
    network: Snn,
    staircase_ann: gs.Graph,
    feeds: Feeds,
    match: Match = "current",
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Array]:
    """The shift of each layer by name, [C], in units of its current; zeros where it needs none.

    ``feeds`` [N, ...] by input name. Layers whose current is constant over time are left alone.
    """
    layers = match_layers(network, staircase_ann)
    count = len(next(iter(feeds.values())))
    sought = [_Sought.of(layer, match, network.timesteps * count) for layer in layers]
    wanted = _of_the_ann(staircase_ann, network, sought, feeds)
    widest = max(layers, key=lambda layer: layer.size)
    size = batch_size([widest], copies=8 * network.timesteps)
    currents = layer_currents(network, layers, network.timesteps)
    behind = [spikes_behind(network, layer, layers) for layer in layers]
    last_use = {name: index for index, names in enumerate(behind) for name in names}
    fired: dict[str, list[_Spikes]] = {}
    shifts: dict[str, Array] = {}
    for index, (each, mean) in enumerate(zip(sought, wanted, strict=True)):
        layer = each.layer
        read = {name: fired[name] for name in behind[index]}
        run = partial(_currents, currents.pop(0), feeds, size, read)
        constant = layer.neuron.constant_input
        shift = np.zeros_like(mean) if constant else each.shift(run(), mean)
        shifts[layer.name] = shift
        if layer.spikes in last_use:
            broadcast = per_channel(shift, layer.neuron.shape)
            fired[layer.spikes] = [_Spikes.of(layer, z + broadcast) for z in run()]
        fired = {name: kept for name, kept in fired.items() if last_use[name] > index}
        progress((index + 1) / len(layers))
    return shifts


def in_thresholds(layer: Layer, shift: Array) -> Array:
    """``shift`` [C] against one sample, in thresholds of its neurons."""
    broadcast = per_channel(shift, layer.neuron.shape)
    return np.asarray(np.abs(broadcast / np.asarray(layer.fired.threshold, np.float64)))


def _of_the_ann(
    ann: gs.Graph, network: Snn, sought: Sequence[_Sought], feeds: Feeds
) -> list[Array]:
    """What the ANN has of each mean that is sought."""
    run = runner(ann, network.carried, (), list(dict.fromkeys(each.tensor for each in sought)))
    means = [_Mean() for _ in sought]
    for part in batches(feeds, batch_size([each.layer for each in sought], copies=4)):
        values = run(part)
        for mean, each in zip(means, sought, strict=True):
            mean.add(each.of_ann(np.asarray(values[each.tensor], np.float64)))
    return [mean.value for mean in means]


def _currents(
    current: Currents, feeds: Feeds, size: int, fired: Mapping[str, Sequence[_Spikes]]
) -> Parts:
    """The current [T, N, ...] of each batch, under the spikes of the layers before."""
    for index, part in enumerate(batches(feeds, size)):
        yield current(part, {name: kept[index].unpacked() for name, kept in fired.items()})


# --- what is sought -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sought:
    """The mean of one layer that has to be the ANN's; ``positions``: where outputs are compared."""

    layer: Layer
    match: Match
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, layer: Layer, match: Match, values: int) -> _Sought:
        """``values``: time steps times samples."""
        channels, *rest = layer.neuron.shape or (1,)
        area = int(np.prod(rest))
        few = max(1, min(area, _POSITIONS, _SEARCHED // (values * channels)))
        order = np.random.default_rng(0).permutation(area)
        return cls(layer, match, np.sort(order[:few]))

    @property
    def tensor(self) -> str:
        """The ANN's tensor that it is read from."""
        return self.layer.root if self.match == "current" else self.layer.neuron.output

    def of_ann(self, value: Array) -> Array:
        """From the ANN's tensor [N, C, ...]: its current, or its activation from 0 to 1."""
        expected = self.layer.expected
        if self.match == "current":
            return np.asarray(value * expected.current_gain + expected.current_offset)
        return self._picked(self.layer.unit_output(value))

    def shift(self, currents: Parts, wanted: Array) -> Array:
        """[C], from the layer's currents [T, N, C, ...] batch by batch."""
        if self.match == "output":
            return self._bisected(np.concatenate([self._picked(z) for z in currents], 1), wanted)
        mean = _Mean()
        for z in currents:
            mean.add(z.mean(axis=0, dtype=np.float64))
        shift = wanted - mean.value
        small = in_thresholds(self.layer, shift).max() <= ROUNDING
        return np.zeros_like(shift) if small else np.asarray(shift)

    def _picked(self, values: Array) -> Array:
        """``values`` [..., N, C, ...] at the positions: [..., N, C, P]; of [N]: [N, 1, 1]."""
        own = len(self.layer.neuron.shape)
        lead = values.shape[: values.ndim - own]
        channels = self.layer.neuron.shape[0] if own else 1
        return values.reshape(*lead, channels, -1)[..., self.positions]

    def _bisected(self, current: Array, wanted: Array) -> Array:
        """The shift under which ``current`` [T, N, C, P] makes the neurons fire ``wanted`` [C]."""
        shape = self.layer.neuron.shape
        threshold = np.broadcast_to(self.layer.fired.threshold, shape or (1,))
        theta = self._picked(np.asarray(threshold, current.dtype).reshape(shape))
        initial = self.layer.fired.initial

        def rate(shift: Array) -> Array:
            added = (theta * shift.reshape(-1, 1)).astype(current.dtype)
            state = IFState.start(current[0], theta, np.ones(()), initial)
            fired = sum(np.mean(state.step(z + added), (0, 2), np.float64) for z in current)
            return np.asarray(fired / len(current))

        low, high = np.full(wanted.shape, -0.5), np.full(wanted.shape, 0.5)
        right = np.abs(rate(np.zeros_like(wanted)) - wanted) <= ROUNDING
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            less = rate(middle) < wanted
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        found = np.where(right, 0, (low + high) / 2) * theta.reshape(len(theta), -1).mean(axis=1)
        return np.asarray(found.reshape(shape[:1]))


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


# --- spikes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spikes:
    """The spikes of a layer for some samples, a bit for each neuron and time step."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]
    amplitude: Array

    @classmethod
    def of(cls, layer: Layer, current: Array) -> _Spikes:
        """What the layer's neurons make of ``current`` [T, N, ...]."""
        current = current.astype(layer.dtype, copy=False)
        parameters = layer.fired
        state = IFState.start(current[0], parameters.threshold, np.ones(()), parameters.initial)
        fired = np.stack([state.step(z) > 0 for z in current])
        amplitude = np.asarray(parameters.amplitude, layer.dtype)
        return cls(np.packbits(fired), fired.shape, amplitude)

    def unpacked(self) -> Array:
        """``[T, N, ...]``: the amplitude where a neuron fired, else 0."""
        fired = np.unpackbits(self.bits, count=int(np.prod(self.shape))).reshape(self.shape)
        return fired * self.amplitude
