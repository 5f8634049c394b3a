"""A program as a C header: constant arrays and a table of operations.

examples/c/reference.c runs it.
All weights lie in ``na_weights`` (int8), all other numbers in ``na_numbers`` (int32); operations
refer to them by index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .program import Layer, Move, Program

_PER_LINE = 24

_TYPES = """
typedef struct {                /* a convolution; what lies outside the image counts 0 */
  int source;                   /* in the memory: counts [group * depth, size] */
  int weight;                   /* in na_weights: [channels, depth, kernel] */
  int depth, group;
  int size[2], kernel[2], strides[2], pads[2], dilations[2], made[2];
} na_product;

typedef struct { int source, times; } na_shortcut; /* times: in na_numbers, one per channel */

typedef struct {
  const char *name;
  int output, size;             /* in the memory: the counts it makes */
  int table, places;            /* in na_numbers: [size, places], -1 is no place; places 0: none */
  int adds;                     /* a move: 1 adds up the places, 0 takes the largest */
  int channels, sums;           /* neurons: numbers that it sums; channels 0: a move */
  int bias, biases;             /* in na_numbers: sums / biases of them share one */
  int threshold, resolution;    /* in na_numbers: one per channel */
  int products[2], shortcuts[2], currents[2]; /* the first, and how many */
} na_operation;
"""


def header(program: Program, source: str) -> str:
    """The text of the header; ``source`` names what it was made from."""
    return _Header(program).text(source)


class _Header:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._weights: list[NDArray[Any]] = []
        self._numbers: list[NDArray[Any]] = []
        self._ends = {"weights": 0, "numbers": 0}
        self._products: list[str] = []
        self._shortcuts: list[str] = []
        self._currents: list[str] = []

    def text(self, source: str) -> str:
        program = self._program
        operations = [
            self._layer(op) if isinstance(op, Layer) else self._move(op)
            for op in program.operations
        ]
        layers = program.layers
        sums = max(prod(layer.summed) for layer in layers)
        sizes = {
            "TIMESTEPS": (program.timesteps, "up to here nothing overflows"),
            "INPUTS": (program.inputs, "numbers in the analog currents of a step"),
            "MEMORY": (program.memory, "counts"),
            "SUMS": (sums, "numbers that the largest layer sums"),
            "NEURONS": (sum(layer.size for layer in layers), "in all layers"),
            "OPERATIONS": (len(operations), ""),
        }
        defines = [f"#define NA_{k} {v}" + (f" /* {c} */" if c else "") for k, (v, c) in
                   sizes.items()]  # fmt: skip
        return "\n".join(
            [
                f"/* Integer spiking network {_plain(source)}, written by na-convert "
                f"{__version__}.",
                "   Layout: docs/hardware.md; examples/c/reference.c runs it. */",
                "#ifndef NA_NETWORK_H",
                "#define NA_NETWORK_H",
                "#include <stdint.h>",
                "",
                *defines,
                _TYPES,
                _array("int8_t na_weights", self._weights),
                _array("int32_t na_numbers", self._numbers),
                _table("na_product na_products", self._products),
                _table("na_shortcut na_shortcuts", self._shortcuts),
                _table("int na_currents", self._currents),
                _table("na_operation na_operations", operations),
                "#endif",
                "",
            ]
        )

    def _move(self, move: Move) -> str:
        table = self._keep(move.table)
        return _entry(move.name, move.output, len(move.table), table, move.table.shape[1],
                      int(move.adds), 0, 0, 0, 0, 0, 0, "{0,0}", "{0,0}", "{0,0}")  # fmt: skip

    def _layer(self, layer: Layer) -> str:
        first = [len(self._products), len(self._shortcuts), len(self._currents)]
        for p in layer.products:
            weight, self._ends["weights"] = (
                self._ends["weights"],
                (self._ends["weights"] + p.weight.size),
            )
            self._weights.append(p.weight.reshape(-1))
            pairs = (p.size, p.weight.shape[2:], p.strides, p.pads, p.dilations, p.made)
            numbers = [p.source, weight, p.weight.shape[1], p.group, *map(_braces, pairs)]
            self._products.append(_braces(numbers))
        for s in layer.shortcuts:
            self._shortcuts.append(_braces([s.source, self._keep(s.times)]))
        self._currents += [str(offset) for offset in layer.currents]
        counts = (len(layer.products), len(layer.shortcuts), len(layer.currents))
        parts = [_braces(pair) for pair in zip(first, counts, strict=True)]
        table, places = 0, 0
        if layer.window is not None:
            table, places = self._keep(layer.window), layer.window.shape[1]
        return _entry(
            layer.name, layer.output, layer.size, table, places, 0, layer.shape[0],
            prod(layer.summed), self._keep(layer.bias), len(layer.bias),
            self._keep(layer.threshold), layer.resolution, *parts,
        )  # fmt: skip

    def _keep(self, numbers: NDArray[np.int32]) -> int:
        """Put numbers into ``na_numbers``; where they begin."""
        start = self._ends["numbers"]
        self._numbers.append(numbers.reshape(-1))
        self._ends["numbers"] += numbers.size
        return start


def _entry(name: str, *numbers: int | str) -> str:
    return _braces([f'"{_plain(name)}"', *numbers])


def _braces(values: Iterable[object]) -> str:
    return "{" + ",".join(str(value) for value in values) + "}"


def _plain(name: str) -> str:
    """A name that is safe in a string and in a comment: printable ASCII, the rest as ``_``."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\?*' else "_" for c in name)


def _array(declared: str, arrays: Sequence[NDArray[Any]]) -> str:
    values = np.concatenate(arrays).tolist() if arrays else []
    texts = [str(value) for value in values] or ["0"]
    rows = [",".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
    return f"static const {declared}[] = {{\n" + ",\n".join(rows) + "};\n"


def _table(declared: str, rows: Sequence[str]) -> str:
    """One row a line; C has no empty arrays, so that one of zeros stands where there is none."""
    empty = "0" if declared.startswith("int ") else "{0}"
    return f"static const {declared}[] = {{\n" + ",\n".join(rows or [empty]) + "};\n"
