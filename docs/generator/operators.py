"""docs/operators.md: which operators may stand where, from the tables in the code that decide."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from types import FunctionType

from na_convert.passes import ANN_PASSES, affine, count_sums, normalise
from na_convert.passes.dynamic_scales import DYNAMIC_OPS
from na_convert.passes.strip_noise import RANDOM_OPS

from na_convert import axes, pointwise, qonnx, unit_scale
from na_convert.lift import OPSET
from na_convert.nir_file.boundaries import MOVED
from na_convert.nir_file.operators import OPERATORS as NIR_OPERATORS
from na_convert.regions import AVERAGING_OPS, DATA_POSITIONS, WEIGHTED_OPS

from .markdown import code, page, plain, table, text_of
from .messages import Message, messages_at
from .source import ROOT, Call, Source, imported, name_of

_RULES_IN = "passes/affine"
_MICROSOFT = [op for op in pointwise._MICROSOFT if op not in pointwise.SMOOTH]


def operators_page(source: Source) -> str:
    return page(
        "Operators",
        _introduction(),
        "## Between neurons",
        _BETWEEN,
        _between(source),
        "### Refused",
        _REFUSED,
        _refused(),
        "## In an activation",
        _activations(),
        "## Rewritten first",
        _REWRITTEN,
        *_passes(),
        "## Refused wherever they stand",
        _always(),
    )


# --- text -----------------------------------------------------------------------------------------


def _introduction() -> str:
    return cleandoc(f"""
        Where an operator stands decides what it may be:

        - **in front of the first weights** it is computed once, and **behind the last weights and
          averages** on the mean over time: what onnxruntime runs may stand there, linear or not,
          and stays as it is, but for what is
          [refused wherever it stands](#refused-wherever-they-stand);
        - **between neurons**, which is behind one layer of neurons and in front of another, it runs
          at every time step on single spikes, and has to be affine in them;
        - **in an activation** it is read as part of a function of one number.

        Neurons stand where an activation is behind some weights ({_listed(WEIGHTED_OPS)}) and in
        front of weights or averages ({_listed(AVERAGING_OPS)}); where there is none such, those
        that nothing but an output follows are taken. A nonlinear function that stands there and is
        no activation is refused, also where no neurons come before it, or none behind it: nobody
        would be told that a layer stays analog. Behind the last neurons only weights that come
        after them count, so that one between these neurons and the next weights stays analog.
        `--readout-from NODE` makes all behind NODE analog.

        `na-convert inspect MODEL` lists what would be refused, without converting anything. Models
        of an opset below {OPSET} are lifted to it.
    """)


_BETWEEN = cleandoc("""
    The second column says when an operator is refused there, in the words of the error;
    [errors](errors.md#structure-what-stands-between-neurons) has what to do about each. The last
    columns say whether it can be on [grids](exactness.md) and with unit spikes, has an
    [int8](int8.md) form, and can be written to [NIR](nir.md), under conditions of their own.
""")

_REFUSED = cleandoc("""
    Maxima are written as max-pools first, where sizes are known ([below](#write_out_maxima)); what
    is said here of the others is what is left.
""")

_REWRITTEN = cleandoc("""
    These passes bring what exporters write into one plain form, in this order, before what stands
    between neurons is judged. The lists are those of the modules in `passes/`, each case has its
    test.
""")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names)


# --- between neurons ------------------------------------------------------------------------------


def _between(source: Source) -> str:
    grids = {*unit_scale.ABSORBING, *unit_scale.SUMS, *unit_scale.PASSING}
    int8 = {*count_sums._RULES, "MaxPool"}
    nir = {*NIR_OPERATORS, *MOVED, "MaxPool"}
    rows = []
    for operator in affine.supported_operators():
        marks = ["yes" if operator in known else "" for known in (grids, int8, nir)]
        rows.append((code(operator), _conditions(operator, source), *marks))
    return table(("operator", "refused where it", "grids", "int8", "NIR"), rows)


def _conditions(operator: str, source: Source) -> str:
    rule = affine._RULES[operator]
    found = [*_obstacles(rule, source)] if isinstance(rule, FunctionType) else []
    said = [text_of(m.text) for m in found if _is_about(operator, m)]
    if operator in DATA_POSITIONS:
        said.append("takes indices, sizes or axes that depend on spikes")
    return "; ".join(dict.fromkeys(said))


def _is_about(operator: str, message: Message) -> bool:
    kind = "gating" if operator == "MatMul" else "attention"
    return f"({kind})" not in message.text


def _obstacles(rule: FunctionType, source: Source) -> Iterator[Message]:
    """What the function can say, and those of the module that it calls."""
    wanted, pending = set[str](), [rule.__qualname__.split(".")[0]]
    while pending:
        name = pending.pop()
        wanted.add(name)
        pending += [c for c in _calls(name, source) if c not in wanted]
    for call in source.calls["Obstacle"]:
        if call.module == _RULES_IN and wanted & set(_around(call, source)):
            yield from sorted(messages_at("Obstacle", call, source))


def _around(call: Call, source: Source) -> Iterator[str]:
    function = call.function
    while function is not None:
        yield function.name
        function = source.outer[function]


def _calls(name: str, source: Source) -> list[str]:
    functions = [f for f in source.outer if f.name == name and hasattr(affine, name)]
    called = {
        name_of(node.func) for f in functions for node in ast.walk(f) if isinstance(node, ast.Call)
    }
    return sorted(c for c in called if c.startswith("_") and hasattr(affine, c))


def _refused() -> str:
    rows = [
        (code(operator), found.reason, found.remedy)
        for operator, found in sorted(affine.NONLINEAR.items())
    ]
    every = "every other operator"
    rows.append((every, "is not known to be affine in its input", affine.REDUCTION_REMEDY))
    return table(("operator", "why", "what to do"), rows)


# --- activations ----------------------------------------------------------------------------------


def _activations() -> str:
    elementwise = sorted({*pointwise._KERNELS, "QuantizeLinear", "DequantizeLinear"})
    layout = sorted({*axes.LAYOUT, *axes.REDUCTIONS, "Concat", "Gather", "GatherND"})
    return cleandoc(f"""
        An activation may be spelled in one node or in a dozen: what counts is the function of one
        number that it computes. It becomes neurons if that is a staircase with even steps, or a
        clip ([how](how.md#activations)). Its operators may be

        - element by element: {_listed(elementwise)};
        - over axes that constants brought in: {_listed(layout)};
        - of [QONNX](https://github.com/fastmachinelearning/qonnx), in the domains
          {_listed(qonnx.DOMAINS)}: {_listed(qonnx.OPS)}, with the rounding modes
          {_listed(qonnx._ROUNDING)};
        - of `com.microsoft`: {_listed(_MICROSOFT)};
        - a local function of the model, which is inlined.

        Smooth functions are neither a staircase nor a clip: {_listed(sorted(pointwise.SMOOTH))}.
        Between neurons they are refused, as are {_listed(["Sigmoid", "Tanh", "Softplus"])} and
        other curves, which are found by evaluating them. A `Relu` has no upper bound: it needs
        `--calibrate` ([limits](limits.md)).
    """)


# --- passes ---------------------------------------------------------------------------------------


def _passes() -> Iterator[str]:
    for name in rewriting_passes():
        text = cleandoc(imported(f"passes/{name}").__doc__ or "")
        yield f"### {name}\n\n{plain(text)}"


def rewriting_passes() -> list[str]:
    """The modules of the steps of `normalise`, which are called as their functions, in the order
    of their calls, and of the passes behind it."""
    used = normalise.run.__code__.co_names
    steps = [name for name in used if (ROOT / "passes" / f"{name}.py").is_file()]
    return [*steps, *(each.__module__.rpartition(".")[2] for each in ANN_PASSES)]


def _always() -> str:
    return cleandoc(f"""
        Also in front of the first weights, behind the last, and behind `--readout-from NODE`:

        - `Loop`, `Scan`, and `If` whose condition is not constant: how long they run, or what they
          compute, is up to the data;
        - operators of unknown domains, whose meaning is not in the file;
        - {_listed(RANDOM_OPS)}: but for noise of mean zero that a rounding follows;
        - `BatchNormalization` in training mode (a `Dropout` in it is taken as in evaluation);
        - {_listed(DYNAMIC_OPS)}, whose scale depends on the batch;
        - what else mixes the samples of a batch, or has one batch size built in: time is folded
          into the batch.
    """)
