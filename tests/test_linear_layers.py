"""An affine function goes into the layer before it, or after it, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from na_convert.passes.linear_layers import (
    Affine,
    Linear,
    input_channels,
    linear_layer,
    scale_input,
    scale_output,
)
from na_convert.passes.node_builder import Builder

from na_convert.graph import Carried

from .build import graph
from .same import run

IMAGE, ROWS = (2, 6, 5, 5), (2, 6)
LAYERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "Conv": ("Conv (r, w, k)", {"w": (4, 6, 3, 3), "k": (4,)}, IMAGE),
    "Conv without bias": ("Conv (r, w)", {"w": (4, 6, 3, 3)}, IMAGE),
    "Conv in groups": ("Conv <group = 3> (r, w, k)", {"w": (9, 2, 2, 2), "k": (9,)}, IMAGE),
    "Conv with padding": ("Conv <pads = [1,0,0,1]> (r, w)", {"w": (4, 6, 3, 3)}, IMAGE),
    "Conv VALID": ('Conv <auto_pad = "VALID"> (r, w)', {"w": (4, 6, 3, 3)}, IMAGE),
    "Conv SAME_UPPER": ('Conv <auto_pad = "SAME_UPPER"> (r, w)', {"w": (4, 6, 3, 3)}, IMAGE),
    "ConvTranspose": ("ConvTranspose (r, w, k)", {"w": (6, 4, 3, 3), "k": (4,)}, IMAGE),
    "ConvTranspose in groups": (
        "ConvTranspose <group = 3> (r, w)", {"w": (6, 3, 2, 2)}, IMAGE),
    "Gemm": (
        "Gemm <alpha = 0.5, beta = 3.0> (r, w, k)", {"w": (6, 4), "k": (4,)}, ROWS),
    "Gemm of square weights": ("Gemm (r, w, k)", {"w": (6, 6), "k": (6,)}, ROWS),
    "Gemm with one number": ("Gemm <transB = 1> (r, w, k)", {"w": (4, 6), "k": 0.7}, ROWS),
    "Gemm without bias": ("Gemm <transB = 1, alpha = 2.0> (r, w)", {"w": (4, 6)}, ROWS),
    "Gemm of the transposed": ("Gemm <transA = 1> (r, w)", {"w": (2, 4)}, ROWS),
    "MatMul": ("MatMul (r, w)", {"w": (6, 4)}, ROWS),
    "MatMul and Add": ("Add (m, k)", {"w": (6, 4), "k": (1, 4)}, ROWS),
    "Add and MatMul": ("Add (k, m)", {"w": (6, 4), "k": np.float32([0.3])}, ROWS),
}  # fmt: skip


def made(name: str) -> tuple[gs.Graph, Carried, Linear, np.ndarray]:
    """r = Neg (x), the layer c, y = Identity (c)."""
    layer, weights, shape = LAYERS[name]
    product = "m = MatMul (r, w)\n" if "m)" in layer or "(m" in layer else ""
    body = f"r = Neg (x)\n {product} c = {layer}\n y = Identity (c)"
    dims = ",".join(str(d) for d in shape)
    out = "float[N,C,H,W] y" if shape == IMAGE else "float[N,C] y"
    net, carried = graph(body, weights, inputs=f"float[{dims}] x", outputs=out)
    tensor = next(t for t in net.tensors().values() if t.name == "c")
    linear = linear_layer(net, tensor, {"c": len(shape), "m": len(shape)})
    assert isinstance(linear, Linear)
    assert linear.output is tensor
    x = np.random.default_rng(1).uniform(0.5, 2, shape).astype(np.float32)
    return net, carried, linear, x


def drawn(data: st.DataObject, channels: int) -> Affine:
    numbers = arrays(np.float64, channels, elements=st.floats(-2, 2, width=16))
    gain = data.draw(numbers, "gain")
    shift = data.draw(st.one_of(st.just(np.zeros(channels)), numbers), "shift")
    return Affine(gain, shift)


def applied(affine: Affine, values: np.ndarray) -> np.ndarray:
    shape = (-1, *[1] * (values.ndim - 2))
    return values * affine.gain.reshape(shape) + affine.shift.reshape(shape)


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_layer_computes_what_came_behind_it(name: str, data: st.DataObject) -> None:
    net, carried, linear, x = made(name)
    before = run(net, carried, {"x": x})["y"]
    assert linear.channels == before.shape[1]
    affine = drawn(data, linear.channels)
    builder = Builder(net)
    (behind,) = (n for n in net.nodes if n.op == "Identity")
    assert scale_output(builder, linear, affine, builder.take_output(behind))
    builder.remove(behind)
    net.cleanup().toposort()
    wanted = applied(affine, before)
    np.testing.assert_allclose(run(net, carried, {"x": x})["y"], wanted, rtol=1e-4, atol=1e-4)
    added = name in ("MatMul and Add", "Add and MatMul")
    needed = name == "MatMul" and np.any(affine.shift)
    assert [n.op for n in net.nodes].count("Add") == int(added or needed)


REASONS = {
    "ConvTranspose": "takes no affine function before it",
    "ConvTranspose in groups": "takes no affine function before it",
    "Gemm of the transposed": "takes no affine function before it",
    "Conv with padding": "pads with zeros",
    "Conv SAME_UPPER": "pads with zeros",
    "MatMul": "has no bias",
}


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_layer_takes_what_came_before_it(name: str, data: st.DataObject) -> None:
    net, carried, linear, x = made(name)
    affine = drawn(data, 6)
    wanted = run(net, carried, {"x": -applied(affine, -x).astype(np.float32)})["y"]
    unchanged = run(net, carried, {"x": x})["y"]
    reason = scale_input(Builder(net), linear, affine)
    net.cleanup().toposort()
    if reason is not None:
        assert REASONS[name] in reason
        assert "Transpose" in name or "transposed" in name or np.any(affine.shift)
        np.testing.assert_array_equal(run(net, carried, {"x": x})["y"], unchanged)
        return
    assert "transposed" not in name
    assert "Transpose" not in name
    assert input_channels(linear) == 6
    found = run(net, carried, {"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def layer_of(body: str, weights: dict[str, Any], rank: int = 2) -> Linear | str | None:
    net, _ = graph(f"{body}\n y = Neg (c)", weights, inputs="float[N,6] x", outputs="float[N,M] y")
    tensor = next(t for t in net.tensors().values() if t.name == "c")
    return linear_layer(net, tensor, {"c": rank})


NONE: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "another operator": ("c = Relu (x)", {}, None),
    "a sum of two": ("a = Neg (x)\n c = Add (a, x)", {}, None),
    "a product of two": (
        "a = Transpose (x)\n c = MatMul (x, a)", {}, "the weights are computed in the graph"),
    "a stack": ("c = MatMul (x, w)", {"w": (3, 6, 4)}, "the weights are no matrix"),
    "a bias that is computed": (
        "k = ReduceMean <axes = [0], keepdims = 0> (x)\n c = Gemm (x, w, k)", {"w": (6, 6)},
        "the bias is computed in the graph"),
    "a bias for each sample": (
        "c = Gemm (x, w, k)", {"w": (6, 4), "k": (2, 4)}, "its bias is no vector per channel"),
    "an addend for each sample": (
        "m = MatMul (x, w)\n c = Add (m, k)", {"w": (6, 4), "k": (2, 4)},
        "its bias is no vector per channel"),
    "an addend to weights that are computed": (
        "a = Transpose (x)\n m = MatMul (x, a)\n c = Add (m, k)", {"k": (1,)},
        "the weights are computed in the graph"),
    "an addend that is computed": (
        "m = MatMul (x, w)\n a = ReduceMean <axes = [1]> (x)\n c = Add (m, a)", {"w": (6, 4)},
        None),
    "a product used elsewhere": (
        "m = MatMul (x, w)\n a = Add (m, k)\n b = Relu (m)\n c = Add (m, k)",
        {"w": (6, 4), "k": (4,)}, "the product is used elsewhere, too"),
}  # fmt: skip


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_layer_to_change(case: str) -> None:
    body, weights, reason = NONE[case]
    assert layer_of(body, weights) == reason


@pytest.mark.parametrize("body", ["c = MatMul (x, w)", "m = MatMul (x, w)\n c = Add (m, k)"])
@pytest.mark.parametrize("rank", [1, 3])
def test_channels_of_a_matmul_lie_on_axis_1_of_rows_only(body: str, rank: int) -> None:
    assert layer_of(body, {"w": (6, 4), "k": (4,)}, rank) is None


def test_a_graph_input_is_computed_by_no_layer() -> None:
    net, _ = graph("y = Neg (x)", inputs="float[N,6] x")
    assert linear_layer(net, net.inputs[0], {"x": 2}) is None


@pytest.mark.parametrize(
    "affine",
    [
        Affine(np.full(6, 1e300), np.zeros(6)),
        Affine(np.ones(6), np.array([0, 0, 0, 0, 0, 1e300])),
    ],
)
def test_what_the_type_of_the_weights_cannot_hold_is_left(affine: Affine) -> None:
    for name in ("Gemm of square weights", "MatMul and Add"):
        net, carried, linear, x = made(name)
        before = run(net, carried, {"x": x})["y"]
        four = Affine(affine.gain[-linear.channels :], affine.shift[-linear.channels :])
        assert not scale_output(Builder(net), linear, four, gs.Variable("free"))
        assert scale_input(Builder(net), linear, affine) == (
            "float32 cannot hold the product with the weights"
        )
        np.testing.assert_array_equal(run(net, carried, {"x": x})["y"], before)


def test_one_affine_function_behind_another() -> None:
    first, second = Affine(np.array([2.0]), np.array([3.0])), Affine(np.array([5.0]), np.ones(1))
    both = first.then(second)
    assert (both.gain.tolist(), both.shift.tolist()) == ([10.0], [16.0])
