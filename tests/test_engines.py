"""The charge balances where onnxruntime rounds a membrane at the threshold the other way."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from na_convert.engines import _Watched

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
