"""A program as an ``.npz``: an array for each set of numbers, and a JSON text about them.

Arrays are called N/WHAT, N the number of the operation; docs/hardware.md lists them. Reading needs
no pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .program import Current, Layer, Mean, Move, Product, Program, Shortcut

Array: TypeAlias = NDArray[Any]
Entry: TypeAlias = dict[str, Any]

FORMAT = "na-convert integer network 1"
_PAIRS = ("size", "strides", "pads", "dilations", "made")


def write(program: Program, source: str, path: Path, extra: Mapping[str, Array]) -> None:
    """Write ``program``, made from the file ``source``, and ``extra`` arrays."""
    arrays: dict[str, Array] = {}
    operations = [
        _layer_entry(op, f"{i}/", arrays) if isinstance(op, Layer) else _move_entry(op, i, arrays)
        for i, op in enumerate(program.operations)
    ]
    text = json.dumps(
        {
            "format": FORMAT,
            "tool": f"na-convert {__version__}",
            "source": source,
            "timesteps": program.timesteps,
            "memory": program.memory,
            "operations": operations,
            "currents": [_current_entry(c, i, arrays) for i, c in enumerate(program.currents)],
            "means": [_mean_entry(m, i, arrays) for i, m in enumerate(program.means)],
        }
    )
    savez: Any = np.savez  # its types leave no room for arrays by name
    with path.open("wb") as file:  # a path that ends in .NPZ would get .npz as well
        savez(file, network=np.asarray(text), **arrays, **extra)


def read(path: Path) -> Program:
    """The program in a file that `write` wrote."""
    with np.load(path, allow_pickle=False) as file:
        found = json.loads(str(file["network"]))
        operations = tuple(
            _read_layer(entry, f"{i}/", file) if entry["op"] == "neurons"
            else Move(entry["name"], entry["op"], entry["output"], tuple(entry["shape"]),
                      file[f"{i}/table"], entry["adds"])
            for i, entry in enumerate(found["operations"])
        )  # fmt: skip
        currents = tuple(
            Current(c["layer"], c["tensor"], c["offset"], tuple(c["shape"]),
                    *(file[f"current{i}/{what}"] for what in ("gain", "low", "high")))
            for i, c in enumerate(found["currents"])
        )  # fmt: skip
        means = tuple(
            Mean(m["tensor"], m["source"], tuple(m["shape"]),
                 *(file[f"mean{i}/{what}"] for what in ("scale", "offset")))
            for i, m in enumerate(found["means"])
        )  # fmt: skip
    return Program(operations, currents, means, found["memory"], found["timesteps"])


# --- entries --------------------------------------------------------------------------------------


def _layer_entry(layer: Layer, prefix: str, arrays: dict[str, Array]) -> Entry:
    arrays[f"{prefix}bias"] = layer.bias
    arrays[f"{prefix}threshold"] = layer.threshold
    for k, product in enumerate(layer.products):
        arrays[f"{prefix}weight{k}"] = product.weight
    for k, shortcut in enumerate(layer.shortcuts):
        arrays[f"{prefix}times{k}"] = shortcut.times
    if layer.window is not None:
        arrays[f"{prefix}window"] = layer.window
    return {
        "op": "neurons",
        "name": layer.name,
        "output": layer.output,
        "shape": list(layer.shape),
        "summed": list(layer.summed),
        "products": [
            {"source": p.source, "group": p.group, **{k: list(getattr(p, k)) for k in _PAIRS}}
            for p in layer.products
        ],
        "shortcuts": [{"source": s.source} for s in layer.shortcuts],
        "currents": list(layer.currents),
        "resolution": layer.resolution,
        "pools": layer.window is not None,
    }


def _read_layer(entry: Entry, prefix: str, file: Mapping[str, Array]) -> Layer:
    return Layer(
        entry["name"],
        entry["output"],
        tuple(entry["shape"]),
        tuple(entry["summed"]),
        tuple(
            Product(p["source"], file[f"{prefix}weight{k}"], group=p["group"],
                    **{pair: (int(p[pair][0]), int(p[pair][1])) for pair in _PAIRS})
            for k, p in enumerate(entry["products"])
        ),
        tuple(
            Shortcut(s["source"], file[f"{prefix}times{k}"])
            for k, s in enumerate(entry["shortcuts"])
        ),
        tuple(entry["currents"]),
        file[f"{prefix}bias"],
        file[f"{prefix}threshold"],
        entry["resolution"],
        file[f"{prefix}window"] if entry["pools"] else None,
    )  # fmt: skip


def _move_entry(move: Move, index: int, arrays: dict[str, Array]) -> Entry:
    arrays[f"{index}/table"] = move.table
    shape = list(move.shape)
    return {"op": move.op, "name": move.name, "output": move.output, "shape": shape,
            "adds": move.adds}  # fmt: skip


def _current_entry(current: Current, index: int, arrays: dict[str, Array]) -> Entry:
    for what in ("gain", "low", "high"):
        arrays[f"current{index}/{what}"] = getattr(current, what)
    return {"layer": current.layer, "tensor": current.tensor, "offset": current.offset,
            "shape": list(current.shape)}  # fmt: skip


def _mean_entry(mean: Mean, index: int, arrays: dict[str, Array]) -> Entry:
    arrays[f"mean{index}/scale"], arrays[f"mean{index}/offset"] = mean.scale, mean.offset
    return {"tensor": mean.tensor, "source": mean.source, "shape": list(mean.shape)}
