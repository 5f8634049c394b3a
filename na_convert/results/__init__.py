"""What the tool reports, as frozen dataclasses; field names are those of the JSON output."""

from __future__ import annotations

from .calibration import BiasCalibration, BiasTrial, LayerShift
from .conversion import WARNING, Result
from .energy import Energy, OperatorWork
from .equivalence import (
    ClassResult,
    Diagnosis,
    Equivalence,
    ErrorPart,
    ErrorSplit,
    Figure,
    Interval,
    LayerResult,
    TimestepResult,
)
from .excerpt import ExcerptLayer, TracedNeuron
from .files import ModelInfo, OutputInfo
from .grids import Exactness, InputRange, Rounding, SnappedLayer
from .network import Neuron, PassReport, Refusal, Skip
from .nir import NirExport, NirLayer
from .quantisation import Quantisation, QuantisedLayer
from .simulation import ArrayInfo, EarlyExit, SimulatedLayer, SimulatedTimestep, SimulationResult

__all__ = [
    "WARNING",
    "ArrayInfo",
    "BiasCalibration",
    "BiasTrial",
    "ClassResult",
    "Diagnosis",
    "EarlyExit",
    "Energy",
    "Equivalence",
    "ErrorPart",
    "ErrorSplit",
    "Exactness",
    "ExcerptLayer",
    "Figure",
    "InputRange",
    "Interval",
    "LayerResult",
    "LayerShift",
    "ModelInfo",
    "Neuron",
    "NirExport",
    "NirLayer",
    "OperatorWork",
    "OutputInfo",
    "PassReport",
    "Quantisation",
    "QuantisedLayer",
    "Refusal",
    "Result",
    "Rounding",
    "SimulatedLayer",
    "SimulatedTimestep",
    "SimulationResult",
    "Skip",
    "SnappedLayer",
    "TimestepResult",
    "TracedNeuron",
]
