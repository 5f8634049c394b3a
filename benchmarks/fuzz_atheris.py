"""Coverage-guided fuzzing of the reader with atheris: what is read, and what is made of it.

    pip install atheris
    python benchmarks/fuzz_atheris.py FOLDER -max_total_time=3600 -timeout=10 -rss_limit_mb=2048

Options are libFuzzer's. An empty FOLDER is filled with the small network of the tests and its SNN
in every form. Bytes that begin with "S" are an SNN file for `simulate`, "N" an .npz, all others a
model for `inspect`. Whatever is raised beside the errors for users is a finding, and ends the run.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["na_convert"]):
    import na_convert
    from na_convert import api, array_files  # noqa: F401
    from na_convert.errors import NaConvertError, PassFailed
    from na_convert.simulator import Simulator

from tests import build  # noqa: E402
from tests.file_forms import FORMS  # noqa: E402

HERE = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
IMAGES = {"x": build.images(2)}


def one_input(content: bytes) -> None:
    kind, path = content[:1], HERE / "input"
    path.write_bytes(content[1:] if kind in (b"S", b"N") else content)
    with suppress(NaConvertError):
        try:
            if kind == b"S":
                Simulator(path, threads=1).run(IMAGES, 1)
            elif kind == b"N":
                array_files.read_npz(path)
            else:
                na_convert.inspect(path)
        except PassFailed as error:  # a defect, but one that is said in a line: seen, and counted
            print("defect:", error, file=sys.stderr)


def fill(folder: Path) -> None:
    """The first inputs, if there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    ann = folder / "ann"
    ann.write_bytes(build.low_bit_ann().SerializeToString())
    for name, options in FORMS.items():
        out = folder / f"snn-{name}"
        na_convert.convert(ann, output=out, timesteps=2, check=False, **options)
        out.write_bytes(b"S" + out.read_bytes())
    packed = io.BytesIO()
    np.savez_compressed(packed, x=build.images(1), labels=np.arange(1))
    (folder / "data").write_bytes(b"N" + packed.getvalue())


def main() -> None:
    warnings.simplefilter("ignore")
    folders = [a for a in sys.argv[1:] if not a.startswith("-")]
    if folders:
        fill(Path(folders[0]))
    atheris.Setup([*sys.argv, "-max_len=20000"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
