"""The project's Python files as syntax trees: functions, who calls them, what names are set to."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
FOLDERS = ("na_convert", "passes", "models")

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Call:
    """A call, the module it stands in (``passes/affine``), and the function around it."""

    node: ast.Call
    module: str
    function: Function | None


@dataclass(frozen=True)
class Source:
    """All files: every call by the name of what is called, the parents of functions, and the
    functions of modules by their names, with the module."""

    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    outer: dict[Function, Function | None] = field(default_factory=dict)
    functions: dict[str, list[tuple[str, Function]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def read() -> Source:
    """Every file of the packages, in the order of their names."""
    source = Source()
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            module = file.relative_to(ROOT).with_suffix("").as_posix()
            _visit(ast.parse(file.read_text()), module, None, source)
    return source


def _visit(node: ast.AST, module: str, function: Function | None, source: Source) -> None:
    for child in ast.iter_child_nodes(node):
        inside = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            source.outer[child] = function
            if isinstance(node, ast.Module):
                source.functions[child.name].append((module, child))
            inside = child
        elif isinstance(child, ast.Call):
            source.calls[name_of(child.func)].append(Call(child, module, function))
        _visit(child, module, inside, source)


def name_of(node: ast.expr) -> str:
    """The last name of what is called: ``f`` and ``x.f`` are both ``f``."""
    return getattr(node, "id", getattr(node, "attr", ""))


def parameters(function: Function) -> list[str]:
    """Names of the parameters, ``self`` left out."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return [*names[names[:1] == ["self"] :], *(a.arg for a in function.args.kwonlyargs)]


def argument(call: ast.Call, position: int | None, keyword: str) -> ast.expr | None:
    """What ``call`` gives for a parameter, by place or by name; None if nothing."""
    for given in call.keywords:
        if given.arg == keyword:
            return given.value
    if position is None or any(isinstance(a, ast.Starred) for a in call.args):
        return None
    return call.args[position] if position < len(call.args) else None


def assigned(function: Function, name: str) -> Iterator[ast.expr]:
    """The expressions that ``function`` sets ``name`` to."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
        elif isinstance(node, ast.NamedExpr) and node.target.id == name:
            yield node.value
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
            yield from _rows(function, node, name)


def _rows(function: Function, loop: ast.For, name: str) -> Iterator[ast.expr]:
    """Of ``for a, b in rows`` with ``rows = ((1, 2), (3, 4))``: what ``name`` is, row by row."""
    names = [getattr(t, "id", "") for t in loop.target.elts]  # type: ignore[attr-defined]
    if name in names and isinstance(loop.iter, ast.Name):
        for table in assigned(function, loop.iter.id):
            if isinstance(table, ast.Tuple | ast.List):
                for row in table.elts:
                    if isinstance(row, ast.Tuple):
                        yield row.elts[names.index(name)]


def returned(function: Function) -> Iterator[ast.expr]:
    """The expressions that ``function`` returns, without those of functions inside it."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending = [*ast.iter_child_nodes(node), *pending]


def defined(call: ast.Call, module: str, source: Source) -> tuple[str, Function] | None:
    """The function of the project that ``call`` in ``module`` calls, with its own module."""
    if not isinstance(call.func, ast.Name):
        return None
    name = getattr(getattr(imported(module), call.func.id, None), "__module__", None)
    found = source.functions.get(call.func.id, [])
    return next((each for each in found if imported(each[0]).__name__ == name), None)


def is_set(function: Function, name: str) -> bool:
    """Whether ``name`` is a parameter of ``function`` or set in it, in whatever way."""
    if name in parameters(function):
        return True
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(function)
    ) or any(isinstance(n, ast.ExceptHandler) and n.name == name for n in ast.walk(function))


def imported(module: str) -> ModuleType:
    """The module of a file: ``passes/affine`` is `na_convert.passes.affine`."""
    name = module.removesuffix("/__init__").replace("/", ".")
    return import_module(name if name.startswith("na_convert") else f"na_convert.{name}")
