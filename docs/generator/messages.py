"""What every error of the project can say: the texts in the code, with what they are filled with.

A message is the text given to an error's constructor, or to what becomes a line in the table of
refused nodes. What is only known when it happens stands in angle brackets: ``<path>``. Where a
text is put together from names, they are followed: constants, what a function sets a name to or
returns, and what callers hand over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import ModuleType
from typing import Any, TypeAlias

from na_convert.passes.count_values import FOLDED

from na_convert.errors import SEE_TABLE

from .placeholders import ANYTHING, placeholder
from .source import (
    Call,
    Function,
    Source,
    argument,
    assigned,
    defined,
    imported,
    is_set,
    name_of,
    parameters,
    returned,
)

# Where the text and the remedy stand in a call, and the default of the remedy.
_PLACES: Mapping[str, tuple[int, int | None, str]] = {
    **dict.fromkeys(
        (
            *("UsageError", "ModelError", "DataError", "NotConvertible", "CheckFailed"),
            *("PassFailed", "NaConvertError", "Interrupted"),
        ),
        (0, None, ""),
    ),
    "Refusal": (2, 3, ""),
    "Obstacle": (0, 1, ""),
    "Unfit": (0, 1, ""),
    "NoGeometry": (0, None, ""),
    "NoIntegerForm": (0, 1, FOLDED),
    "NotExact": (1, None, ""),
    "Fit": (2, 3, ""),
}
_ROWS = (  # of the table of refused nodes
    *("Refusal", "Obstacle", "Unfit", "NoGeometry", "NoIntegerForm", "NotExact", "Fit"),
)
_SAID_AGAIN = {"NoGeometry": "Unfit"}  # what is caught, and said again with a remedy
# What attributes hold: what a function returns, or is given to a constructor, at which place.
_HELD: Mapping[tuple[str, str], Sequence[tuple[str, str, int | None]]] = {
    ("na_convert/pipeline", "entangled"): [("na_convert/batch_check", "entanglement", None)],
    ("na_convert/equivalence", "detail"): [
        ("na_convert/limits", "Figure", 4), ("na_convert/limits", "Entry", 2),
    ],
}  # fmt: skip
_DEPTH = 6  # names are followed so far

Scope: TypeAlias = Mapping[str, tuple[ast.expr, "Call"]]


@dataclass(frozen=True, order=True)
class Message:
    """One thing that can be said: its text, what to do (may be empty), the class, the module."""

    text: str
    remedy: str
    kind: str
    module: str


def messages(source: Source) -> set[Message]:
    """All of them, each once.

    Raises LookupError for an error whose text is not found; a row of the table may be one that was
    said elsewhere.
    """
    found = set[Message]()
    for kind in _PLACES:
        for call in source.calls[kind]:
            said = set(messages_at(kind, call, source))
            if kind in _SAID_AGAIN:
                remedies = _remedies_of_forwarded(_SAID_AGAIN[kind], source)
                said = {replace(each, remedy=remedy) for each in said for remedy in remedies}
            if not said and kind not in _ROWS:
                raise LookupError(f"{call.module}:{call.node.lineno}: no text found for {kind}")
            found |= said
    return found


def messages_at(kind: str, call: Call, source: Source) -> Iterator[Message]:
    """What one call of the constructor ``kind`` can say."""
    text, remedy = _arguments(kind, call.node)
    if text is None:
        yield from _from_table(kind, call)
        return
    if _is_forwarded(text):
        return
    for scope in _scopes([text, remedy], call, source):
        said = [render(each, call, scope, source) if each is not None else [""]
                for each in (text, remedy)]  # fmt: skip
        rows = zip(*said, strict=True) if _go_together(text, remedy, said) else product(*said)
        for one, what_to_do in rows:
            if one and not (kind in _ROWS and one.strip("<>") == "reason"):
                yield Message(one, what_to_do, kind, call.module)


def _arguments(kind: str, call: ast.Call) -> tuple[ast.expr | None, ast.expr | None]:
    at, then, default = _PLACES[kind]
    remedy = argument(call, then, "remedy")
    if argument(call, None, "refused") is not None:
        default = SEE_TABLE
    if remedy is None and default:
        remedy = ast.Constant(default)
    return argument(call, at, "reason"), remedy


def _is_forwarded(text: ast.expr) -> bool:
    """Whether it was said elsewhere first, as in ``Refusal(..., found.reason, found.remedy)``."""
    if isinstance(text, ast.Call) and name_of(text.func) == "str":
        return True
    return isinstance(text, ast.Attribute) and text.attr in ("reason", "message", "detail")


def _remedies_of_forwarded(kind: str, source: Source) -> set[str]:
    """What to do in calls of ``kind`` whose text was said elsewhere."""
    remedies = set[str]()
    for call in source.calls[kind]:
        text, remedy = _arguments(kind, call.node)
        if text is not None and remedy is not None and _is_forwarded(text):
            remedies |= set(render(remedy, call, {}, source))
    return remedies


def _go_together(text: ast.expr, remedy: ast.expr | None, said: Sequence[list[str]]) -> bool:
    """Whether text and remedy are names set side by side, so that they come in pairs."""
    return isinstance(text, ast.Name) and isinstance(remedy, ast.Name) and (
        len(said[0]) == len(said[1]) > 1
    )  # fmt: skip


def _from_table(kind: str, call: Call) -> Iterator[Message]:
    """``Unfit(*_REASONS[node.op])``: a table of reasons and remedies."""
    starred = [a.value for a in call.node.args if isinstance(a, ast.Starred)]
    table = starred[0] if starred else None
    if isinstance(table, ast.Subscript) and isinstance(table.value, ast.Name):
        for reason, remedy in getattr(imported(call.module), table.value.id).values():
            yield Message(reason, remedy, kind, call.module)


# --- who hands what over --------------------------------------------------------------------------


def _scopes(needed: Sequence[ast.expr | None], call: Call, source: Source) -> list[Scope]:
    """The arguments of every caller of the function around ``call`` that says something, and
    nothing for all others together."""
    function = call.function
    if function is None:
        return [{}]
    own = (call.module, function)
    wanted = {
        node.id for each in needed if each is not None for node in ast.walk(each)
        if isinstance(node, ast.Name) and node.id in parameters(function)
    }  # fmt: skip
    scopes: list[Scope] = []
    for caller in source.calls[function.name] if wanted else []:
        if function.name.startswith("_") and caller.module != call.module:
            continue
        given = {name: _given(caller.node, function, name) for name in wanted}
        if any(_is_said(value, caller) for value in given.values()):
            scopes.append({n: (v, caller) for n, v in given.items() if v is not None})
        elif {} not in scopes and defined(caller.node, caller.module, source) == own:
            scopes.append({})
    return scopes or [{}]


def _given(caller: ast.Call, function: Function, name: str) -> ast.expr | None:
    names = parameters(function)
    found = argument(caller, names.index(name), name)
    return found if found is not None else _default(function, name)


def _default(function: Function, name: str) -> ast.expr | None:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if name not in names:
        return None
    place = names.index(name) - len(names) + len(function.args.defaults)
    return function.args.defaults[place] if place >= 0 else None


def _is_said(value: ast.expr | None, caller: Call) -> bool:
    """Whether a caller hands over a text, an empty one or one that it has set a name to."""
    named = isinstance(value, ast.Name) and caller.function is not None
    texts = assigned(caller.function, value.id) if named else ()
    return _is_text(value) or _is_empty(value) or any(map(_is_text, texts))


def _is_empty(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value == ""


def _is_text(value: ast.expr | None) -> bool:
    if isinstance(value, ast.IfExp):
        return _is_text(value.body)
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str) and bool(value.value)
    )


# --- texts ----------------------------------------------------------------------------------------


def render(
    node: ast.expr, call: Call, scope: Scope, source: Source, depth: int = _DEPTH
) -> list[str]:
    """Every text that ``node`` can be; one for most."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        parts = [render(part, call, scope, source, depth) for part in node.values]
        return ["".join(texts) for texts in product(*parts)]
    if isinstance(node, ast.FormattedValue):
        texts = render(node.value, call, scope, source, depth)
        quoted = node.conversion == ord("r")
        return [repr(t) if quoted and t not in ANYTHING else _formatted(t, node) for t in texts]
    if isinstance(node, ast.IfExp):
        pair = (node.body, node.orelse)
        return [t for part in pair for t in render(part, call, scope, source, depth)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and _is_text(node.values[-1]):
        return _first_said([render(v, call, scope, source, depth) for v in node.values])
    inner = _unwrapped(node) or _joined(node, call)
    if inner is not None:
        return render(inner, call, scope, source, depth)
    known = _value(node, call)
    if known is None and depth:
        known = _held(node, call, source) or _of_function(node, call, source, depth - 1)
    if known:
        return known
    if isinstance(node, ast.Name) and depth:
        return _name(node, call, scope, source, depth - 1)
    return [f"<{placeholder(node)}>"]


def _formatted(text: str, value: ast.FormattedValue) -> str:
    """A number as its format says, such as ``:.3g``."""
    if value.format_spec is None or not re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    return format(float(text) if "." in text else int(text), ast.unparse(value.format_spec)[2:-1])


def _held(node: ast.expr, call: Call, source: Source) -> list[str]:
    """What an attribute of `_HELD` can be."""
    places = _HELD.get((call.module, node.attr), ()) if isinstance(node, ast.Attribute) else ()
    texts: list[str] = []
    for module, name, place in places:
        if place is None:
            function = dict(source.functions[name])[module]
            texts += _returned(module, function, {}, source, _DEPTH)
            continue
        for made in (c for c in source.calls[name] if c.module == module):
            text = argument(made.node, place, "detail")
            for scope in _scopes([text], made, source):
                found = render(text, made, scope, source) if text is not None else []
                texts += [t for t in found if not _is_placeholder(t)]
    return [text for text in dict.fromkeys(texts) if text]


def _of_function(node: ast.expr, call: Call, source: Source, depth: int) -> list[str]:
    """What a call of a function of the project returns, if that is text."""
    found = defined(node, call.module, source) if isinstance(node, ast.Call) else None
    if found is None or not any(_is_text(each) for each in returned(found[1])):
        return []
    module, function = found
    given = {name: _given(node, function, name) for name in parameters(function)}
    scope = {n: (v, call) for n, v in given.items() if v is not None}
    texts = _returned(module, function, scope, source, depth)
    return [] if any(map(_is_placeholder, texts)) else texts


def _returned(
    module: str, function: Function, scope: Scope, source: Source, depth: int
) -> list[str]:
    inside = Call(ast.Call(ast.Name(function.name), [], []), module, function)
    return [t for each in returned(function) for t in render(each, inside, scope, source, depth)]


def _is_placeholder(text: str) -> bool:
    return text.startswith("<") and text.find(">") == len(text) - 1


def _unwrapped(node: ast.expr) -> ast.expr | None:
    """The text in ``" ".join(text.split())`` and the like."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    inner = node.args[0] if node.func.attr == "join" and node.args else node.func.value
    return inner if _is_text(inner) and node.func.attr != "join" else _unwrapped(inner)


def _joined(node: ast.expr, call: Call) -> ast.expr | None:
    """The text in ``", ".join(text for ...)``, or in the list of them that a name is set to."""
    if not isinstance(node, ast.Call) or name_of(node.func) != "join" or not node.args:
        return None
    (given,) = node.args
    lists = [given]
    if isinstance(given, ast.Name) and call.function is not None:
        lists += assigned(call.function, given.id)
    made = [each for each in lists if isinstance(each, ast.ListComp | ast.GeneratorExp)]
    return next((each.elt for each in made if _is_text(each.elt)), None)


def _first_said(parts: Sequence[list[str]]) -> list[str]:
    """Of ``a or b``: what is known of the first that says something, and of those before it."""
    texts: list[str] = []
    for part in parts:
        texts += [text for text in part if text]
        if part and all(text and not text.startswith("<") for text in part):
            break
    return texts


def _name(node: ast.Name, call: Call, scope: Scope, source: Source, depth: int) -> list[str]:
    if node.id in scope:
        value, caller = scope[node.id]
        if _is_text(value) or _is_empty(value) or isinstance(value, ast.Name):
            return render(value, caller, {}, source, depth)
        return _value(value, caller) or [f"<{placeholder(node)}>"]
    texts = []
    for value in assigned(call.function, node.id) if call.function is not None else ():
        said = _is_text(value) or _unwrapped(value) or _joined(value, call)
        if said or _value(value, call) is not None:
            texts += render(value, call, scope, source, depth)
        elif depth:
            texts += filter(None, _of_function(value, call, source, depth))
    return list(dict.fromkeys(texts)) or [f"<{placeholder(node)}>"]


def _value(node: ast.expr, call: Call) -> list[str] | None:
    """What ``node`` is, if it is made of the module's constants alone; all rows of a table."""
    table = _looked_up(node)
    if table is not None:
        entries = getattr(imported(call.module), table, None)
        if isinstance(entries, Mapping) and all(isinstance(v, str) for v in entries.values()):
            default = node.args[1] if isinstance(node, ast.Call) and len(node.args) > 1 else None
            rest = _value(default, call) if default is not None else None
            return [*dict.fromkeys(entries.values()), *(rest or ())]
    if isinstance(node, ast.Attribute) and node.attr.isupper() and isinstance(node.value, ast.Name):
        owner = getattr(imported(call.module), node.value.id, None)
        return [str(getattr(owner, node.attr))] if isinstance(owner, ModuleType) else None
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    constants = [n for n in names if n not in ("len", "sorted", "list")]
    if not constants or not all(n.lstrip("_").isupper() for n in constants):
        return None
    if call.function is not None and any(is_set(call.function, n) for n in constants):
        return None
    found: Any = eval(ast.unparse(node), vars(imported(call.module)))  # noqa: S307
    return [", ".join(found) if isinstance(found, tuple) else str(found)]


def _looked_up(node: ast.expr) -> str | None:
    """The name of the table in ``TABLE.get(key)`` and ``TABLE[key]``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value if node.func.attr == "get" else None
    else:
        owner = node.value if isinstance(node, ast.Subscript) else None
    return owner.id if isinstance(owner, ast.Name) and owner.id.lstrip("_").isupper() else None
