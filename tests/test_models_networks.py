"""The networks: shapes, sizes, and that they export, convert and verify."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from na_convert.models import build, export_onnx, initialise_steps, quantize
from na_convert.models.networks import names
from torch import nn

from na_convert import api

# Parameters of the published networks with 10 classes (torchvision's with 1000, less the head).
_SIZES = {
    "resnet20": 272_474,
    "resnet56": 855_770,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "vgg16": 14_724_042,
}


def small_quantised(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    net = quantize(build(name, 10, **options))  # type: ignore[arg-type]
    train_steps(net, (3, 32, 32), 1)
    return net


def train_steps(net: nn.Module, shape: tuple[int, ...], steps: int) -> None:
    images = torch.randn(8, *shape)
    settle_batchnorm(net, images)
    initialise_steps(net, images)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    net.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(images), torch.arange(8))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1, error_if_nonfinite=True)
        optimiser.step()
    assert torch.isfinite(loss)


def settle_batchnorm(net: nn.Module, images: torch.Tensor) -> None:
    """Statistics as after training: with those of a new network a hundred layers overflow."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net(images)


@pytest.mark.parametrize("name", sorted(_SIZES))
def test_size(name: str) -> None:
    with torch.device("meta"):
        net = build(name)
    assert sum(p.numel() for p in net.parameters()) == _SIZES[name]


@pytest.mark.parametrize("name", names())
def test_every_activation_is_quantised(name: str) -> None:
    with torch.device("meta"):
        net = quantize(build(name))
    assert not [m for m in net.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))]


@pytest.mark.parametrize(
    ("stem", "size"), [("cifar", (64, 32, 32)), ("patch", (64, 16, 16)), ("imagenet", (64, 8, 8))]
)
def test_stems(stem: str, size: tuple[int, ...]) -> None:
    net = build("resnet18", stem=stem)
    assert net.stem(torch.zeros(1, 3, 32, 32)).shape[1:] == size


@pytest.mark.parametrize(
    "options",
    [
        {"name": "resnet9"},
        {"name": "resnet8", "stem": "none"},
        {"name": "resnet8", "widths": (1, 2)},
        {"name": "vgg11", "stem": "cifar"},
    ],
)
def test_unknown_networks_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        build(**options)  # type: ignore[arg-type]


def test_export_keeps_batchnorm_and_names_no_path_of_the_machine(tmp_path: Path) -> None:
    net = small_quantised("resnet8", widths=(4, 8, 8))
    path = tmp_path / "model.onnx"
    export_onnx(net, (3, 32, 32), path, mean=(0.5,) * 3, std=(0.2,) * 3)
    model = onnx.load(path)
    assert sum(n.op_type == "BatchNormalization" for n in model.graph.node) == 9
    assert str(Path(__file__).parent.parent).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 32, 32)
    (logits,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(logits, net(x).detach().numpy(), atol=1e-2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {"widths": (4, 8, 8)}),
        ("resnet8", {"widths": (4, 8, 8), "stem": "imagenet"}),
        ("resnet50", {"widths": (4, 4, 8, 8), "stem": "imagenet"}),
        ("vgg11", {}),
        ("mobilenet", {}),
        ("mlp", {"widths": (16, 16)}),
    ],
)
def test_it_converts_and_verifies(name: str, options: dict[str, object], tmp_path: Path) -> None:
    net = small_quantised(name, **options)
    path = tmp_path / "model.onnx"
    export_onnx(net, (3, 32, 32), path)
    data = {"x": torch.randn(4, 3, 32, 32).numpy()}
    result = api.convert(path, data=data, timesteps=3)
    assert result.equivalence is not None
    assert result.equivalence.replay_mismatches == 0
    assert len(result.neurons) == sum("Quantizer" in type(m).__name__ for m in net.modules())


@pytest.mark.parametrize("weight_bits", [8, 2])
def test_quantised_weights_convert(weight_bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = quantize(build("resnet8", widths=(4, 8, 8)), per_channel=True, weight_bits=weight_bits)
    train_steps(net, (3, 32, 32), 1)
    path = tmp_path / "model.onnx"
    export_onnx(net, (3, 32, 32), path)
    result = api.convert(path, data={"x": torch.randn(4, 3, 32, 32).numpy()}, timesteps=3)
    assert result.equivalence is not None
    assert result.equivalence.replay_mismatches == 0


@pytest.mark.parametrize(
    ("name", "widths", "size"),
    [
        pytest.param("resnet101", (), 64, marks=pytest.mark.slow),
        pytest.param("resnet152", (), 64, marks=pytest.mark.slow),
        ("resnet152", (8, 16, 32, 64), 32),
    ],
)
def test_the_deepest_train_a_step_export_convert_and_verify(
    name: str, widths: tuple[int, ...], size: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape, path = (3, size, size), tmp_path / "model.onnx"
    net = quantize(build(name, stem="imagenet", shape=shape, widths=widths))
    train_steps(net, shape, 1)
    export_onnx(net, shape, path)
    result = api.convert(path, data={"x": torch.randn(2, *shape).numpy()}, timesteps=3)
    assert result.equivalence is not None
    assert result.equivalence.replay_mismatches == 0
    assert len(result.neurons) == {"resnet101": 100, "resnet152": 151}[name]
