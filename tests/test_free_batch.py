from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes.fold_constants import fold_constants
from na_convert.passes.free_batch import free_batch
from na_convert.passes.reshape_targets import freed_target, resolve
from na_convert.passes.walk_shapes import Trial, infer_types, walk

from na_convert import runtime
from na_convert.graph import import_graph

from .build import graph, model
from .same import checked, ops, rewritten, run

FIXED = {"inputs": "float[1,3,8,8] x", "outputs": "float y"}
OPEN = {"inputs": "float[batch,3,8,8] x", "outputs": "float y"}
ANY = {"inputs": "float[batch,3,height,width] x", "outputs": "float y"}


def shapeless(
    body: str, weights: dict | None = None, *, inputs: str, outputs: str, opset: int = 18
):
    """A model whose output has no declared shape."""
    proto = model(body, weights, inputs=inputs, outputs=outputs, opset=opset)
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_inputs_and_outputs_become_symbolic() -> None:
    proto = model("y = Relu (x)", inputs="float[1,3,8,8] x", outputs="float[1,3,8,8] y")
    result = rewritten(proto, free_batch)
    assert result.inputs[0].shape == ["N", 3, 8, 8]
    assert result.outputs[0].shape == ["N", 3, 8, 8]


def test_a_symbol_of_the_model_is_kept() -> None:
    result = rewritten(shapeless("y = Flatten (x)", **OPEN), free_batch)
    assert result.inputs[0].shape[0] == "batch"
    assert result.outputs[0].shape == ["batch", 192]


TARGETS = {
    "fixed": (ints(1, 192), "", [-1, 192]),
    "rest open": (ints(1, -1), "", [-1, 192]),
    "zero": (ints(0, -1), "", [-1, 192]),
    "allowzero": (ints(1, 192), "<allowzero = 1>", [-1, 192]),
    "batch open": (ints(-1, 192), "", [-1, 192]),
    "all in one": (ints(-1), "", [-1]),
    "more axes": (ints(1, 3, 4, 2, 8), "", [-1, 3, 4, 2, 8]),
    "axes in front": (ints(1, 1, 192), "", [-1, 1, 192]),
}


@pytest.mark.parametrize("case", TARGETS)
def test_reshape_to_a_fixed_shape(case: str) -> None:
    target, attributes, freed = TARGETS[case]
    body = f"r = Relu (x)\n f = Reshape {attributes} (r, t)\n y = Neg (f)"
    net, _ = graph(body, {"t": target}, **FIXED)
    free_batch(net)
    assert net.nodes[1].inputs[1].values.tolist() == freed
    if case != "all in one":
        rewritten(shapeless(body, {"t": target}, **FIXED), free_batch)


def test_reshape_for_a_batch_of_four() -> None:
    net, _ = graph(
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, 10)},
        inputs="float[4,2,5] x", outputs="float[4,10] y",
    )  # fmt: skip
    free_batch(net)
    assert net.nodes[0].inputs[1].values.tolist() == [-1, 10]


def test_reshape_after_the_batch_has_moved() -> None:
    body = (
        "t = Transpose <perm = [1,0,2,3]> (x)\n f = Reshape (t, s)\n"
        " y = Transpose <perm = [1,0,2]> (f)"
    )
    net, _ = graph(
        body, {"s": ints(3, 1, 64)}, inputs="float[1,3,8,8] x", outputs="float[1,3,64] y"
    )
    free_batch(net)
    assert net.nodes[1].inputs[1].values.tolist() == [3, -1, 64]


PLUMBING = """
    s = Shape (x)
    i = Constant <value_int = 0> ()
    g = Gather (s, i)
    a = Constant <value_ints = [0]> ()
    n = Unsqueeze (g, a)
    m = Constant <value_ints = [-1]> ()
    t = Concat <axis = 0> (n, m)
    r = Relu (x)
    f = Reshape (r, t)
    y = Neg (f)
"""


@pytest.mark.parametrize("shapes", [FIXED, OPEN])
def test_reshape_to_a_computed_shape(shapes: dict[str, str]) -> None:
    result = rewritten(shapeless(PLUMBING, **shapes), fold_constants, free_batch)
    assert ops(result) == ["Relu", "Reshape", "Neg"]
    assert result.nodes[1].inputs[1].values.tolist() == [-1, 192]


def test_reshape_to_a_computed_shape_with_open_sizes_is_flatten() -> None:
    result = rewritten(shapeless(PLUMBING, **ANY), fold_constants, free_batch)
    assert ops(result) == ["Relu", "Flatten", "Neg"]


def test_reshape_with_open_sizes_takes_the_batch_of_its_input() -> None:
    body = """
        s = Shape (x)
        b = Shape <start = 0, end = 1> (x)
        h = Shape <start = 2, end = 4> (x)
        three = Constant <value_ints = [3, 1]> ()
        t = Concat <axis = 0> (b, three, h)
        r = Relu (x)
        f = Reshape (r, t)
        y = Neg (f)
    """
    result = rewritten(shapeless(body, **ANY), fold_constants, free_batch)
    reshape = next(n for n in result.nodes if n.op == "Reshape")
    shape = reshape.inputs[1].inputs[0]
    assert (shape.op, shape.inputs[0].inputs[0].inputs[0].name) == ("Concat", "r")


def test_sizes_that_do_not_depend_on_the_batch_are_constants() -> None:
    body = "h = Shape <start = 2, end = 3> (x)\n f = Cast <to = 1> (h)\n y = Mul (x, f)"
    result = rewritten(shapeless(body, **OPEN), free_batch, fold_constants)
    assert ops(result) == ["Mul"]


def test_gradient_scale_is_the_step_itself() -> None:
    body = """
        s = Shape (x)
        n = ReduceProd <keepdims = 0> (s)
        f = Cast <to = 1> (n)
        g = Pow (f, power)
        a = Mul (step, g)
        b = Sub (step, a)
        d = Add (b, a)
        y = Div (x, d)
    """
    weights = {"power": -0.5, "step": 0.3137}
    result = rewritten(shapeless(body, weights, **OPEN), fold_constants, free_batch)
    assert ops(result) == ["Div"]
    assert result.nodes[0].inputs[1].values == np.float32(0.3137)


EXPANDED = {
    "Expand": "s = Shape (x)\n e = Expand (zero, s)\n y = Max (x, e)",
    "ConstantOfShape": "s = Shape (x)\n e = ConstantOfShape (s)\n y = Max (x, e)",
}


@pytest.mark.parametrize("case", EXPANDED)
def test_expanded_numbers_as_operands(case: str) -> None:
    result = rewritten(shapeless(EXPANDED[case], {"zero": 0.0}, **OPEN), fold_constants, free_batch)
    assert ops(result) == ["Max"]
    assert result.nodes[0].inputs[1].values.size == 1


def test_expand_elsewhere_takes_the_batch_of_the_network() -> None:
    body = """
        r = Relu (x)
        b = Shape <start = 0, end = 1> (r)
        rest = Constant <value_ints = [1, 8, 8]> ()
        t = Concat <axis = 0> (b, rest)
        e = Expand (k, t)
        y = Concat <axis = 1> (r, e)
    """
    result = rewritten(shapeless(body, {"k": 0.5}, **OPEN), fold_constants, free_batch)
    shape = next(n for n in result.nodes if n.op == "Shape")
    assert shape.inputs[0].name == "x"


def test_expand_of_a_tensor_that_has_the_batch() -> None:
    body = """
        b = Shape <start = 0, end = 1> (x)
        rest = Constant <value_ints = [3, 8, 16]> ()
        t = Concat <axis = 0> (b, rest)
        m = ReduceMean <keepdims = 1> (x, last)
        e = Expand (m, t)
        y = Neg (e)
    """
    result = rewritten(shapeless(body, {"last": ints(3)}, **OPEN), fold_constants, free_batch)
    assert ops(result) == ["ReduceMean", "Tile", "Neg"]
    assert result.nodes[1].inputs[1].values.tolist() == [1, 1, 1, 16]


def test_a_constant_with_the_fixed_batch_in_concat() -> None:
    source = shapeless("y = Concat <axis = 1> (x, k)", {"k": (1, 2, 8, 8)}, **FIXED)
    assert "Expand" in ops(rewritten(source, free_batch))


def test_one_row_of_a_constant_that_repeats_it() -> None:
    body, row = "y = Add (x, k)", np.arange(6, dtype=np.float32)
    shapes = {"inputs": "float[4,6] x", "outputs": "float[4,6] y"}
    net, _ = graph(body, {"k": np.tile(row, (4, 1))}, **shapes)
    assert free_batch(net)[2] == ()
    assert net.nodes[0].inputs[1].values.tolist() == [row.tolist()]
    net, _ = graph(body, {"k": np.arange(24, dtype=np.float32).reshape(4, 6)}, **shapes)
    assert "differs between the samples" in free_batch(net)[2][0].reason


RESIZE = 'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric">'


def test_resize_to_fixed_sizes() -> None:
    source = shapeless(f"{RESIZE} (x, , , sizes)", {"sizes": ints(1, 3, 16, 24)}, **FIXED)
    result = rewritten(source, free_batch)
    assert result.nodes[0].inputs[2].values.tolist() == [1, 1, 2, 3]


def test_resize_by_fractions() -> None:
    source = shapeless(f"{RESIZE} (x, , , sizes)", {"sizes": ints(1, 3, 11, 13)}, **FIXED)
    assert ops(rewritten(source, free_batch)) == ["Shape", "Concat", "Resize"]


def test_squeeze_without_axes() -> None:
    body = "g = GlobalAveragePool (x)\n y = Squeeze (g)"
    net, _ = graph(body, **FIXED)
    free_batch(net)
    assert net.nodes[1].inputs[1].values.tolist() == [2, 3]


KEPT = ["Reshape (r, t)", "Flatten (r)", "Expand (r, t)"]


@pytest.mark.parametrize("node", KEPT)
def test_what_keeps_the_shape_is_dropped(node: str) -> None:
    source = shapeless(
        f"r = Relu (x)\n f = {node}\n y = Neg (f)", {"t": ints(1, 6)},
        inputs="float[1,6] x", outputs="float y",
    )  # fmt: skip
    assert ops(rewritten(source, free_batch)) == ["Relu", "Neg"]


def test_a_reshape_that_mixes_samples_is_refused() -> None:
    net, _ = graph(
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(3, 8)},
        inputs="float[4,6] x", outputs="float[3,8] y",
    )  # fmt: skip
    (refusal,) = [r for r in free_batch(net)[2] if r.op == "Reshape"]
    assert "mixes samples" in refusal.reason
    assert "dynamic batch" in refusal.remedy


def test_an_output_without_samples_is_refused() -> None:
    net, _ = graph("y = ReduceMean <keepdims = 0> (x)", **OPEN)
    assert "does not keep the samples apart" in free_batch(net)[2][0].reason


def test_unknown_operators_do_not_stop_it() -> None:
    body = (
        "u = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n f = Reshape (u, t)\n"
        " y = Neg (f)"
    )
    net, _ = graph(body, {"k": 1.0, "t": ints(1, 192)}, **FIXED)
    net.nodes[0].domain = "nobody.knows"
    free_batch(net)
    assert net.nodes[1].inputs[1].values.tolist() == [-1, 192]


def test_a_target_that_depends_on_data_is_left() -> None:
    body = "n = NonZero (x)\n s = Shape <start = 1> (n)\n f = Reshape (x, s)\n y = Neg (f)"
    net, _ = graph(body, **OPEN)
    assert "not computed from shapes" in free_batch(net)[1][0].reason


def test_nothing_to_do() -> None:
    source = shapeless("y = Relu (x)", **OPEN)
    assert checked(source, free_batch)[1][0] == (0, (), ())


def test_resolve() -> None:
    assert resolve(ints(0, -1), (2, 3, 4), False) == (2, 12)
    assert resolve(ints(0, 0, 0, 0), (2, 3, 4), False) is None
    assert resolve(ints(5, -1), (2, 3, 4), False) is None
    assert resolve(ints(2, 13), (2, 3, 4), False) is None


def test_freed_target_with_several_batch_axes() -> None:
    shapes, batches = [(2, 6), (5, 6)], (2, 5)
    assert freed_target(shapes, [ints(2, 2, 3), ints(5, 2, 3)], 0, batches, None, False) == [
        -1,
        2,
        3,
    ]
    assert (
        freed_target([(4, 6), (25, 6)], [ints(2, 2, 6), ints(5, 5, 6)], 0, batches, None, False)
        is None
    )


def test_integers_computed_from_shapes_keep_their_type() -> None:
    """The end of a Slice that was computed: the shapes behind it are known all the same."""
    body = """
        r = Relu (x)
        sizes = Shape (r)
        width = Gather <axis = 0> (sizes, three)
        half = Div (width, two)
        part = Slice (r, zero, half, three)
        shape = Shape (part)
        n = Gather <axis = 0> (shape, zero)
        target = Concat <axis = 0> (n, rest)
        y = Reshape (part, target)
    """
    weights = {"zero": ints(0), "two": ints(2), "three": ints(3), "rest": ints(-1)}
    proto = shapeless(body, weights, **OPEN)
    del proto.graph.value_info[:]
    result = rewritten(proto, free_batch)
    assert result.outputs[0].shape == ["batch", 96]
    assert ops(result) == ["Relu", "Slice", "Reshape"]


def test_an_expand_that_broadcasting_does_with_the_constants_own_axes() -> None:
    """torch.bucketize: thresholds [3,1,1,1,1], expanded to one copy of the image for each."""
    body = """
        sizes = Shape (x)
        shape = Concat <axis = 0> (three, sizes)
        edges = Expand (thresholds, shape)
        above = Greater (x, edges)
        ones = Cast <to = 1> (above)
        y = ReduceSum <keepdims = 0> (ones, zero)
    """
    edges = np.array([0.25, 0.5, 0.75], np.float32).reshape(3, 1, 1, 1, 1)
    weights = {"three": ints(3), "zero": ints(0), "thresholds": edges}
    result = rewritten(shapeless(body, weights, **OPEN), free_batch)
    assert ops(result) == ["Greater", "Cast", "ReduceSum"]


def test_gather_out_of_all_samples_is_one_out_of_each() -> None:
    """What torch writes for ``as_strided``: everything in one axis, then the places in it."""
    body = (
        "m = ReduceMean <keepdims = 0> (x, image)\n f = Reshape (m, all)\n"
        "g = Gather <axis = 0> (f, places)\n r = Reshape (g, rows)\n y = Neg (r)"
    )
    weights = {
        "image": ints(2, 3), "all": ints(-1), "rows": ints(1, 3),
        "places": np.array([[[2], [0], [-2]]]),
    }  # fmt: skip
    result = rewritten(shapeless(body, weights, **FIXED), free_batch)
    gather = next(n for n in result.nodes if n.op == "Gather")
    assert gather.attrs["axis"] == 1


def test_gather_of_one_sample_is_refused() -> None:
    net, _ = graph("g = Gather <axis = 0> (x, place)\n y = Neg (g)", {"place": ints(0)[0]}, **FIXED)
    _, _, refused = free_batch(net)
    assert [r.op for r in refused][:1] == ["Gather"]


def test_a_constant_that_repeats_itself_is_shrunk() -> None:
    proto = model("y = Max (x, low)", {"low": np.zeros((1, 3, 8, 8), np.float32)},
                  inputs="float[1,3,8,8] x", outputs="float[1,3,8,8] y")  # fmt: skip
    result = rewritten(proto, free_batch)
    assert result.nodes[0].inputs[1].values.shape == (1, 1, 1, 1)


def test_a_constant_that_makes_its_operand_larger_stays() -> None:
    proto = model("y = Add (x, more)", {"more": np.ones((1, 3, 8, 8), np.float32)},
                  inputs="float[1,3,1,8] x", outputs="float[1,3,8,8] y")  # fmt: skip
    result = rewritten(proto, free_batch)
    assert result.nodes[0].inputs[1].values.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("target", [(1, 3, 8, 8), (2, 6, 1, 8)])
def test_expand_of_samples_is_a_tile(target: tuple[int, ...]) -> None:
    net, _ = graph(
        "m = ReduceMax <axes = [1,2]> (x)\n e = Expand (m, shape)\n y = Neg (e)",
        {"shape": ints(*target)}, inputs="float[2,3,8,8] x", outputs="float y",
    )  # fmt: skip
    free_batch(net)
    (tile,) = [n for n in net.nodes if n.op == "Tile"]
    assert tile.inputs[1].values.tolist() == [1, target[1], target[2], 1]


def apart(body: str, weights: dict[str, np.ndarray], inputs: str) -> gs.Graph:
    """The freed graph, which treats two of the batches that the model fixes as the model does."""
    proto = shapeless(body, weights, inputs=inputs, outputs="float y")
    sizes = [d.dim_value or 8 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal((2 * sizes[0], *sizes[1:])).astype(np.float32)
    wanted = [runtime.run(proto, {"x": half})["y"] for half in np.split(x, 2)]
    net, carried = import_graph(proto)
    _, skipped, refused = free_batch(net)
    assert (skipped, refused) == ((), ())
    np.testing.assert_allclose(run(net, carried, {"x": x})["y"], np.concatenate(wanted), rtol=1e-5)
    return net


FOUR = "float[4,6] x"
FREED: dict[str, tuple[str, dict[str, np.ndarray], str, list[str]]] = {
    "Expand to its own size": (
        "r = Relu (x)\n e = Expand (r, t)\n y = Neg (e)", {"t": ints(4, 6)}, FOUR,
        ["Relu", "Neg"]),
    "Expand to more axes inside": (
        "u = Unsqueeze (x, a)\n e = Expand (u, t)\n y = Neg (e)",
        {"t": ints(4, 5, 6), "a": ints(1)}, FOUR, ["Unsqueeze", "Tile", "Neg"]),
    "more rows than samples, and back": (
        "r = Reshape (x, t)\n q = Relu (r)\n y = Reshape (q, u)",
        {"t": ints(8, 3), "u": ints(4, -1)}, FOUR, ["Reshape", "Relu", "Reshape"]),
    "everything in one axis": (
        "r = Reshape (x, t)\n q = Relu (r)\n y = Reshape (q, u)",
        {"t": ints(24), "u": ints(4, 3, 2)}, FOUR, ["Reshape", "Relu", "Reshape"]),
    "rows of a condition": (
        "y = Where (c, x, z)",
        {"c": np.tile([True, False, True, True, False, True], (4, 1)), "z": np.float32([0])},
        FOUR, ["Where"]),
    "rows in Concat": (
        "y = Concat <axis = 1> (x, k)", {"k": np.tile(np.arange(3, dtype=np.float32), (4, 1))},
        FOUR, ["Shape", "Concat", "Expand", "Concat"]),
    "rows in Concat, and what goes on with their shape": (
        "c = Concat <axis = 1> (k, x)\n y = Reshape (c, t)",
        {"k": np.tile(np.arange(3, dtype=np.float32), (4, 1)), "t": ints(4, 3, 3)},
        FOUR, ["Shape", "Concat", "Expand", "Concat", "Reshape"]),
    "Resize with open sizes": (
        f"{RESIZE} (x, , , sizes)", {"sizes": ints(3, 3, 16, 16)}, "float[3,3,H,W] x",
        ["Shape", "Concat", "Resize"]),
    "Resize with open sizes, and what goes on with its shape": (
        f"u = {RESIZE[4:]} (x, , , sizes)\n r = Reshape (u, t)\n y = Neg (r)",
        {"sizes": ints(3, 3, 16, 16), "t": ints(3, 768)}, "float[3,3,H,W] x",
        ["Shape", "Concat", "Resize", "Reshape", "Neg"]),
    "Reshape with open sizes": (
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, 3, -1)}, "float[4,3,H,W] x",
        ["Shape", "Concat", "Reshape", "Neg"]),
    "Reshape with open sizes, and one that is kept": (
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, 0, -1)}, "float[4,3,H,W] x",
        ["Shape", "Concat", "Reshape", "Neg"]),
    "Reshape with open sizes, and what goes on with its shape": (
        "r = Reshape (x, t)\n q = Relu (r)\n y = Reshape (q, u)",
        {"t": ints(4, 3, -1), "u": ints(4, -1)}, "float[4,3,H,W] x",
        ["Shape", "Concat", "Reshape", "Relu", "Flatten"]),
    "Reshape with open sizes, beside a constant": (
        "r = Reshape (x, t)\n y = Concat <axis = 1> (r, k)",
        {"t": ints(4, 3, -1), "k": np.ones((4, 1, 64), np.float32)}, "float[4,3,H,W] x",
        ["Shape", "Shape", "Concat", "Concat", "Reshape", "Expand", "Concat"]),
    "Reshape with open sizes, one of them kept, beside a constant": (
        "r = Reshape (x, t)\n y = Concat <axis = 1> (r, k)",
        {"t": ints(4, 0, -1), "k": np.ones((4, 1, 64), np.float32)}, "float[4,3,H,W] x",
        ["Shape", "Shape", "Concat", "Concat", "Reshape", "Expand", "Concat"]),
    "Reshape to rows with open sizes": (
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, -1)}, "float[4,3,H,W] x",
        ["Flatten", "Neg"]),
    "Resize of some axes": (
        RESIZE.replace(">", ", axes = [2,3]>") + " (x, , , sizes)", {"sizes": ints(16, 24)},
        "float[3,3,8,8] x", ["Resize"]),
    "Resize by scales": (
        f"{RESIZE} (x, , scales)", {"scales": np.float32([1, 1, 2, 2])}, "float[3,3,8,8] x",
        ["Resize"]),
    "Gather of all samples": (
        "g = Gather <axis = -2> (x, i)\n y = Neg (g)", {"i": ints(0, 1, 2, 3)}, FOUR,
        ["Reshape", "Gather", "Neg"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FREED)
def test_two_fixed_batches_at_once(case: str) -> None:
    body, weights, inputs, left = FREED[case]
    assert ops(apart(body, weights, inputs)) == left


COUNTED: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "Reshape": ("r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, 2, 3)}, FOUR),
    "Reshape with open sizes": (
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, 3, -1)}, "float[4,3,H,W] x"),
    "Reshape to rows with open sizes": (
        "r = Reshape (x, t)\n y = Neg (r)", {"t": ints(4, -1)}, "float[4,3,H,W] x"),
    "Resize": (f"{RESIZE} (x, , , sizes)", {"sizes": ints(3, 3, 16, 16)}, "float[3,3,8,8] x"),
    "Resize with open sizes": (
        f"{RESIZE} (x, , , sizes)", {"sizes": ints(3, 3, 16, 16)}, "float[3,3,H,W] x"),
    "nothing to squeeze": (
        "u = Relu (x)\n s = Squeeze (u, axes)\n y = Neg (s)", {"axes": ints(1)}, "float[4,1,6] x"),
    "Squeeze": ("s = Squeeze (x)\n y = Neg (s)", {}, "float[4,1,6] x"),
    "Expand to a Tile": (
        "u = Relu (x)\n e = Expand (u, t)\n y = Neg (e)", {"t": ints(4, 5, 6)}, "float[4,1,6] x"),
    "Expand to one row": (
        "u = Relu (x)\n e = Expand (u, t)\n y = Neg (e)", {"t": ints(1, 6)}, FOUR),
    "Concat": ("y = Concat <axis = 1> (x, k)", {"k": np.ones((4, 3), np.float32)}, FOUR),
    "one row": ("y = Add (x, k)", {"k": np.tile(np.arange(6, dtype=np.float32), (4, 1))}, FOUR),
    "Gather": ("g = Gather <axis = 0> (x, i)\n y = Neg (g)", {"i": ints(0, 1, 2, 3)}, FOUR),
    "nothing": ("y = Add (x, k)", {"k": np.arange(6, dtype=np.float32)}, FOUR),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTED)
def test_it_says_how_many_nodes_changed(case: str) -> None:
    body, weights, inputs = COUNTED[case]
    net, _ = import_graph(shapeless(body, weights, inputs=inputs, outputs="float y"))
    assert free_batch(net)[0] == (0 if case.startswith("nothing") else 1)


def test_an_expand_that_its_operand_needs_stays() -> None:
    body = (
        "b = Shape <start = 0, end = 1> (x)\n t = Concat <axis = 0> (b, rest)\n"
        " e = Expand (k, t)\n y = Add (x, e)"
    )
    source = shapeless(body, {"k": 0.5, "rest": ints(3, 6)}, inputs="float[batch,1,6] x",
                       outputs="float y")  # fmt: skip
    result = rewritten(source, free_batch)
    assert "Expand" in ops(result)
    assert result.outputs[0].shape == ["batch", 3, 6]


@pytest.mark.parametrize("operands", ["e", "e, u"])
def test_an_expand_beside_nothing_that_is_known_stays(operands: str) -> None:
    body = (
        "u = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n s = Shape (x)\n"
        f" e = Expand (k, s)\n m = Max ({operands})\n y = Add (m, u)"
    )
    net, _ = graph(body, {"k": 1.0}, **OPEN)
    net.nodes[0].domain = "nobody.knows"
    free_batch(net)
    assert "Expand" in [n.op for n in net.nodes]


def test_a_foreign_operator_with_a_standard_name_tells_no_shape() -> None:
    net, _ = graph("u = Flatten (x)\n y = Neg (u)", **OPEN)
    net.nodes[0].domain = "nobody.knows"
    trial = Trial(2)
    walk(net, [trial])
    assert trial.shapes == {"x": (2, 3, 8, 8)}


def test_types_of_a_file_for_four_samples() -> None:
    """Of other numbers of samples the sum would have no shape, and so no type."""
    proto = shapeless(
        "r = Reshape (x, t)\n a = Add (r, z)\n c = Cast <to = 7> (a)\n y = Neg (c)",
        {"t": ints(4, 3, 2)}, inputs="float[4,6] x, float[4,3,2] z", outputs="int64 y",
    )  # fmt: skip
    del proto.graph.value_info[:]
    net, _ = import_graph(proto)
    for node in net.nodes:
        node.outputs[0].dtype = None
    infer_types(net)
    found = [n.outputs[0].dtype for n in net.nodes]
    assert None not in found
    assert [np.dtype(d).name for d in found] == ["float32", "float32", "int64", "int64"]


ENTANGLED: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "rows that differ in Concat": (
        "y = Concat <axis = 1> (x, k)", {"k": np.arange(12, dtype=np.float32).reshape(4, 3)},
        "constant k differs between the samples"),
    "rows that differ in a condition": (
        "y = Where (c, x, z)", {"c": np.arange(24).reshape(4, 6) % 5 > 2, "z": np.float32([0])},
        "constant c differs between the samples"),
    "samples in another order": (
        "g = Gather <axis = 0> (x, i)\n y = Neg (g)", {"i": ints(3, 2, 1, 0)},
        "picks values by their sample's place"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENTANGLED)
def test_what_differs_between_samples_is_refused(case: str) -> None:
    body, weights, reason = ENTANGLED[case]
    net, _ = graph(body, weights, inputs=FOUR, outputs="float[4,M] y")
    assert reason in free_batch(net)[2][0].reason


@pytest.mark.parametrize(
    ("target", "op"),
    [
        (ints(1, -1), "Flatten"),
        (ints(1, -1, 2), "Reshape"),
        (ints(3, -1), None),
        (ints(), None),
    ],
)
def test_a_target_for_a_tensor_of_unknown_shape(target: np.ndarray, op: str | None) -> None:
    """An entry that is the fixed batch is taken for it; another target stays as it is."""
    body = "u = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n f = Reshape (u, t)\n"
    net, _ = graph(body + " y = Neg (f)", {"k": 1.0, "t": target}, **FIXED)
    net.nodes[0].domain = "nobody.knows"
    free_batch(net)
    (neg,) = (n for n in net.nodes if n.op == "Neg")
    made = neg.inputs[0].inputs[0]
    assert made.op == (op or "Reshape")
    if op == "Reshape":
        batch, rest = made.inputs[1].inputs[0].inputs
        assert (batch.inputs[0].op, batch.inputs[0].inputs[0].name) == ("Shape", "u")
        assert rest.values.tolist() == [-1, 2]
    if op is None:
        assert made.inputs[1].values.tolist() == target.tolist()


def test_squeeze_of_a_tensor_of_unknown_shape_is_left() -> None:
    body = "u = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n y = Squeeze (u)"
    net, _ = graph(body, {"k": 1.0}, **FIXED)
    net.nodes[0].domain = "nobody.knows"
    skipped = free_batch(net)[1]
    assert [s.reason for s in skipped] == ["its axes are not named and its input is unknown"]


OWN = {
    "twice the batch": ("d = Mul (b, two)\n t = Concat <axis = 0> (d, rest)", "Expand"),
    "the batch twice": ("t = Concat <axis = 0> (b, b, rest)", "Expand"),
}


@pytest.mark.parametrize("case", OWN)
def test_an_expand_to_another_multiple_of_the_batch_is_left(case: str) -> None:
    target, op = OWN[case]
    body = (
        f"b = Shape <start = 0, end = 1> (x)\n {target}\n e = Expand (k, t)\n"
        " s = ReduceSum <keepdims = 0> (e)\n y = Add (x, s)"
    )
    weights = {"two": ints(2), "rest": ints(3), "k": np.float32([0.5])}
    proto = shapeless(body, weights, inputs="float[batch,6] x", outputs="float y")
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    wanted = runtime.run(proto, {"x": x})["y"]
    net, carried = import_graph(proto)
    free_batch(net)
    assert op in ops(net)
    np.testing.assert_allclose(run(net, carried, {"x": x})["y"], wanted, rtol=1e-6)


def test_open_sizes_behind_more_than_the_batch_are_left() -> None:
    body = (
        "s = Shape (x)\n b = Shape <start = 0, end = 1> (x)\n d = Mul (b, three)\n"
        " h = Shape <start = 2> (x)\n t = Concat <axis = 0> (d, h)\n r = Relu (x)\n"
        " f = Reshape (r, t)\n q = Neg (f)\n y = Reshape (q, s)"
    )
    source = shapeless(body, {"three": ints(3)}, **ANY)
    net, (found,) = checked(source, free_batch)
    assert ops(net).count("Reshape") == 2
    assert "its first axis is more than the batch" in found[1][0].reason


def test_reshape_of_a_constant_is_left() -> None:
    body = (
        "s = Shape <start = 1, end = 2> (x)\n t = Concat <axis = 0> (one, s)\n"
        " k = Reshape (row, t)\n y = Add (x, k)"
    )
    weights = {"row": np.arange(6, dtype=np.float32), "one": ints(1)}
    proto = shapeless(body, weights, inputs="float[batch,6] x", outputs="float y")
    result = rewritten(proto, free_batch, fold_constants)
    assert ops(result) == ["Add"]


KNOWN_BY_ITSELF = {
    "sizes of another tensor": (
        "s = Shape (x)\n y = Resize <mode = \"nearest\"> (x, , , s)", {}, "Resize"),
    "places that are computed": (
        "m = ReduceMax <axes = [1,2,3], keepdims = 0> (x)\n i = ArgMax <keepdims = 0> (m)\n"
        " g = Gather <axis = 1> (x, i)\n y = Neg (g)", {}, "Gather"),
    "a missing limit": ("y = Clip (x, , top)", {"top": 0.5}, "Clip"),
    "a tensor expanded elsewhere": (
        "m = ReduceMean <axes = [1]> (x)\n s = Shape (x)\n e = Expand (m, s)\n y = Sub (x, e)",
        {}, "Tile"),
    "a batch put in the middle": (
        "n = Shape <start = 0, end = 1> (x)\n t = Concat <axis = 0> (three, n, eight, eight)\n"
        " k = Expand (half, t)\n p = Transpose <perm = [1,0,2,3]> (k)\n"
        " y = Concat <axis = 1> (x, p)",
        {"three": ints(3), "eight": ints(8), "half": 0.5}, "Expand"),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN_BY_ITSELF)
def test_what_follows_the_batch_by_itself_stays(case: str) -> None:
    body, weights, op = KNOWN_BY_ITSELF[case]
    source = shapeless(body, weights, **OPEN, opset=17)
    assert op in ops(rewritten(source, fold_constants, free_batch))


@pytest.mark.parametrize(("share", "left"), [(1e-8, ["Mul"]), (1e-5, None)])
def test_numbers_that_differ_by_rounding_are_constant(share: float, left: list[str] | None) -> None:
    """``1 + share * batch``, at batches of 2 and 5."""
    body = (
        "b = Shape <end = 1> (x)\n f = Cast <to = 1> (b)\n g = Mul (f, share)\n"
        " k = Add (one, g)\n y = Mul (x, k)"
    )
    weights = {"share": np.float32([share]), "one": np.float32([1])}
    net, _ = import_graph(shapeless(body, weights, **OPEN))
    free_batch(net)
    found = [n.op for n in net.nodes]
    assert (found == left) if left else ("Add" in found)
    if left:
        assert net.nodes[0].inputs[1].values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("kind", "copies"), [(np.float32, True), (np.float16, False), (np.float64, False)]
)
def test_a_rounded_copy_takes_the_value_of_its_constant(kind: type, copies: bool) -> None:
    """A constant of the same type and shape; another one is no copy."""
    step = np.array([0.3137, 0.217], kind)
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    body = (
        f"b = Shape <end = 1> (x)\n f = Cast <to = {to}> (b)\n a = Mul (f, step)\n"
        " q = Div (a, f)\n k = Cast <to = 1> (q)\n y = Mul (x, k)"
    )
    net, _ = import_graph(shapeless(body, {"step": step}, inputs="float[batch,2] x",
                                    outputs="float y"))  # fmt: skip
    free_batch(net)
    fold_constants(net)
    (mul,) = net.nodes
    if copies:
        assert mul.inputs[1].values.tobytes() == step.tobytes()
    np.testing.assert_allclose(mul.inputs[1].values, step.astype(np.float32), rtol=1e-3)


def test_a_copy_that_is_rounded_alike_at_every_batch_takes_the_value_of_its_constant() -> None:
    """``step + b - b``, where b is the batch: off by less than a millionth."""
    step = np.random.default_rng(0).uniform(0.7, 1, 100).astype(np.float32)
    copies = [step + np.float32(b) - np.float32(b) for b in (2, 5)]
    step = step[(copies[0] == copies[1]) & (copies[0] != step)][:2]
    body = (
        "b = Shape <end = 1> (x)\n f = Cast <to = 1> (b)\n a = Add (step, f)\n"
        " q = Sub (a, f)\n y = Mul (x, q)"
    )
    net, _ = import_graph(shapeless(body, {"step": step}, inputs="float[batch,2] x",
                                    outputs="float y"))  # fmt: skip
    free_batch(net)
    assert len(step) == 2
    assert net.nodes[-1].inputs[1].values.tobytes() == step.tobytes()


def test_a_resize_to_sizes_that_hold_the_batch_elsewhere_is_refused() -> None:
    body = (
        f"t = Transpose <perm = [1,0,2,3]> (x)\n u = {RESIZE[4:]} (t, , , sizes)\n"
        " y = Transpose <perm = [1,0,2,3]> (u)"
    )
    net, _ = graph(body, {"sizes": ints(3, 4, 16, 16)}, inputs="float[4,3,8,8] x",
                   outputs="float[4,3,16,16] y")  # fmt: skip
    assert "does not keep the samples apart" in free_batch(net)[2][0].reason


@pytest.mark.parametrize("axis", [0, -4])
def test_a_gather_of_samples_of_a_free_batch_stays(axis: int) -> None:
    net, _ = graph(f"g = Gather <axis = {axis}> (x, i)\n y = Neg (g)", {"i": ints(0)}, **OPEN)
    _, _, refused = free_batch(net)
    assert ops(net) == ["Gather", "Neg"]
    assert ["does not keep the samples apart" in r.reason for r in refused] == [True]


def test_every_output_without_samples_is_refused() -> None:
    body = "y = ReduceMean <keepdims = 0> (x)\n z = Transpose <perm = [1,0]> (x)\n u = Relu (x)"
    outputs = "float y, float[6,4] z, float[4,6] u"
    net, _ = graph(body, inputs="float[4,6] x", outputs=outputs)
    assert [r.op for r in free_batch(net)[2]] == ["ReduceMean", "Transpose"]
    assert net.outputs[2].shape == ["N", 6]


def test_open_sizes_of_outputs_get_names() -> None:
    body = "y = Relu (x)\n f = Flatten (x)\n z = Transpose <perm = [0,3,1,2]> (x)"
    outputs = "float[batch,3,height,width] y, float[batch,M] f, float[a,b,c,d] z"
    net, _ = graph(body, inputs=ANY["inputs"], outputs=outputs)
    assert free_batch(net)[1:] == ((), ())
    shapes = {t.name: t.shape for t in net.outputs}
    assert shapes["y"] == ["batch", 3, "y_2", "y_3"]
    assert shapes["f"] == ["batch", "f_1"]
    assert shapes["z"] == ["batch", "z_1", 3, "z_3"]


@pytest.mark.parametrize(
    ("dim", "name"), [("4", "N"), ("batch", "batch"), ("1", "N"), ("", "N"), ("0", "N")]
)
def test_the_batch_of_an_input_gets_a_name(dim: str, name: str) -> None:
    net, _ = graph("y = Relu (x)", inputs="float[N,6] x, float s", outputs="float[N,6] y")
    net.inputs[0].shape = [int(dim) if dim.isdigit() else dim or None, 6]
    free_batch(net)
    assert net.inputs[0].shape == net.outputs[0].shape == [name, 6]
    assert list(net.inputs[1].shape) == []


def test_an_output_of_unknown_shape_keeps_its_sizes_but_for_the_batch() -> None:
    body = "y = na_convert.Staircase <levels: int = 3> (x, k, k, k, k)\n z = Neg (y)"
    net, _ = graph(body, {"k": 1.0}, inputs="float[4,6] x", outputs="float[4,7] y, float[4,6] z")
    net.nodes[0].domain = "nobody.knows"
    net.outputs[1].shape = None
    assert free_batch(net)[2] == ()
    assert [t.shape for t in net.outputs] == [["N", 7], None]


def test_an_input_that_is_an_output_has_the_batch() -> None:
    net, _ = graph("y = Relu (x)", inputs="float[4,6] x", outputs="float[4,6] x, float[4,6] y")
    assert free_batch(net)[2] == ()
    assert [t.shape for t in net.outputs] == [["N", 6], ["N", 6]]


def test_the_first_input_with_axes_tells_the_batch() -> None:
    net, _ = graph(
        "r = Reshape (x, t)\n y = Add (r, s)", {"t": ints(4, 3, 2)},
        inputs="float s, float[4,6] x", outputs="float[4,3,2] y",
    )  # fmt: skip
    free_batch(net)
    assert net.nodes[0].inputs[1].values.tolist() == [-1, 3, 2]


def test_an_output_with_time_first_is_refused_with_what_to_do() -> None:
    net, _ = graph("y = Transpose <perm = [2,0,1]> (x)", inputs="float[N,3,8] x",
                   outputs="float[8,N,3] y")  # fmt: skip
    (refusal,) = free_batch(net)[2]
    assert "has its samples along axis 1, not 0" in refusal.reason
    assert "transpose it" in refusal.remedy
