"""A helper for test suites: is this SNN still what that ANN converts to?

from na_convert.testing import assert_equivalent

def test_the_spiking_network() -> None:
    assert_equivalent("model.onnx", "model.snn.onnx", "images.npz", max_drop=0.02)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckFailed

if TYPE_CHECKING:
    from .data import Preprocessing
    from .results import Equivalence, Result


def assert_equivalent(
    ann: str | Path,
    snn: str | Path,
    data: str | Path | Mapping[str, Any],
    *,
    timesteps: Sequence[int] = (),
    min_agreement: float | None = None,
    max_drop: float | None = None,
    checks: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
) -> Result:
    """Run `na_convert.check`, with the same arguments; the result, for more assertions.

    Raises AssertionError that lists every figure beyond its limit with the limit that would have
    passed, and the advice; UsageError, ModelError or DataError where something given cannot be
    used.
    """
    __tracebackhide__ = True
    from .api import check

    try:
        return check(
            ann, snn, data=data, timesteps=timesteps, preprocessing=preprocessing,
            min_agreement=min_agreement, max_drop=max_drop, checks=checks,
        )  # fmt: skip
    except CheckFailed as error:
        found = error.result.equivalence if error.result is not None else None
        raise AssertionError(_report(error, found)) from None


def _report(error: CheckFailed, found: Equivalence | None) -> str:
    lines = [str(error)]
    if found is not None:
        lines += [
            f"  {figure.name}: {figure.value:.4g}, limit {figure.limit:.4g}: {figure.detail}"
            for figure in found.figures
            if not figure.passed
        ]
        if found.diagnosis is not None and found.diagnosis.advice:
            lines.append(f"  advice: {found.diagnosis.advice}")
    return "\n".join(lines)
