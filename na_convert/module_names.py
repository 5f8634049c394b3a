"""Names that readers know: the path of the torch module that an activation comes from.

The dynamo exporter calls nodes ``node_mul_15`` and writes the modules they belong to into each
node's metadata (``pkg.torch.onnx.name_scopes``: ``['', 'blocks.0', 'blocks.0.act', 'mul']``).
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_graphsurgeon as gs

from .graph import Carried, is_ours, tensors_by_name
from .neurons import ACTIVATION_OPS

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_by_module(graph: gs.Graph, carried: Carried) -> None:
    """Call each activation by its module's path, where no other activation or tensor is.

    Others keep the node's name: a module that is used twice, or an activation that is no module.
    """
    activations = [node for node in graph.nodes if is_ours(node, *ACTIVATION_OPS)]
    paths = [_path_of_node(carried, node.name) for node in activations]
    counts = Counter(paths)
    taken = {node.name for node in graph.nodes} | set(tensors_by_name(graph))
    for node, path in zip(activations, paths, strict=True):
        if path and counts[path] == 1 and path not in taken:
            node.name = path


def node_of_module(graph: gs.Graph, carried: Carried, path: str) -> str | None:
    """The name of the last node of the module ``path`` in ``graph``; None if it has none."""
    found = [n.name for n in graph.nodes if path and _path_of_node(carried, n.name) == path]
    return found[-1] if found else None


def _path_of_node(carried: Carried, name: str) -> str:
    """The module of the node that the file calls ``name``; empty if that is not known."""
    output = carried.outputs_by_node.get(name, name)
    text = carried.node_metadata.get(output, {}).get(_SCOPES, "")
    try:
        scopes = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return ""
    modules = [s for s in scopes[:-1] if isinstance(s, str)] if isinstance(scopes, list) else []
    return modules[-1] if modules else ""
