"""The examples under examples/streaming: frames through a step file, in Python and JavaScript."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import Simulator
from na_convert.forms import read
from na_convert.simulation import simulate

ROOT = Path(__file__).parent.parent
STREAMING = ROOT / "examples/streaming"
MODULES = STREAMING / "node_modules"
T, N = 4, 2
TOLERANCE = 2e-5  # of logits up to about 10, in float32; counts are the same, being on grids


@pytest.fixture(scope="module")
def step_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streaming") / "net.step.onnx"
    example = ROOT / "examples/resnet8-cifar10.onnx"
    na_convert.convert(example, output=path, form="step", exact=True, timesteps=T, check=False)
    return path


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    """The same two images at every step, [T, N, 3, 32, 32]."""
    image = np.random.default_rng(0).normal(size=(N, 3, 32, 32)).astype(np.float32)
    return np.stack([image] * T)


@pytest.fixture(scope="module")
def simulated(step_file: Path, still: np.ndarray) -> np.ndarray:
    """[T, N, 10]: the logits after 1 .. T steps, by `simulate` in numpy."""
    outputs = simulate(read(onnx.load(step_file)), {"x": still[0]}, T).outputs
    return np.stack([outputs[t]["logits"] for t in range(1, T + 1)])


def run(*command: object, folder: Path) -> None:
    line = [str(part) for part in command]
    done = subprocess.run(
        line, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_python(step_file: Path, still: np.ndarray, simulated: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", still)
    run(sys.executable, STREAMING / "stream.py", step_file, "frames.npy", "out.npy",
        folder=tmp_path)  # fmt: skip
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, simulated, atol=TOLERANCE, rtol=0)
    assert np.abs(found[0] - found[-1]).max() > 0.1  # the state has gone from step to step


def test_python_with_frames_that_change(step_file: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(1).normal(size=(T, N, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "frames.npy", frames)
    run(sys.executable, STREAMING / "stream.py", step_file, "frames.npy", "out.npy",
        folder=tmp_path)  # fmt: skip
    simulator = Simulator(step_file)
    wanted = [simulator.step(frame)["logits"] for frame in frames]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("weights", ["float", "int8"])
def test_a_file_for_javascript_has_no_defaults(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "net.step.onnx"
    na_convert.convert(ROOT / "examples/resnet8-cifar10.onnx", output=path, form="step",
                       weights=weights, timesteps=T, check=False)  # fmt: skip
    run(sys.executable, STREAMING / "required_states.py", path, "js.onnx", "start.json",
        folder=tmp_path)  # fmt: skip
    graph = onnx.load(tmp_path / "js.onnx").graph
    states = json.loads((tmp_path / "start.json").read_text())
    assert {i.name for i in graph.input} == {"x", *states}
    assert not {i.name for i in graph.initializer} & set(states)
    assert {f"{name}_next" for name in states} == {o.name for o in graph.output} - {"logits"}
    assert states["steps"] == {"type": "int64", "dims": [], "data": [0]}


@pytest.mark.javascript
@pytest.mark.parametrize("library", ["onnxruntime-web", "onnxruntime-node"])
def test_javascript(
    library: str, step_file: Path, still: np.ndarray, simulated: np.ndarray, tmp_path: Path
) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    if not (MODULES / library).is_dir():
        pytest.skip(f"needs {library}: npm install --ignore-scripts in examples/streaming")
    run(sys.executable, STREAMING / "required_states.py", step_file, "js.onnx", "start.json",
        folder=tmp_path)  # fmt: skip
    frames = {"dims": list(still.shape[1:]), "frames": still.reshape(T, -1).tolist()}
    (tmp_path / "frames.json").write_text(json.dumps(frames))
    run("node", STREAMING / "stream.mjs", "js.onnx", "start.json", "frames.json", "out.json",
        library, folder=tmp_path)  # fmt: skip
    found = np.asarray(json.loads((tmp_path / "out.json").read_text())).reshape(T, N, 10)
    np.testing.assert_allclose(found, simulated, atol=TOLERANCE, rtol=0)
