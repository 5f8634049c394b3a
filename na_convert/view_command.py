"""The command ``na-convert view``: a file in Netron, in the browser, until Ctrl-C."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from .arguments import existing_file
from .errors import ModelError, UsageError

HOST = "localhost"


def view_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="an ANN or SNN, an ONNX file")],
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="to serve at; default: one that is free")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="only serve, and print the address")
    ] = False,
) -> int:
    """Show MODEL in Netron, if that is installed, until Ctrl-C."""
    existing_file(model)
    netron = require_netron()
    require_onnx(model)
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: a number from 0 to 65535 is needed")
    logging.getLogger("netron").setLevel(logging.WARNING)  # it logs what is printed here
    try:
        host, number = netron.start(str(model), address=(HOST, port or None), browse=not no_browser)
    except OSError as error:
        raise UsageError(
            f"--port {port}: cannot serve there ({error.strerror})", remedy="choose another"
        ) from error
    print(f"{model}: http://{host}:{number} (Ctrl-C stops)", flush=True)
    netron.wait()
    return 0


def require_netron() -> Any:
    """The package; raises UsageError, saying how to install it, where it is missing."""
    try:
        import netron
    except ImportError:
        raise UsageError("view needs netron", remedy="pip install netron") from None
    return netron


def require_onnx(path: Path) -> None:
    """Raises ModelError where ``path`` is no ONNX file; weights beside it are not read."""
    import onnx

    try:
        nodes = len(onnx.load(path, load_external_data=False).graph.node)
    except Exception as error:
        raise ModelError(f"{path}: not a readable ONNX model") from error
    if not nodes:
        raise ModelError(f"{path}: the model has no nodes")
