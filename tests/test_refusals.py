"""The table of what cannot spike: every function once, with the reason that `explain` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console

import na_convert
from na_convert import report
from na_convert.errors import NotConvertible
from na_convert.results import Refusal

from . import build

GOOD = (
    "{o}d = Div ({i}, step)\n{o}r = Round ({o}d)\n{o}k = Clip ({o}r, zero, top)\n"
    "{o} = Mul ({o}k, step)"
)
WEIGHTS = {
    "w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (4, 4, 1, 1),
    "wg": (4, 4, 1, 1), "step": 0.25, "zero": 0.0, "one": 1.0, "two": 2.0, "top": 3.0, "six": 6.0,
    "half": 0.5, "tiny": 1e-6, "more": 1.001, "beyond": 2.6,
}  # fmt: skip
SAMPLE = "float[N,4,8,8]"


def between(body: str, path: Path, **weights: np.ndarray) -> Path:
    """A file where ``body``, from a to b, stands between two neurons that convert."""
    nodes = [
        "c1 = Conv (x, w1)", GOOD.format(i="c1", o="p"), "a = Conv (p, w2)", body,
        "c3 = Conv (b, w3)", GOOD.format(i="c3", o="q"), "y = Conv (q, w4)",
    ]  # fmt: skip
    text = "\n".join(nodes)
    given = {"w1", "w2", "w3", "w4", "step", "zero", "top"}
    read = {word.strip("(),") for word in body.split()}
    used = {k: v for k, v in {**WEIGHTS, **weights}.items() if k in given | read}
    proto = build.model(text, used, outputs=f"{SAMPLE} y")
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    onnx.save(proto, path)
    return path


def refused(path: Path) -> tuple[Refusal, ...]:
    return na_convert.inspect(path).refused


def ladder(thresholds: str, heights: str) -> str:
    lines, terms = [], []
    for k, (threshold, height) in enumerate(zip(thresholds.split(), heights.split(), strict=True)):
        lines.append(f"g{k} = Greater (a, {threshold})\nf{k} = Cast <to: int = 1> (g{k})")
        lines.append(f"m{k} = Mul (f{k}, {height})")
        terms.append(f"m{k}")
    return "\n".join([*lines, f"b = Sum ({', '.join(terms)})"])


ROUND = "d = Div (a, half)\nr = Round (d)\n"
GELU = "s = Div (a, two)\ne = Erf (s)\nv = Add (e, one)\nm = Mul (a, v)\nb = Mul (m, half)"
BRANCH = (
    f"b = If (go) <then_branch = yes () => ({SAMPLE} up) {{ up = Relu (a) }}, "
    f"else_branch = no () => ({SAMPLE} down) {{ down = Neg (a) }}>"
)
CASES = {
    "apot": (ladder("half one two", "half half one"), "Cast_f0", "(0, 0.5, 1, 2)", "uniform"),
    "rounded table": (
        ladder("half one two", "one more one"), "Cast_f0", "(0, 1, 2.001, 3.001)", "uniform"
    ),
    "nearly even": (
        ladder("zero one two", "one more one"), "Cast_f0", "(0, 1, 2.001, 3.001)", "k * step"
    ),
    "jumps": (
        ladder("zero one beyond", "one one one"), "Cast_f0", "even levels, but jumps", "uniform"
    ),
    "no highest": (f"{ROUND}b = Relu (r)", "Round_r", "no highest level", "clip"),
    "neither end": (f"{ROUND}b = Mul (r, half)", "Round_r", "no lowest and no highest", "clip"),
    "leaky": ("b = LeakyRelu (a)", "LeakyRelu_b", "at -1024 it is -10.24", "quantised"),
    "silu": ("s = Sigmoid (a)\nb = Mul (a, s)", "Sigmoid_s", "a ReLU would be 0", "quantised"),
    "gelu": (GELU, "Erf_e", "Erf is smooth", "quantised"),
    "turning": (
        f"{ROUND}k = Clip (r, minus, top)\nb = Abs (k)", "Abs_b", "from 3 to 0 at ", "quantised"
    ),
    "logarithm": ("l = Log (a)\nb = Clip (l, zero, top)", "Log_l", "at 0 it is -inf", "clip its"),
    "unlike channels": (
        f"{ROUND}l = Max (r, zero)\nb = Min (l, tops)", "Min_b",
        "3 levels in one channel and 7 in another (channels 0 and 2)", "same number",
    ),
    "half a line": (
        "k = Clip (a, zero, top)\nr = Round (k)\nb = Add (r, k)", "Add_b",
        "at 0.5 it is 0.5, a clip would be 1", "quantised",
    ),
    "noise": (
        "e = RandomUniformLike (a)\nv = Add (a, e)\nr = Round (v)\nb = Clip (r, zero, top)",
        "RandomUniformLike_e", "its mean is not zero but 0.5", "eval",
    ),
    "gate": ("s = HardSigmoid (p)\nb = Mul (a, s)", "Mul_b", "'a' and 's' (gating)", "train"),
    "layer norm": (
        "m = ReduceMean <axes: ints = [1]> (a)\nd = Sub (a, m)\ns = Pow (d, two)\n"
        "v = ReduceMean <axes: ints = [1]> (s)\nw = Add (v, tiny)\nr = Sqrt (w)\nb = Div (d, r)",
        "Div_b", "divides by 'r', statistics of the spikes", "BatchNorm",
    ),
    "divided": (
        "m = ReduceMax <axes: ints = [1, 2, 3]> (a)\nb = Div (a, m)", "Div_b",
        "divides by 'm'", "train",
    ),
}  # fmt: skip
ARRAYS = {
    "tops": np.array([3, 3, 7, 7], np.float32).reshape(4, 1, 1),
    "minus": np.array(-3, np.float32),
}


@pytest.mark.parametrize("name", CASES)
def test_one_row_says_why_in_numbers(tmp_path: Path, name: str) -> None:
    body, node, reason, remedy = CASES[name]
    (found,) = refused(between(body, tmp_path / "m.onnx", **ARRAYS))
    assert found.node == node
    assert reason in found.reason
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "name",
    ["apot", "nearly even", "jumps", "no highest", "leaky", "gelu", "turning", "half a line"],
)
def test_the_table_says_what_explain_says(tmp_path: Path, name: str) -> None:
    path = between(CASES[name][0], tmp_path / "m.onnx", **ARRAYS)
    (found,) = refused(path)
    explained = na_convert.api.explain(path, found.node)
    assert explained.reason == found.reason
    assert set(found.nodes) <= {node.split(" (")[0] for node in explained.nodes}


def test_bounds_that_depend_on_the_data(tmp_path: Path) -> None:
    path = between("m = ReduceMax <axes: ints = [1, 2, 3], keepdims: int = 0> (a)\n"
                   "t = ReduceMean <keepdims: int = 0> (m)\nb = Clip (a, zero, t)",
                   tmp_path / "m.onnx")  # fmt: skip
    rows = {found.node: found.reason for found in refused(path)}
    assert "bounds that depend on the data" in rows["Clip_b"]
    assert "bounds that depend" in na_convert.api.explain(path, "Clip_b").reason


def test_a_relu_beside_its_quantiser_names_who_passes_it_by(tmp_path: Path) -> None:
    body = (
        f"n = Relu (a)\n{ROUND.replace('(a', '(n')}k = Clip (r, zero, top)\nm = Mul (k, half)\n"
        "g = Conv (m, wg)\nb = Add (g, n)"
    )
    (found,) = refused(between(body, tmp_path / "m.onnx"))
    assert found.node == "Relu_n"
    assert "'Mul_m' quantises it, and 'Add_b' does without" in found.reason


def test_a_gate_that_is_given_another_shape_goes_nowhere_else(tmp_path: Path) -> None:
    body = (
        "m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (a)\ns = Sigmoid (m)\n"
        "u = Unsqueeze (s, axes)\nb = Mul (a, u)"
    )
    first, second = refused(between(body, tmp_path / "m.onnx", axes=np.array([2, 3])))
    assert (first.node, second.node) == ("Sigmoid_s", "Mul_b")
    assert "goes on" not in first.reason


def test_a_function_that_ends_inside_a_quantiser_names_who_reads_it_there(tmp_path: Path) -> None:
    body = f"{ROUND}k = Clip (r, zero, top)\ng = Conv (k, wg)\nb = Add (g, r)"
    (found,) = refused(between(body, tmp_path / "m.onnx"))
    assert found.node == "Round_r"
    assert "where 'Add_b' takes it, and 'Clip_k' goes on" in found.reason


@pytest.mark.parametrize("custom", [False, True])
def test_what_cannot_be_seen_into_is_listed_with_everything_else(
    tmp_path: Path, custom: bool
) -> None:
    gelu = GELU.replace("b =", "h =")
    tail = "i = Conv (h, wg)\nj = LeakyRelu (i)\nu = Conv (j, wg)\nb = Softmax (u)"
    branch = "b0 = na_convert.Opaque (a)\n" if custom else f"{BRANCH.replace('b =', 'b0 =', 1)}\n"
    go = "" if custom else "n = ReduceMax <keepdims: int = 0> (x)\ngo = Greater (n, zero)\n"
    body = f"{go}{branch}{gelu.replace('(a,', '(b0,')}\n{tail}"
    if custom:
        path = between(body.replace("na_convert.Opaque", "Relu"), tmp_path / "m.onnx")
        proto = onnx.load(path)
        (node,) = [n for n in proto.graph.node if n.output[0] == "b0"]
        node.name, node.op_type, node.domain = "Opaque_b0", "Opaque", "my.quant"
        proto.opset_import.append(onnx.helper.make_opsetid("my.quant", 1))
        onnx.save(proto, path)
    else:
        path = between(body, tmp_path / "m.onnx")
    with pytest.raises(NotConvertible) as caught:
        na_convert.inspect(path)
    nodes = [found.node for found in caught.value.refused]
    assert nodes[:3] == ["Opaque_b0" if custom else "If_b0", "Erf_e", "LeakyRelu_j"]
    assert ("Softmax_b" in nodes) is not custom  # shapes behind a custom operator are not known


def test_all_at_once(tmp_path: Path) -> None:
    """One table, each with its own reason; none of them hides another."""
    names = ["apot", "silu", "leaky", "no highest", "half a line", "gelu", "turning"]
    parts, last, rows = [], "a", []
    for k, name in enumerate(names):
        body, node, reason, _ = CASES[name]
        words = {word.strip("(),") for word in body.split()} - set(WEIGHTS)
        made = {line.split(" =")[0] for line in body.splitlines()}
        for word in sorted(words & made):
            body = renamed(body, word, f"{word}_{k}")
        parts += [renamed(body, "a", last), f"a_{k + 1} = Conv (b_{k}, wg)"]
        last = f"a_{k + 1}"
        rows.append((f"{node}_{k}", reason))
    parts.append(f"b = Identity ({last})")
    found = refused(between("\n".join(parts), tmp_path / "m.onnx", **ARRAYS))
    assert [r.node for r in found] == [node for node, _ in rows]
    assert all(reason in r.reason for r, (_, reason) in zip(found, rows, strict=True))


def renamed(body: str, old: str, new: str) -> str:
    """``body`` with the tensor ``old`` called ``new``."""
    return build.re.sub(rf"(?<![\w:]){old}(?![\w:])", new, body)


@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_dynamic_quantisers_are_refused_once_each_wherever_they_stand(
    tmp_path: Path, which: str
) -> None:
    plain, quantised = tmp_path / "plain.onnx", tmp_path / "dynamic.onnx"
    proto = build.low_bit_ann()
    onnx.save(proto, plain)
    weighted = [n.name for n in proto.graph.node if n.op_type in ("Conv", "Gemm")]
    chosen = {"all": weighted, "first": weighted[:1], "last": weighted[-1:]}[which]
    quantize_dynamic(plain, quantised, nodes_to_quantize=[*chosen, f"{weighted[-1]}_MatMul"])
    dynamic = [
        n.name for n in onnx.load(quantised).graph.node if n.op_type == "DynamicQuantizeLinear"
    ]
    found = refused(quantised)
    assert [r.node for r in found] == dynamic
    assert all("of the whole batch" in r.reason for r in found)
    assert all("before quantize_dynamic" in r.remedy for r in found)
    assert "of the whole batch" in na_convert.api.explain(quantised, dynamic[0]).reason


def test_weights_that_cannot_be_taken_apart_stand_where_neurons_would(tmp_path: Path) -> None:
    """They were taken for part of the input, whose quantisers stay analog."""
    lines = [
        "m = ReduceMax <keepdims: int = 0> (x)",
        "t = Abs (m)",
        "k0 = QuantizeLinear (x, t, z)",
    ]
    lines += [f"k{i + 1} = QLinearConv (k{i}, t, z, w, t, o, t, z)" for i in range(3)]
    lines += ["b = DequantizeLinear (k3, t, z)", GOOD.format(i="b", o="p"), "a = Conv (p, w1)"]
    lines += [GOOD.format(i="a", o="q"), "y = Conv (q, w1)"]
    weights = {k: WEIGHTS[k] for k in ("step", "zero", "top")}
    kernel = np.ones((3, 3, 1, 1), np.int8)
    given = {
        **weights,
        "w1": (3, 3, 1, 1),
        "w": kernel,
        "z": np.array(0, np.uint8),
        "o": np.array(0, np.int8),
    }
    onnx.save(build.model("\n".join(lines), given, outputs="float[N,3,8,8] y"), tmp_path / "m.onnx")
    assert [r.op for r in refused(tmp_path / "m.onnx")][:2] == ["QLinearConv", "QLinearConv"]


def test_rows_of_functions_name_explain() -> None:
    rows = [
        Refusal("r", "Round", "rounds", "clip", ("d", "r")),
        Refusal("m", "Mul", "gates", "train"),
    ]
    console = Console(width=120, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(report.refusals(rows))
    assert captured.get().count("--explain") == 1
    assert "--explain r" in captured.get()
