"""Reading and writing models: external data, hashes, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner

from . import neurons
from .errors import ModelError, UsageError


@dataclass(frozen=True)
class Loaded:
    """A model read from `path`: weights inside, foreign local functions inlined."""

    model: onnx.ModelProto
    path: Path
    sha256: str
    bytes: int


def load(path: Path) -> Loaded:
    """Read an ONNX model with its external data, and inline local functions that are not ours.

    Raises ModelError with one line if the file is missing, unreadable or not a valid model.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file", remedy="give the path of an ONNX model")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ModelError(f"{path}: not a readable ONNX model ({_first_line(error)})") from error
    if not model.graph.node:
        raise ModelError(f"{path}: the model has no nodes")
    foreign = [(f.domain, f.name) for f in model.functions if f.domain != neurons.DOMAIN]
    if foreign:
        model = onnx.inliner.inline_selected_functions(model, foreign)
    return Loaded(model, path, digest, path.stat().st_size)


def save(model: onnx.ModelProto, path: Path) -> tuple[int, str]:
    """Write ``model`` to ``path`` at once (temporary file, then rename); returns bytes and sha256.

    Raises UsageError where the folder is missing or cannot be written.
    """
    data = model.SerializeToString(deterministic=True)
    write_atomically(path, data)
    return len(data), hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` as a whole file, or leave what was there.

    Raises UsageError where the folder is missing or cannot be written.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder", remedy="create it, or choose another -o")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".na-convert-", dir=path.parent))
    except OSError as error:
        raise UsageError(f"{path}: cannot write ({error.strerror})") from error
    try:
        part = folder / path.name
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
