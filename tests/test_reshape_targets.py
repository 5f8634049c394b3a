"""Targets for every batch size: two batches side by side become what each becomes by itself."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes.reshape_targets import freed_target, resolve

BATCHES = (2, 5)


def split(data: st.DataObject, total: int) -> list[int]:
    """Factors of ``total``, in any order, ones among them."""
    entries = list[int]()
    while total > 1 and len(entries) < 3:
        factor = data.draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
        entries.append(factor)
        total //= factor
    return [*entries, total]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_resolved_as_numpy_does(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3), "shape"))
    entries = data.draw(
        st.one_of(
            st.just(split(data, prod(shape))),
            st.lists(st.integers(1, 6), min_size=1, max_size=3),
        ),
        "entries",
    )
    unknown = data.draw(st.sampled_from([None, *range(len(entries))]), "unknown")
    entries = [-1 if k == unknown else n for k, n in enumerate(entries)]
    try:
        wanted: tuple[int, ...] | None = np.zeros(shape).reshape(entries).shape
    except ValueError:
        wanted = None
    assert resolve(np.array(entries), shape, False) == wanted
    assert resolve(np.array(entries), shape, True) == wanted


@pytest.mark.parametrize(
    ("target", "shape", "allow_zero", "result"),
    [
        ([0, 0, 0], (2, 1, 3), False, (2, 1, 3)),
        ([0, 3, 0], (2, 1, 3), False, None),
        ([0, 0, 0, 0], (2, 1, 3), False, None),
        ([0, 0, 0, -1], (2, 1, 3), False, (2, 1, 3, 1)),
        ([0, -1], (2, 1, 3), False, (2, 3)),
        ([0, 3], (2, 1, 3), True, None),
        ([2, 0, 3], (2, 0, 3), True, (2, 0, 3)),
        ([5, 0], (2, 0, 3), True, (5, 0)),
        ([0, -1], (2, 0, 3), True, None),
        ([5, -1], (2, 0, 3), False, (5, 0)),
    ],
)
def test_zeros_in_a_target(
    target: list[int], shape: tuple[int, ...], allow_zero: bool, result: tuple[int, ...] | None
) -> None:
    assert resolve(np.array(target), shape, allow_zero) == result


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_two_fixed_batches_side_by_side(data: st.DataObject) -> None:
    """Where there is no such target, samples would be mixed, or the batch is an entry of ones."""
    fixed, rows = data.draw(st.sampled_from([1, 2, 3]), "fixed"), data.draw(st.integers(1, 2))
    before = data.draw(st.lists(st.integers(1, 3), max_size=1), "before")
    behind = data.draw(st.lists(st.integers(1, 4), max_size=2), "behind")
    axis = len(before)

    def shape(batch: int) -> tuple[int, ...]:
        return (*before, batch * rows, *behind)

    target = np.array(split(data, prod(shape(fixed))))
    freed = freed_target([shape(b) for b in BATCHES], [target] * 2, axis, BATCHES, fixed, False)
    assert freed != "open"
    x = [data_of(shape(fixed), seed) for seed in (0, 1)]
    y = [each.reshape(target) for each in x]
    together = np.concatenate(x, axis)
    fits = []
    for position, entry in enumerate(target):
        candidate = [-1 if k == position else int(n) for k, n in enumerate(target)]
        made = together.reshape(candidate)
        if entry * 2 == made.shape[position] and np.array_equal(made, np.concatenate(y, position)):
            fits.append(candidate)
    assert (
        freed in fits if freed is not None else not [f for f in fits if divides(f, target, fixed)]
    )


def divides(candidate: list[int], target: np.ndarray, fixed: int) -> bool:
    entry = int(target[candidate.index(-1)])
    return entry % fixed == 0


def data_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(prod(shape)).reshape(shape) + 1000 * seed


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_target_that_follows_the_batch(data: st.DataObject) -> None:
    """Given at two batch sizes, it is that at any other."""
    behind = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3), "behind")
    rest = split(data, prod(behind))
    position = data.draw(st.integers(0, len(rest)), "position")
    targets = [np.array([*rest[:position], b, *rest[position:]]) for b in BATCHES]
    shapes = [(b, *behind) for b in BATCHES]
    freed = freed_target(shapes, targets, 0, BATCHES, None, False)
    assert freed == [*rest[:position], -1, *rest[position:]]


def test_sizes_that_vary_beside_the_batch_are_open() -> None:
    shapes = [(2, 3, 64), (5, 3, 64), (2, 3, 96)]
    targets = [np.array([b, 3 * n]) for b, _, n in shapes]
    assert freed_target(shapes, targets, 0, (2, 5, 2), None, False) == "open"
    fixed = [np.array([4, -1])] * 3
    assert freed_target(shapes, fixed, 0, (2, 5, 2), 4, False) == "open"


@pytest.mark.parametrize("fixed", [None, 4])
def test_a_target_that_does_not_fit_is_none(fixed: int | None) -> None:
    target = np.array([4, 7])
    assert freed_target([(2, 6), (5, 6)], [target] * 2, 0, BATCHES, fixed, False) is None


def test_a_target_that_does_not_vary_with_the_batch_is_none() -> None:
    shapes = [(2, 5, 3), (5, 2, 3)]
    assert freed_target(shapes, [np.array([10, 3])] * 2, 0, BATCHES, None, False) is None
