"""Names inside branches that hide names outside: each gets one of its own.

ONNX forbids them, onnxruntime runs them, and takes the inner one; graphsurgeon takes the outer.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from .protos import subgraphs


def rename_hiding(model: onnx.ModelProto) -> int:
    """Rename in place what a subgraph of ``model`` defines under a name that is known around it.

    Returns how many names were changed.
    """
    inner = [g for node in model.graph.node for g in subgraphs(node)]
    if not inner:
        return 0
    taken = set(_all_names(model.graph))
    outside = set(_defined(model.graph))
    return sum(_rename(graph, outside, taken) for graph in inner)


def _rename(graph: onnx.GraphProto, outside: set[str], taken: set[str]) -> int:
    hiding = [name for name in _defined(graph) if name in outside]
    for name in hiding:
        _replace(graph, name, _fresh(name, taken))
    visible = outside | set(_defined(graph))
    inner = [g for node in graph.node for g in subgraphs(node)]
    return len(hiding) + sum(_rename(each, visible, taken) for each in inner)


def _fresh(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_inner{number}" in taken:
        number += 1
    taken.add(f"{name}_inner{number}")
    return f"{name}_inner{number}"


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of inputs, weights and results of ``graph`` itself, each once."""
    inputs = [value.name for value in graph.input]
    weights = [tensor.name for tensor in graph.initializer]
    weights += [tensor.values.name for tensor in graph.sparse_initializer]
    results = [name for node in graph.node for name in node.output if name]
    yield from dict.fromkeys([*inputs, *weights, *results])


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from _defined(graph)
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _all_names(inner)


def _replace(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call ``old`` ``new`` in ``graph`` and in what it holds, but where it is defined again."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new
    for sparse in graph.sparse_initializer:
        if sparse.values.name == old:
            sparse.values.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for inner in subgraphs(node):
            if old not in _defined(inner):
                _replace(inner, old, new)
