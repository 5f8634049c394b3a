"""The command ``na-convert export``: an SNN file in, a NIR file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import existing_data, existing_file, one_of, one_timestep, writable_file
from .choices import MEMBRANES, NIR_TARGETS
from .errors import Interrupted, NotConvertible
from .options import (
    Crop,
    InitialMembrane,
    Json,
    Mean,
    NirTarget,
    Quiet,
    Resize,
    Scale,
    Std,
    Verbose,
    preprocessing,
)
from .outcome import console_for, print_json, progress_bar


def export_command(
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="an SNN file")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="NIR", help="default: SNN with .nir, beside SNN"),
    ] = None,
    target: NirTarget = None,
    timesteps: Annotated[
        str | None,
        typer.Option("-T", "--timesteps", metavar="N", help="default: the file's own T"),
    ] = None,
    initial_membrane: InitialMembrane = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATA", help="samples to check on: .npz, .npy or folder"),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write an SNN as a NIR file, for other simulators and hardware, and check that file."""
    steps = one_timestep(timesteps)
    chosen = one_of(target or NIR_TARGETS[0], "--target", NIR_TARGETS)
    one_of(initial_membrane or MEMBRANES[0], "--initial-membrane", MEMBRANES)
    pixels = preprocessing(scale, mean, std, resize, crop)
    existing_file(snn)
    existing_data(data)
    writable_file(output, "-o", not_over=snn)
    from . import api, report
    from .nir_table import exported
    from .result_json import nir_json

    try:
        with progress_bar(show=not quiet) as progress:
            found = api.export(
                snn, output=output, target=chosen, timesteps=steps,
                initial_membrane=initial_membrane, data=data, preprocessing=pixels,
                progress=progress,
            )  # fmt: skip
    except NotConvertible as error:
        if error.refused and not quiet and not as_json:
            console_for(stderr=True).print(report.refusals(error.refused, "Not in NIR"))
        raise
    except KeyboardInterrupt:
        raise Interrupted("stopped") from None
    if as_json:
        print_json(nir_json(found))
    elif not quiet:
        exported(found, console_for())
    return 0
