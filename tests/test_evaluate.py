"""Evaluating graphs in numpy: each kernel against onnxruntime, cutting, casting, freeing."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from na_convert.errors import ModelError
from na_convert.evaluate import evaluate
from na_convert.graph import import_graph
from na_convert.runtime import run

from . import build


def check(
    body: str, weights=None, *, inputs: str, x: np.ndarray, outputs: str = "float[A] y"
) -> None:
    """numpy in float32 and float64 against onnxruntime."""
    model = build.model(body, weights, inputs=inputs, outputs=outputs, opset=21)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (expected,) = run(model, {"x": x}).values()
    graph, _ = import_graph(model)
    for dtype in (np.float32, np.float64):
        y = evaluate(graph, {"x": x}, ["y"], dtype=dtype)["y"]
        assert y.shape == expected.shape
        if expected.dtype.kind == "f":
            assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


CONVS = {
    "plain": ((6, 4, 3, 3), ""),
    "padded": ((6, 4, 3, 3), "pads: ints = [1, 1, 1, 1]"),
    "uneven pads, stride": ((6, 4, 3, 2), "pads: ints = [0, 2, 1, 1], strides: ints = [2, 3]"),
    "dilated": ((6, 4, 3, 3), "dilations: ints = [2, 3], pads: ints = [2, 2, 2, 2]"),
    "grouped": ((6, 2, 3, 3), "group: int = 2"),
    "depthwise": ((8, 1, 3, 3), "group: int = 4, pads: ints = [1, 1, 1, 1]"),
    "pointwise, stride": ((6, 4, 1, 1), "strides: ints = [2, 2]"),
    "same upper": ((6, 4, 3, 2), 'auto_pad: string = "SAME_UPPER", strides: ints = [2, 2]'),
    "same lower": ((6, 4, 3, 2), 'auto_pad: string = "SAME_LOWER", strides: ints = [2, 2]'),
    "valid": ((6, 4, 3, 3), 'auto_pad: string = "VALID"'),
}


@pytest.mark.parametrize("case", CONVS)
def test_conv(case: str) -> None:
    shape, attrs = CONVS[case]
    weights = {"w": shape, "b": (shape[0],)}
    x = build.images(2, (4, 9, 8))
    check(f"y = Conv <{attrs}> (x, w, b)" if attrs else "y = Conv (x, w, b)", weights,
          inputs="float[N,4,9,8] x", x=x)  # fmt: skip


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_of_other_ranks(rank: int) -> None:
    space = (7, 6, 5)[:rank]
    dims = ",".join(map(str, space))
    check(
        "y = Conv (x, w)", {"w": (5, 4, *[3] * rank)}, inputs=f"float[N,4,{dims}] x",
        x=build.images(2, (4, *space)),
    )  # fmt: skip


TRANSPOSED = {
    "plain": "",
    "stride, output padding": "strides: ints = [2, 3], output_padding: ints = [1, 0]",
    "pads": "strides: ints = [2, 2], pads: ints = [1, 0, 0, 1]",
    "dilated": "dilations: ints = [2, 1]",
    "output shape": "strides: ints = [2, 2], output_shape: ints = [11, 10]",
    "same": 'strides: ints = [2, 2], auto_pad: string = "SAME_UPPER"',
}


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(case: str, group: int) -> None:
    attrs = ", ".join(filter(None, [f"group: int = {group}", TRANSPOSED[case]]))
    check(
        f"y = ConvTranspose <{attrs}> (x, w, b)", {"w": (4, 3, 3, 3), "b": (3 * group,)},
        inputs="float[N,4,5,5] x", x=build.images(2, (4, 5, 5)),
    )  # fmt: skip


POOLS = {
    "plain": "kernel_shape: ints = [2, 2]",
    "stride": "kernel_shape: ints = [3, 2], strides: ints = [2, 2]",
    "padded": "kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1], strides: ints = [2, 2]",
    "uneven pads": "kernel_shape: ints = [3, 3], pads: ints = [0, 1, 2, 1]",
    "ceil": "kernel_shape: ints = [2, 2], strides: ints = [2, 2], ceil_mode: int = 1",
    "ceil, padded": "kernel_shape: ints = [3, 3], strides: ints = [2, 2], ceil_mode: int = 1, "
    "pads: ints = [1, 1, 1, 1]",
    "ceil, a window that would start in the padding": "kernel_shape: ints = [3, 3], "
    "strides: ints = [3, 3], ceil_mode: int = 1, pads: ints = [0, 0, 2, 2]",
    "dilated": "kernel_shape: ints = [2, 2], dilations: ints = [2, 3]",
    "same": 'kernel_shape: ints = [3, 3], strides: ints = [2, 2], auto_pad: string = "SAME_UPPER"',
}


@pytest.mark.parametrize("case", POOLS)
def test_max_pool(case: str) -> None:
    check(f"y = MaxPool <{POOLS[case]}> (x)", inputs="float[N,3,9,8] x",
          x=build.images(2, (3, 9, 8)))  # fmt: skip


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("count_pads", [0, 1])
def test_average_pool(case: str, count_pads: int) -> None:
    attrs = f"{POOLS[case]}, count_include_pad: int = {count_pads}"
    check(f"y = AveragePool <{attrs}> (x)", inputs="float[N,3,9,8] x",
          x=build.images(2, (3, 9, 8)))  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools_of_any_rank(op: str, rank: int) -> None:
    space = (7, 6, 5)[:rank]
    dims = ",".join(map(str, space))
    check(f"y = {op} (x)", inputs=f"float[N,4,{dims}] x", x=build.images(2, (4, *space)))


PADS = {
    "added": ("pads", [0, 0, 1, 2, 0, 1, 0, 3]),
    "cropped": ("pads", [0, 0, -1, 2, 0, -1, 1, -3]),
    "a value": ("pads, value", [0, 0, 1, -2, 0, 0, 2, 1]),
    "some axes": ("pads, value, axes", [1, -1, 2, 0]),
    "some axes, no value": ("pads, , axes", [1, -1, 2, 0]),
}


@pytest.mark.parametrize("case", PADS)
def test_pad(case: str) -> None:
    given, pads = PADS[case]
    weights = {
        "pads": np.asarray(pads, np.int64),
        "value": np.float32(0.5),
        "axes": np.asarray([-1, 1], np.int64),
    }
    check(f"y = Pad (x, {given})", weights, inputs="float[N,4,9,8] x", x=build.images(2, (4, 9, 8)))


@pytest.mark.parametrize("size", [3, 5])
def test_normalisation_over_channels(size: int) -> None:
    body = f"y = LRN <size: int = {size}, alpha: float = 0.5, bias: float = 2.0> (x)"
    check(body, inputs="float[N,7,5,4] x", x=build.images(2, (7, 5, 4)))


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_pad_with_the_image_itself(mode: str) -> None:
    pads = {"pads": np.asarray([0, 0, 1, 2, 0, 0, 2, 1], np.int64)}
    body = f'y = Pad <mode: string = "{mode}"> (x, pads)'
    check(body, pads, inputs="float[N,4,9,8] x", x=build.images(2, (4, 9, 8)))


@pytest.mark.parametrize("case", [*POOLS, "stored by columns"])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_max_pool_of_integers(kind: str, case: str) -> None:
    """Neither the padding nor what a last window lacks is a value: all may be negative."""
    attrs = POOLS.get(case, "kernel_shape: ints = [2, 2], storage_order: int = 1")
    x = np.arange(1, 145, dtype=np.uint8).reshape(1, 2, 9, 8)
    x = x if kind == "uint8" else (-(x // 2).astype(np.int8))
    check(f"y = MaxPool <{attrs}> (x)", inputs=f"{kind}[N,2,9,8] x", x=x, outputs=f"{kind}[A] y")


@pytest.mark.parametrize(
    "attrs", ["", "transB: int = 1", "alpha: float = 0.5, beta: float = 2.0, transB: int = 1"]
)
def test_gemm(attrs: str) -> None:
    shape = (5, 4) if "transB" in attrs else (4, 5)
    body = f"y = Gemm <{attrs}> (x, w, b)" if attrs else "y = Gemm (x, w, b)"
    check(body, {"w": shape, "b": (5,)}, inputs="float[N,4] x", x=build.images(3, (4,)))


def test_matmul_of_stacks() -> None:
    check("y = MatMul (x, w)", {"w": (4, 5)}, inputs="float[N,3,4] x", x=build.images(2, (3, 4)))


def test_batch_normalization() -> None:
    weights = {"g": (4,), "b": (4,), "m": (4,), "v": np.array([0.01, 0.5, 1, 3], np.float32)}
    check("y = BatchNormalization <epsilon: float = 0.001> (x, g, b, m, v)", weights,
          inputs="float[N,4,5,5] x", x=build.images(2, (4, 5, 5)))  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantize_and_dequantize(per_channel: bool) -> None:
    scale = (
        np.array([0.125, 0.25, 0.5], np.float32) if per_channel else np.asarray(0.25, np.float32)
    )
    zero = np.array([0, 7, 100], np.uint8) if per_channel else np.asarray(3, np.uint8)
    body = (
        "q = QuantizeLinear <axis: int = 1> (x, s, z)\n"
        "y = DequantizeLinear <axis: int = 1> (q, s, z)"
    )
    x = np.round(build.images(2, (3, 5, 5)) * 16) / 8  # many ties
    check(body, {"s": scale, "z": zero}, inputs="float[N,3,5,5] x", x=x)


@pytest.mark.parametrize("zero", [None, 5])
def test_quantize_and_dequantize_in_blocks(zero: int | None) -> None:
    """A scale for every two elements of the last axis, five of which are two blocks and a half."""
    attrs = "axis: int = 2, block_size: int = 2"
    given = "s" if zero is None else "s, z"
    weights = {"s": np.array([[[0.125, 0.25, 0.5]] * 3], np.float32)}
    if zero is not None:
        weights["z"] = np.full((1, 3, 3), zero, np.uint8)
    body = f"q = QuantizeLinear <{attrs}> (x, {given})\ny = DequantizeLinear <{attrs}> (q, {given})"
    check(body, weights, inputs="float[1,3,5] x", x=build.images(1, (3, 5)) * 9)


def test_a_cast_of_a_model_that_graphsurgeon_made() -> None:
    """It writes the type as numpy has it, where a file has a number."""
    x, y, z = (gs.Variable(name, np.float32, ["N"]) for name in "xyz")
    nodes = [
        gs.Node("Cast", "to_int", {"to": np.int64}, [x], [y]),
        gs.Node("Cast", "to_float", {"to": np.float32}, [y], [z]),
    ]
    graph = gs.Graph(nodes, [x], [z], opset=17)
    found = evaluate(graph, {"x": np.array([-1.5, 0.25, 2.75])}, ["y", "z"])
    np.testing.assert_array_equal(found["y"], np.array([-1, 0, 2]))
    assert (found["y"].dtype, found["z"].dtype) == (np.int64, np.float64)


def test_quantize_to_int4() -> None:
    body = (
        "q = QuantizeLinear <output_dtype: int = 22> (x, s)\n"
        "f = Cast <to: int = 3> (q)\ny = Cast <to: int = 1> (f)"
    )
    check(body, {"s": 0.25}, inputs="float[N,3,5,5] x", x=build.images(2, (3, 5, 5)) * 3)


def test_operators_without_a_kernel_run_in_the_reference() -> None:
    body = "a = Softmax <axis: int = 1> (x)\nb = GlobalAveragePool (a)\ny = Floor (b)"
    check(body, inputs="float[N,3,5,5] x", x=build.images(2, (3, 5, 5)))


def test_a_subgraph_reads_the_graph_around_it() -> None:
    body = (
        "yes = Constant <value: tensor = bool {1}> ()\n"
        "twice = Add (x, x)\n"
        "y = If (yes) <then_branch = then () => (t) { t = Add (twice, x) }, "
        "else_branch = other () => (e) { e = Sub (twice, x) }>"
    )
    check(body, inputs="float[N,3] x", x=build.images(2, (3,)))


# --- what the function promises -------------------------------------------------------------------

CHAIN = "a = Mul (x, two)\nb = Floor (a)\nc = Add (b, two)\ny = Mul (c, c)"


def chain() -> gs.Graph:
    return build.graph(CHAIN, {"two": 2.0}, inputs="float[N,3] x", outputs="float[N,3] y")[0]


def test_feeding_an_inner_tensor_cuts_the_graph() -> None:
    b = np.array([[1.0, 2.0, 3.0]])
    found = evaluate(chain(), {"b": b}, ["y", "c", "b"])  # x is not needed
    np.testing.assert_array_equal(found["y"], (b + 2) ** 2)
    np.testing.assert_array_equal(found["c"], b + 2)
    np.testing.assert_array_equal(found["b"], b)


def test_a_constant_can_be_asked_for() -> None:
    assert evaluate(chain(), {}, ["two"])["two"] == 2.0


def test_floats_are_evaluated_in_the_type_asked_for() -> None:
    body = "third = Div (one, three)\nc = Cast <to: int = 1> (third)\ny = Mul (x, c)"
    graph, _ = build.graph(body, {"one": 1.0, "three": 3.0}, inputs="float[N] x",
                           outputs="float[N] y")  # fmt: skip
    x = np.array([3.0], np.float32)
    assert evaluate(graph, {"x": x}, ["c"])["c"] == 1 / 3
    assert evaluate(graph, {"x": x}, ["c"], dtype=np.float32)["c"] == np.float32(1) / np.float32(3)


def test_nodes_may_stand_in_any_order() -> None:
    graph = chain()
    graph.nodes.reverse()
    x = build.images(2, (3,))
    np.testing.assert_array_equal(
        evaluate(graph, {"x": x}, ["y"])["y"], evaluate(chain(), {"x": x}, ["y"])["y"]
    )


def test_a_missing_input_is_named() -> None:
    with pytest.raises(ModelError, match="'x' has no value"):
        evaluate(chain(), {}, ["y"])


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(ModelError, match="no tensor 'nothing'"):
        evaluate(chain(), {"x": build.images(2, (3,))}, ["nothing"])


def test_an_operator_nobody_knows_is_named() -> None:
    graph = chain()
    graph.nodes[1].op, graph.nodes[1].domain, graph.nodes[1].name = "Magic", "elsewhere", "spell"
    with pytest.raises(ModelError, match=r"'spell' \(Magic\) cannot be evaluated"):
        evaluate(graph, {"x": build.images(2, (3,))}, ["y"])


def test_a_neuron_needs_state_or_a_cut() -> None:
    attrs = "threshold: float = 1.0, amplitude: float = 1.0, initial: float = 0.5"
    body = f"a = na_convert.IF <{attrs}> (x)\ny = Mul (a, a)"
    graph, _ = build.graph(body, inputs="float[N] x", outputs="float[N] y")
    x = np.array([0.7, 0.2])
    with pytest.raises(ModelError, match="cannot be evaluated"):
        evaluate(graph, {"x": x}, ["y"])
    assert evaluate(graph, {"a": np.array([3.0])}, ["y"])["y"] == 9
    fired = evaluate(graph, {"x": x}, ["a"], stateful=lambda node, z: z >= 0.5)["a"]
    np.testing.assert_array_equal(fired, [True, False])


@pytest.mark.parametrize(
    "domain", ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"]
)
def test_qonnx_quantisers(domain: str) -> None:
    x = gs.Variable("x", np.float32, ["N"])
    y = gs.Variable("y", np.float32, ["N"])
    parameters = [
        gs.Constant(n, np.asarray(v, np.float32)) for n, v in (("s", 0.5), ("z", 0.0), ("b", 2.0))
    ]
    attrs = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}
    node = gs.Node("Quant", "q", attrs, [x, *parameters], [y], domain=domain)
    graph = gs.Graph([node], [x], [y], opset=17)
    found = evaluate(graph, {"x": np.array([-1.0, 0.25, 0.75, 9.0])}, ["y"])["y"]
    np.testing.assert_array_equal(found, [0, 0, 1.0, 1.5])  # halves to even


def test_values_are_freed_after_their_last_use() -> None:
    """A chain of a hundred steps on one large tensor: the peak is a few of them, not a hundred."""
    import tracemalloc

    lines = [f"t{i + 1} = Neg (t{i})" for i in range(100)]
    body = "\n".join(["t0 = Neg (x)", *lines, "y = Neg (t100)"])
    graph, _ = build.graph(body, inputs="float[N] x", outputs="float[N] y")
    x = np.zeros(1 << 18)
    evaluate(graph, {"x": x[:1]}, ["y"])
    tracemalloc.start()
    evaluate(graph, {"x": x}, ["y"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * x.nbytes


def test_the_model_is_left_as_it_was() -> None:
    graph = chain()
    before = gs.export_onnx(graph).SerializeToString()
    evaluate(graph, {"x": build.images(2, (3,))}, ["y"])
    assert gs.export_onnx(graph).SerializeToString() == before
    assert isinstance(onnx.ModelProto.FromString(before), onnx.ModelProto)
