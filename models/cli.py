"""``na-train RECIPE`` and ``na-train finetune RUN_DIR``: arguments in, a converted network out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from na_convert.arguments import DefaultCommandGroup, several_timesteps
from na_convert.errors import NaConvertError, UsageError
from na_convert.outcome import tell

from . import checkpoint, processes
from .data import Dataset, load
from .recipe import FineTuning, Recipe, load_recipe
from .report import finetuned_from, write_metrics, write_results
from .train import Hooks, Interrupted, Run, accuracy, start, steps_per_epoch, train

CHECKPOINT = "checkpoint.pt"
FLOAT_STAGE = "float.pt"
METRICS = "metrics.csv"
INTERRUPTED = 130


class _Commands(DefaultCommandGroup):
    program = "na-train"
    see_also = "na-train COMMAND --help"


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Out = Annotated[Path, typer.Option(help="folder for the results")]
Data = Annotated[Path | None, typer.Option(help="the data set's file or folder")]
Resume = Annotated[bool, typer.Option(help="continue from the checkpoint in --out")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto")]


def main() -> None:
    """The console script; errors are one line on stderr."""
    try:
        app(prog_name="na-train")
    except NaConvertError as error:  # no such command
        tell(error, verbose=False)
        raise SystemExit(error.exit_code) from None


@app.command("train")
def na_train(
    recipe: Annotated[Path, typer.Argument(help="a recipe, such as recipes/digits.toml")],
    out: Out,
    data: Data = None,
    resume: Resume = False,
    float_from: Annotated[
        Path | None, typer.Option(help="float.pt of another run, in place of a float stage")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    noise: Annotated[float | None, typer.Option(help="in place of the recipe's")] = None,
    device: Device = "auto",
) -> None:
    """Train a low-bit network as RECIPE says, export it, and convert it to a spiking network.

    Writes model.onnx, model.snn.onnx, checkpoint.pt, float.pt (the end of the float stage),
    metrics.csv and report.json into --out. To use several processes, start it with torchrun. Ctrl-C
    saves a checkpoint and leaves.
    """
    console = Console(stderr=True)
    with _errors_told(console, out):
        chosen = _with_overrides(load_recipe(recipe), seed, noise)
        where = _device(device)
        with processes.process_group(where):
            _train(chosen, data, out, where, resume, float_from, console)


@app.command()
def finetune(
    run_dir: Annotated[Path, typer.Argument(help="folder of a finished run of na-train")],
    out: Out,
    timesteps: Annotated[
        str,
        typer.Option(
            "-T", "--timesteps", help="T, or several with commas: one is drawn for each batch"
        ),
    ] = "1,2,3,4",
    epochs: Annotated[int, typer.Option(help="passes over the training images")] = 2,
    rate: Annotated[float, typer.Option(help="peak learning rate")] = FineTuning.peak_rate,
    noise: Annotated[
        float | None,
        typer.Option(
            help="of the membranes' start, in thresholds, 0 by default; with --control of the "
            "quantisers, in steps, by default as the run had it"
        ),
    ] = None,
    control: Annotated[bool, typer.Option(help="the same without the spiking network")] = False,
    data: Data = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train the network of RUN_DIR on, with the spiking network in the loop.

    The integrate-and-fire neurons run in the forward pass, their mean output is each layer's value,
    and the gradient goes through the mean currents. Writes what na-train writes, into --out.
    """
    console = Console(stderr=True)
    with _errors_told(console, out):
        source = run_dir / CHECKPOINT
        if not source.is_file():
            raise UsageError(
                f"{run_dir}: holds no {CHECKPOINT}", remedy="give a folder of na-train"
            )
        recipe = checkpoint.recipe_of(source)
        if noise is None:
            noise = recipe.quantiser.noise if control else 0.0
        steps = several_timesteps(timesteps)
        tuning = FineTuning(steps, epochs, rate, noise, loop=not control)
        _check_tuning(tuning, out, run_dir)
        where = _device(device)
        with processes.process_group(where):
            _finetune(recipe, source, tuning, data, out, where, resume, console)


def _train(
    recipe: Recipe,
    path: Path | None,
    out: Path,
    device: torch.device,
    resume: bool,
    float_from: Path | None,
    console: Console,
) -> None:
    saved = _checkpoint_in(out, resume)
    data = load(recipe.data, path)

    def begin() -> Run:
        if saved.exists():
            return checkpoint.resume(recipe, data, device, saved)
        if float_from is not None:
            return checkpoint.resume(recipe, data, device, float_from, float_stage=True)
        return start(recipe, data, device)

    planned = {"float": recipe.float.epochs, "quantised": recipe.quantised.epochs}
    run = _carried_out(begin, planned, data, out, console)
    correct = accuracy(run.best, data, device)  # every process evaluates a part
    if processes.is_first():
        write_results(run, correct, data, out)


def _finetune(
    recipe: Recipe,
    source: Path,
    tuning: FineTuning,
    path: Path | None,
    out: Path,
    device: torch.device,
    resume: bool,
    console: Console,
) -> None:
    saved = _checkpoint_in(out, resume)
    data = load(recipe.data, path)

    def begin() -> Run:
        if saved.exists():
            return checkpoint.resume_finetuning(source, tuning, data, device, saved)
        return checkpoint.start_finetuning(source, tuning, data, device)

    run = _carried_out(begin, {"finetuned": tuning.epochs}, data, out, console)
    correct = accuracy(run.best, data, device)
    original, _ = checkpoint.finished(source, data, device)
    before = accuracy(original, data, device)
    if processes.is_first():
        write_results(run, correct, data, out, finetuned_from(source, before))


def _checkpoint_in(out: Path, resume: bool) -> Path:
    saved = out / CHECKPOINT
    if saved.exists() and not resume:
        raise UsageError(
            f"{saved} holds a run already", remedy="add --resume, or choose another --out"
        )
    return saved


def _carried_out(
    begin: Callable[[], Run],
    planned: dict[str, int],
    data: Dataset,
    out: Path,
    console: Console,
) -> Run:
    """The run that ``begin`` gives, at the end of the ``planned`` epochs of each stage."""
    out.mkdir(parents=True, exist_ok=True)
    with _stop_on_sigint() as stop, _display(planned, data, console) as show:

        def save(state: Run) -> None:
            checkpoint.save(state, out / CHECKPOINT)
            if state.stage_name == "float" and state.epoch == planned["float"]:
                checkpoint.save(state, out / FLOAT_STAGE)
            if processes.is_first():
                write_metrics(state.metrics, out / METRICS)

        return train(begin(), data, Hooks(show, save, stop))


@contextmanager
def _errors_told(console: Console, out: Path) -> Iterator[None]:
    """Errors are one line, and set the exit code."""
    try:
        yield
    except Interrupted:
        console.print(
            f"stopped; the state is in {out / CHECKPOINT}: continue with --resume", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    except NaConvertError as error:
        tell(error, verbose=False)
        raise typer.Exit(error.exit_code) from None


def _check_tuning(tuning: FineTuning, out: Path, run_dir: Path) -> None:
    rules = (
        (tuning.epochs >= 1, f"--epochs {tuning.epochs}: at least one is needed"),
        (tuning.peak_rate > 0, f"--rate {tuning.peak_rate:g}: a number above 0 is needed"),
        (tuning.noise >= 0, f"--noise {tuning.noise:g}: 0 or more is needed"),
        (out.resolve() != run_dir.resolve(), f"--out {out}: is the run itself, choose another"),
    )
    for holds, complaint in rules:
        if not holds:
            raise UsageError(complaint)


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
def _display(
    planned: dict[str, int], data: Dataset, console: Console
) -> Iterator[Callable[[Run], None]]:
    """A bar over all steps with the time left, and a line for each epoch.

    ``planned`` has the number of epochs of each stage.
    """
    before = dict(zip(planned, accumulate(planned.values(), initial=0), strict=False))
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
        per_epoch, stage = steps_per_epoch(run.recipe, data), run.stage_name
        done = (before[stage] + run.epoch) * per_epoch + run.step
        bar.update(
            task,
            completed=done,
            total=sum(planned.values()) * per_epoch,
            description=f"{stage} epoch {run.epoch + 1}",
        )
        if run.step == 0 and len(run.metrics) > shown and processes.is_first():
            shown = len(run.metrics)
            last = run.metrics[-1]
            console.print(
                f"{last['stage']:9} epoch {last['epoch']:3}/{planned[stage]}  "
                f"loss {last['loss']:.4f}  test accuracy {last['test_accuracy']:.4f}  "
                f"{last['seconds']:.0f} s",
                highlight=False,
            )

    with bar:
        task = bar.add_task("starting", total=None)
        yield show
