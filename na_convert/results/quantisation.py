"""The network on integers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class QuantisedLayer:
    """What became of one layer's weights as integers.

    Attributes:
        bits: of its weights; 0 where the current is constant and there are none.
        weight_error: relative, root of the mean square; 0 where the weights were integers already.
        threshold_error: largest relative change of a threshold.
        on_grid: output channels whose weights were integers already, of ``channels``.
        resolution: at which shortcuts are added (1: as they are, or there are none).
        shortcut_error: what shortcuts are off by, in thresholds, at half the largest count.
        wide: computed in float32 on whole numbers, not in int8.
        largest_sum: of the layer in the worst case, in units of its weights.
        thresholds: the smallest and the largest of its channels, in the same units.
    """

    name: str
    bits: int
    weight_error: float
    threshold_error: float
    on_grid: int
    channels: int
    resolution: int
    shortcut_error: float
    wide: bool
    largest_sum: int
    thresholds: tuple[int, int]


@dataclass(frozen=True)
class Quantisation:
    """The network on integers.

    Attributes:
        tied: whether thresholds along identity shortcuts were made equal, and ``why``.
        raised: by layer, the largest factor by which a threshold was raised for that.
        measured: what decided, "accuracy" or "agreement" at T, if it was measured on data;
            ``score`` without and ``tied_score`` with tied thresholds, from 0 to 1.
        corrected: whether biases make up for the mean error of rounding, on the user's data.
    """

    layers: tuple[QuantisedLayer, ...]
    tied: bool
    why: str
    raised: dict[str, float] = field(default_factory=dict)
    corrected: bool = False
    measured: str | None = None
    score: float | None = None
    tied_score: float | None = None
