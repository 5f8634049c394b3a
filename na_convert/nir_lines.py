"""What whoever runs a NIR file has to know."""

from __future__ import annotations

from .cells import percent
from .results import NirExport


def nir_lines(found: NirExport) -> list[str]:
    """One line each: what is left to do, what the reader does differently, what was measured."""
    return [
        *found.statements,
        f"measured: {percent(found.other_counts)} of the counts differ from the SNN's at T = "
        f"{found.timesteps}, and {percent(found.agreement)} of {found.samples} samples get the "
        "same class, with neurons that are reset by subtraction",
    ]
