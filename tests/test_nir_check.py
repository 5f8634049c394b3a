"""``na-convert check ANN net.nir`` as a user meets it, with readers made for the purpose."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession

import na_convert
from na_convert import cli
from na_convert.nir_file import read_back
from na_convert.nir_file.law import OURS, Law
from na_convert.nir_file.read_back import from_graph
from na_convert.nir_file.simulate import Deviation, Recording, simulate
from na_convert.nir_readers import readers
from na_convert.nir_readers.readers import Reader

from . import build, nir_nets
from .test_report import validate

LAWS = {"good": OURS, "hard": Law(reset="zero"), "norse": Law(reset="zero", strict=True)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ANN, its NIR file (what is read of it comes from `nir_nets`), and 40 samples."""
    onnx.save(nir_nets.layered_ann(), tmp_path / "ann.onnx")
    (tmp_path / "net.nir").write_bytes(b"")
    x = nir_nets.images((6,), steps=1, samples=40)[0].astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(40) % 3)
    network = from_graph(nir_nets.layered())
    monkeypatch.setattr(read_back, "read", lambda path: network)
    monkeypatch.setattr(readers, "find", lambda names: [_reader(n) for n in names.split(",")])
    monkeypatch.setattr(readers, "installed", lambda: ([_reader("good")], ["absent"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _reader(name: str) -> Reader:
    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        if name == "broken":
            raise TypeError("must be Tensor, not tuple")
        network = from_graph(nir_nets.layered())
        return simulate(network, inputs, Deviation(LAWS[name]), dtype=np.float32)

    return Reader(name, "1.0", run)


def check(options: str = "") -> int:
    return cli._run(f"check ann.onnx net.nir --data data.npz {options}".split())


def test_a_reader_that_does_what_we_do_passes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--reader good") == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("good  ")).split()
    assert row[:6] == ["good", "1.0", "identical", "0", "of", "640"]
    assert "good 1.0: all counts and outputs are ours" in shown
    assert "note: the first 32 of 40 samples" in shown
    assert shown.endswith("net.nir: 1 reader, T = 4, passed\n")


def test_a_reader_that_deviates_fails_and_is_explained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--reader good,hard") == 1
    shown = capsys.readouterr()
    assert "hard 1.0: reset to zero, not by subtraction (alone: " in shown.out
    assert "hard 1.0: simulated with all of this, 0 counts differ from the reader's" in shown.out
    assert "Layers in hard 1.0" in shown.out
    assert "Layers in good 1.0" not in shown.out
    assert shown.err == (
        "error: net.nir: hard deviates (reset to zero, not by subtraction): "
        "docs/nir-readers.md says what helps\n"
    )


def test_what_helps_is_said_beside_what_deviates(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--reader norse") == 1
    shown = capsys.readouterr().out
    assert "norse 1.0: --reader norse:adjusted runs it with settings that make it ours" in shown


def test_a_reader_that_cannot_run_the_file_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--reader broken") == 1
    shown = capsys.readouterr()
    assert "cannot run the file: TypeError: must be Tensor, not tuple" in shown.out
    assert "error: net.nir: broken fails (TypeError: must be Tensor, not tuple)" in shown.err


def test_without_a_name_all_installed_readers_run_and_the_others_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check() == 0
    assert "absent: not installed, not checked" in capsys.readouterr().out


def test_json_and_report_hold_every_figure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--reader good,hard,broken --json --report out.json -T 4") == 1
    found = json.loads(capsys.readouterr().out)
    validate(found, "check_nir")
    assert json.loads((folder / "out.json").read_text()) == found
    assert [each["verdict"] for each in found["readers"]] == ["identical", "deviates", "fails"]
    assert (found["samples"], found["timesteps"], found["passed"]) == (32, 4, False)
    assert found["reference"]["agreement"] == found["readers"][0]["agreement"] > 0.5
    hard = found["readers"][1]
    assert hard["causes"][0]["alone"] == sum(layer["differ"] for layer in hard["layers"])
    assert found["ann_accuracy"] is not None


def test_what_ends_the_check_is_reported_as_by_other_commands(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = from_graph(nir_nets.residual())
    monkeypatch.setattr(read_back, "read", lambda path: network)
    assert check("--reader good --json --report out.json") == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    validate(found, "failure")
    assert json.loads((folder / "out.json").read_text()) == found
    assert found["error"]["message"] in shown.err

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(read_back, "read", stopped)
    assert check("--reader good --report out.json") == 130
    assert json.loads((folder / "out.json").read_text())["error"]["message"] == "stopped"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--max-drop 0.1", "--max-drop: is for SNN files in ONNX, not for NIR files"),
        ("--github", "--github: is for SNN files in ONNX"),
        ("--energy-mac 4.6", "--energy-mac: is for SNN files in ONNX, not for NIR files: leave it"),
        ("--energy-ac 0", "--energy-ac: is for SNN files in ONNX"),
        ("--report x.html", "of a NIR file there is a JSON report alone"),
        ("-T 2,4", "one number is needed here"),
    ],
)
def test_options_of_other_files_are_refused(
    options: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(options) == 2
    assert said in capsys.readouterr().err


def test_a_reader_is_refused_for_an_snn_in_onnx(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.onnx").write_bytes(b"")
    line = "check ann.onnx net.onnx --data data.npz --reader norse"
    assert cli._run(line.split()) == 2
    assert "--reader norse: is for NIR files: give ANN and net.nir" in capsys.readouterr().err


def test_the_nir_file_of_another_ann_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = from_graph(nir_nets.residual())
    monkeypatch.setattr(read_back, "read", lambda path: network)
    assert check("--reader good") == 2
    assert "net.nir: does not take the ANN's input [6]" in capsys.readouterr().err


def test_the_nir_file_of_another_ann_of_the_same_shapes_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says which ANN it is made of; where it does not, a note says so."""
    assert check("--reader good") == 0
    said = "note: net.nir: does not say which ANN it is made of"
    assert said in capsys.readouterr().out
    graph = nir_nets.layered()
    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    sha256 = hashlib.sha256((folder / "ann.onnx").read_bytes()).hexdigest()
    graph.metadata["ann_sha256"] = sha256
    assert check("--reader good") == 0
    assert said not in capsys.readouterr().out
    graph.metadata["ann_sha256"] = "0" * 64
    assert check("--reader good") == 2
    assert "net.nir: is made of another ANN than ann.onnx" in capsys.readouterr().err


def test_a_file_that_says_no_time_steps_is_none_of_ours(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = nir_nets.layered()
    del graph.metadata["timesteps"]
    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    assert check("--reader good") == 2
    assert "does not say for how many time steps it was made" in capsys.readouterr().err
    assert check("--reader good -T 4") == 0
    said = "note: net.nir: does not say for how many time steps it was made; T = 4 was taken on"
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("metadata", "layer", "steps", "said"),
    [
        (
            {"initial_membrane": "bias"}, "n1", 5,
            "is made for exactly 4 time steps, over which half a threshold is spread, and T is 5: "
            "leave out -T, or export it with -T 5",
        ),
        ({"initial_membrane": "bias"}, "n1", 3, "is made for exactly 4 time steps"),
        (
            {"initial_membrane": "metadata"}, "maxima of pool", 5,
            "is made for up to 4 time steps, as its max-pools count no further, and T is 5: leave "
            "out -T, or export it with -T 5",
        ),
        (
            {"initial_membrane": "pulse"}, "n1", 1024,
            "its pulse at the first step lasts for up to 1,023 time steps, and T is 1,024: give "
            "-T 1023 or less, or export it with --initial-membrane metadata",
        ),
        ({"initial_membrane": "pulse"}, "maxima of pool", 5, "is made for up to 4 time steps"),
    ],
)  # fmt: skip
def test_time_steps_that_a_file_is_not_right_at_are_one_line(
    metadata: dict[str, str],
    layer: str,
    steps: int,
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = nir_nets.layered()
    graph.metadata |= metadata
    graph.nodes["n1"].metadata["onnx"] = layer
    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    assert check(f"--reader good -T {steps}") == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: net.nir: {said}")
    assert shown.count("\n") == 1
    assert check("--reader good -T 4") == check("--reader good") == 0


@pytest.mark.parametrize(("layer", "steps"), [("n1", 5), ("n1", 3), ("maxima of pool", 3)])
def test_other_time_steps_that_a_file_is_right_at_are_run(
    layer: str, steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = nir_nets.layered()
    graph.nodes["n1"].metadata["onnx"] = layer
    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    assert check(f"--reader good -T {steps}") == 0


def quantised_input_ann() -> onnx.ModelProto:
    """A quantiser of the input in front of `build.low_bit_ann`'s kind of network."""
    body = (
        build.quantised("x", "q", levels=15, step="fine")
        + "c = Conv <pads: ints = [1,1,1,1]> (q, w1)\n" + build.quantised("c", "a")
        + "d = Conv <pads: ints = [1,1,1,1]> (a, w2)\n" + build.quantised("d", "b")
        + "m = GlobalAveragePool (b)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    weights = {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "v": (5, 6), "fine": 0.13}
    return build.model(body, {**build.PLAIN, **weights})


def faithful(seen: list[Any]) -> Reader:
    """A reader that does with a file what we do; ``seen`` gets its inputs."""

    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        seen.append(inputs)
        return simulate(read_back.read(path), inputs, dtype=np.float64)

    return Reader("good", "1.0", run)


@pytest.fixture
def quantised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("nir", reason="the package nir is not installed (extra nir)")
    onnx.save(quantised_input_ann(), tmp_path / "ann.onnx")
    np.savez(tmp_path / "data.npz", x=build.images(6))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.nir
@pytest.mark.parametrize("exact", [True, False])
def test_an_input_that_is_quantised_outside_the_file_is_computed_by_what_the_file_holds(
    exact: bool,
    quantised: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The raw images would be multiples of nothing, and give other counts."""
    na_convert.convert("ann.onnx", output="net.nir", data="data.npz", exact=exact, check=False)
    seen: list[Any] = []
    monkeypatch.setattr(readers, "find", lambda names: [faithful(seen)])
    assert check("--reader good --json") == 0
    found = json.loads(capsys.readouterr().out)
    images = np.load("data.npz")["x"]
    levels = np.clip(np.round(images / np.float32(0.13)), 0, 15)
    np.testing.assert_allclose(seen[0][0], levels * (seen[0].max() / 15), rtol=1e-6)
    model = read_back.read(quantised / "net.nir").metadata["input_model"].tobytes()
    (computed,) = InferenceSession(model).run(None, {"x": images})
    np.testing.assert_allclose(computed, seen[0][0], rtol=1e-6)
    assert found["reference"]["agreement"] == 1
    assert check("--reader good") == 0
    assert "computed by the file's own input_model" in capsys.readouterr().out


@pytest.mark.nir
def test_the_page_names_all_that_a_file_says_of_itself(quantised: Path) -> None:
    body = "n = Neg (x)\nc = Conv (n, w1)\n" + build.quantised("c", "a") + (
        "m = GlobalAveragePool (a)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    rounded = build.model(body, {**build.PLAIN, "w1": (4, 3, 3, 3), "v": (5, 4)})
    said = set[str]()
    for ann in (quantised_input_ann(), rounded):
        onnx.save(ann, "ann.onnx")
        na_convert.convert("ann.onnx", output="net.nir", data="data.npz", check=False)
        said |= set(read_back.read(quantised / "net.nir").metadata)
    page = (Path(__file__).parent.parent / "docs" / "nir.md").read_text()
    of_the_graph = page[page.index("that of the graph") : page.index("The same SNN gives")]
    assert said == set(re.findall("`([a-z][a-z0-9_]*)`", of_the_graph))


@pytest.mark.nir
def test_a_file_with_two_outputs_is_said_to_have_them(
    quantised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "c = Conv (x, w1)\n" + build.quantised("c", "a") + "m = GlobalAveragePool (a)\n"
        "f = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)\nz = Gemm <transB: int = 1> (f, u)"
    )  # fmt: skip
    weights = {**build.PLAIN, "w1": (4, 3, 3, 3), "v": (5, 4), "u": (2, 4)}
    model = build.model(body, weights, outputs="float[N,5] y, float[N,2] z")
    onnx.save(model, "ann.onnx")
    na_convert.convert("ann.onnx", output="NET.NIR", data="data.npz", check=False)
    assert cli._run(["check", "ann.onnx", "NET.NIR", "--data", "data.npz"]) == 2
    assert capsys.readouterr().err == (
        "error: NET.NIR: 2 Output nodes; files with one are checked: export the ANN with the one "
        "output that is to be checked\n"
    )


@pytest.mark.nir
@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda m: m.pop("input_model"), 2, "which is none of the network's inputs (x)"),
        (lambda m: m.pop("input"), 2, "does not say what its Input takes: export it again"),
        (lambda m: m.update(input_model=np.arange(9)), 2, "its input_model does not give "),
        (lambda m: m.update(input_model="x"), 2, "its input_model does not give "),
        (lambda m: m.update(input="elsewhere"), 2, "no tensor 'elsewhere'"),
    ],
)
def test_an_input_that_cannot_be_computed_is_one_line(
    change: Any,
    code: int,
    said: str,
    quantised: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    na_convert.convert("ann.onnx", output="net.nir", data="data.npz", check=False)
    network = read_back.read(quantised / "net.nir")
    change(network.metadata)
    monkeypatch.setattr(read_back, "read", lambda path: network)
    monkeypatch.setattr(readers, "find", lambda names: [faithful([])])
    assert check("--reader good") == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: net.nir: ")
    assert shown.count("\n") == 1
    assert said in shown


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("input_grid", 0.3, "its input_grid is 0.3, no power of two"),
        ("input_grid", -0.5, "no power of two"),
        ("input_grid", float("nan"), "no power of two"),
        ("input_grid", "1", "no power of two"),
        ("input_grid", np.ones(2), "no power of two"),
        ("timesteps", 0, "its timesteps are 0, no number of steps"),
        ("timesteps", "4", "no number of steps"),
        ("timesteps", 2.5, "no number of steps"),
        ("input", np.arange(3), "which is none of the network's inputs (x)"),
    ],
)
def test_metadata_that_say_nothing_are_one_line(
    key: str,
    value: Any,
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = nir_nets.layered()
    graph.metadata[key] = value
    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    assert check("--reader good") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: net.nir: ")
    assert shown.count("\n") == 1
    assert said in shown


def test_the_input_is_put_on_the_grid_of_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = nir_nets.layered()
    graph.metadata["input_grid"] = 1.0
    seen = []

    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        seen.append(inputs)
        return simulate(from_graph(graph), inputs, dtype=np.float32)

    monkeypatch.setattr(read_back, "read", lambda path: from_graph(graph))
    monkeypatch.setattr(readers, "find", lambda names: [Reader("good", "1.0", run)])
    assert check("--reader good") == 0
    np.testing.assert_array_equal(seen[0], np.round(seen[0]))
