"""Integer networks exported for hardware: npz, C header, and the C reference that runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from na_convert.passes import quantise_weights

import na_convert
from na_convert import cli
from na_convert.errors import CheckFailed, NotConvertible
from na_convert.forms.int8_file import restore
from na_convert.forms.int8_unrolled import int8_parts
from na_convert.hardware import export, npz
from na_convert.hardware.execution import run
from na_convert.hardware.header import header
from na_convert.hardware.lowering import lower, window_table
from na_convert.hardware.program import Layer, Move, Program
from na_convert.integer import IntegerNetwork
from na_convert.integer import run as run_network
from na_convert.integer_running import counts_in_onnxruntime
from na_convert.integer_stepping import Int8Stepper

from . import build
from .int8_cases import CASES, case, file

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "examples/c/reference.c"
EXAMPLE = ROOT / "examples/resnet8-cifar10.onnx"
T, N = 4, 3
FEEDS = {"x": build.images(N)}
UNLIKE = "a pixel on an image"
EXPORTED = [name for name in CASES if name != UNLIKE]
CC = shutil.which("cc") or shutil.which("gcc")
needs_cc = pytest.mark.skipif(CC is None, reason="needs a C compiler (cc or gcc)")


def in_c(folder: Path, text: str, currents: np.ndarray, timesteps: int, neurons: int) -> np.ndarray:
    """What reference.c counts: [T, N, neurons]."""
    (folder / "network.h").write_text(text)
    binary = folder / "reference"
    flags = ["-O2", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    build_line = [str(CC), *flags, f"-I{folder}", "-o", str(binary), str(REFERENCE)]
    built = subprocess.run(build_line, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(binary), str(timesteps)], input=currents.tobytes(), capture_output=True, check=True
    )
    counts = np.frombuffer(done.stdout, np.uint8).reshape(len(currents), timesteps, neurons)
    return counts.swapaxes(0, 1)


def flat(counts: dict[str, np.ndarray], program: Program) -> np.ndarray:
    """Counts [T, N, ...] by layer as reference.c writes them: [T, N, neurons]."""
    parts = [counts[layer.name] for layer in program.layers]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


# --- the same counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTED)
def test_numpy_and_onnxruntime_count_the_same(name: str) -> None:
    """The program in numpy, the integer network in numpy, and its ONNX file."""
    network = quantise_weights.run(case(name), T).network
    program = lower(network)
    found, analog = counts_in_onnxruntime(int8_parts(network).whole(), network, FEEDS)
    currents = export.from_tensors(program, analog)
    assert currents.shape == (N, program.inputs)
    expected = run_network(network, FEEDS, T, analog).counts
    of_program = run(program, currents, T)
    for layer, counts in expected.items():
        np.testing.assert_array_equal(found[layer], counts)
        np.testing.assert_array_equal(of_program[layer], counts)
        assert counts.max() > 0


@needs_cc
@pytest.mark.parametrize("name", EXPORTED)
def test_c_counts_the_same(name: str, tmp_path: Path) -> None:
    """The C reference, as the program in numpy."""
    network = quantise_weights.run(case(name), T).network
    program = lower(network)
    currents = export.currents_of(network, program, FEEDS)
    expected = flat(run(program, currents, T), program)
    assert expected.max() > 0
    made = in_c(tmp_path, header(program, name), currents, T, expected.shape[-1])
    np.testing.assert_array_equal(made, expected)


def test_every_kind_of_layer_is_among_the_cases() -> None:
    """So that the tests above say something of each part of the layout."""
    programs = [lower(quantise_weights.run(case(name), T).network) for name in EXPORTED]
    layers = [layer for program in programs for layer in program.layers]
    moves = [op for program in programs for op in program.operations if isinstance(op, Move)]
    assert any(layer.window is not None for layer in layers)
    assert any(layer.resolution > 1 and layer.shortcuts for layer in layers)
    assert any(layer.products and layer.currents for layer in layers)
    assert any(len(layer.bias) > layer.shape[0] for layer in layers)
    assert any(p.group > 1 for layer in layers for p in layer.products)
    assert any(p.dilations != (1, 1) for layer in layers for p in layer.products)
    assert {"Concat", "Slice", "Pad", "Reshape", "MaxPool", "SumPool"} <= {m.op for m in moves}


def test_several_convolutions_and_shortcuts_in_a_wide_layer() -> None:
    """What the passes join where they can, and the layout holds all the same."""
    network, program, currents = wide_layer()
    expected = run_network(network, FEEDS, T).counts
    found = run(program, currents, T)
    for layer, counts in expected.items():
        np.testing.assert_array_equal(found[layer], counts)


@needs_cc
def test_a_wide_layer_in_c(tmp_path: Path) -> None:
    _, program, currents = wide_layer()
    expected = flat(run(program, currents, T), program)
    made = in_c(tmp_path, header(program, "wide"), currents, T, expected.shape[-1])
    np.testing.assert_array_equal(made, expected)


def wide_layer() -> tuple[IntegerNetwork, Program, np.ndarray]:
    """A layer of two convolutions and two shortcuts, its program, and the currents of `FEEDS`."""
    network = quantise_weights.run(case("identity shortcut"), T).network
    *before, last = network.layers
    shortcut = replace(last.shortcuts[0], weight=np.asarray(37))
    wide = replace(last, products=last.products * 2, shortcuts=(shortcut,) * 2, wide=True,
                   resolution=1, zero_point=0)  # fmt: skip
    network = IntegerNetwork(network.snn, (*before, wide), network.means, T)
    program = lower(network)
    return network, program, export.currents_of(network, program, FEEDS)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what a user makes of the example: converted, exported, currents of images."""
    folder = tmp_path_factory.mktemp("example")
    snn = folder / "net.snn.onnx"
    na_convert.convert(EXAMPLE, output=snn, weights="int8", timesteps=T, check=False)
    for suffix in (".h", ".npz"):
        line = ["export", str(snn), "-o", f"{folder}/network{suffix}", "-q"]
        assert cli._run(line) == 0
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.save(folder / "images.npy", images)
    script = ROOT / "examples/c/currents.py"
    files = [snn, folder / "network.npz", folder / "images.npy", folder / "currents"]
    subprocess.run([sys.executable, str(script), *map(str, files)], check=True)
    return folder


def test_the_example_in_numpy(example: Path) -> None:
    """Counts of what was exported are those of the ONNX file."""
    program = npz.read(example / "network.npz")
    model = onnx.load(example / "net.snn.onnx")
    feeds = {"x": np.load(example / "images.npy")}
    wanted, _ = counts_in_onnxruntime(model, restore(model), feeds)
    found = run(program, currents_in(example, program), T)
    for layer, counts in wanted.items():
        np.testing.assert_array_equal(found[layer], counts)
        assert counts.max() > 0


@needs_cc
def test_the_example_in_c(example: Path, tmp_path: Path) -> None:
    """As in numpy: compiled and run."""
    program = npz.read(example / "network.npz")
    currents = currents_in(example, program)
    wanted = flat(run(program, currents, T), program)
    assert wanted.shape[-1] == 73_728
    made = in_c(tmp_path, (example / "network.h").read_text(), currents, T, 73_728)
    np.testing.assert_array_equal(made, wanted)


def currents_in(folder: Path, program: Program) -> np.ndarray:
    return np.fromfile(folder / "currents", np.int32).reshape(2, program.inputs)


@pytest.mark.parametrize("name", ["plain", "identity shortcut", "analog skip"])
def test_the_step_form_under_a_changing_input(name: str, tmp_path: Path) -> None:
    """Its limits leave room for it: sums of the currents up to now in place of t times one."""
    snn, model = tmp_path / "net.snn.onnx", file(name, "step", T)
    onnx.save(model, snn)
    found = na_convert.export_integers(snn, tmp_path / "net.npz")
    assert found.compared > 0
    program = npz.read(tmp_path / "net.npz")
    images = np.random.default_rng(1).normal(0, 2, (T, N, 3, 8, 8)).astype(np.float32)
    stepper = Int8Stepper(model)
    wanted = []
    for each in images:
        stepper.step({"x": each})
        wanted.append([stepper.counts(layer) for layer in stepper.network.layers])
    currents = [export.currents_of(stepper.network, program, {"x": each}) for each in images]
    counts = run(program, np.stack(currents), T)
    constant = run(program, currents[0], T)
    assert any((constant[name] != counts[name]).any() for name in counts)
    for i, layer in enumerate(stepper.network.layers):
        np.testing.assert_array_equal(counts[layer.name], np.stack([each[i] for each in wanted]))
    first = np.stack([each[0] for each in wanted])
    assert (np.diff(first.astype(int), axis=0) == 0).any()


@needs_cc
def test_the_reference_refuses_steps_that_are_not_proved(tmp_path: Path) -> None:
    program = lower(quantise_weights.run(case("plain"), 2).network)
    currents = np.zeros((1, program.inputs), np.int32)
    in_c(tmp_path, header(program, "plain"), currents, 2, sum(e.size for e in program.layers))
    for steps in ("3", "0"):
        done = subprocess.run([str(tmp_path / "reference"), steps], input=b"", check=False)
        assert done.returncode == 2


# --- the files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hardware") / "net.snn.onnx"
    na_convert.convert(EXAMPLE, output=path, weights="int8", timesteps=2, check=False)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".h"])
def test_the_suffix_is_read_in_any_case(
    suffix: str,
    int8_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (f"net{suffix}", f"NET{suffix.upper()}"):
        assert cli._run(["export", str(int8_file), "-o", name, "-q"]) == 0
    one, other = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert one == other
    assert cli._run(["export", str(int8_file), "-o", f"NET{suffix.upper()}", "-T", "2"]) == 2
    assert "-T is for .nir files" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npz", ".h"])
def test_the_same_bytes_each_time(int8_file: Path, suffix: str, tmp_path: Path) -> None:
    written = [tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"]
    digests = {na_convert.export_integers(int8_file, path).sha256 for path in written}
    assert len(digests) == 1
    assert written[0].read_bytes() == written[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_npz_says_everything(int8_file: Path, tmp_path: Path) -> None:
    """Its own test vector: currents in, counts out; without pickles."""
    path = tmp_path / "net.npz"
    found = na_convert.export_integers(int8_file, path)
    program = npz.read(path)
    with np.load(path, allow_pickle=False) as file:
        text = json.loads(str(file["network"]))
        assert text["format"] == npz.FORMAT
        assert text["source"] == int8_file.name
        counts = run(program, file["test/currents"], 2)
        names = [entry["name"] for entry in text["operations"]]
        for layer in program.layers:
            np.testing.assert_array_equal(
                file[f"test/counts/{names.index(layer.name)}"], counts[layer.name]
            )
    assert header(program, "") == header(lower(restore(onnx.load(int8_file))), "")
    assert found.neurons == 73_728
    assert found.compared == 2 * found.samples * found.neurons
    weights = [p.weight for layer in program.layers for p in layer.products]
    assert {w.dtype for w in weights} == {np.dtype(np.int8)}
    assert sum(w.nbytes for w in weights) == found.weights


def test_names_cannot_leave_a_comment_or_a_string() -> None:
    program = lower(quantise_weights.run(case("plain"), T).network)
    first, *rest = program.operations
    assert isinstance(first, Layer)
    evil = 'x*/ int main(void){} "\\\n??/é'
    text = header(replace(program, operations=(replace(first, name=evil), *rest)), evil)
    assert text.isascii()
    assert text.count("*/") == text.count("/*")
    assert "int main" in text
    assert '"x_/ int main(void){} ___' in text


def test_windows_of_a_pool() -> None:
    attributes: dict[str, Any] = {"kernel_shape": [2], "strides": [2], "pads": [1, 1]}
    table = window_table(attributes, (2, 3), (2, 2))
    np.testing.assert_array_equal(table, [[-1, 0], [1, 2], [-1, 3], [4, 5]])


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "net.h", "-T", "2"], "-o net.h: -T is for .nir files"),
        (["-o", "net.npz", "--target", "norse"], "-o net.npz: --target is for .nir files"),
        (["-o", "gone/net.h"], "no such folder gone"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str],
    message: str,
    int8_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._run(["export", str(int8_file), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_float_network_has_no_integers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snn = tmp_path / "net.snn.onnx"
    na_convert.convert(EXAMPLE, output=snn, check=False)
    assert cli._run(["export", str(snn), "-o", str(tmp_path / "net.h")]) == 2
    error = capsys.readouterr().err
    assert "this SNN has none: make it with na-convert MODEL --weights int8" in error
    assert not (tmp_path / "net.h").exists()


def test_three_dimensions_are_refused_by_name() -> None:
    network = quantise_weights.run(case("plain"), T).network
    first, second = network.layers
    product = second.products[0]
    assert product.window is not None
    window = replace(product.window, strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1))
    weight = product.weight[..., None]
    deep = replace(second, products=(replace(product, weight=weight, window=window),))
    with pytest.raises(NotConvertible, match="'Staircase_3' cannot be exported") as refused:
        lower(IntegerNetwork(network.snn, (first, deep), network.means, T))
    assert refused.value.refused[0].node == "Staircase_3"


def test_sums_of_unlike_sizes_are_refused_by_name() -> None:
    with pytest.raises(NotConvertible, match=r"'Staircase_6' cannot be exported.*unlike sizes"):
        lower(quantise_weights.run(case(UNLIKE), T).network)


def test_numbers_that_do_not_fit_are_refused_by_name() -> None:
    network = quantise_weights.run(case("plain"), T).network
    first, second = network.layers
    large = replace(second, bias=second.bias + 2**31)
    with pytest.raises(NotConvertible, match="'Staircase_3' has a number that int32"):
        lower(IntegerNetwork(network.snn, (first, large), network.means, T))


def test_other_counts_stop_the_export(
    int8_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(program: Program, currents: np.ndarray, timesteps: int) -> dict[str, np.ndarray]:
        found = run(program, currents, timesteps)
        found["node_mul_53"][-1, 0, 0, 0, 0] ^= 1
        return found

    monkeypatch.setattr(export, "run", wrong)
    with pytest.raises(CheckFailed, match="layer 'node_mul_53': 1 of"):
        na_convert.export_integers(int8_file, tmp_path / "net.h")
    assert not list(tmp_path.iterdir())


def wrong_mean(program: Program) -> Program:
    first, *rest = program.means
    return replace(program, means=(replace(first, scale=first.scale * 2), *rest))


def wrong_gain(program: Program) -> Program:
    first, *rest = program.currents
    return replace(program, currents=(replace(first, gain=first.gain * 2), *rest))


def wrong_limit(program: Program) -> Program:
    first, *rest = program.currents
    return replace(program, currents=(replace(first, high=first.high + 1), *rest))


def wrong_bias(program: Program) -> Program:
    first, *rest = program.operations
    assert isinstance(first, Layer)
    return replace(program, operations=(replace(first, bias=first.bias + 1), *rest))


@pytest.mark.parametrize("wrong", [wrong_mean, wrong_gain, wrong_limit, wrong_bias])
def test_an_npz_that_reads_back_as_another_network(
    int8_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[Program], Program],
) -> None:
    write = npz.write
    monkeypatch.setattr(npz, "write", lambda program, *rest: write(wrong(program), *rest))
    with pytest.raises(CheckFailed, match=r"net\.npz: reads back as another network"):
        na_convert.export_integers(int8_file, tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_an_npz_with_another_test_vector(
    int8_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(program: Program, source: str, path: Path, tests: dict[str, np.ndarray]) -> None:
        write(program, source, path, {**tests, "test/currents": tests["test/currents"] + 1})

    write = npz.write
    monkeypatch.setattr(npz, "write", wrong)
    with pytest.raises(CheckFailed, match=r"net\.npz: reads back as another network"):
        na_convert.export_integers(int8_file, tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_json_fits_the_schema(
    int8_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads((ROOT / "docs/result.schema.json").read_text())
    line = ["export", str(int8_file), "-o", str(tmp_path / "net.h"), "--json"]
    assert cli._run(line) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema)
    jsonschema.validate(found, {**schema, "oneOf": [{"$ref": "#/$defs/export_integers"}]})
