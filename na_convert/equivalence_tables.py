"""What was measured of an SNN beside its ANN, as tables: accuracy, energy, errors, classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from rich.table import Table
from rich.text import Text

from .cells import joules, large, number, percent, plain_table, shorten
from .results import (
    ClassResult,
    Energy,
    Equivalence,
    ErrorSplit,
    Interval,
    LayerResult,
    TimestepResult,
)

_ROWS_SHOWN = 8


def equivalence_tables(found: Equivalence, *, verbose: bool = False) -> Iterator[Table]:
    """Accuracy over T and energy; with ``verbose`` the errors by layer, and the classes."""
    if found.by_timestep:
        yield _by_timestep(found)
    if verbose and any(layer.error for layer in found.layers):
        yield _errors(found)
    if verbose and found.by_class:
        yield _classes(found.by_class, found.timesteps)
    if found.energy is not None:
        yield _energy(found.energy)


def diagnosis_lines(found: Equivalence | None, *, verbose: bool = False) -> list[str]:
    """What is wrong and what may help, in a line; with ``verbose`` also what is not known."""
    said = found.diagnosis if found is not None else None
    if found is None or said is None:
        return []
    lines = []
    if said.first_bad is not None:
        error = next(x.relative_error for x in found.layers if x.name == said.first_bad)
        size = "not finite"
        if error is not None and isfinite(error):
            size = f"{percent(error)} of what it says"
        cause = f", by {said.cause}" if said.cause else ""
        lines.append(
            f"first bad layer: {said.first_bad} (error {size}, at T = {found.timesteps}){cause}"
        )
    if said.advice:
        lines.append(f"advice: {said.advice}")
    if verbose:
        lines += [f"not known: {entry}" for entry in said.unknown]
    return lines


def _by_timestep(found: Equivalence) -> Table:
    table = plain_table(f"{found.samples} samples of {found.data}")
    table.expand = False
    table.add_column("T", justify="right")
    labelled = any(entry.ann_accuracy is not None for entry in found.by_timestep)
    if labelled:
        for name in ("ANN accuracy", "SNN accuracy", "drop"):
            table.add_column(name, justify="right", no_wrap=True)
    for name in ("agreement", "logit RMSE"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in _shown(found.by_timestep):
        row = [str(entry.T)]
        if labelled:
            row += [
                _share(entry.ann_accuracy, entry.ann_interval),
                _share(entry.snn_accuracy, entry.snn_interval),
                "-" if entry.drop is None else percent(entry.drop),
            ]
        agreement = _share(entry.agreement, entry.agreement_interval)
        table.add_row(*row, agreement, number(entry.logit_rmse))
    return table


def _shown(rows: Sequence[TimestepResult]) -> list[TimestepResult]:
    """All of few T; of many the powers of two, and the last."""
    if len(rows) <= _ROWS_SHOWN:
        return list(rows)
    return [row for row in rows if row.T & (row.T - 1) == 0 or row is rows[-1]]


def _share(value: float | None, interval: Interval | None) -> str:
    """With half the width of its 95 % interval, where there is one."""
    if value is None:
        return "-"
    if interval is None:
        return percent(value)
    return f"{100 * value:.1f} ± {50 * (interval[1] - interval[0]):.1f} %"


def _energy(energy: Energy) -> Table:
    table = plain_table(
        f"Arithmetic per sample: {energy.mac_pj:g} pJ a MAC, {energy.ac_pj:g} pJ an accumulate "
        f"({energy.source})"
    )
    table.expand = False
    table.add_column("")
    for name in ("MACs", "accumulates", "energy", "of float"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    whole = energy.ann_nj or 1.0
    steps = f"{energy.latency_steps} (pipelined {energy.pipelined_steps})"
    for name, macs, accumulates, cost, latency in (
        ("ANN, float", energy.ann_macs, 0.0, energy.ann_nj, "1"),
        ("ANN, at its own bits", energy.ann_macs, 0.0, energy.bit_matched_nj, "1"),
        ("SNN", energy.snn_macs, energy.synaptic_operations, energy.snn_nj, steps),
    ):
        row = (large(macs), large(accumulates), joules(cost), percent(cost / whole))
        table.add_row(name, *row, latency)
    return table


def _errors(found: Equivalence) -> Table:
    """Signed means, and behind them the mean sizes, in percent of an amplitude."""
    table = plain_table(
        f"SNN minus ANN at T = {found.timesteps}, in % of an amplitude: mean (mean size)"
    )
    table.add_column("layer", no_wrap=True)
    for name in ("clipping", "quantisation", "inherited", "unevenness", "total", "relative"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in found.layers:
        if layer.error is not None:
            table.add_row(*_error_row(layer, layer.error))
    return table


def _error_row(layer: LayerResult, error: ErrorSplit) -> list[Text]:
    parts = (
        error.clipping, error.quantisation, error.inherited, error.unevenness, error.total
    )  # fmt: skip
    cells = [f"{_signed(100 * part.mean)} ({100 * part.mean_abs:.1f})" for part in parts]
    relative = "-" if layer.relative_error is None else f"{layer.relative_error:.2f}"
    return [Text(cell) for cell in (shorten(layer.name, 24), *cells, relative)]


def _signed(value: float) -> str:
    """One decimal, and no minus sign before a zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def _classes(classes: Sequence[ClassResult], timesteps: int) -> Table:
    table = plain_table(f"Classes at T = {timesteps}")
    table.expand = False
    for name in ("class", "samples", "ANN accuracy", "SNN accuracy", "agreement"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in classes:
        shares = (entry.ann_accuracy, entry.snn_accuracy, entry.agreement)
        table.add_row(str(entry.label), str(entry.count), *(percent(share) for share in shares))
    return table
