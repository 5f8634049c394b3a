"""Operations per sample, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorWork:
    """Operations per sample in one weighted operator, at `Equivalence.timesteps`.

    Attributes:
        name, op: of the node.
        region: "constant" (before the neurons, the same at every step: computed once), "spiking",
            or "readout" (behind them, on the mean over time: computed once).
        bits: of the activations that go in, in the ANN; None: analog.
        ann_macs: multiply-accumulates in the ANN; those with padding are not counted.
        snn_macs: those left in the SNN, where the input is not spikes.
        synaptic_operations: accumulates in the SNN, one for each spike and connection: the mean
            over samples.
    """

    name: str
    op: str
    region: str
    bits: int | None
    ann_macs: int
    snn_macs: int
    synaptic_operations: float


@dataclass(frozen=True)
class Energy:
    """Estimated energy per sample, of arithmetic alone; docs/verification.md says what is left out.

    Attributes:
        mac_pj, ac_pj: energy of a multiply-accumulate and of an accumulate, in picojoules;
            ``source`` says whose.
        ann_macs, snn_macs, synaptic_operations: sums over ``operators``; of an int8 file, which
            joins operators, what is said of the ANN is of its own.
        ann_nj: the ANN in float: every multiply-accumulate at ``mac_pj``; nanojoules.
        bit_matched_nj: the ANN with its own low-bit activations: a multiplication by b bits is b
            accumulates; analog inputs cost ``mac_pj``.
        snn_nj: synaptic operations at ``ac_pj``, and what is left analog at ``mac_pj``.
        latency_steps: time steps until the output, all layers working within a step.
        pipelined_steps: the same on hardware where a spike takes a step per layer.
        not_counted: operators whose work is not known, and so missing in all figures.
    """

    mac_pj: float
    ac_pj: float
    source: str
    ann_macs: int
    snn_macs: int
    synaptic_operations: float
    ann_nj: float
    bit_matched_nj: float
    snn_nj: float
    latency_steps: int
    pipelined_steps: int
    operators: tuple[OperatorWork, ...]
    not_counted: tuple[str, ...] = ()
