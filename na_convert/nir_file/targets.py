"""Readers of NIR: what each is written, what it cannot hold, and what it does differently.

The statements are about the versions that docs/nir-readers.md names; they are printed and stand in
the file's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import NIR_TARGETS
from ..errors import NotConvertible, UsageError
from ..results import Refusal
from .network import Network


@dataclass(frozen=True)
class Target:
    """A reader of NIR.

    Attributes:
        membrane: how it is given the membrane before the first step, unless asked for otherwise.
        averages: pools are written as AvgPool2d, since it reads no SumPool2d.
        unreadable: kinds of nodes that it does not read, and why.
        differences: what it does otherwise than the SNN.
    """

    membrane: str
    averages: bool = False
    unreadable: tuple[tuple[str, str], ...] = ()
    differences: tuple[str, ...] = ()


_HARD = "a neuron that fires loses its whole membrane (hard reset), not one threshold of it"
_STRICT = (
    "a neuron fires above its threshold (>), not at it: counts differ where a membrane is equal"
)
_START = "membranes start at 0"

TARGETS: dict[str, Target] = {
    "generic": Target(
        "metadata",
        differences=(
            "on paper NIR's IF fires above the threshold (>) and is reset to v_reset; this network "
            "fires at the threshold (>=) and loses one threshold (soft reset)",
        ),
    ),
    "sinabs": Target(
        "bias",
        unreadable=(("Conv1d", "sinabs.from_nir fails on Conv1d"),),
        differences=(
            _START,
            "membranes are clipped below at minus one threshold",
            "a neuron may fire several spikes in one step, one for each threshold reached",
        ),
    ),
    "norse": Target(
        "bias",
        unreadable=(("Conv1d", "norse.torch.from_nir reads no Conv1d"),),
        differences=(_START, _HARD, _STRICT),
    ),
    "snntorch": Target(
        "bias",
        averages=True,
        unreadable=(("Conv1d", "snntorch.import_nir reads no Conv1d"),),
        differences=(_START, "membranes leak: a tenth is lost at each step (beta = 0.9)", _STRICT),
    ),
    "spikingjelly": Target(
        "bias",
        averages=True,
        differences=(_START, _HARD, "import_from_nir needs dt=1, as r is 1"),
    ),
    "lava": Target("bias"),
    "spinnaker2": Target("bias"),
}


def named(name: str) -> Target:
    """The target called ``name``; raises UsageError where there is none."""
    if name not in TARGETS:
        raise UsageError(f"--target {name}: one of {', '.join(NIR_TARGETS)} is needed")
    return TARGETS[name]


def refuse_unreadable(network: Network, name: str) -> None:
    """Raises NotConvertible, naming the nodes, where the target ``name`` does not read some."""
    reasons = dict(TARGETS[name].unreadable)
    refused = tuple(
        Refusal(node.onnx or label, node.kind, reasons[node.kind], "--target generic")
        for label, node in network.nodes.items()
        if node.kind in reasons
    )
    if refused:
        first = refused[0]
        raise NotConvertible(
            f"{first.node!r} cannot be written for {name}: {first.reason}",
            node=first.node,
            remedy="write it for another reader, --target generic",
            refused=refused,
        )
