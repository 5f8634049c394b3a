"""Networks from ONNX to SNN, to NIR, to the simulators that are installed: docs/nir-readers.md.

    python benchmarks/nir_readers.py [--networks example,resnet20,depthwise,mlp] [--samples 8]

The shipped example on its own images, and three networks with random weights and 2-bit activations
on random images: a ResNet with downsampling shortcuts, separable convolutions, an MLP. Each is
converted with ``exact`` (T = 4), exported, and checked in every reader, as it is read and adjusted.
Prints Markdown. Needs the extra `train` and what `readers.txt` lists.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from na_convert import api
from na_convert.nir_readers import readers
from na_convert.nir_readers.check import ReadersResult, check_readers
from na_convert.nir_readers.compare import Comparison

EXAMPLE = Path(__file__).parent.parent / "examples" / "resnet8-cifar10.onnx"
NETWORKS = ("example", "resnet20", "depthwise", "mlp")
TIMESTEPS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    print("| network | reader | counts that differ | not explained | alone |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            ann, data = build(name, Path(folder))
            show(name, measure(ann, data, options.samples, folder))
    return 0


def build(name: str, folder: Path) -> tuple[Path, Path]:
    """The ANN called ``name`` and samples for it."""
    if name == "example":
        return EXAMPLE, EXAMPLE.with_suffix(".npz")
    import torch
    from na_convert.models import export_onnx, initialise_steps, networks, quantize

    torch.manual_seed(0)
    shape = (1, 8, 8) if name == "mlp" else (3, 32, 32)
    net = {
        "resnet20": lambda: networks.build("resnet20"),
        "depthwise": separable,
        "mlp": lambda: networks.build("mlp", shape=shape, widths=(64, 64)),
    }[name]()
    quantize(net, bits=2)
    images = torch.randn(16, *shape)
    initialise_steps(net, images)
    export_onnx(net, shape, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", x=images.numpy())
    return folder / f"{name}.onnx", folder / f"{name}.npz"


def separable() -> Any:
    """A convolution, then twice a depthwise and a 1x1 convolution, the second of stride 2."""
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride, groups in (
        (3, 16, 3, 1, 1), (16, 16, 3, 1, 16), (16, 32, 1, 1, 1), (32, 32, 3, 2, 32),
        (32, 64, 1, 1, 1),
    ):  # fmt: skip
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def measure(ann: Path, data: Path, samples: int, folder: str) -> ReadersResult:
    """``ann`` by way of SNN and NIR in every reader."""
    snn, nir = Path(folder) / "net.snn.onnx", Path(folder) / "net.nir"
    api.convert(ann, output=snn, data=data, timesteps=TIMESTEPS, exact=True, check=False)
    api.export(snn, output=nir, data=data)
    found, _ = readers.installed()
    names = [reader.name for reader in found]
    adjusted = [f"{name}:{readers.ADJUSTED}" for name in names]
    asked = ",".join(sorted([*names, *adjusted]))
    return check_readers(ann, nir, data=data, asked=asked, samples=samples)


def show(name: str, result: ReadersResult) -> None:
    for each in result.comparisons:
        print(f"| {name} | {each.reader} | {' | '.join(cells(each))} |", flush=True)


def cells(each: Comparison) -> tuple[str, str, str]:
    """Counts that differ, those that are not explained, and what each cause counts for alone."""
    if not each.layers:
        return "fails", "-", "-"
    differ, counts, left = (
        sum(getattr(layer, name) for layer in each.layers)
        for name in ("differ", "counts", "unexplained")
    )
    if not each.causes:
        return f"{differ:,} of {counts:,}", f"{left:,}", "float sums" if differ else "-"
    joins = [cause.alone for cause in each.causes if cause.node and cause.alone]
    alone = [f"{cause.what}: {cause.alone:,}" for cause in each.causes if not cause.node]
    if joins:
        alone.append(f"joins: {len(joins)}, up to {max(joins):,} each")
    return f"{differ:,} of {counts:,}", f"{left:,}", "; ".join(alone)


if __name__ == "__main__":
    raise SystemExit(main())
