"""The int8 step form: state in and out, the counts of the definition, and never more than T."""

from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes import quantise_weights
from onnx.reference import ReferenceEvaluator

from na_convert.errors import UsageError
from na_convert.evaluate import evaluate
from na_convert.forms import INT8_FORMS
from na_convert.forms.int8_file import restore
from na_convert.forms.int8_step import int8_step_parts
from na_convert.integer import IntegerNetwork, current_units, run, step
from na_convert.integer_bounds import bounds, largest_counts
from na_convert.integer_running import counts_in_onnxruntime
from na_convert.integer_stepping import Int8Stepper
from na_convert.integer_view import view
from na_convert.runtime import session
from na_convert.simulation import NumpyState, membranes
from na_convert.simulator import Simulator

from . import build
from .int8_cases import CASES, case, file

T = 4
FEEDS = {"x": build.images(2)}
SOME = ("plain", "identity shortcut", "analog skip", "max pool behind neurons", "gemm")


def quantised(name: str, timesteps: int = T) -> IntegerNetwork:
    return quantise_weights.run(case(name), timesteps).network


def frames(count: int) -> list[dict[str, np.ndarray]]:
    """Frames so unlike that currents leave 0 .. threshold on either side."""
    rng = np.random.default_rng(5)
    return [{"x": rng.normal(0, 3, (2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("name", CASES)
def test_step_by_step_counts_the_same(name: str) -> None:
    network, model = quantised(name), file(name, "step")
    again = restore(model)
    for optimise in (True, False):
        found, analog = counts_in_onnxruntime(model, again, FEEDS, optimise=optimise)
        for defined in (network, again):
            expected = run(defined, FEEDS, T, analog)
            for layer in network.layers:
                np.testing.assert_array_equal(found[layer.name], expected.counts[layer.name])
    stepper = Int8Stepper(model)
    for t in range(1, T + 1):
        np.testing.assert_allclose(stepper.step(FEEDS)["y"], expected.outputs[t]["y"], atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_the_file_alone_with_its_state(name: str) -> None:
    """What a user writes: outputs called NAME_next go in as NAME; in the reference as well."""
    model, expected = file(name, "step"), run(quantised(name), FEEDS, T)
    in_onnxruntime, in_reference = session(model), ReferenceEvaluator(model)
    names = [o.name for o in model.graph.output]
    states: list[dict[str, np.ndarray]] = [{}, {}]
    for t in range(1, T + 1):
        for i, engine in enumerate((in_onnxruntime, in_reference)):
            found = dict(zip(names, engine.run(names, {**FEEDS, **states[i]}), strict=True))
            states[i] = {n.removesuffix("_next"): found[n] for n in names if n.endswith("_next")}
            np.testing.assert_allclose(found["y"], expected.outputs[t]["y"], atol=1e-5)
            assert states[i]["steps"] == t
            for layer, counts in expected.counts.items():
                np.testing.assert_array_equal(states[i][f"{layer}_counts"], counts[t - 1])
    for engine, state in zip((in_onnxruntime, in_reference), states, strict=True):
        with pytest.raises(Exception, match=r"out of (data )?bounds"):
            engine.run(names, {**FEEDS, **state})


@pytest.mark.parametrize("name", ["plain", "analog skip", "max pool before neurons"])
def test_an_input_that_changes(name: str) -> None:
    """The definition on sums of currents, and neurons with a membrane, count the same."""
    model = file(name, "step")
    network = restore(model)
    stepper, membrane = Int8Stepper(model), NumpyState(view(network), stepper_names(network))
    before = {e.output: np.zeros((2, *e.shape), np.uint8) for e in network.layers}
    totals: dict[tuple[str, int], np.ndarray] = {}
    counted = dict.fromkeys(stepper_names(network), 0)
    for t, feeds in enumerate(frames(T), 1):
        analog = evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32)
        now = current_units(network, {**feeds, **analog})
        totals = {key: totals.get(key, 0) + units for key, units in now.items()}
        before = step(network, before, totals, t)
        stepper.step(feeds)
        membrane.step(feeds)
        for layer in network.layers:
            counted[layer.name] = counted[layer.name] + (membrane.spikes[layer.name] != 0)
            np.testing.assert_array_equal(stepper.counts(layer), before[layer.output])
            np.testing.assert_array_equal(stepper.counts(layer), counted[layer.name])
    first = network.layers[0]
    (units,) = (u for key, u in now.items() if key[0] == first.name)
    assert units.max() > first.threshold.max()
    assert units.min() < 0


def stepper_names(network: IntegerNetwork) -> list[str]:
    return [layer.name for layer in network.layers]


@pytest.mark.parametrize("timesteps", [1, 129, 255])
def test_bounds_hold_with_the_room_for_changing_input(timesteps: int) -> None:
    network = restore(file("analog skip", "step", timesteps))
    most = largest_counts(network)
    for layer in network.layers:
        assert all(b.holds for b in bounds(layer, most, timesteps))
    (analog,) = network.layers[0].analogs
    assert analog.high >= 4 * network.layers[0].threshold.max()


@pytest.mark.parametrize("form", INT8_FORMS)
@pytest.mark.parametrize("name", ["identity shortcut", "analog skip"])
def test_the_simulator_steps_every_int8_file(name: str, form: str) -> None:
    """Spikes and membranes step by step are those of a whole run. (Only the step form lets the
    first layer's constant current go beyond 0 .. threshold.)"""
    simulator = Simulator(file(name, form), record=["*"])
    whole = simulator.run(FEEDS, T)
    for t in range(1, T + 1):
        outputs = simulator.step(FEEDS)
        np.testing.assert_allclose(outputs["y"], whole.outputs[t]["y"], atol=1e-5)
        for layer, fired in simulator.spikes.items():
            np.testing.assert_array_equal(fired, whole.spikes[layer][t - 1] != 0)
            held = membranes(
                whole.currents[layer], whole.spikes[layer], simulator.parameters(layer)
            )
            if form == "step" or layer != simulator.layers[0]:
                np.testing.assert_allclose(simulator.membranes[layer], held[t - 1], atol=1e-4)
    with pytest.raises(UsageError, match=f"T = {T + 1}: this file is proved for up to {T} time"):
        simulator.step(FEEDS)
    with pytest.raises(UsageError, match=f"{T} time steps"):
        simulator.run(FEEDS, T + 1)
    simulator.reset()
    np.testing.assert_allclose(simulator.step(FEEDS)["y"], whole.outputs[1]["y"], atol=1e-5)


def test_names_that_a_state_needs() -> None:
    from na_convert.errors import ModelError

    network = quantised("plain")
    node = next(n for n in network.snn.graph.nodes if n.op == "GlobalAveragePool")
    node.outputs[0].name = "steps"
    with pytest.raises(ModelError, match="a tensor called 'steps'"):
        int8_step_parts(network)
