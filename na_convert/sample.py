"""Evaluating an elementwise function at chosen points, exactly or in the model's own float type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import pointwise
from .axes import LAYOUT, Axes
from .elementwise import Function
from .graph import is_constant, is_standard, producer

Array = NDArray[Any]


class Sampler:
    """``function`` as a callable on points ``[K, C]`` (C channels), floats computed in ``dtype``.

    Constants are loaded once. Random and smooth operators raise NotImplementedError.
    """

    def __init__(self, function: Function, dtype: np.dtype[Any]) -> None:
        self.function = function
        self.dtype = dtype
        self._constants = {
            id(t): _floats_as(np.asarray(t.values), dtype)
            for node in function.nodes
            for t in node.inputs
            if is_constant(t) and not t.is_empty()
        }
        self._varying = {
            label for axes in function.axes.values() for label, size in axes
            if label > 0 and size > 1
        }  # fmt: skip

    def __call__(self, x: Array) -> Array:
        """Values ``[K, C]`` at points ``x`` [K, C] (or [K, 1] for all channels alike)."""
        channels = self.function.channels
        wide = np.broadcast_to(x, (len(x), channels)).astype(self.dtype)
        values = {id(self.function.root): self._spread(wide)}
        for node in self.function.nodes:
            values[id(node.outputs[0])] = self._run(node, values, len(x))
        result = values[id(self.function.output)]
        return np.broadcast_to(result.reshape(len(x), -1), (len(x), channels))

    def _spread(self, x: Array) -> Array:
        """``x`` [K, C] in the root's layout; the channel axis is where the constants vary."""
        start = self.function.axes[id(self.function.root)]
        return x.reshape(self._simulated_shape(start, len(x)))

    def _simulated_shape(self, axes: Axes, count: int) -> list[int]:
        """Channels have their axis from the start, wherever a constant first tells them apart."""
        channels = self.function.channels
        sizes = [channels if label in self._varying else size for label, size in axes]
        return [count if label == 0 else s for (label, _), s in zip(axes, sizes, strict=True)]

    def _run(self, node: gs.Node, values: dict[int, Array], count: int) -> Array:
        inputs = [self._value(t, values) for t in node.inputs]
        axes = self.function.axes[id(node.outputs[0])]
        if is_standard(node, "Transpose"):
            order = node.attrs.get("perm")
            return np.transpose(_given(inputs[0]), order)
        if is_standard(node, *LAYOUT):
            return _given(inputs[0]).reshape(self._simulated_shape(axes, count))
        if is_standard(node, "ConstantOfShape"):
            shape = producer(node.inputs[0])
            like = values[id(shape.inputs[0])] if shape is not None else None
            return pointwise.evaluate(node, [like], self.dtype)
        if node.op in _ALONG_AXIS and is_standard(node):
            return _along_axis(node, [_given(i) for i in inputs], self.dtype)
        return pointwise.evaluate(node, inputs, self.dtype)

    def _value(self, tensor: gs.Tensor, values: dict[int, Array]) -> Array | None:
        if tensor.is_empty():
            return None
        return values.get(id(tensor), self._constants.get(id(tensor)))


def hints(function: Function, at_most: int) -> Array:
    """The numbers in the graph of ``function`` and their products: where jumps may be.

    Of the products only so many that there are ``at_most`` in all, spread over their range.
    """
    found: list[Array] = []
    for node in function.nodes:
        for tensor in node.inputs:
            if is_constant(tensor) and not tensor.is_empty() and tensor.values.dtype.kind in "fiu":
                found.append(np.unique(np.asarray(tensor.values, np.float64))[:32])
    single = np.unique(np.concatenate([np.ones(1), *found]))
    single = single[np.isfinite(single)][:48]
    with np.errstate(all="ignore"):
        ratios = single[:, None] / single[None, :]
    products = _usable(np.concatenate([np.outer(single, single).ravel(), ratios.ravel()]))
    single = _usable(single)
    places = np.linspace(0, len(products) - 1, max(0, min(len(products), at_most - len(single))))
    return np.union1d(single, products[np.round(places).astype(int)])


def _usable(values: Array) -> Array:
    sizes = np.abs(values[np.isfinite(values)])
    return np.unique(sizes[(sizes > 0) & (sizes < 2.0**40)])


def _floats_as(values: Array, dtype: np.dtype[Any]) -> Array:
    return values.astype(dtype) if values.dtype.kind == "f" else values


def _given(value: Array | None) -> Array:
    if value is None:
        raise ValueError("a required input is missing")
    return value


# --- operators along an extra axis ----------------------------------------------------------------

_REDUCERS: dict[str, Callable[..., Any]] = {
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceSum": np.sum,
}
_ALONG_AXIS = (*_REDUCERS, "ArgMax", "ArgMin", "Concat", "Gather", "GatherND")


def _along_axis(node: gs.Node, inputs: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    x = inputs[0]
    if node.op == "Concat":
        return np.concatenate(list(inputs), axis=int(node.attrs["axis"]))
    if node.op == "Gather":
        return np.asarray(x[inputs[1]])
    if node.op == "GatherND":
        return np.asarray(x[inputs[1][..., 0]])
    keep = bool(int(node.attrs.get("keepdims", 1)))
    if node.op in ("ArgMax", "ArgMin"):
        return _arg_extreme(node, x, keep)
    axes = node.attrs["axes"] if "axes" in node.attrs else np.ravel(inputs[1])
    reduced = _REDUCERS[node.op](x, axis=tuple(int(a) for a in axes), keepdims=keep)
    return np.asarray(reduced, x.dtype)


def _arg_extreme(node: gs.Node, x: Array, keep: bool) -> Array:
    find = np.argmax if node.op == "ArgMax" else np.argmin
    axis = int(node.attrs.get("axis", 0))
    if int(node.attrs.get("select_last_index", 0)):
        found = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=keep)
    else:
        found = find(x, axis=axis, keepdims=keep)
    return np.asarray(found)
