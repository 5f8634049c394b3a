"""Small spiking networks, one for each structure that a form of file has to carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from na_convert.passes import to_spiking

from na_convert.shapes import of_one_sample
from na_convert.snn import Snn, metadata

from . import build

CONV = "<pads: ints = [1,1,1,1]>"
FIRST = f"c1 = Conv {CONV} (x, w1, b1)\n" + build.stair("c1", "a1")
HEAD = "m = GlobalAveragePool (last)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)"
SHAPES = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "v": (5, 4)}


def network(body: str, weights: dict, *, timesteps: int = 3, **kwargs: object) -> Snn:
    """The SNN of ``body``, which holds Staircase nodes."""
    inputs = kwargs.get("inputs", "")
    sample = build.images(2, (6,)) if "N,6" in str(inputs) else build.images()
    graph, carried = build.graph(body, {**build.PLAIN, **weights}, **kwargs)
    chosen, _ = to_spiking.choose_neurons(graph)
    names = [a.outputs[0].name for a in chosen]
    found = to_spiking.run(graph, of_one_sample(graph, carried, {"x": sample}, names))
    assert not found.report.refused
    snn = Snn(graph, found.neurons, timesteps, carried)
    described = metadata(snn, "folded", "test", "0")
    return replace(snn, carried=carried.with_metadata(described))


def residual() -> Snn:
    """An identity shortcut, and one with weights and fewer pixels."""
    body = (
        FIRST
        + f"c2 = Conv {CONV} (a1, w2)\ns2 = Add (c2, a1)\n"
        + build.stair("s2", "a2", step="step2")
        + "c3 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (a2, w3)\n"
        + "d3 = Conv <strides: ints = [2,2]> (a2, w4)\ns3 = Add (d3, c3)\n"
        + build.stair("s3", "last")
        + HEAD
    )
    return network(
        body,
        {**SHAPES, "w3": (4, 4, 3, 3), "w4": (4, 4, 1, 1), "step2": 0.3},
    )


def concat() -> Snn:
    """Two layers with different spikes side by side."""
    body = (
        FIRST
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + build.stair("c2", "a2", step="step2")
        + f"both = Concat <axis: int = 1> (a1, a2)\nc3 = Conv {CONV} (both, w3)\n"
        + build.stair("c3", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "w3": (4, 8, 3, 3), "step2": 0.3})


def analog_concat() -> Snn:
    """A layer and an analog tensor side by side."""
    body = (
        FIRST
        + f"both = Concat <axis: int = 1> (a1, c1)\nc2 = Conv {CONV} (both, w2)\n"
        + build.stair("c2", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "w2": (4, 8, 3, 3)})


def shared_sum() -> Snn:
    """Neurons on a sum that goes on to the next sum (pre-activation), with other thresholds."""
    body = (
        FIRST
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + build.stair("c2", "a2", step="step2")
        + f"c3 = Conv {CONV} (a2, w3)\ns3 = Add (c2, c3)\n"
        + build.stair("s3", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "w3": (4, 4, 3, 3), "step2": 0.3})


def shared_current() -> Snn:
    """Two layers on one current: one threshold, and one for each channel."""
    steps = np.linspace(0.2, 0.6, 8, dtype=np.float32).reshape(8, 1, 1)  # as many as columns
    body = (
        FIRST
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + build.stair("c2", "a2")
        + build.stair("c2", "b2", step="steps")
        + f"c3 = Conv {CONV} (a2, w3)\nd3 = Conv (b2, w4)\ns3 = Add (c3, d3)\n"
        + build.stair("s3", "last")
        + HEAD
    )
    weights = {"w2": (8, 4, 3, 3), "w3": (4, 8, 3, 3), "w4": (4, 8, 1, 1), "steps": steps}
    return network(body, {**SHAPES, **weights})


def encoded_input() -> Snn:
    """A quantiser on the network's input: analog, and constant over time."""
    body = (
        build.stair("x", "q", step="fine", levels=15)
        + f"c1 = Conv {CONV} (q, w1, b1)\n"
        + build.stair("c1", "a1")
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + build.stair("c2", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "fine": 0.13})


def max_pool() -> Snn:
    """A max-pool between neurons, and one in front of the first."""
    body = (
        f"c0 = Conv {CONV} (x, w1, b1)\n"
        "c1 = MaxPool <kernel_shape: ints = [2,2]> (c0)\n"
        + build.stair("c1", "a1")
        + "p = MaxPool <kernel_shape: ints = [3,3], strides: ints = [2,2], pads: ints = [1,1,1,1]>"
        " (a1)\n" + f"c2 = Conv {CONV} (p, w2)\n" + build.stair("c2", "last") + HEAD
    )
    return network(body, SHAPES)


def depthwise() -> Snn:
    """Depthwise and grouped convolutions, an average of powers of two in between."""
    body = (
        FIRST
        + "c2 = Conv <pads: ints = [1,1,1,1], group: int = 4> (a1, w2)\n"
        + build.stair("c2", "a2")
        + "p = AveragePool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a2)\n"
        + "c3 = Conv <group: int = 2> (p, w3)\n"
        + build.stair("c3", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "w2": (4, 1, 3, 3), "w3": (4, 2, 1, 1)})


def per_channel() -> Snn:
    """A threshold for each channel."""
    steps = np.array([0.2, 0.3, 0.4, 0.5], np.float32).reshape(4, 1, 1)
    body = (
        f"c1 = Conv {CONV} (x, w1, b1)\n"
        + build.stair("c1", "a1", step="steps")
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + build.stair("c2", "last", step="steps")
        + HEAD
    )
    return network(body, {**SHAPES, "steps": steps})


def offset() -> Snn:
    """Levels that start below zero: an offset on the spikes, and one on the current."""
    stair = (
        '{} = na_convert.Staircase <levels: int = 3, tie_rule: string = "half_up">'
        " ({}, step, step, low, half)\n"
    )
    body = (
        f"c1 = Conv {CONV} (x, w1, b1)\n"
        + stair.format("a1", "c1")
        + f"c2 = Conv {CONV} (a1, w2)\n"
        + stair.format("last", "c2")
        + HEAD
    )
    return network(body, {**SHAPES, "low": -1.0})


def mlp() -> Snn:
    """Gemm, MatMul and Add, no images."""
    body = (
        "c1 = Gemm <transB: int = 1> (x, w1, b1)\n"
        + build.stair("c1", "a1")
        + "c2 = MatMul (a1, w2)\ns2 = Add (c2, b2)\n"
        + build.stair("s2", "a2")
        + "y = Gemm (a2, w3)"
    )
    weights = {"w1": (8, 6), "b1": (8,), "w2": (8, 7), "b2": (7,), "w3": (7, 5)}
    return network(body, weights, inputs="float[N,6] x")


def analog_skip() -> Snn:
    """A tensor that is constant over time joins the sums of two later layers."""
    body = (
        FIRST
        + f"c2 = Conv {CONV} (a1, w2)\ns2 = Add (c2, c1)\n"
        + build.stair("s2", "a2")
        + f"c3 = Conv {CONV} (a2, w3)\ns3 = Add (s2, c3)\n"
        + build.stair("s3", "last")
        + HEAD
    )
    return network(body, {**SHAPES, "w3": (4, 4, 3, 3)})


NETWORKS: dict[str, Callable[[], Snn]] = {
    f.__name__: f
    for f in (
        residual,
        concat,
        analog_concat,
        shared_sum,
        shared_current,
        encoded_input,
        max_pool,
        depthwise,
        per_channel,
        offset,
        mlp,
        analog_skip,
    )
}


def samples(snn: Snn, count: int) -> dict[str, np.ndarray]:
    """Inputs [count, ...] for a network of this module."""
    rank = len(snn.graph.inputs[0].shape)
    return {"x": build.images(count, (6,) if rank == 2 else (3, 8, 8))}
