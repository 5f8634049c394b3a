"""What `convert`, `inspect` and `check` return."""

from __future__ import annotations

from dataclasses import dataclass, field

from .calibration import BiasCalibration
from .equivalence import Equivalence
from .excerpt import ExcerptLayer
from .files import ModelInfo, OutputInfo
from .grids import Exactness
from .network import Neuron, PassReport, Refusal
from .nir import NirExport
from .quantisation import Quantisation

WARNING = "warning: "  # begins those of a result's notes that should not be overlooked


@dataclass(frozen=True)
class Result:
    """What `convert`, `inspect` and `check` return; None where a command does not produce it."""

    model: ModelInfo
    timesteps: int
    form: str
    neurons: tuple[Neuron, ...]
    refused: tuple[Refusal, ...]
    passes: tuple[PassReport, ...]
    equivalence: Equivalence | None
    output: OutputInfo | None
    passed: bool
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    form_note: str = ""
    exactness: Exactness | None = None
    bias_calibration: BiasCalibration | None = None
    excerpt: tuple[ExcerptLayer, ...] = ()
    snn_nodes: dict[str, int] = field(default_factory=dict)
    quantisation: Quantisation | None = None
    nir: NirExport | None = None
