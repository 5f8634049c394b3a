"""Same input, same options: same bytes, in any process, folder and number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import build
from .file_forms import FORMS, arguments

ROOT = Path(__file__).parent.parent
WAYS = {
    **{name.replace(" ", "-"): arguments(name) for name in FORMS},
    "calibrated": ["--calibrate-bias", "data.npz"],
    "tuned": ["--target-agreement", "0.5", "--data", "data.npz"],
}
# One process makes every form: the surroundings are what differs, not how often Python starts.
PROGRAM = """
import sys
import onnxruntime
from na_convert import cli
made = onnxruntime.InferenceSession
def session(source, options, **given):
    options.intra_op_num_threads = options.intra_op_num_threads or int(sys.argv[2])
    return made(source, options, **given)
onnxruntime.InferenceSession = session
for name, *options in (line.split() for line in sys.argv[3:]):
    try:
        cli.main([sys.argv[1] + "/ann.onnx", "-o", name + ".onnx", "-q", "--no-check", "-T", "2",
                  *(sys.argv[1] + "/" + o if o.endswith(".npz") else o for o in options)])
    except SystemExit as stopped:
        assert not stopped.code, name
"""


def digests(there: str, folder: Path, *, threads: int, **environment: str) -> dict[str, str]:
    """Of each file, made in ``folder`` of the ANN that lies ``there``; onnxruntime has
    ``threads``."""
    folder.mkdir()
    ways = [f"{name} {' '.join(options)}" for name, options in WAYS.items()]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, there, str(threads), *ways],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=True,
    )
    return {n: hashlib.sha256((folder / f"{n}.onnx").read_bytes()).hexdigest() for n in WAYS}


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    (tmp_path / "ann.onnx").write_bytes(build.low_bit_ann().SerializeToString())
    np.savez(tmp_path / "data.npz", x=build.images(24))
    return tmp_path


def test_same_bytes_whatever_surrounds_the_run(networks: Path) -> None:
    """The folder and its name, absolute or relative paths, threads, hashes, zone and language."""
    first = digests(
        str(networks), networks / "a", threads=1, PYTHONHASHSEED="0", OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )  # fmt: skip
    second = digests(
        "..", networks / "a folder", threads=2, PYTHONHASHSEED="12345", OMP_NUM_THREADS="2",
        OPENBLAS_NUM_THREADS="2", TZ="Asia/Tokyo", LC_ALL="C",
    )  # fmt: skip
    assert first == second
    assert len(set(first.values())) == len(WAYS)
