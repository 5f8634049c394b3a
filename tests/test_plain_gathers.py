from __future__ import annotations

import numpy as np
from na_convert.passes.drop_noops import drop_noops
from na_convert.passes.plain_gathers import plain_gathers

from .build import graph, model
from .same import ops, rewritten

SHAPES = {"inputs": "float[N,3,8,8] x", "outputs": "float[N,C,H,W] y"}
PLACES = {"places": np.array([[2], [0], [1]])}
SHUFFLE = (
    "t = Transpose <perm = [1,0,2,3]> (r)\n g = GatherND (t, places)\n"
    "b = Transpose <perm = [1,0,2,3]> (g)\n"
)


def test_a_shuffle_of_channels_is_one_gather() -> None:
    source = model("r = Relu (x)\n" + SHUFFLE + "y = Neg (b)", PLACES, **SHAPES)
    result = rewritten(source, plain_gathers, drop_noops)
    assert ops(result) == ["Relu", "Gather", "Neg"]
    assert result.nodes[1].attrs["axis"] == 1


def test_gather_nd_of_one_axis_is_a_gather() -> None:
    net, _ = graph("r = Relu (x)\n g = GatherND (r, places)\n y = Neg (g)", PLACES)
    assert plain_gathers(net) == 1
    assert [n.op for n in net.nodes] == ["Relu", "Gather", "Neg"]


def test_a_transpose_with_other_readers_stays() -> None:
    body = "r = Relu (x)\n" + SHUFFLE + "u = Transpose <perm = [1,0,2,3]> (t)\n y = Add (b, u)"
    result = rewritten(model(body, PLACES, **SHAPES), plain_gathers)
    assert ops(result).count("Transpose") == 3


def test_gather_nd_of_several_axes_stays() -> None:
    places = {"places": np.array([[0, 1], [1, 2]])}
    net, _ = graph("r = Relu (x)\n g = GatherND (r, places)\n y = Neg (g)", places)
    assert plain_gathers(net) == 0


def windows(rows: list[list[int]], columns: list[list[int]]) -> dict[str, np.ndarray]:
    """Indices [a, b, c, d, 2] of ``x[..., rows, columns]``, rows [a, b] and columns [c, d]."""
    grid = np.broadcast_arrays(np.array(rows)[:, :, None, None], np.array(columns))
    return {"places": np.stack(grid, -1)}


WINDOWS = (
    "t = Transpose <perm = [2,3,0,1]> (r)\n g = GatherND (t, places)\n"
    "b = Transpose <perm = [4,5,0,1,2,3]> (g)\n"
)
POOLED = {"inputs": "float[N,3,8,8] x", "outputs": "float[N,C,H,A,W,B] y"}
UNEVEN = windows([[0, 1, 1], [1, 2, 3], [5, 6, 7]], [[0, 4, 4], [2, 3, 7]])


def test_windows_of_rows_and_columns_are_a_gather_along_each() -> None:
    source = model("r = Relu (x)\n" + WINDOWS + "y = Neg (b)", UNEVEN, **POOLED)
    result = rewritten(source, plain_gathers)
    assert ops(result) == ["Relu", "Gather", "Gather", "Reshape", "Neg"]
    assert [n.attrs["axis"] for n in result.nodes[1:3]] == [2, 3]


def test_places_that_are_no_rows_and_columns_stay() -> None:
    crossed = {"places": UNEVEN["places"].copy()}
    crossed["places"][0, 0, 0, 0] = [6, 6]
    source = model("r = Relu (x)\n" + WINDOWS + "y = Neg (b)", crossed, **POOLED)
    assert "GatherND" in ops(rewritten(source, plain_gathers))


def test_windows_with_other_readers_stay() -> None:
    outputs = POOLED["outputs"] + ", float[N,3,8,8] u"
    body = "r = Relu (x)\n" + WINDOWS + "u = Transpose <perm = [2,3,0,1]> (t)\n y = Neg (b)"
    source = model(body, UNEVEN, inputs=POOLED["inputs"], outputs=outputs)
    assert "GatherND" in ops(rewritten(source, plain_gathers))
