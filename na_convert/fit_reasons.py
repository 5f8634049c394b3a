"""A curve that is no activation: why, in its own numbers, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import Ramp, Staircase
from .fit_checks import Mismatch
from .fit_stairs import Stairs, listed, stairs

Array = NDArray[Any]
Curve = Callable[[Array], Array]


@dataclass(frozen=True)
class Fit:
    """The kind of a curve and its parameters.

    The kinds are "staircase", "ramp", "affine"; "uneven": flat almost everywhere, yet no staircase;
    and "unknown".

    Attributes:
        activation: arrays ``[C]`` in the model's float type; None unless staircase or ramp.
        reason, remedy: why it is unknown, and what to do; empty otherwise.
        residual: largest difference from the function where it was checked, in stairs (for a ramp:
            in units of its height).
    """

    kind: str
    activation: Staircase | Ramp | None = None
    reason: str = ""
    remedy: str = ""
    residual: float = 0.0


_REMEDY = (
    "use a quantised activation (models/quantizer.py) or a clip in its place and fine-tune, "
    "or keep it behind the last neuron"
)
_FAR = 1024  # where a curve that never ends is shown


def _unknown(reason: str, remedy: str = _REMEDY) -> Fit:
    """Neither flat almost everywhere nor any kind there is."""
    return Fit("unknown", None, reason, remedy)


def not_finite(points: Array, values: Array) -> Fit:
    """``values`` [K, C] at ``points`` [K] are not all numbers."""
    rows, columns = np.nonzero(~np.isfinite(values))
    nearest = np.argmin(np.abs(points[rows]))
    x, y = points[rows[nearest]], values[rows[nearest], columns[nearest]]
    return _unknown(
        f"gives no finite number for some inputs (at {x:.3g} it is {y})",
        "clip its input to where it is defined, or use a quantised activation in its place",
    )


def turns(points: Array, values: Array) -> Fit:
    """Ends as high as it begins, in some channel."""
    channel = int(np.argmax(values[0] == values[-1]))
    curve = values[:, channel]
    turn = int(np.argmax(np.abs(curve - curve[0])))
    return _unknown(
        f"does not only rise or only fall: from {curve[0]:.6g} to {curve[turn]:.6g} at "
        f"{points[turn]:.3g}, and back"
    )


def constant_channel() -> Fit:
    """One level in some channels, and more in others."""
    return _unknown("is constant in some channels and not in others")


def no_line() -> Fit:
    """A clip whose ends cannot be computed."""
    return _unknown("has flat ends, and is no line between them")


def too_fine(levels: int, most: int) -> Fit:
    """More ``levels`` than ``most``."""
    return _unknown(f"has {levels} levels; at most {most} make sense", "quantise it to fewer bits")


def unlike_channels(levels: Array) -> Fit:
    """``levels`` [C] differ."""
    low, high = int(np.argmin(levels)), int(np.argmax(levels))
    return _unknown(
        f"has {int(levels[low])} levels in one channel and {int(levels[high])} in another "
        f"(channels {low} and {high})",
        "use the same number of levels in all channels of a layer",
    )


def unclipped(below: bool, above: bool) -> Fit:
    """Steps that go on ``below`` or ``above`` without end."""
    which = " and ".join([*["no lowest"] * below, *["no highest"] * above])
    return Fit(
        "uneven",
        None,
        f"rounds without a clip, so that there is {which} level",
        "clip the activation to its range before or after the rounding, and train with that",
    )


def unbounded(exact: Curve, below: NDArray[np.bool_], above: NDArray[np.bool_]) -> Fit:
    """Goes on ``below`` in some channels [C], and ``above`` in some."""
    if not np.any(above):
        return _unknown(
            "is unbounded below and flat above",
            "move the sign into the weights, so that the activation is a ReLU",
        )
    low, high = exact(np.array([[-_FAR], [_FAR]]))[:, int(np.argmax(below))]
    return _unknown(
        "is neither a staircase nor a clip, and flat on neither side: "
        f"at -{_FAR} it is {low:.6g}, at {_FAR} it is {high:.6g}"
    )


def unlike_a_clip(mismatch: Mismatch, bounded: bool) -> Fit:
    """A curve between flat ends, or behind one, that is not a line there."""
    other = "a clip" if bounded else "a ReLU"
    return _unknown(
        f"is neither a staircase nor a clip: at {mismatch.x:.6g} it is {_plain(mismatch.y):.6g}, "
        f"{other} would be {_plain(mismatch.expected):.6g}"
    )


def _plain(value: float) -> float:
    return 0.0 if abs(value) < 1e-9 else value


def uneven(exact: Curve, first: Array, last: Array, height: Array, channel: int) -> Fit:
    """Neither jumps of equal height nor a ramp between ``first`` and ``last`` [C]."""
    return _uneven(exact, first, last, height, channel, "")


def unlike_stairs(
    exact: Curve, first: Array, last: Array, height: Array, mismatch: Mismatch, kind: str
) -> Fit:
    """The stairs that follow from the outermost jumps are not those of the curve."""
    where = (
        f" (at {mismatch.x:.9g} it is {mismatch.y:.9g}, "
        f"even stairs would give {mismatch.expected:.9g}, {kind})"
    )
    return _uneven(exact, first, last, height, mismatch.channel, where)


def _uneven(
    exact: Curve, first: Array, last: Array, height: Array, channel: int, where: str
) -> Fit:
    """``where`` says so where the stairs of ``channel`` themselves look even."""
    x = np.linspace(0, 1, 997)[:, None] * (last - first) + first
    step = np.abs(last - first) * 1e-9
    values = exact(x)
    if np.mean(np.abs(exact(x + step) - values) <= 1e-12 * np.abs(height)) < 0.5:
        places = ", ".join(
            f"at {x[k, channel]:.6g} it is {values[k, channel]:.6g}" for k in (249, 498, 747)
        )
        return _unknown(f"is neither a staircase nor a clip between its flat ends: {places}")
    found = stairs(exact, float(first[channel]), float(last[channel]), channel, len(first))
    remedy = "train with a uniform quantiser (LSQ, PACT, QCFS) instead of APoT or a codebook"
    if found is not None and found.nearly_even():
        remedy = "compute levels and thresholds as k * step in float32, not from a rounded table"
    unlike = _unlike(found, where)
    return Fit("uneven", None, f"has {unlike}, so that no threshold fits all of them", remedy)


def _unlike(found: Stairs | None, where: str) -> str:
    """What is unlike even stairs; ``where`` says where if they look even."""
    if found is not None and not found.even_levels():
        levels = listed(found.values)
        return f"levels that are not evenly spaced ({levels})"
    if found is not None and not found.even_jumps():
        jumps = listed(found.jumps)
        return f"even levels, but jumps that are not evenly spaced (at {jumps})"
    return f"levels that are not evenly spaced{where}"
