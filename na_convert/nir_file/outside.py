"""What a NIR file's Input takes: told in the file, and computed for those who run it.

Metadata of the graph: ``input`` is the tensor of the SNN. Where that is the network's own input,
``input_grid`` is the power of two that it has to be a multiple of, if there is one. Where it lies
behind something that NIR cannot hold, a quantiser of the input above all, ``input_model`` is that
part of the SNN: the bytes (uint8) of an ONNX model from the network's inputs to that tensor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from .. import graph as g
from .. import model_io, size_guard
from ..errors import ModelError, NaConvertError, UsageError
from ..evaluate import evaluate
from .encoding import Encoded, on_grid
from .network import Array, Network

INPUT, GRID, MODEL = "input", "input_grid", "input_model"
_REMEDY = "export it again with this version"


def described(encoded: Encoded, network: Network) -> dict[str, Any]:
    """The metadata of the file that ``network``, made from ``encoded``, becomes."""
    entry = network.input
    if any(entry == t.name for t in encoded.snn.graph.inputs):
        grid = {GRID: encoded.grids[entry]} if entry in encoded.grids else {}
        return {INPUT: entry, **grid}
    return {INPUT: entry, MODEL: np.frombuffer(_part(encoded, network), np.uint8)}


def input_values(metadata: Mapping[str, Any], feeds: Mapping[str, Array], where: str) -> Array:
    """What the Input of the file ``where`` gets, [N, ...], for the network's inputs ``feeds``.

    Raises UsageError where the file does not say what that is, or it is none of ``feeds``, and
    ModelError where what it says cannot be computed.
    """
    if INPUT not in metadata:
        raise UsageError(f"{where}: does not say what its Input takes", remedy=_REMEDY)
    entry = str(metadata[INPUT])
    if MODEL in metadata:
        return _computed(metadata[MODEL], entry, feeds, where)
    if entry not in feeds:
        raise UsageError(
            f"{where}: its Input takes {entry!r}, which is none of the network's inputs "
            f"({', '.join(feeds)}), and it holds no {MODEL} that computes it",
            remedy=_REMEDY,
        )
    return on_grid(np.asarray(feeds[entry]), _grid(metadata, where))


def _grid(metadata: Mapping[str, Any], where: str) -> float:
    """The power of two; 0 where the input is not rounded."""
    if GRID not in metadata:
        return 0.0
    said = np.asarray(metadata[GRID])
    if said.dtype.kind not in "fiu" or said.ndim or np.frexp(said)[0] != 0.5:
        raise ModelError(f"{where}: its {GRID} is {metadata[GRID]!r}, no power of two")
    return float(said)


def _part(encoded: Encoded, network: Network) -> bytes:
    """The ONNX model from the SNN's inputs to the Input of ``network``."""
    graph = encoded.snn.graph.copy()
    entry = graph.tensors()[network.input]
    entry.dtype, entry.shape = (
        entry.dtype or np.dtype(np.float32),
        ["N", *network.nodes["input"].shape],
    )
    graph.outputs = [entry]
    graph.cleanup(remove_unused_graph_inputs=True)
    for tensor in graph.inputs:
        if tensor.name in encoded.grids:
            _rounded(graph, tensor, encoded.grids[tensor.name])
    graph.toposort()
    model = g.export_graph(graph, replace(encoded.snn.carried, metadata={}))
    return bytes(model.SerializeToString(deterministic=True))


def _rounded(graph: gs.Graph, tensor: gs.Tensor, grid: float) -> None:
    """Put the input ``tensor`` on ``grid``: exact, as that is a power of two."""
    names, readers = g.Names(graph), list(tensor.outputs)
    steps = [gs.Variable(names.fresh(f"{tensor.name}_{i}"), tensor.dtype) for i in range(3)]
    units, whole, rounded = steps
    unit = g.constant(names.fresh(f"{tensor.name}_grid"), np.asarray(grid, tensor.dtype))
    graph.nodes += [
        g.node("Div", [tensor, unit], [units], names.fresh(f"{tensor.name}_units")),
        g.node("Round", [units], [whole], names.fresh(f"{tensor.name}_round")),
        g.node("Mul", [whole, unit], [rounded], names.fresh(f"{tensor.name}_on_grid")),
    ]
    for reader in readers:
        reader.inputs = [rounded if t is tensor else t for t in reader.inputs]


def _computed(content: Any, entry: str, feeds: Mapping[str, Array], where: str) -> Array:
    """``entry`` by the ONNX model in ``content``, which is read as any model from anywhere is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{MODEL}.onnx"
        try:
            path.write_bytes(np.asarray(content, np.uint8).tobytes())
            loaded = model_io.load(path)
            size_guard.check_sizes(path, loaded.model, feeds)
            graph, _ = g.import_graph(loaded.take())
            known = {t.name for t in graph.inputs}
            given = {name: np.asarray(x) for name, x in feeds.items() if name in known}
            return evaluate(graph, given, [entry])[entry]
        except (NaConvertError, ValueError, TypeError) as error:
            said = str(error).removeprefix(f"{path}: ")
            raise ModelError(f"{where}: its {MODEL} does not give {entry!r} ({said})") from error
