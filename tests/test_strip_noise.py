from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes.strip_noise import strip_noise

from .build import graph
from .same import ops

ROW = {"inputs": "float[N,6] x", "outputs": "float[N,C] y"}
NUMBERS = {"half": 0.5, "two": 2.0, "low": 0.0, "high": 3.0, "six": np.ones(6, np.float32)}
NUMBERS["square"] = np.eye(6, dtype=np.float32)
QUANTISER = "c = Clip (v, low, high)\n r = Round (c)\n y = Mul (r, half)"

ZERO_MEAN = {
    "uniform": "u = RandomUniformLike <low = -0.5, high = 0.5> (x)\n v = Add (x, u)",
    "shifted": "r0 = RandomUniformLike (x)\n u = Sub (r0, half)\n v = Add (u, x)",
    "scaled": (
        "r0 = RandomUniform <shape = [1, 6]> ()\n r1 = Sub (half, r0)\n r2 = Mul (two, r1)\n"
        " r3 = Neg (r2)\n u = Div (r3, two)\n v = Add (x, u)"
    ),
    "cast": (
        "r0 = RandomUniformLike <low = -0.5, high = 0.5> (x)\n r1 = Cast <to = 11> (r0)\n"
        " u = Cast <to = 1> (r1)\n v = Add (x, u)"
    ),
    "normal": "u = RandomNormalLike <scale = 0.3> (x)\n v = Sub (x, u)",
    "normal with a shape": "u = RandomNormal <shape = [1, 6]> ()\n v = Add (x, u)",
}


@pytest.mark.parametrize("case", ZERO_MEAN)
def test_noise_before_a_rounding_is_removed(case: str) -> None:
    net, _ = graph(f"{ZERO_MEAN[case]}\n {QUANTISER}", NUMBERS, **ROW)
    changed, notes, refused = strip_noise(net)
    assert (ops(net), changed, refused) == (["Clip", "Round", "Mul"], 1, ())
    assert net.nodes[0].inputs[0].name == "x"
    assert "training noise of mean zero removed" in notes[0]


ROUNDINGS = {
    "cast": "i = Cast <to = 7> (v)\n y = Cast <to = 1> (i)",
    "quantise": "q = QuantizeLinear (v, half)\n y = DequantizeLinear (q, half)",
    "straight through": "r = Round (v)\n d = Sub (r, v)\n y = Add (v, d)",
}


@pytest.mark.parametrize("case", ROUNDINGS)
def test_other_roundings(case: str) -> None:
    net, _ = graph(f"{ZERO_MEAN['uniform']}\n {ROUNDINGS[case]}", NUMBERS, **ROW)
    assert strip_noise(net)[2] == ()


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13])
def test_a_cast_to_an_integer_type_rounds(kind: int) -> None:
    body = f"{ZERO_MEAN['uniform']}\n i = Cast <to = {kind}> (v)\n y = Cast <to = 1> (i)"
    net, _ = graph(body, NUMBERS, **ROW)
    assert (strip_noise(net)[2] == ()) is (kind not in (1, 10, 11))


MEANS = {
    "u = RandomUniformLike (x)": 0.5,
    "u = RandomUniform <shape = [1, 6], low = 2.0, high = 5.0> ()": 3.5,
    "u = RandomUniformLike <low = 2.0> (x)": 1.5,
    "u = RandomNormalLike <mean = 0.25> (x)": 0.25,
    "u = RandomNormal <shape = [1, 6], mean = -3.0, scale = 0.1> ()": -3,
    "r = RandomNormalLike (x)\n u = Add (r, half)": 0.5,
    "r = RandomNormalLike (x)\n u = Sub (r, half)": -0.5,
    "r = RandomNormalLike (x)\n u = Sub (half, r)": 0.5,
    "r = RandomUniformLike (x)\n u = Mul (r, six_times)": 3,
    "r = RandomUniformLike (x)\n u = Div (r, two)": 0.25,
    "r = RandomUniformLike (x)\n u = Neg (r)": -0.5,
    "r = RandomUniformLike (x)\n q = Cast <to = 11> (r)\n u = Cast <to = 1> (q)": 0.5,
}


@pytest.mark.parametrize("made", MEANS)
def test_the_mean_of_refused_noise_is_told(made: str) -> None:
    body = f"{made}\n v = Add (x, u)\n k = Clip (v, low, high)\n y = Round (k)"
    net, _ = graph(body, {**NUMBERS, "six_times": 6.0}, **ROW)
    (refusal,) = strip_noise(net)[2]
    assert refusal.reason.endswith(f"but {MEANS[made]:g}")


WIDTHS = {
    "u = RandomNormalLike <mean = {}> (x)": 1.0,
    "u = RandomNormal <shape = [1, 6], mean = {}, scale = 100.0> ()": 100.0,
    "r = RandomNormalLike <scale = 0.01> (x)\n q = Mul (r, far)\n u = Add (q, shift)": 10.0,
    "r = RandomNormalLike (x)\n q = Div (r, near)\n u = Add (q, shift)": 1000.0,
    "r = RandomUniformLike <low = -600.0, high = 600.0> (x)\n u = Add (r, shift)": 1200 / 12**0.5,
    "r = RandomNormalLike (x)\n q = Neg (r)\n t = Sub (shift, q)\n u = Cast <to = 1> (t)": 1.0,
}


@pytest.mark.parametrize("made", WIDTHS)
@pytest.mark.parametrize("share", [0.98, 1.02])
def test_a_mean_that_is_small_beside_the_noise_is_rounding(made: str, share: float) -> None:
    """A millionth of the standard deviation."""
    mean = share * 1e-6 * WIDTHS[made]
    body = f"{made.format(f'{mean:.15f}')}\n v = Add (x, u)\n y = Round (v)"
    weights = {"far": -1000.0, "near": -0.001, "shift": mean}
    net, _ = graph(body, {k: v for k, v in weights.items() if k in body}, **ROW)
    assert (strip_noise(net)[2] == ()) is (share < 1)


REFUSED = {
    "mean is not zero": f"u = RandomUniformLike (x)\n v = Add (x, u)\n {QUANTISER}",
    "no rounding follows": f"{ZERO_MEAN['uniform']}\n y = Clip (v, low, high)",
    "not simply added": f"u = RandomNormalLike (x)\n v = Mul (x, u)\n {QUANTISER}",
    "not simply added, but divided by zero first": (
        f"r0 = RandomNormalLike (x)\n u = Div (r0, low)\n v = Add (x, u)\n {QUANTISER}"
    ),
    "not simply added, but divides a number": (
        f"r0 = RandomNormalLike (x)\n u = Div (half, r0)\n v = Add (x, u)\n {QUANTISER}"
    ),
    "not simply added, but scaled by a vector": (
        f"r0 = RandomNormalLike (x)\n u = Mul (r0, six)\n v = Add (x, u)\n {QUANTISER}"
    ),
    "no rounding follows, before weights": (
        f"{ZERO_MEAN['uniform']}\n w = MatMul (v, square)\n y = Round (w)"
    ),
    "is subtracted": f"u = RandomNormalLike (x)\n v = Sub (u, x)\n {QUANTISER}",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_noise_is_refused(reason: str) -> None:
    net, _ = graph(REFUSED[reason], NUMBERS, **ROW)
    changed, _, (refusal,) = strip_noise(net)
    assert changed == 0
    assert reason.partition(",")[0] in refusal.reason
    assert "eval mode" in refusal.remedy


def test_bernoulli_is_refused() -> None:
    net, _ = graph("s = Sigmoid (x)\n y = Bernoulli (s)", **ROW)
    assert [r.op for r in strip_noise(net)[2]] == ["Bernoulli"]


def test_noise_that_nothing_reads_is_no_matter() -> None:
    net, _ = graph("u = RandomUniformLike (x)\n y = Relu (x)", **ROW)
    assert strip_noise(net) == (0, (), ())
    assert ops(net) == ["Relu"]


def test_dropout_in_training_mode_passes_its_input_on() -> None:
    weights = {"ratio": 0.1, "on": np.array(True)}
    net, _ = graph("d = Dropout (x, ratio, on)\n y = Relu (d)", weights, **ROW)
    _, notes, refused = strip_noise(net)
    assert "as in evaluation" in notes[0]
    assert refused == ()
    assert [(node.op, len(node.inputs)) for node in net.nodes] == [("Dropout", 1), ("Relu", 1)]


@pytest.mark.parametrize(("training", "changed"), [("on", 1), ("computed", 1), ("off", 0)])
def test_dropout_counts_where_it_may_be_in_training(training: str, changed: int) -> None:
    weights = {"ratio": 0.1, "on": np.array(True), "off": np.array(False), "zero": 0.0}
    body = (
        "m = ReduceMax <keepdims = 0> (x)\n computed = Greater (m, zero)\n"
        f" d = Dropout (x, ratio, {training})\n y = Relu (d)"
    )
    net, _ = graph(body, weights, **ROW)
    assert strip_noise(net)[0] == changed


@pytest.mark.parametrize("inputs", ["x", "x, ratio", "x, , "])
def test_dropout_that_says_nothing_of_training_stays(inputs: str) -> None:
    net, _ = graph(f"d = Dropout ({inputs})\n y = Relu (d)", {"ratio": 0.1}, **ROW)
    assert strip_noise(net) == (0, (), ())
