"""Samples that stop when their readout is decided: the same decisions as from whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import api, cli, forms
from na_convert.errors import UsageError
from na_convert.simulation import simulate

from . import build, spiking
from .test_report import validate

T, COUNT = 8, 12


@pytest.fixture(scope="module", params=list(forms.FORMS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, snn = tmp_path_factory.mktemp("early"), spiking.max_pool()
    from dataclasses import replace

    model = forms.named(request.param).parts(replace(snn, timesteps=T)).whole()
    onnx.save(model, folder / "net.snn.onnx")
    x = build.images(COUNT)
    labels = simulate(snn, {"x": x}, T).outputs[T]["y"].argmax(1)
    np.savez(folder / "data.npz", x=x, labels=labels)
    return folder


def decided(folder: Path, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """From whole runs in numpy: the step at which each sample stops, and its class there."""
    x = np.load(folder / "data.npz")["x"]
    outputs = simulate(spiking.max_pool(), {"x": x}, T).outputs
    stack = np.stack([outputs[t]["y"] for t in range(1, T + 1)])
    ordered = np.sort(stack, axis=2)
    enough = ordered[:, :, -1] - ordered[:, :, -2] >= margin
    at = np.where(enough.any(axis=0), enough.argmax(axis=0), T - 1)
    return at + 1, stack.argmax(2)[at, np.arange(COUNT)]


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.05, 1e6])
def test_the_decisions_are_those_of_whole_runs(
    folder: Path, margin: float, batch: int | None
) -> None:
    result = na_convert.record(
        folder / "net.snn.onnx", data=folder / "data.npz", early_exit=margin, batch=batch
    )
    found, (at, classes) = result.early_exit, decided(folder, margin)
    assert found is not None
    assert found.stopped == tuple(np.bincount(at - 1, minlength=T))
    assert found.mean_timesteps == pytest.approx(at.mean())
    labels = np.load(folder / "data.npz")["labels"]
    assert found.accuracy == pytest.approx(np.mean(classes == labels))
    assert result.by_timestep[-1].accuracy == found.accuracy
    if margin == 0:
        assert found.stopped[0] == COUNT
    if margin == 1e6:
        assert found.stopped[-1] == COUNT


def test_some_samples_stop_earlier_than_others(folder: Path) -> None:
    at, _ = decided(folder, 0.02)
    assert len(set(at.tolist())) > 1


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["simulate", str(folder / "net.snn.onnx"), "--data", str(folder / "data.npz")]
    assert cli._run([*line, "--early-exit", "0.02", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    validate(found, "simulate")
    assert found["early_exit"]["margin"] == 0.02
    assert cli._run([*line, "--early-exit", "0.02"]) == 0
    assert "a sample takes" in capsys.readouterr().out
    assert cli._run([*line, "--early-exit", "-1"]) == 2
    assert "at least 0" in capsys.readouterr().err
    assert cli._run([*line, "--early-exit", "1,2"]) == 2


def test_nothing_can_be_written(folder: Path) -> None:
    with pytest.raises(UsageError, match="writes nothing"):
        api.record(
            folder / "net.snn.onnx", data=folder / "data.npz", early_exit=1.0,
            output=folder / "out.npz",
        )  # fmt: skip
