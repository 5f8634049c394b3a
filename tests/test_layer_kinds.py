"""What kind of integer layer a sum can become, said of sums made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from na_convert.passes.count_values import Counts, Sum, Term
from na_convert.passes.layer_kinds import (
    adds_unlike,
    is_constant,
    is_larger,
    misfit,
    with_a_term,
)

from na_convert.integer import Window

IMAGE, ROW = (3, 4, 5), (6,)
PLAIN = Window((1, 1), (0,) * 4, (1, 1))


def counts(shape: tuple[int, ...], scale: object = 1.0) -> Counts:
    return Counts("n", shape, np.asarray(scale, np.float64), np.zeros(()), 4)


def convolution(kernel: tuple[int, ...], window: Window | None = PLAIN) -> Term:
    return Term(counts(IMAGE), np.ones((2, 3, *kernel)), window)


DENSE = Term(counts(ROW), np.ones((2, 6)), None)
ANALOG = Sum(analogs=(("x", np.ones(())),))
COLUMNS = np.array([1.0, 2, 3, 4, 5])
CHANNELS = np.array([1.0, 2, 3]).reshape(3, 1, 1)


@pytest.mark.parametrize(
    ("change", "constant"),
    [
        ({}, True),
        ({"bias": np.ones(1)}, False),
        ({"pool": {"kernel_shape": [2, 2]}}, False),
        ({"terms": (DENSE,)}, False),
        ({"identities": ((counts(IMAGE), np.ones(())),)}, False),
        ({"analogs": ANALOG.analogs * 2}, False),
        ({"analogs": ()}, False),
    ],
)
def test_one_analog_current_alone_is_constant(change: dict[str, object], constant: bool) -> None:
    assert is_constant(replace(ANALOG, **change)) is constant  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scale", "gain", "unlike"),
    [(1.0, 1.0, False), (CHANNELS, 2.0, False), (COLUMNS, 1.0, True), (1.0, COLUMNS, True),
     (COLUMNS, 1 / COLUMNS, False)],
)  # fmt: skip
def test_a_shortcut_has_one_number_per_channel(scale: object, gain: object, unlike: bool) -> None:
    gains = np.asarray(gain, np.float64)
    shortcut = (counts(IMAGE, scale), gains)
    plain = (counts(IMAGE), np.ones(()))
    assert adds_unlike(Sum(identities=(plain, shortcut)), IMAGE) is unlike
    assert ("unlike amounts" in misfit(Sum(identities=(shortcut,)), IMAGE).reason) is unlike


def test_why_there_is_no_layer() -> None:
    assert "4-bit weights" in misfit(Sum(terms=(convolution((1, 1)),)), IMAGE).reason
    assert "4-bit weights" in misfit(ANALOG, IMAGE).reason
    assert "no uint8 holds, to the sum of a dense" in misfit(Sum(terms=(DENSE,)), ROW).reason
    mixed = Sum(terms=(convolution((1, 1)), DENSE))
    assert "no uint8 holds, to the sum of a dense" in misfit(mixed, ROW).reason
    assert (
        "an analog current to the sum of a dense"
        in misfit(replace(ANALOG, terms=(DENSE,)), ROW).reason
    )


@pytest.mark.parametrize(
    ("term", "larger"),
    [
        (convolution((2, 2)), True),
        (convolution((1, 5)), True),
        (convolution((1, 3)), False),
        (convolution((3, 3), replace(PLAIN, group=3)), False),
        (DENSE, False),
        (Term(counts(IMAGE), np.ones((2, 3, 3, 3)), None), False),
    ],
)
def test_channels_beside_a_large_kernel_cost_little(term: Term, larger: bool) -> None:
    assert is_larger(term) is larger


def test_the_first_of_a_sum_of_counts_becomes_a_convolution() -> None:
    first, second = (counts(IMAGE, CHANNELS), np.full((), 0.5)), (counts(IMAGE), np.ones(()))
    made = with_a_term(Sum(identities=(first, second), bias=np.ones(3)))
    (term,) = made.terms
    assert made.identities == (second,)
    assert made.bias.tolist() == [1, 1, 1]
    assert term.source is first[0]
    assert term.weight.tolist() == (CHANNELS / 2).reshape(3, 1, 1, 1).tolist()
    assert term.window == Window((1, 1), (0, 0, 0, 0), (1, 1), 3)


@pytest.mark.parametrize(
    "current",
    [
        ANALOG,
        Sum(terms=(DENSE,), identities=((counts(ROW), np.ones(())),)),
        Sum(identities=((counts(ROW), np.ones(())),)),
        Sum(identities=((counts(IMAGE, COLUMNS), np.ones(())),)),
    ],
)
def test_others_stay_as_they_are(current: Sum) -> None:
    assert with_a_term(current) is current
