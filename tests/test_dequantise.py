from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes.channels_first import channels_first
from na_convert.passes.dequantise import dequantise
from na_convert.passes.drop_noops import drop_noops
from na_convert.passes.fold_constants import fold_constants
from na_convert.passes.grid import (
    drop_requantisation,
    merge_duplicates,
    move_behind_dequantisation,
)

from na_convert import runtime
from na_convert.graph import export_graph, import_graph

from .same import ops, rewritten

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(0)

GRID = {"s": np.float32(0.05), "z": np.uint8(120), "t": np.float32(0.1137), "o": np.uint8(20)}
CONV = {
    "w": RNG.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8),
    "ws": RNG.uniform(0.005, 0.01, 4).astype(np.float32),
    "wz": np.zeros(4, np.int8),
    "k": RNG.integers(-900, 900, 4).astype(np.int32),
}
DENSE = {
    "w": RNG.integers(-100, 100, (6, 4)).astype(np.int8),
    "wt": RNG.integers(-100, 100, (4, 6)).astype(np.int8),
    "ws": np.float32(0.01),
    "wz": np.int8(0),
    "k": RNG.integers(-900, 900, 4).astype(np.int32),
}
SHARES = {"t": np.float32(1 / 256), "o": np.uint8(0)}
IMAGE, ROW = "float[N,3,8,8] x", "float[N,6] x"
CHAIN = "q = QuantizeLinear (x, s, z)\n {}\n y = DequantizeLinear (p, t, o)"


def quantised(
    body: str, weights: dict[str, np.ndarray], inputs: str = IMAGE, opset: int = 17
) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "{MICROSOFT}" : 1]>'
        f" net ({inputs}) => (float y) {{ {body} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, values in {**GRID, **weights}.items():
        if name in body:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    return model


OPERATORS = {
    "QLinearConv": (
        "p = QLinearConv <pads = [1,1,1,1]> (q, s, z, w, ws, wz, t, o, k)", CONV, IMAGE, "Conv"),
    "QLinearConv without bias": (
        "p = QLinearConv (q, s, z, w, ws, wz, t, o)", CONV, IMAGE, "Conv"),
    "QLinearMatMul": ("p = QLinearMatMul (q, s, z, w, ws, wz, t, o)", DENSE, ROW, "MatMul"),
    "QGemm": (
        "p = com.microsoft.QGemm (q, s, z, w, ws, wz, k, t, o)", DENSE, ROW, "Gemm"),
    "QGemm transB alpha": (
        "p = com.microsoft.QGemm <transB = 1, alpha = 0.5> (q, s, z, wt, ws, wz, k, t, o)",
        DENSE, ROW, "Gemm"),
    "QLinearAdd": ("p = com.microsoft.QLinearAdd (q, s, z, q, s, z, t, o)", {}, IMAGE, "Add"),
    "QLinearMul": ("p = com.microsoft.QLinearMul (q, s, z, q, s, z, t, o)", {}, IMAGE, "Mul"),
    "QLinearConcat": (
        "p = com.microsoft.QLinearConcat <axis = 1> (t, o, q, s, z, q, s, z)", {}, IMAGE, "Concat"),
    "QLinearGlobalAveragePool": (
        "p = com.microsoft.QLinearGlobalAveragePool (q, s, z, t, o)", {}, IMAGE,
        "GlobalAveragePool"),
    "QLinearAveragePool": (
        "p = com.microsoft.QLinearAveragePool <kernel_shape = [2,2]> (q, s, z, t, o)", {}, IMAGE,
        "AveragePool"),
    "QLinearLeakyRelu": (
        "p = com.microsoft.QLinearLeakyRelu <alpha = 0.1> (q, s, z, t, o)", {}, IMAGE, "LeakyRelu"),
    "QLinearSigmoid": (
        "p = com.microsoft.QLinearSigmoid (q, s, z, t, o)", {}, IMAGE, "Sigmoid"),
    "QLinearSoftmax": (
        "p = com.microsoft.QLinearSoftmax <opset = 13, axis = 1> (q, s, z, t, o)",
        SHARES, IMAGE, "Softmax"),
    "QLinearSoftmax before opset 13": (
        "p = com.microsoft.QLinearSoftmax <opset = 12, axis = 2> (q, s, z, t, o)",
        SHARES, IMAGE, "Softmax"),
    "QLinearWhere": (
        "p = com.microsoft.QLinearWhere (c, q, s, z, q, s, z, t, o)",
        {"c": np.asarray([[True], [False]] * 4)}, IMAGE, "Where"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_quantised_operators(case: str) -> None:
    node, weights, inputs, op = OPERATORS[case]
    source = quantised(CHAIN.format(node), weights, inputs)
    result = rewritten(source, dequantise)
    assert op in ops(result)
    assert all(not node.domain for node in result.nodes)
    quantisers = [n for n in result.nodes if n.op == "QuantizeLinear"]
    assert [n.outputs[0].name for n in quantisers][-1] == "p"


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_a_result_without_zero_point_has_the_type_of_what_comes_in(op: str) -> None:
    body = (
        f"q = QuantizeLinear (x, s, i)\n p = com.microsoft.QLinear{op} (q, s, i, q, s, i, t)\n"
        " y = DequantizeLinear (p, t, none)"
    )
    source = quantised(body, {"i": np.int8(-3), "none": np.int8(0)})
    assert ops(rewritten(source, dequantise)).count("QuantizeLinear") == 2


PER_COLUMN = {
    **DENSE,
    "ws": np.linspace(0.005, 0.02, 4, dtype=np.float32),
    "wz": np.array([3, 0, -7, 1], np.int8),
}
ACROSS = {
    "QGemm": "p = com.microsoft.QGemm (q, s, z, w, ws, none, k, t, o)",
    "QGemm transB": "p = com.microsoft.QGemm <transB = 1> (q, s, z, wt, ws, none, k, t, o)",
    "QGemm without bias": "p = com.microsoft.QGemm (q, s, z, w, ws, none, , t, o)",
    "QLinearMatMul": "p = QLinearMatMul (q, s, z, w, ws, none, t, o)",
}


@pytest.mark.parametrize("case", ACROSS)
def test_a_scale_for_each_column(case: str) -> None:
    weights = {**PER_COLUMN, "none": np.zeros(4, np.int8)}
    result = rewritten(quantised(CHAIN.format(ACROSS[case]), weights, ROW), dequantise)
    assert ops(result)[2] == ("MatMul" if "MatMul" in case else "Gemm")


def test_a_zero_point_for_each_column() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n p = MatMulInteger (q, w, z, wz)\n"
        " f = Cast <to = 1> (p)\n y = Mul (f, s)"
    )
    assert "MatMul" in ops(rewritten(quantised(body, PER_COLUMN, ROW), dequantise))


COMPUTED = {
    "QLinearConv": ("p = QLinearConv (q, s, z, w, ws, wz, ts, o)", CONV, IMAGE),
    "QLinearMatMul": ("p = QLinearMatMul (q, ss, z, w, ws, wz, t, o)", DENSE, ROW),
    "QGemm": ("p = com.microsoft.QGemm (q, ss, z, w, ws, wz, k, t, o)", DENSE, ROW),
}


@pytest.mark.parametrize("case", COMPUTED)
def test_scales_that_are_computed_are_left(case: str) -> None:
    node, weights, inputs = COMPUTED[case]
    scales = "ss = ReduceMax <keepdims = 0> (x)\n ts = Abs (ss)\n"
    body = scales + CHAIN.format(node).replace("ws,", "ts," if case == "QLinearConv" else "ws,")
    net, _ = import_graph(quantised(body, weights, inputs))
    assert dequantise(net) == 0
    assert case in ops(net)


CONSTANT = {
    "QLinearConv": ("q s z w ws wz t o k", (1, 3, 4, 5, 6, 8)),
    "QLinearMatMul": ("q s z w ws wz t o", (1, 4)),
    "com.microsoft.QGemm": ("q s z w ws wz k t o", (1, 3, 4, 5, 6)),
}


@pytest.mark.parametrize(
    ("op", "position"), [(op, k) for op, (_, places) in CONSTANT.items() for k in places]
)
def test_each_input_that_has_to_be_constant(op: str, position: int) -> None:
    names = CONSTANT[op][0].split()
    for given, left in ((names, False), ([*names[:position], "v", *names[position + 1 :]], True)):
        body = "v = Identity (x)\n " + CHAIN.format(f"p = {op} ({', '.join(given)})")
        net, _ = import_graph(quantised(body, CONV if op == "QLinearConv" else DENSE))
        assert (dequantise(net) == 0) is left
        assert (op.rpartition(".")[2] in ops(net)) is left


def test_scales_and_zero_points_of_two_channels() -> None:
    weights = {
        **{name: values[:2] for name, values in CONV.items()},
        "ws": np.float32([0.005, 0.02]),
        "wz": np.int8([0, 0]),
    }
    node = "p = QLinearConv <pads = [1,1,1,1]> (q, s, z, w, ws, wz, t, o, k)"
    assert "Conv" in ops(rewritten(quantised(CHAIN.format(node), weights), dequantise))
    columns = {"w": DENSE["w"][:, :2], "wz": np.int8([3, -7])}
    body = (
        "q = QuantizeLinear (x, s, z)\n p = MatMulInteger (q, w, z, wz)\n"
        " f = Cast <to = 1> (p)\n y = Mul (f, s)"
    )
    assert "MatMul" in ops(rewritten(quantised(body, columns, ROW), dequantise))


def test_weights_of_a_qgemm_that_are_computed_are_left() -> None:
    node = "p = com.microsoft.QGemm (q, s, z, v, ws, wz, k, t, o)"
    body = "v = QuantizeLinear (u, ws, wz)\n " + CHAIN.format(node)
    net, _ = import_graph(quantised(body, DENSE, f"{ROW}, float[6,4] u"))
    dequantise(net)
    assert "QGemm" in ops(net)


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_whose_result_is_a_float(bias: bool) -> None:
    """As onnxruntime fuses the last MatMul of a QDQ file."""
    inputs = "q, w, s, ws, z, wz" + ", c" * bias
    body = f"q = QuantizeLinear (x, s, z)\n y = com.microsoft.MatMulIntegerToFloat ({inputs})"
    weights = {**DENSE, "c": np.linspace(-1, 1, 4, dtype=np.float32)}
    made = rewritten(quantised(body, weights, ROW), dequantise)
    assert "MatMul" in ops(made)
    assert "MatMulIntegerToFloat" not in ops(made)


LAST = {
    "QLinearConv": (
        "com.microsoft.QLinearConv <channels_last = 1, pads = [1,1,1,1]> "
        "(q, s, z, w, ws, wz, t, o, k)", CONV, "Conv",
    ),
    "QLinearAveragePool": (
        "com.microsoft.QLinearAveragePool <kernel_shape = [2,2], channels_last = 1> "
        "(q, s, z, t, o)", {}, "AveragePool",
    ),
    "QLinearGlobalAveragePool": (
        "com.microsoft.QLinearGlobalAveragePool <channels_last = 1> (q, s, z, t, o)", {},
        "GlobalAveragePool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LAST)
def test_channels_last_becomes_channels_first(case: str) -> None:
    node, weights, op = LAST[case]
    body = CHAIN.format(f"p = {node}")
    made = rewritten(quantised(body, weights, "float[N,8,6,3] x"), both_steps)
    assert op in ops(made)
    assert ops(made).count("Transpose") == 2


def both_steps(graph: gs.Graph) -> int:
    return channels_first(graph) + dequantise(graph)


def test_two_channels_last_operators_need_no_transpose_between() -> None:
    conv, *_ = LAST["QLinearConv"]
    pool = "com.microsoft.NhwcMaxPool <kernel_shape = [2,2]> (r)"
    body = CHAIN.format(f"r = {conv}\n p = {pool}")
    net, _ = import_graph(quantised(body, CONV, "float[N,8,6,3] x"))
    assert channels_first(net) == 2
    drop_noops(net)
    assert ops(net) == [
        "QuantizeLinear", "Transpose", "QLinearConv", "MaxPool", "Transpose", "DequantizeLinear",
    ]  # fmt: skip


def test_sums_of_channels_last_stay_between_the_transposes() -> None:
    conv = LAST["QLinearConv"][0]
    add = "com.microsoft.QLinearAdd (r, s, z, u, t, o, t, o)"
    pool = "com.microsoft.NhwcMaxPool <kernel_shape = [2,2]> (a)"
    chain = f"r = {conv}\n u = {conv}\n a = {add}\n p = {pool}"
    model = quantised(CHAIN.format(chain), CONV, "float[N,8,6,3] x")
    rewritten(model, both_steps)
    net, _ = import_graph(model)
    assert channels_first(net) == 3
    net.cleanup()
    drop_noops(net)
    assert ops(net) == [
        "QuantizeLinear", "Transpose", "Transpose", "QLinearConv", "QLinearConv", "QLinearAdd",
        "MaxPool", "Transpose", "DequantizeLinear",
    ]  # fmt: skip


def test_channels_last_of_an_unknown_number_of_axes_is_left() -> None:
    node, *_ = LAST["QLinearGlobalAveragePool"]
    model = quantised(CHAIN.format(f"p = {node}"), {}, "float x")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    net, _ = import_graph(model)
    assert both_steps(net) == 0
    assert "QLinearGlobalAveragePool" in ops(net)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_mean_that_onnxruntime_cannot_run_is_read(opset: int) -> None:
    """Against the operators that it stands for."""
    node = "p = com.microsoft.QLinearReduceMean <axes = [2, 3], keepdims = 0> (q, s, z, t, o)"
    net, carried = import_graph(quantised(CHAIN.format(node), {}, opset=opset))
    assert dequantise(net) == 1
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    plain = "d = DequantizeLinear (q, s, z)\n m = GlobalAveragePool (d)\n r = Flatten (m)\n p = "
    same = quantised(CHAIN.format(f"{plain} QuantizeLinear (r, t, o)"), {}, opset=opset)
    expected = runtime.run(same, {"x": x})["y"]
    np.testing.assert_array_equal(runtime.run(export_graph(net, carried), {"x": x})["y"], expected)


def test_qgemm_with_float_output() -> None:
    body = "q = QuantizeLinear (x, s, z)\n y = com.microsoft.QGemm (q, s, z, w, ws, wz, k)"
    assert "Gemm" in ops(rewritten(quantised(body, DENSE, ROW), dequantise))


INTEGERS = {
    "ConvInteger": ("ConvInteger (q, w, z, wz)", {**CONV, "wz": np.int8(0)}, IMAGE, "Conv"),
    "MatMulInteger": ("MatMulInteger (q, w, z, wz)", DENSE, ROW, "MatMul"),
}


@pytest.mark.parametrize("case", INTEGERS)
def test_integer_operators(case: str) -> None:
    node, weights, inputs, op = INTEGERS[case]
    body = f"q = QuantizeLinear (x, s, z)\n p = {node}\n f = Cast <to = 1> (p)\n y = Mul (f, s)"
    assert ops(rewritten(quantised(body, weights, inputs), dequantise)) == [
        "QuantizeLinear", "DequantizeLinear", op, "Mul",
    ]  # fmt: skip


def test_integer_result_that_is_read_as_integers() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n p = MatMulInteger (q, w, z, wz)\n n = Neg (p)\n"
        " f = Cast <to = 1> (n)\n y = Mul (f, s)"
    )
    assert "Cast" in ops(rewritten(quantised(body, DENSE, ROW), dequantise))


def test_moves_go_behind_dequantisation() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = MaxPool <kernel_shape = [2,2]> (q)\n"
        " f = Flatten (m)\n y = DequantizeLinear (f, s, z)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "MaxPool", "Flatten"]


def test_moved_integers_that_are_read_as_integers_stay() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n d = DequantizeLinear (m, s, z)\n"
        " c = Cast <to = 1> (m)\n y = Add (c, d)"
    )
    assert ops(rewritten(quantised(body, {}), dequantise))[:2] == ["QuantizeLinear", "Flatten"]


def test_moved_integers_that_are_an_output_stay() -> None:
    body = "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n y = DequantizeLinear (m, s, z)"
    source = quantised(body, {})
    source.graph.output.append(onnx.helper.make_tensor_value_info("m", 2, None))
    assert ops(rewritten(source, dequantise))[:2] == ["QuantizeLinear", "Flatten"]


@pytest.mark.parametrize(
    "readers",
    [
        "d = DequantizeLinear (m, s, z)\n e = DequantizeLinear (m, t, z)\n y = Add (d, e)",
        "d = DequantizeLinear (m, s, z)\n c = Cast <to = 1> (m)\n y = Add (d, c)",
        "y = Cast <to = 1> (m)",
    ],
)
def test_what_is_not_moved_does_not_count(readers: str) -> None:
    body = f"q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n {readers}"
    net, _ = import_graph(quantised(body, {}))
    assert move_behind_dequantisation(net) == 0
    both = "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n y = DequantizeLinear (m, s, z)\n"
    source = quantised(f"{both} y2 = DequantizeLinear (m, s, z)", {})
    source.graph.output.append(onnx.ValueInfoProto(name="y2"))
    source.graph.output[1].type.CopyFrom(source.graph.output[0].type)
    assert move_behind_dequantisation(import_graph(source)[0]) == 0


def test_moved_constants_stay() -> None:
    """They are weights: `fold_constants` computes them."""
    body = "m = Reshape (w, t)\n y0 = DequantizeLinear (m, s, k)\n y = MatMul (x, y0)"
    weights = {"w": DENSE["w"], "t": np.array([6, 4]), "s": np.float32(0.01), "k": np.int8(0)}
    net, _ = import_graph(quantised(body, weights, ROW))
    assert move_behind_dequantisation(net) == 0


def test_it_says_how_many_nodes_were_moved_merged_and_dropped() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = MaxPool <kernel_shape = [2,2]> (q)\n f = Flatten (m)\n"
        " d = DequantizeLinear (f, s, z)\n e = DequantizeLinear (f, s, z)\n"
        " g = DequantizeLinear (f, s, z)\n a = Add (d, e)\n b = Add (a, g)\n"
        " p = QuantizeLinear (d, s, z)\n h = DequantizeLinear (p, s, z)\n y = Add (b, h)"
    )
    net, _ = import_graph(quantised(body, {}))
    assert merge_duplicates(net) == 2
    assert move_behind_dequantisation(net) == 2
    assert drop_requantisation(net) == 1


MOVES = {
    "the zero point around them": "m = Pad (q, around, z)",
    "another number around them": "m = Pad (q, around, o)",
    "the integer 0 around them": "m = Pad (q, around)",
    "their own edge around them": 'm = Pad <mode = "edge"> (q, around)',
    "more of each": 'm = Resize <mode = "nearest"> (q, , twice)',
}


@pytest.mark.parametrize("case", MOVES)
def test_pads_and_copies_go_behind_dequantisation(case: str) -> None:
    """As onnxruntime's QOperator format has them."""
    body = f"q = QuantizeLinear (x, s, z)\n {MOVES[case]}\n y = DequantizeLinear (m, s, z)"
    sizes = {"around": np.array([0, 0, 1, 2, 0, 0, 0, -1]), "twice": np.float32([1, 1, 2, 2])}
    (quantise, dequantiser, move) = ops(rewritten(quantised(body, sizes), dequantise))
    assert (quantise, dequantiser) == ("QuantizeLinear", "DequantizeLinear")
    assert move in ("Pad", "Resize")


@pytest.mark.parametrize(
    ("move", "quantisers"),
    [
        ("Pad (d, around)", 1),
        ("Pad (d, around, nothing)", 1),
        ("Pad (d, around, t)", 2),
        ('Pad <mode = "reflect"> (d, around)', 1),
        ('Resize <mode = "nearest"> (d, , twice)', 1),
        ('Resize <mode = "linear"> (d, , twice)', 2),
    ],
)
def test_pads_and_copies_stay_on_the_grid(move: str, quantisers: int) -> None:
    body = (
        f"q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n m = {move}\n"
        " p = QuantizeLinear (m, s, z)\n e = DequantizeLinear (p, s, z)\n y = Neg (e)"
    )
    sizes = {
        "around": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
        "twice": np.float32([1, 1, 2, 2]),
        "nothing": np.float32(0),
    }
    assert ops(rewritten(quantised(body, sizes), dequantise)).count("QuantizeLinear") == quantisers


AGAIN = "d = DequantizeLinear (q, s, z)\n m = MaxPool <kernel_shape = [2,2]> (d)\n r = Relu (m)\n"


def test_values_that_lie_on_the_grid_are_not_quantised_again() -> None:
    body = (
        f"q = QuantizeLinear (x, s, z)\n {AGAIN} p = QuantizeLinear (r, s, z)\n"
        " e = DequantizeLinear (p, s, z)\n y = Neg (e)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "MaxPool", "Relu", "Neg"]


@pytest.mark.parametrize("other", ["(r, t, z)", "(r, s, o)"])
def test_another_grid_is_quantised_again(other: str) -> None:
    body = (
        f"q = QuantizeLinear (x, s, z)\n {AGAIN} p = QuantizeLinear {other}\n"
        f" e = DequantizeLinear {other.replace('r', 'p')}\n y = Neg (e)"
    )
    assert ops(rewritten(quantised(body, {}), dequantise)).count("QuantizeLinear") == 2


@pytest.mark.parametrize(("high", "quantisers"), [("low_high", 1), ("high_high", 2)])
def test_a_clip_of_the_integers_counts(high: str, quantisers: int) -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n c = Clip (q, least, high_high)\n"
        " d = DequantizeLinear (c, s, z)\n f = Flatten (d)\n p = QuantizeLinear (f, s, z)\n"
        f" g = Clip (p, least, {'high_high' if high == 'low_high' else 'low_high'})\n"
        " e = DequantizeLinear (g, s, z)\n y = Neg (e)"
    )
    limits = {"least": np.uint8(110), "high_high": np.uint8(140), "low_high": np.uint8(130)}
    result = rewritten(quantised(body, limits), dequantise)
    assert ops(result).count("QuantizeLinear") == quantisers


def test_a_concat_of_values_on_the_grid_is_not_quantised_again() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n f = Relu (d)\n"
        " c = Concat <axis = 1> (d, f)\n p = QuantizeLinear (c, s, z)\n"
        " e = DequantizeLinear (p, s, z)\n y = Neg (e)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "Relu", "Concat", "Neg"]


@pytest.mark.parametrize("before", ["Neg (d)", "Add (d, x)"])
def test_other_values_are_quantised_again(before: str) -> None:
    body = (
        f"q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n f = {before}\n"
        " p = QuantizeLinear (f, s, z)\n e = DequantizeLinear (p, s, z)\n y = Neg (e)"
    )
    assert ops(rewritten(quantised(body, {}), dequantise)).count("QuantizeLinear") == 2


def test_grids_without_a_zero_point_are_compared_too() -> None:
    body = (
        "q = QuantizeLinear (x, s)\n d = DequantizeLinear (q, s)\n f = Flatten (d)\n"
        " p = QuantizeLinear (f, s)\n e = DequantizeLinear (p, s)\n y = Neg (e)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "Flatten", "Neg"]


def test_moves_in_front_of_unlike_grids_stay() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n d = DequantizeLinear (m, s, z)\n"
        " e = DequantizeLinear (m, t, z)\n y = Add (d, e)"
    )
    assert ops(rewritten(quantised(body, {}), dequantise))[:2] == ["QuantizeLinear", "Flatten"]


def test_moves_in_front_of_two_outputs_stay() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n y = DequantizeLinear (m, s, z)\n"
        " y2 = DequantizeLinear (m, s, z)"
    )
    source = quantised(body, {})
    source.graph.output.append(onnx.ValueInfoProto(name="y2"))
    source.graph.output[1].type.CopyFrom(source.graph.output[0].type)
    net = rewritten(source, dequantise)
    assert [t.name for t in net.outputs] == ["y", "y2"]


def test_readers_of_what_is_moved_become_one() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n m = Flatten (q)\n d = DequantizeLinear (m, s, z)\n"
        " e = DequantizeLinear (m, s, z)\n f = Neg (e)\n y = Add (d, f)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "Flatten", "Neg", "Add"]


def test_a_grid_for_each_channel_is_quantised_again() -> None:
    body = (
        "q = QuantizeLinear <axis = 1> (x, each, zeros)\n"
        " d = DequantizeLinear <axis = 1> (q, each, zeros)\n r = Relu (d)\n"
        " p = QuantizeLinear <axis = 1> (r, each, zeros)\n"
        " e = DequantizeLinear <axis = 1> (p, each, zeros)\n y = Neg (e)"
    )
    grids = {"each": np.float32([0.01, 0.02, 0.03]), "zeros": np.zeros(3, np.uint8)}
    assert ops(rewritten(quantised(body, grids), dequantise)).count("QuantizeLinear") == 2


def test_a_clip_to_computed_integers_is_another_grid() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n t2 = ReduceMax <keepdims = 0> (x)\n"
        " top = QuantizeLinear (t2, s, z)\n c = Clip (q, z, top)\n d = DequantizeLinear (c, s, z)\n"
        " f = Flatten (d)\n p = QuantizeLinear (f, s, z)\n e = DequantizeLinear (p, s, z)\n"
        " y = Neg (e)"
    )
    net, _ = import_graph(quantised(body, {}))
    dequantise(net)
    assert ops(net).count("QuantizeLinear") == 3


def test_one_dequantiser_per_consumer_becomes_one() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n a = DequantizeLinear (q, s, z)\n"
        " b = DequantizeLinear (q, s, z)\n c = Neg (b)\n y = Add (a, c)"
    )
    assert ops(rewritten(quantised(body, {}), dequantise)).count("DequantizeLinear") == 1


def test_quantisers_of_onnxruntime_become_standard() -> None:
    body = (
        "q = com.microsoft.QuantizeLinear (x, s, z)\n y = com.microsoft.DequantizeLinear (q, s, z)"
    )
    result = rewritten(quantised(body, {}), dequantise)
    assert [(n.op, n.domain) for n in result.nodes] == [
        ("QuantizeLinear", None), ("DequantizeLinear", None),
    ]  # fmt: skip


WIDE = {"s16": np.float32(0.001), "z16": np.uint16(900)}
WIDE_BODY = (
    "q = com.microsoft.QuantizeLinear (x, s16, z16)\n"
    " y = com.microsoft.DequantizeLinear (q, s16, z16)"
)


def test_sixteen_bits_before_opset_21_are_written_out() -> None:
    result = rewritten(quantised(WIDE_BODY, WIDE), dequantise)
    assert ops(result) == ["Div", "Round", "Add", "Clip", "Sub", "Mul"]


def test_sixteen_bits_are_read_with_the_zero_point_of_the_reader() -> None:
    other = {**WIDE, "other": np.float32(0.002), "less": np.uint16(300)}
    body = WIDE_BODY.replace("(q, s16, z16)", "(q, other, less)")
    assert ops(rewritten(quantised(body, other), dequantise))[-2:] == ["Sub", "Mul"]


def test_sixteen_bits_for_each_channel_are_left() -> None:
    each = {"s16": np.full(3, 0.001, np.float32), "z16": np.full(3, 900, np.uint16)}
    body = WIDE_BODY.replace("Linear (", "Linear <axis = 1> (")
    net, _ = import_graph(quantised(body, each))
    assert dequantise(net) == 0
    assert ops(net) == ["QuantizeLinear", "DequantizeLinear"]


def test_sixteen_bits_from_opset_21_are_standard() -> None:
    result = rewritten(quantised(WIDE_BODY, WIDE, opset=21), dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear"]


FUSED = {
    "Relu": 'activation = "Relu"',
    "LeakyRelu": 'activation = "LeakyRelu", activation_params = [0.2]',
    "Clip": 'activation = "Clip", activation_params = [0.0, 0.7]',
    "HardSigmoid": 'activation = "HardSigmoid", activation_params = [0.3, 0.4]',
    "Sigmoid": 'activation = "Sigmoid"',
    "Tanh": 'activation = "Tanh"',
}
FLOATS = {"wf": RNG.standard_normal((3, 3, 3, 3)).astype(np.float32), "kf": np.ones(3, np.float32)}


@pytest.mark.parametrize("activation", FUSED)
def test_fused_conv(activation: str) -> None:
    attributes = f"<{FUSED[activation]}, kernel_shape = [3,3], pads = [1,1,1,1]>"
    body = f"y = com.microsoft.FusedConv {attributes} (x, wf, kf)"
    assert ops(rewritten(quantised(body, FLOATS), dequantise)) == ["Conv", activation]
    without = quantised(body.replace(", kf", ""), FLOATS)
    assert ops(rewritten(without, dequantise)) == ["Conv", activation]


def test_fused_conv_with_a_residual() -> None:
    attributes = '<activation = "Relu", kernel_shape = [3,3], pads = [1,1,1,1]>'
    body = f"y = com.microsoft.FusedConv {attributes} (x, wf, kf, x)"
    assert ops(rewritten(quantised(body, FLOATS), dequantise)) == ["Conv", "Add", "Relu"]


DENSE_FLOATS = {"wf": RNG.standard_normal((4, 6)).astype(np.float32), "kf": np.ones(4, np.float32)}


def test_fused_gemm() -> None:
    attributes = '<activation = "LeakyRelu", activation_alpha = 0.2, transB = 1>'
    source = quantised(f"y = com.microsoft.FusedGemm {attributes} (x, wf, kf)", DENSE_FLOATS, ROW)
    assert ops(rewritten(source, dequantise)) == ["Gemm", "LeakyRelu"]


@pytest.mark.parametrize("attributes", ["<transB = 1, alpha = 0.5>", "<transB = 1>"])
def test_fused_matmul(attributes: str) -> None:
    body = f"y = com.microsoft.FusedMatMul {attributes} (x, wf)"
    assert ops(rewritten(quantised(body, DENSE_FLOATS, ROW), dequantise)) == ["MatMul"]


@pytest.mark.parametrize(
    "node",
    [
        "FusedMatMul (x, x)",
        "FusedMatMul <transA = 1> (x, wf)",
        "FusedMatMul <transBatchA = 1> (x, wf)",
        "FusedMatMul <transBatchB = 1> (x, wf)",
        'FusedConv <activation = "No"> (x, wf)',
        "QLinearAveragePool <kernel_shape = [2,2], channels_last = 1> (x, s, z, s, z)",
    ],
)
def test_what_cannot_be_taken_apart_stays(node: str) -> None:
    net, _ = import_graph(quantised(f"y = com.microsoft.{node}", FLOATS))
    assert dequantise(net) == 0
    assert net.nodes[0].domain == MICROSOFT


def test_static_quantisation_between_noops() -> None:
    body = (
        "q = QuantizeLinear (x, s, z)\n i = Identity (q)\n f = Flatten (i)\n"
        " y = DequantizeLinear (f, s, z)"
    )
    result = rewritten(quantised(body, {}), fold_constants, drop_noops, dequantise)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "Flatten"]
