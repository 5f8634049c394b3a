"""The neuron: its equations against the closed forms, and its ONNX functions against numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from na_convert import kernels, neurons
from na_convert.activation import Ramp, Staircase
from na_convert.neurons import IFState
from na_convert.runtime import run
from na_convert.simulation import layers_with_state

from . import build

settings.register_profile("na_convert", deadline=None)  # no test depends on durations
settings.load_profile("na_convert")

# Sixty-fourths, so that every sum and product is exact in float64 and ties really are ties.
steps = st.integers(1, 400).map(lambda n: n / 64)
currents = st.lists(st.integers(-20_000, 20_000).map(lambda n: n / 64), min_size=1, max_size=20)
levels = st.integers(1, 255)


@given(steps, currents, levels)
def test_constant_current_fires_the_level_exactly(
    step: float, current: list[float], p: int
) -> None:
    z = np.array(current)
    counts = neurons.spike_counts(z, np.asarray(p * step), p)
    np.testing.assert_array_equal(counts, np.clip(np.floor(z / step + 0.5), 0, p))


@given(steps, currents, levels, st.integers(1, 40))
def test_even_counts_is_the_closed_form_at_any_time(
    step: float, current: list[float], p: int, timesteps: int
) -> None:
    z, theta = np.array(current), np.asarray(p * step)
    counts = neurons.spike_counts(z, theta, timesteps)
    np.testing.assert_array_equal(counts, neurons.even_counts(z, theta, timesteps))


@given(steps, st.lists(currents, min_size=1, max_size=12))
def test_the_cumulative_form_equals_the_membrane_form(
    theta: float, per_step: list[list[float]]
) -> None:
    width = min(len(z) for z in per_step)
    state: IFState | None = None
    count, total = np.zeros(width, np.int64), np.zeros(width)
    fired = np.zeros(width, np.int64)
    for each in per_step:
        z = np.array(each[:width])
        state = state or IFState.start(z, np.asarray(theta), np.ones(()))
        fired += state.step(z).astype(np.int64)
        total += z
        count = neurons.next_count(total, np.asarray(theta), count)
        np.testing.assert_array_equal(fired, count)


@given(
    d=steps,
    falling=st.booleans(),
    s=steps,
    lo=st.integers(-8, 8),
    phi=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    p=st.integers(1, 31),
    x=currents,
)
def test_general_staircase_is_its_neuron(
    d: float, falling: bool, s: float, lo: int, phi: float, p: int, x: list[float]
) -> None:
    values = [np.asarray(v, float) for v in (-d if falling else d, s, lo, phi)]
    stair = Staircase(*values, p, "half_up")
    neuron = stair.neuron()
    points = np.array(x)
    # x / d is not exact: leave out what lies within its rounding of an edge
    points = points[stair.distance_to_edge(points) > 1e-9]
    z = neuron.current_gain * points + neuron.current_offset
    mean = neurons.spike_counts(z, neuron.threshold, p) / p
    np.testing.assert_allclose(
        neuron.amplitude * mean + neuron.output_offset, stair(points), rtol=1e-12, atol=1e-9
    )


@pytest.mark.parametrize("phi", [0.0, 0.5, 1.0])
def test_phases_are_floor_round_and_ceil(phi: float) -> None:
    one, zero = np.ones(()), np.zeros(())
    x = np.array([-0.4, 0.3, 0.6, 1.2, 2.7, 9.0])
    expected = {0.0: np.floor, 0.5: np.round, 1.0: np.ceil}[phi](x).clip(0, 3)
    np.testing.assert_array_equal(Staircase(one, one, zero, np.asarray(phi), 3, "")(x), expected)


def test_a_staircase_per_channel() -> None:
    d = np.array([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    zero, half = np.zeros(()), np.full((), 0.5)
    stair = Staircase(d, d, zero, half, 3, "half_up")
    x = build.images(4).astype(np.float64)
    neuron = stair.neuron()
    counts = neurons.spike_counts(x * neuron.current_gain, neuron.threshold, 3)
    np.testing.assert_array_equal(counts, stair.level(x))


def test_a_ramp_is_reached_as_time_grows() -> None:
    ramp = Ramp(*(np.asarray(v, float) for v in (-1.0, 2.0, 0.5, 0.25)))
    neuron = ramp.neuron()
    x = np.linspace(-3, 4, 57)
    for timesteps in (4, 64):
        z = x * neuron.current_gain + neuron.current_offset
        mean = neurons.spike_counts(z, neuron.threshold, timesteps) / timesteps
        y = neuron.amplitude * mean + neuron.output_offset
        assert np.abs(y - ramp(x)).max() <= neuron.amplitude / (2 * timesteps) + 1e-12


def test_a_relu_has_no_neuron_before_calibration() -> None:
    zero, one = np.zeros(()), np.ones(())
    with pytest.raises(ValueError, match="calibrated"):
        Ramp(zero, np.asarray(np.inf), zero, one).neuron()


# --- the ONNX functions: batch 2, T 3 -------------------------------------------------------------

T = np.asarray(3, np.int64)
OPSETS = (17, 21, 23)


def both_engines(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """onnxruntime's result; onnx.reference must agree to the bit."""
    onnx.checker.check_model(model, full_check=True)
    (y,) = run(model, feeds).values()
    (reference,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_array_equal(y, reference)
    return y


def timed(body: str, opset: int, outputs: str = "float[M,C,H,W] y", kind: str = "float"):
    inputs = f"{kind}[K,C,H,W] x, int64 timesteps"
    return build.model(body, inputs=inputs, outputs=outputs, opset=opset)


def spikes(current: np.ndarray, threshold, amplitude, initial: float = 0.5) -> np.ndarray:
    """[T, N, ...] in and out, by the numpy reference."""
    state = IFState.start(current[0], threshold, amplitude, initial)
    return np.stack([state.step(z) for z in current])


@pytest.mark.parametrize("opset", OPSETS)
def test_encode_repeats(opset: int) -> None:
    model = timed("y = na_convert.Encode (x, timesteps)", opset)
    x = build.images(2)
    y = both_engines(model, {"x": x, "timesteps": T})
    np.testing.assert_array_equal(y.reshape(3, *x.shape), np.stack([x, x, x]))


@pytest.mark.parametrize("opset", OPSETS)
def test_decode_averages(opset: int) -> None:
    model = timed("y = na_convert.Decode (x, timesteps)", opset)
    x = np.round(build.images(6) * 8)
    y = both_engines(model, {"x": x, "timesteps": T})
    np.testing.assert_allclose(y, x.reshape(3, 2, *x.shape[1:]).mean(0), rtol=1e-6)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("initial", [0.5, 0.0])
def test_if_is_the_numpy_neuron(opset: int, initial: float) -> None:
    attrs = f"threshold: float = 0.75, amplitude: float = 1.5, initial: float = {initial}"
    model = timed(f"y = na_convert.IF <{attrs}> (x, timesteps)", opset)
    x = build.images(6)
    y = both_engines(model, {"x": x, "timesteps": T})
    expected = spikes(x.reshape(3, 2, *x.shape[1:]), 0.75, 1.5, initial)
    np.testing.assert_array_equal(y, expected.reshape(x.shape))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_if_per_channel_is_the_numpy_neuron(opset: int, dtype: type) -> None:
    kind = "float" if dtype == np.float32 else "double"
    theta = np.array([0.5, 1.0, 1.5], dtype).reshape(3, 1, 1)
    amplitude = np.array([1.0, -2.0, 3.0], dtype).reshape(3, 1, 1)
    model = build.model(
        "y = na_convert.IFPerChannel <initial: float = 0.5> (x, timesteps, theta, amplitude)",
        {"theta": theta, "amplitude": amplitude},
        inputs=f"{kind}[K,C,H,W] x, int64 timesteps",
        outputs=f"{kind}[M,C,H,W] y",
        opset=opset,
    )
    x = build.images(6).astype(dtype)
    y = both_engines(model, {"x": x, "timesteps": T})
    expected = spikes(x.reshape(3, 2, *x.shape[1:]), theta, amplitude)
    np.testing.assert_array_equal(y, expected.reshape(x.shape))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("ceil", [0, 1])
def test_max_pool_counts_is_the_numpy_pool(opset: int, ceil: int) -> None:
    attrs = (
        "kernel_shape: ints = [3, 3], strides: ints = [2, 2], pads: ints = [1, 1, 0, 0], "
        f"dilations: ints = [1, 1], ceil_mode: int = {ceil}, unit: float = 0.25"
    )
    model = timed(f"y = na_convert.MaxPoolCounts <{attrs}> (x, timesteps)", opset)
    x = (build.images(6) > 0).astype(np.float32) * np.float32(0.25)
    in_time = x.reshape(3, 2, *x.shape[1:])
    y = both_engines(model, {"x": x, "timesteps": T})
    y = y.reshape(3, 2, *y.shape[1:])

    graph, _ = build.graph(
        f"y = na_convert.MaxPoolCounts <{attrs}> (x)", outputs="float[M,C,H,W] y"
    )
    (node,) = graph.nodes
    advance = layers_with_state()
    np.testing.assert_array_equal(y, np.stack([advance(node, now) for now in in_time]))
    total = kernels.max_pool(node, [in_time.sum(0)], np.dtype(np.float32))
    np.testing.assert_array_equal(y.sum(0), total)
    assert set(np.unique(y)) <= {0.0, 0.25}


@pytest.mark.parametrize("opset", OPSETS)
def test_staircase_and_ramp_are_their_numpy_selves(opset: int) -> None:
    weights = {"d": -0.5, "s": 0.25, "lo": -2.0, "phi": 0.5}
    body = 'y = na_convert.Staircase <levels: int = 3, tie_rule: string = "half_up">'
    model = build.model(
        f"{body} (x, d, s, lo, phi)", weights, outputs="float[N,C,H,W] y", opset=opset
    )
    x = build.images()
    stair = Staircase(*(np.float32(v) for v in weights.values()), 3, "half_up")
    np.testing.assert_array_equal(both_engines(model, {"x": x}), stair(x))

    weights = {"low": -0.5, "high": 0.75, "below": 0.25, "gain": 2.0}
    body = 'y = na_convert.Ramp <kind: string = "clip"> (x, low, high, below, gain)'
    model = build.model(body, weights, outputs="float[N,C,H,W] y", opset=opset)
    ramp = Ramp(*(np.float32(v) for v in weights.values()))
    np.testing.assert_allclose(both_engines(model, {"x": x}), ramp(x), rtol=1e-6)
