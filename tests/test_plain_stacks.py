from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes.plain_stacks import JOINED, plain_stacks

from .build import graph, model
from .same import ops, rewritten

SHAPES = {"inputs": "float[N,3,8,8] x", "outputs": "float[N,C,H,W] y"}
AXES = {"first": np.array([0]), "both": np.array([0, 2])}
STACK = (
    "a = Relu (x)\n b = Neg (x)\n u = Unsqueeze (a, first)\n v = Unsqueeze (b, first)\n"
    "s = Concat <axis = 0> (u, v, u)\n"
)


@pytest.mark.parametrize("reduced", JOINED)
def test_what_is_reduced_over_a_stack_is_joined_without_it(reduced: str) -> None:
    body = STACK + f"y = {reduced} <keepdims = 0> (s, first)"
    result = rewritten(model(body, AXES, **SHAPES, opset=18), plain_stacks)
    assert ops(result) == ["Relu", "Neg", JOINED[reduced]]


def test_a_stack_with_other_readers_is_still_made_for_them() -> None:
    outputs = SHAPES["outputs"] + ", float[S,N,C,H,W] s"
    body = STACK + "y = ReduceSum <keepdims = 0> (s, first)"
    net, _ = graph(body, AXES, inputs=SHAPES["inputs"], outputs=outputs, opset=18)
    assert plain_stacks(net) == 1
    assert sorted(ops(net)) == ["Concat", "Neg", "Relu", "Sum", "Unsqueeze", "Unsqueeze"]


@pytest.mark.parametrize(
    "reduced",
    [
        "y = ReduceSum <keepdims = 1> (s, first)",
        "y = ReduceSum (s, first)",
        "y = ReduceSum <keepdims = 0> (s)",
        "y = ReduceSum <keepdims = 0> (x, first)",
        "y = ReduceSum <keepdims = 0> (s, both)",
        "t = Concat <axis = 1> (u, v)\n y = ReduceSum <keepdims = 0> (t, first)",
        "t = Concat <axis = 0> (x, a)\n y = ReduceSum <keepdims = 0> (t, first)",
        "t = Unsqueeze (a, both)\n c = Concat <axis = 0> (t, t)\n"
        "y = ReduceSum <keepdims = 0> (c, first)",
        "t = Concat <axis = 0> (x, u)\n y = ReduceSum <keepdims = 0> (t, first)",
        "t = Identity (s)\n y = ReduceSum <keepdims = 0> (t, first)",
    ],
    ids=[
        "kept",
        "kept by default",
        "all axes",
        "no stack at all",
        "other axes",
        "joined elsewhere",
        "no stack",
        "other new axes",
        "an input beside a part",
        "another operator",
    ],
)
def test_other_reductions_stay(reduced: str) -> None:
    net, _ = graph(STACK + reduced, AXES, **SHAPES, opset=18)
    assert plain_stacks(net) == 0
    assert "ReduceSum" in ops(net)
