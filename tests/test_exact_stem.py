"""The analog part on grids: from the input on, integers count alike in every engine."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from na_convert.passes import exact_stem, quantise_weights
from onnx.reference import ReferenceEvaluator

from na_convert.evaluate import evaluate
from na_convert.exactness import exactness_of, grids_of
from na_convert.forms import INT8_FORMS
from na_convert.forms.int8_unrolled import int8_parts
from na_convert.integer import run
from na_convert.integer_running import counts_in_onnxruntime
from na_convert.runtime import session
from na_convert.snn import Snn
from na_convert.spec import check_graph

from . import build, spiking
from .int8_cases import CASES, case

T = 3
FEEDS = {"x": build.images(16)}
BOUNDS = {"x": float(np.abs(FEEDS["x"]).max())}
SOME = ("plain", "analog skip", "max pool before neurons", "gemm")


def with_stem(text: str, weights: dict) -> Snn:
    """The plain case with other operators in front of the first neurons."""
    from .int8_cases import _FIRST, network

    body, usual = CASES["plain"]
    begin = _FIRST[: _FIRST.index("a1 = ")]
    return network(body.replace(begin, text), {**usual, **weights})


STEMS = {
    "normalised": (
        "n1 = Sub (x, mean)\nn2 = Div (n1, std)\n"
        "c1 = Conv <pads: ints = [1,1,1,1]> (n2, w1, b1)\n",
        {"mean": np.full((3, 1, 1), 0.4, np.float32), "std": np.full((3, 1, 1), 0.3, np.float32),
         "b1": (4,)},
    ),
    "max pool": (
        "c0 = Conv <pads: ints = [1,1,1,1]> (x, w1, b1)\n"
        "c1 = MaxPool <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (c0)\n",
        {"b1": (4,)},
    ),
    "two branches": (
        "p1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\np2 = Conv (x, wp)\nc1 = Add (p1, p2)\n",
        {"wp": (4, 3, 1, 1)},
    ),
}  # fmt: skip


def made(snn: Snn) -> Snn:
    found, exactness = exact_stem.run(snn, BOUNDS, T)
    assert exactness.exact, exactness.reason
    assert exactness_of(found) == exactness
    check_graph(found.graph, "exact_stem")
    assert grids_of(found).rounds == {n.name for n in found.graph.nodes if n.op == "Round"}
    return found


@pytest.mark.parametrize("name", [*SOME, *STEMS])
def test_the_same_currents_up_to_rounding_and_counts_in_every_engine(name: str) -> None:
    snn = with_stem(*STEMS[name]) if name in STEMS else case(name, T)
    exact = made(snn)
    network = quantise_weights.run(exact, T).network
    before = evaluate(snn.graph, FEEDS, network.analogs)
    after = evaluate(exact.graph, FEEDS, network.analogs)
    for tensor, current in before.items():
        np.testing.assert_allclose(after[tensor], current, atol=1e-5 * np.abs(current).max())
    expected = run(network, FEEDS, T)
    model = int8_parts(network).whole()
    for optimise, threads in ((True, 1), (True, 2), (False, 1)):
        counts, _ = counts_in_onnxruntime(model, network, FEEDS, optimise=optimise, threads=threads)
        for layer, wanted in expected.counts.items():
            np.testing.assert_array_equal(counts[layer], wanted)
    (logits,) = ReferenceEvaluator(model).run(["y"], FEEDS)
    np.testing.assert_allclose(logits, expected.outputs[T]["y"], atol=1e-5)


@pytest.mark.parametrize("form", INT8_FORMS)
def test_every_form_of_file_carries_the_proof(form: str) -> None:
    network = quantise_weights.run(made(case("plain", T)), T).network
    props = {p.key: p.value for p in INT8_FORMS[form].parts(network).whole().metadata_props}
    assert json.loads(props["na_convert.exact"])["bounds"] == BOUNDS


def test_it_is_needed() -> None:
    """Without grids the float currents of two engines differ in their last bits."""
    snn = case("plain", T)
    model = int8_parts(quantise_weights.run(snn, T).network).whole()
    model.graph.output.append(onnx.ValueInfoProto(name="c1"))
    (found,) = session(model).run(["c1"], FEEDS)
    numpy = evaluate(snn.graph, FEEDS, ["c1"], dtype=np.float32)["c1"]
    assert np.any(found != numpy)
    exact = made(snn)
    model = int8_parts(quantise_weights.run(exact, T).network).whole()
    model.graph.output.append(onnx.ValueInfoProto(name="c1"))
    (found,) = session(model).run(["c1"], FEEDS)
    np.testing.assert_array_equal(
        found, evaluate(exact.graph, FEEDS, ["c1"], dtype=np.float32)["c1"]
    )


def test_what_has_no_grid_stays_with_the_reason() -> None:
    text = "e1 = Exp (x)\nc1 = Conv <pads: ints = [1,1,1,1]> (e1, w1)\n"
    snn = with_stem(text, {})
    found, exactness = exact_stem.run(snn, BOUNDS, T)
    assert found is snn
    assert not exactness.exact
    assert exactness.reason is not None
    assert "Exp" in exactness.reason
    assert exactness_of(found) is None


def test_a_current_of_unknown_size_has_no_grid() -> None:
    """One that joins sums of spikes alone: no neurons say how large its images are."""
    body = (
        spiking.FIRST
        + f"c2 = Conv {spiking.CONV} (a1, w2)\nd2 = Conv {spiking.CONV} (x, w4)\n"
        + "s2 = Add (c2, d2)\n" + build.stair("s2", "last") + spiking.HEAD
    )  # fmt: skip
    weights = {**spiking.SHAPES, "w4": (4, 3, 3, 3)}
    snn = spiking.network(body, weights, inputs="float[N,3,H,W] x")
    found, exactness = exact_stem.run(snn, BOUNDS, T)
    assert found is snn
    assert exactness.reason == "d2: the size of its image is not known"


def test_an_input_that_is_a_current_itself_is_exact_as_it_is() -> None:
    snn = case("plain", T)
    graph = snn.graph.copy()
    encode = next(n for n in graph.nodes if n.op == "Encode")
    graph.inputs[0].shape = ["N", 4, 8, 8]
    encode.inputs = [graph.inputs[0]]
    direct = replace(snn, graph=graph.cleanup())
    found, exactness = exact_stem.run(direct, BOUNDS, T)
    assert exactness.exact
    assert exactness_of(found) == exactness
    assert [n.op for n in found.graph.nodes] == [n.op for n in direct.graph.nodes]
    assert not grids_of(found).rounds


def test_what_joins_sums_of_spikes_alone_is_the_same_at_every_step() -> None:
    """Its grid is no coarser for many steps."""
    from .int8_cases import network

    body = (
        f"c1 = Conv {spiking.CONV} (x, w1)\n{build.stair('c1', 'a1')}d1 = Conv (x, wd)\n"
        f"c2 = Conv (a1, w2)\ns2 = Add (c2, d1)\n{build.stair('s2', 'last')}{spiking.HEAD}"
    )
    weights = {"w1": (4, 3, 3, 3), "wd": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "v": (5, 4)}
    currents = []
    for steps in (3, 300):
        exact, found = exact_stem.run(network(body, weights), BOUNDS, steps)
        assert found.exact
        currents.append(evaluate(exact.graph, FEEDS, ["d1"])["d1"])
    np.testing.assert_array_equal(*currents)
