"""``na-train RECIPE --data PATH --out DIR``: arguments in, a trained and converted network out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from na_convert.errors import NaConvertError, UsageError

from . import checkpoint, processes
from .data import Dataset, load
from .recipe import Recipe, load_recipe
from .report import write_metrics, write_results
from .train import STAGES, Hooks, Interrupted, Run, accuracy, start, steps_per_epoch, train

CHECKPOINT = "checkpoint.pt"
FLOAT_STAGE = "float.pt"
METRICS = "metrics.csv"
INTERRUPTED = 130


def main() -> None:
    """The console script; errors are one line on stderr."""
    typer.run(na_train)


def na_train(
    recipe: Annotated[Path, typer.Argument(help="a recipe, such as recipes/digits.toml")],
    out: Annotated[Path, typer.Option(help="folder for the results")],
    data: Annotated[Path | None, typer.Option(help="the data set's file or folder")] = None,
    resume: Annotated[bool, typer.Option(help="continue from the checkpoint in --out")] = False,
    float_from: Annotated[
        Path | None, typer.Option(help="float.pt of another run, in place of a float stage")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    noise: Annotated[float | None, typer.Option(help="in place of the recipe's")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
) -> None:
    """Train a low-bit network as RECIPE says, export it, and convert it to a spiking network.

    Writes model.onnx, model.snn.onnx, checkpoint.pt, float.pt (the end of the float stage),
    metrics.csv and report.json into --out. To use several processes, start it with torchrun. Ctrl-C
    saves a checkpoint and leaves.
    """
    console = Console(stderr=True)
    try:
        chosen = _with_overrides(load_recipe(recipe), seed, noise)
        where = _device(device)
        with processes.process_group(where):
            _run(chosen, data, out, where, resume, float_from, console)
    except Interrupted:
        console.print(f"stopped; the state is in {out / CHECKPOINT}: continue with --resume")
        raise typer.Exit(INTERRUPTED) from None
    except NaConvertError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(error.exit_code) from None


def _run(
    recipe: Recipe,
    path: Path | None,
    out: Path,
    device: torch.device,
    resume: bool,
    float_from: Path | None,
    console: Console,
) -> None:
    saved = out / CHECKPOINT
    if saved.exists() and not resume:
        raise UsageError(
            f"{saved} holds a run already", remedy="add --resume, or choose another --out"
        )
    data = load(recipe.data, path)
    out.mkdir(parents=True, exist_ok=True)
    with _stop_on_sigint() as stop, _display(recipe, data, console) as show:
        if saved.exists():
            run = checkpoint.resume(recipe, data, device, saved)
        elif float_from is not None:
            run = checkpoint.resume(recipe, data, device, float_from, float_stage=True)
        else:
            run = start(recipe, data, device)

        def save(state: Run) -> None:
            checkpoint.save(state, saved)
            if state.stage == 0 and state.epoch == recipe.float.epochs:
                checkpoint.save(state, out / FLOAT_STAGE)
            if processes.is_first():
                write_metrics(state.metrics, out / METRICS)

        run = train(run, data, Hooks(show, save, stop))
    correct = accuracy(run.best, data, device)  # every process evaluates a part
    if processes.is_first():
        write_results(run, correct, data, out)


def _with_overrides(recipe: Recipe, seed: int | None, noise: float | None) -> Recipe:
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    if noise is not None:
        recipe = replace(recipe, quantiser=replace(recipe.quantiser, noise=noise))
    return recipe


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: cpu, cuda or auto is needed")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this torch sees no GPU", remedy="use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


@contextmanager
def _stop_on_sigint() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is remembered, for the loop to save and leave; a second one interrupts."""
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _display(recipe: Recipe, data: Dataset, console: Console) -> Iterator[Callable[[Run], None]]:
    """A bar over all steps with the time left, and a line for each epoch."""
    per_epoch = steps_per_epoch(recipe, data)
    epochs = [getattr(recipe, stage).epochs for stage in STAGES]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or not processes.is_first(),
    )
    shown = 0

    def show(run: Run) -> None:
        nonlocal shown
        done = (sum(epochs[: run.stage]) + run.epoch) * per_epoch + run.step
        bar.update(task, completed=done, description=f"{STAGES[run.stage]} epoch {run.epoch + 1}")
        if run.step == 0 and len(run.metrics) > shown and processes.is_first():
            shown = len(run.metrics)
            last = run.metrics[-1]
            console.print(
                f"{last['stage']:9} epoch {last['epoch']:3}/{epochs[run.stage]}  "
                f"loss {last['loss']:.4f}  test accuracy {last['test_accuracy']:.4f}  "
                f"{last['seconds']:.0f} s",
                highlight=False,
            )

    with bar:
        task = bar.add_task("starting", total=sum(epochs) * per_epoch)
        yield show
