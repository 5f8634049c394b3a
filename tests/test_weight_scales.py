"""Integers for weights, thresholds and shortcuts: what is chosen is allowed, and nothing allowed is
better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes.shortcut_ratio import ROOM, best_ratio
from na_convert.passes.weight_scales import Scaled, choose

from na_convert.integer_bounds import LARGEST_THRESHOLD

MOST = 127
seeds = st.integers(0, 1 << 16)


def off(found: Scaled, weight: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """What the integers are worth beside what they stand for, [O, ...]."""
    unit = (theta / found.threshold).reshape(-1, *[1] * (weight.ndim - 1))
    return np.asarray(found.weight * unit - weight)


def error_at(threshold: int, weight: np.ndarray, theta: float, largest: int) -> float:
    unit = theta / threshold
    return float(np.sum((np.clip(np.rint(weight / unit), -largest, largest) * unit - weight) ** 2))


def just_fitting(weight: np.ndarray, theta: float, largest: int) -> int:
    """The largest odd threshold at which no weight is clipped."""
    most = min(largest * theta / np.abs(weight).max(), LARGEST_THRESHOLD)
    return max(1, int((most + 1) // 2) * 2 - 1)


@settings(max_examples=12, deadline=None)
@given(seed=seeds, largest=st.sampled_from([127, 63, 31, 7]), size=st.floats(0.01, 3.0))
def test_random_weights(seed: int, largest: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    weight = size * rng.standard_normal((4, 3, 5, 5))
    theta = rng.uniform(0.5, 2.0, 4)
    found = choose(weight, theta, largest)
    assert found.weight.dtype == np.int8
    assert found.weight.shape == weight.shape
    assert np.abs(found.weight.astype(int)).max() <= largest
    assert np.all(found.threshold % 2 == 1)
    assert np.all((found.threshold >= 1) & (found.threshold <= LARGEST_THRESHOLD))
    assert (found.on_grid, found.threshold_error) == (0, 0)
    wrong = off(found, weight, theta)
    size_of_all = np.sqrt(np.sum(weight**2))
    assert found.error == pytest.approx(np.sqrt(np.sum(wrong**2)) / size_of_all)
    for channel in range(4):
        one, threshold = weight[channel], just_fitting(weight[channel], theta[channel], largest)
        simple = error_at(threshold, one, theta[channel], largest)
        assert np.sum(wrong[channel] ** 2) <= simple * (1 + 1e-4)


def test_one_large_weight_among_many_small_ones_is_clipped() -> None:
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.uniform(-1, 1, 3000), [1.25]])[None]
    found = choose(weight, np.ones(1), 7)
    assert np.abs(found.weight).max() == 7
    fits = just_fitting(weight, 1.0, 7)
    assert found.threshold[0] > fits
    assert found.error**2 < 0.95 * error_at(fits, weight, 1.0, 7) / np.sum(weight**2)


@settings(max_examples=12, deadline=None)
@given(
    seed=seeds,
    levels=st.sampled_from([1, 3, 7, 15, 127]),
    step=st.floats(0.01, 0.5),
    noise=st.sampled_from([0.0, 5e-5]),
)
def test_weights_on_a_grid_keep_their_integers(
    seed: int, levels: int, step: float, noise: float
) -> None:
    """Beside theirs, the threshold is the one of least error of all whole refinements."""
    rng = np.random.default_rng(seed)
    integers = rng.integers(-levels, levels + 1, (3, 100))
    integers[:, 0], integers[:, 1] = levels, 1  # the largest, and nothing in common
    theta = rng.uniform(0.5, 2.0, 3)
    rounding = noise * rng.uniform(-1, 1, integers.shape) * (np.abs(integers) < levels)
    weight = (integers + rounding) * step
    found = choose(weight, theta)
    assert found.on_grid == 3
    assert found.error == 0
    moved = []
    for channel in range(3):
        exact = theta[channel] / step
        factor = found.weight[channel, 1]
        assert np.array_equal(found.weight[channel], factor * integers[channel])
        costs = {}
        for times in range(1, MOST // levels + 1):
            if times > 1 and exact * times > LARGEST_THRESHOLD + 1:
                break
            odd = max(1, min(2 * int((exact * times) // 2) + 1, LARGEST_THRESHOLD))
            costs[times] = abs(odd / (exact * times) - 1) + 0.5 / odd
        chosen = found.threshold[channel] / (exact * factor)
        cost = abs(chosen - 1) + 0.5 / found.threshold[channel]
        assert cost == pytest.approx(min(costs.values()))
        moved.append(abs(chosen - 1))
    assert found.threshold_error == pytest.approx(max(moved))


@pytest.mark.parametrize("shift", [0.0, 0.001])
def test_a_weight_beside_the_grid_is_on_none(shift: float) -> None:
    """Also where it is not among the first that are looked at."""
    weight = np.tile(np.array([3.0, 1, -2, 0]), 30)[None] * 0.1
    weight[0, -1] += 0.1 * shift
    assert choose(weight, np.ones(1)).on_grid == (shift == 0)


def test_a_channel_on_a_grid_beside_one_on_none() -> None:
    rng = np.random.default_rng(0)
    weight = np.stack([0.1 * rng.integers(-3, 4, 50), rng.standard_normal(50), np.zeros(50)])
    theta = np.array([1.0, 2.0, 3.0])
    found = choose(weight, theta)
    assert found.on_grid == 1
    wrong = off(found, weight, theta)[1]
    assert found.error == pytest.approx(np.sqrt(np.sum(wrong**2) / np.sum(weight**2)))
    assert not found.weight[2].any()


def test_weights_on_a_grid_far_finer_than_the_threshold_are_taken_like_others() -> None:
    weight = np.array([[3.0, 1, 2, -1]]) * 1e-4
    found = choose(weight, np.ones(1))
    assert found.on_grid == 0
    assert found.threshold[0] == LARGEST_THRESHOLD


def test_no_weights_at_all() -> None:
    found = choose(np.zeros((2, 1)), np.ones(2))
    assert (found.error, found.on_grid, found.threshold_error) == (0, 0, 0)
    assert found.threshold.tolist() == [LARGEST_THRESHOLD] * 2


def test_weights_far_larger_than_the_threshold() -> None:
    found = choose(np.array([[3000.0, 517.3]]), np.ones(1))
    assert found.threshold.tolist() == [1]
    assert np.abs(found.weight.astype(int)).max() == MOST


# --- identity shortcuts ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    rho=st.lists(st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=2), min_size=1, max_size=2),
    most=st.lists(st.integers(1, 20), min_size=2, max_size=2),
    timesteps=st.integers(1, 20),
)
def test_a_ratio_is_the_best_that_uint8_holds(
    rho: list[list[float]], most: list[int], timesteps: int
) -> None:
    exact = [np.asarray(each) for each in rho]
    found = best_ratio(exact, most[: len(exact)], timesteps)
    errors = {}
    for resolution in range(1, 255, 2):
        whole = [np.rint(resolution * each) for each in exact]
        pairs = list(zip(whole, exact, most, strict=False))
        if resolution * (timesteps - 1) + sum(np.abs(q).max() * m for q, _, m in pairs) <= ROOM:
            off_by = [np.abs(q / resolution - r).max() * m / 2 for q, r, m in pairs]
            errors[resolution] = sum(off_by)
        else:
            break
    if found is None:
        assert not errors
        return
    assert found.error == pytest.approx(errors[found.resolution])
    assert found.error <= min(errors.values()) + 1e-5
    for each, whole in zip(exact, found.weights, strict=True):
        assert np.array_equal(whole, np.rint(found.resolution * each))


def test_no_shortcut_needs_no_resolution() -> None:
    found = best_ratio([], [], 200)
    assert found is not None
    assert (found.resolution, found.weights, found.error) == (1, (), 0.0)


@pytest.mark.parametrize(
    ("most", "timesteps", "fits"), [(100, 155, True), (100, 156, False), (254, 1, True)]
)
def test_a_shortcut_takes_the_room_that_time_leaves(most: int, timesteps: int, fits: bool) -> None:
    found = best_ratio([np.ones(3)], [most], timesteps)
    assert (found is not None) is fits
    if found is not None:
        assert (found.resolution, found.error) == (1, 0.0)
