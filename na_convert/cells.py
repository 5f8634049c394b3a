"""Pieces of what is printed: empty tables, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from .results import Refusal


def plain_table(title: str | None) -> Table:
    """An empty table as the summary draws them."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        expand=True, pad_edge=False, padding=(0, 1), show_edge=False,
    )  # fmt: skip


def what_to_do(refusal: Refusal) -> str:
    """The remedy of ``refusal``, and where there is more to see of a function that was measured."""
    more = f"\nmore: inspect --explain {refusal.node}" if refusal.nodes else ""
    return refusal.remedy + more


def number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.3g}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def flat(values: Iterable[float | list[float]]) -> list[float]:
    return [v for value in values for v in (value if isinstance(value, list) else [value])]


def value_range(value: float | list[float]) -> str:
    """A number, or the smallest and the largest of several."""
    return range_of(flat([value]))


def range_of(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = _figures(min(values)), _figures(max(values))
    return low if low == high else f"{low} .. {high}"


def _figures(value: float) -> str:
    return f"{value:.4g}"


def shorten(name: str, width: int) -> str:
    """The end of a long name: node names differ there, not at their beginning."""
    return name if len(name) <= width else "…" + name[1 - width :]


def large(value: float) -> str:
    """A number of operations, in thousands, millions or billions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}" if value else "-"


def joules(nanojoules: float) -> str:
    for unit, size in (("mJ", 1e6), ("µJ", 1e3)):
        if nanojoules >= size:
            return f"{nanojoules / size:.3g} {unit}"
    return f"{nanojoules:.3g} nJ"


def file_size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes" if count else ""
