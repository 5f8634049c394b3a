"""Comparing two graphs in pieces: both get the same values at every step that can jump.

A rounding turns a difference of one unit in the last place into a whole level, which later layers
multiply. So the second graph is cut behind each such step and fed the first one's value there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import qonnx
from .cut import Runner, cut_model, takes
from .errors import PassFailed
from .evaluate import evaluate
from .graph import Carried, all_nodes, export_parts, is_ours, is_standard
from .saturation import saturating_nodes, saturation_error

Array: TypeAlias = NDArray[Any]

_JUMPING_OPS = (
    "And", "ArgMax", "ArgMin", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "Bucketize", "Ceil", "ConvInteger", "DynamicQuantizeLinear", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Hardmax", "Less", "LessOrEqual", "MatMulInteger", "Mod", "NonZero", "Not",
    "Or", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Round", "Shrink", "Sign",
    "ThresholdedRelu", "TopK", "Xor",
)  # fmt: skip


class Difference(NamedTuple):
    """Largest difference of two graphs: absolute, relative to the tensor's largest value, where."""

    max_abs: float
    max_rel: float
    where: str


def teacher_forced_error(
    before: gs.Graph, after: gs.Graph, carried: Carried, feeds: Mapping[str, Array]
) -> Difference:
    """How far ``after`` is from ``before`` on ``feeds``, piece by piece.

    ``after`` is cut behind every operator that jumps and whose output exists in ``before`` too,
    and gets the value that ``before`` has there. Compared are the graph's outputs (those that jump
    by what leads to them) and what goes into the operators cut off, and into Sigmoids at the end,
    where both graphs have it.

    Raises PassFailed where ``after`` lost an output or has other shapes than ``before``, and
    ModelError where a graph does not run.
    """
    shared = set(_computed(before)) & set(_computed(after))
    outputs = [t.name for t in before.outputs]
    kept = {t.name for t in after.outputs}
    lost = [name for name in outputs if name not in kept]
    if lost:
        raise PassFailed(f"output {lost[0]!r} is missing after the pass", node=lost[0])
    cut_nodes = [n for n in after.nodes if jumps(n) and _all_in(n.outputs, shared)]
    cuts = {t.name for node in cut_nodes for t in node.outputs if t.name}
    ends = [node for output in after.outputs for node in saturating_nodes(output)]
    into = {t.name for node in (*cut_nodes, *ends) for t in node.inputs if t.name in shared}
    compared = [n for n in dict.fromkeys([*outputs, *sorted(into)]) if n not in cuts]
    expected = runner(before, carried, (), [*compared, *sorted(cuts)])(feeds)
    found = runner(after, carried, cuts, compared)({**feeds, **expected})
    worst, tensors = Difference(0.0, 0.0, ""), before.tensors()
    for name in compared:
        allowed = saturation_error(tensors[name]) if name in tensors else 0.0
        difference = _difference(name, expected[name], found[name], allowed)
        worst = max(worst, difference, key=lambda d: d.max_rel)
    return worst


def runner(
    graph: gs.Graph, carried: Carried, cuts: Collection[str], outputs: Sequence[str]
) -> Runner:
    """A function from inputs and cut tensors to ``outputs``: onnxruntime, or else numpy.

    numpy (float32, float64 for models in double) where onnxruntime lacks an operator.
    """
    if runs_in_onnxruntime(graph, carried):
        return cut_model(export_parts(graph.copy(), carried), cuts, outputs)
    dtype = np.float64 if _is_double(graph) else np.float32

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        known = {t.name for t in graph.inputs} | set(cuts)
        fed = {name: value for name, value in values.items() if name in known}
        return evaluate(graph, fed, outputs, dtype=dtype)

    return run


def runs_in_onnxruntime(graph: gs.Graph, carried: Carried) -> bool:
    """Whether onnxruntime has every operator of ``graph``, in the graph's float type."""
    if any(qonnx.is_qonnx(node.domain, node.op) for node in all_nodes(graph)):
        return False
    # Every operator exists in float; in double many do not, so that is tried.
    return not _is_double(graph) or takes(export_parts(graph.copy(), carried))


def _is_double(graph: gs.Graph) -> bool:
    return any(t.dtype is not None and t.dtype == np.float64 for t in graph.inputs)


def jumps(node: gs.Node) -> bool:
    """Whether the outputs of ``node`` can change by a step where its inputs change by a hair."""
    if is_ours(node, "Staircase", "IF", "IFPerChannel") or qonnx.is_qonnx(node.domain, node.op):
        return True
    if is_standard(node, "Cast", "CastLike"):
        return any(t.dtype is not None and np.dtype(t.dtype).kind in "iub" for t in node.outputs)
    return is_standard(node, *_JUMPING_OPS) or node.domain == "com.microsoft"


def _computed(graph: gs.Graph) -> Iterator[str]:
    return (t.name for node in graph.nodes for t in node.outputs if t.name)


def _all_in(tensors: Sequence[gs.Tensor], names: Collection[str]) -> bool:
    return all(t.name in names for t in tensors if t.name)


def _difference(name: str, expected: Array, found: Array, allowed: float) -> Difference:
    """Differences up to ``allowed`` count as none."""
    if expected.shape != found.shape:
        raise PassFailed(
            f"tensor {name!r} had shape {list(expected.shape)} and has {list(found.shape)}",
            node=name,
        )
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities of one sign are equal
    if allowed:
        same |= np.abs(a - b) <= allowed
    if same.all():
        return Difference(0.0, 0.0, name)
    gap = float(np.max(np.abs(np.where(same, 0, a - b))))
    scale = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))
    return Difference(gap, gap / scale if scale else np.inf, name)
