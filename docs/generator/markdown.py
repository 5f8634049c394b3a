"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells must not hold line breaks."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """``text`` as code in a line or a cell of a table."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def text_of(words: str) -> str:
    """``words`` as text in a cell: nothing in them but code in backticks means anything."""
    parts = words.replace("|", "\\|").split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;") for i, p in enumerate(parts))


def plain(docstring: str) -> str:
    """A docstring's text: ``code`` and `name` are code, and its lists and lines are kept."""
    return re.sub(r"``([^`]+)``", r"`\1`", docstring)


def page(title: str, *parts: str) -> str:
    """A page from its title and parts, which are separated by empty lines."""
    made = "Written by `python docs/generate.py` from the code; a test compares the two."
    return "\n\n".join([f"# {title}", made, *(part for part in parts if part)]) + "\n"
