"""Views of the one SNN description (`na_convert.snn`): each module writes one form of file.

========  ==========================================================================================
folded    time lies in the batch; one node per neuron layer; any T (`forms.folded`)
unrolled  T steps one after the other, T fixed (`forms.unrolled`)
step      one time step, state in and out (`forms.step`)
========  ==========================================================================================

and of the integer network made of it (`na_convert.integer`):

========  ==========================================================================================
unrolled  a fixed number of time steps, one node per layer and step (`forms.int8_unrolled`)
loop      any number of steps up to the file's T, one step in a Loop (`forms.int8_loop`)
step      one time step, state in and out (`forms.int8_step`)
========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from ..errors import ModelError, UsageError
from ..graph import Parts
from ..integer import IntegerNetwork
from ..integer_view import view
from ..snn import Snn
from ..snn_guard import reading
from . import folded, int8_file, int8_loop, int8_step, int8_unrolled, step, unrolled


@dataclass(frozen=True)
class Form:
    """One kind of file.

    Attributes:
        parts: writes the description; ``snn.carried.metadata`` says the form.
        reader: finds the description behind a file, from the file's own weights.
        why: for the report, what one chooses it for.
    """

    name: str
    parts: Callable[[Snn], Parts]
    reader: Callable[[onnx.ModelProto], Snn]
    why: str

    def read(self, model: onnx.ModelProto) -> Snn:
        """The description behind a file, checked; raises ModelError where it is damaged."""
        return reading(self.reader, model)


FORMS = {
    form.name: form
    for form in (
        Form(
            folded.FORM,
            folded.folded_parts,
            folded.from_folded,
            "one node per neuron layer, any number of time steps",
        ),
        Form(
            unrolled.FORM,
            unrolled.unrolled_parts,
            unrolled.from_unrolled,
            "T is fixed, plain operators; on grids (the default) the fastest in float",
        ),
        Form(
            step.FORM,
            step.step_parts,
            step.from_step,
            "one time step per call, state in and out",
        ),
    )
}


@dataclass(frozen=True)
class Int8Form:
    """One kind of int8 file; as `Form`, of an integer network.

    Attributes:
        name: in the file's metadata; on the command line without ``int8-``.
    """

    name: str
    parts: Callable[[IntegerNetwork], Parts]
    why: str

    def read(self, model: onnx.ModelProto) -> Snn:
        """The integer network behind a file, seen as a description in real units."""
        loops = 1 if self.name == int8_loop.FORM else 0
        return reading(lambda file: view(int8_file.restore(file)), model, loops)


INT8_FORMS = {
    form.name.removeprefix("int8-"): form
    for form in (
        Int8Form(
            int8_unrolled.FORM,
            int8_unrolled.int8_parts,
            "int8 weights on spike counts, a fixed number of time steps: the fastest",
        ),
        Int8Form(
            int8_loop.FORM,
            int8_loop.int8_loop_parts,
            "int8 weights on spike counts, any number of time steps up to the file's T",
        ),
        Int8Form(
            int8_step.FORM,
            int8_step.int8_step_parts,
            "int8 weights on spike counts, one time step per call, state in and out",
        ),
    )
}


def named(name: str) -> Form:
    """The form called ``name``; raises UsageError where there is none."""
    if name not in FORMS:
        raise UsageError(f"--form {name}: no such form", remedy=f"there are {', '.join(FORMS)}")
    return FORMS[name]


def int8_named(name: str | None) -> Int8Form:
    """The int8 form called ``name`` (None: the fastest); raises UsageError where there is none."""
    chosen = name or "unrolled"
    if chosen not in INT8_FORMS:
        raise UsageError(
            f"--form {chosen}: no such form with --weights int8",
            remedy=f"there are {', '.join(INT8_FORMS)}",
        )
    return INT8_FORMS[chosen]


def form_of(model: onnx.ModelProto) -> Form | Int8Form:
    """The form of a file; raises ModelError if it is none of ours."""
    props = {p.key: p.value for p in model.metadata_props}
    known: dict[str, Form | Int8Form] = {**FORMS, **{f.name: f for f in INT8_FORMS.values()}}
    name = props.get("na_convert.form", "")
    if "na_convert.neurons" not in props or name not in known:
        raise ModelError(
            "this is not an SNN written by na-convert (its metadata is missing)",
            remedy="give the .snn.onnx file that na-convert wrote",
        )
    return known[name]


def read(model: onnx.ModelProto) -> Snn:
    """The description behind a file of any form; raises ModelError if it is none of ours."""
    return form_of(model).read(model)
