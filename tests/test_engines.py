"""The charge balances where onnxruntime rounds a membrane at the threshold the other way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx

import na_convert
from na_convert.engines import _Watched

from . import build

EPS = float(np.finfo(np.float16).eps)


def watched(current: float, fires: bool) -> float:
    """Charge error after one step of a neuron with threshold 1 and membrane 1/2."""
    fired = SimpleNamespace(threshold=np.float16(1), initial=0.5)
    z = np.full((1, 1), current, np.float16)
    layer = _Watched(SimpleNamespace(fired=fired), z)  # type: ignore[arg-type]
    layer.step(z.astype(np.float64), z, np.full((1, 1), float(fires), np.float16))
    return layer.result(1).charge_error


def test_at_a_tie_onnxruntime_decides_who_fires() -> None:
    assert watched(0.5, fires=True) < EPS
    assert watched(0.5, fires=False) < EPS
    assert watched(0.5 - EPS, fires=True) < EPS


def test_away_from_the_threshold_a_wrong_spike_unbalances_the_charge() -> None:
    assert watched(0.25, fires=True) > 0.99
    assert watched(0.9, fires=False) > 0.99


def test_a_step_for_each_of_very_many_features(tmp_path: Path) -> None:
    """They stay outside the neurons, which have one threshold: to measure a staircase for each
    takes minutes. Their products are rounded to a grid, by the file and in numpy alike: a current
    is half way between two points of it now and then."""
    count = 20_000
    body = (
        "z = MatMul (x, w)\nr = Div (z, s)\nk = Round (r)\nc = Clip (k, zero, top)\n"
        "a = Mul (c, s)\ny = MatMul (a, v)\n"
    )
    weights = {"w": (4, count), "v": (count, 5), "zero": 0.0, "top": 3.0}
    steps = np.linspace(0.1, 0.5, count, dtype=np.float32)
    path = tmp_path / "model.onnx"
    onnx.save(build.model(body, {**weights, "s": steps}, inputs="float[N,4] x"), path)
    result = na_convert.convert(path)
    assert [(n.levels, n.threshold) for n in result.neurons] == [(3, 3.0)]
    assert result.exactness is not None
    assert result.exactness.exact
    assert result.equivalence is not None
    (currents,) = [f for f in result.equivalence.figures if f.name == "engine currents"]
    assert currents.value == 0


def test_an_average_over_very_many_pixels(tmp_path: Path) -> None:
    """onnxruntime adds them one after the other, and each addition rounds. The input is so large
    that there are fewer random samples of it, and two at least."""
    body = (
        "z = Conv (x, w)\n" + build.quantised("z", "a") + "m = GlobalAveragePool (a)\n"
        "f = Flatten (m)\ny = MatMul (f, v)\n"
    )
    v = np.asarray([[1.0, -2.0]], np.float32)
    weights = {"w": np.full((1, 1, 1), 1.7, np.float32), "v": v, **build.PLAIN}
    path = tmp_path / "model.onnx"
    onnx.save(build.model(body, weights, inputs=f"float[N,1,{1 << 20}] x"), path)
    result = na_convert.convert(path)
    assert result.equivalence is not None
    assert result.equivalence.samples == 4
    (outputs,) = [f for f in result.equivalence.figures if f.name == "engine outputs"]
    assert outputs.value < outputs.limit == 2.0**-3 * 2**-23 * 2**20
