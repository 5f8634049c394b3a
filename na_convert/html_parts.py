"""Pieces of an HTML page: sections, figures with captions, tables that scroll by themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .html_style import STYLE


@dataclass(frozen=True)
class Section:
    """A part of the page: ``body`` is HTML; it is left out where that is empty."""

    key: str
    heading: str
    body: str


def page(title: str, header: str, sections: Sequence[Section], footer: str) -> str:
    """One self-contained file: no script, nothing from the network."""
    shown = [section for section in sections if section.body]
    links = "".join(f'<li><a href="#{s.key}">{escape(s.heading)}</a></li>' for s in shown)
    body = "".join(
        f'<section id="{s.key}" aria-labelledby="{s.key}-heading">'
        f'<h2 id="{s.key}-heading">{escape(s.heading)}</h2>{s.body}</section>\n'
        for s in shown
    )
    nav = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if links else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>{header}{nav}</header>\n<main>\n{body}</main>\n"
        f"<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{text}</p>' if style else f"<p>{text}</p>"


def figure(drawing: str, caption: str, legend: Sequence[tuple[str, str]] = ()) -> str:
    """``drawing`` is an ``<svg>``, ``caption`` HTML; ``legend``: (class, name) of its colours."""
    items = "".join(
        f'<li><span class="swatch {style}"></span>{escape(name)}</li>' for style, name in legend
    )
    listed = f'<ul class="legend">{items}</ul>' if items else ""
    return f"<figure>{listed}{drawing}<figcaption>{caption}</figcaption></figure>\n"


def charts(*figures: str) -> str:
    """Figures side by side where there is room."""
    shown = [each for each in figures if each]
    return f'<div class="charts">{"".join(shown)}</div>' if shown else ""


@dataclass(frozen=True)
class Row:
    """Cells of a table, the first of which names the row; ``style`` is a class."""

    cells: Sequence[str]
    style: str = ""


def table(
    headings: Sequence[str],
    rows: Sequence[Row],
    caption: str,
    *,
    brief: Sequence[int] = (),
    words: Sequence[int] = (),
    wide: bool = False,
) -> str:
    """A table in a box that scrolls by itself, and its caption (HTML) above it.

    Columns hold numbers, except the first, those in ``brief`` (a word) and in ``words`` (text).
    """
    kinds = {0: "", **dict.fromkeys(brief, "brief"), **dict.fromkeys(words, "words")}
    styles = [kinds.get(index, "number") for index in range(len(headings))]
    head = "".join(
        f'<th scope="col"{_class(style)}>{escape(name)}</th>'
        for name, style in zip(headings, styles, strict=True)
    )
    body = "".join(_row(row, styles) for row in rows)
    label = escape(_plain(caption))
    return (
        f'<figure class="table{" wide" if wide else ""}"><figcaption>{caption}</figcaption>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table aria-label="{label}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div></figure>\n"
    )


def _row(row: Row, styles: Sequence[str]) -> str:
    first, *others = row.cells
    cells = f'<th scope="row">{escape(first)}</th>'
    cells += "".join(
        f"<td{_class(style)}>{escape(cell)}</td>"
        for cell, style in zip(others, styles[1:], strict=True)
    )
    return f"<tr{_class(row.style)}>{cells}</tr>"


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def _plain(html: str) -> str:
    """Its first sentence without the elements, for an attribute."""
    return re.sub(r"<[^>]+>", "", html).split(". ")[0].rstrip(".")


def details(summary: str, body: str) -> str:
    """Folded away; open on paper is not needed: the same is in the figures."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """The figures that matter most: name, value, and a line below."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(below)}</small></dd></div>"
        for name, value, below in entries
    )
    return f'<dl class="cards">{items}</dl>'
