"""Convert a network of more than 2 GB, whose weights are external data, and run the result.

    python benchmarks/huge.py [--layers 61] [--int8]

Writes a chain of 3x3 convolutions of 1,024 channels, 38 MB each, with a 2-bit quantiser behind
each, to a temporary folder (about 3 times its size is needed there), converts it in a process of
its own without verification, and runs one sample of the result in another, in onnxruntime and by
`simulate`. Prints seconds, the peak of resident memory above the bare imports as a multiple of the
model's size, and what was written; the exit code is 1 if the multiple is above 2.5, or the output
not finite or another.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import depth
import numpy as np
import onnx
from memory import CHANNELS, chain_model, child

MOST_MEMORY = 2.5  # times the model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=61)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--child", choices=("convert", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        made = options.child == "convert"
        print(json.dumps(convert(options.file, options.int8) if made else run(options.file)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return tried(Path(folder), options.layers, ["--int8"] * options.int8)


def tried(folder: Path, layers: int, arguments: list[str]) -> int:
    path = folder / "huge.onnx"
    write(layers, path)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"model: {size / 1e9:.2f} GB in {names(folder)}", flush=True)
    call = [sys.executable, __file__, *arguments, "--file"]
    made = json.loads(child([*call, str(path), "--child", "convert"]).splitlines()[-1])
    multiple = made["memory"] / size
    print(
        f"converted in {made['seconds']:.0f} s, memory {made['memory'] / 1e9:.2f} GB, "
        f"{multiple:.2f} times the model; {made['bytes'] / 1e9:.2f} GB in {names(folder)}",
        flush=True,
    )
    ran = json.loads(child([*call, str(path.with_suffix(".snn.onnx")), "--child", "run"]))
    print(
        f"onnxruntime loads and runs a sample in {ran['seconds']:.0f} s: "
        f"{ran['outputs']} outputs, {'finite' if ran['finite'] else 'NOT FINITE'}, "
        f"{'the same' if ran['simulated'] else 'OTHERS'} from `simulate`"
    )
    return int(multiple > MOST_MEMORY or not (ran["finite"] and ran["simulated"]))


def names(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.iterdir()))


def write(layers: int, path: Path) -> None:
    """The chain; its weights are one drawn layer, rolled, so that they are made in seconds."""
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


def convert(path: Path, int8: bool) -> dict[str, float]:
    from na_convert import api

    bare = depth.peak_memory()
    data = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)}
    start = time.perf_counter()
    result = api.convert(
        path,
        output=path.with_suffix(".snn.onnx"),
        data=data,
        timesteps=2,
        check=False,
        weights="int8" if int8 else "float",
    )
    assert result.output is not None
    return {
        "seconds": time.perf_counter() - start,
        "memory": depth.peak_memory() - bare,
        "bytes": result.output.bytes,
    }


def run(path: Path) -> dict[str, float]:
    import onnxruntime

    import na_convert

    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)
    (y,) = session.run(None, {"x": x})
    seconds = time.perf_counter() - start
    del session
    simulated = na_convert.simulate(path, data={"x": x}).outputs
    return {
        "seconds": seconds,
        "outputs": y.size,
        "finite": bool(np.isfinite(y).all()),
        "simulated": bool(np.array_equal(simulated[max(simulated)]["y"], y)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
