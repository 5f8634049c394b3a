"""The user's limits on agreement and accuracy, and on getting worse than a stored run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .choices import MARGIN
from .errors import UsageError
from .results import Equivalence, Figure, TimestepResult
from .rungs import Entry, rung


@dataclass(frozen=True)
class Limits:
    """What a user allows, as fractions from 0 to 1; None: no limit.

    Attributes:
        min_agreement: least share of samples on which both networks choose the same class.
        max_drop: most that accuracy may drop, ANN minus SNN.
        baseline: the JSON of an earlier run (``--json`` or ``--report``).
        margin: by how much a figure may be worse than there.
    """

    min_agreement: float | None = None
    max_drop: float | None = None
    baseline: Path | None = None
    margin: float = MARGIN

    def __post_init__(self) -> None:
        for option, value in (
            ("--min-agreement", self.min_agreement),
            ("--max-drop", self.max_drop),
            ("--margin", self.margin),
        ):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{option} {value:g}: a fraction from 0 to 1 is needed")

    @property
    def on_outputs(self) -> bool:
        """Whether any limit needs the networks' outputs."""
        given = (self.min_agreement, self.max_drop, self.baseline)
        return any(limit is not None for limit in given)


def limit_figures(found: Equivalence, asked: Sequence[int], limits: Limits) -> list[Figure]:
    """Agreement and drop at each T in ``asked``, where they are limited.

    Raises UsageError where a drop is limited and there are no labels.
    """
    figures = []
    for row in found.by_timestep:
        if row.T not in asked:
            continue
        if limits.min_agreement is not None:
            figures.append(_agreement(row, limits.min_agreement))
        if limits.max_drop is not None:
            figures.append(_drop(row, limits.max_drop))
    return figures


def _agreement(row: TimestepResult, least: float) -> Figure:
    detail = (
        f"agreement at T={row.T} is {row.agreement:.4f}{_interval(row)}, asked for at least "
        f"{least:g}"
    )
    return Figure(
        f"agreement at T={row.T}", row.agreement, least, row.agreement >= least, detail,
        check="end-to-end",
    )  # fmt: skip


def _interval(row: TimestepResult) -> str:
    if row.agreement_interval is None:
        return ""
    low, high = row.agreement_interval
    return f" (95 %: {low:.4f} to {high:.4f})"


def _drop(row: TimestepResult, most: float) -> Figure:
    if row.drop is None:
        raise UsageError("--max-drop needs labels", remedy="add `labels` to the data")
    detail = f"accuracy drops by {row.drop:.4f} at T={row.T}, allowed is {most:g}"
    return Figure(
        f"drop at T={row.T}", row.drop, most, row.drop <= most, detail, check="end-to-end"
    )


# --- a stored run ---------------------------------------------------------------------------------


def baseline_figures(found: Equivalence, limits: Limits) -> list[Figure]:
    """How much worse than the stored run: agreement, accuracy, error by layer (as fractions), and
    energy (relative). What only one of the two runs has is left out.

    Raises UsageError where the file is no such JSON, or was measured on other samples.
    """
    if limits.baseline is None:
        return []
    stored = _stored(limits.baseline, found)
    try:
        return _baseline_figures(found, stored, limits)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--baseline {limits.baseline}: not as na-convert writes it "
            f"({type(error).__name__}: {error})",
            remedy="store one with check --report",
        ) from error


def _baseline_figures(
    found: Equivalence, stored: Mapping[str, Any], limits: Limits
) -> list[Figure]:
    margin = limits.margin
    rows = {row["T"]: row for row in stored["by_timestep"]}
    pairs = [(row, rows[row.T]) for row in found.by_timestep if row.T in rows]
    if not pairs:
        raise UsageError(
            f"--baseline {limits.baseline}: no T in common with this run",
            remedy="measure both with the same -T",
        )
    figures = [
        rung("baseline agreement", [e for n, o in pairs for e in _worse_agreement(n, o, margin)]),
        rung("baseline accuracy", [e for n, o in pairs for e in _worse_accuracy(n, o, margin)]),
        rung("baseline layers", list(_worse_layers(found, stored, margin))),
        rung("baseline energy", list(_worse_energy(found, stored, margin))),
    ]
    return [
        Figure(f.name, f.value, f.limit, f.passed, f.detail, f.node, "baseline") for f in figures
    ]


def _stored(path: Path, found: Equivalence) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--baseline {path}: not a readable JSON file", remedy="store one with --report"
        ) from error
    stored = entries.get("equivalence") if isinstance(entries, dict) else None
    if not isinstance(stored, dict) or not isinstance(stored.get("by_timestep"), list):
        raise UsageError(
            f"--baseline {path}: holds no equivalence", remedy="store one with check --report"
        )
    if stored.get("samples") != found.samples:
        raise UsageError(
            f"--baseline {path}: measured on {stored.get('samples')} samples, this run on "
            f"{found.samples}",
            remedy="compare on the same data",
        )
    return stored


def _worse_agreement(
    now: TimestepResult, stored: Mapping[str, Any], margin: float
) -> Iterator[Entry]:
    yield _worse(stored["agreement"], now.agreement, margin, f"agreement at T={now.T}")


def _worse_accuracy(
    now: TimestepResult, stored: Mapping[str, Any], margin: float
) -> Iterator[Entry]:
    if now.snn_accuracy is not None and stored["snn_accuracy"] is not None:
        what = f"the SNN's accuracy at T={now.T}"
        yield _worse(stored["snn_accuracy"], now.snn_accuracy, margin, what)


def _worse(before: float, now: float, margin: float, what: str) -> Entry:
    return Entry(before - now, margin, f"{what}: {before:.4f} before, {now:.4f} now", None)


def _worse_layers(found: Equivalence, stored: Mapping[str, Any], margin: float) -> Iterator[Entry]:
    if stored.get("timesteps") != found.timesteps:
        return
    before = {x["name"]: x.get("relative_error") for x in stored.get("layers", ())}
    for layer in found.layers:
        old = before.get(layer.name)
        if old is not None and layer.relative_error is not None:
            detail = (
                f"layer {layer.name!r}: relative error {old:.4f} before, "
                f"{layer.relative_error:.4f} now"
            )
            yield Entry(layer.relative_error - old, margin, detail, layer.name)


def _worse_energy(found: Equivalence, stored: Mapping[str, Any], margin: float) -> Iterator[Entry]:
    old, now = stored.get("energy"), found.energy
    if not old or now is None or (old["mac_pj"], old["ac_pj"]) != (now.mac_pj, now.ac_pj):
        return
    if stored.get("timesteps") == found.timesteps and old["snn_nj"]:
        detail = f"energy per sample: {old['snn_nj']:.4g} nJ before, {now.snn_nj:.4g} nJ now"
        yield Entry(now.snn_nj / old["snn_nj"] - 1, margin, detail, None)
