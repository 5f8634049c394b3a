"""What shifting biases gave."""

from __future__ import annotations

from dataclasses import dataclass

from .equivalence import TimestepResult


@dataclass(frozen=True)
class LayerShift:
    """What calibration adds to the current of one layer, in thresholds, over its channels."""

    name: str
    mean_abs: float
    largest: float


@dataclass(frozen=True)
class BiasTrial:
    """One way to shift biases: the mean that was made the ANN's, and the held-out samples with it.

    ``match``: "current" or "output" (`passes.bias_shifts`); ``layers`` in order.
    """

    match: str
    held_out: TimestepResult
    layers: tuple[LayerShift, ...]


@dataclass(frozen=True)
class BiasCalibration:
    """What `calibrate_bias` measured at T time steps, and which shifts stay in the network.

    Attributes:
        samples: how many the shifts were measured on; `held_out` others decided.
        plain: the SNN without shifts beside the ANN, on the held-out samples.
        trials: the ways that were tried.
        kept: the `match` whose shifts are in the network; None: it was nearer to the ANN without.
    """

    timesteps: int
    samples: int
    held_out: int
    plain: TimestepResult
    trials: tuple[BiasTrial, ...]
    kept: str | None

    @property
    def trial(self) -> BiasTrial | None:
        """The one that is kept."""
        return next((trial for trial in self.trials if trial.match == self.kept), None)
