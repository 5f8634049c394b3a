"""What stands in angle brackets: a word for what an expression will be."""

from __future__ import annotations

import ast

from .source import name_of

_SPOKEN = {
    "analogs": "tensor", "asked": "name", "count": "number", "dtype": "type", "each": "node",
    "files": "file", "flat": "file", "folder": "folder", "found": "what was found",
    "got": "shape", "loaded": "path", "message": "what is wrong with the arguments",
    "metadata": "what was said",
    "op": "operator", "op_type": "operator", "ort error": "error", "paths": "first file",
    "said": "what was said", "source": "path", "spec": "input", "str": "size", "strerror": "reason",
    "suffix": "suffix", "v": "value", "k": "setting", "where": "place",
}  # fmt: skip
ANYTHING = ("<what was said>", "<levels>")  # as Python writes it, with quotes if it is a text


def placeholder(node: ast.expr) -> str:
    """A word for what an expression will be: ``<path>`` of ``path.name``."""
    if isinstance(node, ast.Name):
        return _SPOKEN.get(node.id, node.id.replace("_", " ").strip())
    if isinstance(node, ast.Attribute):
        if node.attr == "__name__" and isinstance(node.value, ast.Call):
            return f"type of {placeholder(node.value)}"
        if node.attr == "message":
            return "reason"
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
