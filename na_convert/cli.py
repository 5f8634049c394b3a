"""The command ``na-convert``: arguments in, result on stdout, exit code out.

Exit codes: 0 passed; 1 cannot be converted or verified; 2 usage or unreadable input; 130 stopped.
What a command does is in `api`; heavy modules are imported inside the commands, so that ``--help``
answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import Abort, TyperException

from . import __version__
from .arguments import (
    DefaultCommandGroup,
    at_least,
    existing_data,
    existing_file,
    fraction,
    numbers,
    one_of,
    one_timestep,
    several_timesteps,
    writable_file,
)
from .choices import (
    AC_PJ,
    FORMS,
    INT8_FORMS,
    MAC_PJ,
    MARGIN,
    MEMBRANES,
    NIR_TARGETS,
    TIES,
    WEIGHTS,
)
from .errors import Interrupted, NaConvertError, UsageError
from .export_command import export_command
from .options import (
    Crop,
    InitialMembrane,
    Json,
    Labels,
    Mean,
    Model,
    NirTarget,
    Plots,
    Quiet,
    ReadoutFrom,
    Report,
    Resize,
    Scale,
    Shown,
    Std,
    Verbose,
    preprocessing,
)
from .outcome import (
    Progress,
    carry_out,
    console_for,
    plot,
    print_json,
    progress_bar,
    shown_layers,
    tell,
)
from .view_command import view_command

if TYPE_CHECKING:
    from .results import Result

app = typer.Typer(
    cls=DefaultCommandGroup,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"na-convert {__version__}")
        raise typer.Exit


@app.callback()
def group_options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Convert, inspect, check, simulate, export or view; a bare MODEL means convert."""


@app.command("convert")
def convert_command(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="default: MODEL.snn.onnx beside MODEL"),
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option("-T", "--timesteps", metavar="N", help="default: the most levels, up to 16"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATA", help="samples to verify on: .npz, .npy, folder"),
    ] = None,
    labels: Labels = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", metavar="DATA", help="samples that give ReLUs thresholds"),
    ] = None,
    percentile: Annotated[
        float, typer.Option("--percentile", metavar="F", help="of the values; 100: the maximum")
    ] = 100.0,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="calibrate one threshold per channel")
    ] = False,
    readout_from: ReadoutFrom = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--form",
            metavar="FORM",
            help=f"of the file: {', '.join(FORMS)}; int8: {', '.join(INT8_FORMS)}",
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="TYPE", help="float, or int8: on spike counts")
    ] = "float",
    tie_shortcuts: Annotated[
        str,
        typer.Option("--tie-shortcuts", metavar="WHEN", help="int8: auto, always or never"),
    ] = "auto",
    exact: Annotated[
        bool,
        typer.Option("--exact/--no-exact", help="weights on grids: same counts in every engine"),
    ] = True,
    unit_spikes: Annotated[
        bool,
        typer.Option("--unit-spikes", help="thresholds folded into weights: 1, and spikes of 1"),
    ] = False,
    target: NirTarget = None,
    initial_membrane: InitialMembrane = None,
    calibrate_bias: Annotated[
        Path | None,
        typer.Option("--calibrate-bias", metavar="DATA", help="samples to correct biases on, at T"),
    ] = None,
    target_agreement: Annotated[
        str | None,
        typer.Option("--target-agreement", metavar="F", help="the smallest T with it, up to -T"),
    ] = None,
    target_drop: Annotated[
        str | None,
        typer.Option("--target-drop", metavar="F", help="the smallest T with it; needs labels"),
    ] = None,
    report: Report = None,
    record: Shown = None,
    plots: Plots = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="do not verify")] = False,
) -> int:
    """Convert the low-bit ANN in MODEL to a spiking network, and prove that they agree."""
    steps = one_timestep(timesteps)
    one_of(weights, "--weights", WEIGHTS)
    one_of(tie_shortcuts, "--tie-shortcuts", TIES)
    if form is not None:
        one_of(form, "--form", INT8_FORMS if weights == "int8" else FORMS)
    one_of(target or NIR_TARGETS[0], "--target", NIR_TARGETS)
    one_of(initial_membrane or MEMBRANES[0], "--initial-membrane", MEMBRANES)
    pixels = preprocessing(scale, mean, std, resize, crop)
    agreement = fraction(target_agreement, "--target-agreement")
    drop = fraction(target_drop, "--target-drop")
    existing_file(model)
    existing_file(labels)
    for given in (data, calibrate, calibrate_bias):
        existing_data(given)
    writable_file(output, "-o", not_over=model)
    writable_file(report, "--report", not_over=model)

    def run(progress: Progress) -> Result:
        from . import api

        return api.convert(
            model, output=output, timesteps=steps, data=data, labels=labels, preprocessing=pixels,
            check=not no_check, calibrate=calibrate, percentile=percentile,
            per_channel=per_channel, readout_from=readout_from, form=form, exact=exact,
            unit_spikes=unit_spikes, weights=weights, tie_shortcuts=tie_shortcuts,
            nir_target=target, initial_membrane=initial_membrane,
            calibrate_bias=calibrate_bias, target_agreement=agreement, target_drop=drop,
            progress=progress,
            excerpt=shown_layers(record, report, plots),
        )  # fmt: skip

    def also(result: Result | None, error: NaConvertError | None) -> None:
        plot(result, plots)

    return carry_out(
        "convert", run, report, as_json=as_json, quiet=quiet, verbose=verbose, also=also
    )


@app.command("inspect")
def inspect_command(
    model: Model,
    timesteps: Annotated[
        str | None, typer.Option("-T", "--timesteps", metavar="N", help="as for convert")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATA", help="samples, where MODEL leaves sizes open"),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    crop: Crop = None,
    readout_from: ReadoutFrom = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="NODE", help="why NODE is or is not an activation"),
    ] = None,
    report: Report = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Show what would be converted, and what cannot be; write nothing."""
    steps = one_timestep(timesteps)
    pixels = preprocessing(scale, mean, std, resize, crop)
    existing_file(model)
    existing_data(data)
    if explain is not None:
        return _explain(model, explain, as_json=as_json)
    writable_file(report, "--report", not_over=model)

    def run(progress: Progress) -> Result:
        from . import api

        return api.inspect(
            model, timesteps=steps, data=data, preprocessing=pixels, readout_from=readout_from
        )

    return carry_out("inspect", run, report, as_json=as_json, quiet=quiet, verbose=verbose)


@app.command("check")
def check_command(
    ann: Annotated[Path, typer.Argument(metavar="ANN", help="the ANN, an ONNX file")],
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="the SNN that was made from it")],
    data: Annotated[
        Path, typer.Option("--data", metavar="DATA", help="samples: .npz, .npy or folder")
    ],
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
        float, typer.Option("--energy-mac", metavar="PJ", help="of a multiply-accumulate")
    ] = MAC_PJ,
    energy_ac: Annotated[
        float, typer.Option("--energy-ac", metavar="PJ", help="of an accumulate")
    ] = AC_PJ,
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
    for given in (ann, snn, data):
        writable_file(report, "--report", not_over=given)
        writable_file(junit, "--junit", not_over=given)
    if snn.suffix.lower() == ".nir":
        from .nir_readers.command import run_check

        _refuse_for_nir(
            min_agreement=min_agreement, max_drop=max_drop, checks=checks, baseline=baseline,
            bisect=bisect, scheduler=scheduler, junit=junit, github=github or None,
            record=record, plots=plots,
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

        return api.check(
            ann, snn, data=data, labels=labels, timesteps=steps, preprocessing=pixels,
            min_agreement=least, max_drop=most, checks=names, baseline=baseline,
            margin=MARGIN if allowed is None else allowed,
            energy=Constants(energy_mac, energy_ac), bisect=bisect,
            scheduler=scheduler, progress=progress,
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


@app.command("simulate")
def simulate_command(
    snn: Annotated[Path, typer.Argument(metavar="SNN", help="an SNN file")],
    data: Annotated[
        Path, typer.Option("--data", metavar="DATA", help="samples: .npz, .npy or folder")
    ],
    timesteps: Annotated[
        str | None,
        typer.Option("-T", "--timesteps", metavar="N", help="default: the file's own T"),
    ] = None,
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
    for given in (snn, data):
        writable_file(output, "-o", not_over=given)
    at_least(batch, 1, "--batch")
    at_least(threads, 0, "--threads")
    margin = numbers(early_exit, "--early-exit")
    if margin is not None and len(margin) > 1:
        raise UsageError(f"--early-exit {early_exit}: one number is needed")
    if record is not None and output is None:
        raise UsageError("--record needs a file to write to", remedy="give one with -o")
    from . import api, report
    from .result_json import simulation_json

    try:
        with progress_bar(show=not quiet) as progress:
            result = api.record(
                snn, data=data, labels=labels, timesteps=steps, output=output,
                layers=tuple((record or "").split(",")) if record else (), preprocessing=pixels,
                batch=batch, threads=threads, early_exit=margin[0] if margin else None,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("stopped") from None
    if as_json:
        print_json(simulation_json(result))
    elif not quiet:
        report.simulation(result, console_for())
    return 0


app.command("export")(export_command)
app.command("view")(view_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, as in `na-convert ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which unwinds like Ctrl-C, so that temporary files go."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _run(arguments: list[str]) -> int:
    """The exit code of one run; whatever goes wrong is said in one line."""
    try:
        code = typer.main.get_command(app).main(
            arguments, prog_name="na-convert", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except NaConvertError as found:
        error, code = found, found.exit_code
    except (KeyboardInterrupt, Abort):
        error, code = Interrupted("stopped"), Interrupted.exit_code
    except TyperException as found:
        message = found.format_message().rstrip(".")
        error, code = UsageError(message, remedy="see na-convert --help"), 2
    except Exception as found:
        text = " ".join(f"unexpected {type(found).__name__}: {found}".split())
        remedy = "this is a defect of na-convert; please report it with the output of -v"
        error, code = NaConvertError(text, remedy=remedy), 1
        error.__cause__ = found
    if "--json" in arguments:
        from .result_json import failure_json

        print_json(failure_json(error))
    tell(error, verbose="-v" in arguments or "--verbose" in arguments)
    return code


def _explain(model: Path, node: str, *, as_json: bool) -> int:
    from . import api
    from .explanation_table import print_explanation
    from .result_json import explanation_json

    found = api.explain(model, node)
    if as_json:
        print_json(explanation_json(found))
    else:
        print_explanation(found, console_for())
    return 0


def _refuse_for_nir(**options: object) -> None:
    """Raises UsageError for an option that says nothing about a NIR file."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: is for SNN files in ONNX, not for NIR files")
