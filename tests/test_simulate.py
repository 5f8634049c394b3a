"""`na-convert simulate` and the `Simulator`: state, recordings, accuracy, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import api, batches, cli
from na_convert.errors import UsageError
from na_convert.forms.folded import to_folded
from na_convert.neurons import IFState
from na_convert.simulation import simulate
from na_convert.simulator import Simulator, matching_layers
from na_convert.snn import Snn

from . import build
from .test_report import validate
from .test_simulation import T, residual

COUNT = 5


@pytest.fixture(scope="module")
def network() -> Snn:
    return residual()


@pytest.fixture(scope="module")
def model(network: Snn) -> onnx.ModelProto:
    from na_convert.snn import metadata

    described = metadata(network, "folded", "0.0", "ab" * 32)
    carried = network.carried.with_metadata(described)
    return to_folded(Snn(network.graph, network.neurons, network.timesteps, carried))


@pytest.fixture(scope="module")
def folder(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an SNN file and data whose labels are the SNN's own classes at T = 3."""
    folder = tmp_path_factory.mktemp("simulate")
    onnx.save(model, folder / "net.snn.onnx")
    x = build.images(COUNT)
    labels = simulate(model, {"x": x}, T).outputs[T]["y"].argmax(1)
    np.savez(folder / "data.npz", x=x, labels=labels)
    return folder


def run(folder: Path, line: str) -> int:
    return cli._run(["simulate", str(folder / "net.snn.onnx"), *line.split()])


# --- step by step ---------------------------------------------------------------------------------


def test_steps_are_the_run(model: onnx.ModelProto) -> None:
    simulator, x = Simulator(model, record=["*"]), build.images(2)
    assert simulator.timesteps == T
    whole = simulator.run(x)
    for t in range(1, T + 1):
        outputs = simulator.step(x)
        assert simulator.t == t
        np.testing.assert_allclose(outputs["y"], whole.outputs[t]["y"], atol=1e-5)
        for name in simulator.layers:
            np.testing.assert_array_equal(simulator.spikes[name], whole.spikes[name][t - 1] != 0)


def test_a_step_without_input_repeats_the_last(model: onnx.ModelProto) -> None:
    one, other, x = Simulator(model), Simulator(model), build.images(2)
    one.step(x)
    other.step(x)
    np.testing.assert_array_equal(one.step()["y"], other.step({"x": x})["y"])


def test_reset_starts_again(model: onnx.ModelProto) -> None:
    simulator, x = Simulator(model, record=["*"]), build.images(2)
    first = simulator.step(x)["y"]
    simulator.step()
    simulator.reset()
    assert (simulator.t, simulator.membranes) == (0, {})
    np.testing.assert_array_equal(simulator.step(x)["y"], first)
    simulator.reset()
    assert simulator.step(build.images(4))["y"].shape == (4, 5)


def test_the_input_may_change_from_step_to_step(model: onnx.ModelProto) -> None:
    """The first layer integrates what it is given at each step."""
    simulator = Simulator(model, record=["*"])
    name = simulator.layers[0]
    neuron = simulator.parameters(name)
    frames = [build.images(2, seed=seed) for seed in range(3)]
    state = None
    for frame in frames:
        simulator.step(frame)
        current = Simulator(model, record=[name]).run(frame, 1).currents[name][0]
        state = state or IFState.start(current, neuron.threshold, neuron.amplitude, 0.5)
        np.testing.assert_array_equal(simulator.spikes[name], state.step(current) != 0)
        np.testing.assert_allclose(simulator.membranes[name], state.membrane, atol=1e-5)


def test_sessions_are_made_once(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    from na_convert import cut

    made = []
    original = cut.session
    monkeypatch.setattr(cut, "session", lambda *a, **k: made.append(k) or original(*a, **k))
    simulator = Simulator(model, threads=1)
    for steps in (1, 3, 2):
        simulator.run(build.images(2), steps)
    assert [k["threads"] for k in made] == [1, 1]  # the spiking part and the readout


@pytest.mark.parametrize("batch", [1, 2, 64, None])
def test_a_run_in_batches_is_the_whole(model: onnx.ModelProto, batch: int | None) -> None:
    simulator, x = Simulator(model, record=["*"]), build.images(COUNT)
    whole, parts = simulator.run(x, batch=COUNT), simulator.run(x, batch=batch)
    for name in simulator.layers:
        np.testing.assert_array_equal(whole.spikes[name], parts.spikes[name])


def test_as_many_samples_run_at_once_as_in_a_check(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = Simulator(model)
    assert simulator.batch_size(1) == batches.LARGEST
    neurons = sum(int(np.prod(neuron.shape)) for neuron in simulator.network.neurons)
    monkeypatch.setattr(batches, "MEMORY", 3 * neurons * 4 * 4 * 2)
    assert simulator.batch_size(2) == batches.samples_at_once(neurons, copies=4 * 2) == 3
    assert simulator.batch_size(7) == 1


def test_misuse_is_said(model: onnx.ModelProto) -> None:
    simulator = Simulator(model)
    with pytest.raises(UsageError, match="the first step needs an input"):
        simulator.step()
    simulator.step(build.images(2))
    with pytest.raises(UsageError, match="the batch was 2 at the first step, and is 3 now"):
        simulator.step(build.images(3))
    with pytest.raises(UsageError, match="at least one time step"):
        simulator.run(build.images(2), 0)
    with pytest.raises(UsageError, match="at least one sample"):
        simulator.run(build.images(2), batch=0)
    with pytest.raises(UsageError, match="nobody: no such neuron layer: there are"):
        Simulator(model, record=["nobody"])


def test_layers_by_name_and_pattern() -> None:
    layers = ("/block.0/act", "/block.1/act", "/head/[act]")
    assert matching_layers(layers, ["/head/[act]", "/block.0/act"]) == (layers[0], layers[2])
    assert matching_layers(layers, ["/block*"]) == layers[:2]
    assert matching_layers(layers, ["*"]) == layers
    assert matching_layers(layers, []) == ()


def test_the_package_offers_it() -> None:
    assert na_convert.Simulator is Simulator
    assert na_convert.record is api.record


# --- the file -------------------------------------------------------------------------------------


def test_what_is_written(folder: Path, model: onnx.ModelProto, tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    data = str(folder / "data.npz")
    assert run(folder, f"--data {data} -o {target} --record * --batch 2 -T 4 --threads 1") == 0
    simulator, x = Simulator(model, record=["*"]), build.images(COUNT)
    expected = simulator.run(x, 4)
    with np.load(target) as found:
        outputs = np.stack([expected.outputs[t]["y"] for t in range(1, 5)])
        np.testing.assert_allclose(found["outputs/y"], outputs, atol=1e-6)
        np.testing.assert_array_equal(found["labels"], np.load(folder / "data.npz")["labels"])
        for name in simulator.layers:
            fired = expected.spikes[name] != 0
            np.testing.assert_array_equal(found[f"spikes/{name}"], fired)
            np.testing.assert_array_equal(found[f"counts/{name}"], fired.sum(0))
            theta = simulator.parameters(name).threshold
            assert found[f"threshold/{name}"] == theta
            state = IFState.start(expected.currents[name][0], theta, np.ones(()), 0.5)
            for t in range(4):
                state.step(expected.currents[name][t])
                np.testing.assert_array_equal(found[f"membranes/{name}"][t], state.membrane)
        assert len(found.files) == 2 + 5 * len(simulator.layers)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("options", ["", "--form unrolled", "--form step", "--weights int8"])
def test_every_form_of_file(tmp_path: Path, options: str) -> None:
    """A neuron fires where its membrane before the reset is at the threshold, and nowhere else."""
    onnx.save(build.low_bit_ann(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=build.images(COUNT))
    target = tmp_path / "net.snn.onnx"
    line = f"{tmp_path}/net.onnx -o {target} --no-check -q {options}"
    assert cli._run(line.split()) == 0
    assert run(tmp_path, f"--data {tmp_path}/data.npz -o {tmp_path}/out.npz --record * -q") == 0
    with np.load(tmp_path / "out.npz") as found:
        layers = [name.split("/", 1)[1] for name in found.files if name.startswith("spikes/")]
        assert len(layers) == 2
        for name in layers:
            fired, theta = found[f"spikes/{name}"], found[f"threshold/{name}"]
            before = found[f"membranes/{name}"] + fired * theta
            np.testing.assert_array_equal(fired, before >= theta * (1 - 1e-6))
            assert 0 < fired.mean() < 1


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        assert run(folder, f"--data {folder / 'data.npz'} -o {tmp_path / name} --record *") == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_accuracy_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.load(folder / "data.npz")
    assert run(folder, f"--data {folder / 'data.npz'} --json --batch 2") == 0
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "simulate")
    outputs = simulate(onnx.load(folder / "net.snn.onnx"), {"x": data["x"]}, T).outputs
    for entry in entries["by_timestep"]:
        classes = outputs[entry["T"]]["y"].argmax(1)
        assert entry["accuracy"] == np.mean(classes == data["labels"])
    assert entries["by_timestep"][-1]["accuracy"] == 1.0
    assert run(folder, f"--data {folder / 'data.npz'}") == 0
    shown = capsys.readouterr().out
    assert "100.0 %" in shown
    assert "5 samples, T = 3" in shown


def test_without_labels_no_accuracy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=build.images(2))
    assert run(folder, f"--data {tmp_path / 'x.npz'} --json") == 0
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "simulate")
    assert {entry["accuracy"] for entry in entries["by_timestep"]} == {None}
    assert run(folder, f"--data {tmp_path / 'x.npz'}") == 0
    assert "accuracy" not in capsys.readouterr().out


def test_recorded_layers_are_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, name = tmp_path / "out.npz", residual().neurons[0].name
    line = f"--data {folder / 'data.npz'} -o {target} --record {name}"
    assert run(folder, f"{line} --json") == 0
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "simulate")
    (layer,) = entries["recorded"]
    with np.load(target) as found:
        assert layer["spike_rate"] == found[f"spikes/{name}"].mean()
        listed = {a["name"]: (a["dtype"], tuple(a["shape"])) for a in entries["arrays"]}
        assert listed == {k: (str(found[k].dtype), found[k].shape) for k in found.files}
    assert run(folder, line) == 0
    assert "Recorded layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data data.npz -T 0", "at least one time step"),
        ("--data data.npz --batch 0", "--batch 0: at least 1 is needed"),
        ("--data data.npz --threads -1", "--threads -1: at least 0 is needed"),
        ("--data data.npz --record *", "--record needs a file to write to"),
        ("--data data.npz -o out.npz --record none", "--record none: no such neuron layer"),
        ("--data data.npz -o data.npz", "would overwrite the input"),
        ("--data data.npz -o none/out.npz", "no such folder none"),
        ("", "Missing option '--data'"),
    ],
)
def test_usage_errors(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run(folder, line) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(folder.iterdir()) == before


def test_a_failure_leaves_no_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("na_convert.recording._put", stop)
    assert run(folder, f"--data {folder / 'data.npz'} -o {tmp_path / 'out.npz'}") == 130
    assert capsys.readouterr().err == "error: stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_an_ann_is_no_snn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(build.model("y = Flatten (x)"), tmp_path / "net.snn.onnx")
    np.savez(tmp_path / "data.npz", x=build.images())
    assert run(tmp_path, f"--data {tmp_path / 'data.npz'}") == 2
    assert "not an SNN written by na-convert" in capsys.readouterr().err


def test_a_fixed_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = residual(inputs="float[2,3,8,8] x", outputs="float[2,M] y")
    from na_convert.snn import metadata

    carried = fixed.carried.with_metadata(metadata(fixed, "folded", "0.0", "ab" * 32))
    model = to_folded(Snn(fixed.graph, fixed.neurons, fixed.timesteps, carried))
    onnx.save(model, tmp_path / "net.snn.onnx")
    for count, code in ((4, 0), (3, 2)):
        np.savez(tmp_path / "data.npz", x=build.images(count))
        assert run(tmp_path, f"--data {tmp_path / 'data.npz'}") == code
    assert "3 samples do not fill batches of 2" in capsys.readouterr().err
