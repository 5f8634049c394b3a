"""`inspect --explain`: what a node is part of, why it is no activation, and how that is printed."""

from __future__ import annotations

import pytest
from na_convert.passes.find_activations import explain
from rich.console import Console

from na_convert.explanation import Explanation
from na_convert.explanation_table import print_explanation
from na_convert.graph import import_graph

from .build import model
from .test_find_activations import LSQ, spelled

TWO = (
    LSQ.replace("y =", "q =")
    + "p = GlobalMaxPool (q)\n"
    + "u2 = Div (p, s)\n c2 = Clip (u2, zero, one)\n r2 = Round (c2)\n y = Mul (r2, s)"
)


def explained(body: str, node: str, **weights: float) -> Explanation:
    graph, _ = import_graph(spelled(body, weights))
    return explain(graph, node)


def printed(found: Explanation) -> dict[str, str]:
    """The lines by what they name."""
    console = Console(width=200, highlight=False, color_system=None)
    with console.capture() as captured:
        print_explanation(found, console)
    pairs = (line.split(maxsplit=1) for line in captured.get().splitlines() if line.strip())
    return {name: text.strip() for name, text in pairs}


def test_the_second_of_two_activations() -> None:
    graph, _ = import_graph(
        model(
            TWO, {"s": 0.37, "zero": 0.0, "one": 1.0, "top": 7.0},
            inputs="float[N,4,3,3] x", outputs="float[N,4,1,1] y",
        )
    )  # fmt: skip
    found = explain(graph, "r2")
    assert (found.kind, found.root, found.output) == ("staircase", "p", "y")
    assert found.parameters is not None
    assert found.parameters["levels"] == 1
    first = explain(graph, "c")
    assert (first.root, first.output, first.cut) == ("x", "q", "GlobalMaxPool_4 (GlobalMaxPool)")


def test_a_clip_is_sampled_a_quarter_beyond_its_ends() -> None:
    found = explained("y = Clip (x, zero, six)", "y", six=6.0)
    assert (found.kind, found.samples[0], found.samples[-1]) == ("ramp", (-1.5, 0.0), (7.5, 6.0))
    lines = printed(found)
    assert lines["function"] == "x -> y"
    assert lines["high"] == "6.0"
    assert lines["sampled"].startswith("-1.5: 0, ")
    assert "reason" not in lines


def test_a_relu_is_sampled_between_minus_and_plus_four() -> None:
    found = explained("y = Relu (x)", "y")
    assert (found.samples[0], found.samples[-1]) == ((-4.0, 0.0), (4.0, 4.0))


@pytest.mark.parametrize(
    ("body", "node", "reason"),
    [
        ("e = RandomUniformLike (x)\n v = Add (x, e)\n y = Relu (v)", "v", "draws random numbers"),
        ("y = HardSwish (x)", "y", "HardSwish is smooth"),
    ],
)
def test_what_cannot_be_sampled_is_not(body: str, node: str, reason: str) -> None:
    found = explained(body, node)
    assert found.samples == ()
    assert reason in found.reason
    lines = printed(found)
    assert "sampled" not in lines
    assert reason in lines["reason"]
    assert lines["remedy"] == found.remedy


def test_a_root_is_no_function() -> None:
    found = explained("p = GlobalMaxPool (x)\n q = Relu (p)\n y = Add (q, x)", "p")
    assert (found.kind, found.root) == ("not elementwise", "")
    assert found.reason == (
        "GlobalMaxPool is no function of single elements: a root, where functions start"
    )
    assert set(printed(found)) == {"node", "kind", "reason"}
