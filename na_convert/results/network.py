"""Layers of neurons, and what the passes did or could not do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skip:
    """Something a pass could have changed and did not, with the reason."""

    node: str
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A node that cannot be part of a spiking network: why, and what to do about it.

    Attributes:
        nodes: all that make up the function it stands for, in order; empty where it stands for
            itself. `explain` shows such a function.
    """

    node: str
    op: str
    reason: str
    remedy: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PassReport:
    """What one pass did; the pipeline's check fills in the errors (None: not checked)."""

    name: str
    changed: int
    skipped: tuple[Skip, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    max_abs_error: float | None = None
    max_rel_error: float | None = None


@dataclass(frozen=True)
class Neuron:
    """One layer of integrate-and-fire neurons and the activation it stands for.

    Attributes:
        name: of the IF node.
        root: the ANN's tensor that the activation was a function of (its pre-activation).
        output: the ANN's tensor that held the activation's value.
        kind: "staircase", "clip" or "relu".
        threshold: a neuron fires when its membrane reaches it; number, or list per channel.
        amplitude: the value of one spike; number, or list per channel.
        input_step, output_step: width and height of a stair (d and s); None for clip and relu.
        levels: stairs above the lowest level (p); None for clip and relu.
        lowest_level: the lowest level (lo), in output steps.
        phase: phi in ``s * (lo + clip(floor(x / d + phi - lo), 0, p))``.
        tie_rule: how the ANN rounds halves: "half_even", "half_up", "half_away", "floor", ...
        constant_input: True where the current is the same at every time step.
        shape: of one sample's layer, without the batch.
        bias_shift: what calibration added to the current, per channel; None: nothing.
        current_scale, output_scale: current and output in the SNN, as multiples of the ANN's; a
            network on grids (`Exactness`) has threshold 1 and spikes of 1 inside.
    """

    name: str
    root: str
    output: str
    kind: str
    threshold: float | list[float]
    amplitude: float | list[float]
    input_step: float | list[float] | None
    output_step: float | list[float] | None
    levels: int | None
    lowest_level: float | list[float]
    phase: float | list[float]
    tie_rule: str
    constant_input: bool
    shape: tuple[int, ...]
    bias_shift: list[float] | None = None
    current_scale: float | list[float] = 1.0
    output_scale: float | list[float] = 1.0
