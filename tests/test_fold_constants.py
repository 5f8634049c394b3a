from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes import fold_constants as folding
from na_convert.passes.fold_constants import fold_constants

from na_convert import size_guard
from na_convert.errors import ModelError
from na_convert.graph import import_graph, is_constant

from .build import graph, model
from .same import ops, rewritten

ROW = {"inputs": "float[N,6] x", "outputs": "float[N,C] y"}


@pytest.mark.parametrize(
    "spelling",
    ["value = float {2.0}", "value_float = 2.0", "value = float[1] {2.0}", "value_floats = [2.0]"],
)
def test_constant_nodes(spelling: str) -> None:
    result = rewritten(
        model(f"c = Constant <{spelling}> ()\n y = Mul (x, c)", **ROW), fold_constants
    )
    assert ops(result) == ["Mul"]
    assert result.nodes[0].inputs[1].name == "c"


def test_identity_of_an_initialiser_is_the_initialiser() -> None:
    net, _ = graph("k = Identity (w)\n a = MatMul (x, w)\n y = MatMul (a, k)", {"w": (6, 6)}, **ROW)
    fold_constants(net)
    first, second = net.nodes
    assert first.inputs[1] is second.inputs[1]


def test_constant_arithmetic_casts_and_shapes() -> None:
    body = """
        whole = Constant <value = int64[2] {6, 6}> ()
        i = Constant <value_int = 3> ()
        f = Cast <to = 1> (i)
        g = CastLike (i, w)
        h = Expand (f, whole)
        k = Add (h, g)
        flat = Reshape (k, whole)
        v = Mul (w, flat)
        y = MatMul (x, v)
    """
    assert ops(rewritten(model(body, {"w": (6, 6)}, **ROW), fold_constants)) == ["MatMul"]


def test_castlike_towards_a_tensor_of_known_type() -> None:
    net, _ = graph("i = Constant <value_int = 3> ()\n f = CastLike (i, x)\n y = Mul (x, f)", **ROW)
    fold_constants(net)
    assert ops(net) == ["Mul"]
    assert net.nodes[0].inputs[1].values.dtype == np.float32


def test_lsq_weight_subgraph() -> None:
    body = """
        a = Div (w, s)
        b = Clip (a, low, high)
        c = Round (b)
        d = Sub (c, b)
        e = Add (d, b)
        v = Mul (e, s)
        y = MatMul (x, v)
    """
    weights = {"w": (6, 6), "s": 0.1, "low": -4.0, "high": 3.0}
    assert ops(rewritten(model(body, weights, **ROW), fold_constants)) == ["MatMul"]


def test_quantised_weight() -> None:
    body = "q = QuantizeLinear (w, s, z)\n v = DequantizeLinear (q, s, z)\n y = MatMul (x, v)"
    weights = {"w": (6, 6), "s": 0.02, "z": np.int8(0)[...]}
    assert ops(rewritten(model(body, weights, **ROW), fold_constants)) == ["MatMul"]


def test_qonnx_weight() -> None:
    quantiser = gs.Node(
        "Quant", "q", {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"},
        [gs.Constant(n, np.asarray(v, np.float32)) for n, v in
         (("w", [[0.9, -7.0]]), ("s", 0.5), ("z", 0.0), ("b", 3.0))],
        [gs.Variable("v")], domain="onnx.brevitas",
    )  # fmt: skip
    x, y = gs.Variable("x", np.float32, (1, 1)), gs.Variable("y", np.float32)
    product = gs.Node("MatMul", "m", {}, [x, quantiser.outputs[0]], [y])
    net = gs.Graph([quantiser, product], [x], [y], opset=17)
    fold_constants(net)
    assert ops(net) == ["MatMul"]
    assert net.nodes[0].inputs[1].values.tolist() == [[1.0, -1.5]]


def test_if_with_a_constant_condition_is_inlined() -> None:
    body = """
        c = Constant <value = bool {0}> ()
        s = Relu (x)
        y = If (c) <
            then_branch = yes () => (float[N,6] a) { a = Neg (s) },
            else_branch = no () => (float[N,6] b) { h = Tanh (s) b = Abs (h) }
        >
    """
    result = rewritten(model(body, **ROW), fold_constants)
    assert ops(result) == ["Relu", "Tanh", "Abs"]
    assert result.outputs[0].name == "y"


def test_if_whose_branch_passes_a_tensor_on() -> None:
    body = """
        c = Constant <value = bool {1}> ()
        s = Relu (x)
        t = If (c) <
            then_branch = yes () => (float[N,6] a) { a = Identity (s) },
            else_branch = no () => (float[N,6] b) { b = Abs (s) }
        >
        y = Neg (t)
    """
    assert "If" not in ops(rewritten(model(body, **ROW), fold_constants))


ALIKE = {
    "weights of two branches": (
        ("t", "s", "a = Add (s, k)", "<float[1,6] k = {1,2,3,4,5,6}>"),
        ("u", "t", "a = Mul (t, k)", "<float[1,6] k = {6,5,4,3,2,1}>")),
    "weights that two branches give out": (
        ("p", "s", "", "<float[1,6] a = {1,2,3,4,5,6}>"),
        ("q", "s", "", "<float[1,6] a = {6,5,4,3,2,1}>")),
}  # fmt: skip


@pytest.mark.parametrize("case", ALIKE)
def test_branches_that_call_different_weights_alike(case: str) -> None:
    inlined = "".join(
        f"""{output} = If (c) <
            then_branch = yes{k} () => (float[N,6] a) {weight} {{ {body} }},
            else_branch = no{k} () => (float[N,6] b) {{ b = Abs ({other}) }}
        >\n"""
        for k, (output, other, body, weight) in enumerate(ALIKE[case])
    )
    end = "y = Neg (u)" if "out" not in case else "v = Mul (s, p)\n y = Add (v, q)"
    text = f"c = Constant <value = bool {{1}}> ()\n s = Relu (x)\n {inlined} {end}"
    result = rewritten(model(text, **ROW), fold_constants)
    assert "If" not in ops(result)
    weights = [t for n in result.nodes for t in n.inputs if is_constant(t)]
    assert len({t.name for t in weights}) == len(weights) == 2


def test_what_a_branch_gives_out_and_reads_itself() -> None:
    body = """
        c = Constant <value = bool {1}> ()
        s = Relu (x)
        t, u = If (c) <
            then_branch = yes () => (float[N,6] a, float[N,6] b) { a = Neg (s) b = Abs (a) },
            else_branch = no () => (float[N,6] d, float[N,6] e) { d = Abs (s) e = Neg (s) }
        >
        y = Sub (t, u)
    """
    assert ops(rewritten(model(body, **ROW), fold_constants)) == ["Relu", "Neg", "Abs", "Sub"]


def test_random_nodes_stay() -> None:
    net, _ = graph("r = RandomNormal <shape = [1, 6]> ()\n y = Add (x, r)", **ROW)
    fold_constants(net)
    assert "RandomNormal" in ops(net)


def test_graph_outputs_stay_computed() -> None:
    net, _ = graph("y = Add (w, w)\n z = Relu (x)", {"w": (6,)}, inputs="float[N,6] x",
                   outputs="float[6] y, float[N,6] z")  # fmt: skip
    fold_constants(net)
    assert ops(net) == ["Add", "Relu"]


def test_large_expansions_stay() -> None:
    body = "s = Constant <value_ints = [2000, 1000]> ()\n e = Expand (k, s)\n y = MatMul (e, x)"
    net, _ = graph(body, {"k": 0.5}, inputs="float[1000,6] x", outputs="float[N,6] y")
    _, skipped = fold_constants(net)
    assert ops(net) == ["Expand", "MatMul"]
    assert "more than" in skipped[0].reason


def test_what_cannot_be_evaluated_stays_with_a_reason() -> None:
    proto = model("a = Relu (w)\n y = Add (x, a)", {"w": (6,)}, **ROW)
    proto.graph.node[0].domain = "nobody.knows"
    proto.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
    net, _ = import_graph(proto)
    _, skipped = fold_constants(net)
    assert ops(net) == ["Relu", "Add"]
    assert "cannot be evaluated" in skipped[0].reason


def grown(step: str, rounds: int) -> str:
    """Constants made of constants: ``step`` writes {y} from {x}."""
    steps = [step.format(x=f"k{k}", y=f"k{k + 1}") for k in range(rounds)]
    return "\n".join(["k0 = Reshape (k, all)", *steps, f"y = Concat <axis = 0> (x, k{rounds})"])


@pytest.mark.parametrize(
    "step",
    [
        "{y} = Concat <axis = 0> ({x}, {x})",
        "{y} = Tile ({x}, two)",
        "{y}r = Reshape ({x}, column)\n{y}a = Add ({y}r, pair)\n{y} = Reshape ({y}a, all)",
    ],
)
def test_constants_that_double_and_double_are_refused(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """No step makes four times what it is given, and a million elements are past the third."""
    monkeypatch.setattr(size_guard, "MOST_CONSTANT", 2**12)
    given = {
        "k": (8,), "two": np.array([2]), "all": np.array([-1]), "column": np.array([-1, 1]),
        "pair": np.zeros((1, 2), np.float32),
    }  # fmt: skip
    net, _ = graph(grown(step, 20), given, inputs="float[N] x", outputs="float[N] y")
    with pytest.raises(ModelError, match=r"elements with those before it, more than 4\.1e\+03"):
        fold_constants(net)


@pytest.mark.parametrize(
    "text",
    ["w = Pad (k, more)", "w = Add (c, r)", "w = ConvTranspose <strides = [9000, 9000]> (p, p)"],
)
def test_what_grows_past_the_limit_in_one_step_is_refused(text: str) -> None:
    """Whatever the operator: nothing of 2^24 elements is made of little."""
    given = {
        "k": (8, 8), "more": np.array([0, 0, 0, 2**22]), "p": (1, 1, 2, 2),
        "c": (5000, 1), "r": (1, 5000),
    }  # fmt: skip
    net, _ = graph(f"{text}\n y = Add (x, w)", given, **ROW)
    with pytest.raises(ModelError, match="would make a constant of"):
        fold_constants(net)


def test_parts_of_a_weight_are_put_together_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the file holds anyway: eight parts make no more than eight parts."""
    monkeypatch.setattr(folding, "MOST_CONSTANT", 100)
    monkeypatch.setattr(folding, "LARGE", 50)
    parts = {f"w{k}": (6, 10) for k in range(8)}
    body = f"w = Concat <axis = 1> ({', '.join(parts)})\n y = MatMul (x, w)"
    assert ops(rewritten(model(body, parts, **ROW), fold_constants)) == ["MatMul"]


def test_one_part_many_times_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST_CONSTANT", 100)
    body = f"w = Concat <axis = 1> ({', '.join(['k'] * 8)})\n y = MatMul (x, w)"
    net, _ = graph(body, {"k": (6, 10)}, **ROW)
    with pytest.raises(ModelError, match=r"'Concat_0' \(Concat\) would make .* 480 elements"):
        fold_constants(net)


def test_what_was_made_before_counts() -> None:
    """60 elements, then 60 more: 120 with those before, more than 100."""
    body = "u = Neg (k)\n v = Neg (u)\n y = MatMul (x, v)"
    net, _ = graph(body, {"k": (6, 10)}, **ROW)
    allowance = folding.Allowance(net)
    allowance.most = allowance.left = 100
    with pytest.raises(ModelError, match=r"of 120 elements with those before it, more than 100:"):
        fold_constants(net, allowance)


def test_ranges() -> None:
    """Folded, with as many elements as they have; refused where these are too many."""
    body = "r = Range (low, high, step)\n y = Add (x, r)"
    net, _ = graph(body, {"low": 0.0, "high": 3.0, "step": 0.5}, **ROW)
    fold_constants(net)
    assert net.nodes[0].inputs[1].values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    net, _ = graph(body, {"low": 0.0, "high": 1e30, "step": 0.5}, **ROW)
    with pytest.raises(ModelError, match=r"\(Range\) would make a constant of 2e\+30 elements"):
        fold_constants(net)


@pytest.mark.parametrize("numbers", [(0.0, np.inf, 1.0), (0.0, 1.0, 0.0), (np.nan, 1.0, 1.0)])
def test_ranges_that_are_none_stay_with_a_reason(numbers: tuple[float, float, float]) -> None:
    given = dict(zip(("low", "high", "step"), numbers, strict=True))
    net, _ = graph("r = Range (low, high, step)\n y = Add (x, r)", given, **ROW)
    _, skipped = fold_constants(net)
    assert ops(net) == ["Range", "Add"]
    assert "Range" in skipped[0].reason


def test_a_range_up_to_no_number_stays_with_a_reason() -> None:
    given = {"low": 0.0, "high": np.zeros(0, np.float32), "step": 1.0}
    net, _ = graph("r = Range (low, high, step)\n y = Add (x, r)", given, **ROW)
    _, skipped = fold_constants(net)
    assert ops(net) == ["Range", "Add"]
    assert "Range" in skipped[0].reason


def test_if_whose_branch_is_a_weight_and_the_output() -> None:
    body = """
        c = Constant <value = bool {1}> ()
        y = If (c) <
            then_branch = yes () => (float[1,6] a) <float[1,6] a = {1,2,3,4,5,6}> { },
            else_branch = no () => (float[N,6] b) { b = Abs (x) }
        >
    """
    net, _ = graph(body, **ROW)
    fold_constants(net)
    assert ops(net) == ["Identity"]
    assert net.nodes[0].inputs[0].values.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert net.nodes[0].outputs[0] is net.outputs[0]
