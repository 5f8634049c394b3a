"""Arrays that are read when they are sliced, so that data may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class LazyArray:
    """An array ``shape`` = [N, ...] of which rows are read by ``read(start, stop)``.

    It can be sliced along its first axis, without steps, and is not kept in memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], Array]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: slice) -> Array:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("only consecutive rows can be read")
        return self.read(start, max(start, stop))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def mapped(self, function: Callable[[Array], Array], dtype: np.dtype[Any]) -> LazyArray:
        """``function`` of each part that is read; it keeps the shape."""
        return LazyArray(self.shape, dtype, lambda a, b: function(self.read(a, b)))


def pick(array: Array | LazyArray, rows: NDArray[np.int64]) -> Array | LazyArray:
    """The rows of ``array`` with these indices, in this order; lazy where ``array`` is."""
    if isinstance(array, np.ndarray):
        return np.asarray(array[rows])

    def read(start: int, stop: int) -> Array:
        parts = [array[row : row + 1] for row in rows[start:stop]]
        return np.concatenate(parts) if parts else array[0:0]

    return LazyArray((len(rows), *array.shape[1:]), array.dtype, read)
