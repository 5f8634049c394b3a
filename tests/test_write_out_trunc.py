from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import write_out_trunc

from na_convert import qonnx
from na_convert.evaluate import evaluate
from na_convert.graph import export_graph, import_graph
from na_convert.runtime import run


def trunc(mode: str, version: int, scale: object = "0.25") -> onnx.ModelProto:
    inputs = "x, s, z, b8, b6" if version == 1 else "x, s, z, b8, so, b6"
    text = f"""<ir_version: 9, opset_import: ["" : 17, "qonnx.custom_op.general" : {version}]>
    net (float[N,4] x) => (float[N,4] y)
    <float s = {{0.25}}, float z = {{0.0}}, float b8 = {{8.0}}, float b6 = {{6.0}},
     float so = {{1.0}}> {{
        y = qonnx.custom_op.general.Trunc
            <rounding_mode: string = "{mode}", signed: int = 0, narrow: int = 0> ({inputs})
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


def test_other_rounding_modes_are_refused() -> None:
    graph, _ = import_graph(trunc("HALF_UP", 2))
    report = write_out_trunc.run(graph)
    assert report.changed == 0
    assert "HALF_UP" in report.refused[0].reason
