"""Maxima between neurons: the same values as MaxPool, and as spike trains the maximum of totals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import to_spiking, write_out_maxima
from na_convert.passes.fold_constants import fold_constants

from na_convert.forms.folded import to_folded
from na_convert.graph import export_graph
from na_convert.runtime import run
from na_convert.shapes import of_one_sample
from na_convert.snn import Snn
from tests.build import PLAIN, graph, images, stair

WEIGHTS = {**PLAIN, "w": (4, 3, 3, 3), "high": 0.5, "one": np.array([1]), "two": np.array([2])}
WEIGHTS |= {"three": np.array([-1, 4, 64]), "six": np.array([-1, 4, 2, 4, 2, 4])}
CASES = {  # what stands between the neurons, and the shape of a sample behind it
    "global max-pool": ("m = GlobalMaxPool (a)", (4, 1, 1)),
    "image": ("m = ReduceMax <axes = [2,3]> (a)", (4, 1, 1)),
    "image, no axes kept": ("m = ReduceMax <axes = [-1,-2], keepdims = 0> (a)", (4,)),
    "channels": ("m = ReduceMax <axes = [1], keepdims = 0> (a)", (8, 8)),
    "rows": ("m = ReduceMax <axes = [2]> (a)", (4, 1, 8)),
    "channels and columns": ("m = ReduceMax <axes = [1,3]> (a)", (1, 8, 1)),
    "smallest": ("m = ReduceMin <axes = [2,3], keepdims = 0> (a)", (4,)),
    "signal": ("r3 = Reshape (a, three)\nm = ReduceMax <axes = [2], keepdims = 0> (r3)", (4,)),
    "four axes of space": (
        "r6 = Reshape (a, six)\nm = ReduceMax <axes = [2,3,4,5], keepdims = 0> (r6)",
        (4,),
    ),
    "maxout": ("l, r = Split <axis = 1> (a)\nm = Max (l, r)", (2, 8, 8)),
    "minimum": ("l, r = Split <axis = 1> (a)\nm = Min (l, r)", (2, 8, 8)),
}


def network(middle: str, sample: tuple[int, ...], step2: float = 0.3, opset: int = 17):
    """conv, neurons, conv, neurons, ``middle``, linear, neurons, linear."""
    weights = {**WEIGHTS, "w2": (4, 4, 3, 3), "v": (int(np.prod(sample)), 6), "u": (6, 5),
               "step2": step2}  # fmt: skip
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n" + stair("z", "a0")
        + "z1 = Conv <pads = [1,1,1,1]> (a0, w2)\n" + stair("z1", "a", step="step2")
        + middle + "\nf = Flatten (m)\nz2 = Gemm (f, v)\n" + stair("z2", "b")
        + "y = Gemm (b, u)"
    )  # fmt: skip
    return graph(body, weights, opset=opset)


def tensors(g, carried, names: list[str], **more: object) -> list[np.ndarray]:
    model = export_graph(g.copy(), carried) if carried is not None else g
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    found = run(model, {"x": images(), **more}, names)
    return [found[n] for n in names]


@pytest.mark.parametrize("case", CASES)
def test_maxima_become_pools_of_the_same_values(case: str) -> None:
    middle, sample = CASES[case]
    g, carried = network(middle, sample)
    (expected,) = tensors(g, carried, ["m"])
    assert write_out_maxima.run(g).changed == 1
    assert not {"Max", "Min", "ReduceMax", "ReduceMin", "GlobalMaxPool"} & {n.op for n in g.nodes}
    (found,) = tensors(g, carried, ["m"])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", ["global max-pool", "image", "image, no axes kept"])
def test_of_an_image_the_pool_reads_it_as_it_lies(case: str) -> None:
    g, _ = network(*CASES[case])
    write_out_maxima.run(g)
    (pool,) = [n for n in g.nodes if n.op == "MaxPool"]
    assert (pool.inputs[0].name, list(pool.attrs["kernel_shape"])) == ("a", [8, 8])


@pytest.mark.parametrize("case", CASES)
def test_totals_over_time_are_the_maxima_of_totals(case: str) -> None:
    middle, sample = CASES[case]
    g, carried = network(middle, sample)
    write_out_maxima.run(g)
    names = [n.outputs[0].name for n in to_spiking.choose_neurons(g)[0]]
    found = to_spiking.run(g, of_one_sample(g, carried, {"x": images()}, names))
    assert found.report.refused == ()
    (pool,) = [n for n in g.nodes if n.op == "MaxPoolCounts"]
    np.testing.assert_allclose(pool.attrs["unit"], 3 * 0.3, rtol=1e-6)  # exact counts inside
    folded = to_folded(Snn(g, found.neurons, 3, carried))
    a, m = tensors(folded, None, ["a", "m"], timesteps=np.asarray(3))
    totals = np.round(a.reshape(3, 2, 4, 8, 8) / np.float32(0.9)).sum(0)
    reduce = np.min if case in ("smallest", "minimum") else np.max
    if case in ("maxout", "minimum"):
        expected = reduce(np.stack([totals[:, :2], totals[:, 2:]]), 0)
    else:
        axes = {"channels": (1,), "rows": (2,), "channels and columns": (1, 3)}.get(case, (2, 3))
        expected = reduce(totals, axes)
    counts = np.round(m.reshape(3, 2, -1) / np.float32(0.9)).sum(0)
    np.testing.assert_array_equal(counts, expected.reshape(2, -1))


@pytest.mark.parametrize(
    ("middle", "op"),
    [
        ("m = ReduceMax <axes = [0,2]> (a)", "ReduceMax"),
        ("m = Max (a, high)", "Max"),
        ("r = Slice (a, one, two, one)\nm = Max (a, r)", "Max"),
    ],
)
def test_left_alone(middle: str, op: str) -> None:
    g, _ = network(middle, (4, 8, 8))
    write_out_maxima.run(g)
    assert op in {n.op for n in g.nodes}


def test_outside_the_spiking_part_a_maximum_stays() -> None:
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n" + stair("z", "a")
        + "m = GlobalMaxPool (a)\nf = Flatten (m)\ny = Gemm (f, v)"
    )  # fmt: skip
    g, _ = graph(body, {**WEIGHTS, "v": (4, 5)})
    assert write_out_maxima.run(g).changed == 0
    assert "GlobalMaxPool" in {n.op for n in g.nodes}


def test_axes_that_are_an_input() -> None:
    """As from opset 18 on; from behind, too."""
    middle = "image = Constant <value_ints = [-1, 2]> ()\nm = ReduceMax (a, image)"
    g, carried = network(middle, (4, 1, 1), opset=18)
    fold_constants(g)
    (expected,) = tensors(g, carried, ["m"])
    assert write_out_maxima.run(g).changed == 1
    assert "MaxPool" in {n.op for n in g.nodes}
    (found,) = tensors(g, carried, ["m"])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axes", ["", ", image", ", batch"])
def test_axes_that_are_computed_or_include_the_batch_are_left(axes: str) -> None:
    middle = (
        "batch = Constant <value_ints = [-4, 2]> ()\nk = Shape <start: int = 2, end: int = 3> (z)\n"
        f"image = Sub (k, k)\nm = ReduceMax (a{axes})"
    )
    g, _ = network(middle, (4, 1, 1), opset=18)
    fold_constants(g)
    assert write_out_maxima.run(g).changed == 0


def test_batches_that_are_open_count_as_one() -> None:
    """A Reshape to any batch makes a new name of it, in shape inference; Keras's TimeDistributed
    does."""
    middle = "any = Constant <value_ints = [-1, 4, 8, 8]> ()\nr = Reshape (a, any)\nm = Max (a, r)"
    g, carried = network(middle, (4, 8, 8))
    fold_constants(g)
    (expected,) = tensors(g, carried, ["m"])
    assert write_out_maxima.run(g).changed == 1
    assert "Max" not in {n.op for n in g.nodes}
    (found,) = tensors(g, carried, ["m"])
    np.testing.assert_array_equal(found, expected)
