"""What `export` prints of a NIR file."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .cells import file_size, plain_table
from .nir_lines import nir_lines
from .report import ladder
from .results import NirExport


def exported(found: NirExport, console: Console) -> None:
    """Print the nodes of the file, its checks, and what is left to whoever runs it."""
    console.print(_layers(found))
    console.print()
    console.print(ladder(found.figures))
    console.print()
    for note in (*nir_lines(found), *found.notes):
        console.print(Text(f"note: {note}", style="dim"))
    console.print(Text(_headline(found), style="bold"))


def _layers(found: NirExport) -> object:
    table = plain_table("Neuron layers")
    for name in ("layer", "IF node", "shape"):
        table.add_column(name, overflow="fold")
    for layer in found.layers:
        shape = "x".join(str(size) for size in layer.shape)
        table.add_row(Text(layer.name), Text(layer.node), shape)
    return table


def _headline(found: NirExport) -> str:
    nodes = ", ".join(f"{count} {kind}" for kind, count in found.output.nodes.items())
    size = file_size(found.output.bytes)
    return f"{found.output.path}: {nodes}; {size}, for {found.target}, all checks passed"
