"""The installed torch and onnxruntime make exports, and each converts.

`pytest -m exports` takes every structure and quantiser through every exporter; by default a few
go through each. (`tests/test_exports.py` has exports that are stored.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from na_convert.models import Quantizer  # noqa: E402

from .exports import quantisers  # noqa: E402
from .exports.make import EXPORTERS, make  # noqa: E402
from .exports.networks import STRUCTURES  # noqa: E402
from .exports.ort import quantised  # noqa: E402
from .exports.verdict import assert_converts, converted  # noqa: E402

ALWAYS = 8  # the structures, and the quantisers, that are exported in every run

ACTIVATIONS: dict[str, tuple[str, Callable[[], torch.nn.Module]]] = {
    "models_quantizer": ("bottleneck", lambda: Quantizer(2, noise=0.0)),
    "qcfs": ("bottleneck", quantisers.QCFS),
    "lsq": ("bottleneck", quantisers.LSQ),
    "pact_clamp": ("bottleneck", quantisers.PactClamp),
    "pact_abs": ("bottleneck", quantisers.PactAbs),
    "pact_where": ("bottleneck", quantisers.PactWhere),
    "dorefa": ("bottleneck", quantisers.DoReFa),
    "fake_quantize": ("mlp", quantisers.FakeQuantize),
    "fake_quantize_per_channel": ("shared", quantisers.FakeQuantizePerChannel),
}


def _quantiser_cases() -> list[object]:
    """Every quantiser through every exporter; torch 2.13 itself fails to export two of them."""
    no_kernel = pytest.mark.xfail(
        strict=True,
        raises=torch.onnx.OnnxExporterError,
        reason="torch.export: fake_quantize has no Meta kernel, which a dynamic batch needs",
    )
    return [
        pytest.param(
            name, exporter, id=f"{name}-{exporter}",
            marks=_unless_in_turn(index, exporter)
            + [no_kernel] * (name.startswith("fake") and exporter == "dynamo_dyn"),
        )
        for index, name in enumerate(ACTIVATIONS)
        for exporter in EXPORTERS
    ]  # fmt: skip


def _unless_in_turn(index: int, exporter: str) -> list[pytest.MarkDecorator]:
    mine = index < ALWAYS and exporter == EXPORTERS[index % len(EXPORTERS)]
    return [] if mine else [pytest.mark.exports]


def _structure_cases() -> list[object]:
    uneven = pytest.mark.xfail(
        strict=True,
        raises=torch.onnx.errors.SymbolicValueError,
        reason="the legacy exporter has no pooling to sizes that do not divide the image's",
    )
    return [
        pytest.param(
            name, exporter, id=f"{name}-{exporter}",
            marks=_unless_in_turn(index, exporter)
            + [uneven] * ((name, exporter[:6]) == ("adaptive_pool", "legacy")),
        )
        for index, name in enumerate(STRUCTURES)
        for exporter in EXPORTERS
    ]  # fmt: skip


def test_whose_turn_it_is_can_export() -> None:
    """A case that only shows what torch cannot export would leave its network untried."""
    for case in (*_structure_cases(), *_quantiser_cases()):
        marks = {mark.name for mark in case.marks}  # type: ignore[attr-defined]
        assert "exports" in marks or "xfail" not in marks


@pytest.mark.parametrize(("structure", "exporter"), _structure_cases())
def test_structures_convert(structure: str, exporter: str, tmp_path: Path) -> None:
    made = make(structure, quantisers.LSQ, exporter, tmp_path)
    assert_converts(made.path, tmp_path, made.shapes, made.activations)


@pytest.mark.parametrize(("name", "exporter"), _quantiser_cases())
def test_quantisers_convert(name: str, exporter: str, tmp_path: Path) -> None:
    structure, act = ACTIVATIONS[name]
    made = make(structure, act, exporter, tmp_path)
    assert_converts(made.path, tmp_path, made.shapes, made.activations)


@pytest.mark.parametrize("kind", ["u8", "s8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_onnxruntime_quantised_exports_convert(form: str, kind: str, tmp_path: Path) -> None:
    path = quantised("depthwise", form, kind, tmp_path)
    neurons = converted(path, tmp_path, [(1, 3, 8, 8)]).neurons
    staircases = [n for n in neurons if n.kind == "staircase"]
    assert len(staircases) >= 3
    assert {n.levels for n in staircases} <= {127, 255}
    scales = _scalars(path)
    for neuron in staircases:
        assert np.isclose(scales, neuron.output_step, rtol=1e-6, atol=0).any()


def _scalars(path: Path) -> list[float]:
    values = [onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer]
    return [value.item() for value in values if value.size == 1 and value.dtype == np.float32]
