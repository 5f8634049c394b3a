"""``.npz`` and ``.npy`` files: plain numbers alone, and no more memory than the file accounts for.

Nothing is unpickled. Before anything is allocated each array's header is read, and refused with a
DataError are

* headers that are no description of an array, and arrays of Python objects;
* arrays whose declared size is not that of the data behind the header;
* an ``.npz`` that holds anything but arrays, or more than `MOST_ARRAYS`;
* more than `SURELY_FINE` bytes that lie compressed to less than 1 / `MOST_COMPRESSED` of it, and
  more than the machine's memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .machine import beyond_memory

Array: TypeAlias = NDArray[Any]
Header: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]

MOST_ARRAYS = 1000
SURELY_FINE = 2**29  # bytes
MOST_COMPRESSED = 200


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of an ``.npz``; raises DataError where that is not what ``path`` is."""
    _require_file(path)
    with path.open("rb") as file:
        if file.read(6) == np.lib.format.MAGIC_PREFIX:
            raise DataError(f"{path}: a single array", remedy="call the file .npy")
    try:
        with zipfile.ZipFile(path) as archive:
            _checked_headers(path, archive)
            return {
                _name(member): np.asarray(_array_of(archive, member))
                for member in archive.namelist()
            }
    except DataError:
        raise
    except Exception as error:  # whatever a damaged archive makes of zipfile, zlib and numpy
        raise _unreadable(path, ".npz", error) from error


def npz_headers(path: Path) -> dict[str, Header]:
    """Shape and type of each array of an ``.npz``, without reading it; as strict as `read_npz`."""
    _require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _checked_headers(path, archive)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, ".npz", error) from error


def read_npy(path: Path) -> Array:
    """The array of an ``.npy``, memory-mapped; raises DataError where that is not what it is."""
    _require_file(path)
    if zipfile.is_zipfile(path):
        raise DataError(f"{path}: several arrays", remedy="call the file .npz")
    try:
        with path.open("rb") as file:
            header = _header(path, ".npy", file)
            _require_size(path, "the array", header, path.stat().st_size - file.tell())
        loaded: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, ".npy", error) from error
    return loaded


def _require_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file")


def _name(member: str) -> str:
    return member.removesuffix(".npy")


def _array_of(archive: zipfile.ZipFile, member: str) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


# --- headers --------------------------------------------------------------------------------------


def _checked_headers(path: Path, archive: zipfile.ZipFile) -> dict[str, Header]:
    members = archive.infolist()
    if len(members) > MOST_ARRAYS:
        raise DataError(f"{path}: holds {len(members)} arrays, more than {MOST_ARRAYS}")
    found: dict[str, Header] = {}
    for info in members:
        if not info.filename.endswith(".npy"):
            raise DataError(
                f"{path}: {info.filename!r} is no array", remedy="write it with numpy.savez"
            )
        with archive.open(info) as file:
            header = _header(path, ".npz", file)
            _require_size(path, _name(info.filename), header, info.file_size - file.tell())
        if _name(info.filename) in found:
            raise DataError(f"{path}: holds {_name(info.filename)!r} twice")
        found[_name(info.filename)] = header
    _require_no_bomb(path, found, sum(info.compress_size for info in members))
    return found


def _header(path: Path, kind: str, file: IO[bytes]) -> Header:
    form = np.lib.format
    try:
        version = form.read_magic(file)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _, dtype = read(file)
        sizes = tuple(int(n) for n in shape)
    except Exception as error:  # numpy reads it with tokenize and literal_eval, which raise much
        raise _unreadable(path, kind, error) from error
    if dtype.hasobject:
        raise _unreadable(path, kind, ValueError("Object arrays"))
    if any(type(n) is not int or n < 0 for n in shape):
        raise DataError(f"{path}: an array with the shape {list(shape)}")
    return sizes, dtype


def _require_size(path: Path, name: str, header: Header, stored: int) -> None:
    shape, dtype = header
    needed = prod(shape) * dtype.itemsize
    if needed != stored:
        raise DataError(
            f"{path}: {name} is said to be {dtype} {list(shape)}, which takes {needed} bytes, and "
            f"has {stored}",
            remedy="the file is damaged: write it anew",
        )


def _require_no_bomb(path: Path, headers: Mapping[str, Header], compressed: int) -> None:
    total = sum(prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    if too_large := beyond_memory(total):
        raise DataError(
            f"{path}: holds {too_large}",
            remedy="split it into a folder of .npz files, or store the samples as one .npy",
        )
    if total > SURELY_FINE and total > MOST_COMPRESSED * compressed:
        raise DataError(
            f"{path}: {compressed / 2**20:.1f} MiB that unpack to {total / 2**30:.1f} GiB",
            remedy="if it is what you mean, store the samples as .npy, which is read in slices",
        )


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    signs = ("allow_pickle", "Object arrays", "Python objects", "not a zip file", "magic string")
    pickled = any(sign in str(error) for sign in signs) and _looks_pickled(path, error)
    reason = f"not an {kind} file of plain numbers" if pickled else f"not a readable {kind} file"
    writer = "numpy.savez" if kind == ".npz" else "numpy.save"
    return DataError(f"{path}: {reason}", remedy=f"write it with {writer}")


def _looks_pickled(path: Path, error: Exception) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or "bject" in str(error)
