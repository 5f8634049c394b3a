"""``check`` on a NIR file, as the command line runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Interrupted, NaConvertError, UsageError
from ..outcome import console_for, print_json, progress_bar, tell, write_json


def run_check(
    ann: Path,
    nir_file: Path,
    given: Mapping[str, Any],
    *,
    report: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Check, show the result or the error, write the report of either; the exit code.

    ``given`` are the arguments of `check.check_readers`.
    """
    if report is not None and report.suffix.lower() in (".html", ".htm"):
        raise UsageError(f"--report {report}: of a NIR file there is a JSON report alone")
    from ..result_json import failure_json
    from .check import ReadersResult, check_readers, shortfall
    from .tables import summary, to_json

    error: NaConvertError | None
    result: ReadersResult | None
    try:
        with progress_bar(show=not quiet) as progress:
            result = check_readers(ann, nir_file, progress=progress, **given)
        error = shortfall(result)
    except NaConvertError as found:
        error, result = found, None
    except KeyboardInterrupt:
        error, result = Interrupted("stopped"), None
    entries = to_json(result) if result else failure_json(error, "check") if error else {}
    if report is not None:
        write_json(report, entries)
    if as_json:
        print_json(entries)
    elif result is not None and not quiet:
        summary(result, console_for(), verbose=verbose)
    if error is None:
        return 0
    tell(error, verbose=verbose)
    return error.exit_code
