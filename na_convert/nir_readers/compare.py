"""One reader beside our reference: which layers differ, and by what.

Each layer is judged twice. From end to end: the counts of its neurons against those of the
reference. And on its own: its currents against those that its inputs, as the reader had them,
should have given; its spikes against those of our neuron under the reader's own currents. The
second finds the cause where the first only sees what came of it. A cause is named when a simulation
that deviates in just that way does what the reader did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
How: TypeAlias = Literal["left_out", "late"]
Verdict: TypeAlias = Literal["identical", "rounding", "deviates", "fails"]

TOLERANCE = 1e-5  # of currents and outputs, relative to the largest of a layer: float32 sums
_LONGEST = 200  # characters of what a reader raised
_SHOWN = 2048  # neurons of a layer on which the law is looked for, and as many others
_ROUNDS = 4
_HOWS: tuple[How, ...] = ("left_out", "late")


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
    batches: list[_Batch] = []
    neurons = _Neurons()
    try:
        for inputs in reference.inputs:
            recording = reader.run(path, inputs.astype(np.float32), network.neurons)
            batches.append(_look(network, inputs, recording))
            neurons = neurons.beside(network, recording)
    except NaConvertError:
        raise
    except Exception as error:  # whatever a foreign simulator raises is its answer
        return Comparison(*about, "fails", error=_one_line(error))
    found = Deviation(neurons.law, **_edges(batches))
    layers = _layer_figures(network, reference, batches, _repeat(network, reference, found))
    causes = _causes(network, reference, found, neurons.wrong, batches)
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
    edges: dict[Edge, frozenset[How]]
    strange: tuple[str, ...]
    output_error: float | None
    outputs: Array | None
    returned: str | None


def _look(network: Network, inputs: Array, seen: Recording) -> _Batch:
    behind = _behind(network, inputs, seen)
    own, errors, edges, strange = {}, {}, dict[Edge, frozenset[How]](), []
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
    output_error, outputs, returned = _output(network, seen.output, behind)
    return _Batch(
        _counts(seen), own, errors, edges, tuple(strange), output_error, outputs, returned
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
) -> dict[Edge, frozenset[How]]:
    """The edge into ``name`` that makes its currents those of the reader, when it is left out or
    late; both, where that comes to the same."""
    parts = arriving(network, name, values)
    total = sum(parts.values())
    for source, part in parts.items():
        instead: dict[How, Array] = {"left_out": np.zeros_like(part), "late": late(part)}
        hows = frozenset(
            how
            for how, other in instead.items()
            if _error(current, total - part + other) <= TOLERANCE
        )
        if hows:
            return {(source, name): hows}
    return {}


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


# --- its neurons ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Neurons:
    """The law of the neurons seen so far, and ``wrong``, how many of the spikes of those in
    ``observed`` it does not have."""

    law: Law = OURS
    wrong: int = 0
    observed: tuple[Observed, ...] = ()

    def beside(self, network: Network, seen: Recording) -> _Neurons:
        """The law of these and of the neurons in ``seen``, looked for on those that the law up to
        now does not explain, until it explains all or there is no other."""
        found = self
        for _ in range(_ROUNDS):
            more = tuple(_unexplained(network, seen, found.law))
            if not more:
                break
            observed = (*found.observed, *more)
            law, wrong = identify(observed)
            stuck = law == found.law
            found = _Neurons(law, wrong, observed)
            if stuck:
                break
        return found


def _unexplained(network: Network, seen: Recording, law: Law) -> Iterator[Observed]:
    """Neurons of each layer that do not fire as ``law`` says, and as many others."""
    for name, op in network.neurons.items():
        currents, spikes = seen.currents[name], seen.spikes[name]
        differs = (fire(law, currents, op.threshold, op.initial) != spikes).any(axis=0).reshape(-1)
        if not differs.any():
            continue
        others = np.flatnonzero(~differs)
        spread = np.linspace(0, len(others) - 1, min(_SHOWN, len(others)), dtype=int)
        chosen = np.concatenate([np.flatnonzero(differs)[:_SHOWN], others[spread]])
        flat = [each.reshape(len(each), -1)[:, chosen] for each in (currents, spikes)]
        shape = currents.shape[1:]
        per_neuron = [
            np.broadcast_to(value, shape).reshape(-1)[chosen]
            for value in (op.threshold, op.initial)
        ]
        yield Observed(*flat, *per_neuron)


# --- all batches ----------------------------------------------------------------------------------


def _edges(batches: Sequence[_Batch]) -> dict[How, frozenset[Edge]]:
    """What became of each edge on every batch; where it could be either, what became of others."""
    possible: dict[Edge, frozenset[How]] = {}
    for batch in batches:
        for edge, hows in batch.edges.items():
            possible[edge] = possible.get(edge, hows) & hows
    certain = {next(iter(hows)) for hows in possible.values() if len(hows) == 1}
    usual: How = "late" if certain == {"late"} else "left_out"
    found: dict[How, frozenset[Edge]] = {}
    for how in _HOWS:
        found[how] = frozenset(
            edge for edge, hows in possible.items()
            if how in hows and (len(hows) == 1 or how == usual)
        )  # fmt: skip
    return found


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
        text = f"a neuron that is none of those known here: it has {wrong} spikes of its own"
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


def _one_line(error: Exception) -> str:
    """What was raised, up to the lists of overloads that torch prints."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


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
