"""Memory of int8 files while they run, and of conversion as models grow.

    python benchmarks/memory.py run [--cases resnet18:32:8:16,resnet152:224:4:1]
    python benchmarks/memory.py convert [--sizes MB,MB,...] [--networks NAME,...]

``run``: each NETWORK:SIZE:T:BATCH of `na_convert.models` gets random weights, is converted to int8
with T fixed, and run three times in a process of its own: resident memory of the bare imports, with
the file loaded, and the peak, in MiB.

``convert``: seconds and peak memory above the bare imports as a multiple of the model's size, for
the networks at 224x224 and for chains of 3x3 convolutions of the given sizes in MB, converted
without verification (``--no-check``), each in a process of its own. Seconds per MB and the multiple
of the memory have to stay level.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import depth
import numpy as np
import onnx
from onnx import TensorProto, helper

CHANNELS = 1024  # of the chains: 38 MB a layer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "convert", "child"))
    parser.add_argument("--cases", default="resnet18:32:8:16,resnet152:224:4:1")
    parser.add_argument("--sizes", default="50,200,800,1500")
    parser.add_argument("--networks", default="resnet18,resnet50,resnet152")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "child":
            print(json.dumps(run_file(options.file, json.loads(options.shape))))
        elif options.what == "run":
            for case in options.cases.split(","):
                show_run(case, Path(folder))
        else:
            show_conversion(options, Path(folder))
    return 0


# --- int8 files while they run --------------------------------------------------------------------


def show_run(case: str, folder: Path) -> None:
    network, size, steps, batch = case.split(":")
    ann, snn = folder / f"{network}.onnx", folder / f"{network}.int8.onnx"
    depth.export(network, int(size), ann)
    command = ["convert", str(ann), "-o", str(snn), "--weights", "int8", "-T", steps]
    child([sys.executable, "-m", "na_convert", *command, "--no-check", "-q"])
    shape = [int(batch), 3, int(size), int(size)]
    found = json.loads(
        child([sys.executable, __file__, "child", "--file", str(snn), "--shape", str(shape)])
    )
    bare, loaded, peak = (found[key] / 2**20 for key in ("bare", "loaded", "peak"))
    print(
        f"{network} at {size}x{size}, T = {steps}, batch {batch}: file "
        f"{snn.stat().st_size / 2**20:.1f} MiB; {bare:.0f} bare, {loaded:.0f} loaded, "
        f"{peak:.0f} at the peak; {peak - loaded:.0f} more while it runs",
        flush=True,
    )


def run_file(path: Path, shape: list[int]) -> dict[str, int]:
    import onnxruntime

    bare = depth.peak_memory()
    session = onnxruntime.InferenceSession(str(path))
    loaded = depth.peak_memory()
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    for _ in range(3):
        session.run(None, {session.get_inputs()[0].name: x})
    return {"bare": bare, "loaded": loaded, "peak": depth.peak_memory()}


# --- conversion -----------------------------------------------------------------------------------


def show_conversion(options: argparse.Namespace, folder: Path) -> None:
    print("| model | MB | seconds | seconds / 100 MB | memory / model |")
    print("| --- | --- | --- | --- | --- |")
    for name in (n for n in options.networks.split(",") if n):
        path = folder / f"{name}.onnx"
        depth.export(name, 224, path)
        show_one(name, path, 224)
    for size in (int(s) for s in options.sizes.split(",") if s):
        path = folder / "chain.onnx"
        layers = max(1, round(size * 1e6 / (4 * 9 * CHANNELS**2)))
        chain(layers, path)
        show_one(f"chain of {layers}", path, 8)


def show_one(name: str, path: Path, size: int) -> None:
    found, megabytes = depth.measure(path, size, check=False), path.stat().st_size / 1e6
    print(
        f"| {name} | {megabytes:.0f} | {found['seconds']:.1f} | "
        f"{100 * found['seconds'] / megabytes:.1f} | {found['memory'] / 1e6 / megabytes:.2f} |",
        flush=True,
    )
    for made in path.parent.glob("*.onnx*"):
        made.unlink()


def chain(layers: int, path: Path) -> None:
    """`chain_model` with weights inside."""
    rng, model = np.random.default_rng(1), chain_model(layers)
    for i in range(layers):
        values = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32)
        values /= np.float32(np.sqrt(9 * CHANNELS))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, f"w{i}"))
    onnx.save(model, path)


def chain_model(layers: int) -> onnx.ModelProto:
    """A stem, then ``layers`` convolutions of `CHANNELS` with a 2-bit quantiser behind each, whose
    weights w0, w1, ... are still to be added."""
    rng = np.random.default_rng(0)
    weights = {"stem": rng.standard_normal((CHANNELS, 3, 3, 3), np.float32) / 5}
    weights |= {"step": np.float32(0.5), "low": np.float32(0), "high": np.float32(3)}
    nodes, given = [], "x"
    for i, weight in enumerate(("stem", *(f"w{i}" for i in range(layers)))):
        nodes += [
            helper.make_node("Conv", [given, weight], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Div", [f"c{i}", "step"], [f"d{i}"]),
            helper.make_node("Round", [f"d{i}"], [f"r{i}"]),
            helper.make_node("Clip", [f"r{i}", "low", "high"], [f"q{i}"]),
            helper.make_node("Mul", [f"q{i}", "step"], [f"a{i}"]),
        ]
        given = f"a{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [given], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CHANNELS, 1, 1])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def child(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
