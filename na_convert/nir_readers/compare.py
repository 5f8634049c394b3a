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
from ..nir_file.law import describe
from ..nir_file.read_back import Network
from ..nir_file.simulate import Deviation, Edge, simulate
from .batches import HOWS, Batch, How, counts, look
from .law_search import LawFound
from .readers import Reader

Array: TypeAlias = NDArray[Any]
Verdict: TypeAlias = Literal["identical", "rounding", "deviates", "fails"]

_LONGEST = 200  # characters of what a reader raised


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
        rounded: spikes, per time step, that our neuron has otherwise under the reader's currents
            than under exact ones; 0 where these differ by more than float sums do.
        current_error: largest, relative to the layer's largest current.
        unexplained: counts that differ from those of a simulation with all causes found, and the
            reader's own rounding of the first layer's currents.
    """

    layer: str
    node: str
    counts: int
    spikes: int
    reader_spikes: int
    differ: int
    own: int
    rounded: int
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
        tuple(counts(run) for run in runs),
        tuple(run.output.mean(axis=0) for run in runs),
    )


def compare(path: Path, network: Network, reader: Reader, reference: Reference) -> Comparison:
    """Run the file at ``path`` in ``reader`` and hold it against ``reference``."""
    about = (reader.name, reader.version, reader.adjustments)
    batches: list[Batch] = []
    neurons = LawFound()
    try:
        for inputs in reference.inputs:
            recording = reader.run(path, inputs.astype(np.float32), network.neurons)
            batches.append(look(network, inputs, recording))
            neurons = neurons.beside(network, recording)
    except NaConvertError:
        raise
    except Exception as error:  # whatever a foreign simulator raises is its answer
        return Comparison(*about, "fails", error=_one_line(error))
    found = Deviation(neurons.law, **_edges(batches))
    repeated = _repeat(network, reference, found, batches)
    layers = _layer_figures(network, reference, batches, repeated)
    causes = _causes(network, reference, found, neurons.wrong, batches)
    verdict: Verdict = "deviates"
    if not causes:
        verdict = "rounding" if any(layer.differ for layer in layers) else "identical"
    return Comparison(*about, verdict, causes, layers, *_outputs(batches))


# --- all batches ----------------------------------------------------------------------------------


def _edges(batches: Sequence[Batch]) -> dict[How, frozenset[Edge]]:
    """What became of each edge on every batch; where it could be either, what became of others."""
    possible: dict[Edge, frozenset[How]] = {}
    for batch in batches:
        for edge, hows in batch.edges.items():
            possible[edge] = possible.get(edge, hows) & hows
    certain = {next(iter(hows)) for hows in possible.values() if len(hows) == 1}
    usual: How = "late" if certain == {"late"} else "left_out"
    found: dict[How, frozenset[Edge]] = {}
    for how in HOWS:
        found[how] = frozenset(
            edge for edge, hows in possible.items()
            if how in hows and (len(hows) == 1 or how == usual)
        )  # fmt: skip
    return found


def _repeat(
    network: Network, reference: Reference, found: Deviation, batches: Sequence[Batch] = ()
) -> list[dict[str, Array]]:
    """The counts of a simulation that deviates as ``found``; with ``batches`` under the reader's
    own currents into the first layers, which float rounds as it comes."""
    stems: Sequence[Mapping[str, Array]] = [b.stem for b in batches] or [{}] * len(reference.inputs)
    return [
        counts(simulate(network, inputs, found, stem=stem))
        for inputs, stem in zip(reference.inputs, stems, strict=True)
    ]


def _layer_figures(
    network: Network,
    reference: Reference,
    batches: Sequence[Batch],
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
                rounded=sum(batch.rounded[name] for batch in batches),
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
    batches: Sequence[Batch],
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


def _outputs(batches: Sequence[Batch]) -> tuple[float | None, Array | None]:
    errors = [b.output_error for b in batches if b.output_error is not None]
    parts = [b.outputs for b in batches if b.outputs is not None]
    if len(parts) < len(batches):
        return None, None
    return max(errors), np.concatenate(parts)


def _one_line(error: Exception) -> str:
    """What was raised, up to the lists of overloads that torch prints."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def _differing(some: Sequence[Array], others: Sequence[Array]) -> int:
    return sum(int(np.count_nonzero(a != b)) for a, b in zip(some, others, strict=True))
