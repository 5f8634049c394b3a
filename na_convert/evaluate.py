"""Any graph, evaluated in numpy in a float type of choice: the reference in float64.

Used where onnxruntime cannot help: float64 for the replay, graphs cut at tensors whose values are
given, and operators that onnxruntime does not have (QONNX). Operators without a kernel of our own
run in onnx.reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike, NDArray
from onnx.reference import ReferenceEvaluator
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from . import kernels, qonnx
from .errors import ModelError, first_line
from .graph import STANDARD_DOMAINS, is_ours, label
from .onnx_reference import reference
from .snn import STATEFUL_OPS

Array: TypeAlias = NDArray[Any]
Stateful = Callable[[gs.Node, Array], Array]


def evaluate(
    graph: gs.Graph,
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    dtype: DTypeLike = np.float64,
    stateful: Stateful | None = None,
) -> dict[str, Array]:
    """The tensors ``outputs`` of ``graph`` by name, with every float in ``dtype``.

    ``feeds`` need not be graph inputs: the graph is cut at each fed tensor, so that only what lies
    between the feeds and the outputs is run. Tensors are freed after their last use.

    Args:
        stateful: computes ``IF``, ``IFPerChannel`` and ``MaxPoolCounts`` nodes from their data
            input. Without it MaxPoolCounts is a max-pool (what it is to sums over time), and a
            neuron that no feed cuts off is an error.

    Raises ModelError naming the tensor that is missing, or the node that cannot be evaluated.
    """
    float_type = np.dtype(dtype)
    known = {name: _as_float(np.asarray(value), float_type) for name, value in feeds.items()}
    tensors = graph.tensors()
    missing = [name for name in outputs if name not in tensors and name not in known]
    if missing:
        raise ModelError(f"the graph has no tensor {missing[0]!r}", node=missing[0])
    wanted = [tensors[name] for name in outputs if name not in known]
    order = _needed_nodes(wanted, known)
    uses = Counter(t.name for node in order for t in _reads(node))
    uses.update(outputs)
    for node in order:
        results = _run(node, known, float_type, int(graph.opset), stateful)
        for tensor, value in zip(node.outputs, results, strict=False):
            if uses[tensor.name]:
                known[tensor.name] = value
        for tensor in _reads(node):
            uses[tensor.name] -= 1
            if not uses[tensor.name]:
                known.pop(tensor.name, None)
    constants = {t.name: t for t in wanted if isinstance(t, gs.Constant)}
    return {
        name: _constant(constants[name], float_type) if name in constants else known[name]
        for name in outputs
    }


def _needed_nodes(wanted: Sequence[gs.Tensor], fed: Mapping[str, Array]) -> list[gs.Node]:
    """The producers of ``wanted``, down to ``fed``, each after what it reads."""
    order: list[gs.Node] = []
    state: dict[int, bool] = {}  # by node: False while its inputs are being visited
    stack = [_producer(t) for t in reversed(wanted)]
    while stack:
        node = stack[-1]
        if node is None or state.get(id(node)):
            stack.pop()
        elif id(node) in state:
            stack.pop()
            state[id(node)] = True
            order.append(node)
        else:
            state[id(node)] = False
            stack.extend(
                _producer(t)
                for t in _reads(node)
                if t.name not in fed and not isinstance(t, gs.Constant)
            )
    return order


def _producer(tensor: gs.Tensor) -> gs.Node | None:
    if isinstance(tensor, gs.Constant):
        return None
    if not tensor.inputs:
        raise ModelError(
            f"tensor {tensor.name!r} has no value", node=tensor.name, remedy="feed this input"
        )
    return tensor.inputs[0]


def _reads(node: gs.Node) -> Iterator[gs.Tensor]:
    """The tensors that ``node`` reads, those of its subgraphs included."""
    yield from (t for t in node.inputs if not t.is_empty())
    for body in (v for v in node.attrs.values() if isinstance(v, gs.Graph)):
        yield from _outer_reads(body)


def _outer_reads(body: gs.Graph) -> Iterator[gs.Tensor]:
    """What a subgraph reads from the graph around it."""
    local = {t.name for node in body.nodes for t in node.outputs} | {t.name for t in body.inputs}
    read = [t for node in body.nodes for t in _reads(node)] + list(body.outputs)
    for tensor in {t.name: t for t in read}.values():
        if tensor.name not in local and not isinstance(tensor, gs.Constant):
            yield tensor


def _run(
    node: gs.Node,
    known: Mapping[str, Array],
    dtype: np.dtype[Any],
    opset: int,
    stateful: Stateful | None,
) -> Sequence[Array]:
    if stateful is not None and is_ours(node, *STATEFUL_OPS):
        return (stateful(node, known[node.inputs[0].name]),)
    kernel = kernels.find(node) or (_run_qonnx if qonnx.is_qonnx(node.domain, node.op) else None)
    try:
        if kernel is None:
            return _run_reference(node, known, dtype, opset)
        inputs = [None if t.is_empty() else _value(t, known, dtype) for t in node.inputs]
        return (kernel(node, inputs, dtype),)
    except Exception as error:
        raise ModelError(
            f"node {label(node)!r} ({node.op}) cannot be evaluated ({first_line(error)})",
            node=label(node),
        ) from error


def _run_qonnx(node: gs.Node, inputs: Sequence[Array | None], dtype: np.dtype[Any]) -> Array:
    given = [np.asarray(value) for value in inputs if value is not None]
    return np.asarray(qonnx.evaluate(node.op, given, node.attrs))


def _value(tensor: gs.Tensor, known: Mapping[str, Array], dtype: np.dtype[Any]) -> Array:
    if tensor.name in known:
        return known[tensor.name]
    return _constant(tensor, dtype)


def _constant(tensor: gs.Constant, dtype: np.dtype[Any]) -> Array:
    return _as_float(np.asarray(tensor.values), dtype)


def _as_float(values: Array, dtype: np.dtype[Any]) -> Array:
    """``values`` in ``dtype`` if they are floats, whatever their width (bfloat16 too)."""
    is_float = values.dtype.kind == "f" or values.dtype.name in ("bfloat16", "float16")
    return values.astype(dtype, copy=False) if is_float else values


# --- everything else: onnx.reference --------------------------------------------------------------


def _run_reference(
    node: gs.Node, known: Mapping[str, Array], dtype: np.dtype[Any], opset: int
) -> Sequence[Array]:
    if (node.domain or "") not in STANDARD_DOMAINS:
        raise ValueError(f"there is no implementation in domain {node.domain!r}")
    values = {t.name: _value(t, known, dtype) for t in _reads(node)}
    proto = OnnxExporter.export_node(node)
    types = tuple(onnx.helper.np_dtype_to_tensor_dtype(v.dtype) for v in values.values())
    runner = _runner(proto.SerializeToString(), tuple(values), types, opset)
    results = runner.run(None, values)
    return [_as_float(np.asarray(r), dtype) for r in results]


@lru_cache(maxsize=4096)
def _runner(
    node: bytes, names: tuple[str, ...], types: tuple[int, ...], opset: int
) -> ReferenceEvaluator:
    proto = onnx.NodeProto.FromString(node)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_tensor_value_info(n, t, None) for n, t in zip(names, types, strict=True)],
        [onnx.ValueInfoProto(name=o) for o in proto.output if o],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    return reference(onnx.helper.make_model(graph, opset_imports=imports))
