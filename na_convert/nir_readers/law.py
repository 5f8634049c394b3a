"""How a layer of integrate-and-fire neurons may behave, step by step: ours, and what others do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, product
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


# --- which law ------------------------------------------------------------------------------------

_ALTERNATIVES: Mapping[str, tuple[Any, ...]] = {
    "reset": ("zero", "twice"),
    "strict": (True,),
    "many": (True,),
    "floor": (0.0, -1.0),
    "leak": (0.9, 0.5, 0.8, 0.95, 0.99),
    "blank": (True,),
}
_MOST = 4  # deviations at once


def candidates() -> Iterator[Law]:
    """Every law that is looked for, those with fewer deviations first; ours is the first."""
    for count in range(_MOST + 1):
        for names in combinations(_ALTERNATIVES, count):
            for values in product(*(_ALTERNATIVES[name] for name in names)):
                law = Law(**dict(zip(names, values, strict=True)))
                if not (law.many and law.reset != "subtract"):
                    yield law


@dataclass(frozen=True)
class Observed:
    """What some neurons of one layer were given and did: [T, n] each, parameters [n]."""

    currents: Array
    spikes: Array
    threshold: Array
    initial: Array


def identify(layers: Sequence[Observed]) -> tuple[Law, int]:
    """The law with the fewest deviations that has all these spikes, and how many it has not (0);
    if there is none, the law that comes nearest."""
    best, least = OURS, -1
    for law in candidates():
        wrong = 0
        for seen in layers:
            found = fire(law, seen.currents, seen.threshold, seen.initial)
            wrong += int(np.count_nonzero(found != seen.spikes))
            if 0 <= least <= wrong:
                break
        if least < 0 or wrong < least:
            best, least = law, wrong
        if least == 0:
            break
    return best, least
