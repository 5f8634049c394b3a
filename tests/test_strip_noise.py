from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes.strip_noise import strip_noise

from .build import graph
from .same import ops

ROW = {"inputs": "float[N,6] x", "outputs": "float[N,C] y"}
NUMBERS = {"half": 0.5, "two": 2.0, "low": 0.0, "high": 3.0, "six": np.ones(6, np.float32)}
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
