"""A constant on the current of one layer of neurons, and on nothing else: each place it can go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from na_convert.passes.add_bias import add_to_current

from na_convert import graph as g
from na_convert.evaluate import evaluate
from na_convert.snn import Snn, neuron_nodes

from . import build, spiking

DENSE = spiking.FIRST + "a0 = MaxPool <kernel_shape: ints = [8,8]> (a1)\nf1 = Flatten (a0)\n"
VECTOR = np.linspace(-0.3, 0.5, 4, dtype=np.float32)

# The layer's current is z; whether an Add has to come in front of its neurons.
LAYERS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "Conv": ("z = Conv (a1, w2, b2)", {}, False),
    "Conv without bias": ("z = Conv (a1, w2)", {}, False),
    "Conv whose bias is computed": (
        "mean = ReduceMean <axes: ints = [0,2,3], keepdims: int = 0> (c1)\nz = Conv (a1, w2, mean)",
        {}, True),
    "ConvTranspose": ("z = ConvTranspose (a1, w2, b2)", {}, False),
    "Add of a vector": ("u = Conv (a1, w2)\nz = Add (u, column)", {}, False),
    "Add of a number, first": ("u = Conv (a1, w2)\nz = Add (half, u)", {}, False),
    "Add of a map": ("u = Conv (a1, w2)\nz = Add (u, map)", {}, True),
    "Add of two currents": ("u = Conv (a1, w2)\nz = Add (u, a1)", {}, True),
    "Sub": ("u = Conv (a1, w2)\nz = Sub (u, column)", {}, True),
    "neurons": ("z = Identity (a1)", {}, True),
    "Gemm with beta": ("z = Gemm <alpha: float = 0.5, beta: float = 2.0> (f1, w3, b2)", {}, False),
    "Gemm without beta": ("z = Gemm <beta: float = 0.0> (f1, w3, b2)", {}, True),
    "Gemm with one number": ("z = Gemm (f1, w3, one)", {"one": np.float32([0.2])}, False),
    "Gemm with a row": ("z = Gemm (f1, w3, row)", {"row": VECTOR[None]}, False),
    "MatMul": ("z = MatMul (f1, w3)", {}, True),
    "MatMul and a row": ("u = MatMul (f1, w3)\nz = Add (u, row)", {"row": VECTOR[None]}, False),
}  # fmt: skip


def network(name: str) -> Snn:
    layer, weights, _ = LAYERS[name]
    dense = "f1" in layer
    body = f"{DENSE if dense else spiking.FIRST}{layer}\n{build.stair('z', 'last')}"
    common = {
        **spiking.SHAPES, "w2": (4, 4, 1, 1), "w3": (4, 4), "b2": VECTOR,
        "column": VECTOR.reshape(4, 1, 1), "map": np.ones((8, 8), np.float32),
    }  # fmt: skip
    head = "y = MatMul (last, w3)" if dense else spiking.HEAD
    return spiking.network(body + head, {**common, **weights})


@pytest.mark.parametrize("name", LAYERS)
def test_only_that_current_moves_and_by_what_is_told(name: str) -> None:
    snn = network(name)
    graph = snn.graph.copy()
    neurons = neuron_nodes(graph)[-1]
    shape = (4,) if "f1" in LAYERS[name][0] else (4, 1, 1)
    shift = np.linspace(0.1, 0.7, 4).reshape(shape) / 3
    stored = {t.name: t.values.copy() for t in snn.graph.tensors().values() if g.is_constant(t)}
    count = len(graph.nodes)
    kind = np.dtype(np.float32)
    added = add_to_current(graph, neurons, shift, kind, g.Names(graph))
    graph.toposort()
    assert added.shape == shift.shape
    np.testing.assert_allclose(added, shift, atol=1e-7)
    spikes = np.random.default_rng(0).integers(0, 2, (2, 4, 8, 8))
    feeds = {"a1": spikes * 1.2, "c1": build.images(2, (4, 8, 8))}
    (before,) = evaluate(snn.graph, feeds, ["z"]).values()
    (after,) = evaluate(graph, feeds, [neurons.inputs[0].name]).values()
    np.testing.assert_allclose(after - before, np.broadcast_to(added, before.shape), atol=1e-12)
    assert len(graph.nodes) - count == LAYERS[name][2]
    kept = graph.tensors()
    for constant in (t for t in kept.values() if g.is_constant(t) and t.name in stored):
        np.testing.assert_array_equal(constant.values, stored[constant.name])


def test_a_current_with_another_reader_stays_for_it() -> None:
    body = f"{spiking.FIRST}z = Conv (a1, w2, b2)\n{build.stair('z', 'a2')}last = Add (a2, z)\n"
    weights = {**spiking.SHAPES, "w2": (4, 4, 1, 1), "b2": VECTOR}
    graph = spiking.network(body + spiking.HEAD, weights).graph
    neurons = neuron_nodes(graph)[-1]
    add_to_current(graph, neurons, np.ones((4, 1, 1)), np.dtype(np.float32), g.Names(graph))
    graph.toposort()
    feeds = {"a1": np.ones((1, 4, 8, 8))}
    found = evaluate(graph, feeds, ["z", neurons.inputs[0].name])
    np.testing.assert_allclose(found[neurons.inputs[0].name] - found["z"], 1, atol=1e-6)
