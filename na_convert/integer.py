"""The integer network, and its definition in numpy: what every int8 form must do, count for count.

A layer is given the counts of spikes up to now, ``N_t``, in place of spikes, and works on integers
(the cumulative form of the neuron, `neurons.next_count`)::

    C_t  = sum of W N_t + t * b                        integers, W in int8, b in int32
    E_t  = round(R C_t / theta) + sum of q N_t         theta odd, R odd: no value is a tie
    N_t  = N_(t-1) + 1 where E_t >= R N_(t-1) + (R + 1) / 2, else N_(t-1)

``W N`` are convolutions, ``q N`` identity shortcuts; ``R`` is the resolution at which the two are
added, 1 where there is no shortcut or where the thresholds along it are tied. Rounding decides
nothing (a rounded number reaches k where the number itself reaches k - 1/2): a layer is the neuron
with current C / theta + (q / R) N, exactly. The rounded quotient is held in uint8 with a zero point
(`Layer.zero_point`) and saturates there; by the bounds of `integer_bounds` no spike depends on it.

A *wide* layer adds what one convolution cannot hold (several convolutions, analog skips, offsets
behind padding): there ``E_t`` is not rounded, the neuron fires where
``2 C_t >= theta (2 N_(t-1) + 1)``, with the shortcuts among the products of ``C_t``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import kernels
from .evaluate import evaluate
from .integer_moves import Move, move, pooled
from .results import Neuron
from .snn import Snn

Array: TypeAlias = NDArray[Any]
Counts: TypeAlias = dict[str, Array]
Key: TypeAlias = tuple[str, int]  # a layer's name, and the number of one of its analog currents

INT8 = 127  # the largest weight
UINT8 = 255  # the largest count, and what is compared with counts


@dataclass(frozen=True)
class Window:
    """Where a convolution looks: strides, pads (begins, then ends) and dilations per axis."""

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1

    def attributes(self) -> dict[str, object]:
        return {
            "strides": list(self.strides),
            "pads": list(self.pads),
            "dilations": list(self.dilations),
            "group": self.group,
        }


@dataclass(frozen=True)
class Product:
    """``W N``: int8 weights [O, I / group, ...] on the counts ``source``.

    ``window`` is None for a dense layer: counts [N, I], weights [O, I].
    """

    source: str
    weight: NDArray[np.int8]
    window: Window | None


@dataclass(frozen=True)
class Shortcut:
    """``q N``: whole numbers q (one, or [C, 1, ...] per channel) times the counts ``source``."""

    source: str
    weight: NDArray[np.int64]


@dataclass(frozen=True)
class Analog:
    """An analog current, ``clip(round(gain * tensor), low, high)`` per step.

    ``tensor`` is computed in float; ``gain`` (float32) turns it into units of the weights. It is
    the same at every step, except in the step form. In a layer that has no other current, 0 and
    theta limit it where it is the same at every step, which changes no count.
    """

    tensor: str
    gain: NDArray[np.float32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    def units(self, value: Array) -> NDArray[np.int64]:
        """The current of one step in units of the weights."""
        return in_units(value, self.gain, self.low, self.high)


@dataclass(frozen=True)
class Layer:
    """One layer of neurons; arrays per channel broadcast against one sample, [C, 1, ...].

    Attributes:
        name: of the IF node; ``output`` is the tensor of its counts, ``shape`` one sample's.
        bias: int64, added at every step.
        threshold: odd, in units of the weights.
        pool: attributes of a max-pool of the currents, in front of the neurons; or None.
    """

    name: str
    output: str
    shape: tuple[int, ...]
    products: tuple[Product, ...]
    analogs: tuple[Analog, ...]
    shortcuts: tuple[Shortcut, ...]
    bias: NDArray[np.int64]
    threshold: NDArray[np.int64]
    resolution: int = 1
    zero_point: int = 0
    wide: bool = False
    pool: Mapping[str, object] | None = None

    @property
    def constant(self) -> bool:
        """Whether the current is the same at every step."""
        return not (self.products or self.shortcuts or self.wide)

    @property
    def sources(self) -> list[str]:
        return [*(p.source for p in self.products), *(s.source for s in self.shortcuts)]


@dataclass(frozen=True)
class Mean:
    """A tensor of the readout: ``scale * N_T / T + offset`` of the counts ``source``."""

    output: str
    source: str
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def value(self, counts: Array, t: int) -> Array:
        """The tensor after ``t`` steps, from the counts of ``source``, in float32."""
        return np.asarray(counts.astype(np.float32) * self.scale / np.float32(t) + self.offset)


@dataclass(frozen=True)
class IntegerNetwork:
    """An SNN on integers: `operations` in order at every step, float before and behind.

    Attributes:
        snn: the description it was made from; its graph computes the analog currents, and the
            readout from `means`.
        timesteps: the largest T, for which the bounds are proved.
    """

    snn: Snn
    operations: tuple[Layer | Move, ...]
    means: tuple[Mean, ...]
    timesteps: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(op for op in self.operations if isinstance(op, Layer))

    @property
    def neurons(self) -> tuple[Neuron, ...]:
        return self.snn.neurons

    @cached_property
    def analogs(self) -> tuple[str, ...]:
        """The float tensors that enter as constant currents."""
        names = (each.tensor for layer in self.layers for each in layer.analogs)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Counted:
    """What an integer network did on N samples.

    Attributes:
        counts: of each layer by name, uint8 [T, N, ...]: spikes up to and with each step.
        outputs: the network's outputs by name, for each number of steps from 1 to T.
    """

    counts: dict[str, NDArray[np.uint8]]
    outputs: dict[int, dict[str, Array]]


def run(
    network: IntegerNetwork,
    feeds: Mapping[str, Array],
    timesteps: int,
    analog: Mapping[str, Array] | None = None,
) -> Counted:
    """Count for ``timesteps`` steps on ``feeds`` [N, ...]; the definition of the integer network.

    Args:
        analog: values of `IntegerNetwork.analogs`; computed in float32 by default.
    """
    given = dict(analog or evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32))
    per_step = current_units(network, given)
    samples = len(next(iter(feeds.values())))
    before = {layer.output: np.zeros((samples, *layer.shape), np.uint8) for layer in network.layers}
    recorded: dict[str, list[Array]] = {layer.name: [] for layer in network.layers}
    outputs = {}
    for t in range(1, timesteps + 1):
        totals = {key: t * current for key, current in per_step.items()}
        counts = step(network, before, totals, t)
        for layer in network.layers:
            recorded[layer.name].append(counts[layer.output])
        outputs[t] = readout(network, counts, feeds, t)
        before = {layer.output: counts[layer.output] for layer in network.layers}
    return Counted({name: np.stack(each) for name, each in recorded.items()}, outputs)


def current_units(
    network: IntegerNetwork, analog: Mapping[str, Array]
) -> dict[Key, NDArray[np.int64]]:
    """The analog currents of one step in units of the weights; ``analog`` are their values."""
    return {
        (layer.name, index): each.units(analog[each.tensor])
        for layer in network.layers
        for index, each in enumerate(layer.analogs)
    }


def step(
    network: IntegerNetwork, before: Mapping[str, Array], totals: Mapping[Key, Array], t: int
) -> Counts:
    """All counts after step ``t`` (from 1), from the layers' counts ``before`` it, by tensor.

    ``totals``: the sum of each analog current up to now (`current_units`), by layer and number.
    """
    counts: Counts = {}
    for operation in network.operations:
        if isinstance(operation, Layer):
            current = total_current(operation, counts, totals, t)
            counts[operation.output] = fire(operation, current, counts, before[operation.output])
        else:
            counts[operation.output] = move(operation, [counts[s] for s in operation.sources])
    return counts


def with_moves(network: IntegerNetwork, counts: Counts) -> Counts:
    """``counts`` of every layer, and what the network's moves make of them, by tensor."""
    known = dict(counts)
    for operation in network.operations:
        if isinstance(operation, Move):
            known[operation.output] = move(operation, [known[s] for s in operation.sources])
    return known


def in_units(value: Array, gain: Array, low: Array, high: Array) -> NDArray[np.int64]:
    """``clip(round(gain * value), low, high)``, the product in float32: an analog current."""
    rounded = np.rint(np.asarray(value, np.float32) * gain).astype(np.int64)
    return np.asarray(np.clip(rounded, low, high))


def total_current(layer: Layer, counts: Counts, totals: Mapping[Key, Array], t: int) -> Array:
    """``C_t`` in units of the weights, int64; ``totals`` as for `step`."""
    total: Array = t * layer.bias
    for product in layer.products:
        total = total + _multiply(product, counts[product.source])
    for index in range(len(layer.analogs)):
        total = total + totals[layer.name, index]
    if layer.wide:
        for shortcut in layer.shortcuts:
            total = total + shortcut.weight * counts[shortcut.source].astype(np.int64)
    return total


def whole_current(
    layer: Layer, counts: Counts, totals: Mapping[Key, Array], t: int
) -> NDArray[np.float64]:
    """``C_t`` and what the shortcuts add to it, in units of the weights."""
    now: NDArray[np.float64] = total_current(layer, counts, totals, t).astype(np.float64)
    if not layer.wide:
        for s in layer.shortcuts:
            given = s.weight * counts[s.source].astype(np.float64)
            now = now + given * layer.threshold / layer.resolution
    return now


def fire(layer: Layer, current: Array, counts: Counts, before: Array) -> NDArray[np.uint8]:
    """The counts ``N_t``, from ``C_t`` and ``N_(t-1)``."""
    count = before.astype(np.int64)
    if layer.wide or layer.constant:
        fired = 2 * current >= layer.threshold * (2 * count + 1)
        return np.asarray((count + fired).astype(np.uint8))
    ratio, theta = layer.resolution, layer.threshold
    rounded = (2 * ratio * current + theta) // (2 * theta)
    held = np.clip(rounded + layer.zero_point, 0, UINT8)
    if layer.pool is not None:
        held = pooled(layer.pool, held)
    needed = layer.zero_point + (ratio + 1) // 2 + ratio * count
    for shortcut in layer.shortcuts:
        needed = needed - shortcut.weight * counts[shortcut.source].astype(np.int64)
    return np.asarray((count + (held >= needed)).astype(np.uint8))


def readout(
    network: IntegerNetwork, counts: Counts, feeds: Mapping[str, Array], t: int
) -> dict[str, Array]:
    """The network's outputs by name after ``t`` steps, in float32."""
    means = {m.output: m.value(counts[m.source], t) for m in network.means}
    names = [o.name for o in network.snn.graph.outputs]
    return evaluate(network.snn.graph, {**feeds, **means}, names, dtype=np.float32)


def _multiply(product: Product, counts: Array) -> Array:
    """Exact: float64 holds every integer that can arise."""
    if product.window is None:
        return np.asarray(counts.astype(np.float64) @ product.weight.T.astype(np.float64)).astype(
            np.int64
        )
    node = gs.Node("Conv", attrs=product.window.attributes())
    inputs = [counts.astype(np.float64), product.weight.astype(np.float64)]
    return kernels.conv(node, inputs, np.dtype(np.float64)).astype(np.int64)
