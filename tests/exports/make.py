"""Exports one network in every way; run as `python -m tests.exports.make` for the committed set."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from na_convert.models import Quantizer
from torch import nn

from .networks import STRUCTURES
from .quantisers import LSQ, Staircase

EXPORTERS = ("dynamo", "dynamo_dyn", "legacy", "legacy_dyn")
COMMITTED = Path(__file__).parent / "committed"
COMMITTED_CASES = (
    ("conv3d", "legacy"),
    ("upsample", "dynamo"),
    ("pixelshuffle", "legacy"),
    ("inputs_outputs", "dynamo_dyn"),
    ("slice", "legacy_dyn"),
)


@dataclass(frozen=True)
class Made:
    """An export: the shapes of its inputs, and each activation's steps and levels, in order."""

    path: Path
    shapes: list[tuple[int, ...]]
    activations: list[tuple[list[float], int]]


def make(structure: str, act: Callable[[], nn.Module], exporter: str, folder: Path) -> Made:
    """`structure` with activations `act`, random weights (seeded), each step a different one."""
    build, shapes = STRUCTURES[structure]
    torch.manual_seed(0)
    net = build(act).eval()
    _unlike(net)
    found: list[tuple[list[float], int]] = []
    hooks = [
        module.register_forward_hook(lambda m, _i, _o: found.append((_steps(m), m.levels)))
        for module in net.modules()
        if isinstance(module, (Staircase, Quantizer))
    ]
    inputs = tuple(torch.rand(2, *shape[1:]) * 2 - 0.5 for shape in shapes)
    net(*inputs)
    for hook in hooks:
        hook.remove()
    path = folder / f"{structure}_{exporter}.onnx"
    export(net, inputs, path, exporter)
    return Made(path, shapes, found)


def export(net: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, exporter: str) -> None:
    """To `path`; batch 1, or a free one where `exporter` ends in `_dyn`. Inputs are x, x1, ..."""
    names = ["x", *(f"x{i}" for i in range(1, len(inputs)))]
    free = exporter.endswith("_dyn")
    if not free:
        inputs = tuple(value[:1] for value in inputs)
    options: dict[str, object] = {"dynamo": exporter.startswith("dynamo"), "input_names": names}
    if options["dynamo"]:
        batch = torch.export.Dim("batch")
        options |= {"external_data": False, "verbose": False}
        options |= {"dynamic_shapes": [{0: batch} for _ in inputs]} if free else {}
    elif free:
        options["dynamic_axes"] = {name: {0: "batch"} for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, inputs, str(path), **options)


def _unlike(net: nn.Module) -> None:
    """Steps that differ from layer to layer, and BatchNorms that do something."""
    quantisers = [m for m in net.modules() if isinstance(m, (LSQ, Quantizer))]
    with torch.no_grad():
        for index, module in enumerate(quantisers):
            module.step.fill_(0.2 + 0.03 * index)
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.2, 0.6)
                module.weight.uniform_(0.7, 1.3)
                module.bias.uniform_(-0.1, 0.4)


def _steps(module: nn.Module) -> list[float]:
    return module.step.detach().flatten().tolist()


def main() -> None:
    """Writes the committed set, with what it holds in `expected.json`."""
    expected = {}
    for structure, exporter in COMMITTED_CASES:
        made = make(structure, LSQ, exporter, COMMITTED)
        expected[made.path.name] = {"shapes": made.shapes, "activations": made.activations}
    (COMMITTED / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
