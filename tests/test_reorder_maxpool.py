from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes import reorder_maxpool

from na_convert.graph import export_graph
from na_convert.runtime import run
from tests.build import PLAIN, graph, images, stair

CONV = "z = Conv <pads = [1,1,1,1]> (x, w)\n"
POOL = "MaxPool <kernel_shape = [2,2], strides = [2,2]>"
HEAD = "f = Flatten (last)\ny = Gemm (f, v)"
WEIGHTS = {**PLAIN, "w": (4, 3, 3, 3), "v": (64, 5)}


def ops(g) -> list[str]:
    return [node.op for node in g.nodes]


def changes(g, carried) -> tuple[list[str], float]:
    """Runs the pass; the operators after it, and the largest change of the outputs."""
    before = run(export_graph(g, carried), {"x": images()})
    reorder_maxpool.run(g)
    after = run(export_graph(g, carried), {"x": images()})
    return ops(g), max(float(np.abs(before[k] - after[k]).max()) for k in before)


def test_pool_behind_the_first_activation_moves_in_front() -> None:
    g, carried = graph(CONV + stair("z", "a") + f"last = {POOL} (a)\n" + HEAD, WEIGHTS)
    found, error = changes(g, carried)
    assert found == ["Conv", "MaxPool", "Staircase", "Flatten", "Gemm"]
    assert error == 0
    assert g.nodes[2].outputs[0].name == "last"


def test_several_pools_in_a_row() -> None:
    body = CONV + stair("z", "a") + f"b = {POOL} (a)\nlast = {POOL} (b)\n" + HEAD
    g, carried = graph(body, {**WEIGHTS, "v": (16, 5)})
    found, error = changes(g, carried)
    assert found[:4] == ["Conv", "MaxPool", "MaxPool", "Staircase"]
    assert error == 0


def test_pool_behind_a_clip() -> None:
    ramp = 'a = na_convert.Ramp <kind: string = "clip"> (z, zero, step, zero, half)\n'
    g, carried = graph(CONV + ramp + f"last = {POOL} (a)\n" + HEAD, WEIGHTS)
    found, error = changes(g, carried)
    assert found[1:3] == ["MaxPool", "Ramp"]
    assert error == 0


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        (
            CONV + stair("z", "a") + f"p = {POOL} (a)\nq = {POOL} (a)\nlast = Add (p, q)\n" + HEAD,
            "float[N,M] y",
            "used elsewhere",
        ),
        (
            CONV + stair("z", "a") + f"last = {POOL} (a)\n" + HEAD,
            "float[N,M] y, float[N,4,8,8] a",
            "used elsewhere",
        ),
        (
            CONV + stair("z", "a", step="fall") + f"last = {POOL} (a)\n" + HEAD,
            "float[N,M] y",
            "falls",
        ),
    ],
)
def test_left_alone_with_a_reason(body: str, outputs: str, reason: str) -> None:
    g, _ = graph(body, {**WEIGHTS, "fall": -0.4}, outputs=outputs)
    before = ops(g)
    report = reorder_maxpool.run(g)
    assert ops(g) == before
    assert report.changed == 0
    assert reason in report.skipped[0].reason


def test_pool_behind_a_later_activation_is_not_its_business() -> None:
    body = (
        CONV + stair("z", "a") + "z2 = Conv <pads = [1,1,1,1]> (a, w2)\n" + stair("z2", "b")
        + f"last = {POOL} (b)\n" + HEAD
    )  # fmt: skip
    g, _ = graph(body, {**WEIGHTS, "w2": (4, 4, 3, 3)})
    report = reorder_maxpool.run(g)
    assert (report.changed, report.skipped) == (0, ())
    assert ops(g)[3:5] == ["Staircase", "MaxPool"]


def test_the_places_of_the_maxima_stay_an_output() -> None:
    body = CONV + stair("z", "a") + f"last, places = {POOL} (a)\n" + HEAD
    outputs = "float[N,M] y, int64[N,4,4,4] places"
    g, carried = graph(body, WEIGHTS, outputs=outputs)
    reorder_maxpool.run(g)
    assert ops(g)[:3] == ["Conv", "MaxPool", "Staircase"]
    assert [t.name for t in g.nodes[1].outputs][1:] == ["places"]
    assert run(export_graph(g, carried), {"x": images()})["places"].shape == (2, 4, 4, 4)
