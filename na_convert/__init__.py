"""na-convert: trained low-bit ANNs (ONNX) to spiking networks (ONNX), with proof.

    import na_convert

    result = na_convert.convert("model.onnx", data="images.npz")
    print(result.equivalence.by_timestep)

Importing the package is light: onnx and onnxruntime are loaded by the first call that needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout `passes/` and `models/` lie beside this folder; installed, they lie inside it.
_HERE = Path(__file__).resolve().parent
if not (_HERE / "passes").is_dir():
    __path__.append(str(_HERE.parent))

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import check, convert, explain, export, export_integers, inspect, record, simulate
    from .simulator import Simulator

__all__ = [
    "Simulator", "__version__", "check", "convert", "explain", "export", "export_integers",
    "inspect", "record", "simulate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "Simulator":
        from .simulator import Simulator

        return Simulator
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
