"""The smallest T that reaches a target, with and without calibrated biases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import na_convert
from na_convert import conversion
from na_convert.cli import main
from na_convert.data import Samples
from na_convert.errors import CheckFailed, UsageError
from na_convert.results import Exactness
from na_convert.snn import Snn, neurons_from

from . import build
from .test_calibrate_bias import NETWORKS, images


@pytest.fixture
def model(tmp_path: Path) -> Path:
    body, weights, _ = NETWORKS["chain"]
    onnx.save(build.model(body, weights), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def data(labelled: bool = False) -> dict[str, np.ndarray]:
    x = images(40, (3, 8, 8))
    return {"x": x, "labels": np.arange(40) % 5} if labelled else {"x": x}


def agreements(model: Path, most: int) -> dict[int, float]:
    snn = na_convert.convert(model, timesteps=most).output
    assert snn is not None
    found = na_convert.check(model, snn.path, data=data(), timesteps=range(1, most + 1))
    assert found.equivalence is not None
    return {row.T: row.agreement for row in found.equivalence.by_timestep}


def test_the_smallest_t_that_reaches_the_agreement(model: Path) -> None:
    known = agreements(model, 8)
    target = sorted(set(known.values()))[1]
    wanted = min(t for t, agreement in known.items() if agreement >= target)
    result = na_convert.convert(model, data=data(), timesteps=8, target_agreement=target)
    assert result.timesteps == wanted
    assert any(note.startswith(f"T = {wanted} is the smallest, up to 8") for note in result.notes)
    assert result.output is not None
    file = onnx.load(result.output.path)
    (default,) = [i for i in file.graph.initializer if i.name == "timesteps"]
    assert onnx.numpy_helper.to_array(default) == wanted
    assert {p.key: p.value for p in file.metadata_props}["na_convert.timesteps"] == str(wanted)


def test_it_is_the_network_on_grids_that_reaches_the_target(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here grids would turn the weights round: no T is left, with biases calibrated or not."""

    def turned_round(network: Snn, samples: Samples) -> tuple[Snn, Exactness]:
        made, exactness = on_grids(network, samples)
        for tensor in made.graph.tensors().values():
            if isinstance(tensor, gs.Constant) and tensor.values.ndim > 1:
                tensor.values = -tensor.values
        return made, exactness

    on_grids = conversion._on_grids
    options = {"data": data(), "timesteps": 4, "target_agreement": 0.5, "check": False}
    na_convert.convert(model, **options)
    monkeypatch.setattr(conversion, "_on_grids", turned_round)
    for biases in (None, {"x": images(64, (3, 8, 8), seed=7)}):
        with pytest.raises(CheckFailed, match="no T up to 4"):
            na_convert.convert(model, **options, calibrate_bias=biases)
    na_convert.convert(model, **options, exact=False)


def test_every_t_is_tried_on_its_own_grids(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to `EXACT_TIMESTEPS` all have the same grids; beyond, sums are longer and grids coarser.

    Here those of every T but the largest turn the weights round, so that no other can win.
    """

    def turned_round(network: Snn, samples: Samples) -> tuple[Snn, Exactness]:
        made, exactness = on_grids(network, samples)
        if network.timesteps < 4:
            for tensor in made.graph.tensors().values():
                if isinstance(tensor, gs.Constant) and tensor.values.ndim > 1:
                    tensor.values = -tensor.values
        return made, exactness

    on_grids = conversion._on_grids
    known = agreements(model, 4)
    target = min(known[2], known[4])
    options = {"data": data(), "timesteps": 4, "target_agreement": target, "check": False}
    assert na_convert.convert(model, **options).timesteps < 4
    monkeypatch.setattr(conversion, "EXACT_TIMESTEPS", 1)
    monkeypatch.setattr(conversion, "_on_grids", turned_round)
    assert na_convert.convert(model, **options).timesteps == 4


def test_a_target_nothing_reaches_names_the_nearest(model: Path) -> None:
    known = agreements(model, 2)
    (model.parent / "model.snn.onnx").unlink()
    best = max(known, key=lambda t: known[t])
    with pytest.raises(CheckFailed) as failure:
        na_convert.convert(model, data=data(), timesteps=2, target_agreement=1.0)
    assert "no T up to 2 reaches agreement of at least 1" in str(failure.value)
    assert f"T = {best} with agreement {100 * known[best]:.1f} %" in str(failure.value)
    assert not (model.parent / "model.snn.onnx").exists()


def test_the_smallest_t_that_reaches_the_drop(model: Path) -> None:
    result = na_convert.convert(model, data=data(labelled=True), target_drop=1.0)
    assert result.timesteps == 1
    assert any("reaches drop of at most 1" in note for note in result.notes)


def test_both_targets_have_to_be_reached(model: Path) -> None:
    with pytest.raises(CheckFailed, match="agreement of at least 1 and drop of at most 1"):
        na_convert.convert(
            model, data=data(labelled=True), timesteps=1, target_agreement=1.0, target_drop=1.0
        )


def test_with_calibration_the_biases_are_those_of_the_chosen_t(model: Path) -> None:
    calibration = {"x": images(40, (3, 8, 8), seed=9)}
    most = 4
    wanted = {}
    for steps in range(1, most + 1):
        result = na_convert.convert(
            model, data=data(), timesteps=steps, calibrate_bias=calibration, check=True
        )
        rows = result.equivalence.by_timestep  # type: ignore[union-attr]
        wanted[steps] = next(row.agreement for row in rows if steps == row.T), result.neurons
    target = sorted({agreement for agreement, _ in wanted.values()})[-1]
    smallest = min(t for t, (agreement, _) in wanted.items() if agreement >= target)
    result = na_convert.convert(
        model, data=data(), timesteps=most, calibrate_bias=calibration, target_agreement=target
    )
    assert result.timesteps == smallest
    assert result.bias_calibration is not None
    assert result.bias_calibration.timesteps == smallest
    assert result.neurons == wanted[smallest][1]
    file = onnx.load(result.output.path)  # type: ignore[union-attr]
    assert neurons_from({p.key: p.value for p in file.metadata_props}) == result.neurons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_agreement": 0.9}, "--target-agreement needs --data"),
        ({"target_drop": 0.1, "data": data()}, "needs labels"),
        ({"target_agreement": 1.5, "data": data()}, "from 0 to 1"),
        ({"target_agreement": 0.5, "data": data(), "timesteps": 0}, "at least one time step"),
    ],
)
def test_targets_that_cannot_be_used(model: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        na_convert.convert(model, **options)


def test_command_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the summary, one line of error and `check` say."""
    path = model.parent / "images.npz"
    np.savez(path, **data())
    files = [str(model), "--data", str(path)]

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    code, out, err = run(*files, "-T", "2", "--target-agreement", "1")
    assert code == 1
    assert out == ""
    assert err.startswith("error: no T up to 2 reaches agreement of at least 1")
    assert err.count("\n") == 1
    code, out, _ = run(*files, "--target-agreement", "0.1")
    assert code == 0
    text = " ".join(out.split())
    assert "T = 1 is the smallest, up to 16, that reaches agreement of at least 0.1" in text
    code, out, _ = run(*files, "-T", "2", "--calibrate-bias", str(path))
    assert code == 0
    assert "Bias calibration at T = 2: 30 samples, 10 others decide" in " ".join(out.split())
    code, out, _ = run("check", str(model), str(model.parent / "model.snn.onnx"), *files[1:])
    assert code == 0
    assert "biases were calibrated at T = 2" in " ".join(out.split())
    code, _, err = run(*files, "--target-agreement", "often")
    assert code == 2
    assert "--target-agreement" in err
