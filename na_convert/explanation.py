"""Why a node was, or was not, recognised as part of an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from .activation import Ramp, Staircase, read_activation
from .activation_search import Search
from .elementwise import Function
from .errors import UsageError
from .fit_reasons import Fit
from .function_fit import is_random
from .graph import is_constant, is_ours, label
from .neurons import ACTIVATION_OPS
from .sample import Sampler

_SAMPLES = 21


@dataclass(frozen=True)
class Explanation:
    """What was found about the function that a node is part of.

    Attributes:
        node: its name, as asked for.
        kind: "staircase", "ramp", "affine", "uneven", "unknown", or "not elementwise".
        root, output: the tensors at the function's ends; empty if there is no function.
        nodes: names and operators of the function, in order.
        parameters: of the staircase or ramp; numbers, or lists per channel.
        residual: largest difference between function and fit, in stairs or clip heights.
        cut: who else needs the output, which is why the function ends there.
        reason, remedy: why it is no activation, and what to do; empty if it is one.
        samples: pairs (x, y) of the function, first channel.
    """

    node: str
    kind: str
    root: str = ""
    output: str = ""
    nodes: tuple[str, ...] = ()
    parameters: dict[str, Any] | None = None
    residual: float = 0.0
    cut: str = ""
    reason: str = ""
    remedy: str = ""
    samples: tuple[tuple[float, float], ...] = ()


def explain(graph: gs.Graph, node_name: str) -> Explanation:
    """Explain the node (or tensor) called ``node_name`` of a normalised graph, before or after
    `find_activations`. Does not change the graph.

    Raises UsageError if there is no such node.
    """
    nodes = [n for n in graph.nodes if n.name == node_name]
    nodes += [n for n in graph.nodes if any(t.name == node_name for t in n.outputs)]
    if not nodes:
        raise UsageError(f"the graph has no node {node_name!r}", remedy="see `na-convert inspect`")
    node = nodes[0]
    if is_ours(node, *ACTIVATION_OPS):
        return _of_replaced(node, node_name)
    search = Search(graph).run()
    for found in search.activations:
        if any(n is node for n in found.function.nodes):
            return _of_function(search, found.function, found.fit, node_name)
    for function in search.tracer.functions():
        if any(n is node for n in function.nodes):
            return _of_function(search, function, search.fit(function), node_name)
    return Explanation(
        node_name, "not elementwise", reason=_not_elementwise(search, node), remedy=""
    )


def _of_function(search: Search, function: Function, fitted: Fit, name: str) -> Explanation:
    readers = search.tracer.outside_readers(function.output, function.root)
    dropped = [s for s in search.same if s.tensor is function.output]
    reason = f"equal to {dropped[0].other.name!r}, and so left out" if dropped else fitted.reason
    return Explanation(
        node=name,
        kind=fitted.kind,
        root=function.root.name,
        output=function.output.name,
        nodes=tuple(f"{label(n)} ({n.op})" for n in function.nodes),
        parameters=_parameters(fitted.activation),
        residual=fitted.residual,
        cut=", ".join(f"{label(n)} ({n.op})" for n in readers) or "graph output",
        reason=reason,
        remedy=fitted.remedy,
        samples=_sampled(function, fitted.activation),
    )


def _of_replaced(node: gs.Node, name: str) -> Explanation:
    activation = read_activation(node)
    return Explanation(
        name, node.op.lower(), node.inputs[0].name, node.outputs[0].name,
        (f"{label(node)} ({node.op})",), _parameters(activation),
    )  # fmt: skip


def _parameters(activation: Staircase | Ramp | None) -> dict[str, Any] | None:
    if activation is None:
        return None
    return {
        key: np.unique(value).item() if np.unique(value).size == 1 else np.ravel(value).tolist()
        for key, value in vars(activation).items()
    }


def _sampled(
    function: Function, activation: Staircase | Ramp | None
) -> tuple[tuple[float, float], ...]:
    """The function around its stairs, or between -4 and 4 where none were found."""
    if any(is_random(node) for node in function.nodes):
        return ()
    low, high = -4.0, 4.0
    if isinstance(activation, Staircase):
        shift = activation.lowest_level - activation.phase
        ends = [
            np.ravel((k + shift) * activation.input_step)[0] for k in (-1, activation.levels + 2)
        ]
        low, high = float(min(ends)), float(max(ends))
    elif isinstance(activation, Ramp) and activation.bounded:
        low, high = float(np.ravel(activation.low)[0]), float(np.ravel(activation.high)[0])
        low, high = low - (high - low) / 4, high + (high - low) / 4
    x = np.linspace(low, high, _SAMPLES)
    try:
        y = Sampler(function, function.dtype)(x[:, None])[:, 0]
    except NotImplementedError:
        return ()
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))


def _not_elementwise(search: Search, node: gs.Node) -> str:
    data = [t for t in node.inputs if not is_constant(t) and not t.is_empty()]
    roots = {search.tracer.root_of(t).name for t in data}
    if len(roots) > 1:
        return f"{node.op} combines {' and '.join(sorted(repr(r) for r in roots))}"
    return f"{node.op} is no function of single elements: a root, where functions start"
