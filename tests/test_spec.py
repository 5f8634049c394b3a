"""What must hold between two passes: each way to break it is named, with the pass and the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from na_convert.errors import PassFailed
from na_convert.spec import check_graph, check_spiking

from . import build
from .build import PLAIN, stair

FIRE = "na_convert.IF <threshold: float = 1.0, amplitude: float = 1.0, initial: float = 0.5>"
CHAIN = "a = Mul (x, two)\nb = Floor (a)\ny = Mul (b, b)"


def chain() -> gs.Graph:
    return build.graph(CHAIN, {"two": 2.0}, inputs="float[N,3] x", outputs="float[N,3] y")[0]


def produce_twice(graph: gs.Graph) -> None:
    graph.nodes[1].outputs[0].name = "a"


def produce_an_input(graph: gs.Graph) -> None:
    graph.nodes[0].outputs[0].name = "x"


def swap(graph: gs.Graph) -> None:
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def read_nothing(graph: gs.Graph) -> None:
    graph.nodes[0].inputs[0] = gs.Variable("nowhere", np.float32)


def lose_the_output(graph: gs.Graph) -> None:
    graph.outputs = [gs.Variable("lost", np.float32)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (produce_twice, "tensor 'a' is produced more than once"),
        (produce_an_input, "tensor 'x' is produced more than once"),
        (swap, r"Floor_1.* reads 'a' before it is computed"),
        (read_nothing, r"Mul_0.* reads 'nowhere' before it is computed"),
        (lose_the_output, "output 'lost' is not computed"),
    ],
)
def test_a_graph_that_is_not_well_formed(spoil: Callable[[gs.Graph], None], message: str) -> None:
    graph = chain()
    check_graph(graph, "this pass")
    spoil(graph)
    with pytest.raises(PassFailed, match=f"^after this pass: .*{message}"):
        check_graph(graph, "this pass")


def test_a_constant_may_be_an_output() -> None:
    graph = chain()
    graph.outputs.append(graph.nodes[0].inputs[1])
    check_graph(graph, "this pass")


TIMED = {
    "marked": (
        "r = Relu (x)\nu = Mul (r, r)\ne = na_convert.Encode (u)\n"
        f"s = {FIRE} (e)\ny = na_convert.Decode (s)",
        None,
    ),
    "constant beside spikes": (
        f"e = na_convert.Encode (x)\ns = {FIRE} (e)\nd = Add (s, x)\nt = {FIRE} (d)\n"
        "y = na_convert.Decode (t)",
        "no Encode between 'x' and Add_2",
    ),
    "spikes read as a mean": (
        f"e = na_convert.Encode (x)\ns = {FIRE} (e)\nd = na_convert.Decode (s)\nf = Floor (s)\n"
        "y = Add (d, f)",
        "no Decode before Floor_3",
    ),
    "spikes as an output": (
        f"e = na_convert.Encode (x)\ny = {FIRE} (e)", "no Decode before the output 'y'",
    ),
    "an activation between neurons": (
        f"e = na_convert.Encode (x)\ns = {FIRE} (e)\n" + stair("s", "a")
        + f"t = {FIRE} (a)\ny = na_convert.Decode (t)",
        "activation Staircase_2 is left between neurons",
    ),
    "state without spikes": (
        "m = na_convert.MaxPoolCounts <kernel_shape: ints = [1, 1], pads: ints = [0, 0, 0, 0], "
        "strides: ints = [1, 1], amplitude: float = 1.0> (x)\ny = Floor (m)",
        "MaxPoolCounts_0 keeps state outside the spiking region",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMED)
def test_the_borders_of_time(case: str) -> None:
    body, message = TIMED[case]
    shape = "float[N,3,4,4]"
    weights = {k: v for k, v in PLAIN.items() if "Staircase" in body}
    graph, _ = build.graph(body, weights, inputs=f"{shape} x", outputs=f"{shape} y")
    if message is None:
        check_spiking(graph, "this pass")
        return
    with pytest.raises(PassFailed, match=f"^after this pass: {message}"):
        check_spiking(graph, "this pass")
