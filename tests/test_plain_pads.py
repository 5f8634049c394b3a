"""Padding by rule: the same numbers with pads, and nothing where sizes are needed and open."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from na_convert.passes.plain_pads import plain_pads

import na_convert
from na_convert.graph import import_graph

from .build import PLAIN, images, model, quantised
from .same import rewritten

WINDOWS = {
    "pool": ("MaxPool <kernel_shape = [2,3], {}>", "(x)"),
    "average": ("AveragePool <kernel_shape = [3,2], {}>", "(x)"),
    "average with pads": ("AveragePool <kernel_shape = [3,3], count_include_pad = 1, {}>", "(x)"),
    "whole windows": ("MaxPool <kernel_shape = [1,2], ceil_mode = 1, {}>", "(x)"),
    "weights": ("Conv <{}>", "(x, w)"),
}  # fmt: skip
WEIGHTS = {"w": (4, 3, 4, 3)}


def padded(window: str, rule: str, strides: str, sizes: str = "7,8") -> onnx.ModelProto:
    op, given = WINDOWS[window]
    body = "y = " + op.format(f'auto_pad = "{rule}", strides = [{strides}]') + given
    return model(body, WEIGHTS, inputs=f"float[N,3,{sizes}] x", outputs="float[N,C,H,W] y")


@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("strides", ["1,1", "2,3"])
@pytest.mark.parametrize("window", WINDOWS)
def test_known_sizes(window: str, strides: str, rule: str) -> None:
    graph = rewritten(padded(window, rule, strides), plain_pads)
    (node,) = graph.nodes
    assert "auto_pad" not in node.attrs
    assert len(node.attrs["pads"]) == 4


@pytest.mark.parametrize(("strides", "written"), [("1,1", True), ("2,1", False), ("1,2", False)])
@pytest.mark.parametrize("window", ["pool", "weights"])
def test_open_sizes(window: str, strides: str, written: bool) -> None:
    graph = rewritten(padded(window, "SAME_UPPER", strides, "H,W"), plain_pads)
    assert ("auto_pad" not in graph.nodes[0].attrs) == written


def test_a_size_that_matters_not_may_be_open() -> None:
    graph = rewritten(padded("pool", "SAME_UPPER", "1,2", "H,8"), plain_pads)
    assert graph.nodes[0].attrs["pads"] == [0, 0, 1, 1]


@pytest.mark.parametrize(("rule", "pads"), [("SAME_UPPER", [0, 1]), ("SAME_LOWER", [1, 0])])
def test_signals(rule: str, pads: list[int]) -> None:
    body = f'y = MaxPool <kernel_shape = [2], strides = [2], auto_pad = "{rule}"> (x)'
    source = model(body, inputs="float[N,3,7] x", outputs="float[N,C,L] y")
    assert rewritten(source, plain_pads).nodes[0].attrs["pads"] == pads


@pytest.mark.parametrize(("strides", "written"), [("1,1", 1), ("2,2", 0)])
def test_a_tensor_of_unknown_shape(strides: str, written: int) -> None:
    net, _ = import_graph(padded("pool", "SAME_UPPER", strides))
    net.inputs[0].shape = None
    assert plain_pads(net) == written


@pytest.mark.parametrize(
    "other", ['auto_pad = "VALID"', 'auto_pad = "SAME_UPPER", dilations = [2,1]']
)
def test_other_rules_are_left(other: str) -> None:
    body = f"y = MaxPool <kernel_shape = [2,2], {other}> (x)"
    graph = rewritten(model(body, outputs="float[N,C,H,W] y"), plain_pads)
    assert "auto_pad" in graph.nodes[0].attrs


def test_computed_weights_of_unknown_size_are_left() -> None:
    body = 'r = Reshape (x, any)\ny = Conv <auto_pad = "SAME_UPPER"> (x, r)'
    proto = model(body, inputs="float[N,3,7,8] x, int64[4] any", outputs="float[N,C,H,W] y")
    graph = import_graph(proto)[0]
    assert plain_pads(graph) == 0


@pytest.mark.parametrize("options", [{}, {"weights": "int8"}])
def test_a_network_with_padding_by_rule(tmp_path: Path, options: dict[str, str]) -> None:
    rule = 'auto_pad = "SAME_UPPER", strides = [2,2]'
    body = (
        f"z = Conv <{rule}> (x, w)\n" + quantised("z", "a")
        + f"m = MaxPool <kernel_shape = [2,2], {rule}> (a)\n"
        + f"c = Conv <{rule}> (m, u)\n" + quantised("c", "b")
        + "p = GlobalAveragePool (b)\ny = Flatten (p)"
    )  # fmt: skip
    weights = {**PLAIN, **WEIGHTS, "u": (5, 4, 2, 2)}
    onnx.save(model(body, weights, inputs="float[N,3,9,9] x"), tmp_path / "m.onnx")
    given = {"x": images(4, (3, 9, 9))}
    result = na_convert.convert(
        tmp_path / "m.onnx", output=tmp_path / "s.onnx", data=given, **options
    )
    assert result.passed
