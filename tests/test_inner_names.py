"""Names inside branches that hide names outside: the file means the inner ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from na_convert import runtime
from na_convert.graph import export_graph, import_graph
from na_convert.inner_names import rename_hiding
from na_convert.lift import prepare

from . import build

BRANCH = "float[N,3,4,4]"
TEXT = (
    "k = Relu (x)\n"
    f"b = If (go) <then_branch = yes () => ({BRANCH} up) {{ up = Mul (k, w) }}, "
    f"else_branch = no () => ({BRANCH} down) {{ down = Neg (k) }}>\n"
    "y = Add (b, w)"
)


def branched() -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """A model whose branch has a weight w of its own, and that branch."""
    proto = build.model(
        TEXT, {"w": 2.0, "go": np.array(True)}, inputs=f"{BRANCH} x", outputs=f"{BRANCH} y"
    )
    (node,) = [n for n in proto.graph.node if n.op_type == "If"]
    (branch,) = [a.g for a in node.attribute if a.name == "then_branch"]
    own = np.full((1, 1, 1, 1), 5, np.float32)
    branch.initializer.append(onnx.numpy_helper.from_array(own, "w"))
    return proto, branch


def same_as_onnxruntime(proto: onnx.ModelProto) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    expected = runtime.run(proto, feeds)["y"]
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    graph, carried = import_graph(prepare(copy)[0])
    np.testing.assert_array_equal(runtime.run(export_graph(graph, carried), feeds)["y"], expected)


def test_a_weight_of_a_branch_hides_one_outside() -> None:
    proto, _ = branched()
    same_as_onnxruntime(proto)
    assert rename_hiding(proto) == 1
    assert rename_hiding(proto) == 0


def test_a_weight_of_a_branch_hides_a_result_outside() -> None:
    proto, branch = branched()
    branch.initializer[0].name = "k"
    branch.node[0].input[:] = ["x", "k"]
    assert rename_hiding(proto) == 1
    assert [branch.initializer[0].name, *branch.node[0].input] == ["k_inner1", "x", "k_inner1"]


@pytest.mark.parametrize("again", [False, True])
def test_branches_in_branches(again: bool) -> None:
    """The innermost w is the nearest one, renamed or not; new names are free ones."""
    proto, branch = branched()
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["k", "w"], ["deep"])], "deepest", [],
        [onnx.helper.make_tensor_value_info("deep", 1, ["N", 3, 4, 4])],
    )  # fmt: skip
    if again:
        inner.initializer.append(onnx.numpy_helper.from_array(np.float32(7), "w"))
    del branch.node[:]
    branch.node.append(
        onnx.helper.make_node("If", ["go"], ["up"], then_branch=inner, else_branch=inner)
    )
    branch.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "w_inner1"))
    same_as_onnxruntime(proto)
    assert rename_hiding(proto) == (3 if again else 1)


def test_without_hiding_nothing_changes() -> None:
    proto, branch = branched()
    branch.initializer[0].name = "v"
    branch.node[0].input[1] = "v"
    before = proto.SerializeToString()
    assert rename_hiding(proto) == 0
    assert proto.SerializeToString() == before
