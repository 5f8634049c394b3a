"""SNN files that are broken on purpose: each is caught, the layer is named, and bisected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import na_convert
from na_convert.errors import CheckFailed, UsageError
from na_convert.results import Result
from na_convert.testing import assert_equivalent

from . import build

DATA = {"x": build.images(24, seed=3), "labels": np.arange(24) % 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three layers with BatchNorm before each, a residual sum, and its SNN."""
    rng = np.random.default_rng(3)
    weights: dict = {**build.PLAIN, "w4": (5, 6), "b4": rng.normal(size=5).astype(np.float32)}
    for i in (1, 2, 3):
        weights |= {
            f"w{i}": (6, 3 if i == 1 else 6, 3, 3),
            f"g{i}": rng.uniform(0.5, 1.5, 6).astype(np.float32),
            f"b{i}": rng.normal(0.1, 0.3, 6).astype(np.float32),
            f"m{i}": rng.normal(0, 0.3, 6).astype(np.float32),
            f"v{i}": rng.uniform(0.1, 1, 6).astype(np.float32),
        }
    weights |= {"step2": 0.6}
    body = ""
    for i, root, current in ((1, "x", "n1"), (2, "a1", "r2"), (3, "a2", "n3")):
        body += f"c{i} = Conv <pads: ints = [1,1,1,1]> ({root}, w{i})\n"
        body += f"n{i} = BatchNormalization (c{i}, g{i}, b{i}, m{i}, v{i})\n"
        body += "r2 = Add (n2, a1)\n" if i == 2 else ""
        body += build.quantised(current, f"a{i}", step="step2" if i == 2 else "step")
    body += "m = GlobalAveragePool (a3)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w4, b4)"
    folder = tmp_path_factory.mktemp("networks")
    ann, snn = folder / "ann.onnx", folder / "snn.onnx"
    onnx.save(build.model(body, weights), ann)
    na_convert.convert(ann, output=snn, data=DATA, exact=False)
    na_convert.convert(ann, output=folder / "grids.onnx", data=DATA)
    return ann, snn


# --- sabotage -------------------------------------------------------------------------------------


def neuron_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "IF"]


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(a for a in node.attribute if a.name == name)


def give_own(
    model: onnx.ModelProto, node: onnx.NodeProto, position: int, values: np.ndarray
) -> None:
    """A new constant for an input of ``node``; the stored one may have other readers."""
    name = f"{node.input[position]}_broken"
    node.input[position] = name
    model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))


def convolution(model: onnx.ModelProto, index: int) -> onnx.NodeProto:
    """The fine parts of a stem on grids have no bias."""
    found = [node for node in model.graph.node if node.op_type == "Conv" and len(node.input) == 3]
    return found[index]


def halve_threshold(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    attribute(neuron_layers(model)[1], "threshold").f /= 2


def drop_bias(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    give_own(model, convolution(model, 1), 2, np.zeros(6))


def empty_membrane(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    attribute(neuron_layers(model)[1], "initial").f = 0


def unfold_batchnorm(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    """The second convolution as it was before its BatchNorm was folded in."""
    weights = next(i for i in ann.graph.initializer if i.name == "w2")
    give_own(model, convolution(model, 1), 1, onnx.numpy_helper.to_array(weights))
    give_own(model, convolution(model, 1), 2, np.zeros(6))


def swap_thresholds(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    first, second = (attribute(node, "threshold") for node in neuron_layers(model)[1:])
    first.f, second.f = second.f, first.f


def reset_to_zero(model: onnx.ModelProto, ann: onnx.ModelProto) -> None:
    """In the body of the file's own IF: u_next = v * (1 - fired) in place of v - fired * theta."""
    function = next(f for f in model.functions if f.name == "IF")
    scan = next(node for node in function.node if node.op_type == "Scan")
    body = attribute(scan, "body").g
    reset = next(node for node in body.node if node.op_type == "Mul")
    (fired, _), (v,) = reset.input, [n.output[0] for n in body.node if n.op_type == "Add"]
    del reset.input[:]
    reset.input.extend([fired, v])


# (what is done, which check finds it, index of the layer that is named)
BROKEN: dict[str, tuple[Callable[[onnx.ModelProto, onnx.ModelProto], None], str, int]] = {
    "threshold halved": (halve_threshold, "replay", 1),
    "bias dropped": (drop_bias, "replay", 1),
    "initial membrane 0": (empty_membrane, "replay", 1),
    "BatchNorm unfolded": (unfold_batchnorm, "replay", 1),
    "thresholds swapped": (swap_thresholds, "replay", 1),
    "reset to zero": (reset_to_zero, "engines", 0),
}


ON_GRIDS = [case for case in BROKEN if case != "thresholds swapped"]  # there all are 1


@pytest.mark.parametrize(
    ("file", "case"),
    [("snn.onnx", case) for case in BROKEN] + [("grids.onnx", case) for case in ON_GRIDS],
)
def test_each_is_caught_named_and_bisected(
    files: tuple[Path, Path], tmp_path: Path, file: str, case: str
) -> None:
    ann, snn = files[0], files[1].with_name(file)
    breaks, check, index = BROKEN[case]
    model = onnx.load(snn)
    breaks(model, onnx.load(ann))
    broken, folder = tmp_path / "broken.onnx", tmp_path / "around"
    onnx.save(model, broken)
    with pytest.raises(CheckFailed) as caught:
        na_convert.check(ann, broken, data=DATA, bisect=folder)
    name = neuron_layers(model)[index].name
    assert caught.value.node == name
    assert caught.value.message.startswith(f"{check}: ")
    assert repr(name) in caught.value.message
    result = caught.value.result
    assert result is not None
    assert result.equivalence is not None
    assert not next(f for f in result.equivalence.figures if f.name == check).passed
    assert result.equivalence.by_timestep  # the whole ladder was climbed all the same
    note = next(n for n in result.notes if n.startswith("bisect: "))
    assert repr(name) in note
    assert gap_between_the_parts(folder) > 0.3


def gap_between_the_parts(folder: Path) -> float:
    """Both models run as anyone would, on stock onnxruntime; largest difference, in level steps."""
    found = []
    for part in ("ann", "snn"):
        model = onnx.load(folder / f"{part}.onnx")
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        with np.load(folder / f"{part}.npz") as stored:
            (output,) = session.run(None, dict(stored))
        found.append(output)
    assert found[0].shape == found[1].shape
    assert len(found[0]) == 1
    return float(np.abs(found[0] - found[1]).max())


def test_a_sound_snn_is_not_bisected(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "around"
    found = na_convert.check(*files, data=DATA, bisect=folder)
    assert any("nothing was written" in note for note in found.notes)
    assert not folder.exists()


def test_an_existing_folder_is_left_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        na_convert.check(*files, data=DATA, bisect=tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        na_convert.check(*files, data=DATA, bisect=tmp_path / "none" / "around")


def test_a_deep_network_is_bisected_by_its_spikes(tmp_path: Path) -> None:
    """Nothing is broken, yet a layer goes bad: both parts get what they got in the networks."""
    from .test_diagnosis import model_file

    ann, snn, folder = model_file(tmp_path, "quantised"), tmp_path / "snn.onnx", tmp_path / "around"
    na_convert.convert(ann, output=snn, check=False)
    found = na_convert.check(ann, snn, data={"x": DATA["x"]}, bisect=folder)
    assert found.equivalence is not None
    assert found.equivalence.diagnosis is not None
    assert repr(found.equivalence.diagnosis.first_bad) in found.notes[-1]
    assert gap_between_the_parts(folder) >= 0.39


# --- the selection of checks, and the helper for tests --------------------------------------------


def checks_made(result: Result) -> list[str]:
    assert result.equivalence is not None
    return list(dict.fromkeys(figure.check for figure in result.equivalence.figures))


def test_checks_are_selected_by_name(files: tuple[Path, Path]) -> None:
    found = na_convert.check(*files, data=DATA, checks=["replay", "round-trip"])
    assert checks_made(found) == ["replay", "round-trip"]
    assert found.equivalence is not None
    assert (found.equivalence.by_timestep, found.equivalence.energy) == ((), None)
    assert found.equivalence.engine_differences is None
    everything = na_convert.check(*files, data=DATA, min_agreement=0, timesteps=[2, 5])
    names = ["passes", "replay", "round-trip", "engines", "constant-current", "end-to-end"]
    assert checks_made(everything) == names
    assert everything.equivalence is not None
    assert [row.T for row in everything.equivalence.by_timestep] == [1, 2, 3, 4, 5]
    limited = [f.name for f in everything.equivalence.figures if f.check == "end-to-end"]
    assert limited == ["agreement at T=2", "agreement at T=5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checks": ["replays"]}, "--checks replays: no such check"),
        ({"checks": ["replay"], "max_drop": 0.1}, "need the check end-to-end"),
        ({"margin": 2.0}, "--margin 2: a fraction from 0 to 1"),
        ({"timesteps": [0]}, "at least one time step"),
    ],
)
def test_selections_that_cannot_be(files: tuple[Path, Path], options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        na_convert.check(*files, data=DATA, **options)


def test_a_helper_for_test_suites(files: tuple[Path, Path], tmp_path: Path) -> None:
    ann, snn = files
    found = assert_equivalent(ann, snn, DATA, checks=["replay", "engines"])
    assert found.passed
    model = onnx.load(snn)
    halve_threshold(model, onnx.load(ann))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(ann, broken, DATA, checks=["replay"])
    text = str(caught.value)
    assert "replay: " in text
    assert "  neuron parameters: 0.5, limit " in text
