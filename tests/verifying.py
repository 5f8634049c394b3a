"""The ladder as a conversion climbs it: `measure`, and an error where a rung breaks."""

from __future__ import annotations

from typing import Any

from na_convert.compare import measure
from na_convert.results import Equivalence
from na_convert.rungs import failure


def verify(*stages: Any, **options: Any) -> Equivalence:
    """`compare.measure`; raises CheckFailed at the first rung that broke its limit."""
    found = measure(*stages, **options)
    error = failure(found.figures)
    if error is not None:
        raise error
    return found
