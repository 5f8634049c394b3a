"""docs/pictures/*.svg: what docs/how.md shows; every number comes from the neuron itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np

from na_convert.activation import Staircase
from na_convert.neurons import INITIAL_MEMBRANE, IFState, spike_counts

_INK, _FAINT, _BLUE, _RED = "#222222", "#bbbbbb", "#1f5fa8", "#c23b22"
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 560, 250, 46, 16, 16, 40
_LEVELS = 3

Place = Callable[[float], float]


def pictures() -> dict[str, str]:
    """File names and SVG texts."""
    return {
        "network.svg": _network(),
        "staircase.svg": _staircase(),
        "constant.svg": _membrane("constant current", [0.4] * 6),
        "early.svg": _membrane("too much at first", [1.0, 1.0, 1.0, 1.0, -0.8, -0.8]),
    }


# --- curves ---------------------------------------------------------------------------------------


def _staircase() -> str:
    """A quantiser with p = 3 and step 1, and what a neuron fires in 3 steps at constant current."""
    one = np.ones(())
    stairs = Staircase(one, one, np.zeros(()), np.full((), 0.5), _LEVELS, "half_up")
    x = np.linspace(-1, 4.5, 2201)
    dots = np.arange(-0.75, 4.5, 0.25)
    counts = spike_counts(dots, np.full((), float(_LEVELS)), _LEVELS)
    at_x, at_y = _scale(-1, 4.5, _LEFT, _WIDTH - _RIGHT), _scale(0, 3, _HEIGHT - _BOTTOM, _TOP + 20)
    body = _axes(at_x, at_y, range(-1, 5), range(4), "input of the activation, in steps")
    y = stairs(x)
    corners = [i for i in range(len(x)) if i in (0, len(x) - 1) or np.ptp(y[i - 1 : i + 2]) > 0]
    body += _path([(at_x(x[i]), at_y(y[i])) for i in corners], _BLUE)
    body += "".join(
        f'<circle cx="{at_x(a):.1f}" cy="{at_y(n):.1f}" r="4" fill="{_RED}"/>'
        for a, n in zip(dots, counts, strict=True)
    )
    body += _text(_LEFT + 12, _TOP + 18, "levels of the ANN's quantiser, p = 3", _BLUE)
    body += _text(_LEFT + 12, _TOP + 36, "spikes of the neuron in T = 3 steps", _RED)
    title = "A staircase with four levels, and spike counts of a neuron that lie on it"
    return _svg(_WIDTH, _HEIGHT, title, body)


def _membrane(what: str, currents: Sequence[float]) -> str:
    """The membrane of one neuron with threshold 1 over the steps; spikes as marks on top."""
    state = IFState.start(np.zeros(1), np.ones(1), np.ones(1))
    before, after, fired = [], [float(INITIAL_MEMBRANE)], []
    for current in currents:
        before.append(after[-1] + current)
        fired.append(bool(state.step(np.full(1, current))[0] > 0))
        after.append(before[-1] - fired[-1])
    steps, said = len(currents), f"{what}: sum {sum(currents):.1f}, {sum(fired)} spikes"
    at_x = _scale(0, steps, _LEFT, _WIDTH - _RIGHT)
    at_y = _scale(-2, 2, _HEIGHT - _BOTTOM, _TOP + 30)
    body = _axes(at_x, at_y, range(steps + 1), range(-2, 3), f"time step ({said})")
    body += _line(_LEFT, at_y(1), _WIDTH - _RIGHT, at_y(1), _RED, "5 4")
    points = [(at_x(0), at_y(after[0]))]
    for t in range(steps):
        points += [(at_x(t + 1), at_y(before[t])), (at_x(t + 1), at_y(after[t + 1]))]
        body += _text(at_x(t + 0.5), _HEIGHT - _BOTTOM - 6, f"{currents[t]:+.1f}", _INK, "middle")
        if fired[t]:
            body += _line(at_x(t + 1), _TOP + 4, at_x(t + 1), _TOP + 22, _RED, "", 3)
    body += _path(points, _BLUE)
    body += _text(_WIDTH - _RIGHT, at_y(1) - 5, "threshold", _RED, "end")
    return _svg(_WIDTH, _HEIGHT, f"Membrane over time, {said}", body)


# --- boxes ----------------------------------------------------------------------------------------


def _network() -> str:
    """An ANN and, below, the SNN it becomes: which part runs once, and which at every step."""
    ann = ("image", "Conv", "quantiser", "Conv", "quantiser", "mean, Linear", "classes")
    snn = ("image", "Conv", "IF", "Conv", "IF", "mean over T", "mean, Linear", "classes")
    body = _row("ANN", ann, 40, ("quantiser",))
    body += _row("SNN", snn, 120, ("IF",))
    left, right = _x(2, len(snn)) - 6, _x(4, len(snn)) + _box(len(snn)) + 6
    body += (
        f'<rect x="{left:.0f}" y="108" width="{right - left:.0f}" height="72" rx="6" fill="none" '
        f'stroke="{_RED}" stroke-dasharray="5 4"/>'
    )
    body += _text((left + right) / 2, 174, "at each of T time steps, on spikes", _RED, "middle")
    body += _text(_x(0, len(snn)), 174, "once", _INK)
    body += _text(_x(6, len(snn)), 174, "once", _INK)
    return _svg(760, 196, "The layers of an ANN, and below them those of the SNN", body)


def _box(count: int) -> float:
    return 700 / count - 14


def _x(place: int, count: int) -> float:
    return 48 + place * 700 / count


def _row(name: str, words: Sequence[str], y: float, marked: Sequence[str]) -> str:
    width, parts = _box(len(words)), [_text(6, y + 19, name, _INK)]
    for place, word in enumerate(words):
        x = _x(place, len(words))
        colour = _BLUE if word in marked else _INK
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="30" rx="4" fill="none" '
            f'stroke="{colour}"/>'
        )
        parts.append(_text(x + width / 2, y + 19, word, colour, "middle"))
        if place:
            parts.append(_line(x - 14, y + 15, x, y + 15, _INK))
    return "".join(parts)


# --- pieces ---------------------------------------------------------------------------------------


def _scale(low: float, high: float, start: float, end: float) -> Place:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _axes(at_x: Place, at_y: Place, xs: Iterable[int], ys: Iterable[int], label: str) -> str:
    parts = []
    for y in ys:
        parts.append(_line(_LEFT, at_y(y), _WIDTH - _RIGHT, at_y(y), _FAINT))
        parts.append(_text(_LEFT - 8, at_y(y) + 4, str(y), _INK, "end"))
    for x in xs:
        parts.append(_text(at_x(x), _HEIGHT - _BOTTOM + 16, str(x), _INK, "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, label, _INK, "middle"))
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "",
          width: float = 1) -> str:  # fmt: skip
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _path(points: Sequence[tuple[float, float]], colour: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def _svg(width: int, height: int, title: str, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12" role="img">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{body}</svg>\n'
    )
