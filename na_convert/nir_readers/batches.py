"""What one batch in a reader shows: its counts, its currents beside those that they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..nir_file.law import OURS, fire
from ..nir_file.read_back import Network
from ..nir_file.simulate import Edge, Recording, arriving, late, simulate

Array: TypeAlias = NDArray[Any]
How: TypeAlias = Literal["left_out", "late"]

HOWS: tuple[How, ...] = ("left_out", "late")
TOLERANCE = 1e-5  # of currents and outputs, relative to the largest of a layer: float32 sums


@dataclass(frozen=True)
class Batch:
    """What one batch showed, by node of a neuron layer; ``stem`` are the currents of those layers
    that no neurons feed, [T, N, ...] or, where all steps are alike, [1, N, ...]."""

    counts: dict[str, Array]
    own: dict[str, int]
    rounded: dict[str, int]
    current_errors: dict[str, float]
    edges: dict[Edge, frozenset[How]]
    strange: tuple[str, ...]
    stem: dict[str, Array]
    output_error: float | None
    outputs: Array | None
    returned: str | None


def look(network: Network, inputs: Array, seen: Recording) -> Batch:
    behind = _behind(network, inputs, seen)
    own, rounded, errors, edges, strange = {}, {}, {}, dict[Edge, frozenset[How]](), []
    for name, op in network.neurons.items():
        expected, current = behind.currents[name], seen.currents[name]
        errors[name] = error(current, expected)
        if errors[name] > TOLERANCE:
            found = _explain_currents(network, name, current, behind.values)
            edges.update(found)
            if not found:
                strange.append(name)
        ours = fire(OURS, current, op.threshold, op.initial)
        own[name] = int(np.count_nonzero(ours != seen.spikes[name]))
        exact = fire(OURS, expected, op.threshold, op.initial)
        near = errors[name] <= TOLERANCE
        rounded[name] = int(np.count_nonzero(ours != exact)) if near else 0
    stem = {
        name: _one_step(seen.currents[name]) for name in network.stem if errors[name] <= TOLERANCE
    }
    return Batch(
        counts(seen), own, rounded, errors, edges, tuple(strange), stem,
        *_output(network, seen.output, behind),
    )  # fmt: skip


def _behind(network: Network, inputs: Array, seen: Recording) -> Recording:
    """What the network's linear parts make of the spikes that the reader had.

    Raises ValueError where these have another shape than the network's.
    """
    shapes = {n: run.shape for n, run in simulate(network, inputs[:1]).spikes.items()}
    for name, shape in shapes.items():
        for what, each in (("currents", seen.currents), ("spikes", seen.spikes)):
            if each[name].shape[1:] != shape[1:] or len(each[name]) != len(inputs):
                raise ValueError(
                    f"{what} of {name!r} have the shape {list(each[name].shape[2:])}, "
                    f"not {list(shape[2:])}"
                )
    return simulate(network, inputs, given=seen.spikes)


def _explain_currents(
    network: Network, name: str, current: Array, values: Mapping[str, Array]
) -> dict[Edge, frozenset[How]]:
    """The fewest edges into ``name`` that make its currents those of the reader, when they are left
    out or late; both, where that comes to the same. Empty if there are no such edges."""
    parts = arriving(network, name, values)
    total: Array = np.sum(list(parts.values()), axis=0)
    for count in range(1, len(parts) + 1):
        for sources in combinations(parts, count):
            lost: Array = np.sum([parts[source] for source in sources], axis=0)
            kept, delayed = total - lost, total - lost + late(lost)
            instead: dict[How, Array] = {"left_out": kept, "late": delayed}
            hows = frozenset(h for h, each in instead.items() if error(current, each) <= TOLERANCE)
            if hows:
                return {(source, name): hows for source in sources}
    return {}


def _one_step(currents: Array) -> Array:
    """``currents`` [T, ...], the first step alone where all are alike."""
    return currents[:1].copy() if (currents == currents[:1]).all() else currents


def _output(
    network: Network, output: Array, behind: Recording
) -> tuple[float | None, Array | None, str | None]:
    """The error of the output, its mean over time, and the node that it really comes from."""
    if output.shape == behind.output.shape:
        found = error(output, behind.output)
        if found <= TOLERANCE:
            return found, output.mean(axis=0), None
    for name, values in behind.values.items():
        if values.shape == output.shape and error(output, values) <= TOLERANCE:
            return None, None, name
    return None, None, ""


def counts(run: Recording) -> dict[str, Array]:
    """Spikes of each neuron over all steps, [N, ...] by layer."""
    return {n: spikes.sum(axis=0).astype(np.int32) for n, spikes in run.spikes.items()}


def error(found: Array, expected: Array) -> float:
    """The largest difference relative to the largest expected value."""
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max(initial=0)) or 1.0
    return float(np.abs(found - expected).max(initial=0)) / largest
