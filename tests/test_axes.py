"""Axes inside an activation: ladders and tables along an axis of their own, and what is no such."""

from __future__ import annotations

import re

import numpy as np
import pytest

from na_convert import runtime

from .build import model
from .test_find_activations import LSQ, SHAPE, STEP, check_equal, convert, images, spelled

LAST = {"last": np.array([-1])}
LADDER = np.arange(0.5, 4).astype(np.float32) * np.float32(STEP)
JUMPS = """
    g0 = Greater (x, half)
    f0 = Cast <to: int = 1> (g0)
    g1 = Greater (x, high)
    f1 = Cast <to: int = 1> (g1)
"""


@pytest.mark.parametrize("reduce", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
def test_a_ladder_that_is_reduced(reduce: str) -> None:
    """Of four comparisons the sum counts, the mean counts quarters, the others pick one."""
    axes = "<keepdims: int = 0> (f, last)" if reduce == "ReduceSum" else (
        "<axes: ints = [-1], keepdims: int = 0> (f)"
    )  # fmt: skip
    body = f"""
        w = Unsqueeze (x, last)
        g = GreaterOrEqual (w, ladder)
        f = Cast <to: int = 1> (g)
        y = {reduce} {axes}
    """
    before = spelled(body, {"ladder": LADDER, **LAST})
    report, (node,), after = convert(before)
    assert report.refused == ()
    levels, step = {"ReduceSum": (4, 1), "ReduceMean": (4, 0.25)}.get(reduce, (1, 1))
    assert (node.inputs[0].name, node.attrs["levels"]) == ("x", levels)
    assert float(node.inputs[2].values) == step
    check_equal(before, after, images(), 0.1)


@pytest.mark.parametrize("keep", [0, 1])
def test_stacked_comparisons_are_a_ladder(keep: int) -> None:
    body = (
        JUMPS
        + f"""
        u0 = Unsqueeze (f0, last)
        u1 = Unsqueeze (f1, last)
        c = Concat <axis: int = -1> (u0, u1)
        n = ReduceSum <keepdims: int = {keep}> (c, last)
        {"m = Squeeze (n, last)" if keep else "m = Identity (n)"}
        y = Mul (m, s)
    """
    )
    before = spelled(body, {"high": 1.5, **LAST})
    report, (node,), after = convert(before)
    assert report.refused == ()
    assert (node.inputs[0].name, node.outputs[0].name) == ("x", "y")
    assert node.attrs["levels"] == 2
    check_equal(before, after, images(), STEP)


def test_a_codebook_read_by_rows_of_indices() -> None:
    body = LSQ.replace("y = Mul (r, s)", """
        i = Cast <to: int = 7> (r)
        j = Unsqueeze (i, last)
        y = GatherND (book, j)
    """)  # fmt: skip
    book = np.arange(8).astype(np.float32) * np.float32(0.5)
    before = spelled(body, {"book": book, **LAST})
    _, (node,), after = convert(before)
    assert (node.inputs[0].name, node.outputs[0].name, node.attrs["levels"]) == ("x", "y", 7)
    assert float(node.inputs[2].values) == 0.5
    check_equal(before, after, images(), 0.5)


def test_indices_that_are_no_rows_read_no_codebook() -> None:
    """Rows of three numbers are three indices each; one staircase cannot stand for a look-up."""
    body = LSQ.replace("y =", "q =") + "i = Cast <to: int = 7> (q)\n y = GatherND (table, i)"
    table = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    weights = {"s": 1.0, "zero": 0.0, "top": 7.0, "table": table}
    before = model(body, weights, inputs="float[N,4,3] x", outputs="float[N,4] y")
    _, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    check_equal(before, after, images(shape=(16, 4, 3)), 1.0)


def test_more_than_a_million_steps_are_not_followed() -> None:
    count = (1 << 20) + 1
    steps = np.linspace(0.3, 0.4, count).astype(np.float32)
    proto = model(
        LSQ, {"s": steps, "zero": 0.0, "top": 7.0},
        inputs=f"float[2,{count}] x", outputs=f"float[2,{count}] y",
    )  # fmt: skip
    _, (node,), _ = convert(proto)
    assert (node.inputs[0].name, node.outputs[0].name) == ("u", "r")


@pytest.mark.parametrize("known", [True, False])
def test_a_step_per_channel_needs_a_known_rank(known: bool) -> None:
    """Where the rank is not known, nobody can say which axis is the second."""
    body = """
        r = Reshape (x, target)
        q = QuantizeLinear <axis: int = 1> (r, scales, z)
        y = DequantizeLinear <axis: int = 1> (q, scales, z)
    """
    weights = {
        "scales": np.array([0.02, 0.5, 1.0, 3.0], np.float32), "z": np.zeros(4, np.uint8)
    }  # fmt: skip
    inputs = "float[N,4,9] x"
    if known:
        weights["target"] = np.array([0, 4, 3, 3])
    else:
        inputs += ", int64[K] target"
    _, ours, _ = convert(model(body, weights, inputs=inputs, outputs="float[A,B,C,D] y"))
    assert [n.inputs[0].name for n in ours] == ["r"] * known


LADDERS_OF = {  # what reads "r", by the axis it names
    "last": "w = Unsqueeze (r, last)\n g = Greater (w, ladder)\n f = Cast <to: int = 1> (g)\n"
    "y = ReduceSum <keepdims: int = 0> (f, last)",
    "second": "w = Unsqueeze (r, second)\n g = Greater (w, ladder)\n f = Cast <to: int = 1> (g)\n"
    "y = ReduceSum <keepdims: int = 0> (f, last)",
    "third from the end": "w = Unsqueeze (r, third)\n g = Greater (w, ladder)\n"
    "f = Cast <to: int = 1> (g)\n y = ReduceSum <keepdims: int = 0> (f, last)",
    "sum of the second": "w = Unsqueeze (r, last)\n g = Greater (w, ladder)\n"
    "f = Cast <to: int = 1> (g)\n y = ReduceSum <keepdims: int = 0> (f, second)",
}


@pytest.mark.parametrize("case", LADDERS_OF)
def test_a_ladder_behind_an_unknown_rank_has_to_count_from_the_end(case: str) -> None:
    weights = {
        "ladder": LADDER, "second": np.array([1]), "third": np.array([-3]), **LAST
    }  # fmt: skip
    used = {k: v for k, v in weights.items() if k in LADDERS_OF[case]}
    before = model(
        "r = Reshape (x, target)\n" + LADDERS_OF[case], used,
        inputs="float[2,4,4] x, int64[K] target", outputs="float[A,B,C] y",
    )  # fmt: skip
    _, ours, after = convert(before)
    assert [n.inputs[0].name for n in ours] == ["r"] * (case == "last")
    feeds = {"x": images(shape=(2, 4, 4)), "target": np.array([2, 4, 4])}
    y, z = (runtime.run(proto, feeds)["y"] for proto in (before, after))
    np.testing.assert_array_equal(y, z)


NO_LADDER = {
    "joined along channels": ("c = Concat <axis: int = 1> (f0, f1)", "float[N,8,3,3] y"),
    "joined with a constant": (
        "u = Unsqueeze (f0, last)\n c = Concat <axis: int = -1> (u, ones)",
        "float[2,4,3,3,2] y",
    ),
    "joined behind a constant": (
        "u = Unsqueeze (f0, last)\n c = Concat <axis: int = -1> (ones, u)",
        "float[2,4,3,3,2] y",
    ),
    "joined with itself on another side": (
        "u0 = Unsqueeze (f0, last)\n u1 = Unsqueeze (f1, last)\n"
        "v1 = Mul (u1, channels)\n c = Concat <axis: int = -1> (u0, v1)",
        "float[N,4,3,3,2] y",
    ),
}


@pytest.mark.parametrize("case", NO_LADDER)
def test_what_is_joined_and_is_no_ladder_keeps_its_parts(case: str) -> None:
    """Each comparison is an activation of its own, and the rest stays what it was."""
    join, shape = NO_LADDER[case]
    weights = {
        "half": 0.5, "high": 1.5, "ones": np.ones((2, 4, 3, 3, 1), np.float32), **LAST,
        "channels": np.arange(1, 5).reshape(4, 1, 1, 1).astype(np.float32),
    }  # fmt: skip
    body = JUMPS + join + "\n y = Mul (c, half)"
    used = {k: v for k, v in weights.items() if k in body}
    before = model(body, used, inputs="float[2,4,3,3] x", outputs=shape)
    report, ours, after = convert(before)
    assert report.refused == ()
    assert {n.attrs["levels"] for n in ours} == {1}
    check_equal(before, after, images(shape=(2, 4, 3, 3)), 1.0)


BEHIND = {
    "sum over an axis of the image": ("y = ReduceSum (q, last)", "2,4,3,1"),
    "sum over everything": ("y = ReduceSum (q)", "1,1,1,1"),
    "sum over a computed axis": ("i = Cast <to: int = 7> (one)\n y = ReduceSum (q, i)", "2,1,3,3"),
    "new axis at a computed place": (
        "i = Cast <to: int = 7> (one)\n y = Unsqueeze (q, i)", "2,1,4,3,3"
    ),
    "squeezed batch of one": ("y = Squeeze (q, first)", "4,3,3"),
    "squeezed, axes unsaid": ("p = GlobalMaxPool (q)\n v = Relu (p)\n y = Squeeze (v)", "2,4"),
    "rows of a table": ("i = Cast <to: int = 7> (q)\n y = Gather (rows, i)", "2,4,3,3,2"),
    "factor per pixel": ("y = Mul (q, pixels)", "2,4,3,3"),
    "factor per element of a vector": ("f = Flatten (q)\n y = Mul (f, vector)", "2,36"),
    "factor per sample": ("y = Mul (q, samples)", "2,4,3,3"),
    "factor per value of another layout": (
        "t = Transpose <perm: ints = [0, 2, 3, 1]> (q)\n a = Mul (q, s)\n y = Add (a, t)",
        "2,4,4,4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEHIND)
def test_an_activation_ends_where_elements_meet_or_differ(case: str) -> None:
    rest, shape = BEHIND[case]
    rng = np.random.default_rng(0)
    weights = {
        **LAST, "s": STEP, "zero": 0.0, "top": 7.0, "one": np.ones(1, np.float32),
        "first": np.array([0]),
        "rows": rng.random((8, 2), np.float32), "pixels": rng.random((3, 3), np.float32),
        "vector": rng.random(36, np.float32), "samples": rng.random((2, 1, 1, 1), np.float32),
    }  # fmt: skip
    body = LSQ.replace("y =", "q =") + rest
    used = {k: v for k, v in weights.items() if re.search(rf"[(,] ?{k}[,)]", body)}
    size = "4,4" if "Transpose" in rest else "3,3"
    batch = 1 if "first" in rest else 2
    before = model(body, used, inputs=f"float[{batch},4,{size}] x", outputs=f"float[{shape}] y")
    _, ours, after = convert(before)
    assert ("Staircase", "x", "q") in [(n.op, n.inputs[0].name, n.outputs[0].name) for n in ours]
    x = images(shape=(batch, 4, *(int(n) for n in size.split(","))))
    np.testing.assert_allclose(
        runtime.run(after, {"x": x})["y"], runtime.run(before, {"x": x})["y"], rtol=1e-5, atol=1e-6
    )


def test_a_ladder_that_nobody_adds_up_is_no_activation() -> None:
    """Several values of each number: a staircase has one."""
    body = "w = Unsqueeze (x, last)\n g = GreaterOrEqual (w, ladder)\n y = Cast <to: int = 1> (g)"
    before = model(
        body, {"ladder": LADDER, **LAST}, inputs=f"{SHAPE} x", outputs="float[N,4,3,3,4] y"
    )
    report, ours, after = convert(before)
    assert (ours, report.refused) == ([], ())
    check_equal(before, after, images(), 1.0)


@pytest.mark.parametrize("target", ["flatten", "constant", "computed"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_reshape_in_the_middle(target: str, per_channel: bool) -> None:
    """Behind it nobody knows which element is of which channel; without channels it moves."""
    reshape = {
        "flatten": "f = Flatten (u)",
        "constant": "f = Reshape (u, flat)",
        "computed": "n = Shape <start: int = 0, end: int = 1> (x)\n"
        "to = Concat <axis: int = 0> (n, last)\n f = Reshape (u, to)",
    }[target]
    body = f"""
        p = Relu (x)
        u = Div (p, steps)
        {reshape}
        c = Clip (f, zero, top)
        r = Round (c)
        y = Mul (r, s)
    """
    steps = np.array([0.2, 0.3, 0.4, 0.5], np.float32).reshape(4, 1, 1)
    weights = {
        "steps": steps if per_channel else np.float32(STEP), "s": STEP, "zero": 0.0, "top": 7.0,
        "flat": np.array([0, 36]), **LAST,
    }  # fmt: skip
    used = {k: v for k, v in weights.items() if re.search(rf"\b{k}\b", body)}
    before = model(body, used, inputs=f"{SHAPE} x", outputs="float[N,36] y")
    report, ours, after = convert(before)
    assert report.refused == ()
    (stairs,) = [n for n in ours if n.op == "Staircase"]
    assert (stairs.outputs[0].name, stairs.attrs["levels"]) == ("y", 7)
    root = stairs.inputs[0].name
    assert root == "f" if per_channel else root not in ("f", "u")
    check_equal(before, after, images(), STEP)
