"""What was found about one function (`explanation`), line by line."""

from __future__ import annotations

from rich.console import Console

from .cells import plain_table, value_range
from .explanation import Explanation

_SAMPLES_SHOWN = 8


def print_explanation(found: Explanation, console: Console) -> None:
    """Print what was found about one function, line by line."""
    table = plain_table(None)
    table.show_header = False
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("node", found.node)
    table.add_row("kind", found.kind)
    if found.root:
        table.add_row("function", f"{found.root} -> {found.output}")
        table.add_row("nodes", " -> ".join(found.nodes))
    for name, value in (found.parameters or {}).items():
        table.add_row(name, value_range(value) if isinstance(value, list) else str(value))
    if found.parameters:
        table.add_row("residual", f"{found.residual:.2g}")
    for name in ("cut", "reason", "remedy"):
        if getattr(found, name):
            table.add_row(name, getattr(found, name))
    if found.samples:
        pairs = found.samples[:: max(1, len(found.samples) // _SAMPLES_SHOWN)]
        table.add_row("sampled", ", ".join(f"{x:.4g}: {y:.4g}" for x, y in pairs))
    console.print(table)
