"""What may stand between neurons is affine and keeps samples apart; what is not is refused, and
the reason says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes.affine import obstacle, pool_attributes, supported_operators
from na_convert.passes.single_node import evaluate_node

from na_convert.graph import constant

RNG = np.random.default_rng(0)
IMAGE, ROWS = (4, 2, 6, 6), (4, 6)
F32, F16, I32, F64, BF16 = 1, 10, 6, 11, 16
X = object()  # where the spikes go


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def node(op: str, attributes: dict[str, Any], inputs: tuple[Any, ...], domain: str = "") -> gs.Node:
    """Arrays are constants, X the spikes, None an input left out, a name something computed."""
    tensors = []
    for i, given in enumerate(inputs):
        if given is X:
            tensors.append(gs.Variable("x"))
        elif given is None:
            tensors.append(gs.Variable.empty())
        elif isinstance(given, str):
            tensors.append(gs.Variable(given))
        else:
            tensors.append(constant(f"k{i}", np.asarray(given)))
    return gs.Node(op, "node", attributes, tensors, [gs.Variable("y")], domain=domain)


Case = tuple[str, dict[str, Any], tuple[Any, ...], tuple[int, ...]]

AFFINE: dict[str, Case] = {
    "Add": ("Add", {}, (X, drawn(2, 1, 1)), IMAGE),
    "AveragePool": ("AveragePool", {"kernel_shape": [2, 2]}, (X,), IMAGE),
    "Cast": ("Cast", {"to": F64}, (X,), ROWS),
    "Cast to the same": ("Cast", {"to": F32}, (X,), ROWS),
    "Concat": ("Concat", {"axis": 1}, (X, X), IMAGE),
    "Concat counted from behind": ("Concat", {"axis": -1}, (X, X), IMAGE),
    "Conv": ("Conv", {}, (X, drawn(3, 2, 3, 3), drawn(3)), IMAGE),
    "ConvTranspose": ("ConvTranspose", {}, (X, drawn(2, 3, 3, 3)), IMAGE),
    "CumSum": ("CumSum", {}, (X, np.array(1)), ROWS),
    "DepthToSpace": ("DepthToSpace", {"blocksize": 2}, (X,), (3, 4, 2, 2)),
    "Div": ("Div", {}, (X, drawn(6)), ROWS),
    "Einsum": ("Einsum", {"equation": "ni,io -> no"}, (X, drawn(6, 3)), ROWS),
    "Einsum, the constant first": ("Einsum", {"equation": b"io,ni->no"}, (drawn(6, 3), X), ROWS),
    "Einsum of dots": ("Einsum", {"equation": "...i,io->...o"}, (X, drawn(6, 3)), ROWS),
    "Flatten": ("Flatten", {}, (X,), IMAGE),
    "Gather": ("Gather", {"axis": 1}, (X, ints(1, 0)), IMAGE),
    "Gemm": ("Gemm", {"alpha": 0.5}, (X, drawn(6, 3), drawn(3)), ROWS),
    "GlobalAveragePool": ("GlobalAveragePool", {}, (X,), IMAGE),
    "Identity": ("Identity", {}, (X,), ROWS),
    "MatMul": ("MatMul", {}, (X, drawn(6, 3)), ROWS),
    "Mean": ("Mean", {}, (X, drawn(6)), ROWS),
    "Mul": ("Mul", {}, (drawn(6), X), ROWS),
    "Neg": ("Neg", {}, (X,), ROWS),
    "Pad": ("Pad", {}, (X, ints(0, 1, 0, 2), np.float32(0.5)), ROWS),
    "ReduceMean": ("ReduceMean", {"axes": [2, 3]}, (X,), IMAGE),
    "ReduceSum": ("ReduceSum", {}, (X, ints(-1, -3)), IMAGE),
    "Reshape": ("Reshape", {}, (X, ints(-1, 3, 2)), ROWS),
    "Reshape with a zero": ("Reshape", {}, (X, ints(0, 3, 2)), ROWS),
    "Slice": ("Slice", {}, (X, ints(1), ints(4), ints(2)), IMAGE),
    "SpaceToDepth": ("SpaceToDepth", {"blocksize": 2}, (X,), IMAGE),
    "Split": ("Split", {"axis": 1}, (X, ints(1, 1)), IMAGE),
    "Squeeze": ("Squeeze", {}, (X, ints(1)), (4, 1, 6)),
    "Sub": ("Sub", {}, (drawn(6), X), ROWS),
    "Sum": ("Sum", {}, (drawn(6), X, X), ROWS),
    "Tile": ("Tile", {}, (X, ints(1, 3)), ROWS),
    "Transpose": ("Transpose", {"perm": [0, 2, 1, 3]}, (X,), IMAGE),
    "Unsqueeze": ("Unsqueeze", {}, (X, ints(1, -1)), ROWS),
    "Where": ("Where", {}, (drawn(6) > 0, X, drawn(6)), ROWS),
    "BatchNormalization": (
        "BatchNormalization", {}, (X, drawn(2), drawn(2), drawn(2), drawn(2) ** 2), IMAGE),
}  # fmt: skip


def spiking(given: gs.Node) -> list[bool]:
    return [t.name == "x" for t in given.inputs]


def computed(given: gs.Node, x: np.ndarray) -> np.ndarray:
    values = [x if t.name == "x" else t.values for t in given.inputs]
    return np.asarray(evaluate_node(given, values, 17)[0], np.float64)


@pytest.mark.parametrize("name", AFFINE)
def test_means_go_through_and_samples_stay_apart(name: str) -> None:
    op, attributes, inputs, shape = AFFINE[name]
    given = node(op, attributes, inputs)
    if op == "Split":
        given.outputs.append(gs.Variable("z"))
    outputs = {"Unsqueeze": len(shape) + 2}.get(op, len(shape))
    assert obstacle(given, spiking(given), {"x": len(shape), "y": outputs}) is None
    a, b = drawn(*shape), drawn(*shape)
    found = computed(given, (a + b) / 2)
    wanted = (computed(given, a) + computed(given, b)) / 2
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    if "transpose" not in name.lower():
        rows = [computed(given, a[i : i + 1]) for i in range(len(a))]
        np.testing.assert_allclose(computed(given, a), np.concatenate(rows), atol=1e-5)


BATCH = "works along the batch axis"
COMPUTED = "axes are computed at run time"
REFUSED: dict[str, tuple[str, dict[str, Any], tuple[Any, ...], str]] = {
    "Concat of samples": ("Concat", {}, (X, X), BATCH),
    "Concat of samples from behind": ("Concat", {"axis": -4}, (X, X), BATCH),
    "CumSum over samples": ("CumSum", {}, (X, np.array(0)), BATCH),
    "CumSum over samples from behind": ("CumSum", {}, (X, np.array([-4])), BATCH),
    "CumSum along a computed axis": ("CumSum", {}, (X, "axis"), COMPUTED),
    "Flatten of everything": ("Flatten", {"axis": 0}, (X,), BATCH),
    "Gather of samples": ("Gather", {}, (X, ints(0)), BATCH),
    "Gather at spikes": ("Gather", {"axis": 1}, ("k", X), "depend on spikes"),
    "ReduceMean over all": ("ReduceMean", {}, (X,), BATCH),
    "ReduceMean over samples": ("ReduceMean", {"axes": [0, 1]}, (X,), BATCH),
    "ReduceSum over samples": ("ReduceSum", {}, (X, ints(2, -4)), BATCH),
    "ReduceSum over computed axes": ("ReduceSum", {}, (X, "axes"), COMPUTED),
    "ReduceSum over no axes": ("ReduceSum", {}, (X, None), BATCH),
    "Slice of samples": ("Slice", {}, (X, ints(0), ints(2), ints(0)), BATCH),
    "Slice of the first axes": ("Slice", {}, (X, ints(0, 1), ints(2, 3)), BATCH),
    "Slice of the first axes, steps": ("Slice", {}, (X, ints(0), ints(2), None, ints(1)), BATCH),
    "Slice along computed axes": ("Slice", {}, (X, ints(0), ints(2), "axes"), COMPUTED),
    "Slice of computed places": ("Slice", {}, (X, "starts", "ends"), COMPUTED),
    "Split of samples": ("Split", {}, (X,), BATCH),
    "Squeeze of all": ("Squeeze", {}, (X,), BATCH),
    "Squeeze of samples": ("Squeeze", {}, (X, ints(0)), BATCH),
    "Transpose of all": ("Transpose", {}, (X,), BATCH),
    "Transpose of samples": ("Transpose", {"perm": [1, 0, 2, 3]}, (X,), BATCH),
    "Unsqueeze of samples": ("Unsqueeze", {}, (X, ints(0)), BATCH),
    "Unsqueeze of samples from behind": ("Unsqueeze", {}, (X, ints(-5)), BATCH),
    "Reshape of a batch": ("Reshape", {}, (X, ints(4, -1)), "reshapes to [4, -1]"),
    "Reshape to one": ("Reshape", {}, (X, ints(1, -1)), "reshapes to [1, -1]"),
    "Reshape to a number": ("Reshape", {}, (X, ints()), "reshapes to []"),
    "Reshape by spikes": ("Reshape", {}, ("k", X), "depend on spikes"),
    "Tile of samples": ("Tile", {}, (X, ints(2, 1)), "repeats samples"),
    "Tile to none": ("Tile", {}, (X, ints(0, 1)), "repeats samples"),
    "Tile by computed numbers": ("Tile", {}, (X, "n"), "repeats samples"),
    "Cast to integers": ("Cast", {"to": I32}, (X,), "rounds or cuts"),
    "Cast to bfloat16": ("Cast", {"to": BF16}, (X,), "rounds or cuts"),
    "Where by spikes": ("Where", {}, (X, drawn(6), drawn(6)), "chooses by a condition"),
    "Div by spikes": ("Div", {}, (drawn(6), X), "which depends on spikes"),
    "Div of spikes by spikes": ("Div", {}, (X, X), "which depends on spikes"),
    "Mul of spikes": ("Mul", {}, (X, X), "(gating)"),
    "MatMul of spikes": ("MatMul", {}, (X, X), "(attention)"),
    "Gemm of spikes": ("Gemm", {}, (X, X), "two spiking tensors, 'x' and 'x' (gating)"),
    "Einsum of spikes": ("Einsum", {"equation": "ni,nj->nij"}, (X, X), "two spiking tensors"),
    "Einsum, batch last": ("Einsum", {"equation": "ni,io->on"}, (X, drawn(6, 3)), "equation"),
    "Einsum, batch summed": ("Einsum", {"equation": "ni,io->o"}, (X, drawn(6, 3)), "equation"),
    "Einsum without a result": ("Einsum", {"equation": "ni,io"}, (X, drawn(6, 3)), "equation"),
    "Einsum of a diagonal": ("Einsum", {"equation": "nn,no->no"}, (X, "k"), "equation"),
    "Einsum, batch of the constant": (
        "Einsum", {"equation": "ni,ni->ni"}, (X, drawn(4, 6)), "equation"),
    "Conv with spiking weights": ("Conv", {}, ("k", X), "its weights depend on spikes"),
    "Conv with a spiking bias": ("Conv", {}, (X, drawn(3, 2, 1, 1), X), "depend on spikes"),
    "BatchNormalization in training": (
        "BatchNormalization", {"training_mode": 1}, (X, *([drawn(2)] * 4)), "batch statistics"),
    "BatchNormalization by spikes": (
        "BatchNormalization", {}, ("k", X, *([drawn(2)] * 3)), "its weights depend on spikes"),
    "MaxPool with auto_pad": (
        "MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, (X,), "auto_pad"),
    "Softmax": ("Softmax", {}, (X,), "a softmax is not affine"),
    "Clip at a lower bound that is computed": ("Clip", {}, (X, "low"), "bounds that depend on"),
    "Clip at an upper bound that is computed": (
        "Clip", {}, (X, None, "high"), "bounds that depend on"),
    "Clip at constants": ("Clip", {}, (X, None, np.float32(1)), "Clip is not known to be affine"),
    "another operator with a computed operand": (
        "Bernoulli", {}, (X, "high"), "Bernoulli is not known to be affine"),
    "Exp": ("Exp", {}, (X,), "Exp is not known to be affine"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    op, attributes, inputs, reason = REFUSED[name]
    given = node(op, attributes, inputs)
    found = obstacle(given, spiking(given), {"x": 4, "y": 5})
    assert found is not None
    assert reason in found.reason
    assert found.remedy


def test_without_spikes_the_first_operand_of_an_einsum_counts() -> None:
    given = node("Einsum", {"equation": "ni,io->no"}, ("a", "b"))
    assert obstacle(given, [False, False], {}) is None


def test_where_ranks_are_not_known_axes_from_behind_are_taken_for_others() -> None:
    assert obstacle(node("Concat", {"axis": -4}, (X, X)), [True, True], {}) is None


@pytest.mark.parametrize(("op", "allowed"), [("MaxPoolCounts", True), ("IF", False)])
def test_of_our_own_operators_maxima_of_counts_may_stand_between(op: str, allowed: bool) -> None:
    found = obstacle(node(op, {}, (X,), "na_convert"), [True], {})
    assert (found is None) is allowed


def test_a_foreign_operator_is_not_known() -> None:
    found = obstacle(node("Add", {}, (X, drawn(6)), "nobody.knows"), [True, False], {})
    assert found is not None
    assert "Add (domain nobody.knows) is not known" in found.reason


@pytest.mark.parametrize("read", [True, False])
def test_places_of_maxima_may_not_be_used(read: bool) -> None:
    given = node("MaxPool", {"kernel_shape": [2, 2]}, (X,))
    given.outputs.append(gs.Variable("places"))
    reader = gs.Node("Neg", inputs=[given.outputs[1]] if read else [], outputs=[gs.Variable("z")])
    found = obstacle(given, [True], {"x": 4})
    assert (found is not None) is read, reader
    assert obstacle(node("MaxPool", {"kernel_shape": [2, 2]}, (X,)), [True], {"x": 4}) is None


def test_defaults_of_a_pool_are_written_out() -> None:
    given = node("MaxPool", {"kernel_shape": [2, 3]}, (X,))
    assert pool_attributes(given) == {
        "kernel_shape": [2, 3],
        "strides": [1, 1],
        "pads": [0, 0, 0, 0],
        "dilations": [1, 1],
        "ceil_mode": 0,
    }


def test_attributes_of_a_pool_are_kept() -> None:
    attributes = {
        "kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2],
        "ceil_mode": 1,
    }  # fmt: skip
    assert pool_attributes(node("MaxPool", attributes, (X,))) == attributes


def test_every_supported_operator_has_a_case() -> None:
    cases = {case[0] for case in (*AFFINE.values(), *REFUSED.values())}
    assert set(supported_operators()) - cases == {"Resize", "Upsample"}
