"""What every error of the project can say: the texts in the code, with what they are filled with.

A message is the text given to an error's constructor, or to what becomes a line in the table of
refused nodes. What is only known when it happens stands in angle brackets: ``<path>``. Where a
text is put together from names, they are followed: constants, what a function sets a name to, and
what callers hand over.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any, TypeAlias

from na_convert.passes.count_values import FOLDED

from na_convert.errors import SEE_TABLE

from .source import (
    Call,
    Function,
    Source,
    argument,
    assigned,
    imported,
    is_set,
    name_of,
    parameters,
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
_SPOKEN = {
    "analogs": "tensor", "asked": "name", "count": "number", "dtype": "type", "each": "node",
    "entangled": "it was exported for one batch size, and does not run, or differs, with two",
    "files": "file", "flat": "file", "folder": "folder", "found": "what was found",
    "got": "shape", "loaded": "path", "message": "what is wrong with the arguments",
    "op": "operator", "op_type": "operator", "ort error": "error", "paths": "first file",
    "said": "reason", "source": "path", "spec": "input", "str": "size", "strerror": "reason",
    "suffix": "suffix", "v": "value", "k": "setting", "where": "place",
}  # fmt: skip
_ROWS = (  # of the table of refused nodes
    *("Refusal", "Obstacle", "Unfit", "NoGeometry", "NoIntegerForm", "NotExact", "Fit"),
)
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
    """For every caller of the function around ``call`` that says something: its arguments."""
    function = call.function
    if function is None:
        return [{}]
    wanted = {
        node.id for each in needed if each is not None for node in ast.walk(each)
        if isinstance(node, ast.Name) and node.id in parameters(function)
    }  # fmt: skip
    scopes = []
    for caller in source.calls[function.name] if wanted else []:
        if function.name.startswith("_") and caller.module != call.module:
            continue
        given = {name: _given(caller, function, name) for name in wanted}
        if any(_is_text(value) for value in given.values()):
            scopes.append({n: (v, caller) for n, v in given.items() if v is not None})
    return scopes or [{}]


def _given(caller: Call, function: Function, name: str) -> ast.expr | None:
    names = parameters(function)
    found = argument(caller.node, names.index(name), name)
    return found if found is not None else _default(function, name)


def _default(function: Function, name: str) -> ast.expr | None:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if name not in names:
        return None
    place = names.index(name) - len(names) + len(function.args.defaults)
    return function.args.defaults[place] if place >= 0 else None


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
        return [repr(t) if node.conversion == ord("r") else t for t in texts]
    if isinstance(node, ast.IfExp):
        pair = (node.body, node.orelse)
        return [t for part in pair for t in render(part, call, scope, source, depth)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and _is_text(node.values[-1]):
        return _first_said([render(v, call, scope, source, depth) for v in node.values])
    inner = _unwrapped(node)
    if inner is not None:
        return render(inner, call, scope, source, depth)
    known = _value(node, call)
    if known is not None:
        return known
    if isinstance(node, ast.Name) and depth:
        return _name(node, call, scope, source, depth - 1)
    return [f"<{placeholder(node)}>"]


def _unwrapped(node: ast.expr) -> ast.expr | None:
    """The text in ``" ".join(text.split())`` and the like."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    inner = node.args[0] if node.func.attr == "join" and node.args else node.func.value
    return inner if _is_text(inner) and node.func.attr != "join" else _unwrapped(inner)


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
        if _is_text(value) or isinstance(value, ast.Name):
            return render(value, caller, {}, source, depth)
        return [f"<{placeholder(node)}>"]
    texts = []
    for value in assigned(call.function, node.id) if call.function is not None else ():
        if _is_text(value) or _unwrapped(value) or _value(value, call) is not None:
            texts += render(value, call, scope, source, depth)
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


def placeholder(node: ast.expr) -> str:
    """A word for what an expression will be: ``<path>`` of ``path.name``."""
    if isinstance(node, ast.Name):
        return _SPOKEN.get(node.id, node.id.replace("_", " ").strip())
    if isinstance(node, ast.Attribute):
        if node.attr == "__name__" and isinstance(node.value, ast.Call):
            return f"type of {placeholder(node.value)}"
        if node.attr in ("name", "names", "values", "shape", "stop", "start", "path"):
            return placeholder(node.value)
        return _SPOKEN.get(node.attr, node.attr.replace("_", " ").strip())
    if isinstance(node, ast.Call):
        if name_of(node.func) == "len":
            return "number"
        if node.args and name_of(node.func) != "get":
            return placeholder(node.args[0])
        owner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        return placeholder(owner)
    inner = _inner(node)
    return placeholder(inner) if inner is not None else "value"


def _inner(node: ast.expr) -> ast.expr | None:
    if isinstance(node, ast.BinOp):
        return node.left
    if isinstance(node, ast.BoolOp):
        return node.values[0]
    if isinstance(node, ast.Subscript | ast.Starred):
        return node.value
    if isinstance(node, ast.IfExp):
        return node.body
    if isinstance(node, ast.ListComp | ast.GeneratorExp):
        return node.generators[0].iter
    return node.elts[0] if isinstance(node, ast.List | ast.Tuple) and node.elts else None
