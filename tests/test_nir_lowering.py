"""From an SNN to the nodes of a NIR graph, without the package nir: shapes, weights, refusals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes import snap, unit_spikes

from na_convert import runtime
from na_convert.errors import NotConvertible
from na_convert.evaluate import evaluate
from na_convert.nir_file import geometry, maxima, movement, outside
from na_convert.nir_file.encoding import encode
from na_convert.nir_file.law import OURS, Law, fire
from na_convert.nir_file.lowering import lower
from na_convert.nir_file.network import Network, Node
from na_convert.nir_file.pulse import BIAS, LONGEST, with_pulses
from na_convert.nir_file.read_back import from_graph
from na_convert.nir_file.simulate import Deviation, Recording, simulate
from na_convert.simulation import numpy_engine
from na_convert.snn import Snn

from . import build, spiking

HEAD = "f = Flatten (last)\ny = Gemm <transB: int = 1> (f, v)"


def lowered(snn: Snn, membrane: str = "metadata") -> tuple[Network, Snn]:
    made, _ = unit_spikes.run(snn)
    encoded = encode(made, membrane)
    network = lower(encoded.snn, spiking.samples(snn, 2))
    return (with_pulses(network) if membrane == "pulse" else network), encoded.snn


def as_nir(network: Network) -> Any:
    """What `nir` would give back, as far as `from_graph` looks at it."""
    nodes = {}
    for name, node in network.nodes.items():
        values = dict(node.values)
        if node.kind == "IF":
            values = {"r": np.ones(node.shape), "v_threshold": np.ones(node.shape)}
        if node.kind == "SumPool2d":
            values["padding"] = np.zeros(2, np.int64)
        if node.kind in ("Conv1d", "Conv2d"):
            values |= {"dilation": 1, "groups": 1}
        if node.kind == "Flatten":
            values = {"start_dim": -len(node.given), "end_dim": -1}
        start = np.reshape(node.initial, (-1, *[1] * (len(node.shape) - 1)))
        metadata = {"initial_membrane": start if np.ndim(node.initial) else node.initial}
        nodes[name] = type(node.kind, (SimpleNamespace,), {})(**values, metadata=metadata)
    return SimpleNamespace(nodes=nodes, edges=network.edges)


def run(network: Network, x: np.ndarray, steps: int, **options: Any) -> Recording:
    """``x`` [N, ...] at each of ``steps`` steps."""
    inputs = np.repeat(x[None].astype(np.float64), steps, axis=0)
    return simulate(from_graph(as_nir(network)), inputs, **options)


def same_spikes(snn: Snn, network: Network, steps: int = 4) -> None:
    """``network`` against ``snn``, spike by spike, and the mean of its output."""
    feeds, names = spiking.samples(snn, 3), list(network.layers)
    wanted = numpy_engine(snn, steps, names, np.float64)(feeds)
    found = run(network, feeds["x"], steps)
    for name in names:
        spikes = found.spikes[network.layers[name]]
        np.testing.assert_array_equal(spikes, wanted.spikes[name])
        assert np.any(spikes)
    for node, tensor in network.outputs.items():
        mean = found.values[node].mean(axis=0)
        np.testing.assert_allclose(mean, wanted.outputs[steps][tensor], rtol=1e-5, atol=1e-5)


STRUCTURES = [n for n in spiking.NETWORKS if n != "encoded_input"]
POOL = "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a1)\n"


@pytest.mark.parametrize(
    ("name", "membrane"),
    [
        (name, membrane)
        for name in STRUCTURES
        for membrane in ("metadata", "bias", "pulse")
        if (name, membrane) != ("max_pool", "bias")  # refused
    ],
)
def test_each_structure_fires_the_same_spikes(name: str, membrane: str) -> None:
    network, snn = lowered(spiking.NETWORKS[name](), membrane)
    same_spikes(snn, network, 3)


def test_a_max_pool_of_currents_moves_behind_the_first_neurons() -> None:
    snn, _ = unit_spikes.run(spiking.max_pool())
    encoded = encode(snn, "metadata")
    feeds, names = spiking.samples(snn, 4), [n.name for n in snn.neurons]
    before = numpy_engine(snn, 3, names, np.float64)(feeds)
    after = numpy_engine(encoded.snn, 3, names, np.float64)(feeds)
    assert list(encoded.pooled) == names[:1]
    assert after.spikes[names[0]].shape[2:] == (4, 8, 8)
    assert before.spikes[names[0]].shape[2:] == (4, 7, 7)
    np.testing.assert_array_equal(after.spikes[names[1]], before.spikes[names[1]])
    np.testing.assert_array_equal(after.outputs[3]["y"], before.outputs[3]["y"])
    assert lower(encoded.snn, feeds).input == "x"


def test_a_residual_is_two_edges_into_one_node_and_a_diagonal_convolution() -> None:
    network, _ = lowered(spiking.residual())
    second, third = list(network.layers.values())[1:]
    into = [a for a, b in network.edges if b == second]
    assert len(into) == 2
    (diagonal,) = [network.nodes[a] for a in into if network.nodes[a].onnx.startswith("scaling")]
    weight = diagonal.values["weight"]
    assert weight.shape == (4, 4, 1, 1)
    matrix = weight[:, :, 0, 0]
    np.testing.assert_array_equal(matrix, np.diag(np.diag(matrix)))
    assert np.all(np.diag(matrix) != 1)
    weighted = [network.nodes[a] for a, b in network.edges if b == third]
    assert [node.values["weight"].shape[2:] for node in weighted] == [(1, 1), (3, 3)]


def test_no_edge_is_there_twice_and_every_name_is_an_identifier() -> None:
    for name in STRUCTURES:
        network, _ = lowered(spiking.NETWORKS[name](), "pulse")
        assert len(set(network.edges)) == len(network.edges)
        assert all(name.isidentifier() for name in network.nodes)


def test_a_depthwise_convolution_has_no_groups_left() -> None:
    network, _ = lowered(spiking.depthwise())
    weight = network.nodes["Conv_2"].values["weight"]
    assert weight.shape == (4, 4, 3, 3)
    kept = np.any(weight != 0, axis=(2, 3))
    np.testing.assert_array_equal(kept, np.eye(4, dtype=bool))


def test_an_average_pool_is_a_sum_whose_factor_is_in_the_weights_behind() -> None:
    snn = spiking.depthwise()
    network, _ = lowered(snn)
    pools = [node for node in network.nodes.values() if node.kind == "SumPool2d"]
    assert [tuple(pool.values["kernel_size"]) for pool in pools] == [(2, 2), (4, 4)]
    assert not any(node.onnx.startswith("scaling") for node in network.nodes.values())


def one_layer(body: str, weights: dict, **kwargs: object) -> Snn:
    return spiking.network(
        f"c1 = {body}\n" + build.stair("c1", "last") + HEAD, weights, **kwargs
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("pads: ints = [0,0,1,1]", (2, 2)),
        ("pads: ints = [1,0,1,0]", (3, 1)),
        ("pads: ints = [0,0,0,2]", (1, 3)),
        ('auto_pad: string = "SAME_UPPER", strides: ints = [2,2]', (3, 3)),
        ('auto_pad: string = "SAME_LOWER"', (2, 2)),
        ('auto_pad: string = "VALID"', (3, 3)),
        ("dilations: ints = [2,2], pads: ints = [2,2,2,2]", (3, 3)),
    ],
)
def test_any_padding_becomes_a_square_kernel_with_one_per_axis(
    attributes: str, kernel: tuple[int, int]
) -> None:
    size = {
        'auto_pad: string = "VALID"': (6, 6),
        'auto_pad: string = "SAME_UPPER", strides: ints = [2,2]': (4, 4),
    }.get(attributes, (8, 8))
    weights = {"w1": (4, 3, *kernel), "v": (5, 4 * size[0] * size[1])}
    network, snn = lowered(one_layer(f"Conv <{attributes}> (x, w1)", weights))
    same_spikes(snn, network)
    (conv,) = [node for node in network.nodes.values() if node.kind == "Conv2d"]
    assert conv.values["weight"].shape[2] == conv.values["weight"].shape[3]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_plain_convolution_computes_the_same(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pads = [data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(2)]
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(n + a + b < r for n, (a, b), r in zip(size, pads, reach, strict=True)):
        return
    across = zip(reach, pads, stride, strict=True)
    differ = len({(r + a + b) % 2 for r, (a, b), s in across if s == 1}) == 2
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 2, *size)), rng.standard_normal((3, 2, *kernel))
    try:
        found = geometry.plain(weight, size, pads, stride, dilation)
    except geometry.NoGeometry:
        assert differ
        return
    assert not differ
    assert found.weight.shape[2] == found.weight.shape[3]
    values = {"weight": found.weight, "bias": np.zeros(3)}
    values |= {"stride": np.asarray(found.stride), "padding": np.asarray(found.padding)}
    nodes = {
        "input": Node("Input", (), ()), "c": Node("Conv2d", (), (), values),
        "output": Node("Output", (), ()),
    }  # fmt: skip
    made = Network(nodes, (("input", "c"), ("c", "output")), "x", {}, {})
    result = run(made, x, 1).output[0]
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    wanted = np.zeros_like(result)
    for i, j in np.ndindex(*result.shape[2:]):
        rows = slice(i * stride[0], i * stride[0] + reach[0], dilation[0])
        columns = slice(j * stride[1], j * stride[1] + reach[1], dilation[1])
        wanted[:, :, i, j] = np.einsum("nchw,ochw->no", padded[:, :, rows, columns], weight)
    np.testing.assert_allclose(result, wanted, atol=1e-12)


def test_one_dimension() -> None:
    body = (
        "c1 = Conv <pads: ints = [1,1]> (x, w1, b1)\n" + build.stair("c1", "a1")
        + "p = AveragePool <kernel_shape: ints = [2], strides: ints = [2]> (a1)\n"
        + "c2 = Conv <group: int = 2> (p, w2)\n" + build.stair("c2", "last")
        + "m = GlobalAveragePool (last)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    weights = {"w1": (4, 3, 3), "b1": (4,), "w2": (4, 2, 1), "v": (5, 4)}
    graph, carried = build.graph(body, {**build.PLAIN, **weights}, inputs="float[N,3,8] x")
    from na_convert.passes import to_spiking

    from na_convert.shapes import of_one_sample

    x = build.images(3, (3, 8))
    chosen, _ = to_spiking.choose_neurons(graph)
    names = [a.outputs[0].name for a in chosen]
    made = to_spiking.run(graph, of_one_sample(graph, carried, {"x": x}, names))
    snn, _ = unit_spikes.run(Snn(graph, made.neurons, 3, carried))
    network = lower(snn, {"x": x[:2]})
    assert {node.kind for node in network.nodes.values()} >= {"Conv1d", "Affine", "Flatten"}
    wanted = numpy_engine(snn, 3, [n.name for n in snn.neurons], np.float64)({"x": x})
    found = run(network, x, 3)
    for name, node in network.layers.items():
        np.testing.assert_array_equal(found.spikes[node], wanted.spikes[name])


@pytest.mark.parametrize(
    "flatten",
    [
        "f = Flatten (last)",
        "shape = Constant <value_ints: ints = [0, -1]> ()\nf = Reshape (last, shape)",
        "s = Shape <start: int = 0, end: int = 1> (last)\n"
        "rest = Constant <value_ints: ints = [-1]> ()\n"
        "shape = Concat <axis: int = 0> (s, rest)\nf = Reshape (last, shape)",
        "t = Transpose <perm: ints = [0, 2, 3, 1]> (last)\nf = Flatten (t)",
    ],
)
def test_each_spelling_of_a_flatten(flatten: str) -> None:
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1)\n" + build.stair("c1", "last")
        + f"{flatten}\ny = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    network, snn = lowered(spiking.network(body, {"w1": (4, 3, 3, 3), "v": (5, 4 * 64)}))
    same_spikes(snn, network)
    assert [n.kind for n in network.nodes.values()].count("Flatten") == 1


@pytest.mark.parametrize(
    "pool",
    [
        "m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (last)",
        "p = ReduceMean <axes: ints = [3], keepdims: int = 0> (last)\n"
        "m = ReduceMean <axes: ints = [2], keepdims: int = 0> (p)",
        "p = ReduceMean <axes: ints = [-1]> (last)\nq = ReduceMean <axes: ints = [2]> (p)\n"
        "m = Flatten (q)",
        "r = Reshape (last, wide)\nm = ReduceMean <axes: ints = [2], keepdims: int = 0> (r)",
        "s = ReduceSum <keepdims: int = 0> (last, axes)\nm = Div (s, count)",
    ],
)
def test_each_spelling_of_a_global_average(pool: str) -> None:
    sizes = {"wide": np.array([0, 4, 64]), "axes": np.array([2, 3])}
    constants = {name: values for name, values in sizes.items() if name in pool}
    body = spiking.FIRST.replace("a1", "last") + pool + "\ny = Gemm <transB: int = 1> (m, v)"
    network, snn = lowered(spiking.network(body, {**spiking.SHAPES, **constants, "count": 64.0}))
    same_spikes(snn, network)
    kinds = [node.kind for node in network.nodes.values()]
    assert "SumPool2d" in kinds
    assert not any(node.onnx.startswith("scaling") for node in network.nodes.values())


def test_pixels_in_another_shape_are_refused_where_they_matter() -> None:
    body = (
        spiking.FIRST + "r = Reshape (a1, wide)\nc2 = Conv (r, w2)\n"
        + build.stair("c2", "last") + spiking.HEAD
    )  # fmt: skip
    weights = {**spiking.SHAPES, "wide": np.array([0, 4, 4, 16])}
    snn, _ = unit_spikes.run(spiking.network(body, weights))
    with pytest.raises(NotConvertible, match="in another shape"):
        lower(snn, spiking.samples(snn, 2))


def test_every_second_pixel_is_a_convolution_with_a_stride() -> None:
    body = (
        spiking.FIRST + "short = Slice (a1, none, many, axes, two)\n"
        "c2 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (a1, w2)\n"
        "s2 = Add (c2, short)\n" + build.stair("s2", "last") + spiking.HEAD
    )
    sizes = {"none": [0, 0], "many": [99, 99], "axes": [2, 3], "two": [2, 2]}
    constants = {name: np.asarray(values, np.int64) for name, values in sizes.items()}
    network, snn = lowered(spiking.network(body, {**spiking.SHAPES, **constants}))
    same_spikes(snn, network)
    strided = [n for n in network.nodes.values() if n.onnx.startswith("scaling")]
    assert [tuple(n.values["stride"]) for n in strided] == [(2, 2)]


def test_an_offset_in_front_of_padding_gets_a_node_of_its_own() -> None:
    network, snn = lowered(spiking.offset())
    same_spikes(snn, network)
    own = [n for n in network.nodes.values() if n.onnx.startswith("scaling")]
    assert any(np.all(n.values["bias"] == -1) for n in own)


def test_a_quantiser_of_the_input_stays_outside() -> None:
    snn, _ = unit_spikes.run(spiking.encoded_input())
    feeds = spiking.samples(snn, 3)
    encoded = encode(snn, "metadata")
    network = lower(encoded.snn, {"x": feeds["x"][:2]})
    assert "is computed outside" in network.statements[0]
    x = outside.input_values(outside.described(encoded, network), feeds, "net.nir")
    computed = evaluate(encoded.snn.graph, feeds, [network.input])[network.input]
    np.testing.assert_array_equal(x, computed)
    assert not np.array_equal(x, feeds["x"])
    wanted = numpy_engine(snn, 3, [n.name for n in snn.neurons], np.float64)(feeds)
    found = run(network, x, 3)
    for name, node in network.layers.items():
        np.testing.assert_array_equal(found.spikes[node], wanted.spikes[name])


def test_what_follows_the_linear_part_of_the_readout_stays_outside() -> None:
    body = spiking.FIRST.replace("a1", "last") + spiking.HEAD.replace("y =", "l =")
    network, _ = lowered(spiking.network(body + "\ny = Softmax (l)", spiking.SHAPES))
    assert network.outputs == {"output": "l"}
    assert "Softmax" in network.statements[0]


def pooled(pool: str, more: dict | None = None) -> Snn:
    body = spiking.FIRST + pool + f"c2 = Conv {spiking.CONV} (p, w2)\n" + build.stair("c2", "last")
    return spiking.network(body + spiking.HEAD, {**spiking.SHAPES, **(more or {})})


@pytest.mark.parametrize(
    "pool",
    [
        POOL,
        "p = MaxPool <kernel_shape: ints = [3,3], strides: ints = [2,2], pads: ints = [1,1,1,1]>"
        " (a1)\n",
        "p = MaxPool <kernel_shape: ints = [2,2], pads: ints = [0,0,1,1]> (a1)\n",
        "d = Mul (a1, worth)\np = MaxPool <kernel_shape: ints = [2,2]> (d)\n",
    ],
)
@pytest.mark.parametrize("membrane", ["metadata", "pulse"])
@pytest.mark.parametrize("timesteps", [1, 3, 7])
def test_a_max_pool_of_spikes_is_made_of_neurons(
    pool: str, membrane: str, timesteps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maxima, "WIDEST", 12)  # three counts side by side
    worth = np.array([0.5, 1, 2, 3], np.float32).reshape(4, 1, 1)
    snn = replace(pooled(pool, {"worth": worth} if "worth" in pool else {}), timesteps=timesteps)
    network, made = lowered(snn, membrane)
    same_spikes(made, network, timesteps)
    first = network.layers[snn.neurons[0].name]
    assert len([name for name, node in network.nodes.items() if np.ndim(node.initial)]) == (
        0 if membrane == "pulse" else 2 * -(-timesteps // 3)
    )
    assert np.ndim(network.nodes[first].initial) == 0


@pytest.mark.parametrize(
    "law", [Law(reset="zero"), Law(strict=True), Law(reset="zero", strict=True)]
)
def test_the_neurons_of_a_max_pool_fire_alike_under_a_hard_reset(law: Law) -> None:
    """Under the same spikes of the layers: those themselves would differ."""
    snn = replace(pooled(POOL), timesteps=5)
    network, _ = lowered(snn)
    x = spiking.samples(snn, 3)["x"]
    ours = run(network, x, 5)
    layers = {node: ours.spikes[node] for node in network.layers.values()}
    theirs = run(network, x, 5, deviation=Deviation(law), given=layers)
    pools = [n for n, node in network.nodes.items() if node.onnx.startswith(maxima.MAXIMA)]
    assert len(pools) == 2
    for name in pools:
        np.testing.assert_array_equal(theirs.spikes[name], ours.spikes[name])
        assert np.any(ours.spikes[name])
    first = next(iter(layers))
    assert not np.array_equal(theirs.spikes[first], ours.spikes[first]) or law.reset != "zero"


def test_a_max_pool_of_sums_is_refused() -> None:
    pool = f"c3 = Conv {spiking.CONV} (a1, w3)\np = MaxPool <kernel_shape: ints = [2,2]> (c3)\n"
    body = spiking.FIRST + pool + f"c2 = Conv {spiking.CONV} (p, w2)\n" + build.stair("c2", "last")
    weights = {**spiking.SHAPES, "w3": (4, 4, 3, 3)}
    snn, _ = unit_spikes.run(spiking.network(body + spiking.HEAD, weights))
    with pytest.raises(NotConvertible, match="other values than the spikes of one layer") as error:
        lower(snn, spiking.samples(snn, 2))
    assert "average pooling" in str(error.value)


def test_every_node_that_nir_cannot_hold_is_named() -> None:
    body = (
        spiking.FIRST + "c2 = ConvTranspose (a1, w2)\n" + build.stair("c2", "a2")
        + "c3 = ConvTranspose (a1, w3)\n" + build.stair("c3", "a3")
        + "s = Concat <axis: int = 1> (a2, a3)\nm = GlobalAveragePool (s)\nf = Flatten (m)\n"
        + "y = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    weights = {**spiking.SHAPES, "w3": (4, 4, 3, 3), "v": (5, 8)}
    snn, _ = unit_spikes.run(spiking.network(body, weights))
    with pytest.raises(NotConvertible, match=r"\(and 1 more\): NIR has no transposed") as error:
        lower(snn, spiking.samples(snn, 2))
    assert [refusal.op for refusal in error.value.refused] == ["ConvTranspose"] * 2


def test_a_kernel_without_square_equivalent_is_refused() -> None:
    weights = {"w1": (4, 3, 1, 2), "v": (5, 4 * 8 * 7)}
    snn, _ = unit_spikes.run(one_layer("Conv (x, w1)", weights))
    with pytest.raises(NotConvertible, match="square"):
        lower(snn, spiking.samples(snn, 2))


def test_thresholds_that_are_not_1_are_refused() -> None:
    snn = spiking.residual()
    with pytest.raises(NotConvertible, match="--unit-spikes"):
        lower(snn, spiking.samples(snn, 2))


def test_where_elements_come_from_is_found_by_moving_numbers() -> None:
    graph, _ = build.graph(
        "r = Identity (x)\nt = Transpose <perm: ints = [0, 1, 3, 2]> (r)\ny = Neg (t)",
        inputs="float[N,2,3,4] x", outputs="float[N,2,4,3] y",
    )  # fmt: skip
    x = np.zeros((2, 2, 3, 4), np.float32)
    index = movement.positions(graph, {"x": x}, "r", (2, 3, 4), "t")
    assert index is not None
    np.testing.assert_array_equal(index, np.arange(24).reshape(2, 3, 4).swapaxes(1, 2))
    assert movement.positions(graph, {"x": x}, "r", (2, 3, 4), "y") is None
    assert movement.channel_selection(index, (2, 3, 4)) is None
    assert movement.strided_selection(index, (2, 3, 4)) is None


@pytest.mark.parametrize(
    "moving",
    [
        "t = Reshape (r, [all])",  # no batch
        "t = Transpose <perm: ints = [1, 0, 2]> (r)",  # samples side by side
        "t = Concat <axis: int = 0> (r, r)",
        "t = Mul (r, half)",  # numbers of its own
        "t = Add (r, r)",  # positions that there are not
        "back = Constant <value_ints: ints = [1, 0]> ()\nt = Gather <axis: int = 0> (r, back)",
    ],
)
def test_what_mixes_samples_or_computes_moves_no_elements(moving: str) -> None:
    body = "r = Identity (x)\n" + moving.replace("[all]", "all") + "\ny = Neg (t)"
    weights = {"all": np.array([-1]), "half": 0.5}
    used = {k: v for k, v in weights.items() if k in body}
    graph, _ = build.graph(body, used, inputs="float[2,2,3] x", outputs="float[A] y")
    feeds = {"x": np.zeros((2, 2, 3), np.float32)}
    assert movement.positions(graph, feeds, "r", (2, 3), "t") is None


PIXELS = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("index", "selected"),
    [
        (PIXELS, ([0, 1], (1, 1))),
        (PIXELS[::-1, ::2, ::4], ([1, 0], (2, 4))),
        (np.where(PIXELS < 12, PIXELS, -1)[:, ::2], ([0, -1], (2, 1))),
        (PIXELS[:, :, ::3], ([0, 1], (1, 3))),  # two of four, as by twos
        (PIXELS[:, ::2, ::2], ([0, 1], (2, 2))),
        (np.full((2, 2, 4), -1), ([-1, -1], (2, 1))),
        (PIXELS[:, ::-1], None),
        (PIXELS.reshape(2, 12), None),  # other axes
        (PIXELS[:, 1:], None),  # not from the first pixel on
        (PIXELS[:, :, [0, 3, 2]], None),
        (PIXELS[:, :, :3], None),
    ],
)
def test_every_nth_pixel_of_some_channels(
    index: np.ndarray, selected: tuple[list[int], tuple[int, ...]] | None
) -> None:
    found = movement.strided_selection(index, (2, 3, 4))
    if selected is None:
        assert found is None
    else:
        assert found is not None
        assert (found[0].tolist(), found[1]) == selected


def test_an_output_with_its_pixels_in_another_order_is_named() -> None:
    body = spiking.FIRST + "y = Transpose <perm: ints = [0, 1, 3, 2]> (a1)"
    snn, _ = unit_spikes.run(spiking.network(body, spiking.SHAPES))
    with pytest.raises(NotConvertible, match=r"'y' has the pixels of 'a1.*' in another order") as e:
        lower(snn, spiking.samples(snn, 2))
    assert [(refusal.node, refusal.op) for refusal in e.value.refused] == [("y", "output")]


def test_an_input_on_a_grid_is_rounded_by_the_model_that_computes_what_the_file_takes() -> None:
    body = (
        "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (x)\n"
        f"c1 = Conv {spiking.CONV} (p, w1, b1)\n" + build.stair("c1", "last") + spiking.HEAD
    )  # fmt: skip
    made, found = snap.run(unit_spikes.run(spiking.network(body, spiking.SHAPES))[0], {"x": 4.0}, 8)
    assert found.exact, found.reason
    feeds = spiking.samples(made, 3)
    encoded = encode(made, "metadata")
    network = lower(encoded.snn, {"x": feeds["x"][:2]})
    metadata = outside.described(encoded, network)
    (grid,) = encoded.grids.values()
    assert list(encoded.grids) == ["x"]
    assert np.any(feeds["x"] % grid)
    x = outside.input_values(metadata, feeds, "net.nir")
    rounded = np.round(feeds["x"] / grid) * grid
    np.testing.assert_array_equal(x, rounded.reshape(3, 3, 4, 2, 4, 2).max((3, 5)))
    proto = onnx.ModelProto.FromString(metadata[outside.MODEL].tobytes())
    np.testing.assert_array_equal(runtime.run(proto, feeds)[network.input], x)
    wanted = numpy_engine(made, 3, [n.name for n in made.neurons], np.float64)(feeds)
    for name, node in network.layers.items():
        np.testing.assert_array_equal(run(network, x, 3).spikes[node], wanted.spikes[name])


def test_a_pulse_starts_every_membrane_at_half_a_threshold() -> None:
    network, _ = lowered(spiking.residual(), "pulse")
    assert all(np.all(node.initial == 0) for node in network.nodes.values())
    fired = run(network, spiking.samples(spiking.residual(), 1)["x"], 40).spikes
    for name in ("start", "start1"):
        assert np.all(fired[name][:, :, 0] == 1)
        assert np.all(fired[name][1:, :, 1] == 1)
        assert not np.any(fired[name][0, :, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "law", [OURS, Law(strict=True), Law(many=True), Law(strict=True, many=True)]
)
def test_a_pulse_lasts_for_its_longest_whatever_fires_at_the_threshold(
    law: Law, dtype: Any
) -> None:
    """A fires at every step, B at every one but the first, up to where the two laws part."""
    steps = LONGEST + 1
    currents = np.broadcast_to(BIAS.astype(dtype), (steps, 2))
    fired = fire(law, currents, np.ones(2), np.zeros(2))
    wanted = np.ones((steps, 2))
    wanted[0, 1] = 0
    np.testing.assert_array_equal(fired[:LONGEST], wanted[:LONGEST])
    assert np.array_equal(fired, wanted) == (law == OURS)
