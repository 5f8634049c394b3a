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


ROWS = """
z = Identity (x)
a = na_convert.Ramp <kind: string = "relu"> (z, zero, inf, zero, one)
b = Neg (z)
c = na_convert.Ramp <kind: string = "relu"> (b, zero, inf, zero, one)
y = Add (a, c)
"""
BIN = 1 / 16384


def row_bounds(x: np.ndarray, how: Calibration) -> list[np.ndarray]:
    """Of a ReLU of x, and one of -x."""
    dims = ",".join(str(n) for n in x.shape[1:])
    shape = f"N,{dims}" if dims else "N"
    net, carried = graph(
        ROWS, {"zero": 0.0, "inf": np.inf, "one": 1.0},
        inputs=f"float[{shape}] x", outputs=f"float[{shape}] y",
    )  # fmt: skip
    assert calibrate.run(net, carried, {"x": x}, how) == calibrate.PassReport("calibrate", 2)
    assert len({t.name for t in net.tensors().values()}) == len(net.tensors())
    return [np.asarray(read_activation(n).high) for n in net.nodes if n.op == "Ramp"]


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.9])
def test_a_percentile_is_the_smallest_bin_that_holds_that_share(percentile: float) -> None:
    x = np.random.default_rng(0).permutation(np.arange(-1000, 1001, dtype=np.float32))
    rises, falls = row_bounds(x[:, None], Calibration(percentile))
    share = np.sort(np.clip(x, 0, 1000))[int(np.ceil(2001 * percentile / 100)) - 1]
    for high in (rises, falls):
        assert share - 1e-3 <= high <= share + 1000 * BIN + 1e-3


def test_half_that_is_zero_is_the_lowest_bin() -> None:
    x = np.concatenate([np.zeros(60), np.full(40, 5.0)]).astype(np.float32)[:, None]
    net, carried = graph(
        "z = Identity (x)\n a = na_convert.Ramp <kind: string = \"relu\"> (z, zero, inf, zero, one)"
        "\n y = Neg (a)", {"zero": 0.0, "inf": np.inf, "one": 1.0},
        inputs="float[N,1] x", outputs="float[N,1] y",
    )  # fmt: skip
    calibrate.run(net, carried, {"x": x}, Calibration(50.0))
    assert read_activation(net.nodes[1]).high == pytest.approx(5 * BIN)


@pytest.mark.parametrize("percentile", [100.0, 90.0])
def test_each_column_of_rows_is_a_channel(percentile: float) -> None:
    x = np.stack([k * np.linspace(-1, 1, 101) for k in (1, 3, 10)], 1).astype(np.float32)
    for high in row_bounds(x, Calibration(percentile, per_channel=True)):
        assert high.shape == (3,)
        np.testing.assert_allclose(
            high, (percentile / 100 * 2 - 1) * np.array([1, 3, 10]), atol=0.2
        )


@pytest.mark.parametrize("percentile", [100.0, 90.0])
def test_numbers_without_channels_have_one_bound(percentile: float) -> None:
    x = np.linspace(-1, 1, 101).astype(np.float32)
    for high in row_bounds(x, Calibration(percentile, per_channel=True)):
        assert high.shape == ()
        assert high == pytest.approx(percentile / 100 * 2 - 1, abs=0.02)


def test_one_that_never_fires_beside_one_that_does() -> None:
    x = np.linspace(0.1, 1, 40, dtype=np.float32)[:, None]
    net, carried = graph(
        ROWS, {"zero": 0.0, "inf": np.inf, "one": 1.0},
        inputs="float[N,1] x", outputs="float[N,1] y",
    )  # fmt: skip
    report = calibrate.run(net, carried, {"x": x}, Calibration())
    first, second = (n for n in net.nodes if n.op == "Ramp")
    assert report.changed == 1
    assert [r.node for r in report.refused] == [second.name]
    assert read_activation(first).high == pytest.approx(1.0)
    assert np.isinf(read_activation(second).high)
