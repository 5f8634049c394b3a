"""The fit: hypothesis draws staircases, the fit must give back their parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from na_convert.activation import Ramp, Staircase
from na_convert.fit_checks import BUDGET, grid, most_hints
from na_convert.fit_reasons import Fit
from na_convert.fit_stairs import bisect
from na_convert.staircase_fit import fit

SCALES = st.floats(-6, 6).map(lambda e: float(np.float32(10.0**e)))


def fitted(function, dtype=np.float64, channels=1, hints=None, rounding="") -> Fit:
    """Fit ``function``, which takes and gives arrays [K, C]."""

    def native(x):
        return np.asarray(function(x.astype(dtype))).astype(dtype)

    return fit(function, native, channels, np.dtype(dtype), hints, rounding)


def staircase(found: Fit) -> Staircase:
    assert found.kind == "staircase", found.reason
    assert isinstance(found.activation, Staircase)
    return found.activation


@settings(max_examples=60, deadline=None)
@given(
    step=SCALES,
    gain=st.sampled_from([1.0, 0.3, -2.5, 100.0]),
    lowest=st.integers(-130, 5),
    levels=st.integers(2, 300),
    phase=st.sampled_from([0.0, 0.5, 1.0, 0.25]),
)
def test_general_staircase_is_found_at_any_scale(step, gain, lowest, levels, phase):
    def function(x):
        level = np.clip(np.floor(x / step + phase - lowest), 0, levels)
        return gain * step * (lowest + level)

    found = staircase(fitted(function))
    assert found.levels == levels
    np.testing.assert_allclose(np.abs(found.input_step), step, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.output_step), abs(gain) * step, rtol=1e-9)
    x = (np.arange(-3, levels + 4)[:, None] + 0.5 + lowest - phase) * step
    np.testing.assert_allclose(found(x), function(x), rtol=1e-9, atol=1e-9 * abs(gain) * step)


@settings(max_examples=30, deadline=None)
@given(step=SCALES, offset=st.floats(-30, 30), levels=st.integers(2, 40))
def test_offset_levels_in_float32(step, offset, levels):
    step32 = np.float32(step)
    shift = np.float32(offset * step)

    def exact(x):
        return np.round(np.clip((x - float(shift)) / float(step32), 0, levels)) * float(
            step32
        ) + float(shift)

    def native(x):
        x = x.astype(np.float32)
        return np.round(np.clip((x - shift) / step32, 0, levels)) * step32 + shift

    found = staircase(fit(exact, native, 1, np.dtype(np.float32)))
    assert found.input_step.dtype == np.float32
    np.testing.assert_allclose(found.input_step, step32, rtol=1e-6)
    np.testing.assert_allclose(found.phase, 0.5, atol=1e-4)


def test_step_is_the_float32_constant_itself():
    step = float(np.float32(0.37))
    found = staircase(fitted(lambda x: np.round(np.clip(x / step, 0, 7)) * step, np.float64))
    assert np.float32(found.input_step[0]) == np.float32(0.37)
    assert np.float32(found.output_step[0]) == np.float32(0.37)
    assert found.phase[0] == 0.5
    assert found.lowest_level[0] == 0.0


def test_numbers_of_the_graph_are_taken_as_they_are():
    step = 0.3  # as float64, which no measurement hits by itself
    found = staircase(
        fitted(lambda x: np.round(np.clip(x / step, 0, 7)) * step, hints=np.array([step, 7.0]))
    )
    assert found.input_step[0] == step
    assert found.output_step[0] == step


@pytest.mark.parametrize("levels", [255, 65535])
def test_many_levels_in_many_channels(levels):
    step = np.geomspace(1e-4, 1e-2, 64)
    found = staircase(fitted(lambda x: np.clip(np.round(x / step), 0, levels) * step, channels=64))
    assert found.levels == levels
    np.testing.assert_allclose(found.input_step, step, rtol=1e-9)


def test_channels_that_fall_towards_zero_count_from_the_right():
    sign = np.array([1.0, -1.0])
    found = staircase(fitted(lambda x: np.clip(np.round(sign * x), 0, 3), channels=2))
    np.testing.assert_allclose(found.input_step, [1.0, -1.0])
    np.testing.assert_array_equal(found.output_step, [1.0, 1.0])
    np.testing.assert_array_equal(found.phase, [0.5, 0.5])


@pytest.mark.parametrize("value", [1.0, 0.3])
def test_one_jump_is_as_wide_as_high(value):
    found = staircase(fitted(lambda x: value * np.clip(np.round(x / value), 0, 1)))
    assert found.levels == 1
    np.testing.assert_allclose([found.input_step[0], found.phase[0]], [value, 0.5])


def test_sign_is_one_jump_at_zero():
    found = staircase(fitted(lambda x: np.where(x >= 0, 0.7, -0.7)))
    np.testing.assert_allclose(found.output_step, 1.4)
    np.testing.assert_allclose(found.lowest_level, -0.5)
    np.testing.assert_allclose(found.phase, 0.5)


@pytest.mark.parametrize(
    ("rule", "rounding"),
    [
        ("half_even", np.round),
        ("half_up", lambda x: np.floor(x + 0.5)),
        ("half_down", lambda x: np.ceil(x - 0.5)),
        ("half_away", lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5)),
        ("floor", np.floor),
        ("ceil", np.ceil),
    ],
)
def test_tie_rule_is_measured(rule, rounding):
    found = staircase(fitted(lambda x: np.clip(rounding(x / 0.25), -4, 4) * 0.25))
    assert found.tie_rule == rule


def test_tie_rule_of_the_graph_where_no_tie_is_a_float():
    theta = float(np.float32(2.7))
    found = staircase(
        fitted(lambda x: np.round(np.clip(x / theta, 0, 1) * 7) / 7 * theta, rounding="half_even")
    )
    assert found.tie_rule == "half_even"


def test_straight_through_leftover():
    def function(x):
        return x + (np.clip(np.round(x / 0.37), 0, 7) * 0.37 - x)

    np.testing.assert_allclose(staircase(fitted(function)).input_step, 0.37)


def test_half_precision():
    step = np.float16(0.37)

    def native(x):
        return np.round(np.clip(x.astype(np.float16) / step, 0, 7)) * step

    def exact(x):
        return np.round(np.clip(x / float(step), 0, 7)) * float(step)

    found = staircase(fit(exact, native, 1, np.dtype(np.float16)))
    assert found.input_step[0] == step
    assert found.levels == 7


@settings(max_examples=40, deadline=None)
@given(scale=SCALES, low=st.floats(-3, 3), width=st.floats(0.5, 9), gain=st.floats(0.1, 5))
def test_clip_at_any_scale(scale, low, width, gain):
    ends = low * scale, (low + width) * scale
    found = fitted(lambda x: gain * np.clip(x, *ends) - 1.0)
    assert found.kind == "ramp", found.reason
    assert isinstance(found.activation, Ramp)
    np.testing.assert_allclose(found.activation.low, ends[0], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(found.activation.high, ends[1], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(found.activation.gain, gain, rtol=1e-6)


def test_relu_has_no_upper_end():
    found = fitted(lambda x: np.maximum(x, 0))
    assert found.kind == "ramp"
    assert isinstance(found.activation, Ramp)
    assert not found.activation.bounded
    assert float(found.activation.low[0]) == 0.0


@pytest.mark.parametrize("function", [lambda x: 3 * x - 2, lambda x: 0 * x + 4, lambda x: -x])
def test_affine(function):
    assert fitted(function).kind == "affine"


POWERS = np.array([0.0, 0.125, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("uneven", lambda x: POWERS[np.argmin(np.abs(x[..., None] - POWERS), axis=-1)]),
        ("uneven", np.round),
        ("uneven", lambda x: np.maximum(np.floor(x), 0)),
        ("uneven", lambda x: np.minimum(np.clip(np.round(x), 0, 7), 6.5)),
        ("uneven", lambda x: np.clip(np.round(x), 0, 7) + (x > 40)),
        ("unknown", lambda x: np.where(x > 1e6, 0, np.clip(np.round(x), 0, 3))),
        ("unknown", np.tanh),
        ("unknown", lambda x: np.where(x < 0, 0.01 * x, x)),
        ("unknown", lambda x: np.maximum(-x, 0)),
        ("unknown", lambda x: np.clip(x, 0, 1) ** 2),
        ("unknown", np.sqrt),
        ("unknown", np.abs),
    ],
)
def test_what_is_no_activation_is_refused_with_a_reason(kind, function):
    with np.errstate(all="ignore"):
        found = fitted(function)
    assert found.kind == kind, found
    assert found.activation is None
    assert found.reason
    assert found.remedy


def test_one_level_out_of_place_is_noticed():
    def function(x):
        level = np.clip(np.round(x), 0, 255)
        return np.where(level == 100, 100.2, level)

    assert fitted(function).activation is None


def test_one_jump_out_of_place_is_noticed():
    def function(x):
        level = np.clip(np.round(x), 0, 15)
        return np.where((x > 7.5) & (x < 7.6), 7, level)

    assert fitted(function).activation is None


def test_channels_with_different_numbers_of_levels():
    top = np.array([3, 7])
    found = fitted(lambda x: np.clip(np.round(x), 0, top), channels=2)
    assert "3 levels in one channel and 7 in another" in found.reason


def test_a_constant_channel():
    gain = np.array([1.0, 0.0])
    found = fitted(lambda x: gain * np.clip(np.round(x), 0, 3), channels=2)
    assert "constant in some channels" in found.reason


def test_bisect_ends_at_neighbouring_floats():
    edges = np.array([1.25, -3.3, 1e-9])
    a, b = bisect(lambda x: x < edges, np.full(3, -10.0), np.full(3, 10.0))
    np.testing.assert_array_equal(np.nextafter(a, np.inf), b)
    assert np.all((a < edges) & (edges <= b))


@pytest.mark.parametrize(
    ("function", "levels", "lowest"),
    [
        (np.sign, 1, -0.5),
        (lambda x: np.sign(x * 0.1) * 0.3, 1, -0.5),
        (lambda x: np.heaviside(x - 0.5, 0.5), 1, 0),
        (lambda x: (np.sign(x - 0.25) + np.sign(x - 0.75) + np.sign(x - 1.25)) / 4, 3, -1.5),
    ],
)
def test_a_value_of_its_own_exactly_at_a_jump_is_a_tie(function, levels, lowest):
    """sign(0) is 0, no third level."""
    found = staircase(fitted(function, np.float32))
    assert found.levels == levels
    np.testing.assert_allclose(found.lowest_level, lowest)


def test_ties_between_two_levels_are_told():
    assert staircase(fitted(np.sign)).tie_rule == "middle"
    assert staircase(fitted(lambda x: np.where(x >= 0, 1.0, -1.0))).tie_rule == "half_up"


@pytest.mark.parametrize("channels", [1, 64, 256, 1024, 1 << 15])
def test_hints_for_many_channels_are_fewer(channels):
    most = most_hints(channels)
    assert len(grid(np.linspace(1.1, 1.9, most))) * channels <= max(BUDGET, len(grid()) * channels)
    assert most > 100 or channels > 1024
