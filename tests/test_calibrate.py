from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes import calibrate
from na_convert.passes.calibrate import Calibration

from na_convert.activation import read_activation
from tests.build import PLAIN, graph, images

BODY = """
z = Conv <pads = [1,1,1,1]> (x, w)
a = na_convert.Ramp <kind: string = "relu"> (z, zero, inf, zero, one)
f = Flatten (a)
y = Gemm (f, v)
"""
WEIGHTS = {**PLAIN, "w": (4, 3, 3, 3), "v": (256, 5), "inf": np.inf, "one": 1.0}


def bound(how: Calibration, count: int = 50, **weights: object) -> tuple[np.ndarray, np.ndarray]:
    """The calibrated bound, and the ReLU's input on the data it was calibrated on."""
    g, carried = graph(BODY, {**WEIGHTS, **weights})
    feeds = {"x": images(count)}
    z = next(calibrate._observe(g, carried, {"x": images(count)[:32]}, ["z"]))["z"]
    rest = next(calibrate._observe(g, carried, {"x": images(count)[32:]}, ["z"]))["z"]
    report = calibrate.run(g, carried, feeds, how)
    assert report.changed == 1
    ramp = next(n for n in g.nodes if n.op == "Ramp")
    return read_activation(ramp).high, np.concatenate([z, rest])


def test_maximum_per_layer() -> None:
    high, z = bound(Calibration())
    assert high == pytest.approx(z.max(), rel=1e-6)


def test_maximum_per_channel() -> None:
    high, z = bound(Calibration(per_channel=True))
    assert high.shape == (4, 1, 1)
    np.testing.assert_allclose(high.ravel(), z.max((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
def test_percentile_of_all_outputs(per_channel: bool) -> None:
    high, z = bound(Calibration(99.0, per_channel))
    outputs = np.maximum(z, 0)
    if per_channel:
        expected = np.percentile(np.moveaxis(outputs, 1, 0).reshape(4, -1), 99, axis=1)
    else:
        expected = np.percentile(outputs, 99)
    np.testing.assert_allclose(high.ravel(), expected, rtol=5e-3)


def test_a_relu_that_never_fires_is_refused() -> None:
    g, carried = graph(BODY, {**WEIGHTS, "w": np.zeros((4, 3, 3, 3), np.float32)})
    report = calibrate.run(g, carried, {"x": images()}, Calibration())
    assert report.changed == 0
    assert "never rises" in report.refused[0].reason


def test_known_thresholds_are_left_alone() -> None:
    g, carried = graph(BODY, {**WEIGHTS, "inf": 6.0})
    report = calibrate.run(g, carried, {"x": images()}, Calibration())
    assert report.changed == 0
    assert float(read_activation(g.nodes[1]).high) == 6.0
