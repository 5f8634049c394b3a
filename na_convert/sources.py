"""Where samples lie: arrays by name from a mapping, ``.npz``, ``.npy``, a folder of either kind.

=====================  =============================================================================
mapping, ``.npz``      in memory
``.npy``               one array, called ``x``; memory-mapped, read in slices
folder of ``.npz``     shards in the order of their names, one in memory at a time
folder of images       decoded when asked for (`images`); class folders give labels
=====================  =============================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .array_files import npz_headers, read_npy, read_npz
from .errors import DataError
from .images import ImageFiles, find_images
from .lazy import LazyArray

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = dict[str, Array | LazyArray]

LABEL_NAMES = ("labels", "y")


@dataclass(frozen=True)
class Source:
    """Arrays by name, or image files; ``where`` they are from."""

    where: str
    arrays: Arrays
    images: ImageFiles | None = None


def open_source(source: str | Path | Mapping[str, Array]) -> Source:
    """Whatever ``--data`` names; raises DataError, one line, for what is none of it."""
    if isinstance(source, Mapping):
        return Source("data", {name: np.asarray(array) for name, array in source.items()})
    path, where = Path(source), str(source)
    if path.is_dir():
        shards = sorted((p for p in path.iterdir() if p.suffix.lower() == ".npz"), key=natural)
        if shards:
            return Source(where, _read_shards(shards))
        return Source(where, {}, find_images(path))
    if path.suffix.lower() == ".npy":
        return Source(where, {"x": _map_npy(path)})
    return Source(where, dict(read_npz(path)))


def natural(path: Path) -> list[tuple[int, str]]:
    """A sorting key: ``part-2`` before ``part-10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _map_npy(path: Path) -> LazyArray:
    array = read_npy(path)
    if not array.ndim:
        raise DataError(f"{path}: holds a single number, not samples")
    return LazyArray(array.shape, array.dtype, lambda a, b: np.array(read_npy(path)[a:b]))


# --- shards ---------------------------------------------------------------------------------------


def _read_shards(paths: Sequence[Path]) -> Arrays:
    """The arrays of ``paths`` one after another; labels in memory, all else read when asked for."""
    headers = [npz_headers(path) for path in paths]
    first = headers[0]
    shards = list(zip(paths, headers, strict=True))
    starts = np.cumsum([0, *(_length(path, header) for path, header in shards)])
    for path, header in shards:
        if set(header) != set(first):
            raise DataError(f"{path}: holds {_listed(header)}, {paths[0].name} {_listed(first)}")
        for name, (shape, dtype) in header.items():
            if (shape[1:], dtype) != (first[name][0][1:], first[name][1]):
                raise DataError(
                    f"{path}: {name} is {dtype} {list(shape)}, in {paths[0].name} "
                    f"{first[name][1]} {list(first[name][0])}"
                )
    arrays: Arrays = {}
    for name, (shape, dtype) in first.items():
        if name in LABEL_NAMES and len(shape) == 1:
            arrays[name] = np.concatenate([_shard(path)[name] for path in paths])
        else:
            arrays[name] = _joined(paths, starts, name, shape[1:], dtype)
    return arrays


def _joined(
    paths: Sequence[Path], starts: Array, name: str, rest: tuple[int, ...], dtype: np.dtype[Any]
) -> LazyArray:
    def read(start: int, stop: int) -> Array:
        parts = [np.zeros((0, *rest), dtype)]
        first = int(np.searchsorted(starts, start, "right")) - 1
        for index in range(first, len(paths)):
            if starts[index] >= stop:
                break
            low, high = max(0, start - starts[index]), stop - starts[index]
            parts.append(_shard(paths[index])[name][low:high])
        return np.concatenate(parts)

    return LazyArray((int(starts[-1]), *rest), dtype, read)


@lru_cache(maxsize=1)
def _shard(path: Path) -> dict[str, Array]:
    return read_npz(path)


def _length(path: Path, header: Mapping[str, tuple[tuple[int, ...], Any]]) -> int:
    lengths = {name: shape[0] if shape else 0 for name, (shape, _) in header.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {count}" for name, count in lengths.items()) or "nothing"
        raise DataError(f"{path}: arrays of a shard need one length ({listed})")
    return next(iter(lengths.values()))


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "nothing"
