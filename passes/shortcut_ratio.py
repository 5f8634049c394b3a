"""Identity shortcuts in uint8: the resolution at which counts are added to rounded currents.

A shortcut whose spikes are worth rho thresholds adds ``rho N``. At a resolution R (odd) that is
``q N`` with a whole number q close to ``R rho``, added to the current in units of ``theta / R``.
Rounding the current to these units decides nothing: it is compared with a whole number, and the
rounded current reaches k exactly where the current itself reaches ``k - 1/2``. So all that is lost
is ``q / R`` in place of rho. uint8 has room for ``R (T - 1) + sum of |q| N <= 254``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

ROOM = 254
EXACT = 1e-6  # thresholds; float32 parameters


@dataclass(frozen=True)
class Ratio:
    """Whole numbers ``weights`` [C] per shortcut at ``resolution``; ``error`` in thresholds."""

    resolution: int
    weights: tuple[NDArray[np.int64], ...]
    error: float


def best_ratio(exact: Sequence[Array], most: Sequence[int], timesteps: int) -> Ratio | None:
    """The resolution of least error for shortcuts worth ``exact`` [C] thresholds per spike.

    ``most``: the largest count of each. The error is what the ratios are off by at half the largest
    counts. None where nothing fits.
    """
    if not exact:
        return Ratio(1, (), 0.0)
    best: Ratio | None = None
    for resolution in range(1, ROOM + 1, 2):
        weights = tuple(np.rint(resolution * rho).astype(np.int64) for rho in exact)
        largest = sum(int(np.abs(q).max()) * m for q, m in zip(weights, most, strict=True))
        if resolution * (timesteps - 1) + largest > ROOM:
            break
        error = sum(
            float(np.abs(q / resolution - rho).max()) * m / 2
            for q, rho, m in zip(weights, exact, most, strict=True)
        )
        if best is None or error < best.error - EXACT:
            best = Ratio(resolution, weights, error)
    return best
