"""Thresholds and spikes of 1: the same spikes, in the structures that the pass lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes import snap, unit_spikes

import na_convert
from na_convert import forms, unit_scale
from na_convert.errors import NotConvertible, PassFailed, UsageError
from na_convert.graph import constant
from na_convert.shapes import of_one_step
from na_convert.simulation import numpy_engine
from na_convert.snn import Snn, neuron_nodes, parameters
from na_convert.spec import check_graph, check_spiking
from na_convert.unit_scale import NotExact

from . import build, spiking

FALLING = (
    'a1 = na_convert.Staircase <levels: int = 3, tie_rule: string = "half_up">'
    " (c1, step, falling, zero, half)\n"
)


def unit(snn: Snn) -> Snn:
    made, report = unit_spikes.run(snn, spiking.samples(snn, 2))
    check_graph(made.graph, "unit_spikes")
    check_spiking(made.graph, "unit_spikes")
    assert report.max_rel_error is not None
    assert report.max_rel_error < 1e-6
    for node in neuron_nodes(made.graph):
        assert node.op == "IF"
        assert np.all(parameters(node).threshold == 1)
        assert np.all(parameters(node).amplitude == 1)
    return made


def same_spikes(before: Snn, after: Snn, steps: int = 5) -> None:
    feeds, names = spiking.samples(before, 4), [n.name for n in before.neurons]
    wanted = numpy_engine(before, steps, names, np.float64)(feeds)
    found = numpy_engine(after, steps, names, np.float64)(feeds)
    for name in names:
        assert np.any(wanted.spikes[name])
        np.testing.assert_array_equal(found.spikes[name] != 0, wanted.spikes[name] != 0)
        assert set(np.unique(found.spikes[name])) <= {0, 1}
    for name, value in wanted.outputs[steps].items():
        np.testing.assert_allclose(found.outputs[steps][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(spiking.NETWORKS))
def test_it_fires_the_same_spikes(name: str) -> None:
    snn = spiking.NETWORKS[name]()
    same_spikes(snn, unit(snn))


@pytest.mark.parametrize("name", ["residual", "shared_sum", "offset", "per_channel"])
def test_the_current_and_output_scales_are_told(name: str) -> None:
    snn = spiking.NETWORKS[name]()
    for old, new in zip(snn.neurons, unit(snn).neurons, strict=True):
        np.testing.assert_allclose(np.multiply(old.threshold, new.current_scale), 1)
        np.testing.assert_allclose(np.multiply(old.amplitude, new.output_scale), 1)


def test_unlike_thresholds_on_one_current_and_levels_below_zero() -> None:
    """The second layer gets a factor of its own, after which all scales are chosen anew. (At this
    phase the levels need no offset on the current, which would be a sum of its own.)"""
    stair = (
        '{} = na_convert.Staircase <levels: int = 3, tie_rule: string = "half_up">'
        " ({}, {}, {}, low, shifted)\n"
    )
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n"
        + stair.format("a1", "c1", "step", "step")
        + stair.format("b1_", "c1", "step2", "step2")
        + f"c2 = Conv {spiking.CONV} (a1, w2)\nd2 = Conv {spiking.CONV} (b1_, w3)\n"
        "c3 = Add (c2, d2)\n" + stair.format("last", "c3", "step", "step") + spiking.HEAD
    )
    weights = {**spiking.SHAPES, "w3": (4, 4, 3, 3), "step2": 0.3, "low": -1.0, "shifted": -0.5}
    snn = spiking.network(body, weights)
    same_spikes(snn, unit(snn))


def test_spikes_that_are_worth_less_than_nothing_turn_the_weights_behind_round() -> None:
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n" + FALLING
        + f"c2 = Conv {spiking.CONV} (a1, w2)\n" + build.stair("c2", "last") + spiking.HEAD
    )  # fmt: skip
    snn = spiking.network(body, {**spiking.SHAPES, "falling": -0.4})
    same_spikes(snn, unit(snn))


def test_a_maximum_of_such_spikes_is_refused() -> None:
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n" + FALLING
        + "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a1)\n"
        + f"c2 = Conv {spiking.CONV} (p, w2)\n" + build.stair("c2", "last") + spiking.HEAD
    )  # fmt: skip
    snn = spiking.network(body, {**spiking.SHAPES, "falling": -0.4})
    with pytest.raises(NotConvertible, match=r"MaxPool.*worth less than nothing"):
        unit_spikes.run(snn)


PADDED = (
    spiking.FIRST + "p = Pad (a1, pads{}) \nc2 = Conv (p, w2)\n" + build.stair("c2", "last")
    + spiking.HEAD
)  # fmt: skip


def padded(value: float | None) -> Snn:
    weights = {**spiking.SHAPES, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    if value is None:
        return spiking.network(PADDED.format(""), weights)
    return spiking.network(PADDED.format(", value"), {**weights, "value": value})


@pytest.mark.parametrize("value", [None, 0.0])
def test_zeros_around_spikes_stay_zeros(value: float | None) -> None:
    snn = padded(value)
    same_spikes(snn, unit(snn))


def test_another_value_around_spikes_is_refused() -> None:
    """It would have to be divided by what a spike was worth."""
    with pytest.raises(NotConvertible, match=r"Pad.*: pads with another value than 0: thresholds"):
        unit_spikes.run(padded(0.3))


def test_scales_side_by_side_need_a_known_number_of_channels() -> None:
    snn = spiking.concat()
    sizes = {**of_one_step(snn), "a2": None}
    with pytest.raises(NotExact, match="the number of channels of 'a2' is not known"):
        unit_scale.choose(snn.graph, {n.name: n.levels for n in snn.neurons}, sizes, unit=True)


STEPS = np.array([0.2, 0.3, 0.4, 0.5], np.float32).reshape(4, 1, 1)
UNEQUAL = {
    "rows of two layers": (
        f"both = Concat <axis: int = 2> (a1, a2)\nc3 = Conv {spiking.CONV} (both, w2)\n",
        build.stair("c2", "a2", step="step2"),
        r"Concat.*tensors on different scales",
    ),
    "channels as rows": (
        "t = Transpose <perm: ints = [0, 2, 1, 3]> (a2)\nc3 = Conv (t, w8)\n",
        build.stair("c2", "a2", step="steps"),
        r"Transpose.*of a tensor with a threshold per channel",
    ),
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_what_mixes_scales_is_refused_by_name(case: str) -> None:
    mixing, second, message = UNEQUAL[case]
    body = (
        spiking.FIRST + f"c2 = Conv {spiking.CONV} (a1, w2)\n" + second + mixing
        + build.stair("c3", "last") + spiking.HEAD
    )  # fmt: skip
    weights = {**spiking.SHAPES, "w8": (4, 8, 1, 1), "step2": 0.3, "steps": STEPS}
    used = {k: v for k, v in weights.items() if k in body}
    with pytest.raises(NotConvertible, match=message):
        unit_spikes.run(spiking.network(body, used))


def test_channels_joined_keep_each_its_own_scale() -> None:
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n" + build.stair("c1", "a1", step="steps")
        + f"both = Concat <axis: int = 1> (a1, a1)\nc2 = Conv {spiking.CONV} (both, w9)\n"
        + build.stair("c2", "last") + spiking.HEAD
    )  # fmt: skip
    snn = spiking.network(body, {**spiking.SHAPES, "w9": (4, 8, 3, 3), "steps": STEPS})
    same_spikes(snn, unit(snn))


CONV = spiking.CONV
BETWEEN = {
    "factors in front of weights": f"u = Mul (k, a1)\nc2 = Conv {CONV} (u, w2)",
    "factors behind weights": f"u = Conv {CONV} (a1, w2)\nc2 = Mul (u, k)",
    "divisors behind weights": f"u = Conv {CONV} (a1, w2)\nc2 = Div (u, k)",
    "a bias behind weights": f"u = Conv {CONV} (a1, w2)\nc2 = Add (u, k)",
    "less than a constant": f"u = Conv {CONV} (a1, w2)\nc2 = Sub (k, u)",
    "a shortcut": f"u = Conv {CONV} (a1, w2)\nc2 = Add (u, a1)",
    "a shortcut and a bias": f"u = Conv {CONV} (a1, w2)\nc2 = Sum (a1, k, u)",
    "a shortcut from the analog part": f"u = Conv {CONV} (a1, w2)\nc2 = Add (c1, u)",
    "a pool": f"u = AveragePool <kernel_shape: ints = [2,2]> (a1)\nc2 = Conv {CONV} (u, w2)",
    "two weights in a row": f"u = Conv {CONV} (a1, w2)\nq = Add (u, k)\nc2 = Conv {CONV} (q, w2)",
    "a maximum": f"p = MaxPool <kernel_shape: ints = [2,2]> (a1)\nc2 = Conv {CONV} (p, w2)",
}


def between(name: str) -> Snn:
    """Thresholds per channel before and behind."""
    body = (
        f"c1 = Conv {CONV} (x, w1, b1)\n{build.stair('c1', 'a1', step='steps')}"
        f"{BETWEEN[name]}\n{build.stair('c2', 'last', step='others')}{spiking.HEAD}"
    )
    weights = {**spiking.SHAPES, "steps": STEPS, "others": STEPS[::-1].copy()}
    k = np.array([0.7, 1.3, 0.9, 1.6], np.float32).reshape(4, 1, 1)
    return spiking.network(body, {**weights, "k": k} if "k" in BETWEEN[name] else weights)


@pytest.mark.parametrize("name", BETWEEN)
def test_thresholds_per_channel_on_both_sides(name: str) -> None:
    snn = between(name)
    same_spikes(snn, unit(snn))


@pytest.mark.parametrize("name", BETWEEN)
def test_thresholds_per_channel_on_grids(name: str) -> None:
    """In the same units, each current is that of the network as it was, up to rounding."""
    snn = between(name)
    made, found = snap.run(snn, {"x": 4.0}, 4)
    if name == "two weights in a row":
        assert "leave a grid of" in found.reason
        return
    assert found.exact, found.reason
    check_graph(made.graph, "snap")
    feeds, names = spiking.samples(snn, 3), [n.name for n in snn.neurons]
    wanted, run = (numpy_engine(net, 1, names, np.float64)(feeds) for net in (snn, made))
    for old, new in zip(snn.neurons, made.neurons, strict=True):
        scale = np.asarray(new.current_scale).reshape(-1, 1, 1)
        theta = np.asarray(old.threshold).reshape(-1, 1, 1)
        difference = np.abs(run.currents[old.name] / scale - wanted.currents[old.name]) / theta
        assert np.median(difference) < 1e-2
    assert unit_spikes.has_unit_spikes(made)


@pytest.mark.parametrize("bias", [True, False])
def test_thresholds_for_each_row_of_a_matrix(bias: bool) -> None:
    body = (
        "c1 = Gemm <transB: int = 1> (x, w1)\n" + build.stair("c1", "a1", step="steps")
        + f"c2 = Gemm <alpha: float = 0.5> (a1, w2{', b2' if bias else ''})\n"
        + build.stair("c2", "a2", step="steps") + "y = MatMul (a2, v)"
    )  # fmt: skip
    weights = {"w1": (4, 6), "w2": (4, 4), "v": (4, 5), "steps": STEPS.ravel()}
    weights |= {"b2": (4,)} if bias else {}
    snn = spiking.network(body, weights, inputs="float[N,6] x")
    same_spikes(snn, unit(snn))


def test_thresholds_of_columns_are_refused_by_name() -> None:
    steps = np.linspace(0.3, 0.9, 8, dtype=np.float32)
    body = spiking.FIRST + "c2 = Conv (a1, w2)\n" + build.stair("c2", "last") + spiking.HEAD
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "v": (5, 8), "step": steps}
    with pytest.raises(NotConvertible, match=r"^Staircase_3: a threshold along another axis"):
        unit_spikes.run(spiking.network(body, weights))


def test_float64_is_refused() -> None:
    body = "c1 = Gemm (x, w1)\n" + build.stair("c1", "a1") + "y = Gemm (a1, w2)"
    plain = {name: np.asarray(value, np.float64) for name, value in build.PLAIN.items()}
    weights = {**plain, "w1": np.ones((6, 8)), "w2": np.ones((8, 5))}
    snn = spiking.network(body, weights, inputs="double[N,6] x", outputs="double[N,M] y")
    with pytest.raises(NotConvertible, match="does not compute in float32") as raised:
        unit_spikes.run(snn)
    assert "without --unit-spikes" in (raised.value.remedy or "")


def test_a_network_with_unit_spikes_stays_as_it_is() -> None:
    snn = unit(spiking.residual())
    again, report = unit_spikes.run(snn)
    assert again is snn
    assert report.changed == 0


def test_an_operator_that_passes_no_scale_on_is_refused_by_name() -> None:
    snn = spiking.residual()
    node = next(n for n in snn.graph.nodes if n.name == "Add_7")
    node.op = "Softplus"
    node.inputs = node.inputs[:1]
    with pytest.raises(NotConvertible, match="Add_7"):
        unit_spikes.run(snn)


def test_a_change_of_numbers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_spikes, "LIMIT", 0.0)
    with pytest.raises(PassFailed, match="would have passed"):
        unit_spikes.run(spiking.residual(), spiking.samples(spiking.residual(), 2))


def test_a_change_behind_spikes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check lets neurons fire at random."""
    written = unit_spikes.write_on_grid

    def wrong(graph: gs.Graph, *rest: object) -> object:
        found = written(graph, *rest)  # type: ignore[arg-type]
        conv = [n for n in graph.nodes if n.op == "Conv"][1]
        conv.inputs = [conv.inputs[0], constant("w_wrong", conv.inputs[1].values * np.float32(1.1))]
        return found

    monkeypatch.setattr(unit_spikes, "write_on_grid", wrong)
    snn = spiking.residual()
    with pytest.raises(PassFailed, match="changed a current or output by 0"):
        unit_spikes.run(snn, spiking.samples(snn, 2))


@pytest.mark.parametrize("name", ["residual", "shared_sum", "offset"])
def test_on_grids_too(name: str) -> None:
    made, found = snap.run(unit(spiking.NETWORKS[name]()), {"x": 4.0}, 8)
    assert found.exact, found.reason
    assert unit_spikes.has_unit_spikes(made)


def test_the_command_proves_it(tmp_path: Path) -> None:
    path, to = tmp_path / "ann.onnx", tmp_path / "unit.onnx"
    onnx.save(build.low_bit_ann(), path)
    result = na_convert.convert(path, output=to, unit_spikes=True)
    assert result.equivalence is not None
    assert all(figure.passed for figure in result.equivalence.figures)
    assert result.passes[-1].name == "unit_spikes"
    assert any("1 in the file" in note for note in result.notes)
    assert unit_spikes.has_unit_spikes(forms.read(onnx.load(to)))
    checked = na_convert.check(path, to, data={"x": build.images(4)})
    assert checked.passed


def test_int8_has_no_unit_spikes(tmp_path: Path) -> None:
    path = tmp_path / "ann.onnx"
    onnx.save(build.low_bit_ann(), path)
    with pytest.raises(UsageError, match="--unit-spikes is for float weights"):
        na_convert.convert(path, unit_spikes=True, weights="int8")
