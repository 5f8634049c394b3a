"""An input quantiser, and pixels on the edges of its levels, where float error decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import na_convert
from na_convert.errors import CheckFailed

from . import build
from .build import quantised

STEP = np.float32(0.03576180338859558)
BODY = (
    "q = QuantizeLinear (x, s, z)\nd = DequantizeLinear (q, s, z)\n"
    "z1 = Conv <pads = [1,1,1,1]> (d, w1)\n" + quantised("z1", "a1")
    + "z2 = Conv (a1, w2)\n" + quantised("z2", "a2") + "f = Flatten (a2)\ny = Gemm (f, v)\n"
)  # fmt: skip
WEIGHTS = {
    "s": STEP, "z": np.asarray(128, np.uint8),
    "w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "v": (600, 5), **build.PLAIN,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(build.model(BODY, WEIGHTS, inputs="float[N,3,12,12] x"), path)
    return path


def on_edges() -> np.ndarray:
    """Every pixel half a step above a level, up to half a unit in the last place."""
    levels = np.random.default_rng(0).integers(-60, 60, (32, 3, 12, 12))
    return ((levels + 0.5) * np.float64(STEP)).astype(np.float32)


@pytest.mark.parametrize("exact", [True, False])
def test_pixels_on_an_edge_are_no_fault_of_what_is_behind(model: Path, exact: bool) -> None:
    """ANN, numpy and the file may each see another level there; each layer behind is compared
    under the same."""
    result = na_convert.convert(model, data={"x": on_edges()}, exact=exact)
    assert result.passed
    assert result.equivalence is not None
    figures = {figure.name: figure for figure in result.equivalence.figures}
    assert figures["replay currents"].limit < 1e-2
    assert "ties left out" in figures["round trip"].detail


def test_a_wrong_layer_behind_it_is_caught(model: Path, tmp_path: Path) -> None:
    """What a rounded pixel does to a current is not what the layer itself may be off by."""
    written = na_convert.convert(model, data={"x": on_edges()}, exact=False).output
    assert written is not None
    snn = onnx.load(written.path)
    (weight,) = [i for i in snn.graph.initializer if list(i.dims) == [6, 3, 3, 3]]
    changed = numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(snn, tmp_path / "wrong.onnx")
    with pytest.raises(CheckFailed, match=r"replay.*Mul"):
        na_convert.check(model, tmp_path / "wrong.onnx", data={"x": on_edges()})


def test_another_step_of_the_quantiser_is_caught(model: Path, tmp_path: Path) -> None:
    weights = {**WEIGHTS, "s": STEP * np.float32(1.001)}
    other = build.model(BODY, weights, inputs="float[N,3,12,12] x")
    onnx.save(other, tmp_path / "other.onnx")
    written = na_convert.convert(tmp_path / "other.onnx").output
    assert written is not None
    with pytest.raises(CheckFailed):
        na_convert.check(model, written.path, data={"x": build.images(8, (3, 12, 12))})
