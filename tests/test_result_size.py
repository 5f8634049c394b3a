"""How large a result will be, before it is computed: exactly what the operator gives."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes.result_size import elements_of_result, stored_elements
from na_convert.passes.single_node import evaluate_node

OPSET = 17


def node(op: str, inputs: int, **attrs: object) -> gs.Node:
    read = [gs.Variable(f"i{k}", np.float32) for k in range(inputs)]
    return gs.Node(op, "n", dict(attrs), read, [gs.Variable("o")])


def integers(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


CASES: dict[str, tuple[gs.Node, list[np.ndarray]]] = {
    "Range": (node("Range", 3), [np.asarray(v, np.int64) for v in (3, 50, 4)]),
    "Range, falling": (node("Range", 3), [np.asarray(v, np.int64) for v in (50, 3, -4)]),
    "Range, empty": (node("Range", 3), [np.asarray(v, np.int64) for v in (50, 3, 4)]),
    "Tile": (node("Tile", 2), [np.ones((2, 3), np.float32), integers(4, 5)]),
    "Expand": (node("Expand", 2), [np.ones((3, 1), np.float32), integers(2, 3, 5)]),
    "Expand along one axis": (node("Expand", 2), [np.ones((3, 1), np.float32), integers(1, 1, 5)]),
    "ConstantOfShape of a row": (node("ConstantOfShape", 1), [integers(1, 6)]),
    "ConstantOfShape": (node("ConstantOfShape", 1), [integers(4, 6)]),
    "Add": (node("Add", 2), [np.ones((4, 1), np.float32), np.ones((1, 5), np.float32)]),
    "MatMul": (node("MatMul", 2), [np.ones((4, 3), np.float32), np.ones((3, 5), np.float32)]),
    "Pad": (node("Pad", 2), [np.ones((2, 3), np.float32), integers(1, 0, 2, 7)]),
    "Reshape": (node("Reshape", 2), [np.ones((2, 6), np.float32), integers(3, 4)]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_it_will_give(case: str) -> None:
    made, values = CASES[case]
    (result,) = evaluate_node(made, values, OPSET)
    assert elements_of_result(made, values, OPSET) == result.size


def test_sizes_beyond_64_bits() -> None:
    """Where shape inference would overflow."""
    many = [np.ones((1 << 10, 1 << 10), np.float32), integers(1 << 30, 1 << 30)]
    assert elements_of_result(node("Tile", 2), many, OPSET) == 1 << 80
    row = [np.ones(1 << 10, np.float32), integers(1 << 60)]
    assert elements_of_result(node("Tile", 2), row, OPSET) == 1 << 70
    assert elements_of_result(node("ConstantOfShape", 1), [integers(1 << 40, 1 << 40)], OPSET) == (
        1 << 80
    )


def test_a_range_without_an_end() -> None:
    for values in ((0.0, 1.0, 0.0), (0.0, np.inf, 1.0)):
        given = [np.asarray(v, np.float32) for v in values]
        assert elements_of_result(node("Range", 3), given, OPSET) == 0


def test_what_is_stored() -> None:
    """Initialisers, and the values of Constant nodes."""
    x = gs.Variable("x", np.float32, (1, 3))
    weight = gs.Constant("w", np.ones((3, 4), np.float32))
    inside = gs.Constant("v", np.ones((4, 5), np.float32))
    made, y, z = gs.Variable("c"), gs.Variable("y"), gs.Variable("z")
    nodes = [
        gs.Node("Constant", "c", {"value": inside}, [], [made]),
        gs.Node("MatMul", "m", {}, [x, weight], [y]),
        gs.Node("MatMul", "k", {}, [y, made], [z]),
    ]
    assert stored_elements(gs.Graph(nodes, [x], [z])) == 12 + 20
