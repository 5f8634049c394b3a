"""Where a curve jumps, found by looking and halving: for the reason why it is no activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fit_checks import BUDGET

Array = NDArray[Any]
Curve = Callable[[Array], Array]

_LOOKS = 4096
_MOST_JUMPS = 256
_SAME = 1e-9  # of the height
_EVEN = 1e-6  # relative
_SHOWN = 8


def bisect(holds: Callable[[Array], NDArray[np.bool_]], a: Array, b: Array) -> tuple[Array, Array]:
    """Neighbouring floats around a change: ``holds`` is true at the first, false at the second.

    ``a`` (where it holds) and ``b`` (where not) are arrays [C], each halved on its own.
    """
    for _ in range(1100):  # enough from 2**40 down to the smallest float64
        middle = a + (b - a) / 2
        done = (middle == a) | (middle == b)
        if np.all(done):
            break
        true = holds(middle) & ~done
        a, b = np.where(true, middle, a), np.where(true | done, b, middle)
    return a, b


@dataclass(frozen=True)
class Stairs:
    """The stairs of one channel: ``jumps[k]`` [J] leads from ``values[k]`` to ``values[k + 1]``."""

    jumps: Array
    values: Array

    def even_levels(self) -> bool:
        """Whether all steps are equally high."""
        return _even(np.diff(self.values))

    def even_jumps(self) -> bool:
        """Whether all jumps are equally far apart."""
        return _even(np.diff(self.jumps))

    def nearly_even(self) -> bool:
        """Whether levels and jumps differ from even ones by less than a hundredth of a step."""
        return all(_even(np.diff(each), 0.01) for each in (self.values, self.jumps))


def stairs(exact: Curve, first: float, last: float, channel: int, channels: int) -> Stairs | None:
    """The stairs of ``channel`` between its outermost jumps; None if there are too many, or the
    curve slopes between them."""

    def curve(x: Array) -> Array:
        return np.asarray(exact(x[:, None])[:, channel])

    x = _looks(first, last, min(_LOOKS, max(64, BUDGET // channels)))
    y = curve(x)
    same = _SAME * float(np.ptp(y))
    at = np.flatnonzero(np.abs(np.diff(y)) > same)
    if not 0 < len(at) <= _MOST_JUMPS:
        return None
    before, behind = bisect(lambda p: np.abs(curve(p) - y[at]) <= same, x[at], x[at + 1])
    jumped = np.abs(curve(behind) - curve(before)) > np.abs(y[at + 1] - y[at]) / 2
    return Stairs(behind, np.append(y[at], y[at[-1] + 1])) if np.all(jumped) else None


def _looks(first: float, last: float, count: int) -> Array:
    """Points from just outside to just outside, dense near both ends, whatever the scale."""
    width = last - first
    inside = np.linspace(-0.01, 1.01, count // 2)
    near = np.geomspace(1e-9, 1, count // 4)
    return np.unique(first + width * np.concatenate([inside, near, 1 - near]))


def listed(values: Array) -> str:
    """The numbers, or the first and the last of many."""
    shown = [f"{value:.6g}" for value in values]
    if len(shown) <= _SHOWN:
        return ", ".join(shown)
    return f"{', '.join(shown[: _SHOWN - 1])}, ..., {shown[-1]}"


def _even(differences: Array, tolerance: float = _EVEN) -> bool:
    if not len(differences):
        return True
    mean = float(np.mean(differences))
    return bool(np.all(np.abs(differences - mean) <= tolerance * abs(mean)))
