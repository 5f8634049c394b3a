"""For how many time steps a file is right: any number, as its neurons go on alike, with exceptions.

A membrane that starts by ``bias`` is right at the T that its charge is spread over, max-pools
(`maxima`) count up to the T that they are made for, and a ``pulse`` lasts up to `LONGEST` steps.
`export` says so in the file's statements; this is who asks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ModelError, UsageError
from .maxima import MAXIMA
from .pulse import LONGEST
from .read_back import Network


def timesteps_for(network: Network, path: str | Path, asked: int | None) -> int:
    """How long to run the file at ``path``: ``asked``, by default as long as it was made for.

    Raises UsageError where the file is not right at that T, or neither it nor ``asked`` says any;
    ModelError where what it says is no number of steps.
    """
    made_for = _said(network, path)
    steps = made_for if asked is None else asked
    if steps is None:
        raise UsageError(
            f"{path}: does not say for how many time steps it was made, so it is none of "
            "`na-convert export`", remedy="give -T, or export it with na-convert",
        )  # fmt: skip
    start = str(network.metadata.get("initial_membrane"))
    if start == "pulse" and steps > LONGEST:
        raise UsageError(
            f"{path}: its pulse at the first step lasts for up to {LONGEST:,} time steps, and "
            f"T is {steps:,}",
            remedy=f"give -T {LONGEST} or less, or export it with --initial-membrane metadata",
        )
    if made_for is not None and steps != made_for:
        _require_made_for(network, path, start, made_for, steps)
    return steps


def _require_made_for(
    network: Network, path: str | Path, start: str, made_for: int, steps: int
) -> None:
    """Raises UsageError where ``steps``, another number than ``made_for``, give other counts."""
    remedy = f"leave out -T, or export it with -T {steps}"
    if start == "bias":
        raise UsageError(
            f"{path}: is made for exactly {made_for:,} time steps, over which half a threshold is "
            f"spread, and T is {steps:,}", remedy=remedy,
        )  # fmt: skip
    pooled = any(op.layer.startswith(MAXIMA) for op in network.neurons.values())
    if pooled and steps > made_for:
        raise UsageError(
            f"{path}: is made for up to {made_for:,} time steps, as its max-pools count no "
            f"further, and T is {steps:,}", remedy=remedy,
        )  # fmt: skip


def _said(network: Network, path: str | Path) -> int | None:
    said = network.metadata.get("timesteps")
    if said is None:
        return None
    found = np.asarray(said)
    if found.dtype.kind not in "iu" or found.ndim or found < 1:
        raise ModelError(f"{path}: its timesteps are {said!r}, no number of steps")
    return int(found)
