"""Whether a rewritten graph still computes what the model computed, at more than one batch size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from na_convert import runtime
from na_convert.graph import Carried, export_graph, import_graph

Step = Callable[[gs.Graph], object]


def rewritten(model: onnx.ModelProto, *steps: Step) -> gs.Graph:
    """The graph of ``model`` after ``steps``, which must not change what it computes.

    The model runs row by row (its batch may be fixed at 1), the graph on one row and on three.
    """
    return checked(model, *steps)[0]


def checked(model: onnx.ModelProto, *steps: Step) -> tuple[gs.Graph, list[object]]:
    """`rewritten`, and what the steps returned."""
    feeds = _feeds(model)
    expected = _row_by_row(model, feeds)
    graph, carried = import_graph(_copy(model))
    results = [step(graph) for step in steps]
    for rows in (1, 3):
        found = run(graph, carried, {k: v[:rows] for k, v in feeds.items()})
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values[:rows], rtol=2e-5, atol=2e-6)
    return graph, results


def run(graph: gs.Graph, carried: Carried, feeds: runtime.Feeds) -> runtime.Feeds:
    model = export_graph(graph, carried)
    if all(o.type.tensor_type.HasField("shape") for o in model.graph.output):
        onnx.checker.check_model(model, full_check=True)
    return runtime.run(model, feeds)


def ops(graph: gs.Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def _feeds(model: onnx.ModelProto) -> runtime.Feeds:
    rng = np.random.default_rng(3)
    feeds = {}
    for tensor in model.graph.input:
        kind = tensor.type.tensor_type
        dims = [d.dim_value or 8 for d in kind.shape.dim][1:]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[tensor.name] = (rng.standard_normal((3, *dims)) * 2).astype(dtype)
    return feeds


def _row_by_row(model: onnx.ModelProto, feeds: runtime.Feeds) -> runtime.Feeds:
    rows = [runtime.run(model, {k: v[i : i + 1] for k, v in feeds.items()}) for i in range(3)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
