"""Small networks of Brevitas' layers, one for each kind of activation; and both of its exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.quant import (
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    Uint8ActPerTensorFixedPoint,
)
from torch import nn

from .make import Made

IMAGE = (1, 3, 8, 8)
EXPORTS = {"qcdq": export_onnx_qcdq, "qonnx": export_qonnx}
LEGACY_OPSET = 17

Activation = Callable[[], nn.Module]


def _network(
    act: Activation,
    *,
    weight_bits: int = 4,
    first: nn.Module | None = None,
    pool: nn.Module | None = None,
    bias: Any = None,
) -> nn.Sequential:
    return nn.Sequential(
        first or nn.Identity(),
        qnn.QuantConv2d(3, 6, 3, padding=1, weight_bit_width=weight_bits, bias_quant=bias),
        nn.BatchNorm2d(6), act(),
        qnn.QuantConv2d(6, 6, 3, padding=1, weight_bit_width=weight_bits, bias=False),
        nn.BatchNorm2d(6), act(),
        pool or nn.Identity(),
        nn.Flatten(), qnn.QuantLinear(96 if pool else 384, 5, bias=True, weight_bit_width=4),
    )  # fmt: skip


def _relu(bits: int, **options: Any) -> Activation:
    return lambda: qnn.QuantReLU(bit_width=bits, return_quant_tensor=True, **options)


def _identity(bits: int, **options: Any) -> Activation:
    return lambda: qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True, **options)


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "relu": lambda: _network(_relu(2)),
    "ternary_weights": lambda: _network(_relu(2), weight_bits=2),
    "signed": lambda: _network(_identity(3)),
    "hard_tanh": lambda: _network(
        lambda: qnn.QuantHardTanh(bit_width=3, min_val=-1, max_val=1, return_quant_tensor=True)
    ),
    "shifted": lambda: _network(_identity(4, act_quant=ShiftedUint8ActPerTensorFloat)),
    "power_of_two": lambda: _network(_relu(4, act_quant=Uint8ActPerTensorFixedPoint)),
    "max_pool": lambda: _network(_relu(2), pool=nn.MaxPool2d(2)),
    "quantised_input": lambda: _network(
        _relu(3), first=qnn.QuantIdentity(bit_width=8, return_quant_tensor=True), bias=Int32Bias
    ),
}


def make(name: str, export: str, folder: Path, *, dynamo: bool) -> Made:
    """The network ``name``, after a few steps of statistics; steps and levels of its activations.

    The quantiser of the input is no activation.
    """
    torch.manual_seed(0)
    net = NETWORKS[name]().train()
    for _ in range(5):
        net(torch.rand(4, *IMAGE[1:]))
    net.eval()
    found: list[tuple[list[float], int]] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, y: found.append(_truth(y)))
        for module in net.modules()
        if module is not net[0]
        and isinstance(module, (qnn.QuantReLU, qnn.QuantIdentity, qnn.QuantHardTanh))
    ]
    net(torch.rand(1, *IMAGE[1:]))
    for hook in hooks:
        hook.remove()
    path = folder / f"{name}_{export}.onnx"
    options: dict[str, Any] = {} if dynamo else {"opset_version": LEGACY_OPSET}
    image = torch.rand(*IMAGE)
    EXPORTS[export](net, args=image, export_path=str(path), dynamo=dynamo, **options)
    return Made(path, [IMAGE], found)


def _truth(y: Any) -> tuple[list[float], int]:
    return y.scale.detach().flatten().tolist(), 2 ** int(y.bit_width) - 1
