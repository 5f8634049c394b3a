"""Results as a summary for people: tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cells import (
    file_size,
    flat,
    number,
    percent,
    plain_table,
    range_of,
    shorten,
    value_range,
    what_to_do,
)
from .equivalence_tables import diagnosis_lines, equivalence_tables
from .errors import CheckFailed, NaConvertError, NotConvertible
from .nir_lines import nir_lines
from .quantisation_table import quantisation_table
from .results import (
    WARNING,
    BiasCalibration,
    Exactness,
    Figure,
    LayerResult,
    Neuron,
    PassReport,
    Refusal,
    Result,
    SimulationResult,
)

WIDTH = 100


def summary(result: Result, console: Console, *, verbose: bool = False) -> None:
    """Print ``result``: before and after, layers, the ladder of checks, accuracy, notes."""
    for table in _tables(result, verbose):
        console.print(table)
        console.print()
    for line in diagnosis_lines(result.equivalence, verbose=verbose):
        console.print(Text(line))
    for note in _notes(result, verbose):
        console.print(_note(note))
    console.print(Text(headline(result), style="bold green" if result.passed else "bold red"))


def _note(note: str) -> Text:
    if note.startswith(WARNING):
        return Text(note, style="yellow")
    return Text(f"note: {note}", style="dim")


def _tables(result: Result, verbose: bool) -> Iterator[Table]:
    found = result.equivalence
    yield _before_after(result)
    if result.neurons:
        yield _layers(result.neurons, found.layers if found else ())
    if result.quantisation is not None:
        yield quantisation_table(result.quantisation)
    if result.refused:
        yield refusals(result.refused)
    if result.bias_calibration is not None:
        yield _bias_calibration(result.bias_calibration)
    if verbose and result.passes:
        yield _passes(result.passes)
    if found is not None and found.figures:
        yield ladder(found.figures if verbose else _condensed(found.figures))
    if found is not None:
        yield from equivalence_tables(found, verbose=verbose)


def headline(result: Result) -> str:
    """The outcome in one line of plain text."""
    if result.refused:
        return f"{result.model.path}: {len(result.refused)} node(s) cannot spike"
    neurons = f"{len(result.neurons)} neuron layers, T = {result.timesteps}"
    outcome = "passed" if result.passed else "FAILED"
    if result.output is not None:
        checked = f"all checks {outcome}" if result.equivalence else "not checked"
        return f"{result.output.path}: {neurons}, {checked}"
    return f"{result.model.path}: {neurons}, {outcome}"


def shortfall(result: Result) -> NaConvertError | None:
    """Why ``result`` did not pass, as an error; None if it did."""
    if result.passed:
        return None
    if result.refused:
        return NotConvertible(
            f"{result.model.path}: {len(result.refused)} node(s) cannot spike",
            refused=result.refused,
            node=result.refused[0].node,
        )
    figures = result.equivalence.figures if result.equivalence else ()
    broken = [figure for figure in figures if not figure.passed]
    listed = ", ".join(f"{f.name} {number(f.value)} (limit {number(f.limit)})" for f in broken)
    node = broken[0].node if broken else None
    return CheckFailed(f"{result.model.path}: checks failed: {listed}", node=node, result=result)


def simulation(result: SimulationResult, console: Console) -> None:
    """Print the accuracy at each T, the recorded layers, and what was written."""
    if any(entry.accuracy is not None for entry in result.by_timestep):
        table = plain_table(f"{result.samples} samples of {result.data}")
        table.expand = False
        for name in ("T", "accuracy"):
            table.add_column(name, justify="right", no_wrap=True)
        for entry in result.by_timestep:
            table.add_row(str(entry.T), "-" if entry.accuracy is None else percent(entry.accuracy))
        console.print(table)
        console.print()
    if result.recorded:
        table = plain_table("Recorded layers")
        for name in ("layer", "shape"):
            table.add_column(name, no_wrap=True)
        table.add_column("rate", justify="right", no_wrap=True)
        for layer in result.recorded:
            shape = "x".join(str(size) for size in layer.shape)
            table.add_row(Text(layer.name), shape, f"{layer.spike_rate:.3f}")
        console.print(table)
        console.print()
    early = result.early_exit
    if early is not None:
        text = f"margin {early.margin:g}: a sample takes {early.mean_timesteps:.2f} time steps"
        console.print(text + (f", accuracy {percent(early.accuracy)}" if early.accuracy else ""))
        listed = ", ".join(f"T = {t + 1}: {n}" for t, n in enumerate(early.stopped) if n)
        console.print(f"stopped at {listed}")
        console.print()
    for note in result.notes:
        console.print(_note(note))
    done = f"{result.model.path}: {result.samples} samples, T = {result.timesteps}"
    written = f", {len(result.arrays)} arrays in {result.path}" if result.path else ""
    console.print(Text(done + written, style="bold"))


def refusals(refused: Sequence[Refusal], title: str = "Cannot spike") -> Table:
    """One table of every node that cannot spike."""
    table = plain_table(title)
    table.add_column("node", overflow="fold", ratio=3)
    table.add_column("op", overflow="fold", ratio=2)
    table.add_column("why", overflow="fold", ratio=4)
    table.add_column("what to do", overflow="fold", ratio=4)
    for entry in refused:
        remedy = Text(what_to_do(entry))
        table.add_row(Text(entry.node), Text(entry.op), Text(entry.reason), remedy)
    return table


def _before_after(result: Result) -> Table:
    source, output = result.model, result.output
    table = plain_table(None)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("ANN", ratio=1, overflow="fold")
    table.add_column("SNN", ratio=1, overflow="fold")
    rows = [
        ("file", Path(source.path).name, Path(output.path).name if output else ""),
        ("size", file_size(source.bytes), file_size(output.bytes) if output else ""),
        ("nodes", _ops(source.nodes), _ops(output.nodes) if output else ""),
        ("neurons", _activations(result.neurons), _population(result.neurons)),
        ("levels", _levels(result.neurons), ""),
        ("thresholds", "", range_of(flat(n.threshold for n in result.neurons))),
        ("time steps", "", str(result.timesteps) if result.neurons else ""),
        ("form", "", _form(result)),
        ("exact", "", _exact(result)),
        ("converted in", "", f"{result.seconds:.1f} s" if result.seconds else ""),
    ]
    for name, before, after in rows:
        if before or after:
            table.add_row(name, Text(before), Text(after))
    return table


def _layers(neurons: Sequence[Neuron], measured: Sequence[LayerResult]) -> Table:
    by_name = {layer.name: layer for layer in measured}
    table = plain_table("Neuron layers")
    table.add_column("layer", min_width=36, no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for name in ("threshold", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    if measured:
        for name in ("rate", "uneven", "occasional"):
            table.add_column(name, justify="right", no_wrap=True)
    for neuron in neurons:
        row = [
            Text(shorten(neuron.name, 36)),
            Text("x".join(str(size) for size in neuron.shape)),
            Text(value_range(neuron.threshold)),
            Text("-" if neuron.levels is None else str(neuron.levels)),
        ]
        if measured:
            row += [Text(cell) for cell in _measured(by_name.get(neuron.name))]
        table.add_row(*row)
    return table


def _bias_calibration(found: BiasCalibration) -> Table:
    """The network without shifts and with those of each trial, on the held-out samples."""
    table = plain_table(
        f"Bias calibration at T = {found.timesteps}: {found.samples} samples, "
        f"{found.held_out} others decide"
    )
    table.expand = False
    table.add_column("", no_wrap=True)
    for name in ("agreement", "logit RMSE", "mean |shift|", "largest"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    figures = (percent(found.plain.agreement), number(found.plain.logit_rmse))
    table.add_row("none", *figures, "", "", "" if found.kept else "kept")
    for trial in found.trials:
        sizes = [layer.mean_abs for layer in trial.layers if layer.largest]
        table.add_row(
            f"mean {trial.match}",
            percent(trial.held_out.agreement),
            number(trial.held_out.logit_rmse),
            range_of(sizes),
            number(max(layer.largest for layer in trial.layers)),
            "kept" if trial.match == found.kept else "",
        )
    return table


def _measured(layer: LayerResult | None) -> tuple[str, str, str]:
    if layer is None:
        return ("-", "-", "-")
    unexercised = "" if layer.exercised else " *"
    return (
        f"{layer.spike_rate:.3f}{unexercised}",
        percent(layer.unevenness),
        percent(layer.occasional),
    )


def ladder(figures: Sequence[Figure]) -> Table:
    """Every figure, its limit, and whether it passed."""
    table = plain_table("Checks")
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    if not all(figure.passed for figure in figures):
        table.add_column("would pass at", justify="right", no_wrap=True)
    table.add_column("", ratio=1, overflow="fold", style="dim")
    for figure in figures:
        mark = Text("pass", style="green") if figure.passed else Text("FAIL", style="bold red")
        row = [mark, Text(figure.name), Text(number(figure.value)), Text(number(figure.limit))]
        if len(table.columns) > len(row) + 1:
            row.append(Text("" if figure.passed else _passing_limit(figure)))
        named = figure.node is None or figure.node in figure.detail
        table.add_row(*row, Text(figure.detail if named else f"{figure.node}: {figure.detail}"))
    return table


def _condensed(figures: Sequence[Figure]) -> list[Figure]:
    """Of checks made layer by layer every failure, or the total, or the one nearest its limit."""
    kept = []
    for name in dict.fromkeys(figure.name for figure in figures):
        same = [figure for figure in figures if figure.name == name]
        failures = [figure for figure in same if not figure.passed]
        totals = [figure for figure in same if figure.node is None]
        kept += failures or totals or [_nearest(same)]
    return kept


def _nearest(figures: Sequence[Figure]) -> Figure:
    nearest = min(figures, key=lambda figure: abs(figure.limit - figure.value))
    if len(figures) == 1:
        return replace(nearest, detail=f"layer {nearest.node}")
    return replace(nearest, detail=f"{len(figures)} layers, nearest its limit: {nearest.node}")


def _passes(passes: Sequence[PassReport]) -> Table:
    table = plain_table("Passes")
    table.add_column("pass", no_wrap=True)
    table.add_column("changed", justify="right")
    table.add_column("max error", justify="right", no_wrap=True)
    table.add_column("skipped", ratio=1, overflow="fold")
    for report in passes:
        error = "-" if report.max_abs_error is None else number(report.max_abs_error)
        skipped = "\n".join(f"{skip.node}: {skip.reason}" for skip in report.skipped)
        table.add_row(Text(report.name), str(report.changed), error, Text(skipped))
    return table


def _notes(result: Result, verbose: bool) -> list[str]:
    notes = list(result.notes)
    if result.equivalence and result.equivalence.replay_ties:
        on_grids = result.equivalence.rounding is not None
        near = "what rounding to grids moved" if on_grids else "float error"
        notes.append(
            f"{result.equivalence.replay_ties} ties left out of the replay: values on an edge "
            f"between two levels, up to {near}; the ANN may round a half to even, a neuron "
            "fires from the threshold on"
        )
    if result.equivalence and not all(layer.exercised for layer in result.equivalence.layers):
        notes.append("* no element lay between the lowest and the highest level: not exercised")
    if result.nir is not None:
        notes += nir_lines(result.nir)
    if verbose:
        notes += [f"{report.name}: {note}" for report in result.passes for note in report.notes]
    return list(dict.fromkeys(notes))


# --- figures as text ------------------------------------------------------------------------------


def _passing_limit(figure: Figure) -> str:
    """The tightest limit of three digits under which a failed ``figure`` would have passed."""
    if not figure.value or not math.isfinite(figure.value):
        return number(figure.value)
    unit = 10.0 ** (math.floor(math.log10(abs(figure.value))) - 2)
    outward = math.ceil if figure.value > figure.limit else math.floor
    return number(outward(figure.value / unit) * unit)


def _ops(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{count} {op}" for op, count in ordered)


def _activations(neurons: Sequence[Neuron]) -> str:
    kinds = [neuron.kind for neuron in neurons]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return f"{counts} activations" if counts else ""


def _population(neurons: Sequence[Neuron]) -> str:
    count = sum(math.prod(neuron.shape) for neuron in neurons)
    return f"{count:,} neurons in {len(neurons)} layers" if neurons else ""


def _levels(neurons: Sequence[Neuron]) -> str:
    found = sorted({neuron.levels for neuron in neurons if neuron.levels is not None})
    return f"p = {', '.join(str(levels) for levels in found)}" if found else ""


def _exact_integers(found: Exactness) -> str:
    """Integers are exact; what is computed in front of them is on grids, or not."""
    if not found.exact:
        return f"from the first neurons' current on, which is a float sum ({found.reason})"
    bounds = ", ".join(f"|{name}| up to {bound:.4g}" for name, bound in found.bounds.items())
    return f"same counts in every engine, proven for {bounds}"


def _exact(result: Result) -> str:
    """Whether all engines count alike, and what that did to the weights and the levels."""
    found = result.exactness
    if found is None:
        return ""
    if result.quantisation is not None:
        return _exact_integers(found)
    if not found.exact or found.worst is None:
        return f"no: {found.reason}"
    text = (
        f"same counts in every engine, proven up to T = {found.timesteps}; weights rounded by "
        f"{found.worst.weight_error:.2g} at most ({found.worst.name})"
    )
    rounding = result.equivalence.rounding if result.equivalence else None
    if rounding is None:
        return text
    text += f", {rounding.flips} of {rounding.levels} levels flip"
    if rounding.accuracy is None or rounding.accuracy_before is None:
        return f"{text}, {percent(rounding.agreement)} of classes stay"
    return f"{text}; ANN {percent(rounding.accuracy_before)} -> {percent(rounding.accuracy)}"


def _form(result: Result) -> str:
    return f"{result.form}: {result.form_note}" if result.form_note else ""
