"""Convert deep networks: time, peak memory, and the ladder on random images.

    python benchmarks/depth.py [--networks resnet50,resnet101,resnet152] [--size 224] [--check]

Builds each network of `na_convert.models` with random weights and 2-bit activations, exports it
(BatchNorm kept), and converts it in a process of its own: seconds, and the peak of resident memory
above the bare imports as a multiple of the model's size. With ``--check`` the ladder then runs on
two random images at T = 4.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet50,resnet101,resnet152")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        print(json.dumps(convert(options.convert, options.check, options.size)))
        return 0
    failed = False
    print(f"{'network':12} {'MB':>6} {'seconds':>8} {'memory / model':>15}  {'ladder':8} seconds")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            path = Path(folder) / f"{name}.onnx"
            export(name, options.size, path)
            row = measure(path, options.size, check=False)
            checked = measure(path, options.size, check=True) if options.check else None
            failed |= bool(checked and not checked["passed"])
            ladder = ("passed" if checked["passed"] else "FAILED") if checked else "-"
            seconds = f"{checked['seconds']:.1f}" if checked else "-"
            print(
                f"{name:12} {path.stat().st_size / 1e6:6.1f} {row['seconds']:8.1f} "
                f"{row['memory'] / path.stat().st_size:15.2f}  {ladder:8} {seconds}",
                flush=True,
            )
    return 1 if failed else 0


def export(name: str, size: int, path: Path) -> None:
    import torch
    from na_convert.models import export_onnx, initialise_steps, networks, quantize

    torch.manual_seed(0)
    net = quantize(networks.build(name, 1000, shape=(3, size, size)), bits=2)
    initialise_steps(net, torch.randn(2, 3, size, size))
    export_onnx(net, (3, size, size), path)


def measure(path: Path, size: int, *, check: bool) -> dict[str, float]:
    """Convert in a fresh process; its report."""
    command = [sys.executable, __file__, "--convert", str(path), "--size", str(size)]
    done = subprocess.run(
        command + ["--check"] * check, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def convert(path: Path, check: bool, size: int) -> dict[str, float]:
    """Convert ``path`` here: seconds, peak memory above the bare imports in bytes, passed."""
    import numpy as np

    from na_convert import api

    bare = peak_memory()
    data = {"x": np.random.default_rng(0).standard_normal((2, 3, size, size), np.float32)}
    start = time.perf_counter()
    result = api.convert(
        path, output=path.with_suffix(".snn.onnx"), data=data, timesteps=4, check=check
    )
    return {
        "seconds": time.perf_counter() - start,
        "memory": peak_memory() - bare,
        "passed": result.passed and (not check or result.equivalence is not None),
    }


def peak_memory() -> int:
    """Of this process, in bytes (getrusage would carry over the parent's; Linux only)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    raise SystemExit(main())
