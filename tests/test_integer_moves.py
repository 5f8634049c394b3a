"""Moves of counts in numpy are what onnxruntime makes of the same operators."""

from __future__ import annotations

import numpy as np
import pytest

from na_convert import runtime
from na_convert.integer_moves import Move, move

from .build import model

COUNTS = np.random.default_rng(0).integers(0, 200, (2, 8, 6, 4)).astype(np.uint8)
OTHER = np.random.default_rng(1).integers(0, 200, (2, 3, 6, 4)).astype(np.uint8)
LEAST = np.iinfo(np.int64).min


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


MOVES = {
    "Concat": ({"axis": 1}, ()),
    "Reshape": ({}, (ints(-1, 4, 48),)),
    "Transpose": ({"perm": [0, 2, 3, 1]}, ()),
    "Gather": ({"axis": 1}, (ints(3, 0, -1, 3),)),
    "Gather, one": ({"axis": 2}, (np.array(4),)),
    "Pad": ({}, (ints(0, 1, 0, 2, 0, 0, 3, 1),)),
    "Slice": ({}, (ints(1, -3), ints(7, 100), ints(1, -2), ints(2, 1))),
    "Slice, backwards": ({}, (ints(-1), ints(LEAST), ints(3), ints(-1))),
    "MaxPool": ({"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, ()),
    "DepthToSpace": ({"blocksize": 2}, ()),
    "DepthToSpace, by columns": ({"blocksize": 2, "mode": "CRD"}, ()),
    "SpaceToDepth": ({"blocksize": 2}, ()),
}


@pytest.mark.parametrize("case", MOVES)
def test_a_move_is_the_operator(case: str) -> None:
    attributes, constants = MOVES[case]
    op = case.partition(",")[0]
    written = [
        f'{k}: string = "{v}"' if isinstance(v, str)
        else f"{k}: ints = {v}" if isinstance(v, list) else f"{k}: int = {v}"
        for k, v in attributes.items()
    ]  # fmt: skip
    values = {"x": COUNTS, "z": OTHER} if op == "Concat" else {"x": COUNTS}
    names = [*values, *(f"c{i}" for i in range(len(constants)))]
    body = f"y = {op} <{', '.join(written)}> ({', '.join(names)})".replace("<> ", "")
    inputs = ", ".join(f"uint8[N,{v.shape[1]},6,4] {k}" for k, v in values.items())
    given = {f"c{i}": each for i, each in enumerate(constants)}
    proto = model(body, given, inputs=inputs, outputs="uint8[A] y")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (expected,) = runtime.run(proto, values).values()
    operation = Move("y", op, tuple(values), attributes, constants)
    found = move(operation, list(values.values()))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_sum_over_windows_counts_what_is_in_the_image() -> None:
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    few = COUNTS // 64
    found = move(Move("y", "SumPool", ("x",), attributes), [few])
    expected = np.zeros((2, 8, 3, 4), np.uint8)
    wide = np.pad(few, [(0, 0), (0, 0), (1, 1), (0, 1)])
    for row in range(3):
        for column in range(4):
            window = wide[:, :, 2 * row : 2 * row + 3, column : column + 2]
            expected[:, :, row, column] = window.sum((2, 3))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
