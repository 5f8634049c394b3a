"""Convert a corpus of real exports in one of the forms that are not the default.

    python benchmarks/corpus_forms.py tests/corpus.tar.xz exact|int8|unrolled|step|unit|nir

Every file goes through the whole ladder, on its own data (for nir through the checks of the NIR
file). Counted are the files that pass, that
stay off the grids, that are refused, and, named, those that fail a check or end in an unexpected
error; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from corpus import unpack

from na_convert import convert
from na_convert.errors import CheckFailed, NaConvertError

FORMS: dict[str, dict[str, Any]] = {
    "exact": {"exact": True},
    "int8": {"weights": "int8"},
    "unrolled": {"form": "unrolled"},
    "step": {"form": "step"},
    "unit": {"unit_spikes": True},
    "nir": {"check": False},  # the NIR file is checked in any case
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("form", choices=FORMS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(unpack(options.corpus, Path(folder)).glob("*.onnx"))
        output = Path(folder) / ("out.nir" if options.form == "nir" else "out.snn.onnx")
        verdicts = Counter(judge(file, output, FORMS[options.form]) for file in files)
    for verdict, count in verdicts.most_common():
        print(f"{count:4} {verdict}")
    return int(any(verdict.startswith(("check failed", "defect")) for verdict in verdicts))


def judge(file: Path, output: Path, options: dict[str, Any]) -> str:
    data = file.with_suffix(".npz")
    try:
        result = convert(file, output=output, data=data, **options)
    except CheckFailed as error:
        return f"check failed: {file.name}: {error}"
    except NaConvertError:
        return "refused"
    except Exception as error:  # what a user would be shown as a defect
        return f"defect: {file.name}: {error!r}"
    return "passed" if not result.exactness or result.exactness.exact else "passed, off the grids"


if __name__ == "__main__":
    raise SystemExit(main())
