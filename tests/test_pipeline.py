from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.errors import ModelError, NotConvertible, UsageError
from na_convert.results import Result
from tests.build import model

BODY = """
z = Conv <pads = [1,1,1,1]> (x, w)
d = Div (z, step)
s = Add (d, half)
r = Floor (s)
c = Clip (r, zero, three)
a = Mul (c, step)
f = Flatten (a)
y = Gemm (f, v)
"""
WEIGHTS = {
    "w": (4, 3, 3, 3), "v": (256, 5), "step": 0.4, "half": 0.5, "zero": 0.0, "three": 3.0,
}  # fmt: skip


def write(folder: Path, body: str = BODY, **weights: object) -> Path:
    path = folder / "model.onnx"
    onnx.save(model(body, {**WEIGHTS, **weights}), path)
    return path


def test_a_small_network_end_to_end(tmp_path: Path) -> None:
    result: Result = na_convert.convert(write(tmp_path))
    assert result.passed
    assert result.timesteps == 3
    assert [n.levels for n in result.neurons] == [3]
    assert result.output is not None
    assert Path(result.output.path).name == "model.snn.onnx"


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    weights = np.full((4, 3, 3, 3), np.nan, np.float32)
    with pytest.raises(ModelError, match="'w' holds NaN"):
        na_convert.convert(write(tmp_path, w=weights))
    assert not (tmp_path / "model.snn.onnx").exists()


def test_no_activation_at_all(tmp_path: Path) -> None:
    body = "z = Conv <pads = [1,1,1,1]> (x, w)\nf = Flatten (z)\ny = Gemm (f, v)"
    with pytest.raises(NotConvertible, match="no quantised or clipped activation"):
        na_convert.convert(write(tmp_path, body))


def test_every_offending_node_is_named_at_once(tmp_path: Path) -> None:
    body = """
    z = Conv <pads = [1,1,1,1]> (x, w)
    a = Gelu (z)
    z2 = Conv <pads = [1,1,1,1]> (a, w2)
    b = Elu (z2)
    f = Flatten (b)
    y = Gemm (f, v)
    """
    path = tmp_path / "model.onnx"
    onnx.save(model(body, {**WEIGHTS, "w2": (4, 4, 3, 3)}, opset=20), path)
    with pytest.raises(NotConvertible) as caught:
        na_convert.convert(path)
    assert [r.op for r in caught.value.refused] == ["Gelu", "Elu"]
    assert all(r.reason and r.remedy for r in caught.value.refused)


def test_unknown_readout_node(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        na_convert.convert(write(tmp_path), readout_from="nowhere")


@pytest.mark.parametrize("asked", [0, -3])
def test_no_time_steps(tmp_path: Path, asked: int) -> None:
    with pytest.raises(UsageError, match="at least one time step"):
        na_convert.convert(write(tmp_path), timesteps=asked)


def test_more_than_sixteen_levels_are_capped_with_a_word(tmp_path: Path) -> None:
    result = na_convert.convert(write(tmp_path, step=0.01, three=255.0))
    assert result.timesteps == 16
    assert any("capped at 16" in note for note in result.notes)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path)
    first, second = (
        na_convert.convert(path, output=tmp_path / f"{i}.onnx").output for i in range(2)
    )
    assert first is not None
    assert second is not None
    assert first.sha256 == second.sha256


def test_operators_of_an_optimised_file_are_refused_with_a_way_out(tmp_path: Path) -> None:
    proto = model("z = Conv <pads = [1,1,1,1]> (x, w)\n y = Flatten (z)", {"w": (4, 3, 3, 3)})
    proto.graph.node[0].domain = "com.microsoft.nchwc"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft.nchwc", 1))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    with pytest.raises(NotConvertible) as caught:
        na_convert.convert(path)
    assert "ORT_ENABLE_EXTENDED" in caught.value.refused[0].remedy


def test_half_precision_inside_a_float32_network(tmp_path: Path) -> None:
    """What onnxconverter_common and onnxruntime write with ``keep_io_types``."""
    body = """
    h = Cast <to = 10> (x)
    z = Conv <pads = [1,1,1,1]> (h, w)
    c = Clip (z, zero, top)
    a = Round (c)
    z2 = Conv <pads = [1,1,1,1]> (a, w2)
    c2 = Clip (z2, zero, top)
    b = Round (c2)
    f = Flatten (b)
    g = Gemm (f, v)
    y = Cast <to = 1> (g)
    """
    shapes = {"w": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "v": (256, 5)}
    rng = np.random.default_rng(0)
    weights = {k: (rng.standard_normal(s) / 3).astype(np.float16) for k, s in shapes.items()}
    weights |= {"zero": np.float16(0), "top": np.float16(3)}
    path = tmp_path / "model.onnx"
    onnx.save(model(body, {k: np.asarray(v) for k, v in weights.items()}), path)
    assert len(na_convert.convert(path).neurons) == 2
