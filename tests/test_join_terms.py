"""Convolutions and dense layers that are added, as one over their inputs side by side: the same
sums exactly, or not joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from na_convert.passes.count_values import Counts, Term
from na_convert.passes.join_terms import join

from na_convert import kernels
from na_convert.integer import Window
from na_convert.integer_moves import move

Values = dict[str, np.ndarray]
PLAIN = Window((1, 1), (0,) * 4, (1, 1))
OUTPUTS = 3


def counts(name: str, shape: Sequence[int]) -> Counts:
    return Counts(name, tuple(shape), np.ones(()), np.zeros(()), 4)


def term(source: Counts, kernel: Sequence[int], window: Window | None = PLAIN) -> Term:
    group = 1 if window is None else window.group
    shape = (OUTPUTS, source.shape[0] // group, *kernel)
    weight = np.random.default_rng(len(source.name)).integers(-5, 6, shape)
    return Term(source, weight.astype(np.float64), window)


def total(terms: Sequence[Term], values: Values) -> np.ndarray:
    made: np.ndarray = np.zeros(())
    for each in terms:
        x = values[each.source.name]
        if each.window is None:
            made = made + x @ each.weight.T
        else:
            node = gs.Node("Conv", attrs=each.window.attributes())
            made = made + kernels.conv(node, [x, each.weight], np.dtype(np.float64))
    return made


def same_sums(terms: Sequence[Term]) -> int:
    """How many moves the joined term's input takes; it has to exist."""
    rng = np.random.default_rng(0)
    sources = {t.source.name: t.source.shape for t in terms}
    values = {
        name: rng.integers(0, 5, (2, *shape)).astype(np.float64) for name, shape in sources.items()
    }
    joined = join("s", terms)
    assert joined is not None
    made, moves = joined
    wanted = total(terms, values)
    for each in moves:
        values[each.output] = move(each, [values[name] for name in each.sources])
    assert values[made.source.name].shape[1:] == made.source.shape
    np.testing.assert_array_equal(total([made], values), wanted)
    return len(moves)


@st.composite
def windows(draw: st.DrawFn, size: int, made: int, stride: int) -> tuple[int, int, int]:
    """Kernel and padding in front and behind that make ``made`` sums along an axis of ``size``."""
    kernel, front = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    over = draw(st.integers(0, stride - 1))  # what no window reaches
    behind = (made - 1) * stride + kernel - size - front + over
    assume(behind >= 0)
    return kernel, front, behind


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernels_of_any_size_and_place_in_one_window(data: st.DataObject) -> None:
    sizes = [data.draw(st.integers(3, 8)) for _ in range(2)]
    strides = tuple(data.draw(st.integers(1, 3)) for _ in sizes)
    made = [data.draw(st.integers(2, 5)) for _ in sizes]
    terms = []
    for name in ("n", "nn", "nnn")[: data.draw(st.integers(2, 3))]:
        axes = [data.draw(windows(n, m, s)) for n, m, s in zip(sizes, made, strides, strict=True)]
        pads = (*(front for _, front, _ in axes), *(behind for _, _, behind in axes))
        channels = data.draw(st.integers(1, 3))
        kernel = [k for k, _, _ in axes]
        terms.append(term(counts(name, (channels, *sizes)), kernel, Window(strides, pads, (1, 1))))
    assert same_sums(terms) == 1


def test_a_downsampling_shortcut_reads_every_other_pixel() -> None:
    """In front of a 3x3 convolution of stride 1: its input is thinned out, then both are joined."""
    wide = term(counts("n", (2, 4, 4)), (3, 3), Window((1, 1), (1,) * 4, (1, 1)))
    shortcut = term(counts("nn", (3, 7, 8)), (1, 1), Window((2, 2), (0,) * 4, (1, 1)))
    assert same_sums([wide, shortcut]) == 2


def test_dense_layers() -> None:
    assert same_sums([term(counts("n", (4,)), (), None), term(counts("nn", (7,)), (), None)]) == 1


IMAGE = counts("n", (2, 6, 6))
THREE = term(IMAGE, (3, 3), Window((1, 1), (1,) * 4, (1, 1)))
APART = {
    "groups": [THREE, term(IMAGE, (3, 3), Window((1, 1), (1,) * 4, (1, 1), 2))],
    "a dense layer": [THREE, term(counts("nn", (7,)), (), None)],
    "a kernel that skips pixels": [
        THREE, term(IMAGE, (3, 3), Window((1, 1), (2,) * 4, (2, 2)))],
    "a kernel of two pixels that skips one": [
        THREE, term(IMAGE, (2, 2), Window((1, 1), (1,) * 4, (2, 2)))],
    "unlike strides": [
        term(counts("nn", (2, 12, 12)), (2, 2), Window((2, 2), (0,) * 4, (1, 1))), THREE],
    "a stride of 1 along one axis": [
        term(IMAGE, (3, 1), Window((1, 2), (1, 0, 1, 0), (1, 1))),
        term(counts("nn", (2, 6, 3)), (1, 1), PLAIN)],
    "unlike sizes": [term(counts("nn", (2, 8, 8)), (3, 3)), THREE],
    "one pixel for all": [term(IMAGE, (6, 6)), THREE],
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_what_is_not_joined(name: str) -> None:
    assert join("s", APART[name]) is None


def test_dilation_of_one_pixel_is_none() -> None:
    apart = term(counts("nn", (3, 6, 6)), (1, 1), Window((1, 1), (0,) * 4, (2, 2)))
    assert same_sums([THREE, apart]) == 1


def test_one_alone_stays_as_it_is() -> None:
    assert join("s", [THREE]) == (THREE, [])
