"""Every kind of SNN file there is, as the options of `convert` that make it."""

from __future__ import annotations

from typing import Any

FORMS: dict[str, dict[str, Any]] = {
    "folded": {},
    "not on grids": {"exact": False},
    "unrolled": {"form": "unrolled"},
    "step": {"form": "step"},
    "int8": {"weights": "int8"},
    "int8-loop": {"weights": "int8", "form": "loop"},
    "int8-step": {"weights": "int8", "form": "step"},
}


def arguments(form: str) -> list[str]:
    """The same for the command line."""
    given = []
    for name, value in FORMS[form].items():
        given += [f"--no-{name}"] if value is False else [f"--{name}", value]
    return given
