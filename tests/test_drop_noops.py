from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes.drop_noops import drop_noops

from .build import graph, model
from .same import ops, rewritten

IMAGE = {"inputs": "float[N,3,8,8] x", "outputs": "float[N,C,H,W] y"}

NOOPS = {
    "Identity": "Identity (a)",
    "Dropout": "Dropout (a)",
    "Dropout with inputs": "Dropout (a, ratio, off)",
    "Cast": "Cast <to = 1> (a)",
    "Concat": "Concat <axis = 1> (a)",
    "Sum": "Sum (a)",
    "Max": "Max (a)",
    "Min": "Min (a)",
    "Mean": "Mean (a)",
    "Dropout that keeps everything": "Dropout (a, ratio)",
    "Transpose": "Transpose <perm = [0,1,2,3]> (a)",
}


@pytest.mark.parametrize("case", NOOPS)
def test_noops_are_dropped(case: str) -> None:
    weights = {"ratio": 0.5, "off": np.array(False)}
    source = model(f"a = Relu (x)\n b = {NOOPS[case]}\n y = Neg (b)", weights, **IMAGE)
    source.graph.value_info.append(_typed("a"))
    assert ops(rewritten(source, drop_noops)) == ["Relu", "Neg"]


@pytest.mark.parametrize(
    "node", ["Cast <to = 10> (a)", "Transpose <perm = [0,1,3,2]> (a)", "Sum (a, a)"]
)
def test_what_does_something_stays(node: str) -> None:
    net, _ = graph(f"a = Relu (x)\n b = {node}\n y = Neg (b)", **IMAGE)
    assert drop_noops(net) == 0


@pytest.mark.parametrize(
    "node", ["Dropout (a, ratio, on)", "Max (a, a)", "Transpose (a)", "Identity (k)"]
)
def test_what_is_no_noop_stays(node: str) -> None:
    weights = {"ratio": 0.5, "on": np.array(True), "k": np.ones((1, 3, 8, 8), np.float32)}
    net, _ = graph(f"a = Relu (x)\n b = {node}\n y = Add (a, b)", weights, **IMAGE)
    assert drop_noops(net) == 0


@pytest.mark.parametrize("orders", [("", "<perm = [0,2,3,1]>"), ("<perm = [0,2,3,1]>", "")])
def test_transposes_that_do_not_say_their_order_stay(orders: tuple[str, str]) -> None:
    body = f"a = Transpose {orders[0]} (x)\n b = Transpose {orders[1]} (a)\n y = Relu (b)"
    assert drop_noops(graph(body, **IMAGE)[0]) == 0


def test_it_says_how_many_went() -> None:
    body = (
        "a = Transpose <perm = [0,2,3,1]> (x)\n b = Transpose <perm = [0,2,1,3]> (a)\n"
        " c = Identity (b)\n d = Identity (c)\n y = Relu (d)"
    )
    assert drop_noops(graph(body, **IMAGE)[0]) == 3


def test_a_cast_of_unknown_type_stays() -> None:
    net, _ = graph("a = Relu (x)\n b = Cast <to = 1> (a)\n y = Neg (b)", **IMAGE)
    assert drop_noops(net) == 0


@pytest.mark.parametrize(
    ("kind", "to", "drops"),
    [(None, 11, False), (None, 1, False), (16, 16, True), (16, 1, False), (np.float64, 11, True)],
)
def test_a_cast_to_the_type_that_is_known(kind: object, to: int, drops: bool) -> None:
    """Types that numpy does not have are ONNX's numbers: 16 is bfloat16."""
    net, _ = graph(f"a = Relu (x)\n b = Cast <to = {to}> (a)\n y = Neg (b)", **IMAGE)
    net.nodes[0].outputs[0].dtype = kind
    assert drop_noops(net) == int(drops)


def test_dropout_whose_mask_is_used_stays() -> None:
    net, _ = graph("b, m = Dropout (x)\n c = Cast <to = 1> (m)\n y = Add (b, c)", **IMAGE)
    assert drop_noops(net) == 0


def test_transposes_that_cancel() -> None:
    body = (
        "a = Transpose <perm = [0,2,3,1]> (x)\n b = Transpose <perm = [0,3,1,2]> (a)\n y = Relu (b)"
    )
    assert ops(rewritten(model(body, **IMAGE), drop_noops)) == ["Relu"]


def test_transposes_that_merge() -> None:
    body = (
        "a = Transpose <perm = [0,2,3,1]> (x)\n b = Transpose <perm = [0,2,1,3]> (a)\n y = Relu (b)"
    )
    assert ops(rewritten(model(body, **IMAGE), drop_noops)) == ["Transpose", "Relu"]


def test_transpose_that_is_read_elsewhere_stays() -> None:
    body = """
        a = Transpose <perm = [0,2,3,1]> (x)
        b = Transpose <perm = [0,3,1,2]> (a)
        c = ReduceSum <keepdims = 0> (a)
        y = Add (b, c)
    """
    net, _ = graph(body, **IMAGE)
    assert drop_noops(net) == 0


def test_an_output_keeps_its_name() -> None:
    source = model("a = Relu (x)\n b = Neg (a)\n y = Identity (a)", inputs="float[N,6] x",
                   outputs="float[N,6] y, float[N,6] b")  # fmt: skip
    result = rewritten(source, drop_noops)
    assert sorted(ops(result)) == ["Neg", "Relu"]
    assert {t.name for t in result.outputs} == {"y", "b"}


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("y = Identity (x)", "float[N,6] y"),
        ("a = Relu (x)\n y = Identity (a)", "float[N,6] y, float[N,6] a"),
    ],
)
def test_an_input_or_output_twice_keeps_its_identity(body: str, outputs: str) -> None:
    source = model(body, inputs="float[N,6] x", outputs=outputs)
    assert "Identity" in ops(rewritten(source, drop_noops))


def _typed(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


SQUEEZED = {
    "sum": "b = ReduceSum (a, last)\n c = Squeeze (b, last)",
    "mean": "b = ReduceMean <axes = [2, 3]> (a)\n c = Squeeze (b, both)",
    "maximum": "b = ReduceMax <axes = [3, 2], keepdims = 1> (a)\n c = Squeeze (b, both)",
}
AXES = {"last": np.asarray([-1], np.int64), "both": np.asarray([2, 3], np.int64)}


@pytest.mark.parametrize("case", SQUEEZED)
def test_a_squeeze_of_what_a_reduction_kept(case: str) -> None:
    source = model(f"a = Relu (x)\n {SQUEEZED[case]}\n y = Neg (c)", AXES, **IMAGE)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    found = ops(rewritten(source, drop_noops))
    assert found == ["Relu", source.graph.node[1].op_type, "Neg"]


def test_a_squeeze_that_makes_an_output() -> None:
    source = model("a = Relu (x)\n b = ReduceSum (a, last)\n y = Squeeze (b, last)", AXES, **IMAGE)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    result = rewritten(source, drop_noops)
    assert ops(result) == ["Relu", "ReduceSum"]
    assert result.outputs[0].name == "y"


@pytest.mark.parametrize(
    "body",
    [
        "b = ReduceMean <axes = [1, 2], keepdims = 0> (a)\n c = Squeeze (b, both)",
        "b = ReduceMean <axes = [2], keepdims = 1> (a)\n c = Squeeze (b, both)",
        "b = ReduceSum (a, last)\n c = Unsqueeze (b, last)",
        "b = ReduceSum (a, last)\n c = Squeeze (b)",
        "b = ReduceSum (a)\n c = Squeeze (b, last)",
        "b = ReduceL1 <axes = [3]> (a)\n c = Squeeze (b, last)",
        "b = ReduceSum (a, last)\n d = Neg (b)\n c0 = Squeeze (b, last)\n c = Add (c0, c0)",
    ],
)
def test_other_squeezes_stay(body: str) -> None:
    net, _ = graph(f"a = Relu (x)\n {body}\n y = Neg (c)", AXES, **IMAGE)
    assert drop_noops(net) == 0
