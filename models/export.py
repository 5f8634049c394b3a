"""ONNX export that keeps BatchNorm as nodes of its own."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn


def export_onnx(
    net: nn.Module,
    shape: tuple[int, ...],
    path: str | Path,
    *,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    opset: int = 20,
) -> None:
    """Write ``net`` in evaluation mode to ``path``, batch size free, BatchNorm not folded.

    torch folds BatchNorm into the convolutions whenever it optimises an evaluation-mode graph. The
    dynamo exporter with ``optimize=False`` leaves the nodes alone. ``mean`` and ``std`` (of pixels
    scaled to 0..1) are stored as metadata, so that na-convert can read uint8 images.

    Args:
        shape: of one input, without the batch.
    """
    net.eval()
    example = torch.zeros(2, *shape)
    with _quiet_exporter():
        program = torch.onnx.export(
            net,
            (example,),
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=opset,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    model = program.model_proto  # type: ignore[union-attr]
    for node in model.graph.node:  # others hold paths of the machine that exported
        kept = [p for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        scopes = {p.key: p.value for p in kept}
        del node.metadata_props[:]
        onnx.helper.set_metadata_props(node, scopes)
    if mean:
        properties = {"scale": 1 / 255, "mean": list(mean), "std": list(std)}
        onnx.helper.set_model_props(
            model, {f"na_convert.{k}": json.dumps(v) for k, v in properties.items()}
        )
    onnx.checker.check_model(model, full_check=True)
    Path(path).write_bytes(model.SerializeToString())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on torchvision and on its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
