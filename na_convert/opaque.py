"""Nodes that nobody can see into: loops, branches on data, operators defined elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import onnx
import onnx_graphsurgeon as gs

from . import qonnx
from .errors import NotConvertible
from .graph import STANDARD_DOMAINS, label
from .neurons import DOMAIN
from .protos import all_nodes
from .regions import descendants
from .results import Refusal

_KNOWN = {*STANDARD_DOMAINS, *qonnx.DOMAINS, "com.microsoft", DOMAIN}
_EXPORT = "export it as standard operators (without symbolic()), or as a local function"
_FOREIGN = {
    "com.microsoft.nchwc": "give the file from before onnxruntime's optimisation, or optimise it "
    "with ORT_ENABLE_EXTENDED at most: this layout is for one kind of processor",
    "ai.onnx.ml": "take the classical model out of the file: only neural networks are converted",
}


def refuse_loops(path: Path, model: onnx.ModelProto) -> None:
    """Raise NotConvertible if there is a Loop or Scan, those in subgraphs included.

    Nothing is done with such a model, which may run for ever.
    """
    loops = [
        Refusal(
            node.name or next(iter(node.output), node.op_type),
            node.op_type,
            "a loop, whose number of rounds may depend on data",
            "export with torch.jit.trace or torch.export, which write the rounds out, or cut the "
            "network before it",
        )
        for node in all_nodes(model.graph)
        if node.op_type in ("Loop", "Scan") and node.domain in STANDARD_DOMAINS
    ]
    if loops:
        refuse(path, (*loops, *foreign(model)))


def foreign(model: onnx.ModelProto) -> tuple[Refusal, ...]:
    """Every operator whose meaning is not known."""
    return tuple(
        Refusal(
            node.name or node.output[0],
            node.op_type,
            f"a custom operator of the domain {node.domain!r}, whose meaning is not in the file",
            _FOREIGN.get(node.domain, _EXPORT),
        )
        for node in model.graph.node
        if node.domain not in _KNOWN
    )


def branches(graph: gs.Graph) -> tuple[Refusal, ...]:
    """Every If that is left: its condition is not constant."""
    return tuple(
        Refusal(
            label(node),
            node.op,
            "a branch that depends on data",
            "export the branch that is taken, or cut the network before it",
        )
        for node in graph.nodes
        if node.op == "If"
    )


def judged(
    graph: gs.Graph, unreadable: Iterable[Refusal], others: Iterable[Refusal]
) -> tuple[Refusal, ...]:
    """Of ``others`` what holds whatever the ``unreadable`` compute.

    Behind custom operators, whose shapes are guesses, only functions that were measured are sure.
    """
    names = {refusal.node for refusal in unreadable}
    custom = [node for node in graph.nodes if (node.domain or "") not in _KNOWN]
    behind = descendants(graph, custom)
    unsure = {label(node) for node in graph.nodes if id(node) in behind}
    return tuple(
        refusal
        for refusal in others
        if refusal.node not in names and (refusal.nodes or refusal.node not in unsure)
    )


def refuse(path: Path, refused: Sequence[Refusal]) -> NoReturn:
    """Raise NotConvertible, listing what is ``refused``."""
    raise NotConvertible(
        f"{path}: {len(refused)} node(s) cannot be part of a spiking network",
        node=refused[0].node,
        refused=tuple(refused),
    )
