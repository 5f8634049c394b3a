"""The two engines: batch 2, T 3, constant part, spiking part and readout."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from na_convert.passes import to_spiking

from na_convert import neurons
from na_convert.errors import DataError, ModelError, UsageError
from na_convert.evaluate import evaluate
from na_convert.forms.folded import to_folded
from na_convert.neurons import IFState
from na_convert.running import file_engine
from na_convert.runtime import run
from na_convert.shapes import of_one_sample
from na_convert.simulation import numpy_engine, simulate
from na_convert.snn import Snn

from . import build

T = 3


def network(body: str, weights: dict, **kwargs: object) -> Snn:
    """The SNN of ``body``, which holds Staircase nodes."""
    graph, carried = build.graph(body, {**build.PLAIN, **weights}, **kwargs)
    chosen, _ = to_spiking.choose_neurons(graph)
    names = [a.outputs[0].name for a in chosen]
    shapes = of_one_sample(graph, carried, {"x": build.images()}, names)
    found = to_spiking.run(graph, shapes)
    assert not found.report.refused
    return Snn(graph, found.neurons, T, carried)


def residual(**kwargs: object) -> Snn:
    """Two convolutions, a max-pool between neurons, a skip from the constant part, a readout."""
    body = (
        "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\n"
        + build.stair("c1", "a1")
        + "c2 = Conv <pads: ints = [1,1,1,1]> (a1, w2)\nsum = Add (c2, c1)\n"
        + build.stair("sum", "a2")
        + "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a2)\n"
        + "c3 = Conv (p, w3, b3)\n"
        + build.stair("c3", "a3")
        + "m = GlobalAveragePool (a3)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w4)"
    )
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (6, 4, 3, 3), "b3": (6,), "w4": (5, 6)}
    return network(body, weights, **kwargs)


@pytest.fixture(scope="module")
def snn() -> Snn:
    return residual()


def layer_names(snn: Snn) -> list[str]:
    return [neuron.name for neuron in snn.neurons]


def test_numpy_and_onnxruntime_agree(snn: Snn) -> None:
    x = build.images(2)
    names = layer_names(snn)
    ours = simulate(snn, {"x": x}, T, record=names)
    theirs = simulate(to_folded(snn), {"x": x}, T, record=names)
    for name in names:
        assert ours.spikes[name].shape[:2] == (T, 2)
        np.testing.assert_array_equal(ours.spikes[name], theirs.spikes[name])
        np.testing.assert_allclose(ours.currents[name], theirs.currents[name], atol=1e-5)
    for t in range(1, T + 1):
        np.testing.assert_allclose(ours.outputs[t]["y"], theirs.outputs[t]["y"], atol=1e-5)


@pytest.mark.parametrize("timesteps", [1, 2, 3, 8])
def test_one_run_gives_every_number_of_steps(snn: Snn, timesteps: int) -> None:
    """The readout on a prefix is what the whole file gives when it runs for that long."""
    x, model = build.images(2), to_folded(snn)
    whole = run(model, {"x": x, "timesteps": np.asarray(timesteps)}, ["y"])["y"]
    prefix = simulate(model, {"x": x}, 8).outputs[timesteps]["y"]
    np.testing.assert_allclose(prefix, whole, atol=1e-6)


def test_the_first_layer_is_the_equation(snn: Snn) -> None:
    x = build.images(2)
    first = snn.neurons[0]
    found = simulate(snn, {"x": x}, T, record=[first.name])
    current = evaluate(snn.graph, {"x": x}, ["c1"], dtype=np.float32)["c1"]
    state = IFState.start(current, np.asarray(first.threshold), np.asarray(first.amplitude))
    for t in range(T):
        np.testing.assert_array_equal(found.currents[first.name][t], current)
        np.testing.assert_array_equal(found.spikes[first.name][t], state.step(current))
    counts = np.count_nonzero(found.spikes[first.name], axis=0)
    np.testing.assert_array_equal(
        counts, neurons.spike_counts(current, np.float32(first.threshold), T)
    )


def test_batches_are_joined(snn: Snn) -> None:
    x, names = build.images(5), layer_names(snn)
    for source in (snn, to_folded(snn)):
        whole = simulate(source, {"x": x}, T, record=names)
        parts = simulate(source, {"x": x}, T, record=names, batch=2)
        for name in names:
            np.testing.assert_array_equal(whole.spikes[name], parts.spikes[name])
        np.testing.assert_allclose(whole.outputs[T]["y"], parts.outputs[T]["y"], atol=1e-6)


def test_float64_in_numpy(snn: Snn) -> None:
    found = numpy_engine(snn, T, layer_names(snn), np.float64)({"x": build.images(2)})
    assert found.outputs[T]["y"].dtype == np.float64


def test_an_output_that_is_a_mean_and_one_that_never_spikes() -> None:
    """Outputs: a spiking tensor's mean, and a tensor of the constant part."""
    body = (
        "c = Conv (x, w1)\n" + build.stair("c", "a") + "d = Conv (a, w2)\n" + build.stair("d", "y")
    )
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3)}
    model = build.model(
        body, {**build.PLAIN, **weights}, outputs="float[N,4,4,4] y, float[N,4,6,6] c"
    )
    from na_convert.graph import import_graph

    graph, carried = import_graph(model)
    chosen, _ = to_spiking.choose_neurons(graph)
    shapes = of_one_sample(
        graph, carried, {"x": build.images()}, [a.outputs[0].name for a in chosen]
    )
    snn = Snn(graph, to_spiking.run(graph, shapes).neurons, T, carried)
    x = build.images(2)
    for source in (snn, to_folded(snn)):
        outputs = simulate(source, {"x": x}, T).outputs
        assert list(outputs[1]) == ["y", "c"]
        np.testing.assert_array_equal(outputs[1]["c"], outputs[T]["c"])
        whole = run(to_folded(snn), {"x": x, "timesteps": np.asarray(2)}, ["y"])["y"]
        np.testing.assert_allclose(outputs[2]["y"], whole, atol=1e-6)


def test_onnx_reference_runs_the_same_file(snn: Snn) -> None:
    model = to_folded(snn)
    feeds = {"x": build.images(2), "timesteps": np.asarray(T)}
    (y,) = onnx.reference.ReferenceEvaluator(model).run(["y"], feeds)
    np.testing.assert_allclose(y, run(model, feeds, ["y"])["y"], atol=1e-5)


# --- what cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_no_time_steps(snn: Snn, folded: bool) -> None:
    with pytest.raises(UsageError, match="at least one"):
        simulate(to_folded(snn) if folded else snn, {"x": build.images(2)}, 0)


@pytest.mark.parametrize("folded", [False, True])
def test_an_unknown_layer(snn: Snn, folded: bool) -> None:
    with pytest.raises(ModelError, match="no neuron layer 'nobody'"):
        simulate(to_folded(snn) if folded else snn, {"x": build.images(2)}, T, record=["nobody"])


def test_a_fixed_batch_is_respected() -> None:
    fixed = residual(inputs="float[2,3,8,8] x", outputs="float[2,M] y")
    assert simulate(fixed, {"x": build.images(4)}, T).outputs[T]["y"].shape == (4, 5)
    with pytest.raises(DataError, match="3 samples do not fill batches of 2"):
        simulate(fixed, {"x": build.images(3)}, T)


def test_a_missing_input_is_named(snn: Snn) -> None:
    with pytest.raises(ModelError, match="'x'"):
        file_engine(to_folded(snn), T)({})


def test_functions_of_the_package_are_not_hidden_by_modules() -> None:
    """`na_convert.simulate` is the function, whatever modules were imported before."""
    import na_convert
    import na_convert.simulation

    for name in ("check", "convert", "explain", "inspect", "simulate"):
        assert callable(getattr(na_convert, name)), name
