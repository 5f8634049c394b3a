"""Checkpoints: everything that the next training step depends on, written whole or not at all."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from na_convert.errors import DataError, first_line
from na_convert.whole_files import write_atomically

from . import processes
from .data import Dataset
from .noise import Noise
from .quantizer import Quantizer
from .recipe import FineTuning, Recipe, as_table, from_table
from .train import STAGES, Run, begin_stage, quantised, start

FORMAT = 1
# The settings that the float stage depends on.
_FLOAT_STAGE = ("data", "network", "float", "training", "seed")


def save(run: Run, path: Path) -> None:
    """Write the state of ``run``; call it in every process, the first one writes."""
    generators = processes.gathered(_generator_state(run.device))
    if not processes.is_first():
        return
    state = {
        "format": FORMAT,
        "recipe": as_table(run.recipe),
        "net": run.net.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "schedule": run.schedule.state_dict(),
        "averaged": run.averaged.state_dict() if run.averaged is not None else None,
        "position": {
            "stage": run.stage,
            "epoch": run.epoch,
            "step": run.step,
            "loss": run.loss,
            "seconds": run.seconds,
        },
        "metrics": run.metrics,
        "tuning": asdict(run.tuning) if run.tuning is not None else None,
        "generators": generators,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def resume(
    recipe: Recipe, data: Dataset, device: torch.device, path: Path, *, float_stage: bool = False
) -> Run:
    """The run saved at ``path``, ready for its next step.

    Args:
        float_stage: the file holds the end of a float stage, and ``recipe`` may differ from its
            recipe in everything that comes later (quantiser, quantised stage, report).

    Raises DataError where the file is no checkpoint, is of another recipe, or was written by
    another number of processes.
    """
    state = read(path)
    if float_stage:
        _check_float_stage(state, recipe, path)
    elif state["recipe"] != as_table(recipe) or state.get("tuning"):
        raise DataError(
            f"{path}: the checkpoint is of another recipe",
            remedy="resume with the recipe that it was started with, or use another --out",
        )
    run = start(recipe, data, device)
    stage = state["position"]["stage"]
    if stage:
        net = quantised(recipe, run.net).to(device)
        net.load_state_dict(state["net"])  # before the optimiser: steps per channel change shape
        run = begin_stage(recipe, data, net, stage)
    else:
        run.net.load_state_dict(state["net"])
    return _continued(run, state, path)


def start_finetuning(source: Path, tuning: FineTuning, data: Dataset, device: torch.device) -> Run:
    """The first step of ``tuning`` behind the finished run whose checkpoint is ``source``.

    Raises DataError where ``source`` is no finished run of na-train.
    """
    net, recipe = finished(source, data, device)
    noise = Noise(tuning.noise, recipe.quantiser.law, recipe.quantiser.probability)
    for module in net.modules():
        if isinstance(module, Quantizer):
            module.noise = noise
    return begin_stage(recipe, data, net, STAGES.index("finetuned"), tuning)


def resume_finetuning(
    source: Path, tuning: FineTuning, data: Dataset, device: torch.device, path: Path
) -> Run:
    """The fine-tuning saved at ``path``, ready for its next step.

    Raises DataError where ``path`` is of another run or of other settings.
    """
    run, state = start_finetuning(source, tuning, data, device), read(path)
    if state["recipe"] != as_table(run.recipe) or state.get("tuning") != asdict(tuning):
        raise DataError(
            f"{path}: the checkpoint is of another run or of other settings",
            remedy="resume with what it was started with, or use another --out",
        )
    run.net.load_state_dict(state["net"])
    return _continued(run, state, path)


def recipe_of(source: Path) -> Recipe:
    """The recipe of the run whose checkpoint is ``source``."""
    return from_table(read(source)["recipe"], source)


def finished(source: Path, data: Dataset, device: torch.device) -> tuple[nn.Module, Recipe]:
    """The quantised network, with averaged weights if it has them, of a finished run.

    Raises DataError where ``source`` is no finished run of na-train.
    """
    state, recipe = read(source), recipe_of(source)
    position = (state["position"]["stage"], state["position"]["epoch"])
    if state.get("tuning"):
        raise DataError(f"{source}: is fine-tuned already", remedy="give the run it came from")
    if position != (STAGES.index("quantised"), recipe.quantised.epochs):
        raise DataError(f"{source}: not a finished run", remedy="finish it with --resume")
    net = quantised(recipe, start(recipe, data, device).net).to(device)
    if state["averaged"] is None:
        net.load_state_dict(state["net"])
        return net, recipe
    prefix = "module."
    averaged = {k[len(prefix) :]: v for k, v in state["averaged"].items() if k.startswith(prefix)}
    net.load_state_dict(averaged)
    return net, recipe


def _continued(run: Run, state: dict[str, Any], path: Path) -> Run:
    """``run``, which has the state's weights, with all that its next step depends on besides."""
    if len(state["generators"]) != processes.world_size():
        raise DataError(
            f"{path}: written by {len(state['generators'])} processes, "
            f"read by {processes.world_size()}"
        )
    run.optimiser.load_state_dict(state["optimiser"])
    run.schedule.load_state_dict(state["schedule"])
    if run.averaged is not None:
        run.averaged.load_state_dict(state["averaged"])
    for name, value in state["position"].items():
        setattr(run, name, value)
    run.metrics = state["metrics"]
    _set_generator_state(state["generators"][processes.rank()], run.device)
    return run


def _check_float_stage(state: dict[str, Any], recipe: Recipe, path: Path) -> None:
    wanted = as_table(recipe)
    differing = [key for key in _FLOAT_STAGE if state["recipe"][key] != wanted[key]]
    if differing:
        raise DataError(
            f"{path}: its float stage was trained with another {differing[0]!r}",
            remedy="take a float stage of the same seed, data, network and training settings",
        )
    position = state["position"]
    if position["stage"] or position["epoch"] != recipe.float.epochs:
        raise DataError(
            f"{path}: not the end of a float stage", remedy="give the float.pt of a finished one"
        )


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint: plain values and tensors (nothing else is unpickled)."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        known = state["format"] == FORMAT
    except Exception as error:  # torch raises many kinds for damaged files
        raise DataError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if not known:
        raise DataError(f"{path}: a checkpoint of another version of na-train")
    return state


def _generator_state(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generator_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
