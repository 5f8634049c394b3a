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

ROOT = Path(__file__).parent.parent
FORMS = {
    "folded": ["--no-exact"],
    "exact": ["--exact"],
    "unrolled": ["--form", "unrolled"],
    "step": ["--form", "step"],
    "int8": ["--weights", "int8"],
    "calibrated": ["--calibrate-bias", "data.npz"],
}
# One process makes every form: the surroundings are what differs, not how often Python starts.
PROGRAM = """
import sys
from na_convert import cli
for name, *options in (line.split() for line in sys.argv[2:]):
    try:
        cli.main([sys.argv[1] + "/ann.onnx", "-o", name + ".onnx", "-q", "--no-check", "-T", "2",
                  *(sys.argv[1] + "/" + o if o.endswith(".npz") else o for o in options)])
    except SystemExit as stopped:
        assert not stopped.code, name
"""


def digests(there: str, folder: Path, **environment: str) -> dict[str, str]:
    """Of each form, made in ``folder`` of the ANN that lies ``there``."""
    folder.mkdir()
    forms = [f"{name} {' '.join(options)}" for name, options in FORMS.items()]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, there, *forms],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=True,
    )
    return {n: hashlib.sha256((folder / f"{n}.onnx").read_bytes()).hexdigest() for n in FORMS}


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    (tmp_path / "ann.onnx").write_bytes(build.low_bit_ann().SerializeToString())
    np.savez(tmp_path / "data.npz", x=build.images(24))
    return tmp_path


def test_same_bytes_whatever_surrounds_the_run(networks: Path) -> None:
    first = digests(str(networks), networks / "a", PYTHONHASHSEED="0", OMP_NUM_THREADS="1")
    second = digests(
        "..", networks / "b", PYTHONHASHSEED="12345", OMP_NUM_THREADS="2", TZ="Asia/Tokyo",
        LC_ALL="C", OPENBLAS_NUM_THREADS="2", MKL_NUM_THREADS="2",
    )  # fmt: skip
    assert first == second
    assert len(set(first.values())) == len(FORMS)
