"""Bounds hold for the worst input there is, found by trying, and are no looser than they say."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from na_convert import worst_case
from na_convert.evaluate import evaluate
from na_convert.unit_scale import NotExact

from . import build

LOW, HIGH = -1.0, 3.0
WEIGHTED = {
    "Conv": ("y = Conv (x, w, b)", "2,2,2", (3, 2, 2, 2), 3),
    "Conv, grouped": ("y = Conv <group: int = 2> (x, w, b)", "4,2,1", (6, 2, 2, 1), 6),
    "ConvTranspose": ("y = ConvTranspose (x, w, b)", "3,1,1", (3, 2, 2, 2), 2),
    "ConvTranspose, grouped": (
        "y = ConvTranspose <group: int = 2> (x, w, b)", "4,1,1", (4, 3, 1, 2), 6,
    ),
    "Gemm": ("y = Gemm (x, w, b)", "5", (5, 4), 4),
    "Gemm, transposed": ("y = Gemm <transB: int = 1> (x, w, b)", "5", (4, 5), 4),
    "Gemm, one bias": ("y = Gemm (x, w, b)", "5", (5, 4), 1),
    "MatMul": ("y = MatMul (x, w)", "5", (5, 4), 0),
    "Mul": ("y = Mul (x, w)", "4", (4,), 0),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTED)
def test_weights_at_their_worst(case: str) -> None:
    """Of inputs at one end or the other none exceeds the bound, and where every output has all of
    its weights, some reach it."""
    body, size, shape, biases = WEIGHTED[case]
    weights: dict = {"w": shape, "b": (biases,)} if biases else {"w": shape}
    graph, _ = build.graph(body, weights, inputs=f"float[N,{size}] x", outputs="float[A] y")
    (node,) = graph.nodes
    weight = np.asarray(node.inputs[1].values, np.float64)
    bias = np.asarray(node.inputs[2].values, np.float64) if biases else None
    sample = [int(n) for n in size.split(",")]
    corners = np.array(list(product((LOW, 0.0, HIGH), repeat=int(np.prod(sample)))))
    y = evaluate(graph, {"x": corners.reshape(-1, *sample)}, ["y"])["y"]
    low, high = worst_case.of_weighted(node, weight, bias, (LOW, HIGH))
    assert low <= y.min() <= y.max() <= high
    if node.op in ("ConvTranspose", "Mul"):
        return
    left_out = 0 if bias is None else np.abs(bias).max()  # the bound holds for partial sums too
    assert y.max() >= high - left_out - 1e-9
    assert y.min() <= low + left_out + 1e-9


PASSING = {
    "Neg (x)": (-3.0, 1.0),
    "Relu (x)": (0.0, 3.0),
    "MaxPool <kernel_shape: ints = [2, 2]> (x)": (-1.0, 3.0),
    "AveragePool <kernel_shape: ints = [2, 4]> (x)": (-1.0, 3.0),
    "ReduceSum (x, rows)": (-4.0, 12.0),
    "ReduceSum (x, channels)": (-2.0, 6.0),
    "ReduceMean <axes: ints = [2, 3]> (x)": (-1.0, 3.0),
    "GlobalAveragePool (x)": (-1.0, 3.0),
}


@pytest.mark.parametrize("call", PASSING)
def test_values_passed_on_or_added_up(call: str) -> None:
    weights = {"rows": np.array([-2]), "channels": np.array([1])}
    used = {k: v for k, v in weights.items() if k in call}
    graph, _ = build.graph(f"y = {call}", used, inputs="float[N,2,4,4] x", outputs="float[A] y")
    (node,) = graph.nodes
    count = worst_case.summed(node, {"x": (2, 4, 4)})
    found = worst_case.of_passing(node, [(LOW, HIGH)], count if node.op == "ReduceSum" else 1)
    assert found == PASSING[call]
    ends = np.stack([np.full((2, 4, 4), LOW), np.full((2, 4, 4), HIGH)])
    y = evaluate(graph, {"x": ends}, ["y"])["y"]
    assert (min(0.0, y.min()), max(0.0, y.max())) == found


def test_sums_and_differences() -> None:
    terms = [(-1.0, 3.0), (-5.0, 0.5)]
    assert worst_case.of_sum(gs.Node("Add"), terms) == (-6.0, 3.5)
    assert worst_case.of_sum(gs.Node("Sub"), terms) == (-1.5, 8.0)
    assert worst_case.of_sum(gs.Node("Sum"), [*terms, (0.0, 1.0)]) == (-6.0, 4.5)


REFUSED = {
    "AveragePool <kernel_shape: ints = [3, 3]> (x)": "an average over 9 values",
    "AveragePool <kernel_shape: ints = [4, 4], pads: ints = [1, 1, 1, 1]> (x)": (
        "fewer pixels at the border"
    ),
    "AveragePool <kernel_shape: ints = [4, 4], ceil_mode: int = 1> (x)": (
        "fewer pixels at the border"
    ),
    'AveragePool <kernel_shape: ints = [4, 4], auto_pad = "SAME_UPPER"> (x)': (
        "fewer pixels at the border"
    ),
    "GlobalAveragePool (x)": "an average over 12 values",
    "ReduceMean <axes: ints = [3]> (x)": "an average over 3 values",
    "ReduceMean <keepdims: int = 1> (x)": "its axes are not known",
    "ReduceSum (x, axis)": "its axes are not known",
    "Pad (x, pads, one)": "pads with another value than 0",
    "Pad (x, pads, x)": "pads with another value than 0",
    'Resize <mode: string = "linear"> (x, , scales)': "Resize in mode linear",
}


@pytest.mark.parametrize("call", REFUSED)
def test_what_no_grid_holds_is_named(call: str) -> None:
    weights = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": 1.0,
        "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    used = {k: v for k, v in weights.items() if k in call}
    inputs = "float[N,2,4,3] x, int64[1] axis"
    graph, _ = build.graph(f"y = {call}", used, inputs=inputs, outputs="float[A] y")
    (node,) = graph.nodes
    with pytest.raises(NotExact, match=REFUSED[call]) as found:
        worst_case.summed(node, {"x": (2, 4, 3)})
    assert found.value.node == f"{node.op}_0"


@pytest.mark.parametrize("size", [None, (2, None, 4)])
def test_an_average_over_an_unknown_size_is_named(size: tuple[int | None, ...] | None) -> None:
    graph, _ = build.graph("y = GlobalAveragePool (x)")
    with pytest.raises(NotExact, match="the shape of 'x' is not known"):
        worst_case.summed(graph.nodes[0], {"x": size})


@pytest.mark.parametrize(
    "attrs",
    [
        "kernel_shape: ints = [2, 2], pads: ints = [1, 1, 1, 1]",
        "kernel_shape: ints = [4, 4], pads: ints = [1, 1, 1, 1], count_include_pad: int = 1",
        'kernel_shape: ints = [4, 4], auto_pad = "VALID"',
    ],
)
def test_an_average_at_the_border_over_a_power_of_two(attrs: str) -> None:
    graph, _ = build.graph(f"y = AveragePool <{attrs}> (x)")
    kernel = 4 if "4, 4" in attrs else 2
    assert worst_case.summed(graph.nodes[0], {}) == kernel**2
