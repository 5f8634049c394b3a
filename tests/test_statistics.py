"""Figures as sums: their values by hand, and that parts merge into the whole exactly."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from na_convert.activation import Ramp, Staircase
from na_convert.behaviour import Behaviour
from na_convert.layers import Layer
from na_convert.results import ClassResult, Neuron
from na_convert.snn import IFParameters
from na_convert.statistics import (
    PARTS,
    LayerCounts,
    OutputCounts,
    count_layer,
    count_outputs,
    predictions,
    wilson,
)


def layer(function: Staircase | Ramp, shape: tuple[int, ...], threshold: np.ndarray) -> Layer:
    neuron = Neuron(
        name="n", root="r", output="o", kind="staircase", threshold=1.0, amplitude=1.0,
        input_step=None, output_step=None, levels=3, lowest_level=0, phase=0.5,
        tie_rule="half_up", constant_input=False, shape=shape,
    )  # fmt: skip
    fired = IFParameters(threshold, np.asarray(function.neuron().amplitude), 0.5)
    return Layer(neuron, "z", "s", "r", fired, function, np.dtype(np.float64))


def staircase(step: float = 0.5, levels: int = 3) -> Staircase:
    one = np.asarray
    return Staircase(one(step), one(step), one(0.0), one(0.5), levels, "half_up")


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_as_published(hits: int, trials: int, low: float, high: float) -> None:
    """The last is Newcombe's example (Statistics in Medicine 17, 1998, table I)."""
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_nothing_is_known_from_no_trial() -> None:
    assert wilson(0, 0) == (0, 1)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 1000))
def test_an_interval_holds_the_share(hits: int, trials: int) -> None:
    hits = min(hits, trials)
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


# --- layers ---------------------------------------------------------------------------------------


def test_the_split_by_hand() -> None:
    """Threshold 1.5, T = 3: one neuron for each cause, and one without error."""
    root = np.array([[1.0, 1.0, 1.0, 0.0]])
    output = staircase()(root)
    count = np.array([[2, 2, 3, 1]])
    total = np.array([[3.0, 3.0, 3.0, 0.0]])
    total[0, 1] = 4.5  # the layers before sent half a threshold more, and it came too late
    found = count_layer(layer(staircase(), (4,), np.asarray(1.5)), count, total, output, root, 3)
    parts = dict(zip(PARTS, found.signed, strict=True))
    third = pytest.approx(1 / 3)
    assert float(parts["clipping"]) == float(parts["quantisation"]) == 0
    assert float(parts["inherited"]) == third
    assert float(parts["unevenness"]) == third  # -1/3 late, +1/3 twice early
    assert float(parts["total"]) == pytest.approx(2 / 3)
    assert float(found.sizes[3]) == pytest.approx(1)
    assert (found.uneven, found.occasional, found.saturated, found.at_highest) == (3, 1, 1, 0)
    np.testing.assert_array_equal(found.per_neuron, count)
    assert found.relative_error() == pytest.approx(np.sqrt((2 / 9) / (3 * 4 / 9)))


def test_too_few_steps_are_quantisation() -> None:
    root = np.array([[0.5]])  # level 1 of 3; one step can only say 0 or 1
    found = count_layer(
        layer(staircase(), (1,), np.asarray(1.5)),
        np.array([[0]]), root.copy(), staircase()(root), root, 1,
    )  # fmt: skip
    assert [float(v) for v in found.signed] == pytest.approx([0, -1 / 3, 0, 0, -1 / 3])


def test_what_lies_above_a_calibrated_threshold_is_clipping() -> None:
    ramp = Ramp(np.asarray(0.0), np.asarray(2.0), np.asarray(0.0), np.asarray(1.0))
    root = np.array([[3.0]])  # the ANN's ReLU gives 3, the neuron at most 2
    found = count_layer(
        layer(ramp, (1,), np.asarray(2.0)), np.array([[4]]), 4 * root, root, root, 4
    )
    assert [float(v) for v in found.signed] == pytest.approx([-0.5, 0, 0, 0, -0.5])
    assert found.at_highest == found.saturated == 1


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from(["staircase", "ramp"]))
def test_the_parts_add_up_and_merge_exactly(seed: int, timesteps: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 2, (3, 1, 1))
    if kind == "staircase":
        function: Staircase | Ramp = Staircase(
            scale, scale * 1.5, np.asarray(0.0), np.asarray(0.5), 3, "half_up"
        )
        threshold = 3 * scale
    else:
        function = Ramp(np.zeros(()), scale, np.zeros(()), np.ones(()))
        threshold = scale
    shape = (5, 3, 2, 2)
    root = rng.normal(0.5, 1, shape)
    count = rng.integers(0, timesteps + 1, shape)
    total = timesteps * root + rng.normal(0, 0.5, shape)
    output = function(root) if kind == "staircase" else np.maximum(root, 0)
    one = layer(function, shape[1:], threshold)

    def of(rows: slice) -> LayerCounts:
        return count_layer(one, count[rows], total[rows], output[rows], root[rows], timesteps)

    whole = of(slice(None))
    assert float(sum(whole.signed[:-1])) == pytest.approx(float(whole.signed[-1]), abs=1e-12)
    parts = [of(slice(i, i + 1)) for i in range(5)]
    forwards, backwards = (reduce(LayerCounts.merged, p) for p in (parts, parts[::-1]))
    assert forwards.signed == backwards.signed  # exactly: in any order
    assert (forwards.neurons, forwards.uneven) == (whole.neurons, whole.uneven)
    np.testing.assert_array_equal(forwards.per_neuron, whole.per_neuron)


# --- outputs --------------------------------------------------------------------------------------


def test_outputs_by_class() -> None:
    ann = np.eye(4)[[0, 1, 2, 2]]
    snn = np.eye(4)[[0, 2, 2, 3]]
    labels = np.array([0, 1, 1, 2])
    found = count_outputs(2, ann, snn, labels)
    row = found.result()
    assert (row.T, row.agreement, row.ann_accuracy, row.snn_accuracy) == (2, 0.5, 0.75, 0.25)
    assert row.drop == 0.5
    assert row.agreement_interval == wilson(2, 4)
    assert row.snn_interval == wilson(1, 4)
    assert row.logit_rmse == pytest.approx(np.sqrt(4 / 16))
    assert found.classes() == (
        ClassResult(0, 1, 1, 1, 1),
        ClassResult(1, 2, 0.5, 0, 0.5),
        ClassResult(2, 1, 1, 0, 0),
    )


def test_batches_with_other_classes_merge() -> None:
    rng = np.random.default_rng(0)
    ann, snn, labels = rng.normal(size=(9, 5)), rng.normal(size=(9, 5)), np.arange(9) % 5
    whole = count_outputs(1, ann, snn, labels)
    rows = [slice(i, i + 2) for i in range(0, 9, 2)]
    parts = [count_outputs(1, ann[r], snn[r], labels[r]) for r in rows]
    merged = reduce(OutputCounts.merged, parts)
    assert merged.classes() == whole.classes()
    assert merged.result().logit_rmse == pytest.approx(whole.result().logit_rmse)
    both = Behaviour((parts[0],), ()).merged(Behaviour((parts[1],), ()))
    assert both.by_timestep[0].predictions == 4


def test_labels_that_do_not_fit_the_output_give_no_accuracy() -> None:
    maps = np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    found = count_outputs(1, maps, maps, np.array([0, 1]))
    assert found.result().snn_accuracy is None
    assert found.result().agreement == 1
    assert found.predictions == 32
    assert found.classes() == ()


@pytest.mark.parametrize("count", [1, 3])
def test_a_lone_logit_is_a_class_by_its_sign(count: int) -> None:
    assert predictions(np.full((count, 1), -2.0)).tolist() == [0] * count
    assert predictions(np.full(count, 2.0)).tolist() == [1] * count


def test_behind_a_sigmoid_classes_part_at_a_half() -> None:
    assert predictions(np.array([[0.2], [0.6]]), sigmoid=True).tolist() == [0, 1]
    assert predictions(np.array([0.2, 0.6]), sigmoid=True).tolist() == [0, 1]
    several = np.array([[0.2, 0.1, 0.3]])
    assert predictions(several, sigmoid=True).tolist() == [2]
    places = np.array([[[[0.2], [0.9]], [[0.6], [0.1]]]])  # an image, its lone channel last
    assert predictions(places, sigmoid=True).tolist() == [[0, 1, 1, 0]]
    assert predictions(several[:, :, None, None], sigmoid=True).tolist() == [[[2]]]


def test_what_is_not_finite_does_not_stop_the_count() -> None:
    found = count_outputs(1, np.zeros((1, 2)), np.array([[np.nan, 1.0]]), None)
    assert np.isnan(found.result().logit_rmse)
