"""Training recipes: every hyper-parameter of a run, in a small TOML file."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from na_convert.errors import UsageError


@dataclass(frozen=True)
class Network:
    """See `networks.build`; empty ``stem`` and ``widths`` mean the usual ones."""

    name: str
    stem: str = ""
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Quantiser:
    """See `quantizer.quantize` and `noise.Noise`; noise is in steps.

    ``initial_images`` training images set the first steps.
    """

    bits: int = 2
    noise: float = 0.5
    law: str = "uniform"
    probability: float = 1.0
    per_channel: bool = False
    weight_bits: int = 32
    initial_images: int = 512


@dataclass(frozen=True)
class Stage:
    """Epochs and peak learning rate of the float or of the quantised part of a run."""

    epochs: int
    peak_rate: float


@dataclass(frozen=True)
class Training:
    """What both stages share.

    Attributes:
        batch: images of one step, over all processes.
        schedule: "onecycle" (momentum cycles with it) or "cosine", from the peak rate to zero.
        weight_decay: of weights; biases, BatchNorm and steps do not decay.
        ema: decay of the averaged weights that are evaluated and kept; 0 turns it off.
        clip: largest norm of the gradient; 0 turns clipping off.
        precision: of the forward pass, "float32" or "bfloat16" (autocast).
        padding, flip: augmentation, see `data.Augmentation`.
        workers: processes that decode images (only for image folders).
        checkpoint_minutes: between checkpoints within an epoch; each epoch ends with one.
    """

    batch: int = 128
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    ema: float = 0.0
    clip: float = 0.0
    precision: str = "bfloat16"
    channels_last: bool = True
    padding: int = 4
    flip: bool = True
    workers: int = 0
    checkpoint_minutes: float = 10.0


@dataclass(frozen=True)
class FineTuning:
    """Epochs behind a finished run, with the spiking network in the loop (see `spiking`).

    Attributes:
        timesteps: one T is drawn from them for each batch.
        peak_rate: learning rate, in the recipe's schedule.
        noise: amplitude; of the neurons' initial membrane in thresholds, or of a control's
            quantisers in steps.
        clip: largest norm of the gradient.
        teacher: share of the loss that is KL(the run's own network || this one); the rest is the
            cross-entropy of the labels.
        loop: False for the control: the same without the loop.
    """

    timesteps: tuple[int, ...] = (1, 2, 3, 4)
    epochs: int = 2
    peak_rate: float = 0.05
    noise: float = 0.0
    clip: float = 1.0
    teacher: float = 0.7
    loop: bool = True


@dataclass(frozen=True)
class Report:
    """The SNN is measured on the first ``images`` test images, for all of ``timesteps``."""

    images: int = 2000
    timesteps: tuple[int, ...] = (*range(1, 17), 32, 64)


@dataclass(frozen=True)
class Recipe:
    """One run of `na-train`; `data` is a kind that `data.load` knows."""

    name: str
    data: str
    network: Network
    float: Stage
    quantised: Stage
    quantiser: Quantiser = field(default_factory=Quantiser)
    training: Training = field(default_factory=Training)
    report: Report = field(default_factory=Report)
    seed: int = 0


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; raises UsageError for what is missing, unknown or of the wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a readable recipe ({error})") from error
    return from_table(table, path)


def from_table(table: dict[str, Any], path: Path) -> Recipe:
    """The recipe in ``table``, which was read from ``path``; raises UsageError as `load_recipe`."""
    recipe: Recipe = _from_table(Recipe, table, str(path))
    _check(recipe, path)
    return recipe


def as_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested plain dictionaries, every default spelt out."""
    return dataclasses.asdict(recipe)


def _from_table(kind: Any, table: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind, vars(sys.modules[__name__]) | {"float": float})
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if kind is Recipe:
        hints["float"] = Stage
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise UsageError(
            f"{where}: no setting {unknown[0]!r}", remedy=f"it knows {', '.join(fields)}"
        )
    required = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(table))
    if missing:
        raise UsageError(f"{where}: the setting {missing[0]!r} is missing")
    return kind(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: a table is needed")
        return _from_table(kind, value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: a list is needed")
        return tuple(_value(typing.get_args(kind)[0], v, where) for v in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where}: {value!r} is no {kind.__name__}")
    return value


def _check(recipe: Recipe, path: Path) -> None:
    training, report = recipe.training, recipe.report
    rules = (
        (recipe.float.epochs >= 0 and recipe.quantised.epochs >= 0, "epochs: 0 or more are needed"),
        (training.batch >= 2, "batch: at least 2 are needed"),
        (training.schedule in ("onecycle", "cosine"), "schedule: onecycle or cosine is needed"),
        (training.precision in ("float32", "bfloat16"), "precision: float32 or bfloat16 is needed"),
        (0 <= training.ema < 1, "ema: 0 up to 1 (not included) is needed"),
        (training.clip >= 0, "clip: 0 or more is needed"),
        (report.images >= 1, "report.images: at least 1 is needed"),
        (
            len(report.timesteps) > 0 and min(report.timesteps) >= 1,
            "report.timesteps: at least one step is needed",
        ),
    )
    for holds, complaint in rules:
        if not holds:
            raise UsageError(f"{path}: {complaint}")
