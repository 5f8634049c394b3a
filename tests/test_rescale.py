"""Weights under a change of scale: the node maps ``given * x`` to ``wanted * y``."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes import rescale
from na_convert.passes.single_node import evaluate_node

from na_convert.graph import constant
from na_convert.unit_scale import NotExact

RNG = np.random.default_rng(0)
OPSET = 17


def drawn(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2.0, shape).astype(np.float32)


ROWS, IMAGE = (2, 6), (2, 6, 5, 5)
NODES: dict[str, tuple[str, dict[str, object], list[tuple[int, ...]], tuple[int, ...]]] = {
    "Conv": ("Conv", {}, [(4, 6, 3, 3), (4,)], IMAGE),
    "Conv without bias": ("Conv", {}, [(4, 6, 3, 3)], IMAGE),
    "Conv in groups": ("Conv", {"group": 3}, [(9, 2, 2, 2), (9,)], IMAGE),
    "ConvTranspose": ("ConvTranspose", {}, [(6, 4, 3, 3), (4,)], IMAGE),
    "ConvTranspose in groups": ("ConvTranspose", {"group": 3}, [(6, 3, 2, 2), (9,)], IMAGE),
    "Gemm": ("Gemm", {"alpha": 0.5, "beta": 3.0}, [(6, 4), (4,)], ROWS),
    "Gemm with a row": ("Gemm", {}, [(6, 4), (1, 4)], ROWS),
    "Gemm transposed": ("Gemm", {"transB": 1}, [(4, 6), (4,)], ROWS),
    "Gemm without bias": ("Gemm", {"alpha": 2.0}, [(6, 4)], ROWS),
    "MatMul": ("MatMul", {}, [(6, 4)], ROWS),
    "Mul": ("Mul", {}, [(6, 1, 1)], IMAGE),
    "Mul of rows": ("Mul", {}, [(6,)], ROWS),
    "Div": ("Div", {}, [(1, 6, 1, 1)], IMAGE),
}


def made(name: str) -> tuple[gs.Node, np.ndarray]:
    op, attributes, shapes, given_shape = NODES[name]
    constants = [constant(f"k{i}", drawn(*shape)) for i, shape in enumerate(shapes)]
    node = gs.Node(op, name, dict(attributes), [gs.Variable("x"), *constants], [gs.Variable("y")])
    return node, drawn(*given_shape)


def computed(node: gs.Node, x: np.ndarray) -> np.ndarray:
    given_values = [x, *(t.values for t in node.inputs[1:])]
    return np.asarray(evaluate_node(node, given_values, OPSET)[0])


def along(scale: np.ndarray, rank: int) -> np.ndarray:
    return scale if scale.size == 1 else scale.reshape(-1, *[1] * (rank - 2))


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_is_scaled_goes_in_and_comes_out(name: str, data: st.DataObject) -> None:
    node, x = made(name)
    y = computed(node, x)
    scales = []
    for channels in (x.shape[1], y.shape[1]):
        count = data.draw(st.sampled_from([1, channels]))
        drawn_scale = data.draw(
            st.lists(st.floats(0.25, 4.0), min_size=count, max_size=count), "scale"
        )
        scales.append(np.asarray(drawn_scale if count > 1 else drawn_scale[0]))
    into, out = scales
    if node.op in ("Mul", "Div") and into.size != out.size:
        into = np.broadcast_to(into, (x.shape[1],))
    known = rescale.rescaled(node, into, out, y.ndim)
    assert known.weight.dtype == np.float32
    bias = None if known.bias is None else constant("b", known.bias.astype(np.float32))
    rescale.write(node, constant("w", known.weight), bias)
    found = computed(node, (x * along(into, x.ndim)).astype(np.float32))
    np.testing.assert_allclose(found, y * along(out, y.ndim), rtol=2e-5)
    assert not {"alpha", "beta"} & set(node.attrs)


EACH, ONE = np.linspace(1, 2, 6), np.ones(())


@pytest.mark.parametrize("scales", [(EACH, ONE), (ONE, EACH)])
def test_a_scale_per_channel_needs_to_know_which_axis_they_are(
    scales: tuple[np.ndarray, np.ndarray],
) -> None:
    node, _ = made("Mul")
    with pytest.raises(NotExact, match="unknown number of dimensions"):
        rescale.rescaled(node, *scales, None)


def test_one_scale_does_not() -> None:
    node, _ = made("Mul")
    found = rescale.rescaled(node, ONE, 2 * ONE, None).weight
    np.testing.assert_array_equal(found, 2 * node.inputs[1].values)


@pytest.mark.parametrize("scales", [(EACH, ONE), (ONE, EACH)])
@pytest.mark.parametrize(("shape", "rank"), [((6, 6), 3), ((2, 6, 6), 2), ((2, 6, 6), 3)])
def test_a_stack_of_matrices_takes_one_scale(
    scales: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...], rank: int
) -> None:
    weight = constant("w", drawn(*shape))
    node = gs.Node("MatMul", inputs=[gs.Variable("x"), weight], outputs=[gs.Variable("y")])
    with pytest.raises(NotExact, match="stack of matrices"):
        rescale.rescaled(node, *scales, rank)
    found = rescale.rescaled(node, 2 * ONE, ONE, rank).weight
    np.testing.assert_array_equal(found, weight.values / 2)


def test_a_transposed_input_is_no_matrix_on_rows() -> None:
    node, _ = made("Gemm")
    node.attrs["transA"] = 1
    with pytest.raises(NotExact, match="transposes its input"):
        rescale.rescaled(node, ONE, ONE, 2)
