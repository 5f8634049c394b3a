"""What a command shows and leaves behind: summary, JSON, report, charts, one line for an error.

Heavy modules are imported inside the functions: see `cli`.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import (
    SEE_TABLE,
    CheckFailed,
    Interrupted,
    NaConvertError,
    NotConvertible,
    UsageError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from .result_json import Command
    from .results import Result

Progress: TypeAlias = Callable[[str, float], None]


def carry_out(
    command: Command,
    run: Callable[[Progress], Result],
    report: Path | None,
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    also: Callable[[Result | None, NaConvertError | None], None] = lambda result, error: None,
) -> int:
    """Run one command, show its result or the part measured before it failed; the exit code.

    ``also`` is told both, for outputs that only one command has.
    """
    from . import report as reports
    from . import result_json

    error: NaConvertError | None
    result: Result | None
    try:
        with progress_bar(show=not quiet) as progress:
            result = run(progress)
        error = reports.shortfall(result)
    except NaConvertError as found:
        error, result = found, found.result if isinstance(found, CheckFailed) else None
    except KeyboardInterrupt:
        error, result = Interrupted("stopped"), None
    entries = result_json.failure_json(error, command, result) if error else {}
    if result is not None and error is None:
        entries = result_json.to_json(result, command)
    if report is not None and _is_html(report):
        from .html_report import html_report
        from .whole_files import write_atomically

        write_atomically(report, html_report(result, command, error).encode())
    elif report is not None:
        write_json(report, entries)
    if as_json:
        print_json(entries)
    elif result is not None and not quiet:
        reports.summary(result, console_for(), verbose=verbose)
    also(result, error)
    if error is None:
        return 0
    if isinstance(error, NotConvertible):
        if result is None and not quiet:
            console_for(stderr=True).print(reports.refusals(error.refused))
        elif as_json or quiet:
            error = naming_one(error)
    tell(error, verbose=verbose)
    return error.exit_code


def naming_one(error: NotConvertible) -> NotConvertible:
    """``error`` with the first of its nodes, for where the table is not shown."""
    if not error.refused or error.remedy != SEE_TABLE:
        return error
    first, more = error.refused[0], len(error.refused) - 1
    remedy = f"{first.node!r} ({first.op}) {first.reason}: {first.remedy}"
    remedy += f"; and {more} more, listed without -q and in `refused` of --json" if more else ""
    told = copy(error)
    told.remedy = remedy
    return told


def plot(result: Result | None, folder: Path | None) -> None:
    if result is not None and folder is not None:
        from .plots import write_plots

        write_plots(result, folder)


def _is_html(report: Path | None) -> bool:
    return report is not None and report.suffix.lower() in (".html", ".htm")


def shown_layers(
    record: str | None, report: Path | None, plots: Path | None
) -> tuple[str, ...] | None:
    """The layers that report and plots are to show; None where there is neither."""
    if plots is not None:
        from .plots import require

        require(plots)
    if not _is_html(report) and plots is None:
        if record is not None:
            raise UsageError("--record needs a report to show it", remedy="--report FILE.html")
        return None
    return tuple(record.split(",")) if record else ()


def tell(error: NaConvertError, *, verbose: bool) -> None:
    """The error as one line on stderr, below its traceback if asked for."""
    if verbose:
        traceback.print_exception(error)
    print(f"error: {_one_line(str(error))}", file=sys.stderr)


_LONGEST = 1000  # characters of an error


def _one_line(text: str) -> str:
    """``text`` without line breaks, escape sequences and what no terminal can show."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def console_for(*, stderr: bool = False) -> Console:
    """At most 100 columns, and as many when the output is not a terminal."""
    from rich.console import Console

    from .report import WIDTH

    console = Console(stderr=stderr, highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    return console


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Progress]:
    """A progress bar on stderr while the block runs; silent where stderr is no terminal."""
    console = console_for(stderr=True)
    if not (show and console.is_terminal):
        yield lambda step, share: None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda step, share: bar.update(task, description=step, completed=share)


def print_json(entries: dict[str, Any]) -> None:
    print(json.dumps(entries, indent=2, allow_nan=False))


def write_json(path: Path, entries: dict[str, Any]) -> None:
    from .whole_files import write_atomically

    write_atomically(path, (json.dumps(entries, indent=2, allow_nan=False) + "\n").encode())
