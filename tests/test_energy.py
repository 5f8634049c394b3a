"""Operations and energy, against loops over every single connection."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.choices import AC_PJ, MAC_PJ
from na_convert.energy import Constants
from na_convert.errors import UsageError
from na_convert.results import Energy, OperatorWork
from na_convert.simulation import simulate

from . import build
from .test_compare import Stages, T

SAMPLES = 3
HEAD = "m = GlobalAveragePool (a9)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w9)"


def run(body: str, weights: dict) -> tuple[Energy, dict[str, OperatorWork], dict[str, np.ndarray]]:
    """The energy of a network, its operators by what they compute, and spike counts by tensor."""
    graph, carried = build.graph(body + HEAD, {**build.PLAIN, **weights})
    stages = Stages(graph, carried)
    found = stages.verify(SAMPLES).energy
    assert found is not None
    nodes = {n.name: n for n in stages.snn.graph.nodes}
    by_output = {nodes[o.name].outputs[0].name: o for o in found.operators}
    names = [n.name for n in stages.snn.neurons]
    feeds = {"x": build.images(SAMPLES, seed=5)}
    spikes = simulate(stages.snn, feeds, T, record=names).spikes
    counts = {n.output: np.count_nonzero(spikes[n.name], axis=0) for n in stages.snn.neurons}
    return found, by_output, counts


def connections(
    size: tuple[int, int], channels: int, outputs: int, kernel: int, stride: int, pad: int,
    dilation: int = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """How many connections of a convolution leave each input element, counted one by one."""
    leaving = np.zeros((channels, *size), int)
    reach = dilation * (kernel - 1) + 1
    out = [(n + 2 * pad - reach) // stride + 1 for n in size]
    for o, i, j in product(range(outputs), range(out[0]), range(out[1])):
        group = o // (outputs // groups)
        inputs = range(group * channels // groups, (group + 1) * channels // groups)
        for c, a, b in product(inputs, range(kernel), range(kernel)):
            row, column = i * stride - pad + a * dilation, j * stride - pad + b * dilation
            if 0 <= row < size[0] and 0 <= column < size[1]:
                leaving[c, row, column] += 1
    return leaving


STEM = "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\n" + build.stair("c1", "a1")


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation", "groups"),
    [
        (3, 1, 1, 1, 1),
        (3, 2, 1, 1, 1),
        (3, 1, 0, 2, 1),
        (1, 2, 0, 1, 1),
        (3, 1, 1, 1, 2),
        (3, 2, 2, 1, 4),
    ],
)
def test_a_convolution_connection_by_connection(
    kernel: int, stride: int, pad: int, dilation: int, groups: int
) -> None:
    attributes = (
        f"<pads: ints = [{pad},{pad},{pad},{pad}], strides: ints = [{stride},{stride}], "
        f"dilations: ints = [{dilation},{dilation}], group: int = {groups}>"
    )
    body = STEM + f"c2 = Conv {attributes} (a1, w2)\n" + build.stair("c2", "a9")
    weights = {"w1": (4, 3, 3, 3), "w2": (8, 4 // groups, kernel, kernel), "w9": (5, 8)}
    found, operators, counts = run(body, weights)

    leaving = connections((8, 8), 4, 8, kernel, stride, pad, dilation, groups)
    work = operators["c2"]
    assert work.region == "spiking"
    assert work.ann_macs == leaving.sum()
    assert work.synaptic_operations == pytest.approx((counts["a1"] * leaving).sum() / SAMPLES)
    assert work.snn_macs == 0
    assert work.bits == 2

    first = operators["c1"]
    assert (first.region, first.bits, first.synaptic_operations) == ("constant", None, 0)
    assert first.ann_macs == first.snn_macs == connections((8, 8), 3, 4, 3, 1, 1).sum()
    readout = operators["y"]
    assert (readout.region, readout.ann_macs, readout.snn_macs) == ("readout", 40, 40)

    assert found.synaptic_operations == work.synaptic_operations
    assert found.ann_macs == first.ann_macs + work.ann_macs + 40
    assert found.ann_nj == pytest.approx(found.ann_macs * 4.6 / 1000)
    snn = (first.snn_macs + 40) * 4.6 + work.synaptic_operations * 0.9
    assert found.snn_nj == pytest.approx(snn / 1000)
    matched = first.ann_macs * 4.6 + (work.ann_macs + 40) * 2 * 0.9
    assert found.bit_matched_nj == pytest.approx(matched / 1000)
    assert (found.latency_steps, found.pipelined_steps) == (T, T + 1)


def test_a_transposed_convolution() -> None:
    body = STEM + (
        "c2 = ConvTranspose <strides: ints = [2,2], pads: ints = [1,1,1,1]> (a1, w2)\n"
        + build.stair("c2", "a9")
    )
    _, operators, counts = run(body, {"w1": (4, 3, 3, 3), "w2": (4, 5, 3, 3), "w9": (5, 5)})
    leaving = np.zeros((8, 8), int)  # output row of input row i and kernel row a: 2 i - 1 + a
    for i, j, a, b in product(range(8), range(8), range(3), range(3)):
        leaving[i, j] += 0 <= 2 * i - 1 + a < 15 and 0 <= 2 * j - 1 + b < 15
    assert operators["c2"].ann_macs == 4 * 5 * leaving.sum()
    expected = 5 * (counts["a1"] * leaving).sum() / SAMPLES
    assert operators["c2"].synaptic_operations == pytest.approx(expected)


def test_sums_pools_and_joins_of_spikes() -> None:
    """A residual sum, an average pool, channels joined, and a fully connected layer behind."""
    body = (
        STEM
        + "c2 = Conv <pads: ints = [1,1,1,1]> (a1, w2)\n"
        + build.stair("c2", "a2")
        + "s = Add (a1, a2)\n"
        "p = AveragePool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (s)\n"
        "q = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a2)\n"
        "j = Concat <axis: int = 1> (p, q)\n"
        "g = Flatten (j)\nl = Gemm (g, w3)\n" + build.stair("l", "a8")
        + "a9 = Unsqueeze (a8, last)\n"
    )  # fmt: skip
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (128, 6), "w9": (5, 6)}
    _, operators, counts = run(body, {**weights, "last": np.array([2, 3])})
    total = counts["a1"] + counts["a2"]
    pooled = counts["a2"].reshape(SAMPLES, 4, 4, 2, 4, 2).max(axis=(3, 5))
    expected = 6 * (total.sum() + pooled.sum()) / SAMPLES
    assert operators["l"].synaptic_operations == pytest.approx(expected)
    assert operators["l"].ann_macs == 128 * 6
    assert operators["l"].region == "spiking"


def test_what_is_weighted_twice_is_no_longer_spikes() -> None:
    """Between two linear layers without neurons values are graded: multiplications stay."""
    body = STEM + "c2 = Conv (a1, w2)\nc3 = Conv (c2, w3)\n" + build.stair("c3", "a9")
    weights = {"w1": (4, 3, 3, 3), "w2": (2, 4, 1, 1), "w3": (6, 2, 3, 3), "w9": (5, 6)}
    _, operators, _ = run(body, weights)
    assert operators["c2"].snn_macs == 0
    assert operators["c3"].synaptic_operations == 0
    assert operators["c3"].snn_macs == T * operators["c3"].ann_macs == T * 6 * 6 * 6 * 2 * 9


def test_constants_can_be_changed_and_are_checked() -> None:
    assert Constants().source.startswith("45 nm")
    assert Constants(3.2, AC_PJ).source == "as given"
    assert Constants(MAC_PJ, AC_PJ) == Constants()
    with pytest.raises(UsageError, match="--energy-mac -1"):
        Constants(-1)
    with pytest.raises(UsageError, match="--energy-ac nan"):
        Constants(1, float("nan"))


@pytest.mark.parametrize(
    ("name", "timesteps"), [("linear bottleneck", 4), ("identity shortcut", 16)]
)
def test_integers_are_compared_with_the_anns_own_operators(
    name: str, timesteps: int, tmp_path: Path
) -> None:
    """int8 joins operators, and adds channels for shortcuts: more work, but not the ANN's."""
    from .int8_cases import CASES

    body, weights = CASES[name]
    onnx.save(build.model(body, {**build.PLAIN, **weights}), tmp_path / "net.onnx")
    energies = []
    options = {"float": {}, "int8": {"weights": "int8", "tie_shortcuts": "never"}}
    for each in options.values():
        made = na_convert.convert(
            tmp_path / "net.onnx", data={"x": build.images(2)}, timesteps=timesteps, **each
        )
        assert made.equivalence is not None
        energies.append(made.equivalence.energy)
    plain, whole = energies
    assert plain is not None
    assert whole is not None
    for figure in ("ann_macs", "ann_nj", "bit_matched_nj"):
        assert getattr(whole, figure) == pytest.approx(getattr(plain, figure))
    joined = sum(o.ann_macs for o in whole.operators)
    assert joined > plain.ann_macs


def test_what_the_input_chooses_of_a_table_sends_no_spikes(tmp_path: Path) -> None:
    """An embedding beside spikes, as in a tokeniser: constant over time."""
    body = (
        "z = Gemm (x, w)\n" + build.quantised("z", "a")
        + "e = Gather (table, ids)\nf = Flatten (e)\nc = Concat <axis = 1> (a, f)\n"
        "h = Gemm (c, v)\n" + build.quantised("h", "b") + "y = Gemm (b, u)"
    )  # fmt: skip
    weights = {**build.PLAIN, "w": (6, 7), "table": (9, 3), "v": (13, 5), "u": (5, 4)}
    proto = build.model(body, weights, inputs="float[N,6] x, int64[N,2] ids")
    onnx.save(proto, tmp_path / "m.onnx")
    given = {"x": build.images(5, (6,)), "ids": np.arange(10).reshape(5, 2) % 9}
    found = na_convert.convert(tmp_path / "m.onnx", output=tmp_path / "s.onnx", data=given)
    assert found.passed
    assert found.equivalence is not None
    assert found.equivalence.energy is not None
    assert [o.ann_macs for o in found.equivalence.energy.operators] == [42, 65, 20]
