"""``check`` on a NIR file, as the command line runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
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
    """Check, show the result, write the report; the exit code.

    ``given`` are the arguments of `check.check_readers`. Raises what that raises.
    """
    if report is not None and report.suffix.lower() in (".html", ".htm"):
        raise UsageError(f"--report {report}: of a NIR file there is a JSON report alone")
    from .check import check_readers, shortfall
    from .tables import summary, to_json

    with progress_bar(show=not quiet) as progress:
        result = check_readers(ann, nir_file, progress=progress, **given)
    if report is not None:
        write_json(report, to_json(result))
    if as_json:
        print_json(to_json(result))
    elif not quiet:
        summary(result, console_for(), verbose=verbose)
    error = shortfall(result)
    if error is None:
        return 0
    tell(error, verbose=verbose)
    return error.exit_code
