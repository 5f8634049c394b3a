"""Weights on grids: the same counts in every engine and form, and what cannot be put on one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes import snap

import na_convert
from na_convert import forms
from na_convert.errors import CheckFailed
from na_convert.evaluate import evaluate
from na_convert.exactness import as_ann, exactness_of, grids_of, moved_off_grid
from na_convert.layers import THRESHOLD_ROUNDING
from na_convert.onnx_reference import reference
from na_convert.running import file_runner
from na_convert.runtime import session
from na_convert.simulation import numpy_engine, simulate
from na_convert.snn import Snn, neuron_nodes, parameters
from na_convert.spec import check_graph, check_spiking
from na_convert.unit_scale import Scales

from . import build, spiking

BOUND = 4.0
EXACT = [name for name in spiking.NETWORKS if name != "analog_concat"]


def snapped(name: str, timesteps: int = 32) -> tuple[Snn, Snn]:
    """A network as it was, and on grids."""
    before = spiking.NETWORKS[name]()
    after, found = snap.run(before, {"x": BOUND}, timesteps)
    assert found.exact, found.reason
    assert found == exactness_of(after)
    check_graph(after.graph, "snap")
    check_spiking(after.graph, "snap")
    return before, after


def counts(run, names: list[str]) -> dict[str, np.ndarray]:
    return {name: np.count_nonzero(run.spikes[name], axis=0) for name in names}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("timesteps", [1, 2, 4, 8, 32])
def test_every_engine_and_form_counts_alike(name: str, timesteps: int) -> None:
    _, snn = snapped(name)
    names, feeds = [n.name for n in snn.neurons], spiking.samples(snn, 3)
    wanted = numpy_engine(snn, timesteps, names, np.float64)(feeds)
    runs = {"numpy": simulate(snn, feeds, timesteps, record=names)}
    for form in forms.FORMS:
        model = forms.named(form).parts(replace(snn, timesteps=timesteps)).whole()
        for setting in (
            {}, {"optimise": False}, {"threads": 1}, {"threads": 2},
        ):  # fmt: skip
            run = file_runner(model, names, backend=partial(session, **setting))
            runs[f"{form} {setting}"] = run(feeds, timesteps)
        if timesteps <= 4:
            run = file_runner(model, names, backend=reference)
            runs[f"{form} in onnx.reference"] = run(feeds, timesteps)
    for engine, found in runs.items():
        for layer in names:
            np.testing.assert_array_equal(
                found.spikes[layer] != 0, wanted.spikes[layer] != 0, err_msg=f"{engine}, {layer}"
            )


@pytest.mark.parametrize("name", EXACT)
def test_it_is_the_same_network_up_to_rounding(name: str) -> None:
    """Layer by layer, given the same values: currents in the same units, and outputs."""
    before, after = snapped(name)
    x = spiking.samples(before, 4)
    names = [n.name for n in before.neurons]
    run = simulate(before, x, 1, record=names)
    scales = {n.name: n for n in after.neurons}
    for layer in names:
        node = next(n for n in neuron_nodes(before.graph) if n.name == layer)
        twin = next(n for n in neuron_nodes(after.graph) if n.name == layer)
        other = {
            n.outputs[0].name: run.spikes[n.name][0] * _scale(scales[n.name].output_scale, n)
            for n in neuron_nodes(before.graph)
            if n.name != layer
        }
        found = evaluate(after.graph, {**x, **other}, [twin.inputs[0].name])
        scale = _scale(scales[layer].current_scale, twin)
        theta = np.asarray(parameters(node).threshold)
        difference = found[twin.inputs[0].name] / scale - run.currents[layer][0]
        assert np.max(np.abs(difference) / theta) < 1e-2
        whole = np.broadcast_to(theta * scale, scales[layer].shape)
        np.testing.assert_allclose(
            np.broadcast_to(parameters(twin).threshold, whole.shape), whole, rtol=1e-2
        )


def _scale(values: float | list[float], node: gs.Node) -> np.ndarray:
    array = np.asarray(values)
    return array if array.ndim == 0 else array.reshape(-1, 1, 1)


@pytest.mark.parametrize("name", EXACT)
def test_thresholds_and_spikes_are_whole(name: str) -> None:
    _, snn = snapped(name)
    for node in neuron_nodes(snn.graph):
        found = parameters(node)
        assert np.all(found.amplitude == (3 if name == "offset" and node.outputs[0].outputs[0].op
                                          == "Add" else 1))  # fmt: skip
        if not name.startswith("shared"):
            assert np.all(found.threshold == 1)


@pytest.mark.parametrize("name", ["residual", "analog_skip", "offset", "depthwise"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_input_within_the_bound_leaves_the_exact_range(name: str, data: st.DataObject) -> None:
    """Currents in float32, in two orders of summation, are those in float64: also of inputs at the
    bound that drive every neuron of a layer at once. The stem adds its parts in float32, which is
    the same everywhere, but not what float64 would have rounded."""
    _, snn = NETWORKS[name]
    signs = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(signs)
    x = BOUND * np.sign(rng.standard_normal((2, 3, 8, 8))).astype(np.float32)
    names = [n.name for n in snn.neurons]
    wanted = numpy_engine(snn, 4, names, np.float64)({"x": x})
    found = numpy_engine(snn, 4, names, np.float32)({"x": x})
    for layer in names:
        slack = 2.0**-16 if layer == names[0] else 0
        np.testing.assert_allclose(
            found.currents[layer], wanted.currents[layer], rtol=0, atol=slack
        )


NETWORKS = {name: snapped(name) for name in ("residual", "analog_skip", "offset", "depthwise")}


@pytest.mark.parametrize("gain", [1.0, 0.9, 0.6])
@pytest.mark.parametrize("timesteps", [64, 100])
def test_the_grid_is_the_finest_that_holds_all_sums(gain: float, timesteps: int) -> None:
    """The membrane, after as many steps of the largest current, is below 2^24 units; of half a
    unit it would not be, give or take what rounding may add."""
    body = f"{spiking.FIRST}c2 = Conv (a1, w2)\n{build.stair('c2', 'last')}{spiking.HEAD}"
    w2 = gain * np.array([[1, 2, 3, -9], [1, 1, -1, 1], [1, 1, 2, 2], [0, 0, 0, -1]], np.float32)
    snn = spiking.network(body, {**spiking.SHAPES, "w2": w2.reshape(4, 4, 1, 1)})
    _, found = snap.run(snn, {"x": BOUND}, timesteps)
    (layer,) = [layer for layer in found.layers if layer.name.startswith("Conv_2")]
    reach = timesteps * 9 * gain + 1
    assert 2.0 ** (layer.grid + 23) / 1.01 < reach <= 2.0 ** (layer.grid + 24)


@pytest.mark.parametrize("name", EXACT)
def test_twice_the_steps_take_one_bit_of_what_follows_spikes(name: str) -> None:
    """Of weights on the input, none: their current is the same at every step. A bound that is
    twice as large takes one bit where an analog current joins a sum of spikes, and nowhere else:
    the weights on the input have another grid for its low part."""
    snn = spiking.NETWORKS[name]()
    once, steps, bound = (
        {layer.name: layer.grid for layer in snap.run(snn, {"x": b}, t)[1].layers}
        for b, t in ((BOUND, 64), (BOUND, 128), (2 * BOUND, 64))
    )
    stem = next(iter(once))
    for layer, grid in once.items():
        assert steps[layer] == grid + (layer != stem)
        if layer != stem:
            assert bound[layer] == grid + (name == "analog_skip")


@pytest.mark.parametrize(("timesteps", "fits"), [(1_800_000, True), (3_800_000, False)])
def test_half_a_threshold_is_on_the_coarsest_grid(timesteps: int, fits: bool) -> None:
    """Weights that are whole multiples of half a threshold need no finer one."""
    body = f"{spiking.FIRST}c2 = Conv (a1, w2)\n{build.stair('c2', 'last')}{spiking.HEAD}"
    w2 = np.array([[1, 2, 3, -9], [1, 1, -1, 1], [1, 1, 2, 2], [0, 0, 0, -1]], np.float32)
    snn = spiking.network(body, {**spiking.SHAPES, "w2": w2.reshape(4, 4, 1, 1) / 2})
    _, found = snap.run(snn, {"x": BOUND}, timesteps)
    assert found.exact is fits
    if fits:
        assert [layer.grid for layer in found.layers if "Conv_2" in layer.name] == [-1]
    else:
        assert "over 2^24 units" in found.reason


@pytest.mark.parametrize("name", ["shared_current", "shared_sum", "residual"])
def test_membranes_start_on_the_grid_of_their_currents(name: str) -> None:
    _, snn = snapped(name)
    names = [n.name for n in snn.neurons if not n.constant_input]
    run = numpy_engine(snn, 4, names, np.float64)(spiking.samples(snn, 3))
    nodes = {n.name: n for n in neuron_nodes(snn.graph)}
    for layer in names:
        currents = run.currents[layer].ravel()
        unit = next(2.0**-k for k in range(60) if not np.any(currents * 2.0**k % 1))
        assert not np.any(np.asarray(parameters(nodes[layer]).threshold, np.float64) / 2 % unit)


@pytest.mark.parametrize("given", [(-0.5, 4.0), (-3.0, 0.7), (0.2, 0.4)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_bounds_of_analog_activations_are_reached(given: tuple[float, float], scale: float) -> None:
    """Of a clip: what comes out within the bound of its input; of a quantiser: all its levels."""
    body = (
        'q = na_convert.Ramp <kind: string = "clip"> (x, least, most, lowest, gain)\n'
        'y = na_convert.Staircase <levels: int = 6, tie_rule: string = "half_up">'
        " (q, step, step, start, half)"
    )
    weights = {"least": -1.0, "most": 3.0, "lowest": 0.5, "gain": 1.5, "start": -2.0}
    net, _ = build.graph(body, {**build.PLAIN, **weights}, inputs="float[N,6] x")
    clip, quantiser = net.nodes
    scales = Scales((), {"x": np.full((), 2.0), "q": np.full((), scale), "y": np.full((), 5.0)}, {})
    values = np.clip(np.linspace(*given, 100) / 2, -1, 3)
    made = scale * (0.5 + 1.5 * (values + 1))
    found = snap._source_bound(clip, given, scales)
    np.testing.assert_allclose(found, (min(0, made.min()), max(0, made.max())))
    levels = snap._source_bound(quantiser, given, scales)
    np.testing.assert_allclose(levels, (5 * 0.4 * -2, 5 * 0.4 * 4), rtol=1e-6)


def test_an_input_is_rounded_once_for_all_who_read_it() -> None:
    body = (
        f"p1 = Conv {spiking.CONV} (x, w1)\np2 = Conv (x, w3)\nc1 = Add (p1, p2)\n"
        f"{build.stair('c1', 'last')}{spiking.HEAD}"
    )
    weights = {"w1": (4, 3, 3, 3), "w3": (4, 3, 1, 1), "v": (5, 4)}
    made, found = snap.run(spiking.network(body, weights), {"x": BOUND}, 8)
    assert found.exact
    scaled = [n.outputs[0].outputs[0].op for n in made.graph.nodes
              if n.op == "Mul" and n.inputs[0].name == "x"]  # fmt: skip
    assert scaled == ["Round"]


@pytest.mark.parametrize(("timesteps", "exact"), [(2**11, True), (2**15, False)])
def test_a_shared_threshold_changes_by_a_thousandth_at_most(timesteps: int, exact: bool) -> None:
    """Relative to itself, and never by more unnoticed: at more steps the grid is too coarse."""
    snn = spiking.NETWORKS["shared_current"]()
    made, found = snap.run(snn, {"x": BOUND}, timesteps)
    assert found.exact is exact
    if not exact:
        assert "its threshold would change by 1.8%" in (found.reason or "")
        return
    twins = {n.name: n for n in neuron_nodes(made.graph)}
    for old, new in zip(snn.neurons, made.neurons, strict=True):
        wanted = np.ravel(np.asarray(old.threshold) * np.asarray(new.current_scale))
        got = np.broadcast_to(np.ravel(parameters(twins[new.name]).threshold), wanted.shape)
        np.testing.assert_allclose(got, wanted, rtol=THRESHOLD_ROUNDING)


def test_weights_that_are_zero() -> None:
    body = f"{spiking.FIRST}c2 = Conv (a1, w2)\n{build.stair('c2', 'last')}{spiking.HEAD}"
    w2 = np.zeros((4, 4, 1, 1), np.float32)
    made, found = snap.run(spiking.network(body, {**spiking.SHAPES, "w2": w2}), {"x": BOUND}, 8)
    assert found.exact
    assert [layer.weight_error for layer in found.layers][1] == 0
    check_spiking(made.graph, "snap")


def test_more_time_steps_take_a_coarser_grid() -> None:
    """The membrane is part of the proof; under a constant current it need not be."""
    few, many = (exactness_of(snapped("residual", T)[1]) for T in (1, 1024))
    assert few is not None
    assert many is not None
    grids = {layer.name: layer.grid for layer in few.layers}
    coarser = {layer.name: layer.grid - grids[layer.name] for layer in many.layers}
    assert coarser["Conv_0"] == 0
    assert coarser["Conv_2"] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("name", EXACT)
def test_the_ann_with_the_rounded_weights(name: str) -> None:
    """Its first layer has the levels that the neurons fire in p steps."""
    _, snn = snapped(name)
    first = snn.neurons[0]
    feeds = spiking.samples(snn, 4)
    found = evaluate(as_ann(snn), feeds, [first_output(snn)])[first_output(snn)]
    run = simulate(snn, feeds, 3, record=[first.name])
    np.testing.assert_allclose(found * 3, run.spikes[first.name].sum(axis=0), atol=1e-6)


def first_output(snn: Snn) -> str:
    return next(n.outputs[0].name for n in neuron_nodes(snn.graph) if n.name == snn.neurons[0].name)


def test_moved_off_its_grid_by_half_a_unit_at_most() -> None:
    before, after = snapped("residual")
    assert moved_off_grid(before, np.random.default_rng(0)) is before.graph
    moved = moved_off_grid(after, np.random.default_rng(0))
    old = {t.name: t.values for t in after.graph.tensors().values() if isinstance(t, gs.Constant)}
    new = {t.name: t.values for t in moved.tensors().values() if isinstance(t, gs.Constant)}
    assert old.keys() == new.keys()
    (weight,) = (n.inputs[1].name for n in after.graph.nodes if n.name == "Conv_2")
    grid = next(x.grid for x in exactness_of(after).layers if x.name == "Conv_2")  # type: ignore[union-attr]
    units = (new[weight] - old[weight]) / 2.0**grid
    assert 0.3 < np.max(np.abs(units)) <= 0.5
    assert all(n.op != "Round" for n in moved.nodes)


def test_what_is_moved_is_drawn_in_the_order_of_the_graph_when_it_is_read() -> None:
    _, snn = snapped("residual")
    rng, drawn = np.random.default_rng(7), np.random.default_rng(7)
    moved = moved_off_grid(snn, rng).tensors()
    grids = grids_of(snn).constants
    inputs = [t for n in snn.graph.nodes for t in n.inputs if t.name in grids]
    assert len(inputs) > 3
    expected = {}
    for tensor in {t.name: t for t in inputs}.values():
        away = drawn.uniform(-0.5, 0.5, tensor.values.shape) * 2.0 ** grids[tensor.name]
        expected[tensor.name] = tensor.values + away
    assert rng.random() == drawn.random()
    for name in reversed(expected):
        assert moved[name].values is not moved[name].values  # none is kept
        np.testing.assert_array_equal(moved[name].values, expected[name])


# --- what stays as it was -------------------------------------------------------------------------


def refused(snn: Snn, reason: str) -> None:
    same, found = snap.run(snn, {"x": BOUND}, 32)
    assert same is snn
    assert not found.exact
    assert found.reason is not None
    assert reason in found.reason


def test_weights_on_analog_tensors_among_spikes() -> None:
    refused(spiking.analog_concat(), "changes its weights by")


def test_a_threshold_per_channel_before_a_matrix_on_rows() -> None:
    steps = np.linspace(0.3, 0.9, 4, dtype=np.float32).reshape(4, 1, 1)
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n" + build.stair("c1", "a1", step="steps")
        + "c2 = MatMul (a1, square)\n" + build.stair("c2", "last") + spiking.HEAD
    )  # fmt: skip
    weights = {**spiking.SHAPES, "steps": steps, "square": (8, 8)}
    refused(spiking.network(body, weights), "in front of or behind a stack of matrices")


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_thresholds_of_rows_or_columns_where_there_are_as_many_channels(shape: tuple) -> None:
    steps = np.linspace(0.3, 0.9, 8, dtype=np.float32).reshape(shape)
    body = spiking.FIRST + "c2 = Conv (a1, w2)\n" + build.stair("c2", "last") + spiking.HEAD
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "v": (5, 8), "step": steps}
    refused(spiking.network(body, weights), "a threshold along another axis than the channels")


def test_float64() -> None:
    graph = {k: np.asarray(v, np.float64) for k, v in build.PLAIN.items()}
    body = "c1 = Gemm <transB: int = 1> (x, w1)\n" + build.stair("c1", "a1") + "y = Gemm (a1, w2)"
    weights = {"w1": np.ones((8, 6)), "w2": np.ones((8, 5))}
    snn = spiking.network(
        body, {**graph, **weights}, inputs="double[N,6] x", outputs="double[N,M] y"
    )
    refused(snn, "does not compute in float32")


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("p = AveragePool <kernel_shape: ints = [3,3]> (a1)", "over 9 values"),
        (
            "scales = Constant <value_floats: floats = [1.0, 1.0, 1.5, 1.5]> ()\n"
            'p = Resize <mode: string = "linear"> (a1, , scales)',
            "Resize in mode linear",
        ),
        ("p = Mean (a1, a1)", "Mean passes no scale"),
        ("mean = ReduceMean <axes: ints = [0]> (c1)\np = Add (a1, mean)", "the samples of a batch"),
        (
            "mean = ReduceMean <axes: ints = [-4]> (c1)\np = Add (a1, mean)",
            "the samples of a batch",
        ),
    ],
)
def test_operators_that_keep_no_grid(between: str, reason: str) -> None:
    body = (
        spiking.FIRST
        + f"{between}\nc2 = Conv {spiking.CONV} (p, w2)\n"
        + build.stair("c2", "last")
        + spiking.HEAD
    )
    refused(spiking.network(body, spiking.SHAPES), reason)


# --- the whole way --------------------------------------------------------------------------------


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    from .test_forms import BODY, WEIGHTS

    onnx.save(build.model(BODY, WEIGHTS), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("form", forms.FORMS)
def test_convert_and_check(ann: Path, form: str) -> None:
    data, target = {"x": build.images(8)}, ann.with_name("snn.onnx")
    made = na_convert.convert(ann, output=target, form=form, data=data, exact=True)
    assert made.passed
    assert made.exactness is not None
    assert made.exactness.exact
    assert made.equivalence is not None
    figures = {f.name: f for f in made.equivalence.figures}
    assert figures["replay before rounding"].value == 0
    assert figures["replay on grid"].value == 0
    assert "onnx.reference" in figures["same counts"].detail
    rounding = made.equivalence.rounding
    assert rounding is not None
    assert rounding.levels == 2 * 8 * 256
    assert rounding.flips < rounding.levels / 100
    checked = na_convert.check(ann, target, data=data)
    assert checked.equivalence is not None
    assert checked.equivalence.rounding == rounding
    assert checked.equivalence.by_timestep[-1] == made.equivalence.by_timestep[-1]


@pytest.mark.parametrize("channels", [4, 8])
def test_a_step_for_each_column_leaves_the_grids(channels: int, tmp_path: Path) -> None:
    """As many columns as channels, or not: the SNN is proved without grids."""
    body = (
        "c1 = Conv (x, w1)\n" + build.quantised("c1", "a1") + "c2 = Conv (a1, w2)\n"
        + build.quantised("c2", "last") + spiking.HEAD
    )  # fmt: skip
    weights = {"w1": (channels, 3, 1, 1), "w2": (channels, channels, 1, 1), "v": (5, channels)}
    steps = np.linspace(0.3, 0.9, 8, dtype=np.float32)
    onnx.save(build.model(body, {**build.PLAIN, **weights, "step": steps}), tmp_path / "net.onnx")
    made = na_convert.convert(tmp_path / "net.onnx", timesteps=3, data={"x": build.images(8)})
    assert made.passed
    assert made.exactness is not None
    assert "along another axis than the channels" in (made.exactness.reason or "")


def test_a_readout_in_which_levels_cancel(tmp_path: Path) -> None:
    """Levels on both sides of 0, most of them 0, are k/15 of a spike, which is on no grid."""
    model, given = build.low_bit_ann(), {"zero": -7.0, "top": 8.0, "step": 0.5}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        values = {"w2": 0.3 * values, "w3": np.ones_like(values)}.get(tensor.name, values)
        values = np.asarray(given.get(tensor.name, values), np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "net.onnx")
    made = na_convert.convert(tmp_path / "net.onnx", data={"x": build.images(8)}, timesteps=3)
    assert made.passed
    assert made.exactness is not None
    assert made.exactness.exact


def test_a_weight_that_is_off_by_more_than_rounding(ann: Path) -> None:
    data, target = {"x": build.images(8)}, ann.with_name("snn.onnx")
    na_convert.convert(ann, output=target, data=data, exact=True)
    model = onnx.load(target)
    weight = max(model.graph.initializer, key=lambda i: len(i.dims) == 4 and i.dims[1] == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 2.0**-5  # still on the grid
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, target)
    with pytest.raises(CheckFailed, match="replay"):
        na_convert.check(ann, target, data=data)


def test_a_network_on_no_grid_says_why(ann: Path) -> None:
    from .test_forms import BODY, WEIGHTS

    body = BODY.replace(
        "c = Conv", "m = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)\nc = Conv"
    ).replace("(a, w2)", "(m, w2)")
    onnx.save(build.model(body, WEIGHTS), ann)
    made = na_convert.convert(ann, exact=True)
    assert made.passed
    assert made.exactness is not None
    assert not made.exactness.exact
    assert "border" in str(made.exactness.reason)
