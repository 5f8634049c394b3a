"""NIR graphs in numpy, with this project's neuron: the reference for what a file says.

It knows nothing of SNN files: it reads the nodes of ``nir`` and nothing else. An IF node is::

    v += r * current;  fired = v >= v_threshold;  v -= v_threshold * fired

from ``metadata["initial_membrane"]`` on (0 without it). Edges into one node add up; all nodes run
in one time step, in the order of the edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


@dataclass
class Step:
    """What happened in one time step, by node name, ``[N, ...]`` each.

    Attributes:
        membranes: of each IF node, with the step's current and before its reset.
        spikes: of each IF node.
        outputs: of each Output node.
    """

    membranes: dict[str, Array] = field(default_factory=dict)
    spikes: dict[str, Array] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)


class Reference:
    """A graph between two time steps, in float64."""

    def __init__(self, graph: Any) -> None:
        self._nodes: Mapping[str, Any] = graph.nodes
        self._before: dict[str, list[str]] = {name: [] for name in self._nodes}
        for source, target in graph.edges:
            self._before[target].append(source)
        self._order: Sequence[str] = list(TopologicalSorter(self._before).static_order())
        self._membranes: dict[str, Array] = {}

    def step(self, x: Array, spikes: Mapping[str, Array] | None = None) -> Step:
        """One time step on the input ``x`` [N, ...].

        ``spikes`` by IF node are what these nodes give out and are reset by, whatever their
        membrane says; the others fire by themselves.
        """
        values: dict[str, Array] = {}
        found = Step()
        for name in self._order:
            node, kind = self._nodes[name], type(self._nodes[name]).__name__
            if kind == "Input":
                values[name] = np.asarray(x, np.float64)
                continue
            given = np.sum([values[source] for source in self._before[name]], axis=0)
            if kind == "IF":
                fired = None if spikes is None else spikes.get(name)
                found.membranes[name], values[name] = self._fire(name, node, given, fired)
                found.spikes[name] = values[name]
            else:
                values[name] = _linear(node, kind, given)
            if kind == "Output":
                found.outputs[name] = values[name]
        return found

    def _fire(
        self, name: str, node: Any, current: Array, fired: Array | None
    ) -> tuple[Array, Array]:
        """The membrane before the reset, and the spikes."""
        theta = np.asarray(node.v_threshold, np.float64)
        start = theta * np.asarray(node.metadata.get("initial_membrane", 0.0), np.float64)
        reached = self._membranes.get(name, start) + np.asarray(node.r, np.float64) * current
        spikes = (reached >= theta).astype(np.float64) if fired is None else fired
        self._membranes[name] = reached - theta * spikes
        return reached, spikes


def _linear(node: Any, kind: str, x: Array) -> Array:
    if kind == "Output":
        return x
    if kind == "Affine":
        return np.asarray(x @ np.asarray(node.weight, np.float64).T + node.bias)
    if kind == "Flatten":
        return x.reshape(len(x), -1)
    if kind in ("Conv1d", "Conv2d"):
        return _convolved(node, x)
    if kind == "SumPool2d":
        windows = _windows(x, node.kernel_size, node.stride, node.padding)
        return np.asarray(windows.sum(axis=(-2, -1)))
    raise ValueError(f"a {kind} node is none of those that na-convert writes")


def _convolved(node: Any, x: Array) -> Array:
    """Conv1d and Conv2d without groups and dilation."""
    weight = np.asarray(node.weight, np.float64)
    axes = weight.ndim - 2
    windows = _windows(x, weight.shape[2:], _each(node.stride, axes), _each(node.padding, axes))
    inner = [1, *range(2 + axes, 2 + 2 * axes)]
    y = np.tensordot(windows, weight, axes=(inner, list(range(1, weight.ndim))))
    return np.asarray(np.moveaxis(y, -1, 1) + np.asarray(node.bias).reshape(-1, *[1] * axes))


def _windows(
    x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Array:
    """``[N, C, ..., *kernel]`` of ``x`` [N, C, ...]."""
    padded = np.pad(x, [(0, 0), (0, 0), *((int(p), int(p)) for p in padding)])
    axes = tuple(range(2, x.ndim))
    windows = sliding_window_view(padded, tuple(int(k) for k in kernel), axes)
    steps = tuple(slice(None, None, int(s)) for s in stride)
    return np.asarray(windows[(slice(None), slice(None), *steps)])


def _each(value: Any, axes: int) -> list[int]:
    return [int(v) for v in np.broadcast_to(np.asarray(value), (axes,))]
