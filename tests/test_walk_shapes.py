"""Shapes by trial are those that the engine makes at the same sizes, and what is computed from
shapes is known by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes.walk_shapes import (
    Trial,
    batch_axis,
    has_open_sizes,
    infer_types,
    ranks,
    walk,
)

from na_convert import runtime
from na_convert.graph import import_graph

from .build import graph, model

OPEN = {"inputs": "float[batch,3,height,width] x", "outputs": "float[batch] y"}
TRIALS = [Trial(2, 16), Trial(5, 16), Trial(2, 24)]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "convolutions": (
        "c = Conv <strides = [2,2]> (x, w)\n y = Concat <axis = 1> (c, c)", {"w": (4, 3, 3, 3)}),
    "part of a shape": (
        "a = Shape <start = 1> (x)\n b = Shape <start = 1, end = 3> (x)\n"
        "c = Shape <end = -1> (x)\n d = Shape (x)\n y = Concat <axis = 0> (a, b, c, d)", {}),
    "a number of elements": ("a = Size (x)\n y = Add (a, one)", {"one": ints(1)}),
    "an input left out": (
        'y = Resize <mode = "nearest"> (x, , scales)', {"scales": np.float32([1, 1, 2, 3])}),
    "a reshape to a computed shape": (
        "a = Shape <end = 1> (x)\n t = Concat <axis = 0> (a, rest)\n y = Reshape (x, t)",
        {"rest": ints(-1, 3)}),
    "outputs left out": ("y, = Dropout (x)", {}),
    "a part of each": ("a, y = Split <axis = 1> (x, parts)", {"parts": ints(1, 2)}),
    "an expand": (
        "s = Shape (x)\n t = Concat <axis = 0> (two, s)\n y = Expand (x, t)", {"two": ints(2)}),
    "zeros": ("s = Shape <end = 2> (x)\n y = ConstantOfShape (s)", {}),
    "small numbers": (
        "s = Shape <end = 1> (x)\n q = Squeeze (s)\n y = Range (zero, q, one)",
        {"zero": np.array(0), "one": np.array(1)}),
    "tiles": (
        "s = Shape <start = 0, end = 2> (x)\n k = Tile (s, s3)\n y = Neg (k)", {"s3": ints(3)}),
}  # fmt: skip
VALUES = {"part of a shape": True, "a number of elements": True, "zeros": True, "tiles": True}


def walked(name: str) -> tuple[gs.Graph, onnx.ModelProto, list[Trial]]:
    body, weights = BODIES[name]
    proto = model(body, weights, **OPEN)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].type.tensor_type.elem_type = _type_of_y(proto)
    net, _ = import_graph(proto)
    trials = [Trial(t.batch, t.size) for t in TRIALS]
    walk(net, trials)
    return net, proto, trials


def _type_of_y(proto: onnx.ModelProto) -> int:
    inferred = onnx.ModelProto()
    inferred.CopyFrom(proto)
    inferred.graph.output[0].type.Clear()
    found = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
    return found.graph.output[0].type.tensor_type.elem_type


def fed(proto: onnx.ModelProto, trial: Trial) -> np.ndarray:
    x = np.zeros((trial.batch, 3, trial.size, trial.size), np.float32)
    return runtime.run(proto, {"x": x})["y"]


@pytest.mark.parametrize("name", BODIES)
def test_shapes_are_those_that_the_engine_makes(name: str) -> None:
    _, proto, trials = walked(name)
    for trial in trials:
        made = fed(proto, trial)
        assert trial.shapes["y"] == made.shape
        if name in VALUES:
            assert np.array_equal(trial.values["y"], made)
            assert trial.values["y"].dtype == made.dtype


@pytest.mark.parametrize("name", BODIES)
def test_types_are_those_that_the_engine_makes(name: str) -> None:
    net, proto, _ = walked(name)
    for node in net.nodes:
        for tensor in node.outputs:
            tensor.dtype = None
    infer_types(net)
    made = fed(proto, TRIALS[0])
    assert np.dtype(net.outputs[0].dtype) == made.dtype
    assert ranks(net)["y"] == made.ndim


def test_types_that_are_known_stay() -> None:
    net, _ = graph("a = Neg (x)\n y = Neg (a)", **OPEN)
    net.nodes[0].outputs[0].dtype = np.dtype(np.float16)
    infer_types(net)
    assert net.nodes[0].outputs[0].dtype == np.float16


@pytest.mark.parametrize("size", [30, 40])
def test_large_values_are_not_followed(size: int) -> None:
    """An image of zeros says nothing about shapes: 900 of them are kept, 1600 are not."""
    body = "s = Shape <start = 2> (x)\n z = ConstantOfShape (s)\n y = Neg (z)"
    net, _ = graph(body, **OPEN)
    trial = Trial(2, size)
    walk(net, [trial])
    assert ("y" in trial.values) is (size == 30)
    assert trial.shapes["y"] == (size, size)


def test_ours_keep_the_shape_of_their_input_in_every_trial() -> None:
    body = "a = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n y = Flatten (a)"
    net, _ = graph(body, {"k": 1.0}, **OPEN)
    trials = [Trial(2, 8), Trial(5, 8)]
    walk(net, trials)
    assert [t.shapes["y"] for t in trials] == [(2, 192), (5, 192)]
    assert batch_axis(trials, net.outputs[0]) == 0


def test_the_batch_axis() -> None:
    tensor = gs.Variable("t")

    def axis(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> int | None:
        return batch_axis([Trial(2, shapes={"t": first}), Trial(5, shapes={"t": second})], tensor)

    assert axis((2, 3), (5, 3)) == 0
    assert axis((3, 2), (3, 5)) == 1
    assert axis((2, 2), (5, 5)) is None
    assert axis((2, 3), (2, 3)) is None
    assert axis((2, 3), (5,)) is None
    assert axis((2,), (5, 3)) is None
    assert axis((2, 3), None) is None
    assert axis(None, (5, 3)) is None


@pytest.mark.parametrize(
    ("inputs", "is_open"),
    [
        ("float[batch,3] x", False),
        ("float[batch,1] x", False),
        ("float[4,3,width] x", True),
        ("float[4,length,3] x", True),
        ("float[batch] x", False),
        ("float x", False),
    ],
)
def test_sizes_other_than_the_batch_that_are_open(inputs: str, is_open: bool) -> None:
    net, _ = graph("y = Neg (x)", inputs=inputs, outputs="float[N] y")
    assert has_open_sizes(net) is is_open


def test_inputs_of_a_trial() -> None:
    body = "y = Sum (x, z, k, u)"
    inputs = "float[4,1,width] x, float[batch,7] z, float u, float k"
    net, _ = graph(body, inputs=inputs, outputs="float[N] y")
    next(t for t in net.inputs if t.name == "u").shape = None
    trial = Trial(3, 9)
    walk(net, [trial])
    assert [trial.shapes[name] for name in "xzku"] == [(3, 1, 9), (3, 7), (), None]


def test_an_unknown_input_tells_nothing() -> None:
    net, _ = graph("s = Shape (x)\n n = Neg (x)\n y = Reshape (n, s)", **OPEN)
    net.inputs[0].shape = None
    trial = Trial(3)
    walk(net, [trial])
    assert not trial.values
    assert [s for s in trial.shapes.values() if s is not None] == []


def test_nodes_are_visited_before_and_after_they_are_inferred() -> None:
    net, _ = graph("a = Flatten (x)\n y = Neg (a)", **OPEN)
    trial, seen = Trial(2, 8), list[tuple[str, str, bool]]()

    def visit(when: str) -> Any:
        return lambda node: seen.append((when, node.op, node.outputs[0].name in trial.shapes))

    types = walk(net, [trial], visit("before"), visit("after"))
    assert seen == [
        ("before", "Flatten", False),
        ("after", "Flatten", True),
        ("before", "Neg", False),
        ("after", "Neg", True),
    ]
    assert types == dict.fromkeys(("x", "a", "y"), onnx.TensorProto.FLOAT)
