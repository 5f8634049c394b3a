"""What options may be, and their defaults: known to ``--help`` without loading anything."""

from __future__ import annotations

from pathlib import Path

FORMS = ("folded", "unrolled", "step")  # the keys of `forms.FORMS`
INT8_FORMS = ("unrolled", "loop", "step")  # those of `forms.INT8_FORMS`
WEIGHTS = ("float", "int8")
TIES = ("auto", "always", "never")

MAC_PJ = 4.6  # picojoules; see `energy` for the source
AC_PJ = 0.9
MARGIN = 0.01  # fractions; a relative change of energy

NIR_SUFFIX = ".nir"
NIR_TARGETS = ("generic", "sinabs", "norse", "snntorch", "spikingjelly", "lava", "spinnaker2")
HARDWARE_FILES = (".npz", ".h")  # what `export` writes integer networks to
MEMBRANES = ("metadata", "pulse", "bias")  # how a NIR file holds the membrane before the first step


def is_nir(path: Path) -> bool:
    """Whether ``path`` names a NIR file, in whatever case."""
    return path.suffix.lower() == NIR_SUFFIX


def is_for_hardware(path: Path) -> bool:
    """Whether ``path`` names a file for hardware, in whatever case."""
    return path.suffix.lower() in HARDWARE_FILES
