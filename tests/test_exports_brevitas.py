"""`pytest -m exports` where Brevitas is installed (brevitas.txt): both of its exports convert."""

from __future__ import annotations

from pathlib import Path

import pytest

for package in ("brevitas", "onnxoptimizer"):
    pytest.importorskip(package, reason=f"{package} is not installed: brevitas.txt")

from .exports.brevitas_networks import EXPORTS, NETWORKS, make  # noqa: E402
from .exports.verdict import assert_converts  # noqa: E402

pytestmark = [pytest.mark.exports, pytest.mark.filterwarnings("ignore")]
MISSING = ("quantised_input", "qcdq", "dynamo")  # Brevitas has no such export of quantised biases
CASES = [
    (name, export, exporter)
    for name in NETWORKS
    for export in EXPORTS
    for exporter in ("legacy", "dynamo")
    if (name, export, exporter) != MISSING
]


@pytest.mark.parametrize(("name", "export", "exporter"), CASES)
def test_they_convert(name: str, export: str, exporter: str, tmp_path: Path) -> None:
    made = make(name, export, tmp_path, dynamo=exporter == "dynamo")
    assert_converts(made.path, tmp_path, made.shapes, made.activations)
