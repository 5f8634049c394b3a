"""The command ``na-convert export``: an SNN file in, a file for other tools out.

The output's suffix says which: NIR (``.nir``, the default), or whole numbers for hardware
(`choices.HARDWARE_FILES`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import existing_data, existing_file, one_of, one_timestep, writable_files
from .choices import MEMBRANES, NIR_TARGETS, is_for_hardware
from .errors import NotConvertible, UsageError
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
from .outcome import console_for, naming_one, print_json, progress_bar

if TYPE_CHECKING:
    from .data import Preprocessing


def export_command(
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="an SNN file")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help=".nir (default), .npz or .h"),
    ] = None,
    target: NirTarget = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            "-T",
            "--timesteps",
            metavar="N",
            help="of a .nir file: T of its max-pools, of bias and of the check; default: the SNN's",
        ),
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
    """Write an SNN as a NIR file, or an int8 SNN as .npz or C header, and check what is written."""
    steps = one_timestep(timesteps)
    chosen = one_of(target or NIR_TARGETS[0], "--target", NIR_TARGETS)
    one_of(initial_membrane or MEMBRANES[0], "--initial-membrane", MEMBRANES)
    pixels = preprocessing(scale, mean, std, resize, crop)
    existing_file(snn)
    existing_data(data)
    writable_files({"-o": output}, [snn, data])
    if output is not None and is_for_hardware(output):
        given = {"--target": target, "-T": timesteps, "--initial-membrane": initial_membrane}
        _refuse(output, [option for option, value in given.items() if value is not None])
        with _refusals_shown("Not in whole numbers", show=not (quiet or as_json)):
            return _export_integers(snn, output, data, pixels, as_json=as_json, quiet=quiet)
    from . import api
    from .nir_table import exported
    from .result_json import nir_json

    shown = _refusals_shown("Not in NIR", show=not (quiet or as_json))
    with shown, progress_bar(show=not quiet) as progress:
        found = api.export(
            snn, output=output, target=chosen, timesteps=steps,
            initial_membrane=initial_membrane, data=data, preprocessing=pixels,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(nir_json(found))
    elif not quiet:
        exported(found, console_for())
    return 0


@contextmanager
def _refusals_shown(title: str, *, show: bool) -> Iterator[None]:
    """A table of what is refused in the block; where it is not to be shown, its first row."""
    try:
        yield
    except NotConvertible as error:
        if not show:
            raise naming_one(error) from error
        if error.refused:
            from .report import refusals

            console_for(stderr=True).print(refusals(error.refused, title))
        raise


def _refuse(output: Path, options: list[str]) -> None:
    if options:
        raise UsageError(f"-o {output}: {options[0]} is for .nir files", remedy="leave it out")


def _export_integers(
    snn: Path,
    output: Path,
    data: Path | None,
    pixels: Preprocessing | None,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    from . import __version__, api
    from .cells import file_size

    found = api.export_integers(snn, output, data=data, preprocessing=pixels)
    if as_json:
        print_json({"tool": f"na-convert {__version__}", **asdict(found), "passed": True})
    elif not quiet:
        print(
            f"{found.path}: {found.layers} layers, {found.neurons:,} neurons, "
            f"{file_size(found.weights) or '0 B'} of int8 weights, T up to {found.timesteps}; "
            f"{file_size(found.bytes)}\n"
            f"run in numpy beside the network: {found.compared:,} counts on {found.samples} "
            f"samples of {found.data}, all equal"
        )
    return 0
