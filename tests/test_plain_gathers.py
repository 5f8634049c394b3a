from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes.drop_noops import drop_noops
from na_convert.passes.plain_gathers import plain_gathers

from .build import graph, model
from .same import ops, rewritten, run

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


def test_one_place_of_the_first_axis_is_a_gather() -> None:
    weights = {"places": np.array([-1]), "t": np.array([1, 3])}
    body = "r = Reshape (x, t)\n g = GatherND (r, places)\n y = Neg (g)"
    net, carried = graph(body, weights, inputs="float[1,3] x", outputs="float[3] y")
    assert plain_gathers(net) == 1
    x = np.array([[1, 2, 3]], np.float32)
    assert run(net, carried, {"x": x})["y"].tolist() == [-1, -2, -3]


def test_a_gather_nd_of_samples_apart_stays() -> None:
    body = "r = Relu (x)\n g = GatherND <batch_dims = 1> (r, places)\n y = Neg (g)"
    places = {"places": np.array([[2], [0]])}
    assert plain_gathers(graph(body, places, inputs="float[2,3] x", outputs="float[2] y")[0]) == 0


@pytest.mark.parametrize("given", [("x", "p"), ("table", "places")])
def test_a_gather_nd_from_a_constant_or_at_computed_places_stays(given: tuple[str, str]) -> None:
    body = f"p = Neg (places)\n g = GatherND ({', '.join(given)})\n y = Neg (g)"
    weights = {"places": np.array([[0]]), "table": np.eye(2, dtype=np.float32)}
    assert (
        plain_gathers(graph(body, weights, inputs="float[2,2] x", outputs="float[1,2] y")[0]) == 0
    )


FIRST = "t = Transpose <perm = [1,0,2]> (x)\n g = Gather {} (t, places)\n y = Neg (g)"
IMAGES = {"inputs": "float[N,3,8] x", "outputs": "float[C,N,W] y"}


def gathered(attributes: str, places: object, perm: str = "[1,0,2]") -> list[str]:
    body = FIRST.format(attributes).replace("[1,0,2]", perm)
    net, _ = graph(body, {"places": np.array(places)}, **IMAGES)
    changed = plain_gathers(net)
    found = [n.op for n in net.nodes]
    assert bool(changed) is (found != ["Transpose", "Gather", "Neg"])
    return found


@pytest.mark.parametrize("attributes", ["", "<axis = 0>", "<axis = 2>", "<axis = -1>"])
def test_places_behind_a_transpose_are_gathered_in_front_of_it(attributes: str) -> None:
    assert gathered(attributes, [2, 0]) == ["Gather", "Transpose", "Neg"]


@pytest.mark.parametrize("axis", [0, 2, -1, None])
def test_what_is_gathered_in_front_of_a_transpose_is_the_same(axis: int | None) -> None:
    body = FIRST.format("" if axis is None else f"<axis = {axis}>")
    net, carried = graph(body, {"places": np.array([2, 0])}, **IMAGES)
    x = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    expected = -np.take(x.transpose(1, 0, 2), [2, 0], axis or 0)
    plain_gathers(net)
    assert np.array_equal(run(net, carried, {"x": x})["y"], expected)


@pytest.mark.parametrize(
    ("attributes", "places", "perm"),
    [
        ("<axis = 1>", [2, 0], "[1,0,2]"),  # samples are chosen
        ("<axis = 1>", [2, 0], "[0,2,1]"),  # the batch stays in front
        ("<axis = 0>", [[2, 0]], "[1,0,2]"),
        ("<axis = 0>", 2, "[1,0,2]"),
    ],
)
def test_a_gather_behind_a_transpose_stays(attributes: str, places: object, perm: str) -> None:
    assert gathered(attributes, places, perm) == ["Transpose", "Gather", "Neg"]


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


def test_places_whose_columns_differ_from_row_to_row_stay() -> None:
    sheared = {"places": UNEVEN["places"].copy()}
    sheared["places"][1, ..., 1] += sheared["places"][1, ..., 1] < 7
    source = model("r = Relu (x)\n" + WINDOWS + "y = Neg (b)", sheared, **POOLED)
    assert "GatherND" in ops(rewritten(source, plain_gathers))


@pytest.mark.parametrize(
    "body",
    [
        "g = GatherND (x, places)\n y = Neg (g)",
        "r = Relu (x)\n y = GatherND (r, places)",
        "r = Relu (x)\n g = GatherND (r, places)\n y = Neg (g)",
        "r = Transpose <perm = [2,3,0,1]> (x)\n g = GatherND (r, places)\n y = Neg (g)",
        WINDOWS.replace("(r)", "(x)").replace("[4,5,0,1,2,3]", "[5,4,0,1,2,3]") + "y = Neg (b)",
        WINDOWS.replace("(r)", "(x)").replace("[2,3,0,1]", "[3,2,0,1]") + "y = Neg (b)",
    ],
)
def test_two_places_without_their_transposes_stay(body: str) -> None:
    net, _ = graph(body, UNEVEN, inputs=POOLED["inputs"], outputs="float[A,B,C,D,E,F] y")
    assert plain_gathers(net) == 0


def test_rows_of_one_column() -> None:
    places = {"places": np.array([[2, 5], [0, 5], [7, 5]])}
    body = "r = Relu (x)\n" + WINDOWS.replace("[4,5,0,1,2,3]", "[1,2,0]") + "y = Neg (b)"
    source = model(body, places, inputs="float[N,3,8,8] x", outputs="float[N,C,H] y")
    assert "GatherND" not in ops(rewritten(source, plain_gathers))


def test_rows_and_columns_of_images_without_channels() -> None:
    body = (
        "r = Relu (x)\n t = Transpose <perm = [1,2,0]> (r)\n g = GatherND (t, places)\n"
        "b = Transpose <perm = [4,0,1,2,3]> (g)\n y = Neg (b)"
    )
    outputs = "float[N,H,A,W,B] y"
    source = model(body, UNEVEN, inputs="float[N,8,8] x", outputs=outputs)
    result = rewritten(source, plain_gathers)
    assert ops(result) == ["Relu", "Gather", "Gather", "Reshape", "Neg"]


def test_windows_with_other_readers_stay() -> None:
    outputs = POOLED["outputs"] + ", float[N,3,8,8] u"
    body = "r = Relu (x)\n" + WINDOWS + "u = Transpose <perm = [2,3,0,1]> (t)\n y = Neg (b)"
    source = model(body, UNEVEN, inputs=POOLED["inputs"], outputs=outputs)
    assert "GatherND" in ops(rewritten(source, plain_gathers))
