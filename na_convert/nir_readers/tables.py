"""What `check_readers` found, as tables in a terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..cells import percent, plain_table, shorten
from .check import Choices, ReadersResult, shortfall
from .compare import Comparison
from .readers import ADJUSTED, NAMES

_STYLE = {"identical": "green", "rounding": "green", "deviates": "red", "fails": "red"}


def summary(result: ReadersResult, console: Console, *, verbose: bool = False) -> None:
    """Print the readers side by side, then what each does otherwise, and where."""
    console.print(_overview(result))
    console.print()
    for each in result.comparisons:
        if each.layers and (verbose or each.verdict != "identical"):
            console.print(_layers(each))
            console.print()
    for each in result.comparisons:
        for line in (*_explanation(each), *_remedy(each)):
            console.print(Text(line))
    for name in result.missing:
        console.print(Text(f"{name}: not installed, not checked", style="dim"))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="dim"))
    style = "bold green" if result.passed else "bold red"
    outcome = "passed" if result.passed else "FAILED"
    count = len(result.comparisons)
    run = f"{count} reader{'s' if count > 1 else ''}, T = {result.timesteps}"
    console.print(Text(f"{result.nir}: {run}, {outcome}", style=style))


def to_json(result: ReadersResult) -> dict[str, Any]:
    """The JSON object of ``check ANN net.nir``; with ``error`` where the check did not pass."""
    entries: dict[str, Any] = {
        "tool": f"na-convert {__version__}",
        "nir": result.nir,
        "data": result.data,
        "samples": result.samples,
        "timesteps": result.timesteps,
        "ann_accuracy": result.ann_accuracy,
        "reference": asdict(result.reference),
        "readers": [
            _reader_json(each, choice)
            for each, choice in zip(result.comparisons, result.choices, strict=True)
        ],
        "missing": list(result.missing),
        "passed": result.passed,
    }
    error = shortfall(result)
    if error is not None:
        entries["error"] = {"message": error.message, "node": error.node, "remedy": error.remedy}
    return entries


def _reader_json(each: Comparison, choice: Choices | None) -> dict[str, Any]:
    return {
        "reader": each.reader,
        "version": each.version,
        "adjustments": list(each.adjustments),
        "verdict": each.verdict,
        "error": each.error,
        "causes": [asdict(cause) for cause in each.causes],
        "output_error": each.output_error,
        "agreement": choice and choice.agreement,
        "accuracy": choice and choice.accuracy,
        "layers": [asdict(layer) for layer in each.layers],
    }


def _overview(result: ReadersResult) -> Table:
    table = plain_table(f"{result.samples} samples of {result.data}, T = {result.timesteps}")
    for name in ("reader", "version", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("counts that differ", "as the ANN", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    known = result.ann_accuracy
    table.add_row("ANN", "", "", "", "", "-" if known is None else percent(known))
    table.add_row("reference", "", "", "", *_shares(result.reference))
    for each, choice in zip(result.comparisons, result.choices, strict=True):
        verdict = Text(each.verdict, style=_STYLE[each.verdict])
        table.add_row(each.reader, each.version, verdict, _differing(each), *_shares(choice))
    return table


def _shares(choice: Choices | None) -> tuple[str, str]:
    if choice is None:
        return "-", "-"
    accuracy = "-" if choice.accuracy is None else percent(choice.accuracy)
    return percent(choice.agreement), accuracy


def _differing(each: Comparison) -> str:
    if not each.layers:
        return "-"
    return f"{sum(x.differ for x in each.layers):,} of {sum(x.counts for x in each.layers):,}"


def _layers(each: Comparison) -> Table:
    table = plain_table(f"Layers in {each.reader} {each.version}")
    table.add_column("layer", no_wrap=True)
    names = ("counts", "differ", "not explained", "spikes", "ours", "own differ", "current error")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for x in each.layers:
        numbers = (x.counts, x.differ, x.unexplained, x.reader_spikes, x.spikes, x.own)
        listed = [f"{number:,}" for number in numbers]
        table.add_row(Text(shorten(x.layer, 24)), *listed, f"{x.current_error:.1e}")
    return table


def _explanation(each: Comparison) -> list[str]:
    name = f"{each.reader} {each.version}"
    if each.verdict == "fails":
        return [f"{name}: cannot run the file: {each.error}"]
    if each.verdict == "identical":
        said = f" with {'; '.join(each.adjustments)}" if each.adjustments else ""
        return [f"{name}: all counts and outputs are ours{said}"]
    if each.verdict == "rounding":
        moved = ", ".join(f"{x.rounded:,} in {x.layer!r}" for x in each.layers if x.rounded)
        return [f"{name}: neurons and currents are ours; float sums moved spikes: {moved}"]
    left = sum(layer.unexplained for layer in each.layers)
    lines = [f"{name}: {cause.what}{_alone(cause.alone)}" for cause in each.causes]
    lines.append(f"{name}: simulated with all of this, {left:,} counts differ from the reader's")
    return lines


def _remedy(each: Comparison) -> list[str]:
    if each.reader not in NAMES or each.verdict not in ("deviates", "fails"):
        return []
    name = f"{each.reader}:{ADJUSTED}"
    return [
        f"{each.reader} {each.version}: --reader {name} runs it with settings that make it ours"
    ]


def _alone(count: int) -> str:
    return f" (alone: {count:,} counts differ)" if count else ""
