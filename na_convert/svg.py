"""Charts as inline SVG: small functions, no script, colours by CSS variables (light and dark).

A chart is a fixed drawing of `WIDTH` units that scales with its container. Colours are classes:
``s1`` .. ``s5`` for series, ``ink`` and ``faint`` for text and lines (see `html_style`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Place: TypeAlias = Callable[[float], float]

WIDTH = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 12, 40
_CHARACTER = 7.3  # width of a character of a label, in units, in a wide font 12 units high


@dataclass(frozen=True)
class Series:
    """A line: ``values`` over x; ``low`` and ``high`` bound a band around it; ``style`` a class."""

    name: str
    values: Sequence[float | None]
    style: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


def drawing(body: str, height: float, title: str, kind: str) -> str:
    """The ``<svg>`` element: ``title`` is its name for those who cannot see it."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {_n(height)}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )


# --- lines ----------------------------------------------------------------------------------------


def lines(
    x: Sequence[float], series: Sequence[Series], title: str, x_label: str, *, marked: float | None
) -> str:
    """Shares (0 to 1) over whole numbers ``x``, as percent; ``marked``: an x with its own line.

    The axis starts where the values do, in steps of 10 %.
    """
    height = 280.0
    values = [v for s in series for row in (s.values, s.low or (), s.high or ()) for v in row
              if v is not None]  # fmt: skip
    low = max(0.0, math.floor(min(values) * 10 - 0.2) / 10)
    top = min(1.0, math.ceil(max(values) * 10) / 10)
    top = top if top > low else low + 0.1
    names = max(len(each.name) for each in series)
    right = WIDTH - _RIGHT - names * (_CHARACTER + 0.7)  # names stand at the lines' ends
    span = max(x) - min(x) or 1

    def at_x(value: float) -> float:
        inset = 10
        if len(x) == 1:
            return (_LEFT + right) / 2
        return _LEFT + inset + (value - min(x)) / span * (right - _LEFT - 2 * inset)

    def at_y(value: float) -> float:
        return _TOP + (top - value) / (top - low) * (height - _TOP - _BOTTOM)

    body = _percent_grid(low, top, at_y, right)
    body += _x_ticks(x, at_x, height, x_label, right)
    if marked is not None and min(x) <= marked <= max(x):
        body += _line(at_x(marked), _TOP, at_x(marked), height - _BOTTOM, "marked")
    for each in series:
        body += _band(x, each, at_x, at_y)
    for each in series:
        body += _stroke(x, each, at_x, at_y)
    body += _end_names(series, at_y, right)
    return drawing(body, height, title, "lines")


def _percent_grid(low: float, top: float, at_y: Place, right: float) -> str:
    step = 0.1 if top - low <= 0.5 else 0.2
    count = round((top - low) / step)
    body = ""
    for index in range(count + 1):
        value = low + index * step
        body += _line(_LEFT, at_y(value), right, at_y(value), "grid")
        body += _text(_LEFT - 8, at_y(value) + 4, f"{100 * value:.0f} %", "tick end")
    return body


def _x_ticks(x: Sequence[float], at_x: Place, height: float, label: str, right: float) -> str:
    every = max(1, math.ceil(len(x) / 12))
    body = ""
    for index, value in enumerate(x):
        if index % every == 0:
            body += _text(at_x(value), height - _BOTTOM + 18, f"{value:g}", "tick middle")
    return body + _text((_LEFT + right) / 2, height - 4, label, "label middle")


def _band(x: Sequence[float], each: Series, at_x: Place, at_y: Place) -> str:
    if each.low is None or each.high is None:
        return ""
    if len(x) == 1:
        return _line(at_x(x[0]), at_y(each.low[0]), at_x(x[0]), at_y(each.high[0]), each.style)
    forth = [(at_x(a), at_y(b)) for a, b in zip(x, each.high, strict=True)]
    back = [(at_x(a), at_y(b)) for a, b in zip(x, each.low, strict=True)]
    points = " ".join(f"{_n(a)},{_n(b)}" for a, b in [*forth, *back[::-1]])
    return f'<polygon class="band {each.style}" points="{points}"/>'


def _stroke(x: Sequence[float], each: Series, at_x: Place, at_y: Place) -> str:
    points = [(at_x(a), at_y(b)) for a, b in zip(x, each.values, strict=True) if b is not None]
    dashed = " dashed" if each.dashed else ""
    path = " ".join(f"{_n(a)},{_n(b)}" for a, b in points)
    dots = (
        ""
        if each.dashed and len(points) > 1
        else "".join(
            f'<circle class="dot {each.style}" cx="{_n(a)}" cy="{_n(b)}" r="3.2"/>'
            for a, b in points
        )
    )
    return f'<polyline class="line {each.style}{dashed}" points="{path}"/>{dots}'


def _end_names(series: Sequence[Series], at_y: Place, right: float) -> str:
    """Names at the lines' last values, moved apart where they would overlap."""
    last = [(s.values[-1], s) for s in series if s.values]
    ends = [(at_y(value), each) for value, each in last if value is not None]
    ends.sort(key=lambda end: end[0])
    places = spread([y for y, _ in ends], 15)
    return "".join(
        _text(right + 8, y + 4, each.name, f"name {each.style}")
        for y, (_, each) in zip(places, ends, strict=True)
    )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Sorted ``places``, moved as little as needed to lie at least ``gap`` apart."""
    groups: list[tuple[float, int]] = []  # the middle of each, and how many it holds
    for place in places:
        groups.append((place, 1))
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if (b - (m - 1) * gap / 2) - (a + (n - 1) * gap / 2) >= gap - 1e-9:
                break
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    return [mid + (i - (n - 1) / 2) * gap for mid, n in groups for i in range(n)]


# --- bars -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One row: the lengths ``parts`` end to end, and what is written behind them.

    ``style``: a class in place of the chart's.
    """

    name: str
    parts: Sequence[float]
    shown: str
    style: str = ""


def bars(rows: Sequence[Bar], styles: Sequence[str], title: str, *, at_least: float = 0.0) -> str:
    """A horizontal bar for each row, parts end to end from zero; negative parts to the left.

    ``at_least``: the length that has to fit, so that two charts can have one scale.
    """
    step, thick = 24.0, 13.0
    room = min(175.0, max(len(row.name) for row in rows) * _CHARACTER + 12)
    behind = max(len(row.shown) for row in rows) * _CHARACTER + 12
    low = min(0.0, *(sum(p for p in row.parts if p < 0) for row in rows))
    top = max(1e-12, at_least, *(sum(p for p in row.parts if p > 0) for row in rows))
    scale = (WIDTH - room - behind) / (top - low)
    zero = room - low * scale
    height = step * len(rows) + 8
    body = ""
    for index, row in enumerate(rows):
        y = 4 + index * step
        body += _text(room - 8, y + 16, _shortened(row.name, room), "tick end", row.name)
        ends = [zero, zero]  # where the next part to the left and to the right begins
        for part, style in zip(row.parts, styles, strict=True):
            length = abs(part) * scale
            x = ends[1] if part >= 0 else ends[0] - length
            ends = [ends[0], x + length] if part >= 0 else [x, ends[1]]
            body += (
                f'<rect class="bar {row.style or style}" x="{_n(x)}" y="{_n(y + 5)}" '
                f'width="{_n(length)}" height="{_n(thick)}"/>'
            )
        body += _text(ends[1] + 6, y + 16, row.shown, "value")
    body += _line(zero, 2, zero, height - 2, "axis")
    return drawing(body, height, title, "bars")


def _shortened(name: str, room: float) -> str:
    """The end of a long name: layers' names differ there."""
    most = int((room - 8) / _CHARACTER)
    return name if len(name) <= most else "…" + name[1 - most :]


# --- spikes and membranes -------------------------------------------------------------------------


def raster(fired: NDArray[np.bool_], names: Sequence[str], title: str) -> str:
    """Who fired when: ``fired`` [neurons, T], a row for each neuron, a column for each step.

    ``names``: of some rows, empty strings for the others.
    """
    neurons, steps = fired.shape
    row = max(3.0, min(12.0, 260.0 / neurons))
    right, height = WIDTH - _RIGHT, _TOP + row * neurons + _BOTTOM
    left = max(_LEFT, max((len(n) for n in names), default=0) * _CHARACTER + 10)
    column = (right - left) / steps
    body = ""
    for index in range(steps):
        x = left + (index + 0.5) * column
        body += _line(x, _TOP, x, _TOP + row * neurons, "grid")
        if index % max(1, math.ceil(steps / 16)) == 0:
            body += _text(x, height - _BOTTOM + 16, f"{index + 1}", "tick middle")
    path = ""
    for neuron in range(neurons):
        y = _TOP + row * neuron
        if names[neuron]:
            body += _text(left - 8, y + row / 2 + 4, names[neuron], "tick end")
        for t in np.flatnonzero(fired[neuron]):
            x = left + (t + 0.5) * column
            path += f"M{_n(x)} {_n(y + 0.5)}v{_n(row - 1)}"
    body += f'<path class="spike" d="{path}"/>'
    body += _text((left + right) / 2, height - 4, "time step", "label middle")
    return drawing(body, height, title, "raster")


def traces(
    membranes: NDArray[np.floating], fired: NDArray[np.bool_], names: Sequence[str], title: str
) -> str:
    """Membranes before reset, in thresholds: ``membranes`` [neurons, T + 1], the first at t = 0.

    A panel for each neuron, with the threshold as a line; where it ``fired`` [neurons, T] a spike.
    """
    neurons, steps = fired.shape
    panel, right = 74.0, WIDTH - _RIGHT
    height = _TOP + panel * neurons + _BOTTOM - 8
    left = max(_LEFT, max(len(n) for n in names) * _CHARACTER + 10)
    column = (right - left) / steps
    body = ""
    for index in range(neurons):
        values = membranes[index]
        low, top = min(0.0, float(values.min())), max(1.15, float(values.max()) + 0.15)
        y0 = _TOP + panel * index

        def at_y(value: float, y0: float = y0, low: float = low, top: float = top) -> float:
            return y0 + (top - value) / (top - low) * (panel - 16)

        body += _line(left, at_y(1), right, at_y(1), "marked")
        body += _line(left, at_y(0), right, at_y(0), "grid")
        body += _text(left - 8, y0 + panel / 2, names[index], "tick end")
        points = f"M{_n(left)} {_n(at_y(values[0]))}"
        spikes = ""
        for t in range(steps):
            x = left + (t + 1) * column
            reached = values[t + 1]
            points += f"L{_n(x)} {_n(at_y(reached))}"
            if fired[index, t]:
                spikes += f"M{_n(x)} {_n(at_y(top))}V{_n(at_y(top) + 9)}"
                if t + 1 < steps:
                    points += f"V{_n(at_y(reached - 1))}"
        body += f'<path class="line s1 thin" d="{points}"/><path class="spike" d="{spikes}"/>'
    for t in range(steps + 1):
        if t % max(1, math.ceil(steps / 16)) == 0:
            body += _text(left + t * column, height - 20, f"{t}", "tick middle")
    body += _text((left + right) / 2, height - 4, "time step", "label middle")
    return drawing(body, height, title, "traces")


# --- elements -------------------------------------------------------------------------------------


def _n(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, style: str, title: str = "") -> str:
    full = f"<title>{escape(title)}</title>" if title and title != text else ""
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}">{full}{escape(text)}</text>'
