"""--weights int8 through the API and the command line, on the trained example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from na_convert import api, forms
from na_convert.choices import INT8_FORMS
from na_convert.cli import main
from na_convert.errors import CheckFailed, UsageError
from na_convert.model_io import load
from na_convert.results import Result
from na_convert.simulator import Simulator

EXAMPLE = Path(__file__).parent.parent / "examples" / "resnet8-cifar10.onnx"
T = 2


@pytest.fixture(scope="module")
def few() -> dict[str, np.ndarray]:
    with np.load(EXAMPLE.with_suffix(".npz")) as stored:
        return {name: stored[name][:8] for name in stored.files}


@pytest.fixture(scope="module")
def made(few: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Result:
    output = tmp_path_factory.mktemp("int8") / "resnet8.onnx"
    return api.convert(EXAMPLE, output=output, timesteps=T, data=few, weights="int8")


def test_forms_known_to_the_command_line_are_those_there_are() -> None:
    assert tuple(forms.INT8_FORMS) == INT8_FORMS


def test_convert_proves_the_file(made: Result) -> None:
    assert made.passed
    assert made.form == "int8-unrolled"
    assert made.equivalence is not None
    figures = {f.name: f for f in made.equivalence.figures}
    assert figures["int8 engines"].value == figures["int8 replay"].value == 0
    assert figures["int8 bounds"].value <= 1
    assert 0 < figures["int8 currents"].value < 0.02
    assert made.quantisation is not None
    assert len(made.quantisation.layers) == 7
    assert made.quantisation.corrected
    assert not any(layer.wide for layer in made.quantisation.layers)


def test_without_grids_the_first_current_is_the_float_sum_that_it_was(
    made: Result, few: dict[str, np.ndarray], tmp_path: Path
) -> None:
    output = tmp_path / "float_stem.onnx"
    found = api.convert(EXAMPLE, output=output, timesteps=T, data=few, weights="int8", exact=False)
    assert found.passed
    assert found.exactness is None
    assert made.exactness is not None
    assert made.exactness.exact
    assert found.equivalence is not None
    (engines,) = (f for f in found.equivalence.figures if f.name == "int8 engines")
    assert engines.detail.endswith("under the same analog currents")
    assert made.output is not None
    files = [onnx.load(path) for path in (output, made.output.path)]
    held = ["na_convert.exact" in {p.key for p in model.metadata_props} for model in files]
    assert held == [False, True]
    names = [[i.name for i in model.graph.initializer] for model in files]
    assert ["x_units_factor" in each for each in names] == [False, True]  # the image in whole units


def test_check_reads_the_file_anew(made: Result, few: dict[str, np.ndarray]) -> None:
    assert made.output is not None
    found = api.check(EXAMPLE, made.output.path, data=few)
    assert found.passed
    assert found.form == "int8-unrolled"


def test_check_notices_a_file_of_other_weights(
    made: Result, few: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert made.output is not None
    model = onnx.load(made.output.path)
    weight = next(i for i in model.graph.initializer if i.name.endswith("_weight"))
    halved = onnx.numpy_helper.to_array(weight) // 2
    weight.CopyFrom(onnx.numpy_helper.from_array(halved, weight.name))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckFailed, match="int8 currents"):
        api.check(EXAMPLE, tmp_path / "other.onnx", data=few)


def test_check_notices_a_graph_that_does_something_else(
    made: Result, few: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """The description says one thing, the nodes compute another."""
    assert made.output is not None
    model = onnx.load(made.output.path)
    node = next(n for n in model.graph.node if n.op_type == "IFInt8")
    other = next(n for n in model.graph.node if n.op_type == "IFInt8First")
    node.input[4] = other.input[3]  # the bias of the first step at the second
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckFailed, match="int8 engines"):
        api.check(EXAMPLE, tmp_path / "other.onnx", data=few)


def test_more_steps_than_the_file_makes_are_an_error(
    made: Result, few: dict[str, np.ndarray]
) -> None:
    assert made.output is not None
    with pytest.raises(UsageError, match="makes 2 time steps"):
        api.simulate(made.output.path, data=few, timesteps=3)


def test_stepping_in_numpy_counts_as_the_file_does(
    made: Result, few: dict[str, np.ndarray]
) -> None:
    assert made.output is not None
    simulator = Simulator(made.output.path, record=["*"])
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    at_once = simulator.run(x, T)
    stepped = [simulator.step(x), simulator.step()]
    np.testing.assert_allclose(stepped[1]["logits"], at_once.outputs[T]["logits"], atol=1e-4)


def test_the_step_form_through_convert_check_and_simulate(
    made: Result, few: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Same counts as the unrolled file; samples stop at the step that whole runs say."""
    output = tmp_path / "step.onnx"
    step = api.convert(EXAMPLE, output=output, timesteps=T, data=few, weights="int8", form="step")
    assert (step.passed, step.form) == (True, "int8-step")
    assert api.check(EXAMPLE, output, data=few).passed
    assert made.output is not None
    whole = [api.simulate(f, data=few, record=["*"]) for f in (made.output.path, output)]
    for layer, spikes in whole[0].spikes.items():
        np.testing.assert_array_equal(spikes, whole[1].spikes[layer])
    logits = [np.sort(whole[0].outputs[t]["logits"]) for t in range(1, T + 1)]
    margin = float(np.median(logits[0][:, -1] - logits[0][:, -2]))
    at_once = logits[0][:, -1] - logits[0][:, -2] >= margin
    for file in (made.output.path, output):
        found = api.record(file, data=few, early_exit=margin).early_exit
        assert found is not None
        assert found.stopped == (np.count_nonzero(at_once), np.count_nonzero(~at_once))
    with pytest.raises(UsageError, match="T = 3: this file is proved for up to 2"):
        api.record(output, data=few, early_exit=1e6, timesteps=3)
    with pytest.raises(UsageError, match="T = 3: this file is proved for up to 2"):
        api.simulate(output, data=few, timesteps=3)


def test_what_tying_costs_is_measured(few: dict[str, np.ndarray], tmp_path: Path) -> None:
    found = api.convert(
        EXAMPLE, output=tmp_path / "tied.onnx", timesteps=T, data=few, weights="int8",
        tie_shortcuts="always", check=False,
    ).quantisation  # fmt: skip
    assert found is not None
    assert (found.tied, found.measured) == (True, "accuracy")
    assert found.raised
    assert found.score is not None
    assert found.tied_score is not None
    assert found.why.startswith(f"as asked; accuracy at T = {T}: {found.score:.1%} as they are")


def test_the_file_needs_onnxruntime_alone(made: Result) -> None:
    assert made.output is not None
    model = load(Path(made.output.path)).model
    assert {i.domain for i in model.opset_import} == {"", "na_convert"}
    assert {f.domain for f in model.functions} == {"na_convert"}
    assert made.output.bytes < 0.5 * EXAMPLE.stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tie-shortcuts", "always"], "is for --weights int8"),
        (["--weights", "int4"], "--weights int4"),
        (["--weights", "int8", "--form", "folded"], "--form folded"),
        (["--weights", "int8", "-T", "256"], "from 1 to 255"),
        (["--weights", "int8", "--tie-shortcuts", "perhaps"], "--tie-shortcuts perhaps"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "snn.onnx"
    with pytest.raises(SystemExit) as stopped:
        main([str(EXAMPLE), "-o", str(output), "--no-check", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_json_tells_of_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "snn.onnx"
    options = ["--weights", "int8", "-T", "2", "--no-check", "--json", "-o", str(output)]
    with pytest.raises(SystemExit) as stopped:
        main([str(EXAMPLE), *options])
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["form"] == "int8-unrolled"
    layers = found["quantisation"]["layers"]
    assert [layer["bits"] for layer in layers] == [0, 8, 8, 8, 8, 8, 8]
    assert found["quantisation"]["why"] == "no data to decide on: thresholds stay"
