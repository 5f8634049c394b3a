"""What some neurons did on the first sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TracedNeuron:
    """One neuron: its number in the layer and place in its shape, and why it was chosen.

    ``membrane``: at the start, then before the reset at each step, in thresholds.
    """

    neuron: int
    place: tuple[int, ...]
    why: str
    membrane: tuple[float, ...]


@dataclass(frozen=True)
class ExcerptLayer:
    """What some neurons of a layer did on the first sample: ``spikes``, a row for each of
    ``neurons``, at each of ``timesteps`` steps; ``why`` the layer was chosen."""

    name: str
    why: str
    timesteps: int
    neurons: tuple[int, ...]
    spikes: tuple[tuple[bool, ...], ...]
    traced: tuple[TracedNeuron, ...]
