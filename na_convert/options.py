"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import numbers, sizes
from .choices import MEMBRANES, NIR_TARGETS

if TYPE_CHECKING:
    from .data import Preprocessing

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="the trained ANN, an ONNX file")]
SamplesGiven = Annotated[
    Path, typer.Option("--data", metavar="DATA", help="samples: .npz, .npy or folder")
]
OwnTimesteps = Annotated[
    str | None,
    typer.Option("-T", "--timesteps", metavar="N", help="default: the file's own T"),
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", metavar="F", help="uint8 images: factor, for instance 1/255"),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="F,F,F", help="uint8 images: mean per channel, after --scale"),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="F,F,F", help="uint8 images: standard deviation per channel"),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="class numbers, where the data has none"),
]
Resize = Annotated[
    str | None,
    typer.Option("--resize", metavar="N", help="image files: the short side, or height,width"),
]
Crop = Annotated[
    str | None,
    typer.Option("--crop", metavar="N", help="image files: the middle; a side, or height,width"),
]
ReadoutFrom = Annotated[
    str | None,
    typer.Option("--readout-from", metavar="NODE", help="all behind NODE stays analog"),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="write a report as well: .html, or .json"),
]
Shown = Annotated[
    str | None,
    typer.Option("--record", metavar="LAYER,...", help="layers whose spikes an HTML report shows"),
]
Plots = Annotated[
    Path | None,
    typer.Option("--plots", metavar="DIR", help="write the charts as .png and .svg (matplotlib)"),
]
NirTarget = Annotated[
    str | None,
    typer.Option("--target", metavar="READER", help=f"of a .nir file: {', '.join(NIR_TARGETS)}"),
]
InitialMembrane = Annotated[
    str | None,
    typer.Option("--initial-membrane", metavar="HOW", help=f"in NIR: {', '.join(MEMBRANES)}"),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of the summary")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="print nothing but errors")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="add the passes; tracebacks with errors")
]


def preprocessing(
    scale: str | None, mean: str | None, std: str | None, resize: str | None, crop: str | None
) -> Preprocessing | None:
    """How pixels become floats, from the values of the options; None where none is given."""
    if (scale, mean, std, resize, crop) == (None,) * 5:
        return None
    from .data import Preprocessing

    return Preprocessing(
        numbers(scale, "--scale"), numbers(mean, "--mean"), numbers(std, "--std"),
        sizes(resize, "--resize"), sizes(crop, "--crop"),
    )  # fmt: skip
