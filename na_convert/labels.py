"""Class numbers from a file of their own (``--labels``).

``.npy``: one integer per sample. ``.json``: a list of them, or an object from names to numbers.
Anything else is text: a number per line, or ``NAME NUMBER`` (a space, tab or comma between), where
NAME is an image's file or class folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .array_files import Array, read_npy
from .errors import DataError


def read_labels(path: Path) -> Array | dict[str, int]:
    """Numbers in the order of the samples, or by name; raises DataError for anything else."""
    if path.suffix.lower() == ".npy":
        return np.array(read_npy(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable file of labels") from error
    return _json(path, text) if path.suffix.lower() == ".json" else _text(path, text)


def _json(path: Path, text: str) -> Array | dict[str, int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    values = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise DataError(f"{path}: neither a list of class numbers nor an object of them")
    _require_small(path, values)
    return found if isinstance(found, dict) else np.asarray(values, np.int64)


def _require_small(path: Path, values: Iterable[int]) -> None:
    if any(abs(value) >= 2**63 for value in values):
        raise DataError(f"{path}: a class number of more than 63 bits")


def _text(path: Path, text: str) -> Array | dict[str, int]:
    lines = [(index, line.strip()) for index, line in enumerate(text.splitlines(), 1)]
    lines = [(index, line) for index, line in lines if line]
    named: dict[str, int] = {}
    numbers: list[int] = []
    for index, line in lines:
        parts = re.fullmatch(r"(?:(.*?)[\s,]+)?(\d{1,18})", line)
        if parts is None:
            raise DataError(
                f"{path}: line {index} ends in no class number: {line[:40]!r}",
                remedy="one number per line, or NAME NUMBER",
            )
        if parts[1]:
            named[parts[1]] = int(parts[2])
        else:
            numbers.append(int(parts[2]))
    if named and numbers:
        raise DataError(f"{path}: some lines have a name before the number and some have none")
    return named or np.asarray(numbers, np.int64)
