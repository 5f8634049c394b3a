"""What onnx.reference gets wrong does not fail a network that is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert

from . import build
from .build import quantised

FIRST = "z1 = Conv <pads = [1,1]> (x, w1)\n" + quantised("z1", "a1")
LAST = "z2 = Conv <pads = [1,1]> (between, w2)\n" + quantised("z2", "a2")
WEIGHTS = {
    "w1": (6, 3, 3),
    "w2": (6, 6, 3),
    "v": (6, 5),
    "flat": np.asarray([0, -1], np.int64),
    "pads": np.asarray([0, 0, -1, 0, 0, 2], np.int64),
    **build.PLAIN,
}
NETWORKS = {
    "the largest value of a signal, behind the last neuron": (
        FIRST + "between = Identity (a1)\n" + LAST
        + "g = GlobalMaxPool (a2)\nf = Reshape (g, flat)\ny = Gemm (f, v)\n"
    ),
    "the largest value of a signal, between neurons": (
        FIRST + "g = GlobalMaxPool (a1)\nbetween = Add (g, a1)\n" + LAST
        + "m = GlobalAveragePool (a2)\nf = Reshape (m, flat)\ny = Gemm (f, v)\n"
    ),
    "pads that crop, between neurons": (
        FIRST + "between = Pad (a1, pads)\n" + LAST
        + "m = GlobalAveragePool (a2)\nf = Reshape (m, flat)\ny = Gemm (f, v)\n"
    ),
    "pads that crop, behind the last neuron": (
        FIRST + "between = Identity (a1)\n" + LAST
        + "p = Pad (a2, pads)\nm = GlobalAveragePool (p)\nf = Reshape (m, flat)\ny = Gemm (f, v)\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_converts(name: str, tmp_path: Path) -> None:
    onnx.save(
        build.model(NETWORKS[name], WEIGHTS, inputs="float[N,3,8] x"), tmp_path / "model.onnx"
    )
    result = na_convert.convert(tmp_path / "model.onnx", data={"x": build.images(6, (3, 8))})
    assert result.passed
    assert result.equivalence is not None
    (same,) = [f for f in result.equivalence.figures if f.name == "same counts"]
    assert same.passed
