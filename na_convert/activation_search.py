"""The activations of a graph: which functions to fit, where to cut them, and which to leave alone.

A function that is needed outside (`elementwise.Tracer.functions`) is fitted from its root at once.
If it is no activation as a whole it is taken apart where all of it goes through one tensor: the
longest part from the root that is an activation is one, and the rest is looked at on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from . import qonnx
from .activation import Ramp, Staircase
from .axes import LAYOUT
from .elementwise import Function, Tracer
from .fit_reasons import Fit
from .function_fit import (
    REGULAR,
    culprit,
    is_random,
    keeps_levels,
    measure,
    regularity,
    swallows,
)
from .graph import STANDARD_DOMAINS, is_constant, is_output, is_standard, label, producer
from .neurons import DOMAIN
from .results import Refusal

# Operators whose outputs are some of their inputs' values, unchanged.
_SELECTING = (
    *("DepthToSpace", "Dropout", "Expand", "Flatten", "GlobalMaxPool", "Identity", "MaxPool"),
    *("ReduceMax", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose"),
    *("Unsqueeze",),
)
_PER_CHANNEL_SELECTING = ("Dropout", "Identity", "MaxPool")


@dataclass(frozen=True)
class Found:
    """An activation and the part of the graph that it stands for."""

    function: Function
    activation: Staircase | Ramp
    fit: Fit


@dataclass(frozen=True)
class Same:
    """Readers of ``tensor`` can read ``other``, put through ``layouts``, instead.

    ``altered`` are tensors behind it whose values are no longer what their names stood for.
    """

    tensor: gs.Tensor
    other: gs.Tensor
    layouts: tuple[gs.Node, ...] = ()
    altered: tuple[gs.Tensor, ...] = ()


class Search:
    """Finds activations; `run` once, then read the results. Does not change the graph.

    Attributes:
        activations: in the order of the graph.
        same: tensors whose readers can read another one; to be redirected in this order.
        refused: functions that are neither affine nor an activation, and unknown operators.
        notes: what was dropped or shared.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.tracer = Tracer(graph)
        self.same: list[Same] = []
        self._found: dict[int, Found] = {}
        self._fits: dict[tuple[int, int], Fit] = {}
        self._refused: dict[int, Refusal] = {}
        self._notes: list[str] = []

    @property
    def activations(self) -> list[Found]:
        return list(self._found.values())

    @property
    def refused(self) -> tuple[Refusal, ...]:
        return tuple(self._refused.values())

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def run(self) -> Search:
        for function in self.tracer.functions():
            self._visit(function)
        self._share_equal()
        self._drop_repeated()
        self._drop_swallowed()
        self._refuse_unknown_operators()
        self.same.sort(key=lambda same: self.tracer.position(same.tensor), reverse=True)
        return self

    def fit(self, function: Function) -> Fit:
        """The kind of ``function``, measured once."""
        key = (id(function.root), id(function.output))
        if key not in self._fits:
            self._fits[key] = measure(function)
        return self._fits[key]

    # --- one function ---

    def _visit(self, function: Function) -> None:
        inner = [t for t in self.tracer.cuts(function) if id(t) in self._found]
        tail = self.tracer.function(inner[-1], function.output) if inner else None
        if tail is not None and self._adds_nothing(tail):
            return
        plain = self._behind_batchnorm(function)
        if plain is not None and self._is_activation(plain):
            self._accept(plain)
        elif self._is_activation(function):
            self._accept(function)
        elif tail is not None:
            self._continue(tail.root, tail.output)
        else:
            self._take_apart(function)

    def _behind_batchnorm(self, function: Function) -> Function | None:
        """What follows factors and terms per channel, if it is alike in all channels; else None.

        It is measured once, and not on every channel's scale, which takes seconds for a thousand.
        """
        if function.channels == 1:
            return None
        for cut in self.tracer.cuts(function):
            if not _scales_or_shifts(cut.inputs[0]):
                return None
            rest = self.tracer.function(cut, function.output)
            if rest is not None and rest.channels == 1:
                return rest
        return None

    def _take_apart(self, function: Function, whole: Fit | None = None) -> None:
        """Accept ``function``, or the parts of it that are activations; refuse what is left."""
        if self._adds_nothing(function):
            return
        if self._is_activation(function):
            self._accept(function)
            return
        if any(is_random(node) for node in function.nodes):
            self._refuse(function)
            return
        prefixes = [p for p in self._prefixes(function) if self.fit(p).kind != "typed"]
        uneven = self.fit(function).kind == "uneven"  # then a clip in it is part of a quantiser
        for prefix in reversed(prefixes):
            found = self.fit(prefix).activation
            if found is not None and not (uneven and isinstance(found, Ramp)):
                self._accept(prefix)
                self._continue(prefix.output, function.output, self.fit(function))
                return
        for prefix in prefixes:
            rest = self.tracer.function(prefix.output, function.output)
            if self.fit(prefix).kind == "affine" and rest and self._is_activation(rest):
                self._accept(rest)
                return
        curved = [p for p in prefixes if self.fit(p).kind == "unknown"]
        if uneven:
            curved = [p for p in curved if self._staircase_follows(p, function)]
        if curved:
            self._refuse(curved[0])
            self._continue(curved[0].output, function.output)
        else:
            self._refuse(function, whole)

    def _staircase_follows(self, prefix: Function, function: Function) -> bool:
        rest = self.tracer.function(prefix.output, function.output)
        return rest is not None and isinstance(self.fit(rest).activation, Staircase)

    def _continue(self, root: gs.Tensor, output: gs.Tensor, whole: Fit | None = None) -> None:
        """Take apart what is left; where nothing of it is an activation, ``whole`` says why."""
        rest = self.tracer.function(root, output)
        if rest is None:
            node = output.inputs[0]
            self._refused[id(output)] = Refusal(
                label(node),
                node.op,
                f"sums and changes of layout between {root.name!r} and {output.name!r} cannot be "
                "told apart",
                "quantise in the layout that the weights before or behind it use",
            )
            return
        first = rest.nodes[0]
        if is_standard(first, *LAYOUT) and self.tracer.cuts(rest)[:1] == first.outputs:
            self._continue(first.outputs[0], output, whole)
        else:
            self._take_apart(rest, whole)

    def _prefixes(self, function: Function) -> Iterator[Function]:
        for cut in self.tracer.cuts(function):
            prefix = self.tracer.function(function.root, cut)
            if prefix is not None and not prefix.layouts and prefix.nodes[-1].op not in LAYOUT:
                yield prefix

    def _adds_nothing(self, tail: Function) -> bool:
        """Affine, or an identity on the levels of the staircase it starts from."""
        if self.fit(tail).kind == "affine":
            return True
        base = self._found.get(id(tail.root))
        if base is None or self.fit(tail).kind == "typed" or not _keeps(base, tail):
            return False
        self._drop(tail, f"quantises {tail.root.name!r} once more without effect; dropped")
        return True

    def _drop(self, function: Function, note: str, altered: tuple[gs.Tensor, ...] = ()) -> None:
        """Let the readers of the output read the root."""
        self._found.pop(id(function.output), None)
        self.same.append(Same(function.output, function.root, function.layouts, altered))
        self._notes.append(f"{label(function.nodes[-1])}: {note}")

    def _is_activation(self, function: Function) -> bool:
        return self.fit(function).activation is not None

    def _accept(self, function: Function) -> None:
        function = self._simplest(function)
        fitted = self.fit(function)
        if fitted.activation is not None and id(function.output) not in self._found:
            self._found[id(function.output)] = Found(function, fitted.activation, fitted)

    def _simplest(self, function: Function) -> Function:
        """Without the affine parts at its ends (BatchNorm), if that makes it more regular."""
        if function.channels == 1:
            return function
        best, most = function, regularity(self.fit(function).activation)
        for root in self._affine_ends(function, at_root=True):
            for output in self._affine_ends(function, at_root=False):
                if most == REGULAR:
                    return best
                inner = self.tracer.function(root, output)
                if inner is not None and not inner.layouts:
                    score = regularity(self.fit(inner).activation)
                    if score > most:
                        best, most = inner, score
        return best

    def _affine_ends(self, function: Function, *, at_root: bool) -> list[gs.Tensor]:
        """Tensors that are affine in the root, or in which the output is affine; nearest first."""
        cuts = self.tracer.cuts(function)
        ends = [function.root if at_root else function.output]
        for cut in cuts if at_root else reversed(cuts):
            pair = (function.root, cut) if at_root else (cut, function.output)
            part = self.tracer.function(*pair)
            if part is None or self.fit(part).kind != "affine":
                break
            ends.append(cut)
        return ends

    def _refuse(self, function: Function, whole: Fit | None = None) -> None:
        fitted = whole if whole is not None and whole.reason else self.fit(function)
        node = culprit(function, fitted)
        nodes = tuple(label(n) for n in function.nodes)
        reason = fitted.reason + self._cut(function)
        refusal = Refusal(label(node), node.op, reason, fitted.remedy, nodes)
        self._refused.setdefault(id(function.output), refusal)

    def _cut(self, function: Function) -> str:
        """Who reads ``function`` where it ends, if others go on from there."""
        output, root = function.output, self.tracer.root_of(function.output)
        outside = self.tracer.outside_readers(output, root)
        continuing = [c for c in output.outputs if c.op not in LAYOUT]
        on = [c for c in continuing for o in c.outputs if self.tracer.root_of(o) is root]
        if not on or not outside:
            return ""
        readers = ", ".join(repr(label(reader)) for reader in outside)
        return f", where {readers} takes it, and {label(on[0])!r} goes on"

    # --- several ---

    def _share_equal(self) -> None:
        """One of several equal activations of one root is enough."""
        first: dict[tuple[Any, ...], Found] = {}
        for found in self.activations:
            other = first.setdefault(_identity(found), found)
            if other is not found:
                del self._found[id(found.function.output)]
                self.same.append(Same(found.function.output, other.function.output))
                self._notes.append(
                    f"{label(found.function.nodes[-1])}: equal to "
                    f"{label(other.function.nodes[-1])}; shared"
                )

    def _drop_repeated(self) -> None:
        """Staircases that change nothing, because their root has only their levels already."""
        for found in self.activations:
            function = found.function
            sources = self._sources(function.root, True)
            if not sources or not isinstance(found.activation, Staircase):
                continue
            if all(_keeps(source, function) for source in sources):
                note = f"quantises {function.root.name!r} once more without effect; dropped"
                self._drop(function, note)

    def _drop_swallowed(self) -> None:
        """Clips whose only readers, through MaxPool and the like, are staircases within them."""
        for found in self.activations:
            ramp, function = found.activation, found.function
            if isinstance(ramp, Ramp) and function.channels == 1 and not function.layouts:
                readers = self._staircase_readers(function.output)
                if readers and all(swallows(r.activation, ramp) for r in readers):
                    note = "has no effect before the quantiser behind it; dropped"
                    self._drop(function, note, tuple(_selected_from(function.output)))

    def _staircase_readers(self, tensor: gs.Tensor) -> list[Found]:
        """All readers of ``tensor``, through selecting operators; none if some are no staircase."""
        if is_output(self.graph, tensor):
            return []
        found: list[Found] = []
        for consumer in tensor.outputs:
            if is_standard(consumer, *_SELECTING):
                if len(consumer.outputs) > 1:
                    return []
                behind = self._staircase_readers(consumer.outputs[0])
            else:
                behind = [
                    f for f in self.activations
                    if f.function.root is tensor and consumer in f.function.nodes
                ]  # fmt: skip
            if not behind:
                return []
            found += behind
        return found

    def _sources(self, tensor: gs.Tensor, per_channel: bool) -> list[Found]:
        """The staircases whose levels are the values of ``tensor``; none if there are others."""
        found = self._found.get(id(tensor))
        if found is not None:
            scalar = found.function.channels == 1
            stairs = isinstance(found.activation, Staircase)
            return [found] if stairs and (scalar or per_channel) else []
        equal = [same for same in self.same if same.tensor is tensor]
        if equal:
            return self._sources(equal[0].other, per_channel and not equal[0].layouts)
        node = producer(tensor)
        if node is None or not is_standard(node, *_SELECTING, "Concat"):
            return []
        kept = per_channel and is_standard(node, *_PER_CHANNEL_SELECTING)
        data = node.inputs if node.op == "Concat" else node.inputs[:1]
        parts = [self._sources(t, kept) for t in data]
        return [source for part in parts for source in part] if all(parts) else []

    def _refuse_unknown_operators(self) -> None:
        known = (*STANDARD_DOMAINS, DOMAIN, *qonnx.DOMAINS, "com.microsoft")
        for node in self.graph.nodes:
            if (node.domain or "") not in known:
                self._refused[id(node)] = Refusal(
                    label(node),
                    node.op,
                    f"operator {node.domain}::{node.op} is not defined in this file",
                    "export it in standard ONNX or QONNX operators, or as a local function",
                )


def _scales_or_shifts(node: gs.Node) -> bool:
    """Whether ``node`` multiplies one tensor by constants, or adds them to it."""
    by = [is_constant(tensor) for tensor in node.inputs]
    return is_standard(node, "Mul", "Add", "Sub", "Div") and by in (
        [[False, True]] if node.op == "Div" else [[False, True], [True, False]]
    )


def _selected_from(tensor: gs.Tensor) -> Iterator[gs.Tensor]:
    """Outputs of the selecting operators behind ``tensor``, up to where something else reads."""
    for consumer in tensor.outputs:
        if is_standard(consumer, *_SELECTING):
            yield consumer.outputs[0]
            yield from _selected_from(consumer.outputs[0])


def _keeps(source: Found, function: Function) -> bool:
    return keeps_levels(source.function, source.activation, function)


def _identity(found: Found) -> tuple[Any, ...]:
    """Equal for activations that always give equal values."""
    activation = found.activation
    parts = vars(activation).values()
    values = tuple(p.tobytes() if isinstance(p, np.ndarray) else p for p in parts)
    layouts = tuple(id(node) for node in found.function.layouts)
    return (id(found.function.root), type(activation), layouts, *values)
