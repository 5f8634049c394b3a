"""Install na-convert into fresh environments, and convert and check the example there.

    python benchmarks/fresh_install.py [--constraints constraints-oldest.txt] [PYTHON ...]

For each interpreter (this one by default): a new virtual environment in a temporary folder, the
project installed from this checkout, under the constraints if any are given; then the example is
converted in every form with all its checks, and each file checked on 60 images and simulated. The
tests do not run: they need torch and more. Printed are the versions that were installed and the
exit code of each command; the exit code is 1 where one failed or nothing could be installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.file_forms import FORMS, arguments  # noqa: E402

ANN, IMAGES = ROOT / "examples/resnet8-cifar10.onnx", ROOT / "examples/resnet8-cifar10.npz"
SHOWN = ("numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "protobuf", "rich", "typer")
VERSIONS = (
    "import sys; from importlib.metadata import version; "
    "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="*", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--constraints", type=Path)
    options = parser.parse_args()
    failures = 0
    for python in options.pythons:
        with tempfile.TemporaryDirectory() as folder:
            failures += tried(python, options.constraints, Path(folder))
    return int(failures > 0)


def tried(python: str, constraints: Path | None, folder: Path) -> int:
    """How many commands failed in a fresh environment of ``python``, each told as it ends."""
    print(ran([python, "--version"], folder).stdout.strip(), flush=True)
    ran([python, "-m", "venv", "venv"], folder).check_returncode()
    inside = folder / "venv/bin"
    limits = [] if constraints is None else ["-c", str(constraints.resolve())]
    done = ran([str(inside / "pip"), "install", "-q", *limits, str(ROOT)], folder)
    if done.returncode:
        print(f"  cannot be installed: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return 1
    print("  " + ran([str(inside / "python"), "-c", VERSIONS, *SHOWN], folder).stdout.strip())
    with np.load(IMAGES) as stored:
        np.savez(folder / "images.npz", **{name: stored[name][:60] for name in stored.files})
    failures = 0
    for name in FORMS:
        to = f"{name}.onnx"
        commands = {
            "convert": [str(ANN), "-o", to, *arguments(name)],
            "check": ["check", str(ANN), to, "--data", "images.npz"],
            "simulate": ["simulate", to, "--data", "images.npz", "-o", "out.npz"],
        }
        codes = {}
        for command, given in commands.items():
            done = ran([str(inside / "na-convert"), *given], folder)
            codes[command] = done.returncode
            if done.returncode:
                print(f"  {name}, {command}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        failures += sum(code != 0 for code in codes.values())
        print(f"  {name}: " + ", ".join(f"{c} {code}" for c, code in codes.items()), flush=True)
    return failures


def ran(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    raise SystemExit(main())
