"""What inference costs in arithmetic: the ANN in float, the ANN at its own bits, and the SNN.

Operations are counted exactly (`connectivity`); their energy is a model. The constants are those of
45 nm CMOS at 0.9 V, 32-bit float (Horowitz, "Computing's energy problem", ISSCC 2014): a
multiplication 3.7 pJ and an addition 0.9 pJ, so a multiply-accumulate 4.6 pJ. Memory, neuron
updates and routing of spikes are not in it, and often cost more.
"""

from __future__ import annotations

from dataclasses import dataclass

from .choices import AC_PJ, MAC_PJ
from .connectivity import Work
from .errors import UsageError
from .results import Energy, OperatorWork

SOURCE = "45 nm, 32-bit float, Horowitz, ISSCC 2014"


@dataclass(frozen=True)
class Constants:
    """Energy of a multiply-accumulate and of an accumulate, in picojoules."""

    mac_pj: float = MAC_PJ
    ac_pj: float = AC_PJ

    def __post_init__(self) -> None:
        for option, value in (("--energy-mac", self.mac_pj), ("--energy-ac", self.ac_pj)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{option} {value:g}: an energy in picojoules is needed")

    @property
    def source(self) -> str:
        return SOURCE if (self.mac_pj, self.ac_pj) == (MAC_PJ, AC_PJ) else "as given"


DEFAULT = Constants()


def estimate(work: Work, constants: Constants, timesteps: int, layers: int) -> Energy:
    """Energy per sample of ``work``, for ``layers`` neuron layers run for ``timesteps``."""
    operators = work.operators
    ann, snn = sum(o.ann_macs for o in operators), sum(o.snn_macs for o in operators)
    synaptic = sum(o.synaptic_operations for o in operators)
    return Energy(
        mac_pj=constants.mac_pj,
        ac_pj=constants.ac_pj,
        source=constants.source,
        ann_macs=ann,
        snn_macs=snn,
        synaptic_operations=synaptic,
        ann_nj=ann * constants.mac_pj / 1000,
        bit_matched_nj=sum(o.ann_macs * _bit_matched(o, constants) for o in operators) / 1000,
        snn_nj=(snn * constants.mac_pj + synaptic * constants.ac_pj) / 1000,
        latency_steps=timesteps,
        pipelined_steps=timesteps + layers - 1,
        operators=operators,
        not_counted=work.uncounted,
    )


def _bit_matched(operator: OperatorWork, constants: Constants) -> float:
    """A weight times b bits is b shifted additions; never dearer than a multiplication."""
    if operator.bits is None:
        return constants.mac_pj
    return min(operator.bits * constants.ac_pj, constants.mac_pj)
