"""A NIR file, read back, beside the SNN that it was made from.

Both get the SNN's spikes, layer by layer, so that one spike that rounding decides otherwise cannot
cascade (as in `engines`): each IF node has to fire where the SNN does, but for membranes so close
to the threshold that float32 weights decide. Then the file runs freely; its counts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from .reference import Reference, Step

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
    graph: Any,
    network: Network,
    snn: Snn,
    spikes: Spikes,
    x: Array,
    feeds: Mapping[str, Array],
    *,
    exact: bool,
) -> Compared:
    """``graph``, as ``nir`` read it, against ``snn``, which ``network`` was made from.

    Args:
        spikes: of ``snn`` on its own inputs ``feeds``.
        x: what the Input node gets, [N, ...].
        exact: sums of spikes are exact, so that no spike may differ where no analog current does.
    """
    given = {network.layers[name]: value for name, value in spikes.items()}
    forced, free = Reference(graph), Reference(graph)
    strict = {network.layers[n.name] for n in snn.neurons if exact and not n.constant_input}
    wrong, ties = dict.fromkeys(given, 0), dict.fromkeys(given, 0)
    largest = dict.fromkeys(given, 0.0)
    runs: list[Step] = []
    total: dict[str, Array] = {}
    for t in range(snn.timesteps):
        now = forced.step(x, {node: value[t] for node, value in given.items()})
        for node, value in given.items():
            membrane = now.membranes[node]
            largest[node] = max(largest[node], float(np.max(np.abs(membrane), initial=0)))
            tolerance = FLOAT_NOISE * _EPS * (largest[node] + 1) * (t + 1)
            tolerance = 0.0 if node in strict else tolerance
            differs = (membrane >= 1) != (value[t] != 0)
            near = np.abs(membrane - 1) <= tolerance
            wrong[node] += int(np.count_nonzero(differs & ~near))
            ties[node] += int(np.count_nonzero(differs & near))
        total = _added(total, now.outputs)
        own = free.step(x)
        runs.append(Step({}, {node: own.spikes[node] for node in given}, own.outputs))
    steps = snn.timesteps
    counts = {
        name: np.sum([run.spikes[node] for run in runs], axis=0)
        for name, node in network.layers.items()
    }
    figures = [
        _spikes(network, wrong, ties, sum(v.size for v in given.values())),
        _counts(counts, spikes, sum(ties.values())),
        _outputs(network, snn, spikes, {n: v / steps for n, v in total.items()}, feeds),
    ]
    outputs = {
        tensor: np.mean([run.outputs[node] for run in runs], axis=0)
        for node, tensor in network.outputs.items()
    }
    return Compared(tuple(of_check("nir", figures)), counts, outputs)


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


def _spikes(
    network: Network, wrong: Mapping[str, int], ties: Mapping[str, int], total: int
) -> Figure:
    entries = [
        Entry(wrong[node], 0, f"layer {name!r}: {wrong[node]} spikes differ from the SNN's", name)
        for name, node in network.layers.items()
    ]
    figure = rung("NIR spikes", entries)
    if not figure.passed:
        return figure
    detail = (
        f"the file read back, under the SNN's own spikes: {len(entries)} layers, {total} neurons "
        f"and steps, {sum(ties.values())} within float error of the threshold"
    )
    return Figure("NIR spikes", 0.0, 0.0, True, detail)


def _counts(counts: Mapping[str, Array], spikes: Spikes, ties: int) -> Figure:
    """Without a tie under the SNN's spikes the file must count the same by itself."""
    count, total = _different(counts, spikes), sum(value.size for value in counts.values())
    detail = f"the file running freely: {count} of {total} counts differ from the SNN's"
    if not ties:
        return Figure("NIR counts", count, 0.0, count == 0, detail)
    detail += f", after {ties} membranes within float error of the threshold" if count else ""
    return Figure("NIR counts", 0.0, 0.0, True, detail)


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
