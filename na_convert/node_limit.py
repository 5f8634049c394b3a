"""A file of more nodes than na-convert reads (`model_guard.MOST_NODES`) is not written either.

The unrolled forms get there by their time steps, as they hold the nodes of every one; any form by
very many layers, as local functions count as the nodes they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .errors import UsageError
from .forms import unrolled
from .graph import Parts
from .model_guard import MOST_NODES, count_nodes
from .snn import Snn

_SURELY_BUILT = 16  # time steps; more are extrapolated first


def parts_within_limit(parts_of: Callable[[Snn], Parts], snn: Snn, form: str) -> Parts:
    """What ``parts_of`` makes of ``snn``; the nodes of many time steps are counted before they are
    made.

    Raises UsageError where they are more than na-convert reads.
    """
    if snn.timesteps > _SURELY_BUILT:
        two, three = (count_nodes(parts_of(replace(snn, timesteps=t)).light) for t in (2, 3))
        each = three - two
        fitting = (MOST_NODES - two) // each + 2 if each else snn.timesteps
        _require(two + (snn.timesteps - 2) * each, snn.timesteps, form, fitting)
    parts = parts_of(snn)
    require_few_nodes(parts, snn.timesteps, form)
    return parts


def require_few_nodes(parts: Parts, timesteps: int, form: str) -> None:
    """Raise UsageError where the file of ``parts`` would not be read again."""
    _require(count_nodes(parts.light), timesteps, form, None)


def _require(nodes: int, timesteps: int, form: str, fitting: int | None) -> None:
    if nodes <= MOST_NODES:
        return
    raise UsageError(
        f"--form {form} at T = {timesteps} would have {nodes} nodes, local functions inlined, and "
        f"na-convert reads files of at most {MOST_NODES}",
        remedy=_remedy(form, fitting),
    )


def _remedy(form: str, fitting: int | None) -> str:
    if form != unrolled.FORM:
        return "the network has too many layers for this form: try another --form, or fewer layers"
    fewer = "fewer time steps" if fitting is None or fitting < 1 else f"-T {fitting} at most"
    return f"{fewer}, or another --form: only this one holds the nodes of each time step"
