"""What kind of curve a function of one number is, found by evaluating it.

`fit` knows four kinds: a staircase ``s * (lo + clip(floor(x / d + phi - lo), 0, p))``, a ramp (clip
or ReLU), an affine function, and anything else, for which it says why. It finds where the function
stops changing on either side, whatever the scale; bisects the first and the last jump down to
neighbouring floats; writes down the staircase that they imply; and then checks that form against
the function at every stair, beside the jumps, and from 2**-40 to 2**40. All channels at once.

The function is measured in float64, where float32 constants make jumps exact, and then checked once
more in the model's own float type, where it may differ within a rounding error of a jump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import Ramp, Staircase
from .fit_checks import SNAPPING, Points, check, grid
from .fit_reasons import (
    Fit,
    constant_channel,
    no_line,
    not_finite,
    too_fine,
    turns,
    unbounded,
    unclipped,
    uneven,
    unlike_a_clip,
    unlike_channels,
    unlike_stairs,
)
from .fit_stairs import bisect
from .fit_ties import tie_rule

Array = NDArray[Any]
Curve = Callable[[Array], Array]

MAX_LEVELS = 1 << 19  # sums of more are too coarse in float32 to be compared stair by stair
_EPS = float(np.finfo(np.float64).eps)


def fit(
    exact: Curve,
    native: Curve,
    channels: int,
    dtype: np.dtype[Any],
    hints: Array | None = None,
    rounding: str = "",
) -> Fit:
    """Fit the function that ``exact`` (float64) and ``native`` (``dtype``) compute.

    Args:
        exact, native: from points ``[K, C]`` to values ``[K, C]``.
        channels: C.
        hints: positive numbers [H] near which, on either side of 0, something may happen.
        rounding: the graph's rule for halves, for where none can be measured.
    """
    points = grid(hints)
    values = exact(points[:, None])
    if not np.all(np.isfinite(values)):
        return not_finite(points, values)
    if _is_affine(points, values):
        return Fit("affine")
    low, high = _plateau(-points[::-1], values[::-1]), _plateau(points, values)
    if not (np.all(low.found) and np.all(high.found)):
        return _open_ended(exact, native, points, values, low, high, dtype)
    edges = _outer_jumps(exact, points, values, low, high)
    if np.any(edges.top == edges.bottom):
        if np.any(np.ptp(values, axis=0) == 0):
            return constant_channel()
        return turns(points, values)
    if np.all(
        np.abs(edges.first_value - edges.bottom) <= SNAPPING * np.abs(edges.top - edges.bottom)
    ):
        return _clip(exact, native, edges, points, dtype)
    return _staircase(exact, native, edges, points, dtype, rounding, hints)


# --- range ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plateau:
    """Where the function stops changing to the right: index into the points, per channel [C]."""

    start: NDArray[np.intp]
    found: NDArray[np.bool_]


def _noise(x: Array) -> Array:
    """Float error of a value that was computed by way of ``x`` (``x + (round(x) - x)``)."""
    return np.asarray(64 * _EPS * np.abs(x))


def _plateau(points: Array, values: Array) -> _Plateau:
    """``points`` ascending; for the left side both are handed over mirrored."""
    moved = np.abs(np.diff(values, axis=0)) > _noise(points[1:, None])
    last = len(moved) - np.argmax(moved[::-1], axis=0)
    start = np.where(np.any(moved, axis=0), last, 0)
    return _Plateau(start, points[start] < 2.0**38)


@dataclass(frozen=True)
class _Edges:
    """The outermost jumps, per channel [C]: the first float behind the first jump, the value on the
    stair that begins there, the first float of the upper plateau, and the values of both plateaus.

    A jump may go by way of a value of its own at one single float, as sign(x) does at 0: that is a
    tie, and no stair.
    """

    first: Array
    first_value: Array
    last: Array
    bottom: Array
    top: Array


def _outer_jumps(
    exact: Curve, points: Array, values: Array, low: _Plateau, high: _Plateau
) -> _Edges:
    count = len(points)
    columns = np.arange(values.shape[1])
    last_low = count - 1 - low.start
    bottom, top = values[last_low, columns], values[high.start, columns]
    height = np.abs(top - bottom)

    def left(x: Array) -> NDArray[np.bool_]:
        return np.asarray(np.abs(exact(x[None])[0] - bottom) <= 1e-9 * height + _noise(x))

    def right(x: Array) -> NDArray[np.bool_]:
        return np.asarray(np.abs(exact(x[None])[0] - top) > 1e-9 * height + _noise(x))

    next_to_low = np.minimum(last_low + 1, count - 1)
    before_high = np.maximum(high.start - 1, 0)
    _, first = bisect(left, points[last_low], points[next_to_low])
    _, last = bisect(right, points[before_high], points[high.start])
    behind = first + np.maximum(8 * _EPS * np.abs(first), 1e-290)
    return _Edges(first, exact(behind[None])[0], last, bottom, top)


# --- kinds ----------------------------------------------------------------------------------------


def _is_affine(points: Array, values: Array) -> bool:
    x = points[:, None]
    zero, one = np.searchsorted(points, [0.0, 1.0])
    offset, slope = values[zero], values[one] - values[zero]
    size = np.abs(slope * x) + np.abs(offset) + np.abs(x) * 1e-6
    return bool(np.all(np.abs(values - (slope * x + offset)) <= 1e-9 * size))


def _staircase(
    exact: Curve,
    native: Curve,
    edges: _Edges,
    points: Array,
    dtype: np.dtype[Any],
    rounding: str,
    hints: Array | None,
) -> Fit:
    height = edges.top - edges.bottom
    first_jump = edges.first_value - edges.bottom
    with np.errstate(all="ignore"):
        ratio = height / first_jump
    levels = np.round(ratio)
    if not np.all(np.abs(ratio - levels) <= 1e-5 * np.abs(levels)) or np.any(levels < 1):
        worst = int(np.argmax(np.abs(ratio - levels)))
        return uneven(exact, edges.first, edges.last, height, worst)
    if np.any(levels != levels[0]):
        return unlike_channels(levels)
    p = int(levels[0])
    if p > MAX_LEVELS:
        return too_fine(p, MAX_LEVELS)
    fitted = _canonical(edges, p, hints)
    rounded = _rounded(fitted, dtype)
    eps = float(np.finfo(dtype).eps)
    near = Points(edges.first, edges.last, points)
    for curve, candidate, kind in ((exact, fitted, np.dtype(np.float64)), (native, rounded, dtype)):
        mismatch = check(curve, candidate, near, kind, eps)
        if mismatch.found:
            return unlike_stairs(exact, edges.first, edges.last, height, mismatch, kind.name)
    rule = tie_rule(exact, rounded, fitted, rounding)
    activation = Staircase(
        rounded.input_step, rounded.output_step, rounded.lowest_level, rounded.phase, p, rule
    )
    return Fit("staircase", activation, residual=mismatch.residual)


def _canonical(edges: _Edges, p: int, hints: Array | None) -> Staircase:
    """The staircase with these outermost jumps, in float64.

    A single jump leaves the width of a stair open: it is then taken to be as wide as it is high,
    which is the step of ``s * clip(round(x / s), 0, 1)`` and of sign(x).
    """
    s = _as_in_graph((edges.top - edges.bottom) / p, hints)
    d = _as_in_graph((edges.last - edges.first) / (p - 1), hints) if p > 1 else np.abs(s)
    lo = _snapped(edges.bottom / s)
    phi = _snapped(1 + lo - edges.first / d)
    # Where a channel falls towards zero, count stairs from the right: silence means zero.
    mirror = (s < 0) & (np.abs(edges.top) < np.abs(edges.bottom))
    upper = _snapped(edges.top / -s)
    mirrored_phi = _snapped(upper + p + 1 + lo - phi)
    return Staircase(
        np.where(mirror, -d, d),
        np.where(mirror, -s, s),
        np.where(mirror, upper, lo),
        np.where(mirror, mirrored_phi, phi),
        p,
        "",
    )


def _as_in_graph(values: Array, hints: Array | None) -> Array:
    """The graph's own number where there is one but for float error of the measurement."""
    if hints is None or not len(hints):
        return values
    nearest = hints[np.argmin(np.abs(np.abs(values)[:, None] - hints), axis=1)]
    near = np.abs(np.abs(values) - nearest) <= 1e-12 * nearest
    return np.where(near, np.sign(values) * nearest, values)


def _snapped(values: Array) -> Array:
    """Halves where ``values`` are halves but for float error."""
    half = np.round(values * 2) / 2
    return np.where(np.abs(values - half) <= 1e-9 * (1 + np.abs(values)), half, values)


def _rounded(fitted: Staircase, dtype: np.dtype[Any]) -> Staircase:
    """The parameters in ``dtype``; phi anew, so that phi - lo loses nothing by rounding lo."""
    d = fitted.input_step.astype(dtype)
    s = fitted.output_step.astype(dtype)
    lo = fitted.lowest_level.astype(dtype)
    shift = fitted.phase - fitted.lowest_level
    phi = shift + lo.astype(np.float64)
    half = np.round(phi * 2) / 2
    error = 2 * float(np.finfo(dtype).eps) * (1 + np.abs(lo.astype(np.float64)))
    phi = np.where(np.abs(phi - half) <= error, half, phi)
    return Staircase(d, s, lo, phi.astype(dtype), fitted.levels, "")


def _clip(exact: Curve, native: Curve, edges: _Edges, points: Array, dtype: np.dtype[Any]) -> Fit:
    third = (edges.last - edges.first) / 3
    y1, y2 = exact((edges.first + third)[None])[0], exact((edges.first + 2 * third)[None])[0]
    with np.errstate(all="ignore"):
        gain = _near_one((y2 - y1) / third)
        low = edges.first + third - (y1 - edges.bottom) / gain
        high = edges.first + 2 * third + (edges.top - y2) / gain
    width = np.abs(high - low)
    low = np.where(np.abs(low) <= 1e-9 * width, 0.0, low)
    high = np.where(np.abs(high) <= 1e-9 * width, 0.0, high)
    return _ramp(exact, native, Ramp(low, high, edges.bottom, gain), points, dtype)


def _ramp(exact: Curve, native: Curve, fitted: Ramp, points: Array, dtype: np.dtype[Any]) -> Fit:
    every = (fitted.low, fitted.high, fitted.output_low, fitted.gain)
    if not all(np.all(np.isfinite(a)) for a in (fitted.low, fitted.output_low, fitted.gain)):
        return no_line()
    rounded = Ramp(*(np.asarray(a).astype(dtype) for a in every))
    eps = float(np.finfo(dtype).eps)
    near = Points(fitted.low, np.where(np.isfinite(fitted.high), fitted.high, fitted.low), points)
    for curve, candidate, kind in ((exact, fitted, np.dtype(np.float64)), (native, rounded, dtype)):
        mismatch = check(curve, candidate, near, kind, eps)
        if mismatch.found:
            return unlike_a_clip(mismatch, bool(np.all(np.isfinite(fitted.high))))
    return Fit("ramp", rounded, residual=mismatch.residual)


def _near_one(gain: Array) -> Array:
    one = np.sign(gain)
    return np.where(np.abs(gain - one) <= 1e-9, one, gain)


def _open_ended(
    exact: Curve,
    native: Curve,
    points: Array,
    values: Array,
    low: _Plateau,
    high: _Plateau,
    dtype: np.dtype[Any],
) -> Fit:
    """Functions that go on rising on one side or on both."""
    if _is_stepped(exact, points):
        return unclipped(not np.all(low.found), not np.all(high.found))
    if not np.all(low.found) or np.any(high.found):
        return unbounded(exact, ~low.found, ~high.found)
    columns = np.arange(values.shape[1])
    last_low = len(points) - 1 - low.start
    bottom = values[last_low, columns]
    start = points[np.minimum(last_low + 1, len(points) - 1)]
    size = np.maximum(np.abs(start), 1.0)
    y1, y2 = exact((start + size)[None])[0], exact((start + 3 * size)[None])[0]
    with np.errstate(all="ignore"):
        gain = _near_one((y2 - y1) / (2 * size))
        corner = start + size - (y1 - bottom) / gain
    corner = np.where(np.abs(corner) <= 1e-13 * size, 0.0, corner)
    return _ramp(
        exact, native, Ramp(corner, np.full_like(corner, np.inf), bottom, gain), points, dtype
    )


def _is_stepped(exact: Curve, points: Array) -> bool:
    """Whether the function is flat almost everywhere, between 2**-6 and 2**12."""
    x = np.geomspace(2.0**-6, 2.0**12, 997)[:, None]
    x = np.concatenate([-x, x])
    same = np.abs(exact(x * (1 + 1e-9)) - exact(x)) <= _noise(x) * 0 + 1e-13 * np.abs(x)
    moves = np.ptp(exact(points[:, None]), axis=0) > 0
    return bool(np.all(np.mean(same, axis=0) > 0.95) and np.all(moves))
