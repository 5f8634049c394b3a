"""What `export` prints of a NIR file."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .cells import file_size, percent, plain_table
from .report import ladder
from .results import NirExport


def exported(found: NirExport, console: Console) -> None:
    """Print the nodes of the file, its checks, and what is left to whoever runs it."""
    console.print(_layers(found))
    console.print()
    console.print(ladder(found.figures))
    console.print()
    for line in lines(found):
        console.print(Text(line))
    for note in found.notes:
        console.print(Text(f"note: {note}", style="dim"))
    console.print(Text(_headline(found), style="bold"))


def lines(found: NirExport) -> list[str]:
    """What whoever runs the file has to know."""
    said = [f"to know: {statement}" for statement in found.statements]
    if found.other_counts is not None and found.agreement is not None:
        said.append(
            f"measured: with this start of the membranes {percent(found.other_counts)} of the "
            f"counts differ from the SNN's at T = {found.timesteps}, and "
            f"{percent(found.agreement)} of {found.samples} samples get the same class"
        )
    return said


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
