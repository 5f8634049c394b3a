"""The rungs of the ladder as figures: each a number, its limit, and the layer that decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .activation import Staircase
from .engines import LayerEngines, OutputsError
from .errors import CheckFailed
from .layers import Layer
from .replay import LayerReplay, Replay
from .results import Figure, PassReport, Result
from .statistics import LayerCounts

FLOAT_NOISE = 64.0  # in units of the float type's eps: a few roundings of values of like size


class Entry(NamedTuple):
    """One layer's contribution to a rung."""

    value: float
    limit: float
    detail: str
    node: str | None

    @property
    def passed(self) -> bool:
        return self.value <= self.limit


def rung(name: str, entries: Sequence[Entry], nothing: str = "nothing to compare") -> Figure:
    """The first entry that breaks its limit, nearest to the cause; else the closest to its own."""
    if not entries:
        return Figure(name, 0.0, 0.0, True, nothing)
    broken = [entry for entry in entries if not entry.passed]
    chosen = (
        broken[0] if broken else max(entries, key=lambda e: e.value / e.limit if e.limit else 0)
    )
    return Figure(name, chosen.value, chosen.limit, chosen.passed, chosen.detail, chosen.node)


def of_check(check: str, figures: Sequence[Figure]) -> list[Figure]:
    """The same figures, as those of ``check``."""
    return [replace(figure, check=check) for figure in figures]


def failure(figures: Sequence[Figure], result: Result | None = None) -> CheckFailed | None:
    """The first of ``figures`` that breaks its limit, as an error with ``result``; None if none."""
    for figure in figures:
        if not figure.passed:
            return CheckFailed(
                f"{figure.name}: {figure.detail} (limit {figure.limit:.3g}; a limit of "
                f"{figure.value:.3g} would have passed)",
                node=figure.node,
                remedy="the SNN is not what this ANN converts to; if na-convert has just made it, "
                "please report this with the model",
                result=result,
            )
    return None


def passes_figure(reports: Sequence[PassReport], limit: float) -> Figure:
    """Of all passes, the one that changed a tensor most: relative, against the graph before it."""
    entries = [
        Entry(r.max_rel_error, limit, f"pass {r.name}, largest relative change of a tensor", None)
        for r in reports
        if r.max_rel_error is not None
    ]
    return rung("passes", entries, "no pass changed anything")


def replay_figures(replayed: Replay, *, on_grid: bool = False) -> list[Figure]:
    """Levels, currents, parameters and outputs in the replay, and the readout behind it.

    ``on_grid``: the weights were rounded (`passes.snap`), and the levels of the ANN with these are
    compared too, ties included.
    """
    layers = replayed.layers
    return [
        _levels(layers),
        *([rung("replay on grid", [_on_grid(each) for each in layers])] if on_grid else []),
        rung("replay currents", [_current(each) for each in layers]),
        rung("neuron parameters", [_parameters(each) for each in layers]),
        rung("level heights", [_height(each) for each in layers if _staircase(each.layer)]),
        rung(
            "readout",
            [
                Entry(
                    replayed.readout_error,
                    _noise(layers),
                    "outputs behind the ANN's last activations, largest relative difference"
                    + (f" (in {replayed.readout_where!r})" if replayed.readout_where else ""),
                    replayed.readout_where or None,
                )
            ],
        ),
    ]


def _levels(layers: Sequence[LayerReplay]) -> Figure:
    figure = rung("replay", [_mismatches(each) for each in layers])
    if not figure.passed:
        return figure
    elements, ties = sum(r.elements for r in layers), sum(r.ties for r in layers)
    idle = [r.layer.name for r in layers if not r.between]
    note = f"; not exercised (no level in between): {', '.join(idle)}" if idle else ""
    detail = f"{len(layers)} layers, {elements} neurons, {ties} ties left out{note}"
    return Figure("replay", 0.0, 0.0, True, detail)


def _mismatches(each: LayerReplay) -> Entry:
    what = (
        "do not fire at the ANN's level"
        if _staircase(each.layer)
        else "get another current than the ANN's (no levels to compare)"
    )
    detail = (
        f"layer {each.layer.name!r}: {each.mismatches} of {each.elements} neurons {what}, "
        f"{each.ties} ties left out; {_current(each).detail}"
    )
    return Entry(each.mismatches, 0, detail, each.layer.name)


def _on_grid(each: LayerReplay) -> Entry:
    detail = (
        f"layer {each.layer.name!r}: {each.off_grid} of {each.elements} neurons do not fire at the "
        "level of the ANN with the rounded weights; no ties are left out"
    )
    return Entry(each.off_grid, 0, detail, each.layer.name)


def _current(each: LayerReplay) -> Entry:
    unit = "stairs" if _staircase(each.layer) else "thresholds"
    detail = (
        f"layer {each.layer.name!r}: currents differ from the ANN's by up to "
        f"{each.current_error:.2g} {unit}, rounding explains {each.tolerance:.2g}"
    )
    return Entry(each.current_error, each.tolerance, detail, each.layer.name)


def _parameters(each: LayerReplay) -> Entry:
    detail = (
        f"layer {each.layer.name!r}: threshold, amplitude or initial membrane, largest relative "
        "difference from what the activation asks for"
    )
    limit = max(_noise([each]), each.layer.threshold_rounding)
    return Entry(each.parameter_error, limit, detail, each.layer.name)


def _height(each: LayerReplay) -> Entry:
    function = each.layer.function
    assert isinstance(function, Staircase)
    reach = function.levels + float(np.max(np.abs(function.lowest_level)))
    detail = f"layer {each.layer.name!r}: its outputs beside the ANN's, in levels"
    return Entry(each.output_error, _noise([each]) * reach, detail, each.layer.name)


def _noise(layers: Sequence[LayerReplay]) -> float:
    return FLOAT_NOISE * max(float(np.finfo(each.layer.dtype).eps) for each in layers)


def _staircase(layer: Layer) -> bool:
    return isinstance(layer.function, Staircase)


def engine_figures(
    engines: Sequence[LayerEngines], outputs: OutputsError, *, on_grid: bool = False
) -> list[Figure]:
    """onnxruntime against numpy: spikes, currents, charge and outputs.

    ``engines`` is empty where onnxruntime does not run the file. ``on_grid``: no count may differ.
    """
    if not engines:
        missing = "not compared: onnxruntime lacks operators of this file in double"
        return [Figure("engines", 0.0, 0.0, True, missing)]
    limit = max(outputs.tolerance, *(each.tolerance for each in engines))
    return [
        _counts(engines, on_grid),
        rung(
            "engine currents",
            [
                Entry(
                    each.current_error,
                    each.tolerance,
                    f"layer {each.layer.name!r}: currents in onnxruntime and numpy, in thresholds",
                    each.layer.name,
                )
                for each in engines
            ],
        ),
        rung(
            "charge",
            [
                Entry(
                    each.charge_error,
                    each.tolerance,
                    f"layer {each.layer.name!r}: current in, less spikes out and membrane left, in "
                    "thresholds",
                    each.layer.name,
                )
                for each in engines
            ],
        ),
        rung(
            "engine outputs",
            [Entry(outputs.error, limit, "outputs under the same spikes, relative", None)],
        ),
    ]


def _counts(engines: Sequence[LayerEngines], on_grid: bool) -> Figure:
    figure = rung("engines", [_spikes(each, on_grid) for each in engines])
    if not figure.passed:
        return figure
    differences = sum(each.differences for each in engines)
    detail = f"{len(engines)} layers, {differences} counts differ between onnxruntime and numpy"
    detail += "" if on_grid else ", each within float error of the threshold"
    return Figure("engines", 0.0, 0.0, True, detail)


def _spikes(each: LayerEngines, on_grid: bool) -> Entry:
    detail = (
        f"layer {each.layer.name!r}: {each.differences} counts differ between onnxruntime and "
        f"numpy, {each.unexplained} of them away from the threshold (more than "
        f"{each.tolerance:.2g} of it)"
    )
    broken = each.differences if on_grid else each.unexplained
    return Entry(broken, 0, detail, each.layer.name)


def even_figure(layers: Sequence[Layer], counts: Sequence[LayerCounts]) -> Figure:
    """Under a constant current no neuron may fire unevenly."""
    entries = [
        Entry(
            count.uneven,
            0,
            f"layer {layer.name!r}: {count.uneven} of {count.neurons} neurons fire unevenly under "
            "a constant current",
            layer.name,
        )
        for layer, count in zip(layers, counts, strict=True)
        if layer.neuron.constant_input
    ]
    return rung("constant current", entries, "no layer has a constant current")
