"""Where time matters: which nodes run once, which at every time step, which on the time-mean."""

from __future__ import annotations

from collections.abc import Collection

import onnx_graphsurgeon as gs

from .graph import is_ours, is_standard

# Inputs by position that carry data; the others of these operators are sizes, axes and the like.
DATA_POSITIONS = {
    "CumSum": (0,),
    "Expand": (0,),
    "Gather": (0,),
    "Pad": (0,),
    "ReduceMax": (0,),
    "ReduceMean": (0,),
    "ReduceMin": (0,),
    "ReduceSum": (0,),
    "Reshape": (0,),
    "Resize": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Unsqueeze": (0,),
    "Upsample": (0,),
}

# Operators whose outputs are their first input's values, moved about.
MOVING = (
    "DepthToSpace", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
# Weights with a quantiser or an activation of their own, where they could not be taken apart.
_FUSED_WEIGHTED = (
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "FusedConv"),
    *("FusedGemm", "FusedMatMul", "MatMulIntegerToFloat", "QAttention", "Attention"),
)
AVERAGING_OPS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")

NodeIds = set[int]


def carries_weights(node: gs.Node) -> bool:
    """Whether ``node`` multiplies by weights: standard operators, and onnxruntime's own."""
    if is_standard(node, *WEIGHTED_OPS):
        return True
    return node.op in _FUSED_WEIGHTED and (is_standard(node) or node.domain == "com.microsoft")


def data_inputs(node: gs.Node) -> list[gs.Tensor]:
    """The tensors that ``node`` computes with, constants included; sizes and axes left out."""
    positions = DATA_POSITIONS.get(node.op) if is_standard(node) else None
    if positions is not None:
        return [node.inputs[i] for i in positions if i < len(node.inputs)]
    if is_standard(node, "Shape", "Size"):
        return []
    if is_ours(node, "Staircase", "Ramp", "IFPerChannel"):
        return [node.inputs[0]]
    return [t for t in node.inputs if not t.is_empty()]


def influences(node: gs.Node) -> list[gs.Tensor]:
    """The tensors whose values ``node`` depends on: of Shape and Size, none; of a branch, those
    that its subgraphs read as well."""
    if is_standard(node, "Shape", "Size"):
        return []
    inside = [each for each in node.attrs.values() if isinstance(each, gs.Graph)]
    read = [t for subgraph in inside for n in subgraph.nodes for t in influences(n)]
    return [t for t in (*node.inputs, *read) if not t.is_empty()]


def descendants(
    graph: gs.Graph, sources: Collection[gs.Node], stop: Collection[gs.Node] = ()
) -> NodeIds:
    """Ids of the nodes that ``sources`` have an influence on (sources excluded unless on a path).

    Data does not flow on through the nodes of ``stop``. Requires topological order.
    """
    blocked = {id(node) for node in stop}
    origin = {id(node) for node in sources}
    reached: NodeIds = set()
    for node in graph.nodes:
        parents = (t.inputs[0] for t in influences(node) if t.inputs)
        if any((id(p) in reached and id(p) not in blocked) or id(p) in origin for p in parents):
            reached.add(id(node))
    return reached


def ancestors(graph: gs.Graph, sinks: Collection[gs.Node]) -> NodeIds:
    """Ids of the nodes that have an influence on ``sinks`` (sinks excluded unless on a path)."""
    target = {id(node) for node in sinks}
    reached: NodeIds = set()
    for node in reversed(graph.nodes):
        if id(node) not in target and id(node) not in reached:
            continue
        for tensor in influences(node):
            if tensor.inputs:
                reached.add(id(tensor.inputs[0]))
    return reached


def spiking_nodes(graph: gs.Graph, neurons: Collection[gs.Node]) -> list[gs.Node]:
    """Nodes that run at every time step: after some neuron and before another; neurons too."""
    after = descendants(graph, neurons)
    before = ancestors(graph, neurons)
    chosen = {id(node) for node in neurons}
    return [n for n in graph.nodes if id(n) in chosen or (id(n) in after and id(n) in before)]


def feeders(tensor: gs.Tensor, reader: gs.Node) -> list[gs.Node]:
    """The nodes whose results go nowhere but into ``tensor``, as ``reader`` reads it."""
    found, known, pending = [], {id(reader)}, [tensor]
    while pending:
        for node in pending.pop().inputs:
            read_by = [r for t in node.outputs for r in t.outputs]
            if id(node) not in known and all(id(r) in known for r in read_by):
                found.append(node)
                known.add(id(node))
                pending += influences(node)
    return found
