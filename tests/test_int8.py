"""The int8 form, case by case: numpy, onnxruntime and onnx.reference count the same, spike for
spike, and what they count is the float network with rounded weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import quantise_weights
from na_convert.passes.tie_shortcuts import tie_shortcuts
from onnx.reference import ReferenceEvaluator

from na_convert.errors import UsageError
from na_convert.evaluate import evaluate
from na_convert.forms.int8_file import restore
from na_convert.forms.int8_loop import int8_loop_parts
from na_convert.forms.int8_unrolled import int8_parts
from na_convert.integer import IntegerNetwork, current_units, run
from na_convert.integer_bounds import bounds, largest_counts
from na_convert.integer_check import quantised_ann
from na_convert.integer_running import counts_in_onnxruntime, int8_unrolled_runner
from na_convert.integer_view import view, worth
from na_convert.running import file_runner
from na_convert.runtime import session
from na_convert.simulation import simulate

from . import build
from .int8_cases import CASES, case, with_metadata
from .int8_cases import network as network_of

T = 4
FEEDS = {"x": build.images(2)}


# The QLinearConv of onnx.reference adds a bias to images only: it cannot run these.
IMAGES_ONLY = ("constant on a sum in one dimension",)


def whole(network: IntegerNetwork) -> onnx.ModelProto:
    parts = int8_parts(network)
    onnx.checker.check_model(parts.typed(), full_check=True)
    return parts.whole()


def in_reference(model: onnx.ModelProto, network: IntegerNetwork) -> dict[str, np.ndarray]:
    """Counts after the last step, by layer."""
    tensors = {layer.name: f"{layer.output}_counts_t{T}" for layer in network.layers}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        for name in tensors.values()
    )
    found = ReferenceEvaluator(extended).run(list(tensors.values()), FEEDS)
    return dict(zip(tensors, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_engine_counts_the_same(name: str) -> None:
    network = quantise_weights.run(case(name), T).network
    model = whole(network)
    for optimise, threads in ((True, 1), (True, 2), (False, 1)):
        found, analog = counts_in_onnxruntime(
            model, network, FEEDS, optimise=optimise, threads=threads
        )
        expected = run(network, FEEDS, T, analog)
        for layer in network.layers:
            np.testing.assert_array_equal(found[layer.name], expected.counts[layer.name])
            assert found[layer.name].max() > 0
    if name in IMAGES_ONLY:
        with pytest.raises(ValueError, match="broadcast"):
            in_reference(model, network)
    else:
        for layer, counts in in_reference(model, network).items():
            np.testing.assert_array_equal(counts, expected.counts[layer][-1])
    (logits,) = session(model).run(["y"], FEEDS)
    np.testing.assert_allclose(logits, expected.outputs[T]["y"], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_loop_counts_the_same(name: str) -> None:
    network = quantise_weights.run(case(name), T).network
    parts = int8_loop_parts(network)
    onnx.checker.check_model(parts.typed(), full_check=True)
    model = parts.whole()
    for optimise in (True, False):
        found, analog = counts_in_onnxruntime(model, network, FEEDS, optimise=optimise)
        expected = run(network, FEEDS, T, analog)
        for layer in network.layers:
            np.testing.assert_array_equal(found[layer.name], expected.counts[layer.name])
    runner = session(model)
    for steps, made in ((1, 1), (3, 3), (T, T), (None, T)):
        given = {} if steps is None else {"timesteps": np.array(steps)}
        (logits,) = runner.run(["y"], {**FEEDS, **given})
        np.testing.assert_allclose(logits, expected.outputs[made]["y"], atol=1e-5)
    described = with_metadata(model, case(name), "int8-loop")
    names = [layer.name for layer in network.layers]
    spikes = file_runner(described, names)(FEEDS, T).spikes
    for layer in names:
        fired = np.cumsum(spikes[layer] != 0, axis=0)
        np.testing.assert_array_equal(fired, expected.counts[layer])
    again = restore(described)
    for layer, counts in run(again, FEEDS, T, analog).counts.items():
        np.testing.assert_array_equal(counts, expected.counts[layer])


@pytest.mark.parametrize("steps", [0, -1, -T, T + 1, 9, -(2**63), 2**63 - 1])
def test_a_loop_makes_no_steps_that_are_not_proved(steps: int) -> None:
    """An error of the file itself, in both engines: no result of another T."""
    model = int8_loop_parts(quantise_weights.run(case("plain"), T).network).whole()
    given = {**FEEDS, "timesteps": np.array(steps)}
    for optimise in (True, False):
        with pytest.raises(Exception, match=f"at_most_{T}_steps.* out of data bounds"):
            session(model, optimise=optimise).run(["y"], given)
    with pytest.raises(IndexError):
        ReferenceEvaluator(model).run(["y"], given)


@pytest.mark.parametrize("name", ["plain", "identity shortcut", "analog skip"])
def test_a_loop_in_the_reference(name: str) -> None:
    network = quantise_weights.run(case(name), T).network
    model = int8_loop_parts(network).whole()
    (logits,) = ReferenceEvaluator(model).run(["y"], {**FEEDS, "timesteps": np.array(3)})
    expected = run(network, FEEDS, 3)
    np.testing.assert_allclose(logits, expected.outputs[3]["y"], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_neurons_with_the_rounded_weights(name: str) -> None:
    """The membrane recursion in float, on the weights as they became, counts the same."""
    network = quantise_weights.run(case(name), T).network
    seen_as = view(network)
    names = [layer.name for layer in network.layers]
    floats = simulate(seen_as, FEEDS, T, record=names)
    counted = run(network, FEEDS, T)
    for layer in names:
        steps = np.cumsum(floats.spikes[layer] != 0, axis=0)
        np.testing.assert_array_equal(steps, counted.counts[layer])
    for t in range(1, T + 1):
        np.testing.assert_allclose(counted.outputs[t]["y"], floats.outputs[t]["y"], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_view_is_close_to_the_float_network(name: str) -> None:
    """Same currents within the rounding of int8, under the same spikes of the first layer."""
    snn = case(name)
    found = quantise_weights.run(snn, T)
    first = snn.neurons[0].name
    ours = simulate(view(found.network), FEEDS, 1, record=[n.name for n in snn.neurons])
    theirs = simulate(snn, FEEDS, 1, record=[n.name for n in snn.neurons])
    np.testing.assert_array_equal(ours.spikes[first] != 0, theirs.spikes[first] != 0)
    second = snn.neurons[1].name
    error = np.sqrt(np.mean((ours.currents[second] - theirs.currents[second]) ** 2))
    assert error <= 0.02 * np.sqrt(np.mean(theirs.currents[second] ** 2))
    assert all(layer.weight_error < 0.02 for layer in found.layers)


@pytest.mark.parametrize("name", CASES)
def test_a_file_says_what_it_holds(name: str) -> None:
    network = quantise_weights.run(case(name), T).network
    again = restore(with_metadata(whole(network), case(name), "int8-unrolled"))
    assert again.operations[-1].output == network.operations[-1].output
    before, after = run(network, FEEDS, T), run(again, FEEDS, T)
    for layer, counts in before.counts.items():
        np.testing.assert_array_equal(counts, after.counts[layer])
    np.testing.assert_array_equal(before.outputs[T]["y"], after.outputs[T]["y"])


@pytest.mark.parametrize("pooled", ["", "max pool"])
def test_steps_that_nothing_reads_are_in_the_file(pooled: str) -> None:
    """A single layer, and a pool behind the last: their early counts reach no output, and are run
    and read back all the same."""
    last = "a1" if pooled else "last"
    body = "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\n" + build.stair("c1", last)
    if pooled:
        body += "last = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a1)\n"
    body += "m = GlobalAveragePool (last)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, wy)"
    snn = network_of(body, {"w1": (4, 3, 3, 3), "wy": (5, 4)})
    network = quantise_weights.run(snn, T).network
    model = with_metadata(whole(network), snn, "int8-unrolled")
    found, analog = counts_in_onnxruntime(model, network, FEEDS)
    expected = run(restore(model), FEEDS, T, analog)
    for layer, counts in expected.counts.items():
        np.testing.assert_array_equal(found[layer], counts)
    outputs = int8_unrolled_runner(model)(FEEDS, T).outputs
    for t in range(1, T + 1):
        np.testing.assert_allclose(outputs[t]["y"], expected.outputs[t]["y"], atol=1e-5)


# --- layers that only some cases need -------------------------------------------------------------


def layers_of(name: str, timesteps: int = T) -> dict[str, object]:
    return {e.name: e for e in quantise_weights.run(case(name, timesteps), timesteps).layers}


WIDE = (
    "offset behind padding",
    "analog skip",
    "bias in front of padding",
    "counts of dense layers",
    "a pixel on an image",
)


@pytest.mark.parametrize("name", WIDE)
def test_what_one_convolution_cannot_hold_is_wide(name: str) -> None:
    assert any(layer.wide for layer in layers_of(name).values())


@pytest.mark.parametrize("name", sorted(set(CASES) - set(WIDE)))
def test_everything_else_is_int8(name: str) -> None:
    assert not any(layer.wide for layer in layers_of(name).values())


def test_a_shortcut_is_added_at_a_resolution_that_tying_makes_one() -> None:
    snn = case("bottleneck")
    free = quantise_weights.run(snn, T).layers[-1]
    assert free.resolution > 1
    assert free.shortcut_error < 0.05
    tied = tie_shortcuts(snn)
    assert tied.raised
    assert quantise_weights.run(tied.network, T).layers[-1].resolution == 1


def test_tied_thresholds_are_the_largest_of_the_chain() -> None:
    snn = case("identity shortcut")
    before = {n.name: n.threshold for n in snn.neurons}
    tied = tie_shortcuts(snn)
    after = {n.name: n.threshold for n in tied.network.neurons}
    first, middle, last = before
    largest = pytest.approx(max(before[first], before[last]))
    assert (after[first], after[last]) == (largest, largest)
    assert after[middle] == before[middle]
    assert snn.neurons[0].threshold == before[first]
    found = simulate(tied.network, FEEDS, T)
    assert found.outputs[T]["y"].shape == (2, 5)


def test_thresholds_per_channel_are_tied_channel_by_channel() -> None:
    body, weights = CASES["identity shortcut"]
    steps = np.array([0.3, 0.5, 0.45, 0.6], np.float32).reshape(4, 1, 1)
    snn = network_of(body, {**weights, "third": steps})
    first, _, last = (n.name for n in snn.neurons)
    tied = tie_shortcuts(snn)
    largest = np.maximum(3 * steps, 1.2).ravel()
    for neuron in (n for n in tied.network.neurons if n.name in (first, last)):
        assert neuron.threshold == neuron.amplitude == pytest.approx(largest.tolist())
    assert tied.raised == {first: pytest.approx(1.8 / 1.2), last: pytest.approx(1.2 / 0.9)}
    assert quantise_weights.run(tied.network, T).layers[-1].resolution == 1
    wanted, found = (simulate(net, FEEDS, 1, record=[first]) for net in (snn, tied.network))
    theta = largest.reshape(4, 1, 1)
    fires = wanted.currents[first][0] >= theta / 2
    np.testing.assert_allclose(found.spikes[first][0], fires * theta, rtol=1e-6)


def test_what_a_ratio_leaves_over_goes_through_the_convolution() -> None:
    """At T = 16 uint8 has room for a resolution of 7 or less."""
    snn = case("identity shortcut", 16)
    network = quantise_weights.run(snn, 16).network
    layer = network.layers[-1]
    assert not layer.wide
    assert layer.products[0].weight.shape[1] == 8  # the shortcut's channels beside the inputs
    found, analog = counts_in_onnxruntime(whole(network), network, FEEDS)
    expected = run(network, FEEDS, 16, analog).counts
    for name, counts in found.items():
        np.testing.assert_array_equal(counts, expected[name])


def test_weights_on_a_grid_stay_as_they_are() -> None:
    """Low-bit weights: whole multiples of a step per channel, whatever the step."""
    body, weights = CASES["plain"]
    rng = np.random.default_rng(3)
    steps = rng.uniform(0.01, 0.02, (6, 1, 1, 1))
    grid = rng.integers(-7, 8, (6, 4, 3, 3))
    grid[:, 0, 0, 0] = 7
    from .int8_cases import network as build_network

    snn = build_network(body, {**weights, "w2": (grid * steps).astype(np.float32)})
    found = quantise_weights.run(snn, T)
    report = found.layers[1]
    assert (report.on_grid, report.channels) == (6, 6)
    assert report.weight_error < 1e-6
    assert report.threshold_error < 0.01
    kept = found.network.layers[1].products[0].weight.astype(np.int64)
    for channel in range(6):
        factor = kept[channel, 0, 0, 0] // 7
        np.testing.assert_array_equal(kept[channel], factor * grid[channel])


@pytest.mark.parametrize(("name", "index"), [("plain", 1), ("gemm", 2)])
def test_typical_activations_correct_the_mean_error(name: str, index: int) -> None:
    """Biases make up for what rounding does to the mean current of each channel."""
    snn = case(name)
    rng = np.random.default_rng(0)
    source, layer = snn.neurons[index - 1], snn.neurons[index]
    spikes = rng.uniform(0, 1, source.shape)
    means = {}
    for typical in (None, {source.output: spikes}):
        network = quantise_weights.run(snn, T, typical).network
        seen_as = view(network)
        from na_convert.snn import neuron_nodes

        current = neuron_nodes(seen_as.graph)[index].inputs[0].name
        given = {source.output: spikes[None]}
        means[typical is None] = evaluate(seen_as.graph, given, [current])[current]
    node = next(n for n in neuron_nodes(snn.graph) if n.name == layer.name)
    amplitude = float(source.amplitude)
    wanted = evaluate(snn.graph, {source.output: spikes[None] * amplitude}, [node.inputs[0].name])[
        node.inputs[0].name
    ]
    errors = {
        plain: np.abs((found - wanted).reshape(len(wanted[0]), -1).mean(axis=1)).max()
        for plain, found in means.items()
    }
    half_a_unit = worth(network, network.layers[index]).max() / 2  # biases are whole units
    assert errors[False] <= 1.001 * half_a_unit < errors[True]


# --- bounds and refusals --------------------------------------------------------------------------


@pytest.mark.parametrize("timesteps", [1, 32, 255])
def test_bounds_hold_up_to_255_steps(timesteps: int) -> None:
    network = quantise_weights.run(case("plain", timesteps), timesteps).network
    most = largest_counts(network)
    for layer in network.layers:
        assert all(b.holds for b in bounds(layer, most, timesteps))
    largest = max(int(np.abs(p.weight).max()) for e in network.layers for p in e.products)
    assert 2 * largest * timesteps <= 32767


@pytest.mark.parametrize("timesteps", [0, 256])
def test_other_numbers_of_steps_are_refused(timesteps: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 255"):
        quantise_weights.run(case("plain"), timesteps)


def test_the_quantised_ann_rounds_the_analog_current_as_the_network_does() -> None:
    """In float32: in float64 some products round to another unit, and a level with them."""
    network = quantise_weights.run(case("plain", 255), 255).network
    feeds = {"x": build.images(512)}
    first = network.layers[0]
    analog = evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32)
    units = current_units(network, analog)[first.name, 0]
    expected = (2 * 255 * units + first.threshold) // (2 * first.threshold)
    np.testing.assert_array_equal(quantised_ann(network, feeds)[first.name], expected)
