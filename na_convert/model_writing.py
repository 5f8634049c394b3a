"""Writing models: weights streamed, files whole or not at all.

A protobuf holds 2 GiB. The large weights of a model beyond that lie in a file of their own beside
it, as ONNX's external data. Its name is the model's with the data's own hash,
``net.onnx.0123456789abcdef.data``: no other data can have that name, so that nothing is
overwritten, and until the model's file is replaced the old one has all it needs. The model names it
without a folder: they are moved together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import UsageError
from .graph import Parts
from .protos import PROTOBUF_LIMIT
from .whole_files import atomic_file, put_if_absent

_ALIGNMENT = 4096  # bytes; of each tensor in the data, so that it can be mapped into memory
_CHUNK = 1 << 24


def save(parts: Parts, path: Path, *, most_inside: int | None = None) -> tuple[int, str]:
    """Write a model to ``path``, whole or not at all; returns its size in bytes, external data
    included, and the sha256 of ``path``.

    Weights are streamed, one at a time. Where the model has more than ``most_inside`` bytes (by
    default, what a protobuf holds), its large weights become external data in the same folder;
    files that are there already stay as they are. Raises UsageError where the folder is missing or
    cannot be written, or where that very name is taken by something else.
    """
    inside = _Encoding(parts)
    if inside.length <= (PROTOBUF_LIMIT if most_inside is None else most_inside):
        with atomic_file(path) as part:
            digest = _write(part, inside.chunks())
        return path.stat().st_size, digest
    return _save_external(parts, path)


def _save_external(parts: Parts, path: Path) -> tuple[int, str]:
    made: Path | None = None
    written = -1
    try:
        with atomic_file(path) as part:
            data = part.with_name(f"{path.name}.data")
            places = _Places(parts.weights)
            name = f"{path.name}.{_write(data, places.chunks())[:16]}.data"
            model = parts.referring(name, places.offsets)
            digest = _write(part, [bytes(model.SerializeToString(deterministic=True))])
            written = part.stat().st_ino
            beside = path.with_name(name)
            if put_if_absent(data, beside):
                made = beside
            elif not _same(data, beside):
                raise UsageError(f"{beside}: there is another file", remedy="choose another -o")
    except BaseException:
        if made is not None and not _is(path, written):  # nothing refers to it
            with suppress(OSError):
                made.unlink()
        raise
    return path.stat().st_size + beside.stat().st_size, digest


def _write(path: Path, chunks: Iterable[bytes]) -> str:
    """Write ``chunks`` to ``path``; their sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while chunk := a.read(_CHUNK):
            if chunk != b.read(_CHUNK):
                return False
    return True


def _is(path: Path, inode: int) -> bool:
    return path.exists() and path.stat().st_ino == inode


def _bytes_of(values: NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(values).tobytes()


# --- external data --------------------------------------------------------------------------------


class _Places:
    """Where each weight lies in the data: one behind the other, aligned."""

    def __init__(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        self.weights, self.offsets, self.size = weights, dict[str, int](), 0
        for name, values in weights.items():
            self.offsets[name] = self.size = -(-self.size // _ALIGNMENT) * _ALIGNMENT
            self.size += values.nbytes

    def chunks(self) -> Iterator[bytes]:
        at = 0
        for name, values in self.weights.items():
            yield bytes(self.offsets[name] - at)
            yield _bytes_of(values)
            at = self.offsets[name] + values.nbytes


# --- protobuf, written piece by piece -------------------------------------------------------------

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers in onnx.proto


class _Encoding:
    """The bytes of ``parts.whole()``, without ever holding the weights twice; `length` of them are
    the graph's."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.graph: bytes = parts.light.graph.SerializeToString(deterministic=True)
        self.headers = [_tensor_header(name, values) for name, values in parts.weights.items()]
        sizes = [
            len(h) + values.nbytes
            for h, values in zip(self.headers, parts.weights.values(), strict=True)
        ]
        self.fields = [_field(_INITIALIZER, size) for size in sizes]
        self.length = len(self.graph) + sum(sizes) + sum(map(len, self.fields))

    def chunks(self) -> Iterator[bytes]:
        head = onnx.ModelProto()
        head.CopyFrom(self.parts.light)
        head.ClearField("graph")
        yield head.SerializeToString(deterministic=True)
        yield _field(_GRAPH, self.length)
        yield self.graph
        for field, header, values in zip(
            self.fields, self.headers, self.parts.weights.values(), strict=True
        ):
            yield field
            yield header
            yield _bytes_of(values)


def _tensor_header(name: str, values: NDArray[np.generic]) -> bytes:
    """A TensorProto up to where its bytes begin."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=values.shape)
    header: bytes = tensor.SerializeToString(deterministic=True)
    return header + _field(_RAW_DATA, values.nbytes)


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited protobuf field."""
    encoded = bytearray([number << 3 | 2])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)
