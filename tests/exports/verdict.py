"""What it means that an export converts: the neurons are those written, the ladder passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import na_convert
from na_convert.results import Result

Activations = list[tuple[list[float], int]]


def assert_converts(
    path: Path, folder: Path, shapes: list[tuple[int, ...]], activations: Activations
) -> None:
    """`activations`: steps and levels of each neuron layer, in any order."""
    neurons = converted(path, folder, shapes).neurons
    found = sorted((_steps(n.input_step), n.levels) for n in neurons)
    written = sorted((list(steps), levels) for steps, levels in activations)
    assert [levels for _, levels in found] == [levels for _, levels in written]
    for (got, _), (want, _) in zip(found, written, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for neuron in neurons:
        np.testing.assert_allclose(neuron.output_step, neuron.input_step, rtol=1e-6)


def converted(path: Path, folder: Path, shapes: list[tuple[int, ...]]) -> Result:
    """The result on four random samples; every figure of the ladder within its limit."""
    rng = np.random.default_rng(0)
    names = ["x", *(f"x{i}" for i in range(1, len(shapes)))]
    data = {
        name: rng.uniform(-0.5, 1.5, (4, *shape[1:])).astype(np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }
    result = na_convert.convert(path, output=folder / "snn.onnx", data=data)
    assert result.passed
    assert result.equivalence is not None
    assert result.equivalence.replay_mismatches == 0
    assert all(figure.passed for figure in result.equivalence.figures)
    return result


def _steps(step: float | list[float] | None) -> list[float]:
    return [float(value) for value in np.ravel(np.asarray(step, np.float64))]
