"""docs/errors.md: everything that can go wrong, why, and what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from inspect import cleandoc

from na_convert import errors

from .markdown import code, page, plain, table, text_of
from .messages import Message, messages
from .source import Source


@dataclass(frozen=True)
class Part:
    """Messages of some classes from some modules, under one heading.

    Attributes:
        kinds: names of classes, or of what becomes a line in the table of refused nodes.
        modules: patterns, such as ``na_convert/forms/*``.
        why: in general, and what helps where a message has no remedy of its own.
    """

    title: str
    kinds: Sequence[str]
    modules: Sequence[str]
    why: str


_SNN_FILES = (
    *("na_convert/forms/*", "na_convert/snn*", "na_convert/exactness", "na_convert/integer_*"),
    *("na_convert/running", "na_convert/simulation"),
)
_NIR = ("na_convert/nir_file/*", "na_convert/nir_readers/*")

# In the order of the page; of the parts that fit, the one with the longest pattern has a message.
CANNOT_BE_USED = (
    Part(
        "Options and arguments", ("UsageError",), ("*",),
        "An option that does not exist, that another one excludes, or a value it cannot have "
        "([all options](reference-cli.md)). In Python the same checks hold for the arguments of "
        "the same name.",
    ),
    Part(
        "Reading model files", ("ModelError",), ("*",),
        "The file is no valid ONNX model, asks for more than a network needs "
        "([robustness.md](robustness.md)), or onnxruntime does not run it. Export it again; "
        "`onnx.checker.check_model` and a run in onnxruntime show whether the file is sound "
        "without na-convert.",
    ),
    Part(
        "Reading data", ("DataError",), ("*",),
        "Data do not fit the model's inputs, or cannot be read ([data.md](data.md)). A message "
        "without a remedy says what was expected: bring the file into that shape.",
    ),
    Part(
        "Reading SNN files", ("ModelError",), _SNN_FILES,
        "The file says what network it holds, and that does not fit: it was changed by another "
        "tool, damaged, or is of another kind. Convert the ANN again.",
    ),
    Part(
        "NIR files", ("UsageError", "ModelError"), _NIR,
        "From `export`, `-o NAME.nir` and `check ANN NAME.nir` ([nir.md](nir.md), "
        "[nir-readers.md](nir-readers.md)). Only files that na-convert exported are read.",
    ),
    Part(
        "na-train", ("UsageError", "DataError"), ("models/*",),
        "From `na-train` and `na_convert.models`: recipes, data sets and checkpoints "
        "([training.md](training.md)).",
    ),
)  # fmt: skip
NOT_PASSED = (
    Part(
        "Reading activations", ("Fit",), ("*",),
        "Lines of the table of refused nodes. An activation becomes neurons if it is a staircase "
        "with even steps or a clip, as a function of one number "
        "([how](how.md#activations)). `na-convert inspect MODEL --explain NODE` shows what was "
        "measured.",
    ),
    Part(
        "Noise and training mode", ("Refusal",),
        ("passes/strip_noise", "passes/fold_batchnorm", "passes/write_out_trunc",
         "passes/calibrate"),
        "Lines of the table: the graph is that of training, or calibration found nothing.",
    ),
    Part(
        "Structure: what stands between neurons", ("Refusal", "Obstacle"),
        ("passes/affine", "passes/dynamic_scales", "passes/to_spiking", "passes/unbounded",
         "passes/freeing", "na_convert/opaque", "na_convert/activation_search"),
        "Lines of the table. Between two layers of neurons an operator runs at every time step, on "
        "single spikes, so it has to be affine in them and to leave the samples apart "
        "([operators.md](operators.md)). What cannot be is best moved behind the last activation, "
        "where it works on the mean over time (`--readout-from`).",
    ),
    Part(
        "int8", ("NoIntegerForm", "Refusal", "NotConvertible"),
        ("passes/count_*", "passes/compose_terms", "passes/layer_kinds", "passes/quantise_weights"),
        "Only with `--weights int8` ([int8.md](int8.md)); lines of the table. The same network "
        "converts with float weights.",
    ),
    Part(
        "Grids and unit spikes", ("NotExact", "NotConvertible"),
        ("na_convert/unit_scale", "na_convert/worst_case", "passes/*"),
        "Why a network has no grid, on which all engines count the same "
        "([exactness.md](exactness.md#what-has-no-grid)). By default that is no error: the summary "
        "shows it in the line *exact*, and the network stays as it was. With `--unit-spikes`, and "
        "for NIR, what concerns scales is one.",
    ),
    Part(
        "Export to NIR", ("Unfit", "NoGeometry", "Refusal", "NotConvertible"), _NIR,
        "The network converts, and has no counterpart in NIR ([nir.md](nir.md#what-is-refused)).",
    ),
    Part(
        "Export for hardware", ("Refusal", "NotConvertible", "CheckFailed"),
        ("na_convert/hardware/*",),
        "Of `export` to `.npz` and `.h` ([hardware.md](hardware.md)).",
    ),
    Part(
        "The model as a whole", ("NotConvertible",), ("*",),
        "The run ends with one of these; where it counts nodes, the table above it names each with "
        "reason and remedy.",
    ),
    Part(
        "Checks", ("CheckFailed",), ("*",),
        "A figure broke its limit: the message names it, with the limit that would have passed "
        "([what each figure is](verification.md)). A limit of yours (`--max-drop`, "
        "`--min-agreement`, `--baseline`) says that the network is not good enough; any other "
        "that the two files do not belong together, or that na-convert has a defect. "
        "`check --bisect DIR` cuts both networks down to the first layer that differs.",
    ),
    Part(
        "Defects of na-convert", ("PassFailed", "NaConvertError"), ("*",),
        "These should not happen whatever the model is. Please report them with the model, or its "
        "structure, and the output of `-v`. Nothing was written.",
    ),
)  # fmt: skip
STOPPED = (Part("Stopped", ("Interrupted",), ("*",), "Ctrl-C or SIGTERM. Nothing was written."),)

CODES = (
    (2, "what was given cannot be used", CANNOT_BE_USED),
    (1, "cannot be converted, or a check failed", NOT_PASSED),
    (130, "stopped", STOPPED),
)


def errors_page(source: Source) -> str:
    """The page. Raises LookupError for a message that fits in no part."""
    by_part: dict[tuple[int, str], list[Message]] = defaultdict(list)
    for message in messages(source):
        by_part[_code(message.kind), _part(message).title].append(message)
    sections = [_INTRODUCTION, _classes()]
    for number, what, parts in CODES:
        sections.append(f"## Exit code {number}: {what}")
        for part in parts:
            found = by_part[number, part.title]
            if found:
                sections += [f"### {part.title}", part.why, _rows(found)]
    return page("Errors", *sections)


_INTRODUCTION = cleandoc("""
    Every error is one line on stderr, `error: where: why: what to do`, with an exit code; with
    `--json` an object as well. In Python it is an exception with `message`, `node`, `remedy` and
    `exit_code`. Nodes that cannot be part of a spiking network are listed in a table, each with its
    reason and remedy, and the error comes after it; in Python they are the exception's `refused`.

    Below is every text of na-convert's own, with what differs from run to run in angle brackets.
    Brackets also stand for what is passed on: what onnxruntime, onnx, numpy, torch, the system or a
    reader of NIR says (`<error>`, `<reason>`, `<what was said>`); what is wrong with an option or
    argument as the parser sees it, the whole of one message (`<what is wrong with the arguments>`);
    the reason of a node, which is a row of its own (`<reason>`); and what a figure is of
    (`<detail>`, [verification.md](verification.md)) or a reader does otherwise (`<what>`,
    [nir-readers.md](nir-readers.md)). Notes and warnings, which end no run, are not listed, nor are
    the `ValueError`s of `na_convert.models` in Python.

    Where nothing stands under *what to do*, the message says it, or the paragraph above the table;
    remedies of one message are separated by a slash, and *nothing* among them means that it may
    also come without one.
""")


def _classes() -> str:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.NaConvertError)
    ]
    rows = [(code(k.__name__), str(k.exit_code), _first_paragraph(k)) for k in kinds]
    return "All are in `na_convert.errors`.\n\n" + table(("class", "exit code", "meaning"), rows)


def _first_paragraph(kind: type) -> str:
    text = cleandoc(kind.__doc__ or "").split("\n\n", 1)[0]
    return plain(" ".join(text.split()))


def _code(kind: str) -> int:
    found = getattr(errors, kind, None)
    return 1 if found is None else int(found.exit_code)


def _part(message: Message) -> Part:
    parts = next(parts for number, _, parts in CODES if number == _code(message.kind))
    fitting = [
        (len(pattern), part)
        for part in parts
        for pattern in part.modules
        if message.kind in part.kinds and fnmatch(message.module, pattern)
    ]
    if not fitting:
        raise LookupError(f"no part of errors.md is for {message}: see docs/generator/errors.py")
    return max(fitting, key=lambda pair: pair[0])[1]


def _rows(found: Sequence[Message]) -> str:
    remedies: dict[str, set[str]] = defaultdict(set)
    for message in found:
        passed_on = message.remedy == "<remedy>"
        remedies[message.text].add("<as in the row of the reason>" if passed_on else message.remedy)
    rows = [
        (code(text), _what_to_do(remedies[text])) for text in sorted(remedies, key=_without_place)
    ]
    return table(("message", "what to do"), rows)


def _what_to_do(remedies: set[str]) -> str:
    """The remedies of a message; one that has none at times says so."""
    said = [text_of(remedy) for remedy in sorted(remedies) if remedy]
    return " / ".join([*said, "nothing"] if said and "" in remedies else said)


def _without_place(text: str) -> tuple[str, str]:
    """Messages are sorted by what they say, not by which file they say it of."""
    place, colon, rest = text.partition(": ")
    return (rest.lower(), text) if colon and place.startswith("<") else (text.lower(), text)
