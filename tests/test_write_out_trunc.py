from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import write_out_trunc

from na_convert import qonnx
from na_convert.evaluate import evaluate
from na_convert.graph import export_graph, import_graph
from na_convert.runtime import run


def trunc(
    mode: str,
    version: int,
    *,
    zero: float = 0.0,
    attributes: str = ", signed: int = 0, narrow: int = 0",
) -> onnx.ModelProto:
    inputs = "x, s, z, b8, b6" if version == 1 else "x, s, z, b8, so, b6"
    text = f"""<ir_version: 9, opset_import: ["" : 17, "qonnx.custom_op.general" : {version}]>
    net (float[N,4] x) => (float[N,4] y)
    <float s = {{0.25}}, float z = {{{zero}}}, float b8 = {{8.0}}, float b6 = {{6.0}},
     float so = {{1.0}}> {{
        y = qonnx.custom_op.general.Trunc
            <rounding_mode: string = "{mode}"{attributes}> ({inputs})
    }}"""
    model = onnx.parser.parse_model(text)
    model.graph.node[0].name = "trunc"
    return model


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", ["ROUND", "half_even", "FLOOR", "CEIL"])
def test_same_values_as_qonnx(mode: str, version: int) -> None:
    graph, carried = import_graph(trunc(mode, version))
    x = np.linspace(-1, 20, 400, dtype=np.float32).reshape(100, 4)
    expected = evaluate(graph, {"x": x}, ["y"], dtype=np.float32)["y"]
    assert write_out_trunc.run(graph).changed == 1
    assert not any(node.domain in qonnx.DOMAINS for node in graph.nodes)
    np.testing.assert_array_equal(run(export_graph(graph, carried), {"x": x})["y"], expected)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("zero", [0.0, 8.0])
@pytest.mark.parametrize(
    "attributes", ["", *(f", signed: int = {s}, narrow: int = {n}" for s in (0, 1) for n in (0, 1))]
)
def test_every_range_and_zero_point(version: int, zero: float, attributes: str) -> None:
    graph, carried = import_graph(trunc("ROUND", version, zero=zero, attributes=attributes))
    x = np.linspace(-50, 50, 400, dtype=np.float32).reshape(100, 4)
    expected = evaluate(graph, {"x": x}, ["y"], dtype=np.float32)["y"]
    write_out_trunc.run(graph)
    assert len(np.unique(expected)) > 30
    np.testing.assert_array_equal(run(export_graph(graph, carried), {"x": x})["y"], expected)


def test_without_a_mode_it_is_floor() -> None:
    given, floor = trunc("ROUND", 1), trunc("FLOOR", 1)
    del given.graph.node[0].attribute[0]
    values = []
    x = np.linspace(-1, 20, 400, dtype=np.float32).reshape(100, 4)
    for model in (given, floor):
        graph, carried = import_graph(model)
        write_out_trunc.run(graph)
        values.append(run(export_graph(graph, carried), {"x": x})["y"])
        assert [n.name for n in graph.nodes][-1] == "trunc"
    np.testing.assert_array_equal(*values)


def test_computed_parameters_are_refused() -> None:
    graph, _ = import_graph(trunc("FLOOR", 2))
    node = graph.nodes[0]
    node.inputs = [*node.inputs[:4], graph.inputs[0], *node.inputs[5:]]
    report = write_out_trunc.run(graph)
    assert (report.changed, [r.node for r in report.refused]) == (0, ["trunc"])
    assert "not constant" in report.refused[0].reason


def test_other_rounding_modes_are_refused() -> None:
    graph, _ = import_graph(trunc("HALF_UP", 2))
    report = write_out_trunc.run(graph)
    assert report.changed == 0
    assert "HALF_UP" in report.refused[0].reason
