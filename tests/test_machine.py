"""More than the machine's memory is refused before it is read; where nobody knows how much that
is, nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from na_convert import array_files, model_io
from na_convert.errors import DataError, ModelError

from . import build

KIB = {"SC_PAGE_SIZE": 64, "SC_PHYS_PAGES": 16}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model with external data, and an archive; each of more than a KiB."""
    model, archive = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(build.low_bit_ann(), model, save_as_external_data=True, size_threshold=0)
    np.savez(archive, x=build.images(4))
    return model, archive


def test_more_than_the_memory(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, archive = files
    monkeypatch.setattr(os, "sysconf", KIB.__getitem__)
    with pytest.raises(ModelError, match=r"m\.onnx: weights of 0\.0 GiB, and this machine has 0"):
        model_io.load(model)
    with pytest.raises(DataError, match=r"x\.npz: holds 0\.0 GiB, and this machine has 0\.0 GiB"):
        array_files.read_npz(archive)


def unknown_name(name: str) -> int:
    raise ValueError("unrecognized configuration name")


def undetermined(name: str) -> int:
    return -1


@pytest.mark.parametrize("sysconf", [None, unknown_name, undetermined])
def test_a_system_that_does_not_tell(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    sysconf: Callable[[str], int] | None,
) -> None:
    if sysconf is None:
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", sysconf)
    assert len(model_io.load(files[0]).model.graph.node) > 0
    assert set(array_files.read_npz(files[1])) == {"x"}
