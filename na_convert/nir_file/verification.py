"""A NIR file, read back, beside the SNN that it was made from.

Both get the SNN's spikes, layer by layer, so that one spike that rounding decides otherwise cannot
cascade (as in `engines`): each IF node has to fire where the SNN does, but for ties, membranes so
close to the threshold that float32 weights decide. Then the file runs freely: its counts are the
SNN's but for the samples and layers that a tie reaches. What the file means is said by `simulate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from ..engines import FLOAT_NOISE
from ..evaluate import evaluate
from ..kernels import max_pool
from ..replay import relative_error
from ..results import Figure
from ..rungs import Entry, of_check, rung
from ..simulation import numpy_engine
from ..snn import Snn, neuron_nodes
from .network import Array, Network
from .read_back import Network as Read
from .read_back import Neurons
from .simulate import Recording, simulate

_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Compared:
    """A file beside the SNN that it holds.

    Attributes:
        figures: of the ladder.
        counts: spikes of the file running freely, by layer, [N, ...].
        outputs: its outputs' means over the steps, by the SNN's tensor, [N, ...].
    """

    figures: tuple[Figure, ...]
    counts: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Deviation:
    """What the file does otherwise than the SNN itself: for the start of its membranes, for what it
    does not round.

    Attributes:
        counts: share of neurons with another count after T steps.
        agreement: share of samples with the same largest output.
    """

    counts: float
    agreement: float


Spikes: TypeAlias = Mapping[str, Array]  # by layer, [T, N, ...]


def spikes_of(snn: Snn, feeds: Mapping[str, Array]) -> Spikes:
    """The spikes of all layers of ``snn`` on ``feeds``, in float64."""
    names = [node.name for node in neuron_nodes(snn.graph)]
    return numpy_engine(snn, snn.timesteps, names, np.float64)(feeds).spikes


def compare(
    read: Read,
    network: Network,
    snn: Snn,
    spikes: Spikes,
    x: Array,
    feeds: Mapping[str, Array],
    *,
    exact: bool,
) -> Compared:
    """``read``, the file as it was read back, against ``snn``, which ``network`` was made from.

    Args:
        spikes: of ``snn`` on its own inputs ``feeds``.
        x: what the Input node gets, [N, ...].
        exact: sums of spikes are exact, so that no spike may differ where no analog current does.
    """
    given = {network.layers[name]: value for name, value in spikes.items()}
    strict = {network.layers[n.name] for n in snn.neurons if exact and not n.constant_input}
    forced, free = _Run(read), _Run(read)
    seen = {node: Layer.unseen(len(x)) for node in given}
    for t in range(snn.timesteps):
        membranes = forced.step(x, {node: value[t : t + 1] for node, value in given.items()})
        for node, value in given.items():
            threshold = np.asarray(read.neurons[node].threshold, np.float64)
            limit = 0.0 if node in strict else FLOAT_NOISE * _EPS * (t + 1)
            seen[node] = seen[node].after(membranes[node], threshold, value[t] != 0, limit)
        free.step(x)
    means = {name: forced.outputs[name] / snn.timesteps for name in network.outputs}
    counts = {name: free.counts[node] for name, node in network.layers.items()}
    figures = [
        _spikes(network, seen, sum(v.size for v in given.values())),
        counts_figure(counts, spikes, reached_by_ties(read, network.layers, seen)),
        _outputs(network, snn, spikes, means, feeds),
    ]
    outputs = {
        tensor: free.outputs[node] / snn.timesteps for node, tensor in network.outputs.items()
    }
    return Compared(tuple(of_check("nir", figures)), counts, outputs)


class _Run:
    """A file between two time steps, and sums over those up to now: of the spikes of all IF nodes
    (``counts``) and of the Outputs, [N, ...] each. One step at a time: that is all the memory."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.counts: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}

    def step(self, x: Array, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """One step on ``x`` [N, ...]; with ``given`` as in `simulate`. The membranes before the
        reset."""
        now = simulate(self._read, x[None], given=given)
        reached = {
            name: op.initial.astype(np.float64) + now.currents[name][0]
            for name, op in self._read.neurons.items()
        }
        self._read = replace(self._read, ops={**self._read.ops, **self._reset(now, reached)})
        fired = {name: now.values[name][0] for name in reached}
        self.counts = _added(self.counts, fired)
        self.outputs = _added(self.outputs, {n: now.values[n][0] for n in self._read.outputs})
        return reached

    def _reset(self, now: Recording, reached: Mapping[str, Array]) -> dict[str, Neurons]:
        """The neurons, with the membranes that they have after this step to start the next."""
        return {
            name: replace(op, initial=reached[name] - op.threshold * now.values[name][0])
            for name, op in self._read.neurons.items()
        }


@dataclass(frozen=True)
class Layer:
    """A layer under the SNN's spikes: ``wrong`` spikes of its own, ``ties`` by sample [N], and the
    ``largest`` membrane up to now, in thresholds."""

    wrong: int
    ties: Array
    largest: float

    @classmethod
    def unseen(cls, samples: int) -> Layer:
        return cls(0, np.zeros(samples, np.int64), 0.0)

    def after(self, membrane: Array, threshold: Array, fired: Array, limit: float) -> Layer:
        """After another step; ``limit`` of the float error relative to the largest membrane, 0
        where sums are exact: nothing is a tie there."""
        share = membrane / threshold
        largest = max(self.largest, float(np.max(np.abs(share), initial=0)))
        differs = (membrane >= threshold) != fired
        near = (np.abs(share - 1) <= limit * (largest + 1)) & (limit > 0)
        ties = np.count_nonzero((differs & near).reshape(len(share), -1), axis=1)
        wrong = int(np.count_nonzero(differs & ~near))
        return Layer(self.wrong + wrong, self.ties + ties, largest)


def reached_by_ties(
    read: Read, layers: Mapping[str, str], seen: Mapping[str, Layer]
) -> dict[str, Array]:
    """By layer, the samples [N] in which it or a layer in front of it has a tie."""
    ties = {name: layer.ties > 0 for name, layer in seen.items()}
    none = np.zeros_like(next(iter(ties.values())))
    reached: dict[str, Array] = {}
    for name in read.ops:
        before = [reached[source] for source in read.sources[name]]
        reached[name] = np.any([ties.get(name, none), *before], axis=0)
    return {layer: reached[node] for layer, node in layers.items()}


def deviation(
    found: Compared,
    original: Snn,
    spikes: Spikes,
    feeds: Mapping[str, Array],
    pooled: Mapping[str, gs.Node],
) -> Deviation:
    """The file beside ``original``, the SNN with its initial membranes, and its ``spikes``.

    ``pooled``: max-pools that stand behind layers of the file, and before those of ``original``.
    """
    counts = {
        name: max_pool(pooled[name], [value], value.dtype) if name in pooled else value
        for name, value in found.counts.items()
    }
    first, output = next(iter(found.outputs.items()))
    wanted = _expected(original, spikes, feeds, [first])[first].reshape(len(output), -1)
    same = output.reshape(len(output), -1).argmax(axis=1) == wanted.argmax(axis=1)
    different = _different(counts, spikes)
    total = sum(value.size for value in counts.values())
    return Deviation(different / total, float(np.mean(same)))


def _added(total: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
    return {name: total.get(name, 0) + value for name, value in values.items()}


def _different(counts: Mapping[str, Array], spikes: Spikes) -> int:
    """How many counts are not those of ``spikes``."""
    return sum(
        int(np.count_nonzero(counts[name] != np.count_nonzero(value, axis=0)))
        for name, value in spikes.items()
    )


def _spikes(network: Network, seen: Mapping[str, Layer], total: int) -> Figure:
    entries = [
        Entry(
            seen[node].wrong, 0,
            f"layer {name!r}: {seen[node].wrong} spikes differ from the SNN's", name,
        )
        for name, node in network.layers.items()
    ]  # fmt: skip
    figure = rung("NIR spikes", entries)
    if not figure.passed:
        return figure
    ties = sum(int(layer.ties.sum()) for layer in seen.values())
    detail = (
        f"the file read back, under the SNN's own spikes: {len(entries)} layers, {total} neurons "
        f"and steps, {ties} within float error of the threshold"
    )
    return Figure("NIR spikes", 0.0, 0.0, True, detail)


def counts_figure(
    counts: Mapping[str, Array], spikes: Spikes, reached: Mapping[str, Array]
) -> Figure:
    """The file by itself: where no tie reaches a layer, its counts are the SNN's."""
    wrong, excused = 0, 0
    for name, value in spikes.items():
        differs = counts[name] != np.count_nonzero(value, axis=0)
        by_sample = np.count_nonzero(differs.reshape(len(differs), -1), axis=1)
        wrong += int(by_sample[~reached[name]].sum())
        excused += int(by_sample[reached[name]].sum())
    total = sum(value.size for value in counts.values())
    detail = f"the file running freely: {wrong} of {total} counts differ from the SNN's"
    if excused:
        detail += f", and {excused} behind membranes within float error of the threshold"
    return Figure("NIR counts", wrong, 0.0, wrong == 0, detail)


def _outputs(
    network: Network,
    snn: Snn,
    spikes: Spikes,
    found: Mapping[str, Array],
    feeds: Mapping[str, Array],
) -> Figure:
    wanted = _expected(snn, spikes, feeds, list(network.outputs.values()))
    entries = [
        Entry(
            relative_error(wanted[tensor], found[node].reshape(wanted[tensor].shape)),
            FLOAT_NOISE * _EPS * snn.timesteps,
            f"the mean of Output {node!r} over the steps beside {tensor!r}, relative",
            node,
        )
        for node, tensor in network.outputs.items()
    ]
    return rung("NIR outputs", entries)


def _expected(
    snn: Snn, spikes: Spikes, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """The outputs on the mean of ``spikes`` over time: what is between is affine."""
    ends = {node.name: node.outputs[0].name for node in neuron_nodes(snn.graph)}
    means = {ends[name]: value.mean(axis=0) for name, value in spikes.items()}
    return evaluate(snn.graph, {**feeds, **means}, outputs)
