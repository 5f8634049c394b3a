from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from na_convert.passes import normalise
from na_convert.passes.walk_shapes import Trial, batch_axis, infer_types, ranks, walk

from .build import graph, model
from .same import checked, ops

DIRTY = """
    two = Constant <value_int = 2> ()
    f = Cast <to = 1> (two)
    k = Identity (w)
    c = Conv <pads = [1,1,1,1]> (x, k)
    u = RandomUniformLike <low = -0.5, high = 0.5> (c)
    v = Add (c, u)
    r = Round (v)
    d = Dropout (r)
    s = Mul (d, f)
    y = Reshape <allowzero = 1> (s, shape)
"""


def dirty_graph() -> gs.Graph:
    net, _ = graph(
        DIRTY, {"w": (4, 3, 3, 3), "shape": np.array([1, 256], np.int64)},
        inputs="float[1,3,8,8] x", outputs="float[1,256] y",
    )  # fmt: skip
    return net


def test_everything_in_order() -> None:
    net = dirty_graph()
    report = normalise.run(net)
    assert ops(net) == ["Conv", "Round", "Mul", "Reshape"]
    assert report.name == "normalise"
    assert report.refused == ()
    assert "training noise" in report.notes[0]
    assert [t.name for t in net.nodes[0].outputs] == ["c"]
    assert net.nodes[1].outputs[0].name == "r"
    assert net.nodes[3].inputs[1].values.tolist() == [-1, 256]


def test_shapes_of_inner_tensors_are_forgotten() -> None:
    source = model("a = Relu (x)\n y = Neg (a)", inputs="float[1,6] x", outputs="float[1,6] y")
    stale = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1, 6])
    source.graph.value_info.append(stale)
    net, (report,) = checked(source, normalise.run)
    assert net.nodes[0].outputs[0].shape is None
    assert report.changed == 0


def test_running_twice_changes_nothing_more() -> None:
    net = dirty_graph()
    normalise.run(net)
    before = ops(net)
    assert normalise.run(net).changed == 0
    assert ops(net) == before


def test_types_are_inferred() -> None:
    net, _ = graph(
        "q = QuantizeLinear (x, s)\n c = Cast <to = 2> (q)\n y = DequantizeLinear (c, s)",
        {"s": 0.1}, inputs="float[1,6] x", outputs="float[1,6] y",
    )  # fmt: skip
    infer_types(net)
    assert net.nodes[0].outputs[0].dtype == np.uint8
    normalise.run(net)
    assert ops(net) == ["QuantizeLinear", "DequantizeLinear"]


def test_ranks_see_through_neurons_and_qonnx() -> None:
    net, _ = graph(
        "a = na_convert.Ramp <kind: string = \"relu\"> (x, k, k, k, k)\n"
        " b = GlobalAveragePool (a)\n y = Flatten (b)",
        {"k": 1.0}, inputs="float[N,3,8,8] x", outputs="float[N,3] y",
    )  # fmt: skip
    net.nodes[0].op, net.nodes[0].domain = "Quant", "onnx.brevitas"
    assert {k: ranks(net)[k] for k in "aby"} == {"a": 4, "b": 4, "y": 2}


def test_batch_axis() -> None:
    net, _ = graph(
        "t = Transpose <perm = [1,0,2,3]> (x)\n y = Neg (t)",
        inputs="float[N,3,8,8] x", outputs="float y",
    )  # fmt: skip
    trials = [Trial(2), Trial(5)]
    walk(net, trials)
    assert batch_axis(trials, net.inputs[0]) == 0
    assert batch_axis(trials, net.outputs[0]) == 1


def test_a_tensor_that_a_node_reads_twice_causes_no_warning(capsys) -> None:
    """graphsurgeon complains about two tensors of one name."""
    body = "r = Relu (x)\n s = Slice (r, one, far, two, two)\n y = Neg (s)"
    weights = {"one": np.array([1]), "far": np.array([99]), "two": np.array([2])}
    net, _ = graph(body, weights, inputs="float[1,3,8,8] x", outputs="float[1,3,4,8] y")
    normalise.run(net)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""
