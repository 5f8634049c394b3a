"""A network exported for one batch size has to treat every sample alike at any other."""

from __future__ import annotations

import numpy as np
from na_convert.passes import NORMALISE

from na_convert.batch_check import entanglement

from .build import graph, images

BODY = "r = Relu (x)\n m = GlobalAveragePool (r)\n f = Flatten (m)\n y = {last}"
FIXED = {"inputs": "float[1,3,8,8] x", "outputs": "float[1,3] y"}


def test_independent_samples_pass() -> None:
    exported, carried = graph(BODY.format(last="Neg (f)"), **FIXED)
    freed = exported.copy()
    NORMALISE(freed)
    assert entanglement(exported, freed, carried, {"x": images(4)}) == ""
    assert entanglement(exported, freed, carried, {"x": images(1)}) == ""


def test_a_sample_that_reads_another_is_found() -> None:
    exported, carried = graph(BODY.format(last="Neg (f)"), **FIXED)
    mixed, _ = graph(
        "r = Relu (x)\n m = GlobalAveragePool (r)\n f = Flatten (m)\n"
        "one = Slice (f, zero, end, zero)\n n = Neg (one)\n s = Sub (f, f)\n y = Add (n, s)",
        {"zero": np.array([0]), "end": np.array([1])}, outputs="float[N,3] y",
    )  # fmt: skip
    assert "differs by" in entanglement(exported, mixed, carried, {"x": images(4)})


def test_a_network_that_does_not_run_with_more_samples_is_found() -> None:
    exported, carried = graph(BODY.format(last="Neg (f)"), **FIXED)
    stiff, _ = graph(
        "r = Relu (x)\n m = GlobalAveragePool (r)\n f = Reshape (m, shape)\n y = Neg (f)",
        {"shape": np.array([1, 3])}, outputs="float[N,3] y",
    )  # fmt: skip
    assert "does not run with 2" in entanglement(exported, stiff, carried, {"x": images(4)})


def test_an_open_batch_is_not_looked_at() -> None:
    exported, carried = graph(BODY.format(last="Neg (f)"), outputs="float[N,3] y")
    assert entanglement(exported, exported, carried, {"x": images(4)}) == ""
