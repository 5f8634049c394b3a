"""What is refused, gathered from all passes: each function once, with what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_graphsurgeon as gs

from . import large_batch
from .graph import is_standard, label
from .passes import to_spiking
from .passes.dynamic_scales import DYNAMIC_OPS
from .passes.freeing import BATCH_FIRST
from .passes.strip_noise import RANDOM_OPS
from .regions import descendants, feeders
from .results import PassReport, Refusal

# Refused wherever they stand: they make the network itself random, different from its training, or
# another one for each batch.
_ALWAYS = ("BatchNormalization", *RANDOM_OPS, *DYNAMIC_OPS)


def gather(
    graph: gs.Graph, reports: Sequence[PassReport], neurons: list[gs.Node], readout: gs.Node | None
) -> tuple[Refusal, ...]:
    """Everything that keeps ``graph`` from spiking with ``neurons``, in the order of its nodes.

    A node that is part of a function which a pass measured is not listed for itself: the row is
    that function's.
    """
    earlier = tuple(refusal for report in reports for refusal in report.refused)
    refused = _in_the_way(graph, earlier, neurons, readout)
    if not refused:
        refused = to_spiking.nonlinear_nodes(graph, neurons, readout)
    every = _each_once((*refused, *to_spiking.refusals(graph, neurons)), earlier)
    return in_order(graph, _without_denominators(graph, every))


def in_order(graph: gs.Graph, refused: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """``refused`` in the order of the nodes; what is no longer in ``graph`` comes first."""
    position = {label(node): i for i, node in enumerate(graph.nodes)}
    return tuple(sorted(refused, key=lambda refusal: position.get(refusal.node, -1)))


def _in_the_way(
    graph: gs.Graph,
    earlier: Iterable[Refusal],
    neurons: list[gs.Node],
    readout: gs.Node | None,
) -> tuple[Refusal, ...]:
    """Refusals of earlier passes that stand where neurons would: between weights and weights.

    Before the first weights, after the last, and in the readout that the user named, a nonlinear
    function stays analog and does no harm. What mixes samples or fixes their number does anywhere.
    """
    nodes = {label(node): node for node in graph.nodes}
    after, before = to_spiking.between_weights(graph, neurons)
    analog = descendants(graph, [readout]) if readout is not None else set()
    refused = []
    for refusal in earlier:
        node = nodes.get(refusal.node)
        inner = node is None or (id(node) in after and id(node) in before)
        always = refusal.op in _ALWAYS or refusal.remedy in (large_batch.REMEDY, BATCH_FIRST)
        if (inner and id(node) not in analog) or always:
            refused.append(refusal)
    return tuple(refused)


def _without_denominators(graph: gs.Graph, refused: Sequence[Refusal]) -> tuple[Refusal, ...]:
    """``refused`` without what only makes the denominator of a refused division.

    The root of a variance is no activation either, but goes where the normalisation goes.
    """
    names = {refusal.node for refusal in refused}
    divisions = [n for n in graph.nodes if is_standard(n, "Div") and label(n) in names]
    parts = {label(part) for node in divisions for part in feeders(node.inputs[1], node)}
    return tuple(r for r in refused if r.node not in parts or r.op in _ALWAYS)


def _each_once(found: Iterable[Refusal], earlier: Sequence[Refusal]) -> tuple[Refusal, ...]:
    """Each node once; what no earlier pass said of a node is said of its whole function."""
    listed: dict[str, Refusal] = {}
    functions = [refusal for refusal in earlier if refusal.nodes]
    for refusal in found:
        of = next((f for f in functions if refusal.node in f.nodes), refusal)
        if refusal.node not in listed and not any(node in listed for node in of.nodes):
            told = refusal if refusal in earlier else of
            listed[told.node] = told
    return tuple(listed.values())
