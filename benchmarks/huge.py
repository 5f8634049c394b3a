"""Convert a network of more than 2 GB, whose weights are external data, check and run the result.

    python benchmarks/huge.py [--layers 61] [--modes convert,int8,...] [--folder DIR]

Writes a chain of 3x3 convolutions of 1,024 channels, 38 MB each, with a 2-bit quantiser behind
each, to a temporary folder (in DIR; about 3 times its size is needed there), and does each of the
modes with it, in a process of its own, on two samples (bias: eight):

    convert    to float, without verification; onnxruntime and `simulate` run the file then
    verified   the same with verification
    int8       to int8, without verification; onnxruntime and `simulate` run the file then
    bias       with --calibrate-bias
    target     with --target-agreement
    calibrate  of a chain with plain ReLUs in place of the quantisers, --calibrate
    inspect    the ANN
    check      the converted file (made first if it is not there)
    bisect     the converted file with one threshold changed, --bisect
    check-int8, simulate

Prints seconds and the peak of resident memory above the bare imports as a multiple of the model's
size; the exit code is 1 if that is above 2.5 in a conversion, or something found is not as it has
to be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import depth
import numpy as np
import onnx
from memory import CHANNELS, chain_model, child

MOST_MEMORY = 2.5  # times the model, of a conversion
LIMITED = ("convert", "verified", "int8", "bias", "target", "calibrate")
Found = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=61)
    parser.add_argument("--modes", default="convert", help=", ".join(MODES))
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--child", choices=(*MODES, *RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured({**MODES, **RUNS}[options.child], options.file)))
        return 0
    modes = options.modes.split(",")
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        parser.error(f"--modes {unknown[0]}: one of {', '.join(MODES)} is needed")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "huge.onnx"
        write(options.layers, path, relu="calibrate" in modes)
        passed = [tried(mode, path) for mode in modes]
    return int(not all(passed))


def tried(mode: str, path: Path) -> bool:
    """Do ``mode`` in a process of its own, and say what was found; whether that is right."""
    size = sum(path.with_name(f"{path.name}{end}").stat().st_size for end in ("", ".data"))
    for needed, name in (("convert", ".snn.onnx"), ("int8", ".int8.onnx")):
        if NEEDS.get(mode) == needed and not path.with_suffix(name).is_file():
            in_child(needed, path)
    found = in_child(mode, path)
    memory = found.pop("memory")
    passed = bool(found.pop("passed", True))
    print(
        f"{mode}: {found.pop('seconds'):.0f} s, memory {memory / 1e9:.2f} GB, "
        f"{memory / size:.2f} times the model of {size / 1e9:.2f} GB; {found or ''}",
        flush=True,
    )
    if mode in ("convert", "int8"):
        ran = in_child("run" if mode == "convert" else "run-int8", path)
        passed &= ran.pop("passed")
        print(f"  onnxruntime runs it: {ran}; passed: {passed}", flush=True)
    return passed and not (mode in LIMITED and memory / size > MOST_MEMORY)


def in_child(mode: str, path: Path) -> Found:
    call = [sys.executable, __file__, "--child", mode, "--file", str(path)]
    found: Found = json.loads(child(call).splitlines()[-1])
    return found


def measured(mode: Callable[[Path], Found], path: Path) -> Found:
    import na_convert  # noqa: F401
    from na_convert import api  # noqa: F401

    bare = depth.peak_memory()
    start = time.perf_counter()
    found = mode(path)
    return {
        "seconds": time.perf_counter() - start,
        "memory": depth.peak_memory() - bare,
        **found,
    }


# --- the model ------------------------------------------------------------------------------------


def write(layers: int, path: Path, *, relu: bool) -> None:
    """The chain; its weights are one drawn layer, rolled, so that they are made in seconds.

    ``relu``: another beside it, ``relu.onnx``, on the same data.
    """
    drawn = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32)
    drawn /= np.float32(np.sqrt(9 * CHANNELS))
    data = path.with_name(f"{path.name}.data")
    model = chain_model(layers)
    with data.open("wb") as file:
        for k in range(layers):
            tensor = model.graph.initializer.add(
                name=f"w{k}", data_type=onnx.TensorProto.FLOAT, dims=drawn.shape
            )
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": data.name, "offset": file.tell(), "length": drawn.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(np.roll(drawn, 7 * k + 1).tobytes())
    onnx.save(model, path)
    if relu:
        for node in [n for n in model.graph.node if n.op_type in ("Div", "Round", "Clip", "Mul")]:
            if node.op_type == "Mul":
                name = node.output[0].removeprefix("a")
                node.op_type, node.input[:] = "Relu", [f"c{name}"]
            else:
                model.graph.node.remove(node)
        onnx.save(model, path.with_name("relu.onnx"))


def samples(count: int = 2) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal((count, 3, 8, 8), np.float32)}


# --- what is done with it -------------------------------------------------------------------------


def converted(path: Path, name: str = ".snn.onnx", **options: Any) -> Found:
    from na_convert import api

    output = path.with_suffix(name)
    given = {"timesteps": 2, "check": False, "data": samples(), **options}
    result = api.convert(path, output=output, **given)
    assert result.output is not None
    return {"wrote": f"{result.output.bytes / 1e9:.2f} GB", "passed": result.passed}


def once(path: Path, **options: Any) -> Found:
    """`converted`, and the file removed: it would take the space of the model again."""
    found = converted(path, ".once.onnx", **options)
    for file in path.parent.glob("*.once.onnx*"):
        file.unlink()
    return found


def inspected(path: Path) -> Found:
    from na_convert import api

    result = api.inspect(path)
    return {"neuron layers": len(result.neurons), "passed": result.passed}


def checked(path: Path, name: str = ".snn.onnx") -> Found:
    from na_convert import api

    result = api.check(path, path.with_suffix(name), data=samples())
    return {"figures": len(result.equivalence.figures), "passed": result.passed}


def bisected(path: Path) -> Found:
    """With one threshold in the middle of the file changed."""
    from na_convert import api
    from na_convert.errors import CheckFailed

    damaged = path.with_suffix(".damaged.onnx")
    model = onnx.load(path.with_suffix(".snn.onnx"), load_external_data=False)
    neurons = [n for n in model.graph.node if n.op_type == "IF"]
    node = neurons[len(neurons) // 2]
    next(a for a in node.attribute if a.name == "threshold").f *= 1.5
    onnx.save(model, damaged)
    folder = path.parent / "bisected"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        api.check(path, damaged, data=samples(), bisect=folder)
    except CheckFailed as error:
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        right = error.node == node.name
        return {"error": str(error)[:120], "files": sizes, "passed": right and len(sizes) == 4}
    return {"passed": False}


def simulated(path: Path) -> Found:
    from na_convert import api

    found = api.record(path.with_suffix(".snn.onnx"), data=samples())
    return {"samples": found.samples, "passed": True}


def run(path: Path, name: str = ".snn.onnx") -> Found:
    """In onnxruntime as it is, and by `simulate`."""
    import onnxruntime

    import na_convert

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path.with_suffix(name)), options)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)
    (y,) = session.run(None, {"x": x})
    del session
    outputs = na_convert.simulate(path.with_suffix(name), data={"x": x}).outputs
    finite = bool(np.isfinite(y).all())
    same = bool(np.array_equal(outputs[max(outputs)]["y"], y))
    return {"finite": finite, "as by simulate": same, "passed": finite and same}


NEEDS = {"check": "convert", "bisect": "convert", "simulate": "convert", "check-int8": "int8"}
MODES: dict[str, Callable[[Path], Found]] = {
    "convert": converted,
    "verified": lambda path: once(path, check=True),
    "int8": lambda path: converted(path, ".int8.onnx", weights="int8"),
    "bias": lambda path: once(path, calibrate_bias=samples(8)),
    "target": lambda path: once(path, target_agreement=0.0),
    "calibrate": lambda path: once(path.with_name("relu.onnx"), calibrate=samples()),
    "inspect": inspected,
    "check": checked,
    "bisect": bisected,
    "simulate": simulated,
    "check-int8": lambda path: checked(path, ".int8.onnx"),
}
RUNS: dict[str, Callable[[Path], Found]] = {
    "run": run,
    "run-int8": lambda path: run(path, ".int8.onnx"),
}


if __name__ == "__main__":
    raise SystemExit(main())
