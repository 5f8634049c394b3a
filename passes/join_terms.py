"""Several convolutions that are added become one, over their inputs side by side.

Cases:

* two dense layers: their inputs joined;
* convolutions of equal stride: the smaller kernel in the larger one's window, zeros around it;
* a 1x1 convolution with a stride beside one of stride 1: its input is thinned out first;
* anything else (groups, unlike dilations or strides): not joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from na_convert.integer import Window
from na_convert.integer_moves import Move

from .count_values import Counts, Term


def join(name: str, terms: Sequence[Term]) -> tuple[Term, list[Move]] | None:
    """The one term that is the sum of ``terms``, and the moves that make its input.

    ``name`` begins the names of new tensors. None where they cannot be joined.
    """
    if len(terms) == 1:
        return terms[0], []
    if all(term.window is None for term in terms):
        return _side_by_side(name, list(terms), None, [])
    if any(term.window is None or term.window.group != 1 for term in terms):
        return None
    thinned, moves = _thin_out(name, terms)
    windows = [term.window for term in thinned if term.window is not None]
    if len({w.strides for w in windows}) > 1 or len({t.source.shape[1:] for t in thinned}) > 1:
        return None
    if any(d != 1 for w, t in zip(windows, thinned, strict=True)
           for d, k in zip(w.dilations, t.weight.shape[2:], strict=True) if k > 1):  # fmt: skip
        return None
    return _in_one_window(name, thinned, windows, moves)


def _thin_out(name: str, terms: Sequence[Term]) -> tuple[list[Term], list[Move]]:
    """1x1 convolutions with a stride, beside others of stride 1, read every s-th pixel instead."""
    dense = any(term.window is not None and set(term.window.strides) == {1} for term in terms)
    thinned, moves = [], []
    for index, term in enumerate(terms):
        window, kernel = term.window, term.weight.shape[2:]
        assert window is not None
        pointwise = set(kernel) == {1} and not any(window.pads)
        if not dense or set(window.strides) == {1} or not pointwise:
            thinned.append(term)
            continue
        axes = list(range(2, 2 + len(kernel)))
        everything = [np.iinfo(np.int64).max] * len(axes)
        constants = ([0] * len(axes), everything, axes, list(window.strides))
        move = Move(f"{name}_thinned_{index}", "Slice", (term.source.name,), {},
                    tuple(np.asarray(c, np.int64) for c in constants))  # fmt: skip
        moves.append(move)
        space = tuple(
            -(-n // s) for n, s in zip(term.source.shape[1:], window.strides, strict=True)
        )
        source = replace(term.source, name=move.output, shape=(term.source.shape[0], *space))
        plain = Window((1,) * len(axes), (0,) * 2 * len(axes), (1,) * len(axes))
        thinned.append(Term(source, term.weight, plain))
    return thinned, moves


def _in_one_window(
    name: str, terms: list[Term], windows: list[Window], moves: list[Move]
) -> tuple[Term, list[Move]] | None:
    rank, strides = len(windows[0].strides), windows[0].strides
    space = terms[0].source.shape[1:]
    begins = [max(w.pads[i] for w in windows) for i in range(rank)]
    offsets = [[begins[i] - w.pads[i] for i in range(rank)] for w in windows]
    kernel = [
        max(o[i] + t.weight.shape[2 + i] for o, t in zip(offsets, terms, strict=True))
        for i in range(rank)
    ]
    sizes = {_output_size(t, w) for t, w in zip(terms, windows, strict=True)}
    if len(sizes) > 1:
        return None
    size = sizes.pop()
    ends = [
        max(0, (size[i] - 1) * strides[i] + kernel[i] - space[i] - begins[i]) for i in range(rank)
    ]
    window = Window(strides, (*begins, *ends), (1,) * rank)
    widened = []
    for term, offset in zip(terms, offsets, strict=True):
        weight = np.zeros((*term.weight.shape[:2], *kernel))
        where = tuple(slice(o, o + k) for o, k in zip(offset, term.weight.shape[2:], strict=True))
        weight[(slice(None), slice(None), *where)] = term.weight
        widened.append(Term(term.source, weight, window))
    return _side_by_side(name, widened, window, moves)


def _output_size(term: Term, window: Window) -> tuple[int, ...]:
    rank = len(window.strides)
    sizes = []
    for i, (n, k) in enumerate(zip(term.source.shape[1:], term.weight.shape[2:], strict=True)):
        extent = window.dilations[i] * (k - 1) + 1
        room = n + window.pads[i] + window.pads[rank + i] - extent
        sizes.append(room // window.strides[i] + 1)
    return tuple(sizes)


def _side_by_side(
    name: str, terms: list[Term], window: Window | None, moves: list[Move]
) -> tuple[Term, list[Move]]:
    output = f"{name}_joined"
    joined = Move(output, "Concat", tuple(t.source.name for t in terms), {"axis": 1})
    shape = (sum(t.source.shape[0] for t in terms), *terms[0].source.shape[1:])
    nothing = np.zeros(())
    source = Counts(output, shape, nothing, nothing, max(t.source.most for t in terms))
    weight = np.concatenate([t.weight for t in terms], axis=1)
    return Term(source, weight, window), [*moves, joined]
