"""How a staircase rounds a value that lies exactly between two levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import Staircase

Array = NDArray[Any]
Curve = Callable[[Array], Array]

_MOST = 64  # jumps looked at


def tie_rule(exact: Curve, rounded: Staircase, fitted: Staircase, rounding: str) -> str:
    """The rule, measured at the jumps whose position is a float64; else from ``rounding``.

    Args:
        rounded, fitted: the staircase in the model's float type and as it was measured; parameters
            ``[C]``. Jumps are exact in the first where its step is the graph's own constant.
        rounding: what the graph's operators say: "half_even", "half_away", "half_up", ...

    Where one number has to stand for all ties and they do not agree, the graph's word counts.
    """
    for candidate in (rounded, fitted):
        ups, signs, between = _measured(exact, candidate)
        if len(ups) and np.all(between):
            return "middle"
        if len(ups) >= min(3, fitted.levels):
            break
    else:
        return rounding or "half_up"
    if np.all(ups) or not np.any(ups):
        return _one_sided(bool(ups[0]), fitted, signs, rounding)
    if np.array_equal(ups, signs > 0):
        return "half_away"
    if rounding:
        return rounding
    return "half_even" if np.all(ups[1:] != ups[:-1]) else "half_up"


def _one_sided(up: bool, fitted: Staircase, signs: Array, rounding: str) -> str:
    part = float(np.ravel(fitted.phase)[0])
    if up and abs(part - round(part)) < 1e-9:
        return "floor"
    if not up and abs(part - round(part)) < 1e-9:
        return "ceil"
    if up and rounding == "half_away" and np.all(signs > 0):
        return "half_away"
    if fitted.levels == 1 and rounding:
        return rounding
    return "half_up" if up else "half_down"


def _measured(
    exact: Curve, candidate: Staircase
) -> tuple[NDArray[np.bool_], Array, NDArray[np.bool_]]:
    """For ties of the first channel, in order: does it round up, the sign of x there, and is the
    value there between the two levels, as that of sign(x) at 0 is."""
    p = candidate.levels
    stairs = np.arange(1, min(p, _MOST) + 1, dtype=np.float64)
    d, lo, phi, s = (
        np.asarray(a, np.float64).reshape(-1)
        for a in (candidate.input_step, candidate.lowest_level, candidate.phase,
                  candidate.output_step)
    )  # fmt: skip
    ties = (stairs[:, None] + (lo - phi)) * d
    sides = [np.nextafter(ties, -np.inf), ties, np.nextafter(ties, np.inf)]
    positions = [exact(x) / s - lo for x in sides]
    levels = [np.round(position) for position in positions]
    rising = d > 0
    below = np.where(rising, levels[0], levels[2])
    above = np.where(rising, levels[2], levels[0])
    here = stairs[:, None]
    exactly = ((below == here - 1) & (above == here))[:, 0]
    between = np.abs(positions[1] - levels[1]) > 0.1
    return (levels[1] == here)[exactly, 0], ties[exactly, 0], between[exactly, 0]
