"""NIR files: what is written, that it does what the SNN does, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from na_convert.passes import snap

import na_convert
from na_convert import forms
from na_convert.errors import ModelError
from na_convert.results import NirExport
from na_convert.simulation import numpy_engine
from na_convert.snn import Snn

from . import spiking

nir = pytest.importorskip("nir", reason="the package nir is not installed (extra nir)")
pytestmark = pytest.mark.nir


def snn_file(snn: Snn, folder: Path) -> Path:
    path = folder / "net.snn.onnx"
    onnx.save(forms.FORMS["folded"].parts(snn).whole(), path)
    return path


def exported(snn: Snn, folder: Path, **options: object) -> NirExport:
    feeds = spiking.samples(snn, 4)
    return na_convert.export(
        snn_file(snn, folder), output=folder / "net.nir", data=feeds, **options
    )


def on_grid(name: str) -> Snn:
    snn, found = snap.run(spiking.NETWORKS[name](), {"x": 4.0}, 8)
    assert found.exact
    return snn


def simulated(path: Path, x: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Spike counts by IF node of a sequential or residual graph, straight from the definition."""
    graph = nir.read(path)
    from na_convert.nir_file.reference import Reference

    reference = Reference(graph)
    runs = [reference.step(x) for _ in range(steps)]
    return {name: np.sum([r.spikes[name] for r in runs], axis=0) for name in runs[0].spikes}


@pytest.mark.parametrize("name", ["residual", "concat", "depthwise", "per_channel", "mlp"])
@pytest.mark.parametrize("timesteps", [1, 3, 8])
def test_a_network_on_grids_counts_the_same_spikes(
    name: str, timesteps: int, tmp_path: Path
) -> None:
    snn = on_grid(name)
    found = exported(snn, tmp_path, timesteps=timesteps)
    assert [f.name for f in found.figures] == ["NIR spikes", "NIR counts", "NIR outputs"]
    grid = float(nir.read(tmp_path / "net.nir").metadata["input_grid"])
    x = np.round(spiking.samples(snn, 4)["x"] / grid) * grid
    names = [layer.name for layer in found.layers]
    wanted = numpy_engine(snn, timesteps, names)({"x": x}).spikes
    counts = simulated(tmp_path / "net.nir", x, timesteps)
    for layer in found.layers:
        np.testing.assert_array_equal(
            counts[layer.node], np.count_nonzero(wanted[layer.name], axis=0)
        )


def test_neurons_have_unit_thresholds_in_full_shape(tmp_path: Path) -> None:
    found = exported(on_grid("residual"), tmp_path)
    nodes = nir.read(tmp_path / "net.nir").nodes
    for layer in found.layers:
        node = nodes[layer.node]
        assert type(node).__name__ == "IF"
        assert node.v_threshold.shape == node.r.shape == node.v_reset.shape == layer.shape
        assert np.all(node.v_threshold == 1)
        assert np.all(node.r == 1)
        assert not np.any(node.v_reset)
        assert node.metadata["initial_membrane"] == 0.5


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    snn = on_grid("residual")
    first = exported(snn, tmp_path).output.sha256
    assert exported(snn, tmp_path).output.sha256 == first


def test_a_nir_file_is_not_read_as_a_model(tmp_path: Path) -> None:
    exported(on_grid("mlp"), tmp_path)
    with pytest.raises(ModelError, match="writes NIR and reads ONNX"):
        na_convert.convert(tmp_path / "net.nir")
