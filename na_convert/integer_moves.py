"""Counts moved, chosen, pooled or added up: what stands between layers of an integer network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import kernels

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Move:
    """Counts moved, chosen, pooled or added up: a standard operator on uint8, exact by nature.

    ``op`` is Concat, Gather, MaxPool, Pad, Reshape, Slice, Transpose, DepthToSpace, SpaceToDepth,
    or ``SumPool``: the sum over a window. ``constants`` follow the sources as inputs.
    """

    output: str
    op: str
    sources: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    constants: tuple[Array, ...] = ()


def move(operation: Move, values: Sequence[Array]) -> Array:
    """What ``operation`` makes of counts (or of anything else, to learn where values go)."""
    kind, attributes = operation.op, operation.attributes
    first = values[0]
    if kind == "MaxPool":
        return pooled(attributes, first)
    if kind == "SumPool":
        return _summed(attributes, first)
    if kind == "Concat":
        return np.concatenate(values, axis=1)
    if kind == "Reshape":
        return first.reshape(operation.constants[0])
    if kind == "Transpose":
        return first.transpose([int(i) for i in _ints(attributes["perm"])])
    if kind == "Gather":
        return np.take(first, operation.constants[0], axis=_int(attributes["axis"]))
    if kind == "Pad":
        begins, ends = np.split(np.asarray(operation.constants[0]), 2)
        return np.pad(first, list(zip(begins, ends, strict=True)))
    if kind == "Slice":
        return first[_slices(operation, first.ndim)]
    return _blocks(kind, _int(attributes["blocksize"]), str(attributes.get("mode", "DCR")), first)


def pooled(attributes: Mapping[str, object], values: Array) -> Array:
    """MaxPool with ``attributes`` of ``values`` [N, C, ...]."""
    node = gs.Node("MaxPool", attrs=dict(attributes))
    return kernels.max_pool(node, [values], values.dtype)


def _summed(attributes: Mapping[str, object], values: Array) -> Array:
    kernel = _ints(attributes["kernel_shape"])
    channels = values.shape[1]
    weight = np.ones((channels, 1, *kernel), np.float64)
    node = gs.Node(
        "Conv",
        attrs={"strides": attributes["strides"], "pads": attributes["pads"], "group": channels},
    )
    total = kernels.conv(node, [values.astype(np.float64), weight], np.dtype(np.float64))
    return total.astype(values.dtype)


def _slices(operation: Move, rank: int) -> tuple[slice, ...]:
    starts, ends, axes, steps = (np.asarray(c).tolist() for c in operation.constants)
    taken = [slice(None)] * rank
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        taken[axis] = slice(start, end, stride)
    return tuple(taken)


def _blocks(kind: str, size: int, mode: str, x: Array) -> Array:
    """DepthToSpace and SpaceToDepth of [N, C, H, W]."""
    n, c, h, w = x.shape
    if kind == "SpaceToDepth":
        split = x.reshape(n, c, h // size, size, w // size, size)
        return split.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * size**2, h // size, w // size)
    if mode == "DCR":
        split = x.reshape(n, size, size, c // size**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(n, c // size**2, size, size, h, w).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(n, c // size**2, h * size, w * size)


def _ints(value: object) -> list[int]:
    assert isinstance(value, (list, tuple))
    return [int(i) for i in value]


def _int(value: object) -> int:
    assert isinstance(value, (int, np.integer))
    return int(value)
