"""The arithmetic of Reshape targets: which entry is the batch, and what the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Target = NDArray[np.generic]


def resolve(target: Target, shape: Shape, allow_zero: bool) -> Shape | None:
    """The shape that Reshape gives a tensor of ``shape``; None where it does not fit."""
    entries = [int(v) for v in np.ravel(target)]
    if not allow_zero:
        if any(v == 0 and k >= len(shape) for k, v in enumerate(entries)):
            return None
        entries = [shape[k] if v == 0 else v for k, v in enumerate(entries)]
    total = int(np.prod(shape, dtype=np.int64))
    known = int(np.prod([v for v in entries if v != -1], dtype=np.int64))
    if -1 in entries:
        if known == 0 or total % known:
            return None
        entries = [total // known if v == -1 else v for v in entries]
    return tuple(entries) if int(np.prod(entries, dtype=np.int64)) == total else None


def freed_target(
    shapes: Sequence[Shape],
    targets: Sequence[Target],
    axis: int,
    batches: Sequence[int],
    fixed: int | None,
    allow_zero: bool,
) -> list[int] | Literal["open"] | None:
    """A target for every batch size: the entries, with -1 for the batch.

    ``shapes`` of the input, ``targets`` and ``batches`` are given per trial; ``axis`` of the input
    holds the batch. ``fixed`` is the batch for which a constant target was written, None where it
    follows the batch by itself. Returns "open" where entries other than the batch vary too (open
    image sizes), and None where samples are mixed.
    """
    if fixed is not None:
        written = [_at_batch(s, axis, b, fixed) for s, b in zip(shapes, batches, strict=True)]
    else:
        written = list(shapes)
    resolved = [resolve(t, s, allow_zero) for t, s in zip(targets, written, strict=True)]
    results = [r for r in resolved if r is not None]
    if len(results) < len(resolved):
        return None
    first, second = results[:2]
    if fixed is not None:
        position = _batch_position(written[0], first, axis, fixed)
    else:
        varying = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        position = varying[0] if len(varying) == 1 else None
    if position is None:
        return None
    rest = [{r[k] for r in results} for k in range(len(first)) if k != position]
    if any(len(dims) > 1 for dims in rest):
        return "open"
    return [-1 if k == position else d for k, d in enumerate(first)]


def _at_batch(shape: Shape, axis: int, batch: int, fixed: int) -> Shape:
    return tuple(d // batch * fixed if k == axis else d for k, d in enumerate(shape))


def _batch_position(before: Shape, after: Shape, axis: int, fixed: int) -> int | None:
    """Where the batch goes: the entry in front of which lie as many elements as before it."""
    leading = int(np.prod(before[:axis], dtype=np.int64))
    for position, size in enumerate(after):
        if int(np.prod(after[:position], dtype=np.int64)) != leading:
            continue
        if size % fixed == 0:
            return position
    return None
