"""int8 weights and odd integer thresholds: one common unit per output channel.

The threshold becomes an odd integer, and the unit of the weights what makes it one; so the choice
of a threshold is the choice of a scale. Cases:

* weights that lie on a grid already (low-bit training): their own integers, times a whole number;
  their error is 0, that of threshold and bias the least of all such numbers;
* others: the scale of least squared error among some that clip a little and some that do not;
* weights that are small beside the threshold: the scale at which the threshold is the largest
  allowed; finer would be no better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from na_convert.integer import INT8
from na_convert.integer_bounds import LARGEST_THRESHOLD

Array: TypeAlias = NDArray[np.float64]

_SHARES = (1.0, 0.97, 0.94, 0.9, 1.04, 1.08, 1.14, 1.2, 1.3)  # of the scale that just fits
_GRID_TOLERANCE = 2e-4  # of a grid's step: float32 weights, folded BatchNorm
_PROBED = 64  # weights of a channel that are looked at first


@dataclass(frozen=True)
class Scaled:
    """Weights [O, ...] as int8 and thresholds [O] in the same unit, per channel.

    Attributes:
        error: relative, root of the mean square over the layer; 0 where all lie on a grid.
        on_grid: channels whose weights were integers already.
        threshold_error: largest relative change of a threshold (only where weights are on a grid).
    """

    weight: NDArray[np.int8]
    threshold: NDArray[np.int64]
    error: float
    on_grid: int
    threshold_error: float


def choose(weight: Array, theta: Array, largest: int = INT8) -> Scaled:
    """Integers for ``weight`` [O, ...] under thresholds ``theta`` [O], up to ``largest``."""
    rows = weight.reshape(len(weight), -1)
    threshold = _least_squares(rows, theta, largest)
    steps = _grid_steps(rows, largest)
    on_grid = steps * LARGEST_THRESHOLD >= theta  # else the threshold has no integer that small
    on_grid &= steps > 0
    moved = np.zeros(len(rows))
    integers = np.empty(rows.shape, np.int8)
    for channel in np.flatnonzero(on_grid):
        factor, threshold[channel] = _on_grid(
            rows[channel], steps[channel], theta[channel], largest
        )
        units = factor / steps[channel]
        integers[channel] = np.rint(rows[channel] * units)
        moved[channel] = abs(threshold[channel] / (theta[channel] * units) - 1)
    free = ~on_grid
    scale = (threshold[free] / theta[free])[:, None]
    integers[free] = np.clip(np.rint(rows[free] * scale), -largest, largest)
    wrong = (integers[free] / scale - rows[free]).ravel()
    size = float(np.sqrt((rows**2).sum())) or 1.0
    return Scaled(
        integers.reshape(weight.shape),
        threshold,
        float(np.sqrt(wrong @ wrong)) / size,
        int(on_grid.sum()),
        float(moved.max(initial=0)),
    )


def _odd(values: Array) -> NDArray[np.int64]:
    """The largest odd integers up to ``values``, from 1 to what the bounds allow."""
    below = np.floor((np.clip(values, 1, LARGEST_THRESHOLD) - 1) / 2)
    return np.asarray(2 * below + 1).astype(np.int64)


def _least_squares(rows: Array, theta: Array, largest: int) -> NDArray[np.int64]:
    peak = np.abs(rows).max(axis=1, initial=0)
    fits = np.full(len(rows), float(LARGEST_THRESHOLD))
    np.divide(largest * theta, peak, out=fits, where=peak > 0)
    best = _odd(fits)
    least = _squared_error(rows, theta, best, largest)
    for share in _SHARES[1:]:
        candidate = _odd(fits * share)
        error = _squared_error(rows, theta, candidate, largest)
        better = error < least
        best, least = np.where(better, candidate, best), np.where(better, error, least)
    return best


def _squared_error(
    rows: Array, theta: Array, threshold: NDArray[np.int64], largest: int
) -> NDArray[np.float32]:
    scale = (threshold / theta)[:, None].astype(np.float32)
    scaled = rows.astype(np.float32) * scale
    difference = np.clip(np.rint(scaled), -largest, largest) - scaled
    return np.asarray(np.einsum("ij,ij->i", difference, difference) / scale[:, 0] ** 2)


# --- weights on a grid ----------------------------------------------------------------------------


def _grid_steps(rows: Array, largest: int) -> Array:
    """Per channel the largest step of which every weight is a multiple; 0 where there is none.

    Only steps that make the largest weight at most ``largest`` count.
    """
    peak = np.abs(rows).max(axis=1, initial=0)
    steps = np.zeros(len(rows))
    probe = rows[:, : min(_PROBED, rows.shape[1])]
    open_ = peak > 0
    for count in range(1, largest + 1):
        candidate = np.flatnonzero(open_)
        if not len(candidate):
            break
        unit = (peak / count)[candidate, None]
        fits = candidate[_whole(probe[candidate] / unit, count)]
        fits = fits[_whole(rows[fits] / (peak[fits] / count)[:, None], count)]
        steps[fits] = peak[fits] / count
        open_[fits] = False
    return steps


def _whole(values: Array, count: int) -> NDArray[np.bool_]:
    return np.asarray((np.abs(values - np.rint(values)) <= _GRID_TOLERANCE).all(axis=1))


def _on_grid(row: Array, step: float, theta: float, largest: int) -> tuple[int, int]:
    """The whole number by which the grid is refined, and the threshold, odd and close to exact.

    What the threshold is off by counts, and so does rounding the bias: up to half a unit a step.
    """
    steps = round(float(np.abs(row).max()) / step)
    best = (np.inf, 1, 1)
    for factor in range(1, largest // steps + 1):
        exact = theta / step * factor
        if exact > LARGEST_THRESHOLD + 1 and factor > 1:
            break
        odd = int(_odd(np.asarray(exact + 1.0)))
        best = min(best, (abs(odd / exact - 1) + 0.5 / odd, factor, odd))
    return best[1], best[2]
