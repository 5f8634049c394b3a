"""A `Network` as a NIR file (HDF5), by the package ``nir``: the same bytes for the same network.

Names that no reader knows go into ``metadata``: of the graph what the whole file is, of each node
the SNN's node that it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, UsageError
from ..machine import beyond_memory
from .network import Network, Node

_INSTALL = "pip install 'na-convert[nir]'"


OLDEST = "1.0.8"  # of nir, as the extra `nir` asks for


def require() -> Any:
    """The package ``nir``; raises UsageError, with what to install, if it is missing or too old."""
    try:
        import nir
    except ImportError as error:
        raise UsageError(f"NIR files need the package nir ({error})", remedy=_INSTALL) from None
    if _numbers(nir.version) < _numbers(OLDEST):
        raise UsageError(
            f"nir {nir.version} is older than {OLDEST}, which NIR files need", remedy=_INSTALL
        )
    return nir


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def write(network: Network, metadata: Mapping[str, Any], path: Path) -> None:
    """Write ``network`` to ``path``; ``metadata`` of the graph are strings and numbers."""
    nir = require()
    nodes = {name: _node(nir, node) for name, node in network.nodes.items()}
    edges = list(network.edges)
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges, metadata=dict(metadata)))


def read(path: Path, *, type_check: bool = True) -> Any:
    """The graph in ``path``; with ``type_check`` as ``nir`` does.

    Raises ModelError where it is none, or its arrays are more than the memory holds.
    """
    nir = require()
    _check_size(path)
    try:
        return nir.read(str(path), type_check=type_check)
    except Exception as error:  # h5py and nir raise whatever they meet
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path}: not a NIR file that can be read ({said})") from error


def _check_size(path: Path) -> None:
    """Raises ModelError where the arrays of a file would not fit into the memory: HDF5 stores a
    terabyte of zeros in a few bytes."""
    import h5py

    sizes = []

    def add(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            sizes.append(int(entry.size or 0) * int(entry.dtype.itemsize))

    try:
        with h5py.File(path, "r") as opened:
            opened.visititems(add)
    except Exception:  # not HDF5: nir says so in its own words
        return
    if too_large := beyond_memory(sum(sizes)):
        raise ModelError(f"{path}: its arrays take {too_large}")


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
