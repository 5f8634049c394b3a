"""CIFAR-10 and CIFAR-100 from their official archives, binary and python version.

Nothing is unpacked to disk: members are read by name from the archive, or from the folder that
came out of it. The python version is a pickle; it is read by an unpickler that knows plain
containers and numpy arrays of numbers, and refuses everything else that a pickle could ask to be
imported or called.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from na_convert.errors import DataError

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]


_BINARY = {
    "cifar10": _Layout(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
    ),
    "cifar100": _Layout("cifar-100-binary", ("train.bin",), ("test.bin",)),
}
_PYTHON = {
    "cifar10": _Layout(
        "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)
    ),
    "cifar100": _Layout("cifar-100-python", ("train",), ("test",)),
}


def load_cifar(kind: str, path: Path) -> tuple[Part, Part]:
    """Training and test part of ``kind`` ("cifar10" or "cifar100"): images and labels of each.

    ``path`` is the ``.tar.gz``, a folder that holds it, or a folder with the files that it holds.

    Raises DataError where a file is missing or is not what its name says.
    """
    for layout, parse in ((_BINARY[kind], _parse_binary), (_PYTHON[kind], _parse_python)):
        read = _reader(path, layout)
        if read is not None:
            return (
                _joined([parse(read(name), kind, name) for name in layout.train]),
                _joined([parse(read(name), kind, name) for name in layout.test]),
            )
    raise DataError(
        f"{path}: holds neither the binary nor the python version of {kind}",
        remedy="give the official .tar.gz or the folder that it unpacks to",
    )


def _reader(path: Path, layout: _Layout) -> Callable[[str], bytes] | None:
    """How to read a file of ``layout`` by name; None where ``path`` has another layout."""
    if path.is_file():
        return _tar_reader(path, layout)
    for folder in (path, path / layout.folder):
        if (folder / layout.test[0]).is_file():
            return lambda name: _read(folder / name)
    for archive in sorted(path.glob("cifar*.tar.gz")):
        reader = _tar_reader(archive, layout)
        if reader is not None:
            return reader
    return None


def _tar_reader(path: Path, layout: _Layout) -> Callable[[str], bytes] | None:
    wanted = {f"{layout.folder}/{name}": name for name in (*layout.train, *layout.test)}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and member.name in wanted:
                    contents[wanted[member.name]] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable tar archive ({error})") from error
    if not contents:
        return None
    missing = sorted(set(wanted.values()) - set(contents))
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}", remedy="download it again")
    return contents.__getitem__


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_binary(data: bytes, kind: str, name: str) -> Part:
    """Records of one label byte (CIFAR-100: coarse, then fine) and 3072 pixels."""
    label_bytes = 1 if kind == "cifar10" else 2
    record = label_bytes + _PIXELS
    if not data or len(data) % record:
        raise DataError(f"{name}: {len(data)} bytes are no whole number of {record}-byte records")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images, rows[:, label_bytes - 1].astype(np.int64)


def _parse_python(data: bytes, kind: str, name: str) -> Part:
    try:
        table = load_plain_pickle(data)
        images = np.asarray(table[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(table[b"labels" if kind == "cifar10" else b"fine_labels"], np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: not a batch of {kind} ({error})") from error
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
    return images, labels


def load_plain_pickle(data: bytes) -> Any:
    """What ``data`` holds, if that is containers, numbers, text and numpy arrays of numbers.

    An array comes as an object that ``numpy.asarray`` takes. Raises DataError for a pickle that
    asks for anything else, before it is imported or called.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"not a readable pickle ({type(error).__name__}: {error})") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        stand_ins = {
            "_reconstruct": _new_array,
            "_frombuffer": _array_from_buffer,
            "ndarray": _Array,
            "dtype": _NumberType,
        }
        if module.partition(".")[0] == "numpy" and name in stand_ins:
            return stand_ins[name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 spells bytes
            return _encode
        raise DataError(
            f"the pickle asks for {module}.{name}, which is not plain data",
            remedy="take the archive from the data set's own site",
        )


class _NumberType:
    """Stands in for ``numpy.dtype``: its own state could make objects of plain bytes."""

    def __init__(self, name: bytes | str, align: object = False, copy: object = False) -> None:
        self.value = np.dtype(name.decode("ascii") if isinstance(name, bytes) else name)
        if self.value.kind not in "biuf":
            raise DataError(f"the pickle holds an array of {self.value}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray``; ``numpy.asarray`` makes the array of it."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.value.astype(dtype or self.value.dtype)


def _new_array(kind: object, shape: object, typecode: object) -> _Array:
    return _Array()


def _array_from_buffer(
    data: bytes, dtype: _NumberType, shape: tuple[int, ...], order: str
) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise DataError(f"the pickle encodes text as {encoding!r}, not latin1")
    return text.encode("latin1")


def _joined(parts: list[Part]) -> Part:
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
