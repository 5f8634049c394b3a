"""find_activations: each spelling becomes one node that computes the same, or is refused."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from na_convert.passes import find_activations
from na_convert.passes.find_activations import explain

from na_convert import activation_search, runtime
from na_convert.errors import UsageError
from na_convert.graph import export_graph, import_graph, is_ours

from .build import model

STEP, TOP = 0.37, 7
LSQ = """
    u = Div (x, s)
    c = Clip (u, zero, top)
    r = Round (c)
    y = Mul (r, s)
"""
NUMBERS = {"s": STEP, "zero": 0.0, "top": 7.0, "half": 0.5, "one": 1.0, "a": 2.7}
SHAPE = "float[N,4,3,3]"


def convert(proto: onnx.ModelProto):
    """The pass on ``proto``: the report, our nodes, the new model."""
    graph, carried = import_graph(proto)
    report = find_activations.run(graph)
    ours = [node for node in graph.nodes if is_ours(node, "Staircase", "Ramp")]
    converted = export_graph(graph, carried)
    onnx.checker.check_model(converted, full_check=True)
    return report, ours, converted


def spelled(body: str, weights=None, *, shape: str = SHAPE, **kwargs) -> onnx.ModelProto:
    """A model with ``body`` from x to y, both of ``shape``; only the weights that it reads."""
    every = {**NUMBERS, **(weights or {})}
    used = {k: v for k, v in every.items() if k in body.replace("(", " ").replace(")", " ")}
    return model(body, used, inputs=f"{shape} x", outputs=f"{shape} y", **kwargs)


def check_equal(before: onnx.ModelProto, after: onnx.ModelProto, x: np.ndarray, s: float) -> None:
    """Equal but for values within rounding of a jump, which are rare."""
    (name,) = {i.name for i in before.graph.input} & {"x"}
    y, z = (runtime.run(p, {name: x})["y"] for p in (before, after))
    wrong = np.abs(y - z) > 1e-4 * abs(s)
    assert np.mean(wrong) < 1e-3, f"{np.sum(wrong)} of {wrong.size} differ"


def values(node) -> list[np.ndarray]:
    return [np.asarray(t.values) for t in node.inputs[1:]]


def images(scale: float = 3.0, shape: tuple[int, ...] = (16, 4, 3, 3)) -> np.ndarray:
    return (scale * np.random.default_rng(5).standard_normal(shape)).astype(np.float32)


# --- spellings of one staircase: d = s = 0.37, p = 7 ----------------------------------------------

SPELLINGS = {
    "lsq": LSQ,
    "floor": "u = Div (x, s)\n v = Add (u, half)\n f = Floor (v)\n c = Clip (f, zero, top)\n"
    "y = Mul (c, s)",
    "max_min": "u = Div (x, s)\n m = Max (u, zero)\n n = Min (m, top)\n r = Round (n)\n"
    "y = Mul (r, s)",
    "straight_through": "u = Div (x, s)\n c = Clip (u, zero, top)\n r = Round (c)\n"
    "d = Sub (r, c)\n q = Add (c, d)\n y = Mul (q, s)",
    "relu_before": "p = Relu (x)\n u = Div (p, s)\n r = Round (u)\n c = Min (r, top)\n"
    "y = Mul (c, s)",
    "cast": "u = Div (x, s)\n c = Clip (u, zero, top)\n v = Add (c, half)\n"
    "i = Cast <to: int = 6> (v)\n g = Cast <to: int = 1> (i)\n y = Mul (g, s)",
    "reciprocal": "w = Reciprocal (s)\n u = Mul (x, w)\n c = Clip (u, zero, top)\n r = Round (c)\n"
    "y = Mul (r, s)",
    "zeros_like": "shape = Shape (x)\n z = ConstantOfShape (shape)\n u = Div (x, s)\n"
    "m = Max (u, z)\n c = Min (m, top)\n r = Round (c)\n y = Mul (r, s)",
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings_of_one_staircase(body):
    before = spelled(body)
    if "Reciprocal" in body:  # a constant subgraph, which normalise folds
        before = spelled(body.replace("w = Reciprocal (s)\n", ""), {"w": 1 / np.float32(STEP)})
    report, (node,), after = convert(before)
    assert report.changed == 1
    assert report.refused == ()
    assert (node.op, node.attrs["levels"]) == ("Staircase", TOP)
    assert (node.inputs[0].name, node.outputs[0].name) == ("x", "y")
    np.testing.assert_allclose(np.ravel(values(node)), [STEP, STEP, 0, 0.5], rtol=1e-6)
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize(
    "body",
    [
        "p = Abs (x)\n m = Sub (x, a)\n q = Abs (m)\n d = Sub (p, q)\n e = Add (d, a)\n"
        "h = Mul (e, half)\n u = Mul (h, top)\n v = Div (u, a)\n r = Round (v)\n w = Mul (r, a)\n"
        "y = Div (w, top)",
        "l = Less (x, a)\n w = Where (l, x, a)\n m = Max (w, zero)\n u = Div (m, a)\n"
        "v = Mul (u, top)\n t = Add (v, half)\n f = Floor (t)\n g = Div (f, top)\n y = Mul (g, a)",
        "c = Clip (x, zero, a)\n u = Div (c, a)\n v = Mul (u, top)\n r = Round (v)\n"
        "g = Div (r, top)\n y = Mul (g, a)",
    ],
    ids=["abs", "where", "clip"],
)
def test_pact(body):
    before = spelled(body)
    _, (node,), after = convert(before)
    np.testing.assert_allclose(values(node)[0], np.float32(2.7) / 7, rtol=1e-6)
    assert node.attrs["levels"] == 7
    check_equal(before, after, images(), 2.7 / 7)


def test_comparisons_along_an_extra_axis():
    body = """
        w = Unsqueeze (x, last)
        g = GreaterOrEqual (w, ladder)
        f = Cast <to: int = 1> (g)
        n = ReduceSum <keepdims: int = 0> (f, last)
        y = Mul (n, s)
    """
    weights = {"ladder": np.arange(0.5, 4).astype(np.float32) * np.float32(STEP),
               "last": np.array([-1])}  # fmt: skip
    before = spelled(body, weights)
    _, (node,), after = convert(before)
    assert (node.attrs["levels"], node.attrs["tie_rule"]) == (4, "half_up")
    np.testing.assert_allclose(np.ravel(values(node)), [STEP, STEP, 0, 0.5], rtol=1e-6)
    check_equal(before, after, images(), STEP)


def test_comparisons_one_by_one():
    body = """
        g1 = Greater (x, half)
        f1 = Cast <to: int = 1> (g1)
        g2 = Greater (x, three)
        f2 = Cast <to: int = 1> (g2)
        y = Add (f1, f2)
    """
    before = spelled(body, {"three": 1.5})
    _, (node,), after = convert(before)
    assert (node.attrs["levels"], node.attrs["tie_rule"]) == (2, "half_down")
    check_equal(before, after, images(), 1.0)


def test_sum_over_a_real_axis_is_no_extra_axis():
    body = LSQ.replace("y =", "q =") + "y = ReduceSum <keepdims: int = 1> (q, last)"
    before = model(
        body, {"s": STEP, "zero": 0.0, "top": 7.0, "last": np.array([-1])},
        inputs=f"{SHAPE} x", outputs="float[N,4,3,1] y",
    )  # fmt: skip
    _, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    check_equal(before, after, images(), STEP)


def test_codebook_of_even_levels_is_a_staircase():
    body = """
        w = Unsqueeze (x, last)
        d = Sub (w, book)
        e = Abs (d)
        i = ArgMin <axis: int = -1, keepdims: int = 0> (e)
        y = Gather <axis: int = 0> (book, i)
    """
    weights = {"book": np.array([0, 0.5, 1, 1.5], np.float32), "last": np.array([-1])}
    _, (node,), _ = convert(spelled(body, weights))
    assert node.attrs["levels"] == 3
    np.testing.assert_allclose(values(node)[0], 0.5)
    weights["book"] = np.array([0, 0.25, 0.5, 1], np.float32)
    report, ours, _ = convert(spelled(body, weights))
    assert ours == []
    assert "not evenly spaced" in report.refused[0].reason


# --- quantise and dequantise ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zero", "levels", "lowest"),
    [
        (np.uint8(0), 255, 0),
        (np.uint8(133), 255, -133),
        (np.int8(0), 255, -128),
        (np.int8(-128), 255, 0),
        (np.uint16(34000), 65535, -34000),
    ],
)
def test_quantize_dequantize(zero, levels, lowest):
    body = "q = QuantizeLinear (x, s, z)\n y = DequantizeLinear (q, s, z)"
    before = spelled(body, {"s": 0.02, "z": np.array(zero)}, opset=21)
    _, (node,), after = convert(before)
    assert (node.attrs["levels"], node.attrs["tie_rule"]) == (levels, "half_even")
    np.testing.assert_allclose(np.ravel(values(node)), [0.02, 0.02, lowest, 0.5], rtol=1e-6)
    check_equal(before, after, images(), 0.02)


def test_quantise_per_channel():
    scales = np.array([0.02, 0.5, 1.0, 3.0], np.float32)
    body = """
        q = QuantizeLinear <axis: int = 1> (x, scales, z)
        y = DequantizeLinear <axis: int = 1> (q, scales, z)
    """
    before = spelled(body, {"scales": scales, "z": np.zeros(4, np.uint8)})
    _, (node,), after = convert(before)
    np.testing.assert_array_equal(values(node)[0], scales.reshape(4, 1, 1))
    assert values(node)[2].shape == ()
    check_equal(before, after, images(30.0), 0.02)


def test_relu_then_signed_quantiser_has_no_negative_levels():
    body = "p = Relu (x)\n q = QuantizeLinear (p, s, z)\n y = DequantizeLinear (q, s, z)"
    _, (node,), _ = convert(spelled(body, {"z": np.array(np.int8(0))}))
    assert (node.attrs["levels"], float(values(node)[2])) == (127, 0.0)


def test_clip_between_quantise_and_dequantise():
    body = """
        q = QuantizeLinear (x, s, z)
        c = Clip (q, z, n)
        y = DequantizeLinear (c, s, z)
    """
    _, (node,), _ = convert(
        spelled(body, {"z": np.array(np.uint8(0)), "n": np.array(np.uint8(15))})
    )
    assert node.attrs["levels"] == 15


def test_one_quantiser_with_two_dequantisers_is_one_staircase():
    body = """
        q = QuantizeLinear (x, s, z)
        d1 = DequantizeLinear (q, s, z)
        d2 = DequantizeLinear (q, s, z)
        p = GlobalAveragePool (d1)
        m = GlobalMaxPool (d2)
        y = Add (p, m)
    """
    before = model(body, {"s": 0.1, "z": np.array(np.uint8(0))}, inputs=f"{SHAPE} x",
                   outputs="float[N,4,1,1] y")  # fmt: skip
    report, (node,), after = convert(before)
    assert node.outputs[0].name == "d1"
    assert "shared" in report.notes[0]
    check_equal(before, after, images(), 0.1)


AGAIN = """
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    p = MaxPool <kernel_shape: ints = [2, 2]> (d)
    q2 = QuantizeLinear (p, s2, z)
    d2 = DequantizeLinear (q2, s2, z)
    f = Flatten (d2)
    q3 = QuantizeLinear (f, s2, z)
    d3 = DequantizeLinear (q3, s2, z)
    y = MatMul (d3, w)
"""


def test_quantising_again_without_effect_is_dropped():
    weights = {"s": 0.1, "s2": 0.1, "z": np.array(np.uint8(0)), "w": (16, 5)}
    before = model(AGAIN, weights, inputs=f"{SHAPE} x", outputs="float[N,5] y")
    report, (node,), after = convert(before)
    assert node.outputs[0].name == "d"
    assert "without effect" in report.notes[-1]
    check_equal(before, after, images(), 0.1)


def test_quantising_again_with_effect_is_kept():
    weights = {"s": 0.1, "s2": 0.17, "z": np.array(np.uint8(0)), "w": (16, 5)}
    before = model(AGAIN, weights, inputs=f"{SHAPE} x", outputs="float[N,5] y")
    _, ours, after = convert(before)
    assert [node.outputs[0].name for node in ours] == ["d", "d3"]
    check_equal(before, after, images(), 0.1)


def test_dropped_output_of_the_graph_keeps_its_name():
    body = """
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        p = MaxPool <kernel_shape: ints = [1, 1]> (d)
        q2 = QuantizeLinear (p, s, z)
        y = DequantizeLinear (q2, s, z)
    """
    before = spelled(body, {"z": np.array(np.uint8(0))})
    _, (node,), after = convert(before)
    assert node.outputs[0].name == "d"
    assert [o.name for o in after.graph.output] == ["y"]
    check_equal(before, after, images(), STEP)


def test_relu_before_pool_before_quantiser_is_dropped():
    body = """
        c = Relu (x)
        p = MaxPool <kernel_shape: ints = [2, 2]> (c)
        u = Div (p, s)
        r = Round (u)
        m = Min (r, top)
        q = Max (m, zero)
        y = Mul (q, s)
    """
    before = model(body, {"s": STEP, "zero": 0.0, "top": 7.0}, inputs=f"{SHAPE} x",
                   outputs="float[N,4,2,2] y")  # fmt: skip
    _, (node,), after = convert(before)
    assert (node.op, node.outputs[0].name) == ("Staircase", "y")
    check_equal(before, after, images(), STEP)


# --- QONNX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas",
                                    "finn.custom_op.general"])  # fmt: skip
@pytest.mark.parametrize(
    ("mode", "phase", "rule"),
    [
        ("ROUND", 0.5, "half_even"),
        ("round", 0.5, "half_even"),
        ("HALF_UP", 0.5, "half_away"),
        ("FLOOR", 0.0, "floor"),
        ("ceil", 1.0, "ceil"),
    ],
)
def test_qonnx_quant(domain, mode, phase, rule):
    graph, _ = import_graph(qonnx_model("Quant", domain, rounding_mode=mode, signed=1, narrow=0))
    report = find_activations.run(graph)
    (node,) = [n for n in graph.nodes if is_ours(n)]
    assert report.refused == ()
    assert (node.attrs["levels"], node.attrs["tie_rule"]) == (15, rule)
    np.testing.assert_allclose(np.ravel(values(node)), [0.25, 0.25, -8, phase], atol=1e-7)


def test_bipolar_quant_is_one_jump():
    graph, _ = import_graph(qonnx_model("BipolarQuant", "qonnx.custom_op.general"))
    find_activations.run(graph)
    (node,) = [n for n in graph.nodes if is_ours(n)]
    assert node.attrs["levels"] == 1
    np.testing.assert_allclose(np.ravel(values(node)), [0.5, 0.5, -0.5, 0.5])


def qonnx_model(op: str, domain: str, **attrs: object) -> onnx.ModelProto:
    numbers = {"scale": 0.25, "zero": 0.0, "bits": 4.0}
    inputs = ["x", *(["scale"] if op == "BipolarQuant" else numbers)]
    node = onnx.helper.make_node(op, inputs, ["y"], name="quant", domain=domain, **attrs)
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["N", 4]) for n in "xy")
    arrays = [onnx.numpy_helper.from_array(np.array(v, np.float32), k) for k, v in numbers.items()]
    graph = onnx.helper.make_graph([node], "g", [x], [y], arrays)
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(domain, 1)]
    return onnx.helper.make_model(graph, opset_imports=imports)


# --- levels, gains, channels ----------------------------------------------------------------------


def test_levels_with_an_offset():
    body = (
        "v = Sub (x, b)\n"
        + LSQ.replace("Div (x", "Div (v").replace("y =", "q =")
        + """
        y = Add (q, b)
    """
    )
    before = spelled(body, {"b": -0.5})
    _, (node,), after = convert(before)
    np.testing.assert_allclose(np.ravel(values(node)), [STEP, STEP, -0.5 / STEP, 0.5], rtol=1e-6)
    check_equal(before, after, images(), STEP)


def test_gain_and_falling_steps():
    body = (
        "v = Neg (x)\n"
        + LSQ.replace("Div (x", "Div (v").replace("y =", "q =")
        + """
        y = Mul (q, gain)
    """
    )
    before = spelled(body, {"gain": 4.0})
    _, (node,), after = convert(before)
    np.testing.assert_allclose(np.ravel(values(node))[:3], [-STEP, 4 * STEP, 0], rtol=1e-6)
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize("last", ["v = Add (h, b)", "v = Div (h, g)"])
def test_a_batchnorm_in_front_is_not_measured_at_every_channel(last, monkeypatch):
    body = f"""
        h = Mul (x, g)
        {last}
        {LSQ.replace("Div (x", "Div (v")}
    """
    channels = np.arange(1.0, 5.0, dtype=np.float32).reshape(4, 1, 1)
    measured, measure = [], activation_search.measure

    def counted(function):
        measured.append(function.channels)
        return measure(function)

    monkeypatch.setattr(activation_search, "measure", counted)
    before = spelled(body, {"g": channels, "b": -channels})
    report, ours, after = convert(before)
    assert (report.refused, [node.op for node in ours]) == ((), ["Staircase"])
    assert measured == [1]
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    check_equal(before, after, x, STEP)


def test_steps_per_channel():
    steps = np.array([0.1, 0.2, 0.4, 1.5], np.float32).reshape(1, 4, 1, 1)
    before = spelled(LSQ, {"s": steps})
    _, (node,), after = convert(before)
    np.testing.assert_array_equal(values(node)[0], steps[0])
    np.testing.assert_array_equal(values(node)[1], steps[0])
    check_equal(before, after, images(), 0.1)


def test_channels_last():
    steps = np.array([0.1, 0.2, 0.4], np.float32)
    before = spelled(LSQ, {"s": steps})
    _, (node,), after = convert(before)
    assert values(node)[0].shape == (3,)
    check_equal(before, after, images(), 0.1)


def test_batchnorm_around_stays_affine():
    gains = np.array([2.0, -0.5, 1.0, 3.0], np.float32).reshape(4, 1, 1)
    body = (
        "v = Mul (x, g)\n"
        + LSQ.replace("Div (x", "Div (v").replace("y =", "q =")
        + """
        n = Mul (q, g)
        y = Add (n, g)
    """
    )
    before = spelled(body, {"g": gains})
    _, (node,), after = convert(before)
    assert (node.inputs[0].name, node.outputs[0].name) == ("v", "q")
    assert values(node)[0].shape == ()
    check_equal(before, after, images(), STEP)


def test_constants_that_differ_by_position_are_not_followed():
    before = spelled(LSQ, {"s": np.geomspace(0.1, 1, 9).astype(np.float32).reshape(3, 3)})
    _, (node,), after = convert(before)
    assert node.inputs[0].name == "u"
    check_equal(before, after, images(), 0.1)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype):
    number = {np.float16: "float16", np.float64: "double"}[dtype]
    weights = {k: np.array(v, dtype) for k, v in NUMBERS.items() if k in ("s", "zero", "top")}
    before = model(LSQ, weights, inputs=f"{number}[N,4] x", outputs=f"{number}[N,4] y")
    _, (node,), after = convert(before)
    assert all(v.dtype == dtype for v in values(node))
    assert values(node)[0] == dtype(STEP)
    check_equal(before, after, images(shape=(64, 4)).astype(dtype), STEP)


# --- cuts and layouts -----------------------------------------------------------------------------


def test_cut_where_others_read():
    body = """
        c = Relu (x)
        u = Div (c, s)
        r = Round (u)
        m = Min (r, top)
        q = Mul (m, s)
        p = GlobalAveragePool (c)
        y = Mul (q, p)
    """
    before = spelled(body)
    _, ours, after = convert(before)
    assert [(n.op, n.inputs[0].name, n.outputs[0].name) for n in ours] == [
        ("Ramp", "x", "c"),
        ("Staircase", "x", "q"),
    ]
    check_equal(before, after, images(), STEP)


def test_affine_reader_of_a_staircase_stays():
    body = LSQ.replace("y =", "q =") + "b = Mul (q, a)\n p = GlobalMaxPool (q)\n y = Mul (b, p)"
    before = spelled(body)
    _, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize("where", ["before", "between", "behind"])
def test_reshape_around_and_inside(where):
    steps = LSQ.replace("y =", "q =").strip().splitlines()
    position = {"before": 0, "between": 2, "behind": 4}[where]
    source = {"before": "x", "between": "c", "behind": "q"}[where]
    reader = {"before": "(x,", "between": "(c)", "behind": "none"}[where]
    steps = steps[:position] + [
        line.replace(reader, reader.replace(source, "f")) for line in steps[position:]
    ]
    steps.insert(position, f"f = Flatten ({source})")
    last = "f" if where == "behind" else "q"
    before = model("\n".join(steps) + f"\n y = MatMul ({last}, w)",
                   {"s": STEP, "zero": 0.0, "top": 7.0, "w": (36, 2)},
                   inputs=f"{SHAPE} x", outputs="float[N,2] y")  # fmt: skip
    _, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    check_equal(before, after, images(), STEP)


def test_bias_of_a_matrix_product_is_not_part_of_it():
    body = "h = MatMul (x, w)\n v = Add (h, b)\n" + LSQ.replace("Div (x", "Div (v")
    before = model(body, {"w": (4, 6), "b": (6,), "s": STEP, "zero": 0.0, "top": 7.0},
                   inputs="float[N,4] x", outputs="float[N,6] y")  # fmt: skip
    _, (node,), _ = convert(before)
    assert node.inputs[0].name == "v"


def test_a_sum_of_two_tensors_is_a_root():
    body = "v = Add (x, z)\n" + LSQ.replace("Div (x", "Div (v")
    before = model(body, {"s": STEP, "zero": 0.0, "top": 7.0},
                   inputs=f"{SHAPE} x, {SHAPE} z", outputs=f"{SHAPE} y")  # fmt: skip
    _, (node,), _ = convert(before)
    assert node.inputs[0].name == "v"


def test_shared_constants_are_left_alone():
    body = (
        LSQ.replace("y =", "q =")
        + """
        h = GlobalMaxPool (q)
        u2 = Div (h, s)
        c2 = Clip (u2, zero, one)
        r2 = Round (c2)
        y = Mul (r2, s)
    """
    )
    before = model(body, {"s": STEP, "zero": 0.0, "one": 1.0, "top": 7.0},
                   inputs=f"{SHAPE} x", outputs="float[N,4,1,1] y")  # fmt: skip
    kept = copy.deepcopy(before)
    _, ours, after = convert(before)
    assert [n.attrs["levels"] for n in ours] == [7, 1]
    assert before == kept
    check_equal(before, after, images(), STEP)


def test_integers_are_not_looked_at():
    body = """
        shape = Shape (x)
        twice = Mul (shape, two)
        again = Div (twice, two)
        y = Reshape (x, again)
    """
    before = spelled(body, {"two": np.array([2])})
    report, ours, _ = convert(before)
    assert ours == []
    assert report.refused == ()


# --- ramps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Relu (x)", [0, np.inf, 0, 1]),
        ("y = Max (x, zero)", [0, np.inf, 0, 1]),
        ("y = Clip (x, zero, six)", [0, 6, 0, 1]),
        ("y = Clip (x, below, one)", [-1, 1, -1, 1]),
        ("y = HardSigmoid (x)", [-2.5, 2.5, 0, 0.2]),
        ("c = Clip (x, zero, six)\n y = Mul (c, half)", [0, 6, 0, 0.5]),
        ("y = Min (x, one)", None),
    ],
)
def test_ramps(body, expected):
    before = spelled(body, {"six": 6.0, "below": -1.0})
    report, ours, after = convert(before)
    if expected is None:
        assert ours == []
        assert "unbounded below" in report.refused[0].reason
        return
    assert ours[0].attrs["kind"] == ("relu" if np.isinf(expected[1]) else "clip")
    np.testing.assert_allclose(np.ravel(values(ours[0])), expected, rtol=1e-6)
    check_equal(before, after, images(), 1.0)


NEAREST = (
    "k = Clip (x, zero, a)\n f = Reshape ({flat}, all)\n g = Unsqueeze (f, first)\n"
    "d = Sub (g, grid)\n e = Abs (d)\n i = ArgMin <axis: int = 0, keepdims: int = 0> (e)\n"
    "v = Gather (table, i)\n h = Reshape (v, back)\n r = Sub (h, k)\n y = Add (r, k)"
)


def nearest(levels: list[float], moved: bool = False) -> onnx.ModelProto:
    """The nearest of ``levels``, looked up in a flattened tensor, with a straight-through sum."""
    weights = {
        "a": 1.5, "all": np.array([-1]), "first": np.array([0]), "back": np.array([-1, 4, 3, 3]),
        "grid": np.array(levels, np.float32)[:, None], "table": np.array(levels, np.float32),
    }  # fmt: skip
    body = NEAREST.format(flat="t" if moved else "k")
    if moved:
        body = body.replace(" f =", " t = Transpose <perm: ints = [0, 2, 3, 1]> (k)\n f =")
    return spelled(body, weights, shape="float[N,4,3,3]")


def test_the_nearest_level_of_a_flattened_tensor() -> None:
    before = nearest([0, 0.5, 1, 1.5])
    report, (node,), after = convert(before)
    assert (report.refused, node.attrs["levels"]) == ((), 3)
    check_equal(
        before, after, np.random.default_rng(0).standard_normal((5, 4, 3, 3), np.float32), 0.5
    )


def test_uneven_levels_of_a_flattened_tensor_are_named() -> None:
    report, _, _ = convert(nearest([0, 0.25, 0.5, 1]))
    assert "(0, 0.25, 0.5, 1)" in report.refused[0].reason


def test_a_flattened_tensor_that_comes_back_in_another_order_is_left() -> None:
    _, ours, _ = convert(nearest([0, 0.5, 1, 1.5], moved=True))
    assert [node.op for node in ours] != ["Staircase"] or ours[0].outputs[0].name != "y"


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "op", "reason"),
    [
        ("y = LeakyRelu (x)", "LeakyRelu", "neither a staircase nor a clip"),
        ("y = HardSwish (x)", "HardSwish", "smooth"),
        ("e = Sigmoid (x)\n y = Mul (x, e)", "Sigmoid", "neither a staircase nor a clip"),
        ("u = Div (x, s)\n r = Round (u)\n y = Mul (r, s)", "Round", "without a clip"),
        (
            "e = RandomUniformLike (x)\n v = Add (x, e)\n y = Relu (v)",
            "RandomUniformLike",
            "random",
        ),
        ("u = Div (x, s)\n r = Round (u)\n y = Clip (r, zero, a)", "Round", "not evenly spaced"),
    ],
)
def test_refusals_name_operator_and_reason(body, op, reason):
    report, ours, _ = convert(spelled(body, {"a": 2.5}))
    assert ours == []
    (refusal,) = report.refused
    assert refusal.op == op
    assert reason in refusal.reason
    assert refusal.remedy


def test_activation_before_an_unknown_function_is_still_found():
    report, (node,), _ = convert(spelled(LSQ.replace("y =", "q =") + "y = Sigmoid (q)"))
    assert node.outputs[0].name == "q"
    assert report.refused[0].op == "Sigmoid"


def test_activation_behind_an_unknown_function_is_still_found():
    report, (node,), _ = convert(spelled("g = Sigmoid (x)\n" + LSQ.replace("Div (x", "Div (g")))
    assert (node.inputs[0].name, node.outputs[0].name) == ("g", "y")
    assert report.refused[0].op == "Sigmoid"


def test_operator_of_an_unknown_domain():
    graph, _ = import_graph(qonnx_model("LSQQuant", "my.quant"))
    (refusal,) = find_activations.run(graph).refused
    assert "my.quant::LSQQuant" in refusal.reason


def test_affine_functions_are_neither_changed_nor_refused():
    report, ours, _ = convert(spelled("v = Mul (x, a)\n w = Add (v, half)\n y = Div (w, s)"))
    assert ours == []
    assert (report.changed, report.refused) == (0, ())


# --- explain --------------------------------------------------------------------------------------


def test_explain_a_staircase_before_and_after():
    graph, _ = import_graph(spelled(LSQ))
    found = explain(graph, "Round_2")
    assert (found.kind, found.root, found.output, found.cut) == (
        "staircase", "x", "y", "graph output",
    )  # fmt: skip
    assert found.parameters is not None
    assert found.parameters["levels"] == 7
    assert found.nodes[0] == "Div_0 (Div)"
    assert found.samples[-1][1] == pytest.approx(7 * STEP)
    find_activations.run(graph)
    assert explain(graph, "y").kind == "staircase"


def test_explain_what_is_none():
    graph, _ = import_graph(spelled("e = Sigmoid (x)\n y = Mul (x, e)"))
    found = explain(graph, "Sigmoid_0")
    assert found.kind == "unknown"
    assert found.reason
    graph, _ = import_graph(spelled("p = GlobalMaxPool (x)\n y = Mul (x, p)"))
    assert "combines" in explain(graph, "y").reason
    with pytest.raises(UsageError, match="no node"):
        explain(graph, "nowhere")


@pytest.mark.parametrize(("to", "converts"), [(2, False), (3, False), (6, True)])
def test_a_cast_to_few_bits_that_nothing_clips_is_no_quantiser(to: int, converts: bool) -> None:
    """What it gives beyond 255 is not defined, and wraps round in practice."""
    body = f"u = Div (x, s)\n r = Relu (u)\n q = Round (r)\n i = Cast <to = {to}> (q)\n"
    clipped = "m = Min (i, most)\n f = Cast <to = 1> (m)\n y = Mul (f, s)"
    kind = {2: np.uint8, 3: np.int8, 6: np.int32}[to]
    numbers = {**NUMBERS, "most": np.asarray(7, kind)}
    report, ours, _ = convert(
        model(body + clipped, numbers, inputs=f"{SHAPE} x", outputs=f"{SHAPE} y")
    )
    assert [n.op for n in ours if n.op == "Staircase"] == ["Staircase"] * converts
    assert bool(report.refused) != converts


def test_bits_shifted_away_are_levels() -> None:
    body = """
        u = Mul (x, sixteen)
        c = Clip (u, zero, top)
        i = Cast <to = 12> (c)
        h = BitShift <direction = "RIGHT"> (i, four)
        f = Cast <to = 1> (h)
        y = Mul (f, half)
    """
    numbers = {**NUMBERS, "sixteen": 16.0, "top": 63.0, "four": np.asarray(4, np.uint32)}
    _, ours, _ = convert(model(body, numbers, inputs=f"{SHAPE} x", outputs=f"{SHAPE} y"))
    (node,) = ours
    assert (node.attrs["levels"], node.attrs["tie_rule"]) == (3, "floor")
