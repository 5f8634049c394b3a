"""The membrane before the first step as a pulse of current in it, made by neurons in the file.

Two neurons per pixel, with no input but a bias. A gets 1 + e and fires at every step; B gets 1 - e,
so that it is just below its threshold at the first step and fires at every one from the second on
(while t e < 1). A layer gets ``A / 2 - B / 2``: half a threshold at the first step, nothing later.
That is the SNN's own initial membrane, exactly, for any T below 1 / e, in a reader whose neurons
are reset by subtraction. Whether they fire at the threshold or above it, once or several times in a
step, makes no difference here: after 1 / e steps B's membrane is at the threshold, and A's at two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import NotConvertible
from .builder import CONVOLUTIONS
from .network import Array, Network, Node, Shape

_E = 2**-10  # 1 + e and 1 - e are exact in float32, and so are all sums of them
LONGEST = 1023  # steps: below 1 / e
BIAS = np.asarray([1 + _E, 1 - _E], np.float32)  # of A and B


def with_pulses(network: Network) -> Network:
    """``network`` with membranes that start at 0, and a pulse into each IF node.

    Raises NotConvertible, naming the layer, where its pixels are not every n-th of the input's.
    """
    nodes = {
        name: replace(node, initial=0.0) if node.kind == "IF" else node
        for name, node in network.nodes.items()
    }
    edges = list(network.edges)
    (entry,) = [name for name, node in nodes.items() if node.kind == "Input"]
    sources: dict[Shape, str] = {}
    for name, node in network.nodes.items():
        if node.kind != "IF":
            continue
        layer = node.onnx
        pixels = node.shape[1:]
        if pixels not in sources:
            made = _sources(nodes[entry].shape, pixels, f"start{len(sources) or ''}", layer)
            nodes |= made
            chain = [entry, *made]
            edges += list(zip(chain, chain[1:], strict=False))
            sources[pixels] = chain[-1]
        nodes[f"{name}_start"] = _into(node.shape, node.initial, layer)
        edges += [(sources[pixels], f"{name}_start"), (f"{name}_start", name)]
    return replace(network, nodes=nodes, edges=tuple(edges))


def _sources(given: Shape, pixels: Shape, name: str, layer: str) -> dict[str, Node]:
    """A and B for every pixel, [2, *pixels], from an input of shape ``given`` that is not used."""
    made: dict[str, Node] = {}
    shape = (2, *pixels)
    if not pixels and len(given) > 1:  # a layer without pixels behind images
        flat = (int(np.prod(given)),)
        made[f"{name}_flatten"] = Node("Flatten", given, flat, {}, "input")
        given = flat
    bias: dict[str, Array] = {"bias": BIAS.copy()}
    if not pixels:
        weight = np.zeros((2, given[0]), np.float32)
        made[f"{name}_bias"] = Node("Affine", given, shape, {"weight": weight, **bias}, "input")
    else:
        kernel, padding, strides = _geometry(given[1:], pixels, layer)
        weight = np.zeros((2, given[0], *[kernel] * len(pixels)), np.float32)
        values = {"weight": weight, **bias, "stride": strides, "padding": padding}
        made[f"{name}_bias"] = Node(CONVOLUTIONS[len(shape)], given, shape, values, "input")
    made[name] = Node("IF", shape, shape, {}, "the first step")
    return made


def _geometry(given: Sequence[int], pixels: Sequence[int], layer: str) -> tuple[int, Array, Array]:
    """A square kernel, padding and strides that make ``pixels`` of ``given``."""
    for kernel in range(1, max(given) + 1):
        found = [
            next(
                (
                    (padding, stride)
                    for padding in range(kernel)
                    for stride in range(1, n + 1)
                    if n + 2 * padding >= kernel and (n + 2 * padding - kernel) // stride + 1 == m
                ),
                None,
            )
            for n, m in zip(given, pixels, strict=True)
        ]
        if len(given) == len(pixels) and all(f is not None for f in found):
            pairs = [f for f in found if f is not None]
            return kernel, np.asarray([p for p, _ in pairs]), np.asarray([s for _, s in pairs])
    raise NotConvertible(
        f"layer {layer!r} of {'x'.join(map(str, pixels))} pixels gets no pulse from an input of "
        f"{'x'.join(map(str, given))}",
        node=layer,
        remedy="--initial-membrane metadata",
    )


def _into(shape: Shape, initial: float | Array, layer: str) -> Node:
    """``initial * (A - B)`` for every channel of a layer."""
    start = np.broadcast_to(np.asarray(initial, np.float32), (shape[0],))
    weight = np.stack([start, -start], axis=1)
    values = {"weight": weight, "bias": np.zeros(shape[0], np.float32)}
    given = (2, *shape[1:])
    if len(shape) == 1:
        return Node("Affine", given, shape, values, f"the first step of {layer}")
    axes = len(shape) - 1
    values["weight"] = weight.reshape(*weight.shape, *[1] * axes)
    values |= {"stride": np.ones(axes, np.int64), "padding": np.zeros(axes, np.int64)}
    return Node(CONVOLUTIONS[len(shape)], given, shape, values, f"the first step of {layer}")
