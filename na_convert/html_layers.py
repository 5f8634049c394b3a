"""Of the HTML report: the layers, why they differ from the ANN's, and what some neurons did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape

import numpy as np

from . import svg
from .cells import percent, value_range
from .html_parts import Row, charts, details, figure, paragraph, table
from .results import Equivalence, ExcerptLayer, LayerResult, Result

_BARS_SHOWN = 40  # layers in a bar chart; the table has all
_PER_LAYER = (
    (
        "Spike rate", "spike_rate", "s1",
        "<b>Spikes per neuron and time step.</b> Each spike is work for the layers behind.",
    ),
    (
        "Uneven", "unevenness", "s3",
        "<b>Uneven neurons</b>: their count is not that of an even current of the same sum. The "
        "first layer is never uneven: its current is constant.",
    ),
    (
        "Occasional", "occasional", "s4",
        "<b>Occasional spikes</b>: neurons that fire although the ANN's activation is at its "
        "lowest level.",
    ),
    (
        "At every step", "saturation", "s5",
        "<b>Neurons that fire at every step</b>: they cannot say more; what they should say beyond "
        "is clipped.",
    ),
)  # fmt: skip
_ERRORS = (
    ("s2", "quantisation"), ("s4", "clipping"), ("s5", "inherited"), ("s3", "unevenness"),
)  # fmt: skip


def why(found: Equivalence) -> str:
    said, measured = found.diagnosis, [layer for layer in found.layers if layer.error is not None]
    text = ""
    if said is not None and (said.first_bad or said.advice):
        lines = []
        if said.first_bad is not None:
            lines.append(
                f"The first layer that goes bad is <code>{escape(said.first_bad)}</code>, "
                f"by {escape(said.cause or 'nothing measured')}."
            )
        if said.advice:
            lines.append(f"{escape(said.advice[:1].upper() + said.advice[1:])}.".replace("..", "."))
        text = f'<div class="aside">{"".join(map(paragraph, lines))}</div>'
    if not measured:
        return text
    shown = [
        (layer.name, layer.error)
        for layer in _most(measured, lambda layer: layer.error.total.mean_abs if layer.error else 0)
        if layer.error is not None
    ]
    rows = [
        svg.Bar(
            name,
            [100 * getattr(error, part).mean_abs for _, part in _ERRORS],
            f"{100 * error.total.mean_abs:.1f} %",
        )
        for name, error in shown
    ]
    sizes = figure(
        svg.bars(rows, [style for style, _ in _ERRORS], _bar_title("Error by cause", rows)),
        "<b>Size of the error, SNN minus ANN, by cause</b>: mean over neurons and samples, in % of "
        "a spike's worth. Parts can cancel, so that the whole, written at the end, is less than "
        "their sum. <i>Quantisation</i> and <i>clipping</i> happen under the ANN's own current; "
        "<i>inherited</i> comes from the layers before; <i>unevenness</i> from spikes that arrive "
        "too early or too late.",
        [(style, name) for style, name in _ERRORS],
    )
    signed = [
        svg.Bar(name, [100 * error.total.mean], f"{100 * error.total.mean:+.2f} %")
        for name, error in shown
    ]
    bias = figure(
        svg.bars(signed, ["s3"], _bar_title("Mean error", signed)),
        "<b>Mean of the error with its sign</b>: to the right the SNN fires too much, to the left "
        "too little.",
    )
    unknown = "".join(f"<li>{escape(entry)}</li>" for entry in (said.unknown if said else ()))
    listed = details("What these figures cannot say", f"<ul>{unknown}</ul>") if unknown else ""
    return text + charts(sizes, bias) + listed


def _most(
    measured: Sequence[LayerResult], key: Callable[[LayerResult], float]
) -> list[LayerResult]:
    """In order; of very many those with the largest figure."""
    if len(measured) <= _BARS_SHOWN:
        return list(measured)
    kept = {layer.name for layer in sorted(measured, key=key)[-_BARS_SHOWN:]}
    return [layer for layer in measured if layer.name in kept]


def _bar_title(what: str, rows: Sequence[svg.Bar]) -> str:
    shown = "; ".join(f"{row.name} {row.shown}" for row in rows[:8])
    return f"{what} by layer: {shown}" + (f"; and {len(rows) - 8} more" if len(rows) > 8 else "")


def layers(result: Result) -> str:
    if not result.neurons:
        return ""
    found = result.equivalence
    measured = found.layers if found is not None else ()
    drawn = []
    for name, key, style, caption in _PER_LAYER:
        values = {each.name: getattr(each, key) for each in measured}
        known = [each for each in measured if values[each.name] is not None]
        rows = [
            svg.Bar(each.name, [values[each.name]], _bar_value(key, values[each.name]))
            for each in _most(known, partial(_value, values))
        ]
        if rows:
            drawn.append(figure(svg.bars(rows, [style], _bar_title(name, rows)), caption))
    return charts(*drawn) + _layer_table(result)


def _value(values: Mapping[str, float], layer: LayerResult) -> float:
    return values[layer.name]


def _bar_value(key: str, value: float) -> str:
    return f"{value:.3f}" if key == "spike_rate" else percent(value)


def _layer_table(result: Result) -> str:
    found = result.equivalence
    measured = {layer.name: layer for layer in found.layers} if found is not None else {}
    headings = ["layer", "shape", "kind", "p", "threshold", "spike worth", "tie rule"]
    if measured:
        headings += ["rate", "uneven", "occasional", "at every step"]
    rows = []
    for neuron in result.neurons:
        cells = [
            neuron.name,
            "×".join(map(str, neuron.shape)),
            neuron.kind,
            "–" if neuron.levels is None else str(neuron.levels),
            value_range(neuron.threshold),
            value_range(neuron.amplitude),
            neuron.tie_rule.replace("_", " "),
        ]
        layer = measured.get(neuron.name)
        if measured:
            cells += ["–"] * 4 if layer is None else [
                f"{layer.spike_rate:.3f}", percent(layer.unevenness), percent(layer.occasional),
                "–" if layer.saturation is None else percent(layer.saturation),
            ]  # fmt: skip
        rows.append(Row(cells))
    caption = (
        "<b>Thresholds and parameters.</b> p: levels above the lowest; a neuron fires when its "
        "membrane reaches the threshold, which is then subtracted"
    )
    return table(headings, rows, caption, brief=(1, 2, 6), wide=True)


# --- spikes ---------------------------------------------------------------------------------------


def excerpt(layers: Sequence[ExcerptLayer]) -> str:
    text = ""
    for layer in layers:
        fired = np.asarray(layer.spikes, bool)
        letters = {t.neuron: "ABC"[i] for i, t in enumerate(layer.traced)}
        marks = [letters.get(neuron, "") for neuron in layer.neurons]
        spikes = int(fired.sum())
        drawn = svg.raster(
            fired, marks,
            f"Spikes of {len(fired)} neurons of {layer.name} over {layer.timesteps} time steps: "
            f"{spikes} in all",
        )  # fmt: skip
        raster = figure(
            drawn,
            f"<b>Spikes of {len(fired)} neurons</b>, a row each, the most active on top; spread "
            "evenly over those that fire.",
        )
        rows = [layer.neurons.index(traced.neuron) for traced in layer.traced]
        named = ", ".join(
            f"<b>{letters[t.neuron]}</b> {escape(t.why)} ({_place(t.place)})" for t in layer.traced
        )
        trace = figure(
            svg.traces(
                np.asarray([traced.membrane for traced in layer.traced]),
                fired[rows],
                [letters[traced.neuron] for traced in layer.traced],
                f"Membranes of {len(rows)} neurons of {layer.name} over {layer.timesteps} steps",
            ),
            f"<b>Membranes in thresholds</b>: {named}. At the dashed line a neuron fires (tick) "
            "and loses one threshold.",
        )
        why = f' <span class="soft">({escape(layer.why)})</span>' if layer.why else ""
        text += f"<h3><code>{escape(layer.name)}</code>{why}</h3>{charts(raster, trace)}"
    if not text:
        return ""
    steps = layers[0].timesteps
    return paragraph(f"The first sample, over {steps} time steps.", "soft") + text


def _place(place: Sequence[int]) -> str:
    return f"neuron {', '.join(map(str, place))}"
