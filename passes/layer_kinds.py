"""What kind of integer layer a sum can become, and why it becomes none (`quantise_weights`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from na_convert.integer import Window

from .count_values import NoIntegerForm, Sum, Term, by_channel

UNLIKE = "its thresholds differ within a channel"


def is_constant(current: Sum) -> bool:
    alone = len(current.analogs) == 1 and not (current.terms or current.identities)
    return alone and not np.any(current.bias) and current.pool is None


def adds_unlike(current: Sum, shape: tuple[int, ...]) -> bool:
    """Whether a shortcut needs more than one number per channel."""
    return any(by_channel(gain * c.scale, shape) is None for c, gain in current.identities)


def misfit(current: Sum, shape: tuple[int, ...]) -> NoIntegerForm:
    """Why a layer of ``shape`` with ``current`` is neither narrow nor wide."""
    if adds_unlike(current, shape):
        return NoIntegerForm("adds spikes that are worth unlike amounts within a channel")
    if any(term.window is None for term in current.terms):
        if current.analogs:
            return NoIntegerForm("adds an analog current to the sum of a dense layer")
        return NoIntegerForm(
            "adds counts, at a ratio that no uint8 holds, to the sum of a dense layer",
            "fewer time steps (-T 127 at most), equal thresholds (--tie-shortcuts always), or "
            "float weights (--weights float)",
        )
    return NoIntegerForm("its sums do not fit into float32 whole numbers, even with 4-bit weights")


def is_larger(term: Term) -> bool:
    """Whether a shortcut's channels beside this convolution's inputs add little to its cost."""
    return term.window is not None and term.window.group == 1 and term.weight[0, 0].size >= 4


def with_a_term(current: Sum) -> Sum:
    """Counts without a convolution beside them: the first becomes one, channel by channel."""
    if current.terms or not current.identities:
        return current
    (counts, gain), *others = current.identities
    worth = by_channel(gain * counts.scale, counts.shape)
    rank = len(counts.shape) - 1
    if worth is None or rank < 1:
        return current
    channels = counts.shape[0]
    ones, zeros = (1,) * rank, (0,) * 2 * rank
    weight = worth.reshape(channels, 1, *ones)
    term = Term(counts, weight, Window(ones, zeros, ones, channels))
    return replace(current, terms=(term,), identities=tuple(others))
