"""The report's charts as PNG and SVG, for papers and slides: matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .results import Equivalence, ExcerptLayer, Result
from .whole_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"ann": "#5d6b7c", "snn": "#0b66c3", "agreement": "#b0500a"}
_PARTS = {
    "quantisation": "#5d6b7c", "clipping": "#7a4fc4", "inherited": "#0f7f7a",
    "unevenness": "#b0500a",
}  # fmt: skip
_DPI = 200


def require(folder: Path) -> None:
    """Make ``folder``; raises UsageError where that or matplotlib is not to be had."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError(
            "--plots needs matplotlib", remedy="pip install 'na-convert[plot]'"
        ) from error
    del mpl
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--plots {folder}: cannot be made ({error.strerror})") from error


def write_plots(result: Result, folder: Path) -> tuple[Path, ...]:
    """Each chart of ``result`` as ``NAME.png`` and ``NAME.svg`` in ``folder``, which is created.

    ``accuracy``, ``layers``, ``error``, ``energy``, ``spikes-LAYER``; what was not measured is left
    out. Raises UsageError where matplotlib is missing or ``folder`` cannot be written.
    """
    require(folder)
    import matplotlib as mpl

    written = []
    with mpl.rc_context({"svg.hashsalt": "na-convert", "font.size": 9}):
        for name, figure in _figures(result):
            for kind in ("png", "svg"):
                path = folder / f"{name}.{kind}"
                write_atomically(path, _encoded(figure, kind))
                written.append(path)
    return tuple(written)


def _encoded(figure: Figure, kind: str) -> bytes:
    """Same figure, same bytes: no date inside."""
    import io

    buffer = io.BytesIO()
    key = {"png": "Software", "svg": "Date"}[kind]
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata={key: None}, bbox_inches="tight")
    return buffer.getvalue()


def _figures(result: Result) -> Iterator[tuple[str, Figure]]:
    found = result.equivalence
    if found is not None and found.by_timestep:
        yield "accuracy", _accuracy(found)
    if found is not None and found.layers:
        yield "layers", _layers(found)
        if any(layer.error for layer in found.layers):
            yield "error", _error(found)
    if found is not None and found.energy is not None:
        yield "energy", _energy(found)
    for layer in result.excerpt:
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in layer.name)
        yield f"spikes-{name}", _spikes(layer)


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes[0] if columns == 1 else axes


def _accuracy(found: Equivalence) -> Figure:
    figure, axes = _axes(4.4, 3.0)
    rows = found.by_timestep
    steps = [row.T for row in rows]
    curves = [("agreement", "agreement", "agreement_interval")]
    if all(row.snn_accuracy is not None for row in rows):
        curves += [("snn", "snn_accuracy", "snn_interval"), ("ann", "ann_accuracy", "")]
    for key, field, interval in curves:
        label = {"ann": "ANN accuracy", "snn": "SNN accuracy"}.get(key, key)
        style = "--" if key == "ann" else "o-"
        values = [100 * getattr(row, field) for row in rows]
        axes.plot(steps, values, style, color=_COLOURS[key], markersize=3, label=label)
        bounds = [getattr(row, interval) for row in rows] if interval else [None]
        known = [bound for bound in bounds if bound is not None]
        if len(known) == len(rows):
            low, high = ([100 * bound[i] for bound in known] for i in (0, 1))
            axes.fill_between(steps, low, high, color=_COLOURS[key], alpha=0.15, linewidth=0)
    axes.set(xlabel="time steps T", ylabel="%")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def _layers(found: Equivalence) -> Figure:
    names = [layer.name for layer in found.layers]
    panels = (
        ("spikes per neuron and step", "spike_rate", 1), ("uneven, %", "unevenness", 100),
        ("occasional, %", "occasional", 100),
    )  # fmt: skip
    figure, axes = _axes(8.0, 0.9 + 0.2 * len(names), len(panels))
    for index, (each, (label, field, factor)) in enumerate(zip(axes, panels, strict=True)):
        values = [factor * getattr(layer, field) for layer in found.layers]
        each.barh(range(len(names)), values, color=_COLOURS["snn"], height=0.6)
        each.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
        each.invert_yaxis()
        each.set_xlabel(label)
    return figure


def _error(found: Equivalence) -> Figure:
    layers = [(layer.name, layer.error) for layer in found.layers if layer.error is not None]
    figure, axes = _axes(5.6, 1.1 + 0.2 * len(layers))
    left = [0.0] * len(layers)
    for part, colour in _PARTS.items():
        sizes = [100 * getattr(error, part).mean_abs for _, error in layers]
        axes.barh(range(len(layers)), sizes, left=left, color=colour, height=0.6, label=part)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    axes.set_yticks(range(len(layers)), [name for name, _ in layers])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("SNN minus ANN, mean size, % of a spike's worth")
    axes.legend(frameon=False)
    return figure


def _energy(found: Equivalence) -> Figure:
    energy = found.energy
    assert energy is not None
    figure, axes = _axes(4.4, 1.5)
    values = [energy.ann_nj / 1000, energy.bit_matched_nj / 1000, energy.snn_nj / 1000]
    axes.barh(range(3), values, color=_PARTS["inherited"], height=0.6)
    axes.set_yticks(range(3), ["ANN, float", "ANN, its own bits", f"SNN, T = {found.timesteps}"])
    axes.invert_yaxis()
    axes.set_xlabel(f"µJ per sample, arithmetic ({energy.source})")
    return figure


def _spikes(layer: ExcerptLayer) -> Figure:
    figure, axes = _axes(8.0, 3.0, 2)
    times = [[t + 1 for t, fired in enumerate(row) if fired] for row in layer.spikes]
    axes[0].eventplot(times, colors="black", linelengths=0.8)
    axes[0].set(xlabel="time step", ylabel="neurons", yticks=[], title=layer.name)
    axes[0].invert_yaxis()
    for traced in layer.traced:
        axes[1].plot(range(len(traced.membrane)), traced.membrane, label=traced.why)
    axes[1].axhline(1, color="grey", linestyle=":", linewidth=1)
    axes[1].set(xlabel="time step", ylabel="membrane before reset, thresholds")
    axes[1].legend(frameon=False)
    return figure
