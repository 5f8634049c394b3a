"""A NIR network in numpy, all time steps of a layer at once: our reference, and ways to deviate.

It says what a file means: when it is written (`verification`), and when other simulators are
compared with it (`nir_readers`). The neuron is `law.OURS` (soft reset, fires at the threshold,
unclipped); the linear operators are the kernels that verification uses everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .. import kernels
from .law import OURS, Law, fire
from .read_back import Conv, Flatten, Linear, Network, Neurons, Op, Pool

Array: TypeAlias = NDArray[Any]
Edge: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Deviation:
    """How a run differs from ours: the neurons' law, and edges that a reader does not follow.

    ``left_out`` edges carry nothing; what runs along a ``late`` edge arrives a step later.
    """

    law: Law = OURS
    left_out: frozenset[Edge] = frozenset()
    late: frozenset[Edge] = frozenset()


@dataclass(frozen=True)
class Recording:
    """What a network did: ``currents`` into each neuron layer and its ``spikes``, and the
    ``output``, each [T, N, ...]."""

    currents: dict[str, Array]
    spikes: dict[str, Array]
    output: Array
    values: dict[str, Array] = field(default_factory=dict)


def simulate(
    network: Network,
    inputs: Array,
    deviation: Deviation = Deviation(),
    *,
    given: Mapping[str, Array] | None = None,
    stem: Mapping[str, Array] | None = None,
    dtype: Any = np.float64,
) -> Recording:
    """Run ``network`` on ``inputs`` [T, N, ...] in ``dtype``.

    With ``given``, spikes by layer, these layers pass those on instead of their own: every current
    is then what it would be behind these spikes. ``stem`` are currents [T, N, ...] of layers that
    take the place of those computed here.
    """
    values: dict[str, Array] = {}
    currents, spikes = {}, {}
    for name, op in network.ops.items():
        arriving = [
            _along(values[source], (source, name), deviation) for source in network.sources[name]
        ]
        total = sum(arriving[1:], arriving[0]) if arriving else inputs.astype(dtype)
        if isinstance(op, Neurons):
            if stem and name in stem:
                total = np.broadcast_to(stem[name], total.shape).astype(dtype)
            currents[name] = total
            spikes[name] = fire(deviation.law, total, op.threshold, op.initial)
            forced = None if given is None else given.get(name)
            values[name] = spikes[name] if forced is None else forced.astype(dtype)
        else:
            values[name] = _apply(op, total)
    return Recording(currents, spikes, values[network.output], values)


def arriving(network: Network, name: str, values: Mapping[str, Array]) -> dict[str, Array]:
    """What each source of node ``name`` adds to its input, by source."""
    return {source: values[source] for source in network.sources[name]}


def late(values: Array) -> Array:
    """``values`` [T, ...] a step later: nothing at the first step."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


def _along(values: Array, edge: Edge, deviation: Deviation) -> Array:
    if edge in deviation.left_out:
        return np.zeros_like(values)
    return late(values) if edge in deviation.late else values


def _apply(op: Op, x: Array) -> Array:
    """One operator on [T, N, ...]; time goes into the batch."""
    steps, batch = x.shape[:2]
    y = _on_batch(op, x.reshape(steps * batch, *x.shape[2:]))
    return y.reshape(steps, batch, *y.shape[1:])


def _on_batch(op: Op, x: Array) -> Array:
    if isinstance(op, Conv):
        node = _node("Conv", op.strides, op.padding)
        weights = [op.weight.astype(x.dtype), op.bias.astype(x.dtype)]
        return kernels.conv(node, [x, *weights], x.dtype)
    if isinstance(op, Linear):
        y: Array = x @ op.weight.astype(x.dtype).T + op.bias.astype(x.dtype)
        return y
    if isinstance(op, Pool):
        return kernels.sum_pool(
            _node("AveragePool", op.strides, op.padding, kernel_shape=list(op.kernel)), x
        )
    if isinstance(op, Flatten):
        return x.reshape(len(x), -1)
    return x


def _node(kind: str, strides: tuple[int, ...], padding: tuple[int, ...], **attrs: Any) -> gs.Node:
    pads = [*padding, *padding]
    return gs.Node(op=kind, attrs={"strides": list(strides), "pads": pads, **attrs})
