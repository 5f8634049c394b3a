"""A result as one HTML file that needs nothing else: what was found, drawn and in tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from . import __version__, html_layers, svg
from .cells import number, percent, what_to_do
from .errors import NaConvertError, NotConvertible
from .html_network import energy_section, networks
from .html_parts import Row, Section, cards, charts, details, figure, page, table
from .results import (
    Equivalence,
    Refusal,
    Result,
    TimestepResult,
)


def html_report(result: Result | None, command: str, error: NaConvertError | None = None) -> str:
    """The page for what ``command`` found, or for what stopped it; same result, same bytes."""
    found = result.equivalence if result is not None else None
    refused = error.refused if isinstance(error, NotConvertible) else ()
    sections = [Section("refused", "What cannot spike", _refusals(refused))]
    if result is not None:
        sections += [
            Section("refused", "What cannot spike", "" if refused else _refusals(result.refused)),
            Section("accuracy", "Accuracy over time", _accuracy(found) if found else ""),
            Section("why", "Why it differs", html_layers.why(found) if found else ""),
            Section("layers", "Neuron layers", html_layers.layers(result)),
            Section("spikes", "Spikes and membranes", html_layers.excerpt(result.excerpt)),
            Section(
                "energy", "Energy", energy_section(found.energy) if found and found.energy else ""
            ),
            Section("networks", "The network before and after", networks(result)),
            Section("checks", "Checks", _checks(found) if found else ""),
            Section("classes", "Classes", _classes(found) if found else ""),
            Section("notes", "Notes", _notes(result)),
        ]
    name = Path(result.model.path).name if result is not None else "na-convert"
    return page(f"{name}: {command}", _header(result, command, error), sections, _footer(result))


# --- header and footer ----------------------------------------------------------------------------


def _header(result: Result | None, command: str, error: NaConvertError | None) -> str:
    good = error is None and (result is None or result.passed)
    title = "na-convert"
    if result is not None:
        title = Path(result.model.path).name
    word = {"inspect": "can be converted"}.get(command, "passed") if good else "failed"
    mark = "✓" if good else "✗"
    verdict = f'<span class="verdict{"" if good else " failed"}">{mark} {word}</span>'
    what = {"convert": "converted to a spiking network", "check": "and its spiking network"}
    text = f"<h1>{escape(title)} {what.get(command, '')}</h1>{verdict}"
    if error is not None:
        remedy = f" {escape(error.remedy)}." if error.remedy else ""
        text += f'<div class="aside"><p>{escape(error.message)}.{remedy}</p></div>'
    return text + (cards(_key_figures(result)) if result is not None else "")


def _key_figures(result: Result) -> list[tuple[str, str, str]]:
    neurons = sum(math.prod(n.shape) for n in result.neurons)
    layers = len(result.neurons)
    shown = [("Neurons", f"{neurons:,}", f"in {layers} layer{'s' * (layers != 1)}")]
    found = result.equivalence
    if found is None or not found.by_timestep:
        return [*shown, ("Time steps", str(result.timesteps), "the file's default")]
    row = next((r for r in found.by_timestep if result.timesteps == r.T), found.by_timestep[-1])
    first: list[tuple[str, str, str]] = []
    if row.ann_accuracy is not None and row.snn_accuracy is not None and row.drop is not None:
        drop = (
            f"{100 * row.drop:.1f} points below"
            if row.drop >= 0
            else (f"{-100 * row.drop:.1f} points above")
        )
        first = [
            ("ANN accuracy", percent(row.ann_accuracy), f"{found.samples:,} samples"),
            (f"SNN accuracy, T = {row.T}", percent(row.snn_accuracy), drop),
        ]
    first.append(("Agreement", percent(row.agreement), f"same class, T = {row.T}"))
    if found.energy is not None and found.energy.ann_nj:
        share = found.energy.snn_nj / found.energy.ann_nj
        shown.append(("Energy", percent(share), "of the float ANN, arithmetic alone"))
    return [*first, *shown]


def _footer(result: Result | None) -> str:
    text = f"na-convert {escape(__version__)}"
    if result is not None:
        text += f" · ANN sha256 <code>{result.model.sha256[:16]}</code>"
        if result.output is not None:
            text += f" · SNN sha256 <code>{result.output.sha256[:16]}</code>"
    return text


# --- accuracy -------------------------------------------------------------------------------------


def _accuracy(found: Equivalence) -> str:
    rows = found.by_timestep
    if not rows:
        return ""
    steps = [row.T for row in rows]
    series = []
    if all(row.snn_accuracy is not None for row in rows):
        series += [
            svg.Series("ANN", [r.ann_accuracy for r in rows], "s2", dashed=True),
            svg.Series("SNN", [r.snn_accuracy for r in rows], "s1", *_interval(rows, "snn")),
        ]
    agreement = svg.Series(
        "agreement", [r.agreement for r in rows], "s3", *_interval(rows, "agreement")
    )
    what = "Accuracy and agreement" if series else "Agreement"
    last = rows[-1]
    title = f"{what} over {steps[0]} to {steps[-1]} time steps; at {last.T}: " + "; ".join(
        f"{each.name} {percent(each.values[-1] or 0.0)}" for each in [*series, agreement]
    )
    drawn = svg.lines(
        steps, [*series, agreement], title, "time steps T", marked=found.timesteps or None
    )
    caption = (
        f"<b>{what} against time steps</b> on {found.samples:,} samples of "
        f"<code>{escape(found.data)}</code>; bands are 95 % intervals (Wilson), the dashed upright "
        "line is the file's own T. Agreement: both networks choose the same class."
    )
    return charts(figure(drawn, caption), _accuracy_table(found))


def _interval(
    rows: Sequence[TimestepResult], name: str
) -> tuple[list[float], list[float]] | tuple[None, None]:
    found = [getattr(row, f"{name}_interval") for row in rows]
    if any(each is None for each in found):
        return None, None
    return [low for low, _ in found], [high for _, high in found]


def _accuracy_table(found: Equivalence) -> str:
    labelled = found.by_timestep[0].snn_accuracy is not None
    headings = ["T", *(["ANN", "SNN", "drop"] if labelled else []), "agreement", "RMSE"]
    rows = []
    for each in found.by_timestep:
        cells = [str(each.T)]
        if labelled:
            cells += [_share(each.ann_accuracy), _share(each.snn_accuracy), _share(each.drop)]
        rows.append(Row([*cells, percent(each.agreement), number(each.logit_rmse)]))
    return table(headings, rows, "<b>The same in numbers.</b> RMSE: of the outputs, SNN minus ANN")


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


# --- checks, classes, notes -----------------------------------------------------------------------


def _checks(found: Equivalence) -> str:
    rows = [
        Row(
            [
                f.name,
                "✓ pass" if f.passed else "✗ FAIL",
                number(f.value),
                number(f.limit),
                f.detail,
            ],
            "" if f.passed else "failed",
        )
        for f in found.figures
    ]
    if not rows:
        return ""
    caption = (
        "<b>Every figure with its limit.</b> Up to its limit a figure passes (an agreement: from "
        "it on); the figure itself is the tightest limit that would have passed"
    )
    return table(
        ["check", "", "figure", "limit", ""], rows, caption, brief=(1,), words=(4,), wide=True
    )


def _energy(found: Equivalence | None) -> str:
    return energy_section(found.energy) if found is not None and found.energy is not None else ""


def _classes(found: Equivalence) -> str:
    if not found.by_class:
        return ""
    rows = [
        Row([str(c.label), f"{c.count:,}", percent(c.ann_accuracy), percent(c.snn_accuracy),
             percent(c.agreement)])
        for c in found.by_class
    ]  # fmt: skip
    inner = table(
        ["class", "samples", "ANN", "SNN", "agreement"], rows,
        f"<b>Accuracy class by class</b>, at T = {found.timesteps}",
    )  # fmt: skip
    return inner if len(rows) <= 20 else details(f"All {len(rows)} classes", inner)


def _notes(result: Result) -> str:
    notes = list(dict.fromkeys(result.notes))
    if result.form_note:
        notes.append(f"form {result.form}: {result.form_note}")
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{listed}</ul>" if listed else ""


def _refusals(refused: Sequence[Refusal]) -> str:
    if not refused:
        return ""
    rows = [Row([r.node, r.op, r.reason, what_to_do(r)]) for r in refused]
    return table(
        ["node", "op", "why", "what to do"], rows,
        "<b>Nodes that cannot be part of a spiking network</b>", brief=(1,), words=(2, 3),
        wide=True,
    )  # fmt: skip
