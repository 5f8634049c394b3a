"""How far ANN and SNN agree: figures and limits, accuracy over T, layers, the diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

from .energy import Energy
from .grids import InputRange, Rounding


@dataclass(frozen=True)
class Figure:
    """One figure of the ladder: a number and its limit; the number is the least that would pass.

    Attributes:
        name: what was measured.
        value, limit: a figure passes up to its limit; an agreement from its limit on.
        detail: in words, with the layer that decided.
        node: that layer, or the tensor; None where the figure is about the whole network.
        check: the check that the figure belongs to, one of `checks.CHECKS`.
    """

    name: str
    value: float
    limit: float
    passed: bool
    detail: str = ""
    node: str | None = None
    check: str = ""


Interval = tuple[float, float]


@dataclass(frozen=True)
class TimestepResult:
    """Accuracy and agreement after T time steps; fractions from 0 to 1, None without labels.

    Attributes:
        agreement: share of predictions for which both networks choose the same class.
        logit_rmse: root of the mean square difference of the two outputs, in the output's units.
        agreement_interval, ann_interval, snn_interval: Wilson's 95 % interval of agreement and
            of the accuracies (`statistics.wilson`).
    """

    T: int
    agreement: float
    ann_accuracy: float | None
    snn_accuracy: float | None
    logit_rmse: float
    agreement_interval: Interval | None = None
    ann_interval: Interval | None = None
    snn_interval: Interval | None = None

    @property
    def drop(self) -> float | None:
        """Accuracy of the ANN minus that of the SNN."""
        if self.ann_accuracy is None or self.snn_accuracy is None:
            return None
        return self.ann_accuracy - self.snn_accuracy


@dataclass(frozen=True)
class ClassResult:
    """One class: of its ``count`` samples the shares that ANN and SNN recognise, and on which both
    choose the same class, whichever it is."""

    label: int
    count: int
    ann_accuracy: float
    snn_accuracy: float
    agreement: float


@dataclass(frozen=True)
class ErrorPart:
    """Over all neurons and samples, in amplitudes: mean with its sign, and mean of the sizes."""

    mean: float
    mean_abs: float


@dataclass(frozen=True)
class ErrorSplit:
    """SNN minus ANN of a layer, in four parts whose means add up to ``total.mean`` exactly.

    docs/verification.md defines them: ``clipping`` and ``quantisation`` under the ANN's own
    current, ``inherited`` from what the layers before did to the current's mean, ``unevenness``
    from when the spikes arrived.
    """

    clipping: ErrorPart
    quantisation: ErrorPart
    inherited: ErrorPart
    unevenness: ErrorPart
    total: ErrorPart


@dataclass(frozen=True)
class LayerResult:
    """How one neuron layer behaved after `Equivalence.timesteps` steps; shares from 0 to 1.

    Attributes:
        spike_rate: spikes per neuron and time step.
        unevenness: share of neurons whose count differs from that of an even current of equal sum.
        occasional: share of neurons that spike although the ANN's level is the lowest.
        mean_error: mean of SNN minus ANN output, in amplitudes.
        at_lowest, between, at_highest: shares of the ANN's elements by level; of a clip or ReLU
            those at or below zero, and those at or above the threshold.
        exercised: some element lay strictly between the lowest and the highest level.
        saturation: share of neurons that fire at every step.
        relative_error: root mean square of SNN minus ANN over that of the ANN's output above its
            lowest level; infinite where the ANN's layer is silent and the SNN's is not.
        error: SNN minus ANN, split by cause.
    """

    name: str
    spike_rate: float
    unevenness: float
    occasional: float
    mean_error: float
    at_lowest: float
    between: float
    at_highest: float
    exercised: bool
    saturation: float | None = None
    relative_error: float | None = None
    error: ErrorSplit | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Why the SNN is not its ANN (`diagnosis`).

    Attributes:
        first_bad: the first layer whose `LayerResult.relative_error` is above ``limit``, or None.
        cause: the largest error that the layers up to it made themselves: "clipping",
            "quantisation" or "unevenness"; None where no layer is bad.
        advice: one line, with the figure that supports it; empty where none does.
        unknown: what these figures cannot say.
    """

    first_bad: str | None
    limit: float
    cause: str | None
    advice: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Equivalence:
    """The ladder's outcome on `samples` samples of `data`; None or empty: not asked for.

    Attributes:
        by_timestep: each T that was evaluated, in order, all on the same samples.
        timesteps: the T of ``layers`` and ``by_class``: the SNN's own.
        layer_samples: samples on which the layers were measured: all, or some spread evenly.
        by_class: per class label; empty without labels.
        energy: at ``timesteps``, on the samples of the layers; None: not measured.
        rounding: what weights on grids changed; None for a network that is on none.
        input_ranges: of a network on grids, the samples beside the inputs it is proven for.
    """

    data: str
    samples: int
    fold_error: float | None = None
    replay_mismatches: int | None = None
    replay_ties: int | None = None
    engine_differences: int | None = None
    by_timestep: tuple[TimestepResult, ...] = ()
    layers: tuple[LayerResult, ...] = ()
    figures: tuple[Figure, ...] = ()
    timesteps: int = 0
    layer_samples: int = 0
    by_class: tuple[ClassResult, ...] = ()
    energy: Energy | None = None
    diagnosis: Diagnosis | None = None
    rounding: Rounding | None = None
    input_ranges: tuple[InputRange, ...] = ()
