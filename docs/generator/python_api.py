"""docs/reference-python.md: what can be imported, from its docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import na_convert

from .markdown import code, page, plain

_RESULTS = (
    "Result", "ModelInfo", "OutputInfo", "Neuron", "Refusal", "PassReport", "Skip", "Equivalence",
    "TimestepResult", "LayerResult", "ErrorSplit", "ErrorPart", "ClassResult", "Figure",
    "Diagnosis", "Energy", "OperatorWork", "Exactness", "Rounding", "InputRange",
    "BiasCalibration", "BiasTrial", "LayerShift", "Quantisation", "QuantisedLayer", "NirExport",
    "NirLayer", "SimulationResult", "SimulatedTimestep", "SimulatedLayer", "ArrayInfo",
    "EarlyExit",
)  # fmt: skip
_SECTIONS = ("Args:", "Attributes:", "Raises:")


def python_page() -> str:
    from na_convert import data, errors, explanation, results, simulation, testing
    from na_convert import models as training

    exported = [name for name in na_convert.__all__ if not name.startswith("_")]
    return page(
        "Python reference",
        inspect.cleandoc(na_convert.__doc__ or "").split("\n\n", 1)[0]
        + "\n\nEverything here is typed. Importing `na_convert` loads neither numpy nor onnx; "
        "`na_convert.models` needs torch (extra `train`). Errors are listed in "
        "[errors.md](errors.md).",
        "## na_convert",
        *(entry(f"na_convert.{name}", getattr(na_convert, name)) for name in exported),
        "## na_convert.testing",
        entry("assert_equivalent", testing.assert_equivalent),
        "## na_convert.models",
        *(entry(name, getattr(training, name)) for name in training.__all__),
        "## What goes in",
        entry("na_convert.data.Preprocessing", data.Preprocessing),
        "## What comes back",
        "Frozen dataclasses of `na_convert.results`, unless another module is named. "
        "[verification.md](verification.md) defines the figures; as JSON they have the same names "
        "([schema](result.schema.json)).",
        *(entry(name, getattr(results, name)) for name in _RESULTS),
        entry("na_convert.simulation.Simulation", simulation.Simulation),
        entry("na_convert.explanation.Explanation", explanation.Explanation),
        "## na_convert.errors",
        entry("NaConvertError", errors.NaConvertError),
        "The classes derived from it, with their exit codes: [errors.md](errors.md).",
    )


def entry(name: str, thing: Any) -> str:
    """Heading, signature and docstring of a function, or of a class with its public methods."""
    parts = [f"### {name}", _signature(name.rpartition(".")[2], thing), _docstring(thing)]
    if inspect.isclass(thing):
        parts += _fields(thing)
        for method_name, method in vars(thing).items():
            if not method_name.startswith("_") and _is_shown(method):
                parts.append(_member(method_name, method))
    return "\n\n".join(part for part in parts if part)


def _is_shown(method: Any) -> bool:
    own = getattr(method, "fget", getattr(method, "__func__", method))
    return inspect.isfunction(own) and bool(own.__doc__) and not hasattr(own, "__wrapped__")


def _member(name: str, method: Any) -> str:
    if isinstance(method, property):
        return f"**{name}** (property)\n\n{_docstring(method)}"
    function = getattr(method, "__func__", method)
    return f"**{name}**\n\n{_signature(name, function)}\n\n{_docstring(function)}"


def _signature(name: str, thing: Any) -> str:
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        return ""
    signature = inspect.signature(thing)
    parameters = [_parameter(p) for p in signature.parameters.values() if p.name != "self"]
    if signature.parameters and any(
        p.kind is p.KEYWORD_ONLY for p in signature.parameters.values()
    ):
        first = next(i for i, p in enumerate(_shown(signature)) if p.kind is p.KEYWORD_ONLY)
        parameters.insert(first, "*")
    returned = signature.return_annotation
    arrow = "" if returned is signature.empty or inspect.isclass(thing) else f" -> {returned}"
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) > 90:
        line = f"{name}(\n" + "".join(f"    {p},\n" for p in parameters) + f"){arrow}"
    return f"```text\n{line}\n```"


def _shown(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [p for p in signature.parameters.values() if p.name != "self"]


def _parameter(parameter: inspect.Parameter) -> str:
    annotated = parameter.annotation is not parameter.empty
    kind = f": {parameter.annotation}" if annotated else ""
    if parameter.default is parameter.empty:
        return f"{parameter.name}{kind}"
    return f"{parameter.name}{kind}{' = ' if annotated else '='}{parameter.default!r}"


def _fields(thing: Any) -> Iterator[str]:
    """The fields of a dataclass with their types and defaults."""
    if not dataclasses.is_dataclass(thing):
        return
    lines = []
    for field in dataclasses.fields(thing):
        default = ""
        if field.default is not dataclasses.MISSING:
            default = f" = {field.default!r}"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" = {field.default_factory()!r}"
        lines.append(f"{field.name}: {field.type}{default}")
    yield "```text\n" + "\n".join(lines) + "\n```"


def _docstring(thing: Any) -> str:
    """Docstring as Markdown: indented examples as code, Args and the like as lists."""
    text = inspect.getdoc(thing) or ""
    if text.startswith(f"{getattr(thing, '__name__', '')}("):  # made by dataclass: no docstring
        return ""
    blocks, section = [], ""
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0] in _SECTIONS:
            section, lines = lines[0], lines[1:]
            blocks.append(f"{section.rstrip(':')}:")
            blocks.append("\n".join(_items(lines)))
        elif lines and all(line.startswith("    ") for line in lines if line):
            blocks.append("```text\n" + inspect.cleandoc(block) + "\n```")
        else:
            blocks.append(plain(block))
    return "\n\n".join(blocks)


def _items(lines: list[str]) -> Iterator[str]:
    """``name: text`` with deeper lines that go on, as items of a list."""
    for line in inspect.cleandoc("\n".join(lines)).splitlines():
        name, colon, rest = line.partition(": ")
        if line.startswith(" ") or not colon:
            yield f"    {plain(line.strip())}"
        else:
            names = ", ".join(code(n.strip()) for n in name.split(","))
            yield f"- {names}: {plain(rest)}"
