"""One reader beside our reference: which layers differ, and by what.

Each layer is judged twice. From end to end: the counts of its neurons against those of the
reference. And on its own: its currents against those that its inputs, as the reader had them,
should have given; its spikes against those of our neuron under the reader's own currents. The
second finds the cause where the first only sees what came of it. A cause is named when a simulation
that deviates in just that way does what the reader did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import NaConvertError
from .law import OURS, Law, Observed, describe, fire, identify
from .network import Network
from .readers import Reader
from .simulate import Deviation, Edge, Recording, arriving, late, simulate

Array: TypeAlias = NDArray[Any]
Verdict: TypeAlias = Literal["identical", "rounding", "deviates", "fails"]

TOLERANCE = 1e-5  # of currents and outputs, relative to the largest of a layer: float32 sums
_SHOWN = 4096  # neurons per layer on which the law is looked for


@dataclass(frozen=True)
class Cause:
    """One way in which a reader deviates; ``alone`` counts differ from the reference's where
    nothing but this deviates."""

    what: str
    node: str | None
    alone: int


@dataclass(frozen=True)
class LayerFigures:
    """One neuron layer; ``counts`` is neurons times samples.

    Attributes:
        spikes, reader_spikes: in total, of the reference and of the reader.
        differ: counts that differ from end to end.
        own: spikes, per time step, that our neuron would not have had under the same currents.
        current_error: largest, relative to the layer's largest current.
        unexplained: counts that differ from those of a simulation with all causes found.
    """

    layer: str
    node: str
    counts: int
    spikes: int
    reader_spikes: int
    differ: int
    own: int
    current_error: float
    unexplained: int


@dataclass(frozen=True)
class Comparison:
    """What one reader did with a file; ``layers`` is empty and ``error`` set where it ``fails``.

    ``outputs`` is the mean over time, [N, ...], as the reader computed it; None where that is no
    output of the network.
    """

    reader: str
    version: str
    adjustments: tuple[str, ...]
    verdict: Verdict
    causes: tuple[Cause, ...] = ()
    layers: tuple[LayerFigures, ...] = ()
    output_error: float | None = None
    outputs: Array | None = None
    error: str | None = None


@dataclass(frozen=True)
class Reference:
    """Our own run: inputs [T, N, ...] and, per batch, counts by layer and outputs [N, ...]."""

    inputs: tuple[Array, ...]
    counts: tuple[dict[str, Array], ...]
    outputs: tuple[Array, ...]


def reference_for(network: Network, batches: Sequence[Array]) -> Reference:
    """The reference on ``batches`` of inputs [T, N, ...]."""
    runs = [simulate(network, batch) for batch in batches]
    return Reference(
        tuple(batches),
        tuple(_counts(run) for run in runs),
        tuple(run.output.mean(axis=0) for run in runs),
    )


def compare(path: Path, network: Network, reader: Reader, reference: Reference) -> Comparison:
    """Run the file at ``path`` in ``reader`` and hold it against ``reference``."""
    about = (reader.name, reader.version, reader.adjustments)
    batches = []
    try:
        for inputs in reference.inputs:
            recording = reader.run(path, inputs.astype(np.float32), network.neurons)
            batches.append(_look(network, inputs, recording))
    except NaConvertError:
        raise
    except Exception as error:  # whatever a foreign simulator raises is its answer
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return Comparison(*about, "fails", error=said)
    law, wrong = _law_of(batches)
    found = Deviation(law, _edges(batches, "left_out"), _edges(batches, "late"))
    layers = _layer_figures(network, reference, batches, _repeat(network, reference, found))
    causes = _causes(network, reference, found, wrong, batches)
    verdict: Verdict = "deviates"
    if not causes:
        verdict = "rounding" if any(layer.differ for layer in layers) else "identical"
    return Comparison(*about, verdict, causes, layers, *_outputs(batches))


# --- one batch ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """What one batch showed, by node of a neuron layer."""

    counts: dict[str, Array]
    own: dict[str, int]
    current_errors: dict[str, float]
    edges: dict[Edge, str]
    strange: tuple[str, ...]
    observed: dict[str, Observed]
    output_error: float | None
    outputs: Array | None
    returned: str | None


def _look(network: Network, inputs: Array, seen: Recording) -> _Batch:
    behind = _behind(network, inputs, seen)
    own, errors, edges, observed, strange = {}, {}, dict[Edge, str](), {}, []
    for name, op in network.neurons.items():
        expected, current = behind.currents[name], seen.currents[name]
        errors[name] = _error(current, expected)
        if errors[name] > TOLERANCE:
            found = _explain_currents(network, name, current, behind.values)
            edges.update(found)
            if not found:
                strange.append(name)
        ours = fire(OURS, current, op.threshold, op.initial)
        own[name] = int(np.count_nonzero(ours != seen.spikes[name]))
        observed[name] = _observed(op.threshold, op.initial, current, seen.spikes[name], ours)
    output_error, outputs, returned = _output(network, seen.output, behind)
    return _Batch(
        _counts(seen), own, errors, edges, tuple(strange), observed, output_error, outputs, returned
    )


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
) -> dict[Edge, str]:
    """Which edge into ``name``, left out or late, makes its currents those of the reader."""
    parts = arriving(network, name, values)
    total = sum(parts.values())
    for source, part in parts.items():
        for how, instead in (("left_out", 0 * part), ("late", late(part))):
            if _error(current, total - part + instead) <= TOLERANCE:
                return {(source, name): how}
    return {}


def _observed(
    threshold: Array, initial: Array, current: Array, spikes: Array, ours: Array
) -> Observed:
    """Some of the neurons, those that differ from ours first."""
    steps, flat = len(current), current.reshape(len(current), -1)
    fired, shape = spikes.reshape(steps, -1), current.shape[1:]
    differs = (fired != ours.reshape(steps, -1)).any(axis=0)
    order = np.argsort(~differs, kind="stable")
    half = _SHOWN // 2
    rest = np.linspace(0, len(order) - 1, min(half, len(order)), dtype=int)
    chosen = np.unique(np.concatenate([order[:half], rest]))
    per_neuron = [np.broadcast_to(p, shape).reshape(-1)[chosen] for p in (threshold, initial)]
    return Observed(flat[:, chosen], fired[:, chosen], *per_neuron)


def _output(
    network: Network, output: Array, behind: Recording
) -> tuple[float | None, Array | None, str | None]:
    """The error of the output, its mean over time, and the node that it really comes from."""
    if output.shape == behind.output.shape:
        error = _error(output, behind.output)
        if error <= TOLERANCE:
            return error, output.mean(axis=0), None
    for name, values in behind.values.items():
        if values.shape == output.shape and _error(output, values) <= TOLERANCE:
            return None, None, name
    return None, None, ""


# --- all batches ----------------------------------------------------------------------------------


def _law_of(batches: Sequence[_Batch]) -> tuple[Law, int]:
    """The law of all layers, and how many spikes it leaves unexplained."""
    chosen: tuple[Law, int] = (OURS, 0)
    for batch in batches:
        if any(batch.own.values()):
            chosen = identify(batch.observed)
            break
    return chosen


def _edges(batches: Sequence[_Batch], how: str) -> frozenset[Edge]:
    return frozenset(edge for batch in batches for edge, what in batch.edges.items() if what == how)


def _repeat(network: Network, reference: Reference, found: Deviation) -> list[dict[str, Array]]:
    """The counts of a simulation that deviates as ``found``."""
    if found == Deviation():
        return list(reference.counts)
    return [_counts(simulate(network, inputs, found)) for inputs in reference.inputs]


def _layer_figures(
    network: Network,
    reference: Reference,
    batches: Sequence[_Batch],
    repeated: Sequence[Mapping[str, Array]],
) -> tuple[LayerFigures, ...]:
    figures = []
    for name, op in network.neurons.items():
        ours = [counts[name] for counts in reference.counts]
        theirs = [batch.counts[name] for batch in batches]
        again = [counts[name] for counts in repeated]
        figures.append(
            LayerFigures(
                op.layer,
                name,
                counts=sum(c.size for c in ours),
                spikes=int(sum(c.sum() for c in ours)),
                reader_spikes=int(sum(c.sum() for c in theirs)),
                differ=_differing(ours, theirs),
                own=sum(batch.own[name] for batch in batches),
                current_error=max(batch.current_errors[name] for batch in batches),
                unexplained=_differing(again, theirs),
            )
        )
    return tuple(figures)


def _causes(
    network: Network,
    reference: Reference,
    found: Deviation,
    wrong: int,
    batches: Sequence[_Batch],
) -> tuple[Cause, ...]:
    """Everything that was found, and what each counts for when it stands alone."""

    def alone(only: Deviation) -> int:
        runs = _repeat(network, reference, only)
        return sum(
            _differing([run[n] for run in runs], [c[n] for c in reference.counts])
            for n in network.neurons
        )

    causes = [
        Cause(describe(found.law, name), None, alone(Deviation(found.law.only(name))))
        for name in found.law.deviations
    ]
    if wrong:
        text = f"a neuron that is none of those known here: {wrong} spikes remain unexplained"
        causes.append(Cause(text, None, 0))
    for edge in sorted(found.left_out):
        text = f"what {edge[0]!r} gives {edge[1]!r} is left out"
        causes.append(Cause(text, edge[1], alone(Deviation(left_out=frozenset([edge])))))
    for edge in sorted(found.late):
        text = f"what {edge[0]!r} gives {edge[1]!r} arrives a step late"
        causes.append(Cause(text, edge[1], alone(Deviation(late=frozenset([edge])))))
    for name in sorted({name for batch in batches for name in batch.strange}):
        worst = max(batch.current_errors[name] for batch in batches)
        text = f"the currents of {name!r} are others, by {worst:.2g} of the largest"
        causes.append(Cause(text, name, 0))
    for returned in sorted({b.returned for b in batches if b.returned is not None}):
        text = f"returns what {returned!r} gives" if returned else "its outputs are others"
        causes.append(Cause(text, network.output, 0))
    return tuple(causes)


def _outputs(batches: Sequence[_Batch]) -> tuple[float | None, Array | None]:
    errors = [b.output_error for b in batches if b.output_error is not None]
    parts = [b.outputs for b in batches if b.outputs is not None]
    if len(parts) < len(batches):
        return None, None
    return max(errors), np.concatenate(parts)


# --- counts and errors ----------------------------------------------------------------------------


def _counts(run: Recording) -> dict[str, Array]:
    """Spikes of each neuron over all steps, [N, ...] by layer."""
    return {n: spikes.sum(axis=0).astype(np.int32) for n, spikes in run.spikes.items()}


def _differing(some: Sequence[Array], others: Sequence[Array]) -> int:
    return sum(int(np.count_nonzero(a != b)) for a, b in zip(some, others, strict=True))


def _error(found: Array, expected: Array) -> float:
    """The largest difference relative to the largest expected value."""
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max(initial=0)) or 1.0
    return float(np.abs(found - expected).max(initial=0)) / largest
