"""The command ``na-convert simulate``: an SNN file on samples, its accuracy at each T."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import at_least, existing_data, existing_file, numbers, one_timestep, writable_files
from .errors import UsageError
from .options import (
    Crop,
    Json,
    Labels,
    Mean,
    OwnTimesteps,
    Quiet,
    Resize,
    SamplesGiven,
    Scale,
    Std,
    Verbose,
    preprocessing,
)
from .outcome import console_for, print_json, progress_bar


def simulate_command(
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="an SNN file")],
    data: SamplesGiven,
    timesteps: OwnTimesteps = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="NPZ", help="write what the network did"),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="LAYER,...", help="layers for -o; patterns such as '*'"),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", help="samples that run together")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="of onnxruntime")] = 0,
    early_exit: Annotated[
        str | None,
        typer.Option("--early-exit", metavar="MARGIN", help="a sample stops at this margin"),
    ] = None,
    labels: Labels = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Run an SNN file; show its accuracy at each T, write outputs, spikes and membranes."""
    steps = one_timestep(timesteps)
    pixels = preprocessing(scale, mean, std, resize, crop)
    existing_file(snn)
    existing_file(labels)
    existing_data(data)
    writable_files({"-o": output}, [snn, labels, data])
    at_least(batch, 1, "--batch")
    at_least(threads, 0, "--threads")
    margin = numbers(early_exit, "--early-exit")
    if margin is not None and len(margin) > 1:
        raise UsageError(f"--early-exit {early_exit}: one number is needed")
    if record is not None and output is None:
        raise UsageError("--record needs a file to write to", remedy="give one with -o")
    from . import api, report
    from .result_json import simulation_json

    with progress_bar(show=not quiet) as progress:
        result = api.record(
            snn, data=data, labels=labels, timesteps=steps, output=output,
            layers=tuple((record or "").split(",")) if record else (), preprocessing=pixels,
            batch=batch, threads=threads, early_exit=margin[0] if margin else None,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(simulation_json(result))
    elif not quiet:
        report.simulation(result, console_for())
    return 0
