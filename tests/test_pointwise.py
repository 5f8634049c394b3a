"""The numpy kernels of elementwise operators agree with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import pytest

from na_convert import pointwise, runtime
from na_convert.graph import import_graph

from .build import model

X = np.array([-7.5, -2.5, -1.0, -0.5, -1e-3, 0.0, 0.3, 0.5, 1.5, 2.5, 6.1, 250.0], np.float32)
B = np.array([0.5, 2.0, -1.0, -0.5, 3.0, 1.0, 0.3, 4.0, 1.5, -2.5, 2.0, 8.0], np.float32)

ONE = [
    *("Abs (x)", "Ceil (x)", "Floor (x)", "Round (x)", "Neg (x)", "Relu (x)", "Sign (x)"),
    *("Sigmoid (x)", "Tanh (x)", "Softplus (x)", "Softsign (x)", "HardSigmoid (x)"),
    "HardSigmoid <alpha: float = 0.25, beta: float = 0.4> (x)",
    *("LeakyRelu (x)", "LeakyRelu <alpha: float = 0.2> (x)", "ThresholdedRelu (x)"),
    *("Shrink (x)", "Shrink <bias: float = 0.3, lambd: float = 1.0> (x)", "Identity (x)"),
    *("Clip (x)", "Clip (x, lo)", "Clip (x, lo, hi)", "Clip (x, , hi)", "Reciprocal (b)"),
]
TWO = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


def both(body: str, weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime and the kernels make of the nodes in ``body``."""
    used = {k: v for k, v in weights.items() if k in body}
    proto = model(body, used, inputs="float[12] x", outputs="float[12] y")
    expected = runtime.run(proto, {"x": X})["y"]
    graph, _ = import_graph(proto)
    known = {"x": X, **used}
    for node in graph.nodes:
        assert pointwise.known(node)
        inputs = [known.get(t.name) for t in node.inputs]
        value = pointwise.evaluate(node, inputs, np.dtype(np.float32))
        known[node.outputs[0].name] = value
    return known["y"], expected


WEIGHTS = {"b": B, "lo": np.array(-1.5, np.float32), "hi": np.array(2.0, np.float32)}


@pytest.mark.parametrize("call", [*ONE, *(f"{op} (x, b)" for op in TWO)])
def test_kernel(call):
    found, expected = both(f"y = {call}", WEIGHTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparison(op):
    found, expected = both(f"c = {op} (x, b)\n y = Cast <to: int = 1> (c)", WEIGHTS)
    np.testing.assert_array_equal(found, expected)


def test_where_and_logic():
    body = """
        c = Greater (x, lo)
        d = Less (x, hi)
        e = And (c, d)
        f = Or (c, d)
        g = Xor (e, f)
        h = Not (g)
        y = Where (h, x, b)
    """
    np.testing.assert_array_equal(*both(body, WEIGHTS))


@pytest.mark.parametrize("target", [2, 3, 6, 7])
def test_cast_truncates(target):
    body = f"c = Clip (x, lo, hi)\n a = Abs (c)\n i = Cast <to: int = {target}> (a)\n" + (
        "y = Cast <to: int = 1> (i)"
    )
    np.testing.assert_array_equal(*both(body, WEIGHTS))


@pytest.mark.parametrize("target", [2, 3, 4, 5])
def test_cast_out_of_a_narrow_range_wraps_as_in_onnxruntime(target):
    body = f"l = Mul (x, large)\n i = Cast <to: int = {target}> (l)\n y = Cast <to: int = 1> (i)"
    np.testing.assert_array_equal(*both(body, {**WEIGHTS, "large": np.float32(700)}))


def test_cast_out_of_a_wide_range_saturates():
    graph, _ = import_graph(
        model("y = Cast <to: int = 6> (x)", inputs="float[N] x", outputs="int32[N] y")
    )
    value = pointwise.evaluate(graph.nodes[0], [np.array([-1e12, 1e12])], np.dtype(np.float64))
    np.testing.assert_array_equal(value, np.array([-(2**31), 2**31 - 1], np.int32))


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(7), np.int8(-5)])
def test_quantize_and_dequantize(zero):
    body = "q = QuantizeLinear (x, hi, z)\n y = DequantizeLinear (q, hi, z)"
    np.testing.assert_array_equal(*both(body, {**WEIGHTS, "z": np.array(zero)}))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Cast", {"to": onnx.TensorProto.FLOAT8E4M3FN}),
        ("Cast", {"to": onnx.TensorProto.BFLOAT16}),
        ("Dropout", {}),
        ("Softmax", {}),
    ],
)
def test_what_is_not_elementwise(op, attrs):
    node = onnx.helper.make_node(op, ["x", "ratio", "mode"][: 3 if op == "Dropout" else 1], ["y"],
                                 **attrs)  # fmt: skip
    values = [onnx.helper.make_tensor_value_info(n, 1, [3]) for n in "xy"]
    extra = [
        onnx.helper.make_tensor("ratio", 1, [], [0.5]), onnx.helper.make_tensor("mode", 9, [], [1])
    ]  # fmt: skip
    proto = onnx.helper.make_graph([node], "g", values[:1], values[1:], extra)
    graph, _ = import_graph(onnx.helper.make_model(proto))
    assert not pointwise.known(graph.nodes[0])
