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
from typer.exceptions import TyperException

from . import __version__
from .arguments import (
    DefaultCommandGroup,
    existing_data,
    existing_file,
    fraction,
    one_of,
    one_timestep,
    writable_files,
)
from .check_command import check_command
from .choices import (
    FORMS,
    INT8_FORMS,
    MEMBRANES,
    NIR_TARGETS,
    TIES,
    WEIGHTS,
)
from .errors import NaConvertError, UsageError
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
    shown_layers,
    tell,
)
from .simulate_command import simulate_command
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
    writable_files(
        {"-o": output, "--report": report}, [model, labels, data, calibrate, calibrate_bias]
    )

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
    writable_files({"--report": report}, [model, data])

    def run(progress: Progress) -> Result:
        from . import api

        return api.inspect(
            model, timesteps=steps, data=data, preprocessing=pixels, readout_from=readout_from
        )

    return carry_out("inspect", run, report, as_json=as_json, quiet=quiet, verbose=verbose)


app.command("check")(check_command)
app.command("simulate")(simulate_command)
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
