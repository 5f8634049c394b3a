"""The simulators that read NIR and that a file can be checked in; each is imported when asked for.

A reader runs a file as its users would: its own import, one call per time step (or one for all,
where that is how it is used), no option but those that its documentation asks for.
``NAME:adjusted`` is the same with the changes that `Reader.adjustments` lists, made after that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ..errors import UsageError
from ..nir_file.read_back import Neurons
from ..nir_file.simulate import Recording

Array: TypeAlias = NDArray[Any]
Run: TypeAlias = Callable[[Path, Array, Mapping[str, Neurons]], Recording]

NAMES = ("norse", "sinabs", "snntorch", "spikingjelly")
ADJUSTED = "adjusted"


@dataclass(frozen=True)
class Reader:
    """A simulator that is installed.

    ``run`` takes a NIR file, inputs float32 [T, N, ...] and the file's neuron layers (the membranes
    that they start with are set where they are not 0), and returns what the simulator did.
    """

    name: str
    version: str
    run: Run
    adjustments: tuple[str, ...] = ()


def find(names: str) -> list[Reader]:
    """The readers in a comma-separated list.

    Raises UsageError for a name that is none, and for one whose package is not installed.
    """
    return [_find(name.strip()) for name in names.split(",")]


def installed() -> tuple[list[Reader], list[str]]:
    """Every reader that is installed, as it is, and the names of the others."""
    missing = [name for name in NAMES if not _present(name)]
    return [_find(name) for name in NAMES if name not in missing], missing


def _find(asked: str) -> Reader:
    name, _, variant = asked.partition(":")
    if name not in NAMES or variant not in ("", ADJUSTED):
        offered = [*NAMES, *(f"{each}:{ADJUSTED}" for each in NAMES)]
        similar = get_close_matches(asked, offered, n=1)
        remedy = f"did you mean {similar[0]}?" if similar else f"choose from {', '.join(offered)}"
        raise UsageError(f"--reader {asked}: no such reader", remedy=remedy)
    if not _present(name):
        raise UsageError(
            f"--reader {name}: {_missing(name)} not installed", remedy=f"pip install nir {name}"
        )
    module = import_module(f".{name}_reader", __package__)
    if variant:
        return Reader(asked, _version(name), module.run_adjusted, module.ADJUSTMENTS)
    return Reader(name, _version(name), module.run)


def _present(name: str) -> bool:
    return not _missing(name)


def _missing(name: str) -> str:
    """The packages that reader ``name`` needs and that are not installed."""
    needed = ("nir", "nirtorch", "torch", name)
    return ", ".join(package for package in needed if find_spec(package) is None)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of unknown version"
