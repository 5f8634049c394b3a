from __future__ import annotations

import numpy as np
import pytest

from na_convert import qonnx
from na_convert.errors import NotConvertible

HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.3, -0.3])
ROUNDED = {
    "ROUND": [-2, -2, 0, 0, 2, 2, 0, 0],
    "half_even": [-2, -2, 0, 0, 2, 2, 0, 0],
    "CEIL": [-2, -1, 0, 1, 2, 3, 1, 0],
    "floor": [-3, -2, -1, 0, 1, 2, 0, -1],
    "ROUND_TO_ZERO": [-2, -1, 0, 0, 1, 2, 0, 0],
    "DOWN": [-2, -1, 0, 0, 1, 2, 0, 0],
    "UP": [-3, -2, -1, 1, 2, 3, 1, -1],
    "HALF_UP": [-3, -2, -1, 1, 2, 3, 0, 0],
    "Half_Down": [-2, -1, 0, 0, 1, 2, 0, 0],
}


@pytest.mark.parametrize("mode", ROUNDED)
def test_rounding_modes_in_any_case(mode: str) -> None:
    np.testing.assert_array_equal(qonnx.rounding(mode)(HALVES), ROUNDED[mode])


def test_unknown_rounding_mode() -> None:
    with pytest.raises(NotConvertible, match="unknown rounding mode 'STOCHASTIC'"):
        qonnx.rounding("STOCHASTIC")


def quant(x: list[float], scale: float, zero: float, bits: float, **attrs: object) -> list[float]:
    inputs = [np.asarray(v, np.float32) for v in (x, scale, zero, bits)]
    return qonnx.evaluate("Quant", inputs, attrs).tolist()


def test_unsigned_and_narrow() -> None:
    x = [-1.0, 0.3, 0.8, 9.0]
    assert quant(x, 0.5, 0, 2, signed=0, narrow=0) == [0, 0.5, 1, 1.5]
    assert quant(x, 0.5, 0, 2, signed=0, narrow=1) == [0, 0.5, 1, 1]


def test_signed_and_narrow() -> None:
    assert quant([-9.0, 9.0], 1, 0, 3, signed=1, narrow=0) == [-4, 3]
    assert quant([-9.0, 9.0], 1, 0, 3, signed=1, narrow=1) == [-3, 3]


def test_zero_point() -> None:
    assert quant([-9.0, 0.0, 9.0], 1, 1, 2, signed=0, narrow=0) == [-1, 0, 2]


def test_one_signed_bit_is_bipolar() -> None:
    assert quant([-0.1, 0.0, 2.0], 0.5, 0, 1, signed=1, narrow=1) == [-0.5, 0.5, 0.5]


def test_bipolar_quant() -> None:
    inputs = [np.array([-0.1, 0.0, 3.0], np.float32), np.float32(0.25)[...]]
    assert qonnx.evaluate("BipolarQuant", inputs, {}).tolist() == [-0.25, 0.25, 0.25]


def test_trunc_with_output_scale() -> None:
    inputs = [np.array([0.0, 0.9, 3.1, 9.0], np.float32)]
    inputs += [np.asarray(v, np.float32) for v in (0.25, 0, 6, 1, 2)]
    found = qonnx.evaluate("Trunc", inputs, {"rounding_mode": "FLOOR", "signed": 0})
    assert found.tolist() == [0, 1, 3, 3]  # 0.9 is level 4 of 0.25


def test_trunc_of_version_1() -> None:
    inputs = [np.array([0.0, 7.0, 15.0], np.float32)]
    inputs += [np.asarray(v, np.float32) for v in (1, 0, 4, 2)]
    assert qonnx.evaluate("Trunc", inputs, {}).tolist() == [0, 1, 3]


def test_trunc_with_too_few_inputs() -> None:
    with pytest.raises(NotConvertible, match="4 inputs"):
        qonnx.evaluate("Trunc", [np.ones(1)] * 4, {})


def test_domains() -> None:
    assert all(qonnx.is_qonnx(domain, "IntQuant") for domain in qonnx.DOMAINS)
    assert not qonnx.is_qonnx("", "Quant")
