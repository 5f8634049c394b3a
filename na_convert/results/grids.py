"""Networks on grids: the proof of the same counts, and what rounding changed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SnappedLayer:
    """Weights that were rounded to multiples of 2^grid, and by how much: root mean square, relative
    to that of the weights."""

    name: str
    weight_error: float
    grid: int


@dataclass(frozen=True)
class Exactness:
    """Whether every engine computes the same counts, proven from the weights.

    Attributes:
        timesteps: up to which no sum, membranes included, can leave the exact range of float32.
        bounds: of the network's inputs, for which that holds, by name.
        reason: why the network is not on grids.
    """

    exact: bool
    timesteps: int
    bounds: dict[str, float] = field(default_factory=dict)
    layers: tuple[SnappedLayer, ...] = ()
    reason: str | None = None

    @property
    def worst(self) -> SnappedLayer | None:
        """The layer whose weights changed most."""
        return max(self.layers, key=lambda layer: layer.weight_error, default=None)


@dataclass(frozen=True)
class Rounding:
    """What putting the weights on grids did to the ANN: levels that flip where both get the same
    values layer by layer, and on all samples the classes and accuracies, 0 to 1."""

    levels: int
    flips: int
    agreement: float
    accuracy_before: float | None
    accuracy: float | None


@dataclass(frozen=True)
class InputRange:
    """Values of the input ``name`` beside those for which identical counts are proven.

    Attributes:
        bound: the largest absolute value that is proven; ``largest``: that of the data.
        beyond: how many of the ``samples`` hold a larger one.
    """

    name: str
    bound: float
    largest: float
    beyond: int
    samples: int
