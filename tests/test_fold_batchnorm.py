from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes import fold_batchnorm
from na_convert.passes.node_builder import Builder

from na_convert.evaluate import evaluate
from na_convert.graph import import_graph

from .build import graph, model
from .same import checked, ops, rewritten, run

IMAGE = {"inputs": "float[N,3,8,8] x", "outputs": "float[N,C,H,W] y"}
ROW = {"inputs": "float[N,6] x", "outputs": "float[N,C] y"}
BN = "BatchNormalization <epsilon: float = 0.1>"


def parameters(channels: int, name: str = "bn", seed: int = 7) -> dict[str, np.ndarray]:
    """Scale, bias, mean and variance of a BatchNormalization, called NAME_g, _b, _m and _v."""
    rng = np.random.default_rng(seed)
    values = {
        "g": rng.uniform(-1.5, 1.5, channels),
        "b": rng.uniform(-1, 1, channels),
        "m": rng.uniform(-1, 1, channels),
        "v": rng.uniform(0.2, 2, channels),
    }
    return {f"{name}_{k}": v.astype(np.float32) for k, v in values.items()}


def bn(x: str, y: str, name: str = "bn") -> str:
    return f"{y} = {BN} ({x}, {name}_g, {name}_b, {name}_m, {name}_v)\n"


LAYERS = {
    "Conv": ("c = Conv <pads = [1,1,1,1]> (x, w)", {"w": (4, 3, 3, 3)}, 4, IMAGE),
    "Conv with bias": ("c = Conv (x, w, k)", {"w": (4, 3, 3, 3), "k": (4,)}, 4, IMAGE),
    "grouped Conv": ("c = Conv <group = 3> (x, w)", {"w": (6, 1, 3, 3)}, 6, IMAGE),
    "ConvTranspose": ("c = ConvTranspose (x, w)", {"w": (3, 4, 2, 2)}, 4, IMAGE),
    "grouped ConvTranspose": (
        "c = ConvTranspose <group = 3, strides = [2,2]> (x, w, k)",
        {"w": (3, 2, 2, 2), "k": (6,)}, 6, IMAGE,
    ),
    "Gemm": ("c = Gemm (x, w, k)", {"w": (6, 4), "k": (4,)}, 4, ROW),
    "Gemm transB alpha beta": (
        "c = Gemm <transB = 1, alpha = 0.5, beta = 3.0> (x, w, k)",
        {"w": (4, 6), "k": (4,)}, 4, ROW,
    ),
    "Gemm with one bias": ("c = Gemm (x, w, k)", {"w": (6, 4), "k": 0.3}, 4, ROW),
    "MatMul": ("c = MatMul (x, w)", {"w": (6, 4)}, 4, ROW),
    "MatMul + Add": ("m = MatMul (x, w)\n c = Add (k, m)", {"w": (6, 4), "k": (4,)}, 4, ROW),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_folds_into_the_layer_before(case: str) -> None:
    layer, weights, channels, shapes = LAYERS[case]
    source = model(f"{layer}\n{bn('c', 'y')}", {**weights, **parameters(channels)}, **shapes)
    result = rewritten(source, fold_batchnorm.run)
    assert "BatchNormalization" not in ops(result)
    assert len(result.nodes) <= (2 if "MatMul" in case else 1)
    assert [t.name for t in result.outputs] == ["y"]


def test_report_counts_and_names() -> None:
    source = model(
        "c = Conv (x, w)\n" + bn("c", "n") + "y = Relu (n)",
        {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE,
    )  # fmt: skip
    result, (report,) = checked(source, fold_batchnorm.run)
    assert (report.name, report.changed, report.skipped) == ("fold_batchnorm", 1, ())
    assert result.nodes[0].outputs[0].name == "n"


def test_conv_whose_bias_is_an_add_per_channel() -> None:
    weights = {"w": (4, 3, 3, 3), "k": (4, 1, 1), **parameters(4)}
    source = model("c = Conv (x, w)\n a = Add (c, k)\n" + bn("a", "y"), weights, **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Conv"]


def test_one_behind_the_other() -> None:
    weights = {"w": (4, 3, 3, 3), **parameters(4, "p"), **parameters(4, "q", seed=9)}
    source = model("c = Conv (x, w)\n" + bn("c", "n", "p") + bn("n", "y", "q"), weights, **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Conv"]


def test_one_behind_the_other_without_a_layer() -> None:
    weights = {**parameters(3, "p"), **parameters(3, "q", seed=9)}
    source = model("r = Relu (x)\n" + bn("r", "n", "p") + bn("n", "y", "q"), weights, **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Relu", "Mul", "Add"]


def test_shared_weights_are_not_changed_for_the_other_layer() -> None:
    body = "c = Conv (x, w)\n" + bn("c", "n") + "d = Conv (x, w)\n y = Add (n, d)"
    source = model(body, {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE)
    result = rewritten(source, fold_batchnorm.run)
    first, second = (n for n in result.nodes if n.op == "Conv")
    assert first.inputs[1] is not second.inputs[1]


def test_layer_used_elsewhere_keeps_its_output() -> None:
    body = "c = Conv (x, w)\n" + bn("c", "n") + "y = Add (n, c)"
    source = model(body, {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE)
    result, (report,) = checked(source, fold_batchnorm.run)
    assert ops(result) == ["Conv", "Mul", "Add", "Add"]
    assert "used elsewhere" in report.skipped[0].reason


def test_layer_that_is_a_graph_output() -> None:
    shapes = {**IMAGE, "outputs": "float[N,C,H,W] y, float[N,C,H,W] c"}
    source = model(
        "c = Conv (x, w)\n" + bn("c", "y"), {"w": (4, 3, 3, 3), **parameters(4)}, **shapes
    )
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Conv", "Mul", "Add"]


BEFORE = {
    "Conv": ("y = Conv (n, w, k)", {"w": (4, 3, 3, 3), "k": (4,)}, 3, IMAGE),
    "grouped Conv": ("y = Conv <group = 3> (n, w)", {"w": (6, 1, 3, 3)}, 3, IMAGE),
    "Gemm": ("y = Gemm <alpha = 0.5, beta = 2.0> (n, w, k)", {"w": (6, 4), "k": (4,)}, 6, ROW),
    "Gemm transB": ("y = Gemm <transB = 1> (n, w)", {"w": (4, 6)}, 6, ROW),
    "MatMul + Add": ("m = MatMul (n, w)\n y = Add (m, k)", {"w": (6, 4), "k": (4,)}, 6, ROW),
}


@pytest.mark.parametrize("case", BEFORE)
def test_folds_into_the_layer_after(case: str) -> None:
    layer, weights, channels, shapes = BEFORE[case]
    source = model(
        "r = Relu (x)\n" + bn("r", "n") + layer, {**weights, **parameters(channels)}, **shapes
    )
    result = rewritten(source, fold_batchnorm.run)
    assert ops(result)[1:] == [op for op in ("MatMul", "Add") if op in case] or ["Conv"]
    assert "BatchNormalization" not in ops(result)
    assert "Mul" not in ops(result)


def test_before_a_padded_conv_it_stays_affine() -> None:
    source = model(
        "r = Relu (x)\n" + bn("r", "n") + "y = Conv <pads = [1,1,1,1]> (n, w)",
        {"w": (4, 3, 3, 3), **parameters(3)}, **IMAGE,
    )  # fmt: skip
    result, (report,) = checked(source, fold_batchnorm.run)
    assert ops(result) == ["Relu", "Mul", "Add", "Conv"]
    assert "pads" in report.skipped[0].reason


def test_before_a_padded_conv_without_shift_it_folds() -> None:
    weights = {"w": (4, 3, 3, 3), **parameters(3)}
    weights["bn_b"] = weights["bn_m"] = np.zeros(3, np.float32)
    source = model(
        "r = Relu (x)\n" + bn("r", "n") + "y = Conv <pads = [1,1,1,1]> (n, w)", weights, **IMAGE
    )
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Relu", "Conv"]


def test_before_a_bare_matmul_it_stays_affine() -> None:
    source = model(
        "r = Relu (x)\n" + bn("r", "n") + "y = MatMul (n, w)", {"w": (6, 4), **parameters(6)}, **ROW
    )
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Relu", "Mul", "Add", "MatMul"]


def test_behind_concat() -> None:
    source = model("c = Concat <axis = 1> (x, x)\n" + bn("c", "y"), parameters(6), **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Concat", "Mul", "Add"]


def test_on_rows_behind_an_activation() -> None:
    source = model("r = Relu (x)\n" + bn("r", "y"), parameters(6), **ROW)
    result = rewritten(source, fold_batchnorm.run)
    assert ops(result) == ["Relu", "Mul", "Add"]
    assert result.nodes[1].inputs[1].shape == (6,)


def test_matmul_over_more_than_rows_is_no_layer_with_channels_on_axis_1() -> None:
    source = model("m = MatMul (x, w)\n" + bn("m", "y"), {"w": (8, 8), **parameters(3)}, **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["MatMul", "Mul", "Add"]


def test_scale_zero() -> None:
    weights = {"w": (4, 3, 3, 3), **parameters(4)}
    weights["bn_g"] = np.array([0, 1, 0, -1], np.float32)
    source = model("c = Conv (x, w)\n" + bn("c", "y"), weights, **IMAGE)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Conv"]


def test_half_precision_that_would_overflow_stays_affine() -> None:
    weights = {"w": np.full((2, 3, 1, 1), 6e4, np.float16)}
    weights |= {k: v.astype(np.float16) for k, v in parameters(2).items()}
    weights["bn_g"] = np.array([2, 2], np.float16)
    net, _ = graph(
        "c = Conv (x, w)\n" + bn("c", "y"), weights,
        inputs="float16[N,3,8,8] x", outputs="float16[N,C,H,W] y",
    )  # fmt: skip
    report = fold_batchnorm.run(net)
    assert ops(net) == ["Conv", "Mul", "Add"]
    assert "cannot hold" in report.skipped[0].reason


def test_computed_parameters_are_left() -> None:
    source = model(
        "c = Conv (x, w)\n g = GlobalAveragePool (x)\n one = Constant <value_ints = [0]> ()\n"
        " s = ReduceMean <axes = [0,2,3], keepdims = 0> (g)\n"
        f"y = {BN} (c, s, bn_b, bn_m, bn_v)",
        {"w": (3, 3, 3, 3), **parameters(3)}, **IMAGE,
    )  # fmt: skip
    net, _ = import_graph(source)
    report = fold_batchnorm.run(net)
    assert "BatchNormalization" in ops(net)
    assert "parameters" in report.skipped[0].reason


def test_computed_weights_are_left_as_mul_and_add() -> None:
    body = (
        "t = Tanh (x)\n s = ReduceMean <axes = [0,1,2,3], keepdims = 0> (t)\n"
        " v = Mul (w, s)\n c = Conv (x, v)\n" + bn("c", "y")
    )
    net, _ = graph(body, {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE)
    report = fold_batchnorm.run(net)
    assert ops(net)[-2:] == ["Mul", "Add"]
    assert "computed" in report.skipped[0].reason


def test_a_shift_of_zero_behind_a_bare_matmul_needs_no_add() -> None:
    still = {**parameters(4), "bn_b": np.zeros(4, np.float32), "bn_m": np.zeros(4, np.float32)}
    source = model("c = MatMul (x, w)\n" + bn("c", "y"), {"w": (6, 4), **still}, **ROW)
    assert ops(rewritten(source, fold_batchnorm.run)) == ["MatMul"]


KEPT = {
    "the product is used elsewhere, too": (
        "m = MatMul (x, w)\n c = Add (m, k)\n" + bn("c", "n") + "y = Sub (n, m)",
        {"w": (6, 4), "k": (4,)}, 4, ROW),
    "the bias is computed in the graph": (
        "b = ReduceMax <axes = [0,2,3], keepdims = 0> (x)\n c = Conv (x, w, b)\n" + bn("c", "y"),
        {"w": (3, 3, 1, 1)}, 3, IMAGE),
    "it computes the weights of the next layer": (
        "r = Relu (x)\n" + bn("r", "n") + "y = Conv (x, n)", {}, 3, IMAGE),
    "a ConvTranspose like this takes no affine function before it": (
        "r = Relu (x)\n" + bn("r", "n") + "y = ConvTranspose (n, w)", {"w": (3, 4, 2, 2)}, 3,
        IMAGE),
    "the next Conv pads with zeros, which are not the same before and after it": (
        "r = Relu (x)\n" + bn("r", "n") + 'y = Conv <auto_pad = "SAME_UPPER"> (n, w)',
        {"w": (4, 3, 3, 3)}, 3, IMAGE),
    "the MatMul behind it has no bias": (
        "r = Relu (x)\n" + bn("r", "n") + "m = MatMul (n, w)\n k = Relu (m)\n y = Add (m, k)",
        {"w": (6, 4)}, 6, ROW),
    "the weights are computed in the graph": (
        "t = ReduceMax <keepdims = 0> (x)\n v = Mul (w, t)\n r = Relu (x)\n" + bn("r", "n")
        + "y = Conv (n, v)", {"w": (4, 3, 3, 3)}, 3, IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("reason", KEPT)
def test_what_cannot_fold_becomes_mul_and_add_and_says_why(reason: str) -> None:
    body, weights, channels, shapes = KEPT[reason]
    net, carried = graph(body, {**weights, **parameters(channels)}, **shapes)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, *(
        (6,) if shapes is ROW else (3, 8, 8)))).astype(np.float32)}  # fmt: skip
    before = run(net.copy(), carried, feeds)
    report = fold_batchnorm.run(net)
    assert [op in ops(net) for op in ("BatchNormalization", "Mul")] == [False, True]
    assert [s.reason for s in report.skipped] == [f"kept as Mul and Add: {reason}"]
    np.testing.assert_allclose(run(net, carried, feeds)["y"], before["y"], rtol=1e-4, atol=1e-5)


def test_before_a_matmul_whose_product_is_added_to_another_it_folds_without_a_shift() -> None:
    still = {**parameters(6), "bn_b": np.zeros(6, np.float32), "bn_m": np.zeros(6, np.float32)}
    body = "r = Relu (x)\n" + bn("r", "n") + "m = MatMul (n, w)\n k = MatMul (x, w)\ny = Add (k, m)"
    result = rewritten(model(body, {"w": (6, 4), **still}, **ROW), fold_batchnorm.run)
    assert ops(result) == ["Relu", "MatMul", "MatMul", "Add"]


def test_one_that_makes_the_scale_of_another_is_not_handed_on() -> None:
    body = "r = Relu (x)\n" + bn("r", "n") + f"y = {BN} (x, n, bn_b, bn_m, bn_v)"
    net, _ = graph(body, parameters(3), **IMAGE)
    report = fold_batchnorm.run(net)
    assert ops(net) == ["Relu", "Mul", "Add", "BatchNormalization"]
    assert "its parameters are computed" in report.skipped[-1].reason


def test_one_behind_which_parameters_are_computed_is_not_handed_on() -> None:
    body = (
        "q = ReduceMean <axes = [0,2,3], keepdims = 0> (x)\n r = Relu (x)\n" + bn("r", "n")
        + f"y = {BN} (n, bn_g, bn_b, q, bn_v)"
    )  # fmt: skip
    net, _ = graph(body, parameters(3), **IMAGE)
    fold_batchnorm.run(net)
    assert ops(net) == ["ReduceMean", "Relu", "Mul", "Add", "BatchNormalization"]


def test_half_precision_before_a_layer_that_would_overflow() -> None:
    large = {k: v.astype(np.float16) for k, v in parameters(3).items()}
    large["bn_g"] = np.full(3, 2e4, np.float16)
    weights = {"w": np.full((4, 3, 1, 1), 50, np.float16), **large}
    shapes = {"inputs": "float16[N,3,8,8] x", "outputs": "float16[N,C,H,W] y"}
    net, _ = graph("r = Relu (x)\n" + bn("r", "n") + "y = Conv (n, w)", weights, **shapes)
    report = fold_batchnorm.run(net)
    assert ops(net) == ["Relu", "Mul", "Add", "Conv"]
    assert "float16 cannot hold the product with the weights" in report.skipped[0].reason


def test_a_gain_that_half_precision_cannot_hold_is_left() -> None:
    large = {k: v.astype(np.float16) for k, v in parameters(3).items()}
    large |= {"bn_g": np.full(3, 6e4, np.float16), "bn_v": np.full(3, 0.1, np.float16)}
    shapes = {"inputs": "float16[N,3,8,8] x", "outputs": "float16[N,C,H,W] y"}
    net, _ = graph("r = Relu (x)\n" + bn("r", "y"), large, **shapes)
    report = fold_batchnorm.run(net)
    assert ops(net) == ["Relu", "BatchNormalization"]
    assert report.skipped[0].reason.endswith("float16 cannot hold its gain and shift")


def test_an_unknown_number_of_axes_is_left() -> None:
    body = "r = Reshape (x, s)\n" + bn("r", "y")
    shapes = {"inputs": "float[N,3,8,8] x, int64[K] s", "outputs": "float y"}
    net, _ = graph(body, parameters(3), **shapes)
    report = fold_batchnorm.run(net)
    assert ops(net) == ["Reshape", "BatchNormalization"]
    assert report.skipped[0].reason.endswith("how many axes its input has is unknown")


CHAINS = {
    "Sub from a constant": ("a = Sub (shift, c)", 1),
    "Div of a constant": ("b = Div (gain, c)\n a = Add (b, shift)", 3),
    "Div by zero": ("b = Div (c, none)\n a = Add (b, shift)", 3),
    "Mul of more channels": ("b = Mul (c, wide)\n a = Add (b, shift)", 3),
}


@pytest.mark.parametrize("case", CHAINS)
def test_other_arithmetic_behind_a_layer(case: str) -> None:
    middle, count = CHAINS[case]
    weights = {
        "w": (1 if "more" in case else 4, 3, 3, 3), **vectors(1 if "more" in case else 4, 1, 1),
        "none": np.array([0, 1, 1, 1], np.float32).reshape(4, 1, 1), "wide": (4, 1, 1),
    }  # fmt: skip
    net, _ = graph(f"c = Conv (x, w)\n {middle}\n y = Relu (a)", weights, **IMAGE)
    before = net.copy()
    fold_batchnorm.run(net)
    assert len(net.nodes) == count + 1
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    (wanted,), (found,) = (evaluate(each, {"x": x}, ["y"]).values() for each in (before, net))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_training_mode_is_refused() -> None:
    training = (
        "c = Conv (x, w)\n"
        "y, m, v = BatchNormalization <training_mode: int = 1> (c, bn_g, bn_b, bn_m, bn_v)"
    )
    net, _ = graph(training, {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE)
    report = fold_batchnorm.run(net)
    assert [(r.op, "eval mode" in r.remedy) for r in report.refused] == [
        ("BatchNormalization", True)
    ]


def decomposed(layer: str, end: str = "y") -> str:
    return (
        f"{layer}\n a = Sub (c, mean)\n b = Div (a, deviation)\n d = Mul (b, gain)\n"
        f" {end} = Add (d, shift)\n"
    )


def vectors(*shape: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    names = ("mean", "deviation", "gain", "shift")
    return {name: rng.uniform(0.5, 2, shape).astype(np.float32) for name in names}


def test_decomposed_behind_conv() -> None:
    source = model(
        decomposed("c = Conv (x, w)"), {"w": (4, 3, 3, 3), **vectors(1, 4, 1, 1)}, **IMAGE
    )
    result, (report,) = checked(source, fold_batchnorm.run)
    assert ops(result) == ["Conv"]
    assert report.changed == 4


def test_decomposed_behind_gemm_and_matmul_add() -> None:
    gemm = model(decomposed("c = Gemm (x, w)"), {"w": (6, 4), **vectors(4)}, **ROW)
    assert ops(rewritten(gemm, fold_batchnorm.run)) == ["Gemm"]
    weights = {"w": (6, 4), "k": (4,), **vectors(1, 4)}
    matmul = model(decomposed("m = MatMul (x, w)\n c = Add (m, k)"), weights, **ROW)
    assert ops(rewritten(matmul, fold_batchnorm.run)) == ["MatMul", "Add"]


def test_decomposed_used_in_between_is_left() -> None:
    source = model(
        decomposed("c = Conv (x, w)", "e") + "y = Add (e, b)",
        {"w": (4, 3, 3, 3), **vectors(4, 1, 1)}, **IMAGE,
    )  # fmt: skip
    assert "Div" in ops(rewritten(source, fold_batchnorm.run))


def test_scale_and_offset_of_a_quantiser_stay() -> None:
    body = (
        "c = Conv (x, w)\n a = Div (c, gain)\n b = Add (a, shift)\n d = Round (b)\n"
        " e = Clip (d, low, high)\n y = Mul (e, gain)"
    )
    weights = {"w": (4, 3, 3, 3), "low": 0.0, "high": 3.0, **vectors(4, 1, 1)}
    result, (report,) = checked(model(body, weights, **IMAGE), fold_batchnorm.run)
    assert report.changed == 0
    assert ops(result) == ["Conv", "Div", "Add", "Round", "Clip", "Mul"]


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_a_number_for_all_channels_behind_a_layer_stays(op: str) -> None:
    source = model(
        f"c = Conv (x, w)\n a = {op} (c, half)\n y = Relu (a)", {"w": (4, 3, 3, 3), "half": 0.5},
        **IMAGE,
    )  # fmt: skip
    assert ops(rewritten(source, fold_batchnorm.run)) == ["Conv", op, "Relu"]


def test_numbers_for_all_channels_stay() -> None:
    source = model(
        "c = Conv (x, w)\n a = Div (c, step)\n b = Add (a, half)\n d = Floor (b)\n"
        " y = Mul (d, step)",
        {"w": (4, 3, 3, 3), "step": 0.4, "half": 0.5}, **IMAGE,
    )  # fmt: skip
    assert checked(source, fold_batchnorm.run)[1][0].changed == 0


def test_old_weights_are_let_go() -> None:
    net, _ = graph(
        "c = Conv (x, w)\n" + bn("c", "y"), {"w": (4, 3, 3, 3), **parameters(4)}, **IMAGE
    )
    weight = net.nodes[0].inputs[1]
    fold_batchnorm.run(net)
    assert weight.values.size == 0


def test_builder_names_are_fresh() -> None:
    net, _ = graph("y = Relu (x)", **IMAGE)
    assert Builder(net).variable("x").name == "x_2"
