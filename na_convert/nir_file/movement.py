"""Operators that move values about without computing: found out by running them on numbers.

Exporters spell a flatten in a dozen ways (Reshape by computed sizes, Gather by computed indices,
Squeeze, Transpose). All of them are one map of positions, and the map is seen by moving the
positions themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from ..evaluate import evaluate
from .network import Array, Shape


def positions(
    graph: gs.Graph, feeds: Mapping[str, Array], origin: str, shape: Shape, moved: str
) -> Array | None:
    """Which element of the tensor ``origin`` [2, *shape] each element of ``moved`` [2, ...] is.

    Flat indices into one sample, in the shape of ``moved`` without the batch; -1 where it is 0.
    None where ``moved`` has no batch axis, mixes samples, or holds something else.

    ``feeds`` are the network's inputs, two samples; sizes may be computed from them.
    """
    size = int(np.prod(shape))
    numbers = np.arange(1.0, 2 * size + 1).reshape(2, *shape)
    given = {name: np.asarray(values, np.float64) for name, values in feeds.items()}
    found = evaluate(graph, {**given, origin: numbers}, [moved])[moved]
    if found.ndim < 2 or found.shape[0] != 2 or not np.array_equal(found, np.round(found)):
        return None
    index = found.astype(np.int64)
    first, second = index[0], index[1]
    if first.max(initial=0) > size or not np.array_equal(
        second, np.where(first > 0, first + size, 0)
    ):
        return None
    return np.asarray(first - 1)


def channel_selection(index: Array, shape: Shape) -> Array | None:
    """The channels [C'] that ``index`` [C', ...] takes whole from a tensor of ``shape`` [C, ...];
    -1 for channels of zeros. None where pixels move; they may be put into another shape."""
    pixels = int(np.prod(shape[1:]))
    if int(np.prod(index.shape[1:])) != pixels:
        return None
    rows = index.reshape(index.shape[0], pixels)
    channels = np.where(rows[:, 0] >= 0, rows[:, 0] // pixels, -1)
    whole = np.where(channels[:, None] >= 0, channels[:, None] * pixels + np.arange(pixels), -1)
    return channels if np.array_equal(rows, whole) else None


def strided_selection(index: Array, shape: Shape) -> tuple[Array, tuple[int, ...]] | None:
    """Channels [C'], and the strides with which ``index`` [C', ...] takes pixels from the first on.

    None where it takes others.
    """
    if index.ndim != len(shape) or index.ndim < 2:
        return None
    pixels = int(np.prod(shape[1:]))
    first = index.reshape(index.shape[0], -1)[:, 0]
    if np.any((first >= 0) & (first % pixels != 0)):
        return None
    channels = np.where(first >= 0, first // pixels, -1)
    taken = index[int(np.argmax(first >= 0))]
    strides = [_stride(taken, axis, shape) for axis in range(taken.ndim)]
    if min(strides) < 1:
        return None
    grid = np.arange(pixels).reshape(shape[1:])[tuple(slice(None, None, s) for s in strides)]
    if grid.shape != index.shape[1:]:
        return None
    wide = channels.reshape(-1, *[1] * grid.ndim)
    wanted = np.where(wide >= 0, wide * pixels + grid, -1)
    return (channels, tuple(strides)) if np.array_equal(index, wanted) else None


def _stride(taken: Array, axis: int, shape: Shape) -> int:
    """How many pixels apart the first two of ``taken`` are along ``axis``; 0 if in another order.

    Of one pixel, or of zeros, any stride that gives as many.
    """
    size, count = shape[1 + axis], taken.shape[axis]
    if count == 1 or taken.flat[0] < 0:
        return int(-(-size // count))
    second = int(np.moveaxis(taken, axis, 0)[1].flat[0])
    stride, rest = divmod(second - int(taken.flat[0]), int(np.prod(shape[2 + axis :])))
    return 0 if rest else stride
