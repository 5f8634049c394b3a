"""What `record` returns: the SNN alone."""

from __future__ import annotations

from dataclasses import dataclass

from .files import ModelInfo
from .grids import InputRange


@dataclass(frozen=True)
class SimulatedTimestep:
    """Accuracy of the SNN alone after T steps, 0 to 1; None without labels."""

    T: int
    accuracy: float | None


@dataclass(frozen=True)
class SimulatedLayer:
    """A recorded layer: `shape` of one sample, spikes per neuron and time step."""

    name: str
    shape: tuple[int, ...]
    spike_rate: float


@dataclass(frozen=True)
class ArrayInfo:
    """An array in the file that `simulate` writes."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EarlyExit:
    """What stopping each sample at ``margin`` gave.

    Attributes:
        mean_timesteps: steps that a sample took.
        stopped: samples that stopped after 1, 2, ... steps; the last also those never decided.
    """

    margin: float
    mean_timesteps: float
    accuracy: float | None
    stopped: tuple[int, ...]


@dataclass(frozen=True)
class SimulationResult:
    """What `record` returns, and `na-convert simulate` prints.

    Attributes:
        recorded: the layers that were asked for.
        path: of the file written, or None; `arrays` are its contents.
        early_exit: if asked for; `by_timestep` then is what at most T steps give.
        input_ranges: of a network on grids, the samples beside the inputs it is proven for.
    """

    model: ModelInfo
    data: str
    samples: int
    timesteps: int
    by_timestep: tuple[SimulatedTimestep, ...]
    recorded: tuple[SimulatedLayer, ...]
    path: str | None
    arrays: tuple[ArrayInfo, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    early_exit: EarlyExit | None = None
    input_ranges: tuple[InputRange, ...] = ()
