"""Each case of the pass: the SNN, with batch 2 and T 3, against a simulation written out here."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import to_spiking
from na_convert.passes.to_spiking import Spiking
from onnx.reference import ReferenceEvaluator

from na_convert.forms.folded import from_folded, to_folded
from na_convert.graph import export_graph
from na_convert.neurons import IFState
from na_convert.runtime import run
from na_convert.shapes import of_one_sample
from na_convert.snn import Snn, metadata
from na_convert.spec import check_graph, check_spiking
from tests.build import PLAIN, graph, images, stair

CONV = "z = Conv <pads = [1,1,1,1]> (x, w)\n"
NEXT = "z2 = Conv <pads = [1,1,1,1]> (a, w2)\n"
HEAD = "f = Flatten (last)\ny = Gemm (f, v)"
WEIGHTS = {**PLAIN, "w": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "v": (256, 5)}
TWO_LAYERS = CONV + stair("z", "a") + NEXT + stair("z2", "last") + HEAD


def convert(g, carried, timesteps: int = 3) -> tuple[Spiking, onnx.ModelProto]:
    names = [n.outputs[0].name for n in to_spiking.choose_neurons(g)[0]]
    shapes = of_one_sample(g, carried, {"x": images()}, names)
    found = to_spiking.run(g, shapes)
    check_graph(g, "to_spiking")
    check_spiking(g, "to_spiking")
    snn = Snn(g, found.neurons, timesteps, carried)
    snn = Snn(
        g, found.neurons, timesteps, carried.with_metadata(metadata(snn, "folded", "test", "0"))
    )
    folded = to_folded(snn)
    onnx.checker.check_model(folded, full_check=True)
    return found, folded


def spiking_ops(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node if n.domain == "na_convert"]


def values(model: onnx.ModelProto, tensors: list[str], x: np.ndarray, T: int) -> list[np.ndarray]:
    """Inner tensors of an SNN file, spiking ones as [T, N, ...]."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {o.name for o in model.graph.output}
    extended.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    found = run(extended, {"x": x, "timesteps": np.asarray(T)}, tensors)
    return [found[t].reshape(T, len(x), *found[t].shape[1:]) for t in tensors]


def fire(current: np.ndarray, theta: float, amplitude: float) -> np.ndarray:
    """Spikes [T, N, ...] of neurons fed ``current`` [T, N, ...]."""
    state = IFState.start(current[0], np.float32(theta), np.float32(amplitude))
    return np.stack([state.step(z) for z in current])


def test_staircases_become_if_nodes_and_time_its_borders() -> None:
    g, carried = graph(TWO_LAYERS, WEIGHTS)
    found, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Encode", "IF", "IF", "Decode"]
    assert [(n.threshold, n.levels) for n in found.neurons] == [
        (pytest.approx(1.2), 3),
        (pytest.approx(1.2), 3),
    ]
    assert [n.constant_input for n in found.neurons] == [True, False]
    assert found.neurons[0].shape == (4, 8, 8)
    z, a, z2, last = values(folded, ["z_encoded", "a", "z2", "last"], images(), 3)
    np.testing.assert_array_equal(a, fire(z, 1.2, 1.2))
    np.testing.assert_array_equal(last, fire(z2, 1.2, 1.2))


@pytest.mark.parametrize("T", [1, 3, 8])
@pytest.mark.parametrize("batch", [1, 5])
def test_any_number_of_steps_and_any_batch(T: int, batch: int) -> None:
    g, carried = graph(TWO_LAYERS, WEIGHTS)
    _, folded = convert(g, carried)
    x = images(batch)
    whole = run(folded, {"x": x, "timesteps": np.asarray(T)})["y"]
    single = [run(folded, {"x": row[None], "timesteps": np.asarray(T)})["y"] for row in x]
    np.testing.assert_allclose(whole, np.concatenate(single), rtol=1e-5, atol=1e-6)
    reference = ReferenceEvaluator(folded)
    (again,) = reference.run(None, {"x": x, "timesteps": np.asarray(T)})
    np.testing.assert_allclose(whole, again, rtol=1e-4, atol=1e-5)


def test_timesteps_has_a_default() -> None:
    g, carried = graph(TWO_LAYERS, WEIGHTS)
    _, folded = convert(g, carried, timesteps=3)
    x = images()
    by_default = run(folded, {"x": x})["y"]
    np.testing.assert_array_equal(
        by_default, run(folded, {"x": x, "timesteps": np.asarray(3)})["y"]
    )


def test_thresholds_per_channel() -> None:
    steps = np.array([0.2, 0.3, 0.4, 0.5], np.float32).reshape(4, 1, 1)
    g, carried = graph(TWO_LAYERS, {**WEIGHTS, "step": steps})
    found, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Encode", "IFPerChannel", "IFPerChannel", "Decode"]
    assert found.neurons[0].threshold == pytest.approx([0.6, 0.9, 1.2, 1.5])
    z, a = values(folded, ["z_encoded", "a"], images(), 3)
    np.testing.assert_array_equal(a, fire(z, 3 * steps, 3 * steps))


def test_offset_and_phase_are_exact_at_padded_borders() -> None:
    """y = s (lo + level) with lo = -2, floor: at T = p the first layer's mean is the activation."""
    body = TWO_LAYERS.replace("zero, half", "low, floor", 1)
    g, carried = graph(body, {**WEIGHTS, "low": -2.0, "floor": 0.0})
    activation = run(export_graph(g, carried), {"x": images()}, None)
    expected = _tensor(g, carried, "a")
    _, folded = convert(g, carried)
    (a,) = values(folded, ["a"], images(), 3)
    np.testing.assert_allclose(a.mean(0), expected, atol=1e-6)
    assert a.min() < 0
    assert activation["y"].shape == (2, 5)


def test_falling_steps_negate_the_current() -> None:
    g, carried = graph(TWO_LAYERS.replace("step, step", "fall, step", 1), {**WEIGHTS, "fall": -0.4})
    expected = _tensor(g, carried, "a")
    _, folded = convert(g, carried)
    (a,) = values(folded, ["a"], images(), 3)
    np.testing.assert_allclose(a.mean(0), expected, atol=1e-6)


def test_clip_becomes_a_neuron() -> None:
    ramp = 'a = na_convert.Ramp <kind: string = "clip"> (z, zero, six, zero, one)\n'
    body = CONV + ramp + NEXT + stair("z2", "last") + HEAD
    g, carried = graph(body, {**WEIGHTS, "six": 2.0, "one": 1.0})
    expected = _tensor(g, carried, "a")
    found, folded = convert(g, carried, timesteps=64)
    assert (found.neurons[0].kind, found.neurons[0].threshold) == ("clip", 2.0)
    (a,) = values(folded, ["a"], images(), 64)
    assert np.abs(a.mean(0) - expected).max() <= 2.0 / 64 / 2 + 1e-6


def test_activation_on_the_input_stays_analog() -> None:
    body = stair("x", "q") + "z = Conv <pads = [1,1,1,1]> (q, w)\n"
    g, carried = graph(body + stair("z", "last") + HEAD, WEIGHTS)
    found, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Staircase", "Encode", "IF", "Decode"]
    assert "input" in found.report.skipped[0].reason


def test_activation_on_the_output_stays_analog() -> None:
    body = TWO_LAYERS.replace("y = Gemm", "logits = Gemm")
    g, carried = graph(body + "\n" + stair("logits", "y"), WEIGHTS)
    found, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Encode", "IF", "IF", "Decode", "Staircase"]
    assert "output" in found.report.skipped[0].reason


def test_skip_connections_analog_and_spiking() -> None:
    body = (
        CONV + stair("z", "a") + NEXT + "r = Add (z2, z)\n" + stair("r", "b")
        + "z3 = Conv <pads = [1,1,1,1]> (b, w2)\nr2 = Add (z3, a)\n" + stair("r2", "last") + HEAD
    )  # fmt: skip
    g, carried = graph(body, WEIGHTS)
    _, folded = convert(g, carried)
    assert spiking_ops(folded).count("Encode") == 1
    z, z2, r, b = values(folded, ["z_encoded", "z2", "r", "b"], images(), 3)
    np.testing.assert_array_equal(r, z2 + z)
    np.testing.assert_array_equal(b, fire(r, 1.2, 1.2))


def test_concat_with_an_analog_tensor_at_batch_one() -> None:
    body = (
        CONV + stair("z", "a") + "c = Concat <axis = 1> (a, x)\n"
        "z2 = Conv <pads = [1,1,1,1]> (c, w3)\n" + stair("z2", "last") + HEAD
    )  # fmt: skip
    g, carried = graph(body, {**WEIGHTS, "w3": (4, 7, 3, 3)})
    _, folded = convert(g, carried)
    (c,) = values(folded, ["c"], images(1), 3)
    np.testing.assert_array_equal(c[:, :, 4:], np.broadcast_to(images(1), (3, 1, 3, 8, 8)))


@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_maxpool_between_neurons_pools_counts(ceil_mode: int) -> None:
    pool = f"MaxPool <kernel_shape = [3,3], strides = [2,2], ceil_mode = {ceil_mode}>"
    body = (
        CONV + stair("z", "a") + NEXT + stair("z2", "b") + f"m = {pool} (b)\n"
        "z3 = Conv <pads = [1,1,1,1]> (m, w2)\n" + stair("z3", "last")
        + "g = GlobalAveragePool (last)\nf = Flatten (g)\ny = Gemm (f, v4)"
    )  # fmt: skip
    g, carried = graph(body, {**WEIGHTS, "v4": (4, 5)})
    _, folded = convert(g, carried)
    assert "MaxPoolCounts" in spiking_ops(folded)
    b, m = values(folded, ["b", "m"], images(), 8)
    totals = np.cumsum(np.round(b / np.float32(1.2)), axis=0)
    size = 4 if ceil_mode else 3
    pooled = np.stack(
        [
            [totals[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((-2, -1)) for j in range(size)]
            for i in range(size)
        ]
    )
    expected = np.moveaxis(pooled, (0, 1), (-2, -1))
    np.testing.assert_array_equal(np.round(np.cumsum(m, 0) / np.float32(1.2)), expected)
    assert set(np.unique(m)) <= {0, np.float32(1.2)}


def test_a_spiking_graph_output_keeps_its_name() -> None:
    body = TWO_LAYERS
    g, carried = graph(body, WEIGHTS, outputs="float[N,M] y, float[N,4,8,8] a")
    expected = _tensor(g, carried, "a")
    _, folded = convert(g, carried)
    found = run(folded, {"x": images(), "timesteps": np.asarray(3)})
    assert [o.name for o in folded.graph.output] == ["y", "a"]
    np.testing.assert_allclose(found["a"], expected, atol=1e-6)


ODD = {
    "four": np.ones(4, np.float32),
    "ahead": np.array([-5]),
    "zeros": np.array([0]),
    "ones": np.array([1]),
    "fourth": np.array([-4]),
    "two": np.array([2, 4, 8, 8]),
}


@pytest.mark.parametrize(
    ("middle", "op", "words"),
    [
        ("s = Softmax (a)\n", "Softmax", "not affine"),
        ("s = Mul (a, a)\n", "Mul", "gating"),
        ("s = MatMul (a, a)\n", "MatMul", "attention"),
        ("s = Concat <axis = 0> (a, a)\n", "Concat", "batch"),
        ("s = ReduceMax <axes = [0]> (a)\n", "ReduceMax", "maximum over the batch"),
        ("s = ReduceMin <axes = [0]> (a)\n", "ReduceMin", "minimum over the batch"),
        ("s = Div (step, a)\n", "Div", "divides"),
        ("s = Elu (a)\n", "Elu", "not known"),
        ("i = ArgMin <axis = 1> (a)\ns = Gather <axis = 1> (a, i)\n", "Gather", "depend on spikes"),
        ("t = Transpose <perm = [1,0,2,3]> (a)\ns = Transpose <perm=[1,0,2,3]> (t)\n",
         "Transpose", "batch"),
        ("s = Concat <axis = -4> (a, a)\n", "Concat", "batch"),
        ("m = ReduceMean <axes = [-4]> (a)\ns = Sub (a, m)\n", "ReduceMean", "batch"),
        ("m = ReduceMean (a)\ns = Sub (a, m)\n", "ReduceMean", "batch"),
        ("t = Unsqueeze (a, ahead)\ns = Squeeze (t, ahead)\n", "Unsqueeze", "batch"),
        ("s = Slice (a, zeros, ones, fourth)\n", "Slice", "batch"),
        ("s = Slice (a, zeros, ones)\n", "Slice", "batch"),
        ("i = Cast <to = 7> (x)\nm = ReduceSum (a, i)\ns = Sub (a, m)\n", "ReduceSum",
         "axes are computed at run time"),
        ("i = Cast <to = 7> (x)\ns = Slice (a, i, i)\n", "Slice",
         "axes are computed at run time"),
        ("s = BatchNormalization <training_mode = 1> (a, four, four, four, four)\n",
         "BatchNormalization", "batch statistics"),
        ("m = ReduceMean <axes = [0,2,3], keepdims = 0> (a)\n"
         "s = BatchNormalization (a, m, four, four, four)\n", "BatchNormalization",
         "its weights depend on spikes"),
        ("p, i = MaxPool <kernel_shape = [1,1]> (a)\nf2 = Cast <to = 1> (i)\ns = Add (p, f2)\n",
         "MaxPool", "indices of its maxima"),
        ('s = MaxPool <kernel_shape = [2,2], auto_pad = "SAME_UPPER"> (a)\n', "MaxPool",
         "auto_pad"),
        ("s = Reshape (a, two)\n", "Reshape", "the batch is not the first axis"),
    ],
)  # fmt: skip
def test_refused_between_neurons(middle: str, op: str, words: str) -> None:
    body = CONV + stair("z", "a") + middle + "z2 = Conv <pads = [1,1,1,1]> (s, w2)\n"
    g, _ = graph(body + stair("z2", "last") + HEAD, {**WEIGHTS, **ODD})
    before = len(g.nodes)
    found = to_spiking.run(g, {})
    (refusal,) = [r for r in found.report.refused if r.op == op][:1]
    assert words in refusal.reason
    assert refusal.remedy
    assert len(g.nodes) == before
    assert found.neurons == ()


MATRIX = {"m": (4, 4), "mask": np.ones((8, 1), bool), "repeats": np.array([1, 1, 1, 1])}


@pytest.mark.parametrize(
    "middle",
    [
        'e = Einsum <equation = "nchw,dc->ndhw"> (a, m)\ns = Identity (e)\n',
        'e = Einsum <equation = "...hw,wv->...hv"> (a, m8)\ns = Identity (e)\n',
        "s = Where (mask, a, step)\n",
        "h = Cast <to = 10> (a)\ns = Cast <to = 1> (h)\n",
        "s = Tile (a, repeats)\n",
        "s = CumSum (a, axis)\n",
    ],
)
def test_affine_between_neurons(middle: str) -> None:
    body = CONV + stair("z", "a") + middle + "z2 = Conv <pads = [1,1,1,1]> (s, w2)\n"
    weights = {**WEIGHTS, **MATRIX, "m8": (8, 8), "axis": np.array(3)}
    g, _ = graph(body + stair("z2", "last") + HEAD, weights)
    found = to_spiking.run(g, {"a": (4, 8, 8), "last": (4, 8, 8)})
    assert found.report.refused == ()
    assert len(found.neurons) == 2


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        ('s = Einsum <equation = "nchw,nchw->nchw"> (a, a)\n', "gating"),
        ('s = Einsum <equation = "nchw,dn->dchw"> (a, m)\n', "batch"),
        ('s = Einsum <equation = "nchw,dc->dnhw"> (a, m)\n', "batch"),
        ("s = Tile (a, twice)\n", "repeats samples"),
        ("b = Greater (a, step)\ns = Where (b, a, step)\n", "condition"),
        ("i = Cast <to = 3> (a)\ns = Cast <to = 1> (i)\n", "rounds"),
        ("s = CumSum (a, axis)\n", "batch"),
    ],
)
def test_not_affine_between_neurons(middle: str, words: str) -> None:
    body = CONV + stair("z", "a") + middle + "z2 = Conv <pads = [1,1,1,1]> (s, w2)\n"
    weights = {**WEIGHTS, **MATRIX, "twice": np.array([2, 1, 1, 1]), "axis": np.array(0)}
    g, _ = graph(body + stair("z2", "last") + HEAD, weights)
    refused = to_spiking.run(g, {}).report.refused
    assert any(words in r.reason for r in refused)
    assert all(r.remedy for r in refused)


RELU = 'na_convert.Ramp <kind: string = "relu"> (z{i}, zero, inf, zero, one)\n'
RELU_WEIGHTS = {**WEIGHTS, "inf": np.inf, "one": 1.0}
THIRD = "z3 = Conv <pads = [1,1,1,1]> (b, w2)\n"


def test_relu_without_bound_between_neurons_is_refused() -> None:
    body = CONV + stair("z", "a") + NEXT + "b = " + RELU.format(i=2) + THIRD + stair("z3", "last")
    g, _ = graph(body + HEAD, RELU_WEIGHTS)
    (refusal,) = to_spiking.run(g, {}).report.refused
    assert "--calibrate" in refusal.remedy


def test_network_of_plain_relus_is_refused() -> None:
    body = CONV + "a = " + RELU.format(i="") + NEXT + "last = " + RELU.format(i=2) + HEAD
    g, _ = graph(body, RELU_WEIGHTS)
    assert len(to_spiking.run(g, {}).report.refused) == 2


def test_relus_outside_the_spiking_part_stay_analog() -> None:
    body = (
        CONV + "a = " + RELU.format(i="") + NEXT + stair("z2", "b") + THIRD + "last = "
        + RELU.format(i=3) + HEAD
    )  # fmt: skip
    g, carried = graph(body, RELU_WEIGHTS)
    found, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Ramp", "Encode", "IF", "Decode", "Ramp"]
    assert all("analog" in s.reason for s in found.report.skipped)


def test_readout_from_a_node_keeps_what_follows_analog() -> None:
    g, _carried = graph(TWO_LAYERS, WEIGHTS)
    node = next(n for n in g.nodes if n.outputs[0].name == "z2")
    found = to_spiking.run(g, {"a": (4, 8, 8)}, node)
    assert [n.output for n in found.neurons] == ["a"]
    assert "readout begins" in found.report.skipped[0].reason


def test_a_folded_file_reads_back_as_the_same_network() -> None:
    g, carried = graph(TWO_LAYERS, WEIGHTS)
    found, folded = convert(g, carried)
    again = from_folded(folded)
    assert again.neurons == found.neurons
    assert again.timesteps == 3
    assert to_folded(again).SerializeToString(deterministic=True) == folded.SerializeToString(
        deterministic=True
    )


def test_shapes_in_the_file_show_time_in_the_batch() -> None:
    g, carried = graph(TWO_LAYERS, WEIGHTS)
    _, folded = convert(g, carried)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in folded.graph.value_info
    }
    assert shapes["z"] == ["N", 4, 8, 8]
    assert shapes["z2"] == ["T*N", 4, 8, 8]


def _tensor(g, carried, name: str) -> np.ndarray:
    model = export_graph(g.copy(), carried)
    if name not in {o.name for o in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(model, {"x": images()}, [name])[name]


def test_sizes_read_from_a_spiking_tensor_count_its_time_steps() -> None:
    body = (
        CONV + stair("z", "a") + "size = Shape (a)\nr = Resize (a, , , size)\n"
        "z2 = Conv <pads = [1,1,1,1]> (r, w2)\n" + stair("z2", "last") + HEAD
    )
    g, carried = graph(body, WEIGHTS)
    _, folded = convert(g, carried)
    assert spiking_ops(folded) == ["Encode", "IF", "IF", "Decode"]
    plain, carried = graph(TWO_LAYERS, WEIGHTS)
    _, expected = convert(plain, carried)
    feeds = {"x": images(), "timesteps": np.asarray(3)}
    found, want = (run(m, feeds, ["y"])["y"] for m in (folded, expected))
    np.testing.assert_array_equal(found, want)


FALL = (
    'a = na_convert.Staircase <levels: int = 3, tie_rule: string = "half_up">'
    " (z, step, falling, zero, half)\n"
)
POOLED: dict[str, tuple[str, float]] = {
    "spikes": (stair("z", "a") + "p = Identity (a)\n", 1.2),
    "spikes that are moved and joined": (
        stair("z", "a") + "t = Transpose <perm = [0,1,3,2]> (a)\np = Concat <axis = 1> (a, t)\n",
        1.2,
    ),
    "spikes that turned round": (stair("z", "a") + "p = Neg (a)\n", 1.2),
    "spikes worth less than nothing": (FALL + "p = Identity (a)\n", 0.6),
    "the largest of spikes": (
        stair("z", "a") + "p = MaxPool <kernel_shape = [1,1]> (a)\n", 1.2),
    "spikes of two sizes": (
        stair("z", "a") + stair("z", "b", step="other") + "p = Concat <axis = 1> (a, b)\n", 1.0),
    "spikes for each channel": (stair("z", "a", step="steps") + "p = Identity (a)\n", 1.0),
    "spikes times a number": (stair("z", "a") + "p = Mul (a, other)\n", 1.0),
    "spikes beside what is analog": (
        stair("z", "a") + "p = Concat <axis = 1> (a, x)\n", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLED)
def test_maxima_are_counted_in_spikes_where_they_are_all_worth_the_same(name: str) -> None:
    body, unit = POOLED[name]
    steps = np.linspace(0.3, 0.6, 4, dtype=np.float32).reshape(4, 1, 1)
    weights = {**WEIGHTS, "other": 0.3, "steps": steps, "falling": -0.2, "v3": (5, 1)}
    body = (
        f"{CONV}{body}m = MaxPool <kernel_shape = [2,2]> (p)\nr = ReduceSum (m, axes)\n"
        "z2 = Conv (r, one)\n" + stair("z2", "last") + "f = Flatten (last)\ny = Gemm (f, v2)"
    )
    weights |= {"axes": np.array([1]), "one": (1, 1, 1, 1), "v2": (49, 5)}
    net, _ = graph(body, weights)
    found = to_spiking.run(net, {"a": (4, 8, 8), "b": (4, 8, 8), "last": (1, 7, 7)})
    assert not found.report.refused
    pool = [n for n in net.nodes if n.op == "MaxPoolCounts"][-1]
    assert pool.attrs["unit"] == pytest.approx(unit)
    assert pool.attrs["strides"] == [1, 1]


def test_a_layer_is_described_as_its_activation_was() -> None:
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n"
        'a = na_convert.Staircase <levels: int = 7, tie_rule: string = "half_even">'
        " (z, step, out, low, phase)\n" + NEXT
        + 'last = na_convert.Ramp <kind: string = "clip"> (z2, zero, six, one, two)\n' + HEAD
    )  # fmt: skip
    given = {"out": 0.25, "low": -2.0, "phase": 0.25, "six": 6.0, "one": 1.0, "two": 2.0}
    net, _ = graph(body, {**WEIGHTS, **given})
    shapes = {"a": (4, 8, 8), "last": (4, 8, 8)}
    first, second = to_spiking.run(net, shapes).neurons
    assert (first.root, first.output, first.shape) == ("z", "a", (4, 8, 8))
    assert (first.kind, first.levels, first.tie_rule) == ("staircase", 7, "half_even")
    assert first.input_step == pytest.approx(0.4)
    assert (first.output_step, first.lowest_level, first.phase) == (0.25, -2.0, 0.25)
    assert first.constant_input
    assert (second.kind, second.levels, second.tie_rule) == ("clip", None, "none")
    assert (second.input_step, second.output_step) == (None, None)
    assert (second.lowest_level, second.phase) == (0.0, 0.5)
    assert not second.constant_input


def test_a_node_without_a_name_gets_one_from_its_output() -> None:
    net, _ = graph(TWO_LAYERS, WEIGHTS)
    net.nodes[1].name = ""
    found = to_spiking.run(net, {"a": (4, 8, 8), "last": (4, 8, 8)})
    assert found.neurons[0].name == "IF_a"


def test_layers_are_told_in_the_order_of_the_graph() -> None:
    net, _ = graph(TWO_LAYERS, WEIGHTS)
    found = to_spiking.run(net, {"a": (4, 8, 8), "last": (4, 8, 8)})
    assert [n.output for n in found.neurons] == ["a", "last"]
    assert found.report.changed == 2


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_neurons_compute_in_the_type_of_their_activation(kind: type) -> None:
    weights = {k: np.asarray(v, kind) for k, v in PLAIN.items()}
    weights |= {"w1": np.ones((6, 6), kind), "w2": np.ones((6, 5), kind)}
    name = "float" if kind is np.float32 else "double"
    net, _ = graph(
        f"z = MatMul (x, w1)\n{stair('z', 'a')}y = MatMul (a, w2)", weights,
        inputs=f"{name}[N,6] x", outputs=f"{name}[N,5] y",
    )  # fmt: skip
    to_spiking.run(net, {"a": (6,)})
    (neuron,) = (n for n in net.nodes if n.op in ("IF", "IFPerChannel"))
    assert neuron.op == ("IF" if kind is np.float32 else "IFPerChannel")
    assert neuron.attrs["initial"] == 0.5
    assert all(t.values.dtype == kind for t in neuron.inputs[1:])


@pytest.mark.parametrize(("step", "refused"), [(1e-39, True), (3e-38, False)])
def test_a_threshold_that_next_to_vanishes_is_refused(step: float, refused: bool) -> None:
    net, _ = graph(TWO_LAYERS, {**WEIGHTS, "step": np.float32(step)})
    found = to_spiking.run(net, {"a": (4, 8, 8), "last": (4, 8, 8)}).report.refused
    assert [r.op for r in found] == (["Staircase"] * 2 if refused else [])
