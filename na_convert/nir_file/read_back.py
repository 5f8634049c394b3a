"""A NIR file of ours as plain arrays: what the reference simulates, and all else is judged by.

The package ``nir`` opens the file. Only what ``na-convert export`` writes is understood: one Input,
Outputs, Conv1d and Conv2d without groups and dilation, Affine, SumPool2d, Flatten of all axes and
IF, without cycles. It knows nothing of SNN files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from . import file

Array: TypeAlias = NDArray[Any]

_REMEDY = "only files of `na-convert export` are read here"


@dataclass(frozen=True)
class Wire:
    """Input and Output: the sum of what arrives."""


@dataclass(frozen=True)
class Conv:
    """A convolution; ``weight`` [M, C, ...], ``bias`` [M], the rest one entry per axis."""

    weight: Array
    bias: Array
    strides: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True)
class Linear:
    """``weight`` [out, in], ``bias`` [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Pool:
    """Sums over windows."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True)
class Flatten:
    """Everything but time and batch becomes one axis."""


@dataclass(frozen=True)
class Neurons:
    """Integrate-and-fire neurons; ``threshold`` has the layer's shape, ``initial`` (the membrane
    before the first step) broadcasts against it, ``layer`` is the layer's name in the SNN."""

    threshold: Array
    initial: Array
    layer: str


Op: TypeAlias = Wire | Conv | Linear | Pool | Flatten | Neurons


@dataclass(frozen=True)
class Network:
    """The graph, its nodes in an order of execution, and what the file says of itself.

    ``sources`` are the nodes whose outputs a node sums; ``outputs`` the Output nodes; ``metadata``
    as it stands in the file.
    """

    ops: dict[str, Op]
    sources: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def neurons(self) -> dict[str, Neurons]:
        return {name: op for name, op in self.ops.items() if isinstance(op, Neurons)}

    @property
    def stem(self) -> list[str]:
        """The neuron layers that no other neurons feed: their current is the input's alone."""
        fed: dict[str, bool] = {}
        for name in self.ops:
            fed[name] = any(
                fed[source] or isinstance(self.ops[source], Neurons)
                for source in self.sources[name]
            )
        return [name for name in self.neurons if not fed[name]]

    @property
    def output(self) -> str:
        """The first Output node."""
        return self.outputs[0]


def read(path: Path) -> Network:
    """The network in a NIR file.

    Raises UsageError where the package ``nir`` is missing or too old, ModelError where the file
    cannot be read, or holds what ``na-convert export`` does not write.
    """
    return from_graph(file.read(path, type_check=False), str(path))


def from_graph(graph: Any, where: str = "the NIR graph") -> Network:
    """The same from a ``nir.NIRGraph``; raises ModelError as `read` does."""
    nodes, edges = getattr(graph, "nodes", None), [tuple(edge) for edge in graph.edges]
    if not nodes:
        raise ModelError(f"{where}: holds no graph", remedy=_REMEDY)
    kinds = {name: type(node).__name__ for name, node in nodes.items()}
    inputs, outputs = ([n for n, kind in kinds.items() if kind == k] for k in ("Input", "Output"))
    if len(inputs) != 1 or not outputs:
        raise ModelError(
            f"{where}: {len(inputs)} Input and {len(outputs)} Output nodes", remedy=_REMEDY
        )
    if len(set(edges)) != len(edges):
        raise ModelError(f"{where}: an edge stands there twice", remedy=_REMEDY)
    sources = {name: tuple(s for s, d in edges if d == name) for name in nodes}
    unknown = {end for edge in edges for end in edge} - set(nodes)
    if unknown:
        raise ModelError(f"{where}: an edge to {min(unknown)!r}, which is no node", remedy=_REMEDY)
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as found:
        raise ModelError(f"{where}: its nodes form a cycle", remedy=_REMEDY) from found
    metadata = _metadata(graph)
    ops = {name: _op(name, nodes[name], where) for name in order}
    ordered = {name: sources[name] for name in order}
    return Network(ops, ordered, tuple(outputs), metadata)


# --- nodes ----------------------------------------------------------------------------------------


def _op(name: str, node: Any, where: str) -> Op:
    kind = type(node).__name__
    if kind in ("Input", "Output"):
        return Wire()
    if kind in ("Conv1d", "Conv2d"):
        axes = np.ndim(node.weight) - 2
        if isinstance(node.padding, str):
            raise ModelError(f"{where}: {name!r} pads by {node.padding!r}", remedy=_REMEDY)
        if int(node.groups) != 1 or set(_sizes(node.dilation, axes)) != {1}:
            raise ModelError(f"{where}: {name!r} has groups or dilation", remedy=_REMEDY)
        strides, padding = _sizes(node.stride, axes), _sizes(node.padding, axes)
        return Conv(np.asarray(node.weight), np.asarray(node.bias), strides, padding)
    if kind == "Affine":
        return Linear(np.asarray(node.weight), np.asarray(node.bias))
    if kind == "SumPool2d":
        return Pool(*(_sizes(value, 2) for value in (node.kernel_size, node.stride, node.padding)))
    if kind == "Flatten":
        if int(node.start_dim) > 1 or int(node.end_dim) != -1:
            raise ModelError(f"{where}: {name!r} flattens some axes alone", remedy=_REMEDY)
        return Flatten()
    if kind == "IF":
        return _neurons(name, node, where)
    raise ModelError(f"{where}: {name!r} is a {kind}", node=name, remedy=_REMEDY)


def _neurons(name: str, node: Any, where: str) -> Neurons:
    if not np.all(np.asarray(node.r) == 1):
        raise ModelError(f"{where}: {name!r} has r other than 1", node=name, remedy=_REMEDY)
    metadata = _metadata(node)
    threshold = np.asarray(node.v_threshold)
    if not (np.isfinite(threshold) & (threshold > 0)).all():
        raise ModelError(f"{where}: {name!r} has thresholds that are not above 0", node=name)
    share = np.asarray(metadata.get("initial_membrane", 0.0), threshold.dtype)
    return Neurons(threshold, share * threshold, str(metadata.get("onnx", name)))


def _metadata(of: Any) -> dict[str, Any]:
    """What the file says of the graph or a node; some versions of nir give text as bytes."""
    said = dict(getattr(of, "metadata", None) or {})
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in said.items()}


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    """One size per axis, from a number or one number per axis."""
    given = [int(size) for size in np.ravel(np.asarray(value))]
    return tuple(given * axes if len(given) == 1 else given)
