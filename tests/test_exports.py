"""Committed exports of structures that the corpus lacks convert; `exports/make.py` makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .exports.verdict import assert_converts

COMMITTED = Path(__file__).parent / "exports" / "committed"
EXPECTED = json.loads((COMMITTED / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_committed_exports_convert(name: str, tmp_path: Path) -> None:
    assert_converts(COMMITTED / name, tmp_path, **EXPECTED[name])


def test_the_committed_set_is_small() -> None:
    files = list(COMMITTED.glob("*.onnx"))
    assert {file.name for file in files} == set(EXPECTED)
    assert sum(file.stat().st_size for file in files) < 100_000
