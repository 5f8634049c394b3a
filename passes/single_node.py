"""One node evaluated on given values, by onnxruntime, QONNX's numpy kernels or onnx.reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import qonnx, runtime
from na_convert.errors import ModelError
from na_convert.onnx_reference import reference

Array = NDArray[np.generic]

MICROSOFT = "com.microsoft"
_IR_VERSION = 8


def evaluate_node(node: gs.Node, values: Sequence[Array | None], opset: int) -> list[Array]:
    """The outputs of ``node`` for its input ``values`` (None: an optional input left out).

    Raises ModelError where no engine can run the node on these values.
    """
    if qonnx.is_qonnx(node.domain, node.op):
        given: list[qonnx.Array] = [np.asarray(v, v.dtype) for v in values if v is not None]
        return [qonnx.evaluate(node.op, given, node.attrs)]
    feeds = {f"i{k}": v for k, v in enumerate(values) if v is not None}
    model = node_model(node, values, opset)
    try:
        return list(_session(model).run(None, feeds))
    except Exception as ort_error:
        try:
            return list(reference(onnx.ModelProto.FromString(model)).run(None, feeds))
        except Exception as error:
            raise ModelError(
                f"{node.op} cannot be evaluated ({ort_error})", node=node.name
            ) from error


def node_proto(node: gs.Node, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.NodeProto:
    """``node`` alone as a NodeProto, with tensors named as given ("" for those left out)."""
    named = {name: gs.Variable(name) for name in [*inputs, *outputs] if name}
    lone = gs.Node(
        op=node.op, name=node.name, attrs=dict(node.attrs), domain=node.domain,
        inputs=[named.get(i) or gs.Variable.empty() for i in inputs],
        outputs=[named.get(o) or gs.Variable.empty() for o in outputs],
    )  # fmt: skip
    graph = gs.Graph(nodes=[lone], opset=1)
    proto: onnx.NodeProto = gs.export_onnx(graph, do_type_check=False).graph.node[0]
    return proto


def node_model(node: gs.Node, values: Sequence[Array | None], opset: int) -> bytes:
    """A model of ``node`` alone, for inputs of any size: i0, i1, ... in, o0, o1, ... out."""
    described = [None if v is None else (v.dtype, v.ndim) for v in values]
    inputs = ["" if d is None else f"i{k}" for k, d in enumerate(described)]
    outputs = [f"o{k}" for k in range(len(node.outputs))]
    proto = node_proto(node, inputs, outputs)
    proto.ClearField("name")
    declared = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(d[0]), [None] * d[1]
        )
        for name, d in zip(inputs, described, strict=True)
        if d is not None
    ]
    used = [o for o, tensor in zip(outputs, node.outputs, strict=True) if tensor.name]
    results = [onnx.ValueInfoProto(name=o) for o in used]
    graph = onnx.helper.make_graph([proto], "node", declared, results)
    imports = [onnx.helper.make_opsetid("", opset)]
    if node.domain:
        imports.append(onnx.helper.make_opsetid(node.domain, 1))
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString(deterministic=True))


@lru_cache(maxsize=256)
def _session(model: bytes):  # type: ignore[no-untyped-def]
    return runtime.session(onnx.ModelProto.FromString(model), threads=1, optimise=False)
