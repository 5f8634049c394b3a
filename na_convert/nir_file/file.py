"""A `Network` as a NIR file (HDF5), by the package ``nir``: the same bytes for the same network.

Names that no reader knows go into ``metadata``: of the graph what the whole file is, of each node
the SNN's node that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, UsageError
from .network import Network, Node


def require() -> Any:
    """The package ``nir``; raises UsageError with what to install where it is missing."""
    try:
        import nir
    except ImportError as error:
        raise UsageError(
            f"NIR files need the package nir ({error})", remedy="pip install 'na-convert[nir]'"
        ) from None
    return nir


def write(network: Network, metadata: Mapping[str, Any], path: Path) -> None:
    """Write ``network`` to ``path``; ``metadata`` of the graph are strings and numbers."""
    nir = require()
    nodes = {name: _node(nir, node) for name, node in network.nodes.items()}
    edges = list(network.edges)
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges, metadata=dict(metadata)))


def read(path: Path) -> Any:
    """The graph in ``path``, types checked by ``nir``; raises ModelError where it is none."""
    nir = require()
    try:
        return nir.read(str(path))
    except Exception as error:
        raise ModelError(f"{path}: not a NIR file that nir reads ({error})") from error


def _start(node: Node) -> Any:
    """A number, or float32 of the layer's full shape."""
    start = np.asarray(node.initial, np.float32)
    if start.ndim == 0:
        return float(start)
    per_channel = start.reshape(-1, *[1] * (len(node.shape) - 1))
    return np.broadcast_to(per_channel, node.shape).copy()


def _node(nir: Any, node: Node) -> Any:
    known: dict[str, dict[str, Any]] = {"metadata": {"onnx": node.onnx}}
    values = node.values
    if node.kind == "Input":
        return nir.Input({"input": np.asarray(node.shape)}, **known)
    if node.kind == "Output":
        return nir.Output({"output": np.asarray(node.shape)}, **known)
    if node.kind == "IF":
        one = np.ones(node.shape, np.float32)
        known["metadata"]["initial_membrane"] = _start(node)
        return nir.IF(r=one, v_threshold=one.copy(), v_reset=np.zeros_like(one), **known)
    if node.kind == "Flatten":
        return nir.Flatten(
            {"input": np.asarray(node.given)}, start_dim=-len(node.given), end_dim=-1, **known
        )
    if node.kind == "SumPool2d":
        return nir.SumPool2d(**values, padding=np.zeros(2, np.int64), **known)
    if node.kind == "Affine":
        return nir.Affine(**values, **known)
    one_axis = node.kind == "Conv1d"

    def per_axis(name: str) -> Any:
        numbers = [int(v) for v in values[name]]
        return numbers[0] if one_axis else tuple(numbers)

    make = nir.Conv1d if one_axis else nir.Conv2d
    return make(
        input_shape=node.given[1] if one_axis else node.given[1:],
        weight=values["weight"],
        bias=values["bias"],
        stride=per_axis("stride"),
        padding=per_axis("padding"),
        dilation=1 if one_axis else (1, 1),
        groups=1,
        **known,
    )
