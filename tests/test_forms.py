"""Every form against the equations in numpy, on every structure; and read back again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from na_convert.passes import snap
from onnx.reference import ReferenceEvaluator

import na_convert
from na_convert import forms
from na_convert.choices import FORMS
from na_convert.errors import CheckFailed, ModelError, UsageError
from na_convert.forms import step, unrolled
from na_convert.running import file_engine
from na_convert.runtime import session
from na_convert.simulation import simulate
from na_convert.snn import Snn, recorded

from . import build, spiking


@pytest.fixture(scope="module", params=list(spiking.NETWORKS))
def snn(request: pytest.FixtureRequest) -> Snn:
    return spiking.NETWORKS[request.param]()


def model_of(snn: Snn, form: str, timesteps: int = 3) -> onnx.ModelProto:
    model = forms.named(form).parts(recorded(replace(snn, timesteps=timesteps))).whole()
    onnx.checker.check_model(model, full_check=True)
    return model


def test_the_command_line_knows_every_form() -> None:
    assert tuple(forms.FORMS) == FORMS


@pytest.mark.parametrize("form", forms.FORMS)
@pytest.mark.parametrize(("timesteps", "batch"), [(1, 5), (3, 1), (3, 5), (8, 5)])
def test_onnxruntime_does_what_the_equations_say(
    snn: Snn, form: str, timesteps: int, batch: int
) -> None:
    names = [n.name for n in snn.neurons]
    feeds = spiking.samples(snn, batch)
    found = file_engine(model_of(snn, form, timesteps), timesteps, names)(feeds)
    wanted = simulate(snn, feeds, timesteps, record=names)
    for name in names:
        assert found.spikes[name].shape == wanted.spikes[name].shape
        np.testing.assert_array_equal(found.spikes[name], wanted.spikes[name])
        np.testing.assert_allclose(found.currents[name], wanted.currents[name], atol=1e-5)
    for t in range(1, timesteps + 1):
        np.testing.assert_allclose(found.outputs[t]["y"], wanted.outputs[t]["y"], atol=1e-5)


@pytest.mark.parametrize("timesteps", [1, 3])
def test_a_step_file_in_onnx_reference(snn: Snn, timesteps: int) -> None:
    model = model_of(snn, "step")
    feeds, pairs, state = spiking.samples(snn, 2), step.states(model), {}
    reference = ReferenceEvaluator(model)
    starts = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    state = {name: starts[name] for name in pairs}
    outputs = [o.name for o in model.graph.output]
    for _ in range(timesteps):
        found = dict(zip(outputs, reference.run(outputs, {**feeds, **state}), strict=True))
        state = {name: found[after] for name, after in pairs.items()}
    wanted = simulate(snn, feeds, timesteps).outputs[timesteps]["y"]
    np.testing.assert_allclose(found["y"], wanted, atol=1e-5)


@pytest.mark.parametrize("form", forms.FORMS)
def test_a_file_reads_back_as_the_same_network(snn: Snn, form: str) -> None:
    model = model_of(snn, form)
    again = forms.read(model)
    assert again.neurons == snn.neurons
    assert again.timesteps == snn.timesteps
    whole = forms.named(form).parts(again).whole()
    assert whole.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )
    feeds = spiking.samples(snn, 2)
    a, b = (simulate(each, feeds, 3).outputs[3]["y"] for each in (snn, again))
    np.testing.assert_array_equal(a, b)


def test_a_step_file_names_its_state() -> None:
    snn = spiking.max_pool()
    model = model_of(snn, "step")
    first, second = (n.name for n in snn.neurons)
    pool, decode = (
        next(n.name for n in snn.graph.nodes if n.op == op) for op in ("MaxPoolCounts", "Decode")
    )
    states = [
        "steps", f"{first}_membrane", f"{pool}_total", f"{pool}_pooled", f"{second}_membrane",
        f"{decode}_sum",
    ]  # fmt: skip
    assert [i.name for i in model.graph.input] == ["x", *states]
    assert [o.name for o in model.graph.output] == ["y", *(f"{s}_next" for s in states)]
    (sizes,) = (
        [d.dim_value or d.dim_param for d in o.type.tensor_type.shape.dim]
        for o in model.graph.output
        if o.name == f"{first}_membrane_next"
    )
    assert sizes == ["N", 4, 7, 7]


def test_the_first_step_needs_the_input_alone() -> None:
    """And the later ones what the one before returned."""
    snn = spiking.residual()
    model = model_of(snn, "step")
    runner, feeds = session(model), spiking.samples(snn, 2)
    names = [o.name for o in runner.get_outputs()]
    wanted = simulate(snn, feeds, 2).outputs
    found = dict(zip(names, runner.run(None, feeds), strict=True))
    np.testing.assert_allclose(found["y"], wanted[1]["y"], atol=1e-6)
    state = {name: found[after] for name, after in step.states(model).items()}
    found = dict(zip(names, runner.run(None, {**feeds, **state}), strict=True))
    np.testing.assert_allclose(found["y"], wanted[2]["y"], atol=1e-6)
    assert found["steps_next"] == 2


def test_a_tensor_with_the_name_of_a_state_is_refused() -> None:
    body = spiking.FIRST + "steps = Conv (a1, w2)\n" + build.stair("steps", "last") + spiking.HEAD
    with pytest.raises(ModelError, match="'steps'"):
        model_of(spiking.network(body, spiking.SHAPES), "step")


def test_an_unrolled_file_runs_for_its_own_steps_and_fewer(snn: Snn) -> None:
    model, feeds = model_of(snn, "unrolled", 3), spiking.samples(snn, 2)
    (direct,) = session(model).run(["y"], feeds)
    wanted = simulate(snn, feeds, 3).outputs
    np.testing.assert_allclose(direct, wanted[3]["y"], atol=1e-5)
    fewer = file_engine(model, 2)(feeds).outputs
    np.testing.assert_allclose(fewer[2]["y"], wanted[2]["y"], atol=1e-5)
    with pytest.raises(UsageError, match="has 3 time steps"):
        file_engine(model, 4)(feeds)


def test_an_unrolled_file_on_grids_stays_in_the_blocked_layout() -> None:
    """Nothing but convolutions, additions and HardSigmoid between the input and the readout."""
    made, found = snap.run(spiking.residual(), {"x": 4.0}, 32)
    assert found.exact
    model = model_of(made, "unrolled", 3)
    ops = [n.op_type for n in model.graph.node if n.name.rsplit("/", 1)[-1] in ("1", "2", "3")]
    assert set(ops) == {"Conv", "Add", "HardSigmoid", "Identity"}
    assert ops.count("HardSigmoid") == 9
    assert ops.count("Identity") == 1
    assert len(model.graph.initializer) < 20


def test_an_unrolled_file_with_one_step_changed() -> None:
    model = model_of(spiking.residual(), "unrolled", 3)
    first = next(n for n in model.graph.node if n.op_type == "Conv" and n.name.endswith("/2"))
    old = next(i for i in model.graph.initializer if i.name == first.input[1])
    other = onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(old), "other")
    model.graph.initializer.append(other)
    first.input[1] = "other"
    with pytest.raises(ModelError, match="not those of one network"):
        forms.read(model)


def test_an_unknown_form() -> None:
    with pytest.raises(UsageError, match="no such form"):
        forms.named("unfolded")


def test_a_model_that_is_no_snn() -> None:
    with pytest.raises(ModelError, match="not an SNN"):
        forms.read(build.model("y = Flatten (x)"))
    with pytest.raises(ModelError, match="no SNN in the unrolled form"):
        unrolled.from_unrolled(model_of(spiking.residual(), "folded"))
    with pytest.raises(ModelError, match="no SNN in the step form"):
        step.from_step(model_of(spiking.residual(), "folded"))


# --- the whole way --------------------------------------------------------------------------------

BODY = """
z = Conv <pads = [1,1,1,1]> (x, w)
zd = Div (z, step)
zs = Add (zd, half)
zr = Floor (zs)
zc = Clip (zr, zero, three)
a = Mul (zc, step)
c = Conv <pads = [1,1,1,1]> (a, w2)
cd = Div (c, step)
cs = Add (cd, half)
cr = Floor (cs)
cc = Clip (cr, zero, three)
b = Mul (cc, step)
f = Flatten (b)
y = Gemm (f, v)
"""
WEIGHTS = {
    "w": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "v": (256, 5), "step": 0.4, "half": 0.5, "zero": 0.0,
    "three": 3.0,
}  # fmt: skip


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    onnx.save(build.model(BODY, WEIGHTS), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("form", forms.FORMS)
def test_convert_check_and_simulate(ann: Path, form: str) -> None:
    data, target = {"x": build.images(8)}, ann.with_name("snn.onnx")
    made = na_convert.convert(ann, output=target, form=form, timesteps=4, data=data)
    assert made.passed
    assert (made.form, made.form_note) == (form, forms.FORMS[form].why)
    assert made.equivalence is not None
    checked = na_convert.check(ann, target, data=data, timesteps=(1, 3))
    assert checked.form == form
    assert checked.equivalence is not None
    found = {row.T: row for row in checked.equivalence.by_timestep}
    assert found[4] == made.equivalence.by_timestep[-1]
    assert len(na_convert.simulate(target, data=data).outputs) == 4


@pytest.mark.parametrize("form", forms.FORMS)
def test_a_file_whose_weights_were_changed_fails_its_check(ann: Path, form: str) -> None:
    data, target = {"x": build.images(8)}, ann.with_name("snn.onnx")
    na_convert.convert(ann, output=target, form=form, timesteps=4, data=data)
    model = onnx.load(target)
    weight = max(model.graph.initializer, key=lambda i: len(i.dims) == 4 and i.dims[1] == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] += 0.2
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, target)
    with pytest.raises(CheckFailed, match="replay"):
        na_convert.check(ann, target, data=data)
