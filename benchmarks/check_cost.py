"""What `check` costs beside running the two bare networks in onnxruntime: time and peak memory.

    python benchmarks/check_cost.py IMAGES [--count 10000] [-T 8] [--ann ANN.onnx]

IMAGES is CIFAR-10 in one of the layouts that na_convert.models.data reads (its test set is taken).
In processes of their own: the ANN once and the SNN once at T over the images, in batches of the
same size, with nothing kept but the classes; and ``na_convert.check`` with every T up to T, reading
and converting the ANN and the whole ladder included. Printed: seconds on the clock and of all cores
(which tell more on a machine that others use too), peak resident memory (Linux: VmHWM), and the
ratios of the times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BATCH = 36  # what check takes for this network: as many samples as fit into its 256 MB


def bare(ann: Path, snn: Path, data: Path, timesteps: int) -> dict[str, float]:
    """Both networks over the images, as fast as onnxruntime is: no figure but the classes."""
    import onnx

    from na_convert.runtime import session

    with np.load(data) as stored:
        pixels = stored["x"]
    runners = [session(onnx.load(path)) for path in (ann, snn)]
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(3, 1, 1)
    std = np.array([0.247, 0.2435, 0.2616], np.float32).reshape(3, 1, 1)
    start, classes = clock(), []
    for at in range(0, len(pixels), BATCH):
        x = ((pixels[at : at + BATCH] / np.float32(255)) - mean) / std
        for runner, more in zip(runners, ({}, {"timesteps": np.array(timesteps)}), strict=True):
            (y,) = runner.run(None, {runner.get_inputs()[0].name: x, **more})
            classes.append(y.argmax(1))
    return {**since(start), "agreement": agreement(classes)}


def agreement(classes: list[np.ndarray]) -> float:
    pairs = zip(classes[::2], classes[1::2], strict=True)
    return float(np.mean(np.concatenate([a == b for a, b in pairs])))


def check(ann: Path, snn: Path, data: Path, timesteps: int) -> dict[str, float]:
    import na_convert

    start = clock()
    found = na_convert.check(ann, snn, data=data, timesteps=[timesteps]).equivalence
    assert found is not None
    row = found.by_timestep[-1]
    return {**since(start), "agreement": row.agreement}


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    now = clock()
    return {"seconds": now[0] - start[0], "cores": now[1] - start[1]}


def peak_gib() -> float:
    """Of this process alone: what getrusage says includes its parent's, from before the exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def measured(what: str, *arguments: object) -> dict[str, float]:
    """``what`` in a process of its own, whose peak memory is its own too."""
    command = [sys.executable, __file__, "--only", what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def images(source: Path, count: int, target: Path) -> None:
    from na_convert.models.data import load

    test = load("cifar10", source).test
    np.savez(target, x=test.images[:count].numpy(), labels=test.labels[:count].numpy())


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        what, ann, snn, data, timesteps = sys.argv[2:]
        function = {"bare": bare, "check": check}[what]
        found = function(Path(ann), Path(snn), Path(data), int(timesteps))
        print(json.dumps({**found, "GiB": peak_gib()}))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("-T", "--timesteps", type=int, default=8)
    parser.add_argument("--ann", type=Path, default=ROOT / "examples/resnet8-cifar10.onnx")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, snn = Path(folder) / "images.npz", Path(folder) / "snn.onnx"
        images(options.images, options.count, data)
        convert = [sys.executable, "-m", "na_convert", str(options.ann), "-o", str(snn)]
        subprocess.run([*convert, "--no-check", "-q"], check=True, cwd=ROOT)
        given = (options.ann.resolve(), snn, data, options.timesteps)
        plain, whole = measured("bare", *given), measured("check", *given)
    for name, found in (("bare ANN and SNN", plain), ("check", whole)):
        print(
            f"{name:<18} {found['seconds']:8.1f} s, {found['cores']:8.1f} s of all cores, "
            f"{found['GiB']:.2f} GiB peak, agreement {found['agreement']:.4f}"
        )
    for name in ("seconds", "cores"):
        print(f"check over bare, {name}: {whole[name] / plain[name]:.2f}")


if __name__ == "__main__":
    main()
