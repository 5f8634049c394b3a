"""Results as JSON (``docs/result.schema.json``) for machines."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from . import __version__
from .errors import NaConvertError, NotConvertible
from .results import (
    BiasCalibration,
    Equivalence,
    Neuron,
    NirExport,
    PassReport,
    Result,
    SimulationResult,
    TimestepResult,
)

if TYPE_CHECKING:
    from .explanation import Explanation

Command = Literal["convert", "inspect", "check"]


def to_json(result: Result, command: Command = "convert") -> dict[str, Any]:
    """The JSON object that ``command`` prints; its schema is ``docs/result.schema.json``.

    ``inspect`` leaves out ``equivalence`` and ``output``; ``check`` prints these figures alone:
    ``tool``, ``equivalence`` and ``passed``. Numbers that are not finite become null.
    """
    model = result.model
    entries: dict[str, Any] = {
        "tool": f"na-convert {__version__}",
        "model": {
            "path": model.path,
            "sha256": model.sha256,
            "opset": model.opset,
            "producer": model.producer,
        },
        "timesteps": result.timesteps,
        "form": result.form,
        "neurons": [_neuron_json(neuron) for neuron in result.neurons],
        "refused": [asdict(refusal) for refusal in result.refused],
        "passes": [_pass_json(report) for report in result.passes],
        "equivalence": result.equivalence and _equivalence_json(result.equivalence),
        "output": result.output and _only(asdict(result.output), "path", "bytes", "sha256"),
        "bias_calibration": result.bias_calibration and _bias_json(result.bias_calibration),
        "passed": result.passed,
        "exactness": result.exactness and asdict(result.exactness),
    }
    if result.nir is not None:
        entries["nir"] = nir_json(result.nir)
    if result.quantisation is not None:
        entries["quantisation"] = asdict(result.quantisation)
    if command == "inspect":
        for name in ("equivalence", "output", "exactness", "bias_calibration"):
            del entries[name]
    if command == "check":
        entries = _only(entries, "tool", "equivalence", "passed")
    finite: dict[str, Any] = _finite(entries)
    return finite


def failure_json(
    error: NaConvertError, command: Command = "convert", result: Result | None = None
) -> dict[str, Any]:
    """The JSON object of a failed run, with whatever ``result`` holds from before it failed."""
    entries = {} if result is None else to_json(result, command)
    entries["passed"] = False
    entries["error"] = {"message": error.message, "node": error.node, "remedy": error.remedy}
    refused = error.refused if isinstance(error, NotConvertible) else ()
    entries["refused"] = [asdict(refusal) for refusal in refused]
    return entries


def explanation_json(found: Explanation) -> dict[str, Any]:
    """The same as one JSON object."""
    return {name: _finite(value) for name, value in asdict(found).items()}


def simulation_json(result: SimulationResult) -> dict[str, Any]:
    """The JSON object that ``simulate`` prints."""
    names = ["data", "samples", "timesteps", "by_timestep", "recorded", "path", "arrays"]
    return {
        "tool": f"na-convert {__version__}",
        "snn": _only(asdict(result.model), "path", "sha256"),
        **_finite(_only(asdict(result), *names, "early_exit", "input_ranges")),
    }


def nir_json(result: NirExport) -> dict[str, Any]:
    """The JSON object that ``export`` prints."""
    names = ["target", "timesteps", "initial_membrane", "layers", "statements", "figures"]
    found: dict[str, Any] = _finite(
        {
            "tool": f"na-convert {__version__}",
            "snn": _only(asdict(result.snn), "path", "sha256"),
            **_only(asdict(result), *names, "other_counts", "agreement", "data", "samples"),
            "output": asdict(result.output),
            "passed": True,
        }
    )
    return found


def _neuron_json(neuron: Neuron) -> dict[str, Any]:
    names = "name root kind threshold amplitude input_step output_step levels lowest_level phase"
    return _only(
        asdict(neuron), *names.split(), "tie_rule", "constant_input", "shape", "bias_shift"
    )


def _pass_json(report: PassReport) -> dict[str, Any]:
    return _only(asdict(report), "name", "changed", "skipped", "max_abs_error")


def _equivalence_json(found: Equivalence) -> dict[str, Any]:
    entries = asdict(found)
    entries["by_timestep"] = [_timestep_json(row) for row in found.by_timestep]
    return entries


def _bias_json(found: BiasCalibration) -> dict[str, Any]:
    entries = asdict(found)
    entries["plain"] = _timestep_json(found.plain)
    for entry, trial in zip(entries["trials"], found.trials, strict=True):
        entry["held_out"] = _timestep_json(trial.held_out)
    return entries


def _timestep_json(row: TimestepResult) -> dict[str, Any]:
    return {**asdict(row), "drop": row.drop}


def _only(entries: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: entries[name] for name in names}


def _finite(value: Any) -> Any:
    """``value`` without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
