"""Does a fitted activation give what the function gives? Checked where it would show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import Ramp, Staircase

Array = NDArray[Any]
Curve = Callable[[Array], Array]

BUDGET = 4_000_000  # values evaluated in one check
_SCALE = 2.0 ** np.arange(-40, 40 + 1 / 32, 1 / 16)
_BESIDE = np.array([1 - 1e-3, 1 - 1e-9, 1.0, 1 + 1e-9, 1 + 1e-3])
_CHUNK = 500_000
SNAPPING = 4e-9  # parameters are rounded to halves and zeros as near as this
_SEED = 20240607


@dataclass(frozen=True)
class Points:
    """Where to look: between ``first`` and ``last`` [C], and on the scale-free ``grid`` [K]."""

    first: Array
    last: Array
    grid: Array


@dataclass(frozen=True)
class Mismatch:
    """The worst disagreement: at ``x``, in ``channel``, the function is ``y``, not ``expected``."""

    found: bool
    x: float = 0.0
    y: float = 0.0
    expected: float = 0.0
    residual: float = 0.0
    channel: int = 0


def most_hints(channels: int) -> int:
    """With so many hints a grid for ``channels`` channels is no larger than one check."""
    return max(0, (BUDGET // channels // 2 - len(_SCALE)) // len(_BESIDE))


def grid(hints: Array | None = None) -> Array:
    """Sorted points on both sides of 0, sixteen in each doubling from 2**-40 to 2**40, and beside
    every hint."""
    near = np.zeros(0) if hints is None else np.outer(hints, _BESIDE).ravel()
    positive = np.unique(np.concatenate([_SCALE, near]))
    return np.concatenate([-positive[::-1], [0.0], positive])


def check(
    curve: Curve, candidate: Staircase | Ramp, points: Points, dtype: np.dtype[Any], eps: float
) -> Mismatch:
    """Compare ``candidate`` (parameters [C]) with ``curve``, computed in ``dtype``.

    ``eps`` is that of the model's float type, in which its constants are rounded.

    Left out is what float error decides: a staircase within rounding of a jump, and points so large
    that their own rounding error exceeds a stair.
    """
    wide = _in_float64(candidate)
    worst = Mismatch(False)
    for x in _chunks(wide, points, eps):
        there = _representable(x, dtype)
        y = curve(there).astype(np.float64)
        there = there.astype(np.float64)
        expected = wide(there)
        height = _height(wide)
        error, scale = np.abs(y - expected), np.where(np.isfinite(height), height, 1.0)
        allowed = _allowed(wide, there, y, expected, eps)
        relevant = ~_undecided(wide, there, eps) & (allowed < 0.3 * height)
        bad = relevant & ~(error <= allowed)
        if np.any(bad):
            k, c = np.unravel_index(np.argmax(np.where(bad, error / scale, -1)), bad.shape)
            found = float(there[k, c]), float(y[k, c]), float(expected[k, c])
            return Mismatch(True, *found, channel=int(c))
        share = float(np.max(np.where(relevant, error / scale, 0.0), initial=0.0))
        worst = Mismatch(False, residual=max(worst.residual, share))
    return worst


def _in_float64(candidate: Staircase | Ramp) -> Staircase | Ramp:
    arrays = {k: v.astype(np.float64) for k, v in vars(candidate).items() if hasattr(v, "astype")}
    return replace(candidate, **arrays)


def _height(candidate: Staircase | Ramp) -> Array:
    """The size that errors are measured in: one stair; for a ramp its height, or its gain."""
    if isinstance(candidate, Staircase):
        return np.abs(candidate.output_step)
    width = np.where(np.isfinite(candidate.high), candidate.high - candidate.low, np.inf)
    return np.abs(candidate.gain) * width


def _allowed(candidate: Staircase | Ramp, x: Array, y: Array, expected: Array, eps: float) -> Array:
    """Float error of the value itself: terms as large as the value, its levels, or x."""
    size = np.maximum(np.abs(y), np.abs(expected))
    if isinstance(candidate, Staircase):
        lowest = np.abs(candidate.output_step * candidate.lowest_level)
        stairs = np.abs(candidate.output_step) * candidate.levels
        snapped = SNAPPING * (np.abs(candidate.output_step) + lowest)
        return np.asarray(16 * eps * (lowest + stairs) + 8 * eps * np.abs(x) + snapped)
    offset = np.abs(candidate.gain * candidate.low) + np.abs(candidate.output_low)
    snapped = np.where(np.isfinite(_height(candidate)), SNAPPING * _height(candidate), 1e-300)
    noise = 8 * eps * np.abs(x * candidate.gain)
    return np.asarray(16 * eps * (size + offset) + noise + snapped)


def _undecided(candidate: Staircase | Ramp, x: Array, eps: float) -> NDArray[np.bool_]:
    """Points within float error of a jump."""
    if isinstance(candidate, Ramp):
        return np.zeros(x.shape, bool)
    shift = np.abs(candidate.phase - candidate.lowest_level)
    size = np.abs(x / candidate.input_step) + shift + np.abs(candidate.lowest_level) + 2
    near = 8 * eps * size + SNAPPING * (1 + np.abs(candidate.lowest_level))
    return np.asarray(candidate.distance_to_edge(x) <= np.minimum(near, 0.3))


def _representable(x: Array, dtype: np.dtype[Any]) -> Array:
    limit = float(np.finfo(dtype).max) / 16
    return np.clip(x, -limit, limit).astype(dtype)


def _chunks(candidate: Staircase | Ramp, points: Points, eps: float) -> list[Array]:
    """Points [K, C] in pieces: the grid, around the activation, at the stairs and beside jumps."""
    channels = len(points.first)
    generator = np.random.default_rng(_SEED)
    rows = max(64, min(1 << 17, BUDGET // channels))
    width = np.maximum(points.last - points.first, np.abs(_width(candidate)))
    around = generator.uniform(-3, 4, (min(2048, rows), 1)) * width + points.first
    within = generator.uniform(-0.01, 1.01, (min(2048, rows), 1)) * width + points.first
    tiny = np.outer(np.array([-1e-3, -1e-6, 1e-6, 1e-3]), width)
    every = [np.broadcast_to(points.grid[:, None], (len(points.grid), channels))]
    every += [around, within, tiny]
    if isinstance(candidate, Staircase):
        every += _at_stairs(candidate, eps, rows, generator)
    else:
        corners = [candidate.low, np.where(np.isfinite(candidate.high), candidate.high, 0)]
        every += [np.stack([c * (1 + 4 * eps), c * (1 - 4 * eps), c]) for c in corners]
    size = max(1, _CHUNK // channels)
    return [block[i : i + size] for block in every for i in range(0, len(block), size)]


def _width(candidate: Staircase | Ramp) -> Array:
    if isinstance(candidate, Staircase):
        return np.asarray(candidate.input_step)
    return np.where(np.isfinite(candidate.high), candidate.high - candidate.low, 1.0)


def _at_stairs(
    candidate: Staircase, eps: float, rows: int, generator: np.random.Generator
) -> list[Array]:
    """Inside every stair (or as many as the budget allows): its middle, and close to its ends."""
    count = candidate.levels
    stairs = np.arange(-2, count + 3)
    if len(stairs) > rows // 3:
        ends = np.concatenate([stairs[: rows // 12], stairs[-(rows // 12) :]])
        stairs = np.union1d(ends, generator.choice(stairs, rows // 6, replace=False))
    d, shift = candidate.input_step, candidate.phase - candidate.lowest_level
    start = stairs[:, None] - shift
    rounding = 16 * eps * (np.abs(start) + np.abs(shift) + 4)
    margin = np.minimum(0.3, rounding + 2 * SNAPPING * (1 + np.abs(candidate.lowest_level)))
    return [(start + part) * d for part in (0.5, margin, 1 - margin)]
