"""The reproduction, small: from training to the report, on digits, by the same scripts."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from na_convert.models import cli as train_cli
from typer.testing import CliRunner

pytest.importorskip("sklearn")

_ROOT = Path(__file__).parent.parent
_TOML = """
name = "digits-tiny"
data = "digits"
[network]
name = "resnet8"
widths = [4, 8, 8]
[float]
epochs = 8
peak_rate = 0.1
[quantised]
epochs = 4
peak_rate = 0.05
[quantiser]
noise = 0.5
[training]
batch = 64
padding = 1
flip = false
precision = "float32"
[report]
images = 40
timesteps = [1, 4]
"""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one network and its four arms."""
    folder = tmp_path_factory.mktemp("reproduction")
    recipe, run = folder / "tiny.toml", folder / "runs" / "s0-b2-n0.5"
    recipe.write_text(_TOML)
    trained = CliRunner().invoke(train_cli.app, [str(recipe), "--out", str(run)])
    assert trained.exit_code == 0, trained.stderr
    runs, tuned, results = folder / "runs", folder / "tuned", folder / "results"
    script("reproduction_runs").main([str(runs), str(tuned), "--epochs", "4", "--until", "00:00"])
    evaluate = script("reproduction_evaluate")
    given = [str(runs), str(tuned), str(results / "reproduction"), "--long-images", "40"]
    evaluate.main(given)
    evaluate.main(given)  # everything is there: nothing to do
    return results


def entries(results: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(p.read_text()) for p in (results / "reproduction").glob("*.json")]
    return {entry["arm"]: entry for entry in found}


def agreement(entry: dict[str, Any], timesteps: int) -> float:
    return next(row["agreement"] for row in entry["by_timestep"] if row["T"] == timesteps)


def test_the_loop_agrees_at_least_as_well_as_plain(results: Path) -> None:
    arms = entries(results)
    assert set(arms) == {"plain", "bias", "loop", "control"}
    for T in (1, 2):
        assert agreement(arms["loop"], T) >= agreement(arms["plain"], T)
    for entry in arms.values():
        assert [row["T"] for row in entry["by_timestep"]] == [1, 2, 3, 4, 6, 8, 16, 32]
        assert entry["layers"]["3"][0]["unevenness"] == 0
        assert entry["original_ann_accuracy"] == arms["plain"]["ann_accuracy"]
    assert arms["bias"]["calibration"] == "512 training images"
    assert arms["loop"]["epochs"] == arms["control"]["epochs"] == [8, 4, 4]


def test_the_report_is_written_from_the_results(results: Path) -> None:
    pytest.importorskip("matplotlib")
    reproduction = script("reproduction")
    report = results / "report.md"
    reproduction.main([str(results), str(report)])
    text = report.read_text()
    row = entries(results)["loop"]["by_timestep"][1]
    assert f"| {100 * row['snn_accuracy']:.1f} |" in text
    for heading in ("ANN as trained", "neuron", "calibration", "epochs", "T = 32", "layer 7"):
        assert heading in text
    images = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(images) == 2
    before = [(results / image).read_bytes() for image in images]
    reproduction.main([str(results), str(report)])
    assert report.read_text() == text
    assert [(results / image).read_bytes() for image in images] == before


def test_without_results_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="holds no results"):
        script("reproduction").main([str(tmp_path), str(tmp_path / "report.md")])
    assert not (tmp_path / "report.md").exists()


def test_the_published_report_is_that_of_the_results(tmp_path: Path) -> None:
    """Every number of docs/reproduction.md is in the files it is generated from."""
    pytest.importorskip("matplotlib")
    report = tmp_path / "reproduction.md"
    script("reproduction").main([str(_ROOT / "docs" / "results"), str(report)])
    assert report.read_text() == (_ROOT / "docs" / "reproduction.md").read_text()


def test_static_means_are_measured_beside_the_fold(results: Path) -> None:
    run, found = results.parent / "runs" / "s0-b2-n0.5", results.parent / "static.json"
    options = ["-T", "2", "--epochs", "30", "--fit-images", "512"]
    script("static_means").main([str(run), str(found), *options])
    rows = {row["means"]: row for row in json.loads(found.read_text())["rows"]}
    assert list(rows) == [
        "none", "bias fold", "biases by gradient", "thresholds per channel", "readout weights",
    ]  # fmt: skip
    assert rows["biases by gradient"]["kl"] < rows["none"]["kl"]
    assert rows["bias fold"]["difference"] == 0
