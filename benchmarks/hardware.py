"""Run a corpus of real exports in C: ``python benchmarks/hardware.py tests/corpus.tar.xz``.

Each file that has an int8 form is converted, exported as a C header, compiled with
examples/c/reference.c and run on samples of its own; every count has to be that of its ONNX file in
onnxruntime. The exit code is 1 where one is not.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from corpus import unpack

from na_convert import convert, export_integers
from na_convert.errors import NaConvertError
from na_convert.forms.int8_file import restore
from na_convert.hardware.export import from_tensors
from na_convert.hardware.lowering import lower
from na_convert.integer_running import counts_in_onnxruntime
from na_convert.model_io import load
from na_convert.reading import samples_for

REFERENCE = Path(__file__).parent.parent / "examples/c/reference.c"
SAMPLES = 2
T = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    options = parser.parse_args()
    compared = 0
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(unpack(options.corpus, Path(folder)).glob("*.onnx")):
            verdict, counts = judge(file, Path(folder))
            verdicts[verdict] += 1
            compared += counts
    for verdict, count in verdicts.most_common():
        print(f"{count:4} {verdict}")
    print(f"{compared} counts compared")
    return int(any(verdict.startswith("differs") for verdict in verdicts))


def judge(file: Path, folder: Path) -> tuple[str, int]:
    """What became of one file, and how many counts were equal."""
    snn = folder / "net.snn.onnx"
    data = file.with_suffix(".npz")
    try:
        convert(file, output=snn, weights="int8", timesteps=T, data=data, check=False)
    except NaConvertError:
        return "no int8 form", 0
    try:
        export_integers(snn, folder / "network.h", data=data)
    except NaConvertError as error:
        return f"not exported: {file.name}: {error}", 0
    model = onnx.load(snn)
    network = restore(model)
    feeds = samples_for(load(snn), data, None).feeds
    few = {name: np.asarray(values[:SAMPLES]) for name, values in feeds.items()}
    wanted, analog = counts_in_onnxruntime(model, network, few)
    program = lower(network)
    currents = from_tensors(program, analog)
    binary = folder / "reference"
    subprocess.run(["cc", "-O1", f"-I{folder}", "-o", str(binary), str(REFERENCE)], check=True)
    line = [str(binary), str(T)]
    done = subprocess.run(line, input=currents.tobytes(), capture_output=True, check=True)
    parts = [wanted[e.name].reshape(T, len(currents), -1) for e in program.layers]
    expected = np.concatenate(parts, axis=2).swapaxes(0, 1)
    found = np.frombuffer(done.stdout, np.uint8)
    if not np.array_equal(found, expected.reshape(-1)):
        return f"differs: {file.name}", 0
    return "the same counts", expected.size


if __name__ == "__main__":
    raise SystemExit(main())
