"""A max-pool of spikes, made of IF neurons.

The SNN's max-pool gives a spike when the largest of its inputs' counts grows. Two layers do the
same for up to T steps, exactly, with neurons that fire once:

=====================  =============================================================================
k-th spike             of each input, k = 1 .. T: weights 1/K and a membrane that starts at
                       1 - (k - 1/2) / K reach the threshold at the k-th spike, and again K later
first k-th spike       in each window, of the same k: weights 1/n, start 1 - 1/(2 n)
=====================  =============================================================================

with K >= T and n at least the pixels of a window, powers of two. The sum over k is the output:
counts grow by at most one at a step, and so does their maximum. Whether these neurons are reset to
zero or by subtraction, and fire at the threshold or above it, makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from .. import graph as g
from .builder import CONVOLUTIONS, Builder, Unfit
from .geometry import Geometry, NoGeometry, plain
from .network import Array, Node
from .values import Term, Value

MAXIMA = "maxima of "  # what `onnx` of its neurons begins with
WIDEST = 1024  # channels of a layer that holds several k side by side
_REMEDY = "train with average pooling, or with a convolution that has a stride"


def max_pool(node: gs.Node, value: Value, to: Builder) -> Value:
    """MaxPoolCounts on ``value``; raises Unfit where that is not the spikes of layers."""
    to.require_pixels(value)
    axes = len(value.shape) - 1
    if axes + 1 not in CONVOLUTIONS or node.attrs.get("ceil_mode", 0):
        raise Unfit("a max-pool over three axes, or with part of a window at the border", _REMEDY)
    channels, label = value.shape[0], g.label(node)
    reached, worth = _behind_pool(value, to) or _behind_layers(value, label, to)
    terms: list[Term] = []
    shape = value.shape
    for each in reached:
        first = _first(node, each, label, to)
        shape = (channels, *first.shape[1:])
        terms += [
            Term(first.terms[0].node, i * channels + np.arange(channels), worth)
            for i in range(each.shape[0] // channels)
        ]
    return Value(shape, tuple(terms), value.bias)


def _behind_pool(value: Value, to: Builder) -> tuple[list[Value], Array] | None:
    """Where ``value`` is such a pool's output: its neurons, which fire at k-th spikes already."""
    names = list(dict.fromkeys(term.node for term in value.terms))
    nodes = [to.nodes[name] for name in names]
    if not nodes or not all(node.onnx.startswith(MAXIMA) for node in nodes):
        return None
    channels = value.shape[0]
    parts = [
        Term(name, i * channels + np.arange(channels), value.terms[0].factor)
        for name, node in zip(names, nodes, strict=True)
        for i in range(node.shape[0] // channels)
    ]
    same = len(parts) == len(value.terms) == to.timesteps and all(
        a.node == b.node and a.same_mixing(b) for a, b in zip(parts, value.terms, strict=True)
    )
    if not same or np.any(value.terms[0].factor <= 0):
        return None
    outputs = [Value.of_node(name, node.shape) for name, node in zip(names, nodes, strict=True)]
    return outputs, value.terms[0].factor


def _behind_layers(value: Value, label: str, to: Builder) -> tuple[list[Value], Array]:
    """Neurons that fire at the k-th spike of each channel of ``value``, up to `WIDEST` together,
    and what a spike is worth [C]."""
    worth = np.zeros(value.shape[0])
    terms = []
    for term in value.terms:
        used = (term.index >= 0) & (term.factor != 0)
        node = to.nodes[term.node]
        layer = node.kind == "IF" and not node.onnx.startswith(MAXIMA)
        if not layer or np.any(worth[used]) or np.any(term.factor[used] < 0):
            raise Unfit("a max-pool of other values than the spikes of one layer", _REMEDY)
        worth[used] = term.factor[used]
        terms.append(Term(term.node, np.where(used, term.index, -1), used.astype(np.float64)))
    spikes = Value(value.shape, tuple(terms), np.zeros(value.shape[0]))
    at_once = max(1, WIDEST // value.shape[0])
    counts = range(1, to.timesteps + 1)
    parts = [counts[start : start + at_once] for start in range(0, to.timesteps, at_once)]
    return [_reached(spikes, part, label, to) for part in parts], worth


def _reached(spikes: Value, counts: Sequence[int], label: str, to: Builder) -> Value:
    """Neurons that fire when a count of ``spikes`` reaches k, for each k in ``counts``."""
    channels, axes = spikes.shape[0], len(spikes.shape) - 1
    longest = _power_of_two(to.timesteps)
    weight = np.tile(np.eye(channels) / longest, (len(counts), 1))
    weight = weight.reshape(*weight.shape, *[1] * axes)
    arrived = to.convolved(
        spikes, Geometry(weight, (0,) * axes, (1,) * axes), np.zeros(len(weight)), label
    )
    start = 1 - (np.asarray(counts) - 0.5) / longest
    return _fired(arrived, np.repeat(start, channels), label, to)


def _first(node: gs.Node, reached: Value, label: str, to: Builder) -> Value:
    """Neurons that fire at the first spike of ``reached`` in each window."""
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    axes, channels = len(kernel), reached.shape[0]
    pads = [int(p) for p in node.attrs.get("pads") or [0] * 2 * axes]
    pixels = _power_of_two(prod(kernel))
    each = np.eye(channels).reshape(channels, channels, *[1] * axes)
    try:
        window = plain(
            each * (np.ones(kernel) / pixels),
            reached.shape[1:],
            list(zip(pads[:axes], pads[axes:], strict=True)),
            [int(s) for s in node.attrs.get("strides") or [1] * axes],
            [int(d) for d in node.attrs.get("dilations") or [1] * axes],
        )
    except NoGeometry as why:
        raise Unfit(str(why), _REMEDY) from None
    arrived = to.convolved(reached, window, np.zeros(channels), label)
    return _fired(arrived, np.full(channels, 1 - 0.5 / pixels), label, to)


def _fired(current: Value, start: Array, label: str, to: Builder) -> Value:
    made = Node("IF", current.shape, current.shape, {}, f"{MAXIMA}{label}", start)
    return to.add(made, to.sources(current, label), f"{label}_maxima")


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()
