"""What `count_sums` reads of a network is what the network computes, to the last bits of float64;
and what it cannot read is refused by name, the rest of the network is still read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from na_convert.passes import count_sums, quantise_weights
from na_convert.passes.count_sums import Reading
from na_convert.passes.count_values import Counts, Sum

from na_convert.errors import NotConvertible
from na_convert.evaluate import evaluate
from na_convert.forms.int8_unrolled import int8_parts
from na_convert.integer import run
from na_convert.integer_moves import Move, move, pooled
from na_convert.integer_running import counts_in_onnxruntime
from na_convert.results import Refusal
from na_convert.snn import Snn, neuron_nodes

from . import build, spiking
from .int8_cases import network
from .test_join_terms import total as of_terms

T = 4
FEEDS = {"x": build.images(2)}
FIRST = "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\n" + build.stair("c1", "a1")
POOLED = "m = GlobalAveragePool (last)\nlast_row = Flatten (m)\n"
POINTWISE = "s = Conv (t, w2)"


def snn(middle: str, weights: dict[str, Any]) -> Snn:
    """Neurons a1 [4, 8, 8], ``middle``, which makes s of them, and neurons on s."""
    dense = "Gemm" in middle or "MatMul (t" in middle
    head = (POOLED if not dense else "last_row = Identity (last)\n") + "y = MatMul (last_row, wy)"
    body = f"{FIRST}{middle}\n{build.stair('s', 'last')}{head}"
    made = {name: np.asarray(v) if isinstance(v, list) else v for name, v in weights.items()}
    common = {"w1": (4, 3, 3, 3), "w2": (6, 4, 1, 1), "wy": (6, 5)}
    return network(body, {**common, **made}, T)


def worth(total: Sum, values: dict[str, np.ndarray]) -> np.ndarray:
    """``total`` of counts and analog tensors, by name."""
    made = of_terms(total.terms, values)
    for counts, gain in total.identities:
        made = made + values[counts.name] * counts.scale * gain
    for name, gain in total.analogs:
        made = made + values[name] * gain
    made = made + total.bias
    return made if total.pool is None else pooled(total.pool, made)


def read(made: Snn) -> Reading:
    """All of a network."""
    reader = count_sums.Reader(made, T)
    for node in made.graph.nodes:
        reader.visit(node)
    return reader.reading()


def compared(made: Snn, reading: Reading) -> int:
    """How many currents are those of the float network in one step of random spikes."""
    rng, nodes = np.random.default_rng(0), {n.name: n for n in neuron_nodes(made.graph)}
    values, floats = dict[str, np.ndarray](), dict(FEEDS)
    for neuron in made.neurons:
        spikes = nodes[neuron.name].outputs[0].name
        values[spikes] = rng.integers(0, 2, (2, *neuron.shape)).astype(np.float64)
        floats[spikes] = values[spikes] * reading.values[spikes].scale  # type: ignore[union-attr]
    for each in reading.order:
        if isinstance(each, Move):
            values[each.output] = move(each, [values[name] for name in each.sources])
    analogs = [name for total in reading.currents.values() for name, _ in total.analogs]
    wanted = {name: nodes[name].inputs[0].name for name in reading.currents}
    expected = evaluate(made.graph, floats, list({*wanted.values(), *analogs}))
    values |= {name: expected[name] for name in analogs}
    for name, total in reading.currents.items():
        current = expected[wanted[name]]
        found = np.broadcast_to(worth(total, values), current.shape)
        np.testing.assert_allclose(found, current, rtol=1e-12, atol=1e-12)
        assert np.any(current)
    return len(reading.currents)


PER_CHANNEL = np.linspace(0.5, 1.5, 4, dtype=np.float32).reshape(4, 1, 1)
PER_OUTPUT = np.linspace(0.5, 1.5, 6, dtype=np.float32).reshape(1, 6, 1, 1)
IMAGE = [0, 0, 1, 2, 0, 0, 2, 1]

READ: dict[str, tuple[str, dict[str, Any]]] = {
    "Identity": (f"t = Identity (a1)\n{POINTWISE}", {}),
    "Transpose": (f"t = Transpose <perm: ints = [0,1,3,2]> (a1)\n{POINTWISE}", {}),
    "Slice backwards and every other": (
        f"t = Slice (a1, from, to, along, by)\n{POINTWISE}",
        {"from": [-1, 0], "to": [-9, 7], "along": [-1, 2], "by": [-1, 2]}),
    "Slice of channels": (
        "t = Slice (a1, from, to, along)\ns = Conv (t, w3)",
        {"from": [1], "to": [3], "along": [1], "w3": (6, 2, 1, 1)}),
    "Split evenly": ("u, t = Split <axis: int = -3> (a1)\ns = Conv (t, w3)",
                     {"w3": (6, 2, 1, 1)}),
    "Split by sizes": ("u, t = Split <axis: int = 1> (a1, parts)\ns = Conv (t, w3)",
                       {"parts": [1, 3], "w3": (6, 3, 1, 1)}),
    "Gather": (f"t = Gather <axis: int = 1> (a1, places)\n{POINTWISE}",
               {"places": [3, -3, 0, 0]}),
    "Gather of one row": (
        f"u = Gather <axis: int = 2> (a1, place)\nt = Unsqueeze (u, along)\n{POINTWISE}",
        {"place": np.array(3), "along": [2]}),
    "Unsqueeze and Squeeze": (
        f"u = Unsqueeze (a1, along)\nt = Squeeze (u, along)\n{POINTWISE}", {"along": [-1]}),
    "Unsqueeze and Squeeze of two axes": (
        f"u = Unsqueeze (a1, along)\nt = Squeeze (u, back)\n{POINTWISE}",
        {"along": [-1, 2], "back": [5, -4]}),
    "Unsqueeze, from behind, where one axis pushes another": (
        f"u = Unsqueeze (a1, along)\nt = Reshape (u, target)\n{POINTWISE}",
        {"along": [4, 3], "target": [-1, 4, 8, 8]}),
    "Reshape": (f"t = Reshape (a1, target)\n{POINTWISE}", {"target": [0, 0, 2, -1]}),
    "DepthToSpace, depth first": (
        "t = DepthToSpace <blocksize: int = 2> (a1)\ns = Conv (t, w3)", {"w3": (6, 1, 1, 1)}),
    "DepthToSpace, columns first": (
        'u = Concat <axis: int = 1> (a1, a1)\n'
        't = DepthToSpace <blocksize: int = 2, mode: string = "CRD"> (u)\ns = Conv (t, w3)',
        {"w3": (6, 2, 1, 1)}),
    "SpaceToDepth": ("t = SpaceToDepth <blocksize: int = 2> (a1)\ns = Conv (t, w3)",
                     {"w3": (6, 16, 1, 1)}),
    "Concat counted from behind": ("t = Concat <axis: int = -3> (a1, a1)\ns = Conv (t, w3)",
                                   {"w3": (6, 8, 1, 1)}),
    "Pad of counts worth unlike amounts": (
        f"u = Mul (a1, gain)\nt = Pad (u, pads)\n{POINTWISE}",
        {"pads": IMAGE, "gain": PER_CHANNEL}),
    "Pad with new channels": (
        "u = Mul (a1, gain)\nt = Pad (u, pads)\ns = Conv (t, w3)",
        {"pads": [0, 1, 0, 0, 0, 0, 0, 0], "gain": PER_CHANNEL, "w3": (6, 5, 1, 1)}),
    "Flatten counted from behind": (
        "t = Flatten <axis: int = -3> (a1)\ns = Gemm <transB: int = 1> (t, w3)",
        {"w3": (6, 256)}),
    "Gemm with alpha and beta": (
        "t = Flatten (a1)\ns = Gemm <alpha: float = 0.5, beta: float = 2.0> (t, w3, b3)",
        {"w3": (256, 6), "b3": (6,)}),
    "ConvTranspose": (
        "s = ConvTranspose <strides: ints = [2,3], pads: ints = [1,0,0,2], "
        "output_padding: ints = [1,0]> (a1, w3, b3)", {"w3": (4, 6, 3, 2), "b3": (6,)}),
    "ConvTranspose with auto_pad": (
        's = ConvTranspose <auto_pad: string = "SAME_UPPER", strides: ints = [2,3]> (a1, w3)',
        {"w3": (4, 6, 3, 4)}),
    "ConvTranspose with auto_pad, less in front": (
        's = ConvTranspose <auto_pad: string = "SAME_LOWER", strides: ints = [1,2], '
        'dilations: ints = [2,1]> (a1, w3)', {"w3": (4, 6, 2, 3)}),
    "ConvTranspose of counts worth unlike amounts": (
        "t = Mul (a1, gain)\ns = ConvTranspose <pads: ints = [2,1,2,2]> (t, w3)",
        {"w3": (4, 6, 2, 2), "gain": PER_CHANNEL}),
    "a shortcut through a convolution": (
        "u = Conv (a1, w4)\nv = Mul (a1, gain)\nt = Add (u, v)\ns = Conv (t, w2)",
        {"w4": (4, 4, 1, 1), "gain": PER_CHANNEL}),
    "a vector flattened again": (
        "t = Flatten (a1)\nu = Gemm (t, w3)\nv = Flatten (u)\ns = MatMul (v, w4)",
        {"w3": (256, 7), "w4": (7, 6)}),
    "Neg": (f"t = Neg (a1)\n{POINTWISE}", {}),
    "Div": (f"t = Div (a1, gain)\n{POINTWISE}", {"gain": PER_CHANNEL}),
    "Mul by the constant first": (f"t = Mul (gain, a1)\n{POINTWISE}", {"gain": PER_CHANNEL}),
    "Mul of a sum": ("t = Conv (a1, w2)\ns = Mul (t, gain)", {"gain": PER_OUTPUT}),
    "Mul of a sum of everything": (
        "u = Conv (a1, w4, b4)\nv = Add (u, a1)\nt = Add (v, c1)\np = Mul (t, gain)\n"
        "s = Neg (p)",
        {"w4": (4, 4, 1, 1), "b4": (4,), "gain": PER_CHANNEL,
         "wy": (4, 5)}),
    "Mul of one current for all channels": (
        "t = Conv (a1, w3, b3)\ns = Mul (t, gain)",
        {"w3": (1, 4, 1, 1), "b3": (1,), "gain": PER_OUTPUT}),
    "Sub from a constant": ("t = Conv (a1, w2)\ns = Sub (half, t)", {}),
    "Sub of sums": ("t = Conv (a1, w2)\nu = Conv (a1, w3)\ns = Sub (t, u)",
                    {"w3": (6, 4, 1, 1)}),
    "Sum of several": ("t = Conv (a1, w2)\nu = Conv (a1, w3)\ns = Sum (t, half, u)",
                       {"w3": (6, 4, 1, 1)}),
    "a constant per channel on a maximum": (
        "t = Conv (a1, w2)\nu = MaxPool <kernel_shape: ints = [2,2]> (t)\nv = Mul (u, gain)\n"
        "s = Sub (v, gain)",
        {"gain": PER_OUTPUT}),
    "a number on a maximum": (
        "t = Conv (a1, w2)\nu = MaxPool <kernel_shape: ints = [2,2]> (t)\ns = Add (u, half)", {}),
    "AveragePool with padding that counts": (
        "t = AveragePool <kernel_shape: ints = [2,2], pads: ints = [1,1,0,0], "
        f"count_include_pad: int = 1> (a1)\n{POINTWISE}", {}),
    "AveragePool VALID": (
        'u = AveragePool <kernel_shape: ints = [3,3], auto_pad: string = "VALID"> (a1)\n'
        f"t = Identity (u)\n{POINTWISE}", {}),
    "ReduceMean of few counts": (
        "p = MaxPool <kernel_shape: ints = [4,4], strides: ints = [4,4]> (a1)\n"
        "q = Mul (p, gain)\nu = Add (q, gain)\n"
        "t = ReduceMean <axes: ints = [-1,2], keepdims: int = 0> (u)\n"
        "s = Gemm <transB: int = 1> (t, w3)",
        {"gain": PER_CHANNEL, "w3": (6, 4)}),
    "ReduceMean of few counts that keeps its axes": (
        "p = MaxPool <kernel_shape: ints = [4,4], strides: ints = [4,4]> (a1)\n"
        f"t = ReduceMean <axes: ints = [3,2]> (p)\n{POINTWISE}", {}),
    "Conv with auto_pad": (
        's = Conv <auto_pad: string = "SAME_UPPER", strides: ints = [2,2]> (a1, w3)',
        {"w3": (6, 4, 3, 3)}),
    "a pixel of counts, flattened": (
        "u = MaxPool <kernel_shape: ints = [8,8]> (a1)\nt = Flatten (u)\ns = Gemm (t, w3)",
        {"w3": (4, 6)}),
    "a row of pixels of counts, flattened": (
        "u = MaxPool <kernel_shape: ints = [8,1]> (a1)\nt = Flatten (u)\ns = Gemm (t, w3)",
        {"w3": (32, 6)}),
    "a pixel flattened, with a shortcut and a bias": (
        "u = GlobalAveragePool (a1)\nv = Conv (u, w4, b4)\np = Add (v, u)\nt = Flatten (p)\n"
        "s = Gemm (t, w3)",
        {"w4": (4, 4, 1, 1), "b4": (4,), "w3": (4, 6)}),
    "a pixel flattened behind few counts, with a shortcut": (
        "o = MaxPool <kernel_shape: ints = [8,8]> (a1)\nv = Conv (o, w4, b4)\n"
        "q = Mul (o, gain)\np = Add (v, q)\nt = Flatten (p)\ns = Gemm (t, w3)",
        {"w4": (4, 4, 1, 1), "b4": (4,), "w3": (4, 6), "gain": PER_CHANNEL}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_the_network_computes(name: str) -> None:
    made = snn(*READ[name])
    reading = read(made)
    assert reading.refused == ()
    assert compared(made, reading) == 2


@pytest.mark.parametrize("name", READ)
def test_a_walk_finds_the_same_and_lets_sums_go(name: str) -> None:
    made = snn(*READ[name])
    reading, reader = read(made), count_sums.Reader(made, T)
    found, held = [], []
    for item in reader.walk():
        found.append(item if isinstance(item, Move) else item[0])
        if not isinstance(item, Move):
            wanted = reading.currents[item[0]]
            assert len(item[1].terms) == len(wanted.terms)
            for own, other in zip(item[1].terms, wanted.terms, strict=True):
                np.testing.assert_array_equal(own.weight, other.weight)
        held.append(sum(isinstance(value, Sum) for value in reader.values.values()))
    names = [item if isinstance(item, str) else item.output for item in reading.order]
    assert [item if isinstance(item, str) else item.output for item in found] == names
    assert not any(isinstance(value, Sum) for value in reader.values.values())
    assert reader.currents == {}
    assert max(held) < sum(isinstance(value, Sum) for value in reading.values.values())
    assert reader.most == {c.name: c.most for c in reading.values.values() if isinstance(c, Counts)}


MOVED = [name for name, (body, _) in READ.items() if "= Conv (t," in body or "Flatten <" in body]


@pytest.mark.parametrize("name", MOVED)
def test_onnxruntime_moves_the_same_counts(name: str) -> None:
    found = quantise_weights.run(snn(*READ[name]), T).network
    counts, analog = counts_in_onnxruntime(int8_parts(found).whole(), found, FEEDS)
    expected = run(found, FEEDS, T, analog).counts
    for layer, values in counts.items():
        np.testing.assert_array_equal(values, expected[layer])
        assert values.max() > 0


PER_COLUMN = np.linspace(0.5, 1.5, 8, dtype=np.float32)
PER_PIXEL = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
EIGHT = {"w2": (8, 4, 1, 1), "wy": (8, 5)}  # as many channels as columns
MAXIMUM = (
    "t = Conv (a1, w2)\nu = MaxPool <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (t)\n"
)

REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a number per column on a sum": (
        "t = Conv (a1, w2)\ns = Mul (t, gain)", {**EIGHT, "gain": PER_COLUMN},
        "Mul", "scales a current by something other than a number per channel"),
    "a number per row on a sum": (
        "t = Conv (a1, w2)\ns = Mul (t, gain)", {**EIGHT, "gain": PER_COLUMN.reshape(8, 1)},
        "Mul", "scales a current by something other than a number per channel"),
    "a number per pixel on a maximum": (
        f"{MAXIMUM}s = Add (u, gain)", {"gain": PER_PIXEL},
        "Add", "adds a number per pixel to the maximum"),
    "counts on a maximum": (
        f"{MAXIMUM}s = Add (u, a1)", {"w2": (4, 4, 1, 1), "wy": (4, 5)},
        "Add", "adds to the maximum"),
    "a maximum of sums with a number per pixel": (
        "t = Conv (a1, w2)\nu = Add (t, gain)\n"
        "s = MaxPool <kernel_shape: ints = [2,2]> (u)", {"gain": PER_PIXEL},
        "MaxPoolCounts", "takes the maximum of currents with a number per pixel in them"),
    "a maximum of sums of an offset behind padding": (
        "t = Add (a1, half)\nu = Conv <pads: ints = [1,1,1,1]> (t, w3)\n"
        "s = MaxPool <kernel_shape: ints = [2,2]> (u)", {"w3": (6, 4, 3, 3)},
        "MaxPoolCounts", "takes the maximum of currents with a number per pixel in them"),
    "a maximum of one pixel, flattened": (
        "u = GlobalAveragePool (a1)\nv = Conv (u, w3)\n"
        "p = MaxPool <kernel_shape: ints = [1,1]> (v)\nt = Flatten (p)\ns = Gemm (t, square)",
        {"w3": (6, 4, 1, 1), "square": (6, 6)}, "Flatten", "flattens a maximum of currents"),
    "columns worth unlike amounts, in a sum, convolved": (
        "u = Add (a1, a1)\nt = Mul (u, gain)\ns = Conv (t, w2)", {"gain": PER_COLUMN},
        "Conv", "adds spikes that are worth unlike amounts within a channel"),
    "an analog current beside others": (
        "t = Conv (a1, w2)\ns = Concat <axis: int = 1> (t, c1)", {"wy": (10, 5)},
        "Concat", "joins a sum of currents that holds an analog one ('c1')"),
    "channels made of one by a factor": (
        "t = Slice (a1, from, to, along)\nu = Mul (t, gain)\ns = Conv (u, w2)",
        {"from": [0], "to": [1], "along": [1], "gain": PER_CHANNEL},
        "Mul", "makes counts larger by a constant"),
    "an image made of a pixel by an offset": (
        "t = MaxPool <kernel_shape: ints = [8,8]> (a1)\nu = Add (t, gain)\ns = Conv (u, w2)",
        {"gain": PER_PIXEL}, "Add", "makes counts larger by a constant"),
    "one current for all channels": (
        "t = Conv (a1, w2)\nu = Conv (a1, w3)\ns = Add (t, u)", {"w3": (1, 4, 1, 1)},
        "Add", "adds currents of unlike numbers of channels"),
    "a maximum turned round": (
        f"{MAXIMUM}s = Neg (u)", {}, "Neg", "turns the sign of a maximum"),
    "a maximum of a maximum": (
        f"{MAXIMUM}s = MaxPool <kernel_shape: ints = [2,2]> (u)", {},
        "MaxPoolCounts", "takes the maximum of a sum of several currents"),
    "a maximum of counts that are worth less than nothing": (
        f"u = Neg (a1)\nt = MaxPool <kernel_shape: ints = [2,2]> (u)\n{POINTWISE}", {},
        "MaxPoolCounts", "or less than nothing"),
    "a constant per sample": (
        "t = Conv (a1, w2)\ns = Add (t, both)", {"both": np.ones((2, 6, 1, 1), np.float32)},
        "Add", "its constant differs between samples"),
    "a factor computed at run time": (
        "t = Conv (a1, w2)\nk = GlobalAveragePool (x)\nq = ReduceMean <axes: ints = [1]> (k)\n"
        "s = Mul (t, q)", {},
        "Mul", "multiplies counts by something that is computed at run time"),
    "columns worth unlike amounts, convolved": (
        f"t = Mul (a1, gain)\n{POINTWISE}", {"gain": PER_COLUMN},
        "Conv", "convolves spikes that are worth unlike amounts within a channel"),
    "columns worth unlike amounts, averaged": (
        f"u = Mul (a1, gain)\nt = AveragePool <kernel_shape: ints = [2,2]> (u)\n{POINTWISE}",
        {"gain": PER_COLUMN}, "AveragePool", "averages spikes that are not worth the same"),
    "columns worth unlike amounts, spread": (
        "t = Mul (a1, gain)\ns = ConvTranspose <strides: ints = [2,2]> (t, w3)",
        {"gain": PER_COLUMN, "w3": (4, 6, 1, 1)},
        "ConvTranspose", "spreads spikes that are worth unlike amounts"),
    "an offset, spread": (
        "t = Add (a1, half)\ns = ConvTranspose (t, w3)", {"w3": (4, 6, 1, 1)},
        "ConvTranspose", "spreads activations whose lowest level is not zero"),
    "an offset, padded": (
        f"u = Add (a1, half)\nt = Pad (u, pads)\n{POINTWISE}", {"pads": IMAGE},
        "Pad", "pads activations whose lowest level is not zero"),
    "an offset, averaged with padding": (
        "u = Add (a1, half)\nt = AveragePool <kernel_shape: ints = [2,2], "
        f"pads: ints = [1,1,0,0], count_include_pad: int = 1> (u)\n{POINTWISE}", {},
        "AveragePool", "pads activations whose lowest level is not zero"),
    "padding with a number": (
        f"t = Pad (a1, pads, half)\n{POINTWISE}", {"pads": IMAGE},
        "Pad", "pads with something other than zeros"),
    "padding at the edge": (
        f't = Pad <mode: string = "edge"> (a1, pads)\n{POINTWISE}', {"pads": IMAGE},
        "Pad", "pads with something other than zeros"),
    "padding that takes away": (
        f"t = Pad (a1, pads)\n{POINTWISE}", {"pads": [0, 0, -1, 0, 0, 0, 0, 0]},
        "Pad", "pads with something other than zeros"),
    "padding that is computed": (
        f"k = Shape (x)\nn = Mul (k, none)\npads = Concat <axis: int = 0> (n, n)\n"
        f"t = Pad (a1, pads)\n{POINTWISE}", {"none": np.array([0, 0, 0, 0])},
        "Pad", "its pads are computed at run time"),
    "places that are computed": (
        f"k = Shape (a1)\nt = Gather <axis: int = 1> (a1, k)\n{POINTWISE}", {},
        "Gather", "its indices are computed at run time"),
    "rows side by side": (
        f"t = Concat <axis: int = 2> (a1, a1)\n{POINTWISE}", {},
        "Concat", "joins counts along another axis than the channels"),
    "channels flattened into the batch": (
        "k = Flatten <axis: int = 2> (a1)\nt = Reshape (k, image)\ns = Conv (t, w2)",
        {"image": [-1, 4, 8, 8]}, "Flatten", "flattens more than each sample by itself"),
    "a matrix on every channel": (
        "s = MatMul (a1, square)", {"square": (8, 8), "wy": (4, 5)},
        "MatMul", "multiplies a stack of matrices"),
    "averages at the border": (
        f"t = AveragePool <kernel_shape: ints = [2,2], pads: ints = [1,1,0,0]> (a1)\n{POINTWISE}",
        {}, "AveragePool", "averages over windows of unlike size"),
    "averages of what is left over": (
        "t = AveragePool <kernel_shape: ints = [3,3], strides: ints = [2,2], "
        f"ceil_mode: int = 1> (a1)\n{POINTWISE}", {},
        "AveragePool", "averages over windows of unlike size"),
    "averages padded by auto_pad": (
        't = AveragePool <kernel_shape: ints = [2,2], auto_pad: string = "SAME_UPPER"> (a1)\n'
        f"{POINTWISE}", {}, "AveragePool", "auto_pad depends on the image size"),
    "averages over channels": (
        "t = ReduceMean <axes: ints = [1]> (a1)\ns = Conv (t, w3)", {"w3": (6, 1, 1, 1)},
        "ReduceMean", "averages over something other than the whole image"),
    "weights that are computed": (
        "k = ReduceMean <axes: ints = [0,2,3]> (x)\nt = Slice (k, from, to, along)\n"
        "q = Mul (t, w2)\ns = Conv (a1, q)", {"from": [0], "to": [1], "along": [1]},
        "Conv", "its weights are computed in the graph"),
    "a bias that is computed": (
        "k = ReduceMean <axes: ints = [0,1,2], keepdims: int = 0> (x)\n"
        "q = Slice (k, from, to)\ns = Conv (a1, w2, q)", {"from": [0], "to": [6]},
        "Conv", "its bias is computed in the graph"),
}  # fmt: skip


def refusals(made: Snn, timesteps: int = T) -> tuple[Refusal, ...]:
    with pytest.raises(NotConvertible) as raised:
        quantise_weights.run(made, timesteps)
    return raised.value.refused


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    middle, weights, op, reason = REFUSED[name]
    found = refusals(snn(middle, weights))[0]
    assert (found.op, found.node.split("_")[0]) == (op, op.removesuffix("Counts"))
    assert reason in found.reason
    assert found.remedy


def test_padding_of_named_axes_is_refused() -> None:
    body = f"{FIRST}t = Pad (a1, pads, , along)\n{POINTWISE}\n{build.stair('s', 'last')}{POOLED}"
    weights = {"w1": (4, 3, 3, 3), "w2": (6, 4, 1, 1), "wy": (6, 5)}
    weights |= {"pads": np.array([1, 1]), "along": np.array([2])}
    made = spiking.network(f"{body}y = MatMul (last_row, wy)", weights, opset=18)
    assert "pads with something other than zeros" in refusals(made)[0].reason


DENSE = "t = Flatten (a1)\nu = Gemm (t, w2)\n" + build.stair("u", "a2") + "p = MatMul (a2, w3)\n"

LAYERS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "a shortcut of columns": (
        "t = Conv (a1, w2)\nu = Mul (a1, gain)\ns = Add (t, u)",
        {"w2": (4, 4, 1, 1), "wy": (4, 5), "gain": PER_COLUMN}, T,
        "adds spikes that are worth unlike amounts within a channel"),
    "an analog current on a dense layer": (
        "o = Flatten (x)\nq = MatMul (o, w4)\nt = Flatten (a1)\nu = Gemm (t, w2)\n"
        "s = Add (u, q)", {"w4": (192, 6), "w2": (256, 6)}, T,
        "adds an analog current to the sum of a dense layer"),
    "many counts on a dense layer": (
        f"{DENSE}q = Mul (a2, gain)\ns = Add (p, q)",
        {"w2": (256, 6), "w3": (6, 6), "gain": PER_OUTPUT.ravel()}, 100,
        "adds counts, at a ratio that no uint8 holds, to the sum of a dense layer"),
    "a huge offset behind padding": (
        "t = Add (a1, huge)\ns = Conv <pads: ints = [1,1,1,1]> (t, w3)",
        {"w3": (6, 4, 3, 3), "huge": 1e6}, T,
        "its sums do not fit into float32 whole numbers, even with 4-bit weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_refused_by_name(name: str) -> None:
    middle, weights, timesteps, reason = LAYERS[name]
    made = snn(middle, weights)
    found = refusals(made, timesteps)[-1]
    assert (found.node, found.reason) == (made.neurons[-1].name, reason)
    assert "float weights" in found.remedy


def test_a_dense_shortcut_fits_up_to_the_time_steps_that_its_refusal_names() -> None:
    made = snn(f"{DENSE}s = Add (p, a2)", {"w2": (256, 6), "w3": (6, 6)})
    assert quantise_weights.run(made, 127).layers
    (found,) = refusals(made, 128)
    assert "-T 127 at most" in found.remedy


def test_thresholds_of_columns_are_refused_by_name() -> None:
    made = snn("s = Conv (a1, w2)", {"step": PER_COLUMN})
    found = {r.node: r.reason for r in refusals(made)}
    assert found[made.neurons[0].name] == "its thresholds differ within a channel"


@pytest.mark.parametrize(("huge", "bits"), [(3e3, 8), (1e4, 6), (3e4, 5)])
def test_a_wide_layer_takes_the_bits_that_fit(huge: float, bits: int) -> None:
    middle = "t = Add (a1, huge)\ns = Conv <pads: ints = [1,1,1,1]> (t, w3)"
    found = quantise_weights.run(snn(middle, {"w3": (6, 4, 3, 3), "huge": huge}), T)
    assert [(layer.wide, layer.bits) for layer in found.layers] == [(False, 0), (True, bits)]
    counts, analog = counts_in_onnxruntime(int8_parts(found.network).whole(), found.network, FEEDS)
    for layer, values in run(found.network, FEEDS, T, analog).counts.items():
        np.testing.assert_array_equal(counts[layer], values)


def test_currents_of_unknown_size_are_not_joined() -> None:
    body = (
        f"{FIRST}d1 = Conv (x, w3)\nt = Conv (a1, w2)\ns = Concat <axis: int = 1> (t, d1)\n"
        + build.stair("s", "last") + POOLED + "y = MatMul (last_row, wy)"
    )  # fmt: skip
    weights = {"w1": (4, 3, 3, 3), "w2": (6, 4, 1, 1), "w3": (6, 3, 1, 1), "wy": (12, 5)}
    made = spiking.network(body, weights, inputs="float[N,3,H,W] x")
    found = refusals(made)[0]
    assert (found.op, found.reason) == ("Concat", "joins currents of unknown size")
    assert found.remedy == "export with static image sizes"


@pytest.mark.parametrize("size", ["M", "256"])
def test_a_computed_shape_is_read_from_what_the_file_declares(size: str) -> None:
    body = (
        f"{FIRST}n = Shape <start: int = 0, end: int = 1> (a1)\n"
        "t = Concat <axis: int = 0> (n, rest)\ny = Reshape (a1, t)\ns = Gemm (y, w2)\n"
        + build.stair("s", "last") + "z = MatMul (last, wy)"
    )  # fmt: skip
    weights = {"w1": (4, 3, 3, 3), "w2": (256, 6), "wy": (6, 5), "rest": np.array([-1])}
    made = spiking.network(body, weights, outputs=f"float[N,{size}] y, float[N,K] z")
    reading = read(made)
    assert reading.refused == ()
    assert compared(made, reading) == 2
    found = quantise_weights.run(made, T).network
    counted = run(found, FEEDS, T)
    levels = counted.counts[found.layers[0].name][-1].reshape(2, 256)
    np.testing.assert_allclose(counted.outputs[T]["y"], levels * 1.2 / T, rtol=1e-6)


def test_a_computed_shape_that_nobody_declares_is_refused() -> None:
    middle = (
        "n = Shape <start: int = 0, end: int = 1> (a1)\nv = Concat <axis: int = 0> (n, rest)\n"
        "t = Reshape (a1, v)\ns = Gemm (t, w3)"
    )
    found = refusals(snn(middle, {"rest": [-1], "w3": (256, 6)}))[0]
    assert (found.op, found.reason) == ("Reshape", "its target shape is computed at run time")


def test_what_reads_a_refused_tensor_and_counts_says_so() -> None:
    middle = f"u = CumSum (a1, along)\nt = Add (u, a1)\n{POINTWISE}"
    first, second = refusals(snn(middle, {"along": np.array(2)}))
    assert first.reason == "CumSum of counts has no integer form here"
    assert (second.op, second.reason) == ("Add", "its input 'u' was refused")
