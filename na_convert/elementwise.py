"""Functions of one number in a graph: which tensors depend, element by element, on one other.

An export spells an activation in a dozen nodes or in one. What they have in common is that each
element of the result depends on the element at the same place of one tensor, the root, and on
constants that are the same for all elements or differ by channel. `functions` finds the largest
such subgraphs; `sample` evaluates them.

The axes of each tensor inside are followed by where they come from: an axis of the root, or an
extra one that constants brought in (a ladder of comparisons is ``[N, C, levels]`` for a while, and
a sum over the last axis ends it). Sums and the like are allowed over extra axes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from . import pointwise
from .graph import is_constant, is_output, is_standard, producer
from .tensor_types import TensorType, tensor_types

EXTRA = -1  # an axis that the root does not have
SCATTERED = -2  # an axis of data after a Reshape: no longer one axis of the root

Axes: TypeAlias = tuple[tuple[int, int], ...]  # (axis of the root, size); size 1 where values agree

LAYOUT = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Transpose")  # a root is taken behind them
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ArgMax", "ArgMin")
_MAX_CONSTANT = 1 << 20  # elements


@dataclass(frozen=True)
class Function:
    """``output`` as a function of ``root``, element by element.

    Attributes:
        nodes: those that compute it, in the order of the graph.
        axes: of every tensor inside, by id.
        channels: number of elements that differ in their constants; 1 for most.
        dtype: the float type of the root.
        layouts: Reshape and the like that turn the root's layout into the output's, where they
            differ; in order.
    """

    root: gs.Tensor
    output: gs.Tensor
    nodes: tuple[gs.Node, ...]
    axes: Mapping[int, Axes]
    channels: int
    dtype: np.dtype[np.floating]
    layouts: tuple[gs.Node, ...] = ()

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """Shape of per-channel constants against one sample of the output: ``()``, ``(C, 1, 1)``"""
        sizes = [size for _, size in self.axes[id(self.output)]][1:]
        while sizes and sizes[0] == 1:
            sizes.pop(0)
        return tuple(sizes)


class Tracer:
    """The elementwise functions of one graph; built once, before the graph is edited."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.types = tensor_types(graph)
        self._position = {id(node): i for i, node in enumerate(graph.nodes)}
        self._root: dict[int, gs.Tensor] = {}
        self._axes: dict[int, Axes] = {}
        for node in graph.nodes:
            self._trace(node)

    def functions(self) -> Iterator[Function]:
        """One for each tensor that somebody needs who is no part of its function."""
        for node in self.graph.nodes:
            for output in node.outputs:
                root = self._root.get(id(output))
                if root is None or root is output or node.op in LAYOUT:
                    continue
                if self._is_needed(output, root):
                    found = self.function(root, output)
                    if found is not None:
                        yield found

    def function(self, root: gs.Tensor, output: gs.Tensor) -> Function | None:
        """``output`` as an elementwise function of ``root``, or None if it is not one."""
        nodes = self._between(root, output)
        start = self._start(root)
        if nodes is None or start is None:
            return None
        axes = {id(root): start}
        for node in nodes:
            found = self._node_axes(node, axes)
            if found is None:
                return None
            axes[id(node.outputs[0])] = found
        sizes = {size for known in axes.values() for label, size in known if label > 0} - {1}
        if len(sizes) > 1 or not axes[id(output)] or axes[id(output)][0][0] != 0:
            return None
        dtype = self.types.get(root.name, TensorType()).dtype or _constants_dtype(nodes)
        if dtype is None or dtype.kind != "f":
            return None
        layouts = self._layouts(root, output, nodes, axes)
        if layouts is None:
            return None
        return Function(root, output, tuple(nodes), axes, max(sizes, default=1), dtype, layouts)

    def cuts(self, function: Function) -> list[gs.Tensor]:
        """Tensors strictly inside that every path from the root to the output goes through."""
        reads = {id(t): 0 for node in function.nodes for t in node.inputs}
        for node in function.nodes:
            for tensor in node.inputs:
                reads[id(tensor)] += 1
        live = {id(function.root)}
        inside = []
        for node in function.nodes:
            for tensor in node.inputs:
                reads[id(tensor)] -= 1
                if not reads[id(tensor)]:
                    live.discard(id(tensor))
            live.add(id(node.outputs[0]))
            if len(live) == 1 and node.outputs[0] is not function.output:
                inside.append(node.outputs[0])
        return inside

    def outside_readers(self, tensor: gs.Tensor, root: gs.Tensor) -> list[gs.Node]:
        """Consumers of ``tensor``, through Reshape and the like, that do not continue its
        function of ``root``."""
        found = []
        for consumer in tensor.outputs:
            inside = [o for o in consumer.outputs if self._root.get(id(o)) is root]
            if inside and consumer.op in LAYOUT:
                found += self.outside_readers(inside[0], root)
            elif not inside and not is_standard(consumer, "Shape"):
                found.append(consumer)
        return found

    def root_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """The tensor that ``tensor`` is a function of; itself if there is none."""
        return self._root.get(id(tensor), tensor)

    # --- tracing ---

    def _trace(self, node: gs.Node) -> None:
        tracked = _data(node)
        roots = {id(self.root_of(t)): self.root_of(t) for t in tracked}
        if len(roots) != 1 or len(node.outputs) != 1:
            return
        (root,) = roots.values()
        start = self._start(root)
        if start is None or (tracked[0] is root and _belongs_to_root(node, root)):
            return
        axes = self._node_axes(node, {**_only(self._axes, tracked), id(root): start})
        if axes is not None:
            self._root[id(node.outputs[0])] = root
            self._axes[id(node.outputs[0])] = axes

    def _start(self, root: gs.Tensor) -> Axes | None:
        """A root's axes; where its rank is not known only scalars can be followed (rank 1)."""
        found = self.types.get(root.name, TensorType())
        if found.dtype is not None and found.dtype.kind != "f":
            return None
        rank = 1 if found.shape is None else len(found.shape)
        return tuple((i, 1) for i in range(rank)) if rank else None

    def _is_needed(self, tensor: gs.Tensor, root: gs.Tensor) -> bool:
        if is_output(self.graph, tensor) or self.outside_readers(tensor, root):
            return True
        layouts = [c for c in tensor.outputs if c.op in LAYOUT]
        return any(is_output(self.graph, o) for c in layouts for o in c.outputs)

    def _between(self, root: gs.Tensor, output: gs.Tensor) -> list[gs.Node] | None:
        """The nodes from ``root`` to ``output`` in order; None if something else flows in."""
        found: dict[int, gs.Node] = {}
        pending = [output]
        while pending:
            tensor = pending.pop()
            if tensor is root:
                continue
            node = producer(tensor)
            if node is None or len(node.outputs) != 1 or id(node) not in self._position:
                return None
            if id(node) not in found:
                found[id(node)] = node
                data = _data(node)
                if not data:
                    return None
                pending.extend(data)
        return sorted(found.values(), key=lambda n: self._position[id(n)])

    def _layouts(
        self, root: gs.Tensor, output: gs.Tensor, nodes: list[gs.Node], axes: Mapping[int, Axes]
    ) -> tuple[gs.Node, ...] | None:
        """The layout nodes on the way from root to output; none if the layout is the same at both
        ends. None where sums stand between them, so that they cannot be moved."""
        labels = [[label for label, _ in axes[id(t)]] for t in (root, output)]
        shapes = [self.types.get(t.name, TensorType()).shape for t in (root, output)]
        if labels[0] == labels[1]:
            return ()
        moved = [n for n in nodes if is_standard(n, *LAYOUT)]
        transposed = any(n.op == "Transpose" for n in moved)
        if not transposed and _same_sample_shape(*shapes):
            return ()
        if any(is_standard(n, *_REDUCTIONS, "Gather", "GatherND", "Concat") for n in nodes):
            return None
        path = []
        tensor = output
        while tensor is not root:
            node = tensor.inputs[0]
            if node in moved:
                path.append(node)
            tensor = _data(node)[0]
        return tuple(reversed(path))

    # --- axes ---

    def _node_axes(self, node: gs.Node, axes: Mapping[int, Axes]) -> Axes | None:
        """The axes of the node's output; None if it is not elementwise in its tracked inputs."""
        data = _data(node)
        first = axes.get(id(data[0])) if data else None
        if first is None or any(id(t) not in axes for t in data):
            return None
        if node.op in LAYOUT and is_standard(node):
            return self._layout_axes(node, first)
        if is_standard(node, *_REDUCTIONS):
            return _reduced_axes(node, first)
        if is_standard(node, "Gather", "GatherND"):
            return _looked_up_axes(node, first)
        if is_standard(node, "Concat"):
            return _joined_axes(node, axes)
        if is_standard(node, "ConstantOfShape"):
            return first
        if not pointwise.known(node):
            return None
        combined = _broadcast_axes(node, axes, len(first))
        return combined if combined is not None and self._fits(data[0], combined) else None

    def _fits(self, tensor: gs.Tensor, axes: Axes) -> bool:
        """Whether constants do not blow up an axis of length 1."""
        shape = self.types.get(tensor.name, TensorType()).shape
        if shape is None or len(shape) != len(axes):
            return True
        pairs = zip(shape, axes, strict=True)
        return all(
            label == EXTRA or size == 1 or not isinstance(true, int) or true == size
            for true, (label, size) in pairs
        )

    def _layout_axes(self, node: gs.Node, axes: Axes) -> Axes | None:
        if node.op == "Transpose":
            order = node.attrs.get("perm") or list(reversed(range(len(axes))))
            return tuple(axes[i] for i in order) if len(order) == len(axes) else None
        if node.op == "Unsqueeze":
            return _unsqueezed(node, axes)
        if node.op == "Squeeze":
            return _squeezed(node, axes)
        if any(size > 1 for _, size in axes):
            return None
        target = node.inputs[1] if node.op == "Reshape" else None
        if target is not None and is_constant(target):
            wanted = [int(n) for n in target.values]
            return tuple(
                (0 if i == 0 else EXTRA if n == 1 else SCATTERED, 1) for i, n in enumerate(wanted)
            )
        shape = self.types.get(node.outputs[0].name, TensorType()).shape
        rank = 2 if target is None else len(shape) if shape is not None else 0
        return tuple((0 if i == 0 else SCATTERED, 1) for i in range(rank)) or None


def _belongs_to_root(node: gs.Node, root: gs.Tensor) -> bool:
    """Whether a function should start behind ``node`` only: a change of layout, the bias of a
    matrix product."""
    if is_standard(node, *_RESHAPING):
        return True
    product = producer(root)
    is_product = product is not None and is_standard(product, "MatMul", "Einsum")
    bias = [t for t in node.inputs if is_constant(t)]
    return is_product and is_standard(node, "Add") and any(np.prod(t.shape) > 1 for t in bias)


def _same_sample_shape(
    a: tuple[int | str | None, ...] | None, b: tuple[int | str | None, ...] | None
) -> bool:
    """Whether two shapes are known and equal but for the batch."""
    known = a is not None and b is not None and all(isinstance(n, int) for n in a[1:])
    return known and a is not None and b is not None and len(a) == len(b) and a[1:] == b[1:]


def _only(axes: Mapping[int, Axes], tensors: list[gs.Tensor]) -> dict[int, Axes]:
    return {id(t): axes[id(t)] for t in tensors if id(t) in axes}


def _data(node: gs.Node) -> list[gs.Tensor]:
    """The inputs that carry data and are not constants."""
    if is_standard(node, *LAYOUT, *_REDUCTIONS, "CastLike"):
        used = node.inputs[:1]
    elif is_standard(node, "ConstantOfShape"):
        shape = producer(node.inputs[0])
        used = shape.inputs if shape is not None and is_standard(shape, "Shape") else []
    else:
        used = node.inputs
    return [t for t in used if not t.is_empty() and not is_constant(t)]


def _constants_dtype(nodes: list[gs.Node]) -> np.dtype[np.floating] | None:
    kinds = {np.dtype(t.dtype) for n in nodes for t in n.inputs if is_constant(t) and t.dtype}
    floats = [kind for kind in kinds if kind.kind == "f"]
    return floats[0] if len(floats) == 1 else None


# --- axes of single operators ---------------------------------------------------------------------


def _broadcast_axes(node: gs.Node, axes: Mapping[int, Axes], rank: int) -> Axes | None:
    """numpy's broadcasting of the tracked inputs and the constants."""
    tracked = [axes[id(t)] for t in node.inputs if id(t) in axes]
    if node.op == "ConstantOfShape":
        tracked = [axes[id(_data(node)[0])]]
    constants = []
    for tensor in node.inputs:
        if is_constant(tensor) and not tensor.is_empty():
            shape = _constant_shape(node, tensor, rank)
            if shape is None:
                return None
            constants.append(shape)
    width = max(len(a) for a in [*tracked, *constants])
    result = []
    for i in range(-width, 0):
        here = [a[i] for a in tracked if len(a) >= -i]
        labels = {label for label, _ in here} or {EXTRA}
        sizes = {s for _, s in here} | {c[i] for c in constants if len(c) >= -i}
        label, size = min(labels), max(sizes, default=1)
        aligned = len(here) == len(tracked) or label == EXTRA
        if len(labels) > 1 or not aligned or len(sizes - {1}) > 1:
            return None
        if size > 1 and label in (0, SCATTERED):
            return None
        result.append((label, size))
    return tuple(result)


def _constant_shape(node: gs.Node, tensor: gs.Constant, rank: int) -> tuple[int, ...] | None:
    """How a constant lines up with the data, which has ``rank`` axes."""
    shape = tuple(int(n) for n in tensor.shape)
    count = int(np.prod(shape))
    if count > _MAX_CONSTANT:
        return None
    per_axis = node.op in ("QuantizeLinear", "DequantizeLinear", "BatchNormalization")
    if per_axis:
        axis = int(node.attrs.get("axis", 1))
        if count == 1:
            return ()
        if len(shape) != 1 or not -rank <= axis < rank:
            return None
        return tuple(count if i == axis % rank else 1 for i in range(rank))
    return shape


def _axes_argument(node: gs.Node) -> list[int] | None:
    """``axes`` (or ``axis``) of a node, attribute or input; None if unknown or left out."""
    if node.op in ("ArgMax", "ArgMin"):
        return [int(node.attrs.get("axis", 0))]
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > 1 and is_constant(node.inputs[1]) and not node.inputs[1].is_empty():
        return [int(a) for a in np.ravel(node.inputs[1].values)]
    return None


def _reduced_axes(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = _axes_argument(node)
    if not wanted or not all(-len(axes) <= a < len(axes) for a in wanted):
        return None
    dropped = {a % len(axes) for a in wanted}
    if any(axes[a][0] != EXTRA for a in dropped):
        return None
    keep = bool(int(node.attrs.get("keepdims", 1)))
    kept = [
        (EXTRA, 1) if i in dropped else a for i, a in enumerate(axes) if keep or i not in dropped
    ]
    return tuple(kept)


def _unsqueezed(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = _axes_argument(node)
    if wanted is None:
        return None
    rank = len(axes) + len(wanted)
    new = {a % rank for a in wanted}
    rest = iter(axes)
    return tuple((EXTRA, 1) if i in new else next(rest) for i in range(rank))


def _squeezed(node: gs.Node, axes: Axes) -> Axes | None:
    wanted = _axes_argument(node)
    if wanted is None:
        return None
    dropped = {a % len(axes) for a in wanted}
    if any(axes[a][1] > 1 or axes[a][0] == 0 for a in dropped):
        return None
    return tuple(a for i, a in enumerate(axes) if i not in dropped)


def _looked_up_axes(node: gs.Node, axes: Axes) -> Axes | None:
    """A table of numbers, looked up at computed indices."""
    table = node.inputs[0]
    if not is_constant(table) or len(table.shape) != 1:
        return None
    if node.op == "Gather":
        return axes
    return axes[:-1] if axes[-1] == (EXTRA, 1) else None


def _joined_axes(node: gs.Node, axes: Mapping[int, Axes]) -> Axes | None:
    """Concat along an extra axis."""
    parts = [axes.get(id(t)) for t in node.inputs]
    first = parts[0]
    axis = int(node.attrs["axis"])
    if first is None or not -len(first) <= axis < len(first):
        return None
    axis %= len(first)
    if any(p is None or len(p) != len(first) or p[axis][0] != EXTRA for p in parts):
        return None
    rest = [[p[i] for i in range(len(p)) if i != axis] for p in parts if p is not None]
    if any(r != rest[0] for r in rest):
        return None
    total = sum(p[axis][1] for p in parts if p is not None)
    return tuple((EXTRA, total) if i == axis else a for i, a in enumerate(first))
