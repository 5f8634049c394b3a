"""Where activations are cut, shared and left out, in the less usual arrangements."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import find_activations

from na_convert import runtime
from na_convert.graph import import_graph
from na_convert.staircase_fit import MAX_LEVELS

from .build import model
from .test_find_activations import (
    LSQ,
    NUMBERS,
    SHAPE,
    STEP,
    check_equal,
    convert,
    images,
    qonnx_model,
    spelled,
)


def quantiser(root: str, output: str) -> str:
    """The staircase `LSQ` from ``root`` to ``output``."""
    names = {"x": root, "y": output, "u": f"{output}u", "c": f"{output}c", "r": f"{output}r"}
    words = LSQ.replace("(", "( ").replace(",", " ,").replace(")", " )").split(" ")
    return " ".join(names.get(word, word) for word in words)


def test_a_relu_of_what_is_turned_round() -> None:
    """Falling, and unbounded below: no ramp of x, but one of its negative."""
    before = spelled("v = Neg (x)\n y = Relu (v)")
    report, (node,), after = convert(before)
    assert report.refused == ()
    assert (node.op, node.inputs[0].name, node.outputs[0].name) == ("Ramp", "v", "y")
    check_equal(before, after, images(), 1.0)


def test_factors_and_terms_per_channel_alone_are_no_activation() -> None:
    channels = np.arange(1.0, 5.0, dtype=np.float32).reshape(4, 1, 1)
    report, ours, _ = convert(spelled("h = Mul (x, g)\n y = Add (h, g)", {"g": channels}))
    assert (report.changed, report.refused, ours) == (0, (), [])


def test_a_quantiser_of_levels_that_are_needed_elsewhere_is_dropped() -> None:
    body = quantiser("x", "q") + quantiser("q", "q2") + "p = GlobalMaxPool (q)\n y = Mul (q2, p)"
    before = spelled(body)
    report, (node,), after = convert(before)
    assert (node.inputs[0].name, node.outputs[0].name) == ("x", "q")
    assert report.notes == ("Mul_7: quantises 'q' once more without effect; dropped",)
    check_equal(before, after, images(), STEP)


def test_levels_are_followed_through_what_was_dropped() -> None:
    """The third quantiser works on maxima of the second's levels, which are the first's."""
    body = (
        quantiser("x", "q") + quantiser("q", "q2") + "g = GlobalMaxPool (q)\n"
        "m = MaxPool <kernel_shape: ints = [1, 1]> (q2)\n" + quantiser("m", "q3")
        + "y = Mul (q3, g)"
    )  # fmt: skip
    before = spelled(body)
    report, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    assert sum("once more without effect" in note for note in report.notes) == 2
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize("split", [True, False])
def test_a_relu_in_front_of_two_quantisers(split: bool) -> None:
    """Half of it could go anywhere: it stays. Read as a whole it has no effect, and goes."""
    parts = (
        "a, b = Split <axis: int = 1> (r, sizes)\n" if split
        else "a = MaxPool <kernel_shape: ints = [1, 1]> (r)\n b = GlobalMaxPool (r)\n"
    )  # fmt: skip
    body = "r = Relu (x)\n" + parts + quantiser("a", "qa") + quantiser("b", "qb")
    weights = {k: NUMBERS[k] for k in ("s", "zero", "top")}
    if split:
        weights["sizes"] = np.array([2, 2])
    rest = "float[N,2,3,3]" if split else SHAPE
    before = model(
        body + "y = Add (qa, qb)", weights, inputs=f"{SHAPE} x", outputs=f"{rest} y",
    )  # fmt: skip
    report, ours, after = convert(before)
    assert [n.op for n in ours].count("Ramp") == split
    assert [n.op for n in ours].count("Staircase") == 2
    assert any("no effect before the quantiser" in note for note in report.notes) != split
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize("other", ["s", "a"])
def test_equal_quantisers_of_one_tensor_are_shared(other: str) -> None:
    again = quantiser("x", "q2").replace(" s", f" {other}")
    before = spelled(quantiser("x", "q") + again + "p = GlobalMaxPool (q)\n y = Mul (q2, p)")
    report, ours, after = convert(before)
    assert len(ours) == (1 if other == "s" else 2)
    assert any("equal to Mul_3; shared" in note for note in report.notes) == (other == "s")
    check_equal(before, after, images(), STEP)


def test_a_cast_behind_a_step_of_one_stays_a_cast() -> None:
    """The levels are whole numbers already, but not of the type that indices need."""
    body = LSQ.replace("y =", "q =") + "i = Cast <to: int = 7> (q)\n y = Gather (rows, i)"
    rows = np.random.default_rng(0).random((8, 2), np.float32)
    before = model(
        body, {"s": 1.0, "zero": 0.0, "top": 7.0, "rows": rows},
        inputs="float[N,4] x", outputs="float[N,4,2] y",
    )  # fmt: skip
    report, (node,), after = convert(before)
    assert node.outputs[0].name == "q"
    assert report.notes == ()
    x = images(shape=(16, 4))
    np.testing.assert_array_equal(
        runtime.run(after, {"x": x})["y"], runtime.run(before, {"x": x})["y"]
    )


@pytest.mark.parametrize("bits", [16, 19, 20, 22, 30])
def test_levels_as_fine_as_a_clip_are_refused(bits: int) -> None:
    attributes = {"rounding_mode": "ROUND", "signed": 0, "narrow": 0}
    proto = qonnx_model("Quant", "qonnx.custom_op.general", **attributes)
    wide = onnx.numpy_helper.from_array(np.array(bits, np.float32), "bits")
    next(t for t in proto.graph.initializer if t.name == "bits").CopyFrom(wide)
    report = find_activations.run(import_graph(proto)[0])
    if bits < 20:
        assert (report.changed, report.refused) == (1, ())
        return
    (refusal,) = report.refused
    assert (report.changed, refusal.op) == (0, "Quant")
    if bits < 30:
        assert refusal.reason == f"has {2**bits - 1} levels; at most {MAX_LEVELS} make sense"
        return
    assert refusal.reason == "Quant makes levels so fine that they look like a clip"
    assert refusal.remedy == f"a quantiser with at most {MAX_LEVELS} levels can be converted"


def test_a_clip_between_factors_per_channel_is_alike_in_all_channels() -> None:
    gains = np.array([2.0, 0.5, 1.0, 3.0], np.float32).reshape(4, 1, 1)
    before = spelled("v = Mul (x, g)\n c = Clip (v, zero, top)\n y = Mul (c, g)", {"g": gains})
    _, (node,), after = convert(before)
    assert (node.op, node.inputs[0].name, node.outputs[0].name) == ("Ramp", "v", "c")
    assert [float(t.values) for t in node.inputs[1:]] == [0, 7, 0, 1]
    check_equal(before, after, images(), 1.0)


@pytest.mark.parametrize(("fine", "kept"), [(STEP, True), (0.5 * STEP, True), (0.7 * STEP, False)])
def test_one_quantiser_behind_steps_per_channel(fine: float, kept: bool) -> None:
    """It changes nothing where every channel's levels are among its own."""
    steps = (STEP * np.array([1, 2, 1, 3], np.float32)).reshape(4, 1, 1)
    again = quantiser("m", "y").replace(" s", " fine").replace(" top", " most")
    body = quantiser("x", "q") + "m = MaxPool <kernel_shape: ints = [1, 1]> (q)\n" + again
    before = spelled(body, {"s": steps, "fine": np.float32(fine), "most": np.float32(63)})
    report, ours, after = convert(before)
    assert len(ours) == 2 - kept
    assert any("without effect" in note for note in report.notes) == kept
    check_equal(before, after, images(), STEP)


def test_a_relu_in_front_of_a_clip_is_kept() -> None:
    body = "r = Relu (x)\n m = MaxPool <kernel_shape: ints = [1, 1]> (r)\n y = Clip (m, zero, one)"
    _, ours, _ = convert(spelled(body))
    assert [n.op for n in ours] == ["Ramp", "Ramp"]


def test_what_is_smooth_behind_levels_is_refused_and_they_stay() -> None:
    body = quantiser("x", "q") + "h = HardSwish (q)\n p = GlobalMaxPool (q)\n y = Mul (h, p)"
    report, (node,), _ = convert(spelled(body))
    assert node.outputs[0].name == "q"
    assert [(r.op, "smooth" in r.reason) for r in report.refused] == [("HardSwish", True)]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("perm", ["", "<perm: ints = [0, 2, 3, 1]>"])
def test_a_transpose_inside_moves_in_front(perm: str, per_channel: bool) -> None:
    body = f"r = Relu (x)\n t = Transpose {perm} (r)\n" + quantiser("t", "y")
    steps = np.linspace(0.2, 0.5, 4, dtype=np.float32) if per_channel else np.float32(STEP)
    if per_channel and not perm:
        steps = steps.reshape(4, 1)  # the axes are turned round: batch last
    shape = "float[A,B,C,D]"
    weights = {"s": steps, "zero": 0.0, "top": 7.0}
    before = model(body, weights, inputs=f"{SHAPE} x", outputs=f"{shape} y")
    report, ours, after = convert(before)
    if perm:
        (node,) = ours
        assert (node.op, node.outputs[0].name, report.refused) == ("Staircase", "y", ())
        assert np.size(node.inputs[1].values) == (4 if per_channel else 1)
    check_equal(before, after, images(), STEP)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("op", ["ArgMin", "ArgMax"])
def test_the_nearest_of_equal_distances(op: str, last: int) -> None:
    """Two entries of the table are the same: the first or the last of them is the nearest."""
    attributes = f"axis: int = -1, keepdims: int = 0, select_last_index: int = {last}"
    nearness = "n = Identity (e)" if op == "ArgMin" else "n = Neg (e)"
    body = f"""
        w = Unsqueeze (x, last)
        d = Sub (w, places)
        e = Abs (d)
        {nearness}
        i = {op} <{attributes}> (n)
        y = Gather <axis: int = 0> (book, i)
    """
    weights = {
        "places": np.array([0, 0, 1, 2], np.float32), "last": np.array([-1]),
        "book": np.array([0, 1, 2, 3], np.float32),
    }  # fmt: skip
    before = spelled(body, weights)
    _, ours, after = convert(before)
    if last:
        (node,) = ours
        assert (node.op, node.attrs["levels"], float(node.inputs[3].values)) == ("Staircase", 2, 1)
    else:
        assert ours == []  # 0, 2, 3: not evenly spaced
    check_equal(before, after, images(), 1.0)
