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

import numpy as np
import onnx_graphsurgeon as gs

from . import pointwise
from .axes import (
    COUNTING_AXES,
    EXTRA,
    LAYOUT,
    REDUCTIONS,
    RESHAPING,
    SCATTERED,
    Axes,
    axes_argument,
    broadcast_axes,
    data_inputs,
    joined_axes,
    looked_up_axes,
    reduced_axes,
    squeezed,
    unsqueezed,
)
from .graph import is_constant, is_output, is_standard, producer
from .tensor_types import TensorType, tensor_types


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
            found = self._node_axes(node, axes, root)
            if found is None:
                return None
            axes[id(node.outputs[0])] = found
        varying = {a for known in axes.values() for a in known if a[0] > 0 and a[1] > 1}
        end = axes[id(output)]
        if len(varying) > 1 or not end or end[0][0] != 0:
            return None
        if any(label == EXTRA and size > 1 for label, size in end):  # several values of one number
            return None
        dtype = self.types.get(root.name, TensorType()).dtype or _constants_dtype(nodes)
        if dtype is None or dtype.kind != "f":
            return None
        layouts = self._layouts(root, output, nodes, axes)
        if layouts is None:
            return None
        channels = max((size for _, size in varying), default=1)
        return Function(root, output, tuple(nodes), axes, channels, dtype, layouts)

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

    def position(self, tensor: gs.Tensor) -> int:
        """Of the node that computes ``tensor``, in the graph; -1 if there is none."""
        return self._position[id(tensor.inputs[0])] if tensor.inputs else -1

    def root_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """The tensor that ``tensor`` is a function of; itself if there is none."""
        return self._root.get(id(tensor), tensor)

    # --- tracing ---

    def _trace(self, node: gs.Node) -> None:
        tracked = data_inputs(node)
        roots = {id(self.root_of(t)): self.root_of(t) for t in tracked}
        if len(roots) != 1 or len(node.outputs) != 1:
            return
        (root,) = roots.values()
        start = self._start(root)
        if start is None or (tracked[0] is root and _belongs_to_root(node, root)):
            return
        axes = self._node_axes(node, {**_only(self._axes, tracked), id(root): start}, root)
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
                data = data_inputs(node)
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
        if any(is_standard(n, *REDUCTIONS, "Gather", "GatherND", "Concat") for n in nodes):
            return None
        path = []
        tensor = output
        while tensor is not root:
            node = tensor.inputs[0]
            if node in moved:
                path.append(node)
            tensor = data_inputs(node)[0]
        return tuple(reversed(path))

    # --- axes ---

    def _node_axes(self, node: gs.Node, axes: Mapping[int, Axes], root: gs.Tensor) -> Axes | None:
        """The axes of the node's output; None if it is not elementwise in its tracked inputs."""
        data = data_inputs(node)
        first = axes.get(id(data[0])) if data else None
        if first is None or any(id(t) not in axes for t in data):
            return None
        if is_standard(node, *COUNTING_AXES) and not self._can_count(node, data[0]):
            return None
        if node.op in LAYOUT and is_standard(node):
            alike = all(size == 1 for _, size in first)
            restored = alike and self._restores(node, root)
            return axes[id(root)] if restored else self._layout_axes(node, first)
        if is_standard(node, *REDUCTIONS):
            return reduced_axes(node, first)
        if is_standard(node, "Gather", "GatherND"):
            return looked_up_axes(node, first)
        if is_standard(node, "Concat"):
            return joined_axes(node, axes)
        if is_standard(node, "ConstantOfShape"):
            return first
        if not pointwise.known(node):
            return None
        combined = broadcast_axes(node, axes, len(first))
        return combined if combined is not None and self._fits(data[0], combined) else None

    def _restores(self, node: gs.Node, root: gs.Tensor) -> bool:
        """Whether a Reshape gives what a flatten left of ``root`` the shape of ``root`` again."""
        if node.op != "Reshape" or data_inputs(node)[0] is root:
            return False
        shape, target = self.types.get(root.name, TensorType()).shape, node.inputs[1]
        if shape is None or not is_constant(target):
            return False
        wanted = [int(n) for n in target.values]
        same = len(wanted) == len(shape) and wanted[0] == -1 and wanted[1:] == list(shape[1:])
        between = self._between(root, node.outputs[0]) if same else None
        return between is not None and not any(is_standard(n, "Transpose") for n in between)

    def _can_count(self, node: gs.Node, tensor: gs.Tensor) -> bool:
        """Whether it is known which axes are meant: those of an unknown rank only from the end."""
        known = self.types.get(tensor.name, TensorType()).shape is not None
        return known or all(axis < 0 for axis in axes_argument(node) or [])

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
            return unsqueezed(node, axes)
        if node.op == "Squeeze":
            return squeezed(node, axes)
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
    if is_standard(node, *RESHAPING):
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


def _constants_dtype(nodes: list[gs.Node]) -> np.dtype[np.floating] | None:
    kinds = {np.dtype(t.dtype) for n in nodes for t in n.inputs if is_constant(t) and t.dtype}
    floats = [kind for kind in kinds if kind.kind == "f"]
    return floats[0] if len(floats) == 1 else None
