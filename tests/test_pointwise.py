"""The numpy kernels of elementwise operators agree with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs
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


def both(
    body: str, weights: dict[str, np.ndarray], **options: int
) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime and the kernels make of the nodes in ``body``."""
    used = {k: v for k, v in weights.items() if k in body}
    proto = model(body, used, inputs="float[12] x", outputs="float[12] y", **options)
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


@pytest.mark.parametrize(
    "call",
    [
        "IsNaN (v)", "IsInf (v)", "IsInf <detect_positive: int = 0> (v)",
        "IsInf <detect_negative: int = 0> (v)",
    ],
)  # fmt: skip
def test_what_is_no_number(call):
    weights = {"none": np.zeros(12, np.float32)}
    with np.errstate(all="ignore"):
        found, expected = both(
            f"v = Div (x, none)\n c = {call}\n y = Cast <to: int = 1> (c)", weights
        )
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < 12


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


WHOLE = np.array([1, 2, -3, 4, -5, 7, 1, -2, 3, 5, -4, 9], np.int32)


@pytest.mark.parametrize(
    "call",
    [
        *("Div (i, d)", "Mod (i, d)", "Mod <fmod: int = 1> (i, d)", "Max (i, d)", "Abs (i)"),
        *("BitwiseAnd (i, d)", "BitwiseOr (i, d)", "BitwiseXor (i, d)", "BitwiseNot (i)"),
        "CastLike (x, d)",
    ],
)
def test_whole_numbers(call):
    body = f"i = Cast <to: int = 6> (x)\n k = {call}\n y = Cast <to: int = 1> (k)"
    found, expected = both(body, {"d": WHOLE}, opset=18)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bits_are_shifted(direction):
    body = f"""
        a = Abs (x)
        i = Cast <to: int = 12> (a)
        k = BitShift <direction: string = "{direction}"> (i, few)
        y = Cast <to: int = 1> (k)
    """
    np.testing.assert_array_equal(*both(body, {"few": np.arange(12, dtype=np.uint32) % 4}))


@pytest.mark.parametrize(("wide", "narrow"), [(7, 2), (7, 3), (6, 5), (2, 3), (9, 6)])
def test_whole_numbers_cast_to_others_wrap(wide, narrow):
    body = f"""
        w = Cast <to: int = {wide}> (x)
        n = Cast <to: int = {narrow}> (w)
        y = Cast <to: int = 1> (n)
    """
    np.testing.assert_array_equal(*both(body, {}))


@pytest.mark.parametrize(
    "call",
    ["Exp (lo)", "Exp (b)", "Log (a)", "Sqrt (a)", "Pow (a, lo)", "Pow (x, two)", "Mod (x, b)"],
)
def test_curves(call):
    fmod = call.replace("Mod (", "Mod <fmod: int = 1> (")
    body = f"r = Abs (x)\n a = Add (r, hi)\n f = {fmod}\n y = Add (f, x)"
    found, expected = both(body, {**WEIGHTS, "two": np.array(2, np.int64)})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "value", ["", "<value: tensor = float[1] {2.5}>", "<value: tensor = int64[1] {3}>"]
)
def test_a_constant_of_the_shape_of_the_data(value):
    body = f"s = Shape (x)\n c = ConstantOfShape {value} (s)\n f = Cast <to: int = 1> (c)"
    proto = model(body + "\n y = Add (x, f)", inputs="float[12] x", outputs="float[12] y")
    graph, _ = import_graph(proto)
    fill = graph.nodes[1]
    found = pointwise.evaluate(fill, [X], np.dtype(np.float32))
    assert found.dtype == (np.int64 if "int64" in value else np.float32)
    np.testing.assert_array_equal(X + found.astype(np.float32), runtime.run(proto, {"x": X})["y"])


def test_batch_normalization():
    x = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    numbers = {"scale": [1, 2, -1], "shift": [0.5, 0, 1], "mean": [0, 1, 2], "spread": [1, 4, 0.5]}
    weights = {name: np.array(values, np.float32) for name, values in numbers.items()}
    proto = model(
        "y = BatchNormalization (x, scale, shift, mean, spread)", weights, inputs="float[2,3,2] x",
        outputs="float[2,3,2] y",
    )  # fmt: skip
    graph, _ = import_graph(proto)
    (node,) = graph.nodes
    assert pointwise.known(node)
    found = pointwise.evaluate(node, [x, *weights.values()], np.dtype(np.float32))
    np.testing.assert_allclose(found, runtime.run(proto, {"x": x})["y"], rtol=1e-5, atol=1e-6)
    node.attrs["training_mode"] = 1
    assert not pointwise.known(node)


def test_what_dropout_does_is_known_where_it_does_nothing():
    weights = {"ratio": np.array(0.5, np.float32), "no": np.array(False), "yes": np.array(True)}
    for call, known in (
        ("Dropout (x)", True), ("Dropout (x, ratio)", True), ("Dropout (x, ratio, no)", True),
        ("Dropout (x, , yes)", False), ("Dropout (x, ratio, yes)", False),
    ):  # fmt: skip
        used = {k: v for k, v in weights.items() if k in call}
        graph, _ = import_graph(
            model(f"y = {call}", used, inputs="float[12] x", outputs="float[12] y")
        )
        assert pointwise.known(graph.nodes[0]) == known, call
        if known:
            found = pointwise.evaluate(graph.nodes[0], [X, None, None], np.dtype(np.float32))
            np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize("op", ["Gelu", "Erf", "RandomNormalLike"])
def test_what_is_smooth_or_random_is_known_and_has_no_value(op):
    domain = "com.microsoft" if op == "Gelu" else ""
    node = gs.Node(op, inputs=[gs.Variable("x")], outputs=[gs.Variable("y")], domain=domain)
    assert pointwise.known(node)
    with pytest.raises(NotImplementedError, match=op):
        pointwise.evaluate(node, [X], np.dtype(np.float32))


@pytest.mark.parametrize(
    ("op", "domain", "attrs"),
    [
        ("BiasGelu", "com.microsoft", {}),
        ("Relu", "somewhere.else", {}),
        ("QuantizeLinear", "", {"block_size": 2}),
        ("Cast", "", {"to": np.dtype(object)}),
        ("Cast", "", {"to": onnx.TensorProto.STRING}),
    ],
)
def test_what_is_not_known(op, domain, attrs):
    assert not pointwise.known(gs.Node(op, attrs=attrs, domain=domain))


@pytest.mark.parametrize("target", [np.float16, np.float32, np.dtype(np.float64)])
def test_a_cast_that_graphsurgeon_wrote(target):
    node = gs.Node("Cast", attrs={"to": target})
    assert pointwise.known(node)
    found = pointwise.evaluate(node, [WHOLE], np.dtype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, WHOLE)


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
