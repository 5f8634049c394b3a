"""A NIR file, and how it was checked."""

from __future__ import annotations

from dataclasses import dataclass

from .equivalence import Figure
from .files import ModelInfo, OutputInfo


@dataclass(frozen=True)
class NirLayer:
    """A neuron layer of an SNN, and its IF node in a NIR file; `shape` of one sample."""

    name: str
    node: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NirExport:
    """A NIR file, and how it was checked.

    Attributes:
        snn: what it was made from.
        target: the reader that it was written for.
        timesteps: T of the checks; with ``initial_membrane`` "bias" the file is for this T alone.
        statements: what is left to whoever runs the file, and what the target does differently.
        figures: the file read back, beside the SNN.
        other_counts, agreement: the file, with its own start of the membranes and without
            rounding, beside the SNN: share of neurons with another count after T steps, and of
            samples with the same largest output.
    """

    snn: ModelInfo
    target: str
    timesteps: int
    initial_membrane: str
    layers: tuple[NirLayer, ...]
    statements: tuple[str, ...]
    figures: tuple[Figure, ...]
    other_counts: float
    agreement: float
    data: str
    samples: int
    output: OutputInfo
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
