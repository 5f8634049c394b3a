"""Linear operators in a row as one: the same sums exactly, or refused by name."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes import quantise_weights
from na_convert.passes.compose_terms import as_dense, beside, convolved, multiplied
from na_convert.passes.count_values import Counts, NoIntegerForm, Sum, Term

from na_convert import kernels
from na_convert.errors import NotConvertible
from na_convert.forms.int8_unrolled import int8_parts
from na_convert.integer import Window, run
from na_convert.integer_running import counts_in_onnxruntime

from . import build
from .int8_cases import CASES, case
from .int8_cases import network as build_network

T = 4


def conv(x: np.ndarray, weight: np.ndarray, window: Window) -> np.ndarray:
    node = gs.Node("Conv", attrs=window.attributes())
    return kernels.conv(node, [x, weight], np.dtype(np.float64))


def counts(shape: tuple[int, ...]) -> Counts:
    return Counts("n", shape, np.ones(()), np.zeros(()), T)


@st.composite
def windows(draw: st.DrawFn, channels: int) -> tuple[np.ndarray, Window]:
    """Whole weights [O, channels / group, ...], and where they look."""
    group = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outputs = group * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    most = 2 if draw(st.booleans()) else 0
    window = Window(
        tuple(draw(st.integers(1, 3)) for _ in kernel),
        tuple(draw(st.integers(0, most)) for _ in range(4)),
        tuple(draw(st.integers(1, 2)) for _ in kernel),
        group,
    )
    values = draw(st.integers(0, 2**16))
    shape = (outputs, channels // group, *kernel)
    weight = np.random.default_rng(values).integers(-5, 6, shape).astype(np.float64)
    return weight, window


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_convolution_behind_another(data: st.DataObject) -> None:
    """Equal everywhere, or refused; never refused without padding in the second."""
    first, before = data.draw(windows(4))
    second, after = data.draw(windows(len(first)))
    shape = (4, data.draw(st.integers(6, 12)), data.draw(st.integers(6, 12)))
    x = np.random.default_rng(1).integers(0, 5, (2, *shape)).astype(np.float64)
    inner = conv(x, first, before)
    reach = [d * (k - 1) + 1 for d, k in zip(after.dilations, second.shape[2:], strict=True)]
    room = [n + after.pads[i] + after.pads[i + 2] for i, n in enumerate(inner.shape[2:])]
    if any(r > n for r, n in zip(reach, room, strict=True)):
        return  # the second kernel does not fit
    bias = np.arange(1.0, 1 + len(first)).reshape(-1, 1, 1)
    value = Sum(terms=(Term(counts(shape), first, before),), bias=bias)
    try:
        found = convolved(value, second, after, inner.shape[1:])
    except NoIntegerForm:
        assert any(after.pads)  # and see below what is refused
        return
    (term,) = found.terms
    assert term.window is not None
    made = conv(x, term.weight, term.window) + found.bias
    np.testing.assert_array_equal(made, conv(inner + bias, second, after))


def test_averages_of_whole_windows_may_be_padded_behind() -> None:
    """What is most common: a 2x2 average, then a padded 3x3 convolution."""
    average = Window((2, 2), (0,) * 4, (1, 1), 4)
    padded = Window((1, 1), (1,) * 4, (1, 1))
    rng = np.random.default_rng(0)
    weight = rng.integers(-5, 6, (6, 4, 3, 3)).astype(np.float64)
    for size, fits in ((8, True), (9, False)):  # of 9 pixels one is left over at the end
        value = Sum(terms=(Term(counts((4, size, size)), np.ones((4, 1, 2, 2)), average),))
        if not fits:
            with pytest.raises(NoIntegerForm, match="pads sums"):
                convolved(value, weight, padded, (4, 4, 4))
            continue
        (term,) = convolved(value, weight, padded, (4, 4, 4)).terms
        x = rng.integers(0, 5, (2, 4, size, size)).astype(np.float64)
        wanted = conv(conv(x, np.ones((4, 1, 2, 2)), average), weight, padded)
        assert term.window is not None
        np.testing.assert_array_equal(conv(x, term.weight, term.window), wanted)


def test_a_pixel_flattened() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-5, 6, (4, 2, 3, 2)).astype(np.float64)
    window = Window((1, 1), (1, 0, 0, 1), (1, 2), 2)
    x = rng.integers(0, 5, (2, 4, 2, 2)).astype(np.float64)
    wanted = conv(x, weight, window)
    assert wanted.shape == (2, 4, 1, 1)
    matrix = as_dense(Term(counts((4, 2, 2)), weight, window))
    np.testing.assert_array_equal(x.reshape(2, -1) @ matrix.T, wanted[:, :, 0, 0])


def test_side_by_side_and_dense() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (2, 3)).astype(np.float64)
    first, second = (rng.integers(-5, 6, s).astype(np.float64) for s in ((2, 3), (4, 5)))
    source = counts((3,))
    term, identity = (
        Sum(terms=(Term(source, first, None),), bias=np.ones(2)),
        Sum(identities=((source, np.full((), 2.0)),)),
    )
    joined = beside([term, identity], [(2,), (3,)])
    wanted = np.concatenate([x @ first.T + 1, 2 * x], axis=1)
    made = sum(x @ t.weight.T for t in joined.terms) + joined.bias
    np.testing.assert_array_equal(made, wanted)
    product = multiplied(joined, second)
    made = sum(x @ t.weight.T for t in product.terms) + product.bias
    np.testing.assert_array_equal(made, wanted @ second.T)


def refusal(body: str, weights: dict) -> object:
    with pytest.raises(NotConvertible) as raised:
        quantise_weights.run(build_network(body, weights), T)
    return raised.value.refused[0]


def test_padding_between_two_large_kernels_is_refused_by_name() -> None:
    body, weights = CASES["bias in front of padding"]
    found = refusal(body, {**weights, "w2": (3, 4, 2, 2)})
    assert (found.op, found.node) == ("Conv", "Conv_3")
    assert "no neurons in between" in found.reason
    assert "put a quantised activation before it" in found.remedy


def test_an_analog_current_does_not_go_through_weights() -> None:
    body, weights = CASES["analog skip"]
    last = "c3 = Conv (s2, w3)\n" + build.stair("c3", "last")
    body = body.replace(build.stair("s2", "last"), last)
    found = refusal(body, {**weights, "w3": (4, 4, 1, 1)})
    assert found.op == "Conv"
    assert "holds an analog one ('c1')" in found.reason


def test_a_maximum_of_currents_does_not_go_through_weights() -> None:
    body, weights = CASES["max pool before neurons"]
    body = body.replace(build.stair("p", "last"), "c3 = Conv (p, w3)\n" + build.stair("c3", "last"))
    found = refusal(body, {**weights, "w3": (6, 6, 1, 1)})
    assert found.op == "Conv"
    assert "a maximum of currents" in found.reason


def test_products_that_would_be_huge_are_refused() -> None:
    plain = Window((1, 1), (0,) * 4, (1, 1))
    value = Sum(terms=(Term(counts((2**13, 1, 1)), np.zeros((2, 2**13, 1, 1)), plain),))
    with pytest.raises(NoIntegerForm, match="it has 134217728 weights"):
        convolved(value, np.zeros((2**14, 2, 1, 1)), plain, (2, 1, 1))


@pytest.mark.parametrize(("timesteps", "moved"), [(63, True), (64, False)])
def test_averages_that_a_uint8_does_not_hold_become_weights(timesteps: int, moved: bool) -> None:
    network = quantise_weights.run(case("average pool", timesteps), timesteps).network
    assert ("SumPool" in {getattr(op, "op", "") for op in network.operations}) == moved
    (product,) = network.layers[1].products
    assert product.weight.shape[2:] == ((3, 3) if moved else (6, 6))
    feeds = {"x": build.images(1)}
    found, analog = counts_in_onnxruntime(int8_parts(network).whole(), network, feeds)
    for name, wanted in run(network, feeds, timesteps, analog).counts.items():
        np.testing.assert_array_equal(found[name], wanted)


def test_channels_of_a_concat_keep_their_places() -> None:
    """The view of the joined currents has the float network's currents (see test_int8, too)."""
    network = quantise_weights.run(case("currents side by side"), T).network
    (product,) = network.layers[1].products
    assert product.weight.shape == (7, 4 + 4, 3, 3)
    assert not np.any(product.weight[3:, :4])
    assert not np.any(product.weight[:3, 4:])
