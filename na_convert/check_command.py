"""The command ``na-convert check``: an SNN, or a NIR file, beside its ANN."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import (
    existing_data,
    existing_file,
    fraction,
    one_timestep,
    several_timesteps,
    writable_files,
)
from .choices import AC_PJ, MAC_PJ, MARGIN, is_nir
from .errors import NaConvertError, UsageError
from .options import (
    Crop,
    Json,
    Labels,
    Mean,
    Plots,
    Quiet,
    Report,
    Resize,
    SamplesGiven,
    Scale,
    Shown,
    Std,
    Verbose,
    preprocessing,
)
from .outcome import Progress, carry_out, plot, shown_layers

if TYPE_CHECKING:
    from .results import Result


def check_command(
    ann: Annotated[Path, typer.Argument(metavar="ANN", help="the ANN, an ONNX file")],
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="the SNN that was made from it")],
    data: SamplesGiven,
    timesteps: Annotated[
        str | None,
        typer.Option("-T", "--timesteps", metavar="N,N,...", help="default: the file's own T"),
    ] = None,
    min_agreement: Annotated[
        str | None,
        typer.Option("--min-agreement", metavar="F", help="least argmax agreement, 0 to 1"),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="F", help="most ANN minus SNN accuracy, 0 to 1"),
    ] = None,
    checks: Annotated[
        str | None,
        typer.Option("--checks", metavar="NAME,...", help="make these checks; default: all"),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option("--reader", metavar="NAME,...", help="of a NIR file; default: all installed"),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE", help="a stored run: fail if worse than that"),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option("--margin", metavar="F", help="by how much it may be worse; default 0.01"),
    ] = None,
    bisect: Annotated[
        Path | None,
        typer.Option("--bisect", metavar="DIR", help="write the first layer that differs there"),
    ] = None,
    energy_mac: Annotated[
        float | None,
        typer.Option(
            "--energy-mac", metavar="PJ", help=f"of a multiply-accumulate; default: {MAC_PJ}"
        ),
    ] = None,
    energy_ac: Annotated[
        float | None,
        typer.Option("--energy-ac", metavar="PJ", help=f"of an accumulate; default: {AC_PJ}"),
    ] = None,
    labels: Labels = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="run on a Dask cluster, tcp://..."),
    ] = None,
    report: Report = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="write JUnit's XML as well")
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="print annotations for GitHub Actions")
    ] = False,
    record: Shown = None,
    plots: Plots = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Compare an SNN file with its ANN; limits hold at every T given. A NIR file is run in other
    simulators."""
    steps = several_timesteps(timesteps)
    least, most = fraction(min_agreement, "--min-agreement"), fraction(max_drop, "--max-drop")
    allowed = fraction(margin, "--margin")
    if allowed is not None and baseline is None:
        raise UsageError("--margin needs --baseline FILE")
    names = tuple(name.strip() for name in checks.split(",")) if checks is not None else ()
    pixels = preprocessing(scale, mean, std, resize, crop)
    for given in (ann, snn, labels, baseline):
        existing_file(given)
    existing_data(data)
    writable_files({"--report": report, "--junit": junit}, [ann, snn, labels, data])
    if is_nir(snn):
        from .nir_readers.command import run_check

        _refuse_for_nir(
            min_agreement=min_agreement, max_drop=max_drop, checks=checks, baseline=baseline,
            bisect=bisect, energy_mac=energy_mac, energy_ac=energy_ac, scheduler=scheduler,
            junit=junit, github=github or None, record=record, plots=plots,
        )  # fmt: skip
        return run_check(
            ann, snn,
            {"asked": reader, "data": data, "labels": labels, "preprocessing": pixels,
             "timesteps": one_timestep(timesteps)},
            report=report, as_json=as_json, quiet=quiet, verbose=verbose,
        )  # fmt: skip
    if reader is not None:
        raise UsageError(f"--reader {reader}: is for NIR files", remedy="give ANN and net.nir")

    def run(progress: Progress) -> Result:
        from . import api
        from .energy import Constants

        constants = Constants(
            MAC_PJ if energy_mac is None else energy_mac, AC_PJ if energy_ac is None else energy_ac
        )
        return api.check(
            ann, snn, data=data, labels=labels, timesteps=steps, preprocessing=pixels,
            min_agreement=least, max_drop=most, checks=names, baseline=baseline,
            margin=MARGIN if allowed is None else allowed,
            energy=constants, bisect=bisect, scheduler=scheduler, progress=progress,
            excerpt=shown_layers(record, report, plots),
        )  # fmt: skip

    def also(result: Result | None, error: NaConvertError | None) -> None:
        from . import ci
        from .whole_files import write_atomically

        plot(result, plots)
        if junit is not None:
            write_atomically(junit, ci.junit(result, error))
        if github:
            for line in ci.github(result, error, snn):
                print(line, file=sys.stderr if as_json else sys.stdout)

    return carry_out("check", run, report, as_json=as_json, quiet=quiet, verbose=verbose, also=also)


def _refuse_for_nir(**options: object) -> None:
    """Raises UsageError for an option that says nothing about a NIR file."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option}: is for SNN files in ONNX, not for NIR files", remedy="leave it out"
            )
