"""A NIR file, read back, beside the SNN that it was made from.

Both get the SNN's spikes, layer by layer, so that one spike that rounding decides otherwise cannot
cascade (as in `engines`): each IF node has to fire where the SNN does, but for membranes so close
to the threshold that float32 weights decide. Then the file runs freely; its counts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines import FLOAT_NOISE
from ..evaluate import evaluate
from ..replay import relative_error
from ..results import Figure
from ..rungs import Entry, of_check, rung
from ..simulation import numpy_engine
from ..snn import Snn, neuron_nodes
from .network import Array, Network
from .reference import Reference

_EPS = float(np.finfo(np.float32).eps)


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


def compare(
    graph: Any,
    network: Network,
    snn: Snn,
    x: Array,
    feeds: Mapping[str, Array],
    *,
    exact: bool,
) -> list[Figure]:
    """Figures of ``graph``, as ``nir`` read it, against ``snn``, which ``network`` was made from.

    Args:
        x: what the Input node gets, [N, ...]; ``feeds`` are the SNN's own inputs.
        exact: sums of spikes are exact, so that no spike may differ where no analog current does.
    """
    steps, names = snn.timesteps, [node.name for node in neuron_nodes(snn.graph)]
    spikes = numpy_engine(snn, steps, names, np.float64)(feeds).spikes
    given = {network.layers[name]: spikes[name] for name in names}
    forced, free = Reference(graph), Reference(graph)
    wrong = dict.fromkeys(given, 0)
    ties = dict.fromkeys(given, 0)
    largest = dict.fromkeys(given, 0.0)
    strict = {network.layers[n.name] for n in snn.neurons if exact and not n.constant_input}
    counted = {node: np.zeros(value.shape[1:]) for node, value in given.items()}
    total: dict[str, Array] = {}
    for t in range(steps):
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
        fired = free.step(x).spikes
        counted = {node: count + fired[node] for node, count in counted.items()}
        total = {n: total.get(n, 0) + value for n, value in now.outputs.items()}
    counts = {network.layers[name]: np.count_nonzero(spikes[name], axis=0) for name in names}
    different = {n: int(np.count_nonzero(counted[n] != value)) for n, value in counts.items()}
    figures = [
        _spikes(network, wrong, ties, sum(v.size for v in given.values())),
        _counts(different, sum(v.size for v in counts.values()), sum(ties.values())),
        _outputs(network, snn, spikes, {n: v / steps for n, v in total.items()}, feeds),
    ]
    return of_check("nir", figures)


def deviation(
    graph: Any, network: Network, original: Snn, x: Array, feeds: Mapping[str, Array]
) -> Deviation:
    """``graph`` beside ``original``, the SNN with its initial membranes."""
    steps, names = original.timesteps, [node.name for node in neuron_nodes(original.graph)]
    spikes = numpy_engine(original, steps, names, np.float64)(feeds).spikes
    runs, free = [], Reference(graph)
    for _ in range(steps):
        runs.append(free.step(x))
    different = total = 0
    for name in names:
        node = network.layers[name]
        counts = np.sum([run.spikes[node] for run in runs], axis=0)
        different += int(np.count_nonzero(counts != np.count_nonzero(spikes[name], axis=0)))
        total += counts.size
    first = next(iter(network.outputs))
    found = np.sum([run.outputs[first] for run in runs], axis=0).reshape(len(x), -1)
    wanted = _expected(network, original, spikes, feeds)[network.outputs[first]]
    same = found.argmax(axis=1) == wanted.reshape(len(x), -1).argmax(axis=1)
    return Deviation(different / total, float(np.mean(same)))


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


def _counts(different: Mapping[str, int], total: int, ties: int) -> Figure:
    """Without a tie under the SNN's spikes the file must count the same by itself."""
    count = sum(different.values())
    detail = f"the file running freely: {count} of {total} counts differ from the SNN's"
    if not ties:
        return Figure("NIR counts", count, 0.0, count == 0, detail)
    detail += f", after {ties} membranes within float error of the threshold" if count else ""
    return Figure("NIR counts", 0.0, 0.0, True, detail)


def _outputs(
    network: Network,
    snn: Snn,
    spikes: Mapping[str, Array],
    found: Mapping[str, Array],
    feeds: Mapping[str, Array],
) -> Figure:
    wanted = _expected(network, snn, spikes, feeds)
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
    network: Network, snn: Snn, spikes: Mapping[str, Array], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """The outputs on the mean of ``spikes`` over time: what is between is affine."""
    ends = {node.name: node.outputs[0].name for node in neuron_nodes(snn.graph)}
    means = {ends[name]: value.mean(axis=0) for name, value in spikes.items()}
    return evaluate(snn.graph, {**feeds, **means}, list(network.outputs.values()))
