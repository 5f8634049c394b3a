"""The network on integers in the summary: its layers, shortcuts, and what tying costs."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from .cells import percent, plain_table
from .results import Quantisation, QuantisedLayer


def quantisation_table(found: Quantisation) -> Table:
    """A row per layer, and below it what was decided about shortcuts and biases.

    *in*: what its sums are computed in. *threshold*: of its channels, in units of the weights.
    *shortcut*: the resolution at which counts are added, and what that is off by, in thresholds.
    """
    table = plain_table("Integers")
    table.add_column("layer", min_width=36, no_wrap=True)
    table.add_column("in", no_wrap=True)
    for name in ("threshold", "bits", "weight error", "shortcut"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in found.layers:
        table.add_row(Text(layer.name), *_cells(layer))
    table.caption, table.caption_justify = "\n".join(decisions(found)), "left"
    return table


def decisions(found: Quantisation) -> list[str]:
    """Shortcuts and biases, in words."""
    tied = "made equal along them" if found.tied else "as they are"
    lines = [f"identity shortcuts: thresholds {tied} ({found.why})"]
    if found.raised:
        name, factor = max(found.raised.items(), key=lambda item: item[1])
        count = f"{len(found.raised)} layer{'s' if len(found.raised) > 1 else ''}"
        lines.append(f"raised in {count}, at most {factor:.3g} times ({name})")
    if found.corrected:
        lines.append("biases make up for the mean error of rounding, on the data")
    return lines


def _cells(layer: QuantisedLayer) -> list[str]:
    low, high = layer.thresholds
    threshold = str(low) if low == high else f"{low} .. {high}"
    if not layer.bits:
        return ["constant", threshold, "", "", ""]
    shortcut = f"1/{layer.resolution}" if layer.resolution > 1 else ""
    if layer.shortcut_error:
        shortcut = f"{shortcut} ± {layer.shortcut_error:.1g}".strip()
    return [
        "float32" if layer.wide else "int8",
        threshold,
        str(layer.bits),
        "own grid" if layer.on_grid == layer.channels else _share(layer.weight_error),
        shortcut,
    ]


def _share(value: float) -> str:
    return f"{100 * value:.2f} %" if 0 < value < 0.001 else percent(value)
