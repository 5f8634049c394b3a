"""How an SNN behaves beside its ANN, as sums: over samples, in any parts and any order.

`LayerCounts` and `OutputCounts` of parts of the data `merge` into those of the whole, exactly: what
is counted is whole numbers, what is not is added up as fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import isfinite, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .layers import Layer
from .neurons import even_counts
from .results import ClassResult, ErrorPart, ErrorSplit, Interval, TimestepResult

Array: TypeAlias = NDArray[Any]
Total: TypeAlias = Fraction | float

FLOAT_NOISE = 64.0  # in units of eps: how close to an edge rounding may decide
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(hits: int, trials: int) -> Interval:
    """Wilson's score interval, 95 %, of ``hits`` in ``trials`` (Wilson, JASA 22, 1927).

    Unlike the normal approximation it stays within 0 and 1, and has a width at 0 and 1 too.
    """
    if not trials:
        return (0.0, 1.0)
    share, z2 = hits / trials, Z95 * Z95
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    variance = share * (1 - share) / trials + z2 / (4 * trials * trials)
    half = Z95 * sqrt(variance) / (1 + z2 / trials)
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == trials else min(1.0, middle + half)
    return (low, high)


# --- layers ---------------------------------------------------------------------------------------

PARTS = ("clipping", "quantisation", "inherited", "unevenness", "total")


@dataclass(frozen=True)
class LayerCounts:
    """Sums over the neurons of a layer and over samples; see `results.LayerResult`.

    Attributes:
        per_neuron: spikes of each neuron, over all samples, int64 [R, ...]: a sample's R rows (one,
            unless the network makes rows of a sample's parts, as of tokens or frames).
        signed, sizes: SNN minus ANN by `PARTS`, in amplitudes, with sign and without.
        squared_error, squared_output: of SNN minus ANN, and of the ANN above its lowest level.
    """

    samples: int
    neurons: int
    spikes: int
    uneven: int
    occasional: int
    saturated: int
    at_lowest: int
    at_highest: int
    per_neuron: NDArray[np.int64]
    signed: tuple[Total, ...]
    sizes: tuple[Total, ...]
    squared_error: Total
    squared_output: Total

    def merged(self, other: LayerCounts) -> LayerCounts:
        """Of two sets of samples, together."""
        return LayerCounts(*(_added(getattr(self, f.name), getattr(other, f.name)) for f in _OF))

    def split(self) -> ErrorSplit:
        """The error by cause, means over neurons and samples."""
        return ErrorSplit(
            *(
                ErrorPart(float(signed / self.neurons), float(size / self.neurons))
                for signed, size in zip(self.signed, self.sizes, strict=True)
            )
        )

    def relative_error(self) -> float:
        """Root mean square of the error over that of the ANN's output."""
        if not self.squared_output:
            return float("inf") if self.squared_error else 0.0
        return sqrt(self.squared_error / self.squared_output)


_OF = fields(LayerCounts)


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, tuple):
        return tuple(x + y for x, y in zip(a, b, strict=True))
    return a + b


def over_samples(values: Array, samples: int) -> Array:
    """The sum over ``samples`` of what ``values`` [N, ...] hold for them, one after the other: the
    rows of one sample [N / samples, ...]."""
    summed = values.reshape(samples, len(values) // samples, *values.shape[1:]).sum(axis=0)
    return np.asarray(summed)


def count_layer(
    layer: Layer,
    count: Array,
    total: Array,
    output: Array,
    root: Array,
    timesteps: int,
    samples: int | None = None,
) -> LayerCounts:
    """Figures of ``layer`` after ``timesteps``, on ``samples``: as many as rows [N, ...] if None.

    Args:
        count: steps at which each neuron fired.
        total: the sum of its current over the steps, in the SNN's units.
        output, root: the ANN's activation and what it is a function of.
    """
    theta = np.asarray(layer.fired.threshold, np.float64)
    count = np.asarray(np.round(count), np.int64)
    mean = np.asarray(total, np.float64) / timesteps
    even = even_counts(mean, theta, timesteps)
    position = timesteps * mean / theta + 0.5
    noise = FLOAT_NOISE * float(np.finfo(total.dtype).eps) * timesteps
    tie = np.abs(position - np.round(position)) <= noise * np.maximum(1, np.abs(position))
    share = layer.unit_output(np.asarray(output, np.float64))
    parts = _error_parts(layer, count, even, share, root, timesteps)
    samples = len(count) if samples is None else samples
    return LayerCounts(
        samples=samples,
        neurons=count.size,
        spikes=int(count.sum()),
        uneven=int(np.count_nonzero((count != even) & ~tie)),
        occasional=int(np.count_nonzero((share <= layer.half_level) & (count > 0))),
        saturated=int(np.count_nonzero(count == timesteps)),
        at_lowest=int(np.count_nonzero(share <= layer.half_level)),
        at_highest=int(np.count_nonzero(share >= 1 - layer.half_level)),
        per_neuron=over_samples(count, samples),
        signed=tuple(_sum(part) for part in parts),
        sizes=tuple(_sum(np.abs(part)) for part in parts),
        squared_error=_sum(parts[-1] ** 2),
        squared_output=_sum(share**2),
    )


def _error_parts(
    layer: Layer, count: Array, even: Array, share: Array, root: Array, timesteps: int
) -> tuple[Array, ...]:
    """SNN minus ANN, in amplitudes, by `PARTS`; docs/verification.md has the definitions."""
    expected = layer.expected
    own = np.asarray(root, np.float64) * expected.current_gain + expected.current_offset
    ideal = even_counts(own, layer.threshold, timesteps) / timesteps
    within = np.clip(share, 0, 1)
    fired = count / timesteps
    spread = even / timesteps
    return within - share, ideal - within, spread - ideal, fired - spread, fired - share


def _sum(values: Array) -> Total:
    """As a fraction, so that adding up is exact; what is not finite stays a float."""
    total = float(np.sum(values, dtype=np.float64))
    return Fraction(total) if isfinite(total) else total


# --- outputs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputCounts:
    """Sums over predictions after T steps; see `results.TimestepResult`.

    Attributes:
        by_class: int64 [classes, 4]: predictions with this label, ANN right, SNN right, agreed.
            None where there are no labels, or none that fit the output.
    """

    steps: int
    predictions: int
    agreed: int
    values: int
    squared_error: Total
    by_class: NDArray[np.int64] | None

    def merged(self, other: OutputCounts) -> OutputCounts:
        """Of two sets of samples, together."""
        return OutputCounts(
            self.steps,
            self.predictions + other.predictions,
            self.agreed + other.agreed,
            self.values + other.values,
            self.squared_error + other.squared_error,
            _merged_classes(self.by_class, other.by_class),
        )

    def result(self) -> TimestepResult:
        """As shares, with their intervals."""
        n = self.predictions
        ann = snn = None
        if self.by_class is not None:
            _, ann, snn, _ = (int(total) for total in self.by_class.sum(axis=0))
        return TimestepResult(
            T=self.steps,
            agreement=self.agreed / n,
            ann_accuracy=None if ann is None else ann / n,
            snn_accuracy=None if snn is None else snn / n,
            logit_rmse=sqrt(self.squared_error / self.values),
            agreement_interval=wilson(self.agreed, n),
            ann_interval=None if ann is None else wilson(ann, n),
            snn_interval=None if snn is None else wilson(snn, n),
        )

    def classes(self) -> tuple[ClassResult, ...]:
        """Class by class, those without a sample left out."""
        rows = [] if self.by_class is None else self.by_class.tolist()
        return tuple(
            ClassResult(label, count, ann / count, snn / count, agreed / count)
            for label, (count, ann, snn, agreed) in enumerate(rows)
            if count
        )


def count_outputs(
    steps: int,
    ann: Array,
    snn: Array,
    labels: NDArray[np.int64] | None,
    *,
    sigmoid: bool = False,
) -> OutputCounts:
    """`predictions` after ``steps``, from the first output of ANN and SNN."""
    ann_class, snn_class = (predictions(each, sigmoid=sigmoid) for each in (ann, snn))
    same = ann_class == snn_class
    difference = np.asarray(ann, np.float64) - np.asarray(snn, np.float64)
    by_class = None
    if labels is not None and labels.shape == ann_class.shape:
        columns = (np.ones_like(same), ann_class == labels, snn_class == labels, same)
        by_class = np.stack([np.bincount(labels.ravel(), c.ravel()) for c in columns], axis=1)
    return OutputCounts(
        steps,
        same.size,
        int(np.count_nonzero(same)),
        difference.size,
        _sum(difference**2),
        None if by_class is None else by_class.astype(np.int64),
    )


def _merged_classes(
    a: NDArray[np.int64] | None, b: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    if a is None or b is None:
        return None
    total = np.zeros((max(len(a), len(b)), 4), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def predictions(output: Array, *, sigmoid: bool = False) -> Array:
    """Classes: the largest entry along axis 1; the sign of a lone logit; integers as they are.

    Behind a ``sigmoid`` classes part at 0.5, and a map [N, H, W, 1] has a lone one at each place.
    """
    if output.dtype.kind in "iub":
        return output.reshape(len(output), -1).squeeze(1) if output[0].size == 1 else output
    places = sigmoid and output.ndim > 2 and output.shape[-1] == 1 and min(output.shape[1:-1]) > 1
    if output.ndim == 1 or output.shape[1] == 1 or places:
        positive = (output.reshape(len(output), -1) > (0.5 if sigmoid else 0)).astype(np.int64)
        return positive[:, 0] if positive.shape[1] == 1 else positive
    return np.asarray(np.argmax(output, axis=1))


def merge_outputs(a: Sequence[OutputCounts], b: Sequence[OutputCounts]) -> tuple[OutputCounts, ...]:
    """Of two sets of samples, T by T."""
    return tuple(x.merged(y) for x, y in zip(a, b, strict=True))
