"""How a layer of integrate-and-fire neurons may behave, step by step: ours, and what others do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Reset: TypeAlias = Literal["subtract", "zero", "twice"]


@dataclass(frozen=True)
class Law:
    """One step: ``u = leak * u + current``, a spike, a reset. The defaults are our neuron.

    Attributes:
        reset: after a spike ``subtract`` the threshold (soft reset), or set the membrane to
            ``zero``. ``twice``: as ``subtract``, but what is still above the threshold after a
            spike is lowered once more while the next step decides whether to fire.
        strict: fires above the threshold only, not at it.
        many: ``floor(u / threshold)`` spikes in one step instead of one.
        floor: least membrane after each step, in thresholds; None for no bound.
        leak: what is left of the membrane after a step.
        blank: starts at 0, whatever membrane the file asks for.
    """

    reset: Reset = "subtract"
    strict: bool = False
    many: bool = False
    floor: float | None = None
    leak: float = 1.0
    blank: bool = False

    @property
    def deviations(self) -> tuple[str, ...]:
        """The names of the attributes that are not ours."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def only(self, name: str) -> Law:
        """Our neuron with this one attribute of ``self``."""
        changed: dict[str, Any] = {name: getattr(self, name)}
        return Law(**changed)


OURS = Law()


def describe(law: Law, name: str) -> str:
    """The deviation called ``name`` in words."""
    words: Mapping[str, str] = {
        "reset": _RESETS[law.reset],
        "strict": "fires above the threshold, not at it",
        "many": "several spikes in one step",
        "floor": f"membrane clipped below at {law.floor or 0:g} thresholds",
        "leak": f"leak: {law.leak:g} of the membrane is left after a step",
        "blank": "starts at 0, not at the membrane that the file asks for",
    }
    return words[name]


_RESETS: Mapping[str, str] = {
    "subtract": "reset by subtraction",
    "zero": "reset to zero, not by subtraction",
    "twice": "subtracts once more before it fires where the membrane stayed above the threshold",
}


def fire(law: Law, currents: Array, threshold: Array, initial: Array) -> Array:
    """Spikes [T, ...] of neurons with ``currents`` [T, ...], in the arithmetic of ``currents``.

    ``threshold`` and ``initial`` broadcast against one step.
    """
    dtype = currents.dtype
    theta = threshold.astype(dtype)
    start = np.zeros_like(initial) if law.blank else initial
    membrane = np.broadcast_to(start, currents.shape[1:]).astype(dtype)
    leak, spikes = dtype.type(law.leak), np.empty_like(currents)
    for now, current in zip(spikes, currents, strict=True):
        charged = membrane * leak + current if law.leak != 1 else membrane + current
        if law.reset == "twice":
            still = _spikes(law, membrane, theta)
            lowered = charged - still * theta
            now[...] = _spikes(law, lowered, theta)
            membrane = lowered - (now - still) * theta
        else:
            now[...] = _spikes(law, charged, theta)
            hard = law.reset == "zero"
            membrane = np.where(now > 0, dtype.type(0), charged) if hard else charged - now * theta
        if law.floor is not None:
            low = law.floor * theta
            membrane = np.maximum(membrane - low, 0) + low
    return spikes


def _spikes(law: Law, membrane: Array, theta: Array) -> Array:
    if law.many:
        found: Array = np.where(membrane > 0, np.trunc(membrane / theta), 0)
        if law.strict:
            found -= (found > 0) & (found * theta == membrane)
        return found
    reached: Array = membrane > theta if law.strict else membrane >= theta
    return reached.astype(membrane.dtype)
