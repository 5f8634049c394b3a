"""Train a low-bit network for conversion: float pre-training, then quantised fine-tuning.

    python -m na_convert.models.train --data cifar10_jpeg.npz --out runs/resnet8

writes ``model.onnx`` (BatchNorm kept), ``model.pt`` and ``images.npz`` (test images and labels).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from .data import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    ImageSet,
    load_jpeg_pack,
    normalise,
    training_batches,
)
from .export import export_onnx
from .networks import CifarResNet
from .quantizer import initialise_steps, quantize


def train(
    data: Annotated[Path, typer.Option(help="the JPEG pack (.npz)")],
    out: Annotated[Path, typer.Option(help="folder for the results")],
    blocks: Annotated[int, typer.Option(help="blocks per stage; 1 is ResNet-8")] = 1,
    bits: Annotated[int, typer.Option(help="bits of an activation")] = 2,
    noise: Annotated[float, typer.Option(help="noise amplitude in steps")] = 0.5,
    float_epochs: int = 20,
    quantised_epochs: int = 10,
    batch: int = 128,
    seed: int = 0,
    example_images: Annotated[int, typer.Option(help="test images to save beside the model")] = 600,
) -> None:
    """Train a ResNet on CIFAR-10 and export it to ONNX."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    training, test = load_jpeg_pack(data)
    test = test.shuffled(seed)
    out.mkdir(parents=True, exist_ok=True)

    net: nn.Module = CifarResNet(blocks).to(memory_format=torch.channels_last)
    fit(net, training, test, epochs=float_epochs, peak_rate=0.2, batch=batch, generator=generator)

    quantize(net, bits, noise)
    sample = training.images[torch.randperm(len(training), generator=generator)[:512]]
    initialise_steps(net, normalise(sample, CIFAR10_MEAN, CIFAR10_STD))
    fit(
        net, training, test, epochs=quantised_epochs, peak_rate=0.05, batch=batch,
        generator=generator,
    )  # fmt: skip

    torch.save(net.state_dict(), out / "model.pt")
    export_onnx(net, (3, 32, 32), out / "model.onnx", mean=CIFAR10_MEAN, std=CIFAR10_STD)
    np.savez_compressed(
        out / "images.npz",
        x=test.images[:example_images].numpy(),
        labels=test.labels[:example_images].numpy().astype(np.uint8),
    )


def fit(
    net: nn.Module,
    training: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    peak_rate: float,
    batch: int,
    generator: torch.Generator,
) -> None:
    """SGD with Nesterov momentum and a one-cycle rate; bfloat16 convolutions; prints each epoch."""
    optimiser = torch.optim.SGD(_parameter_groups(net), lr=peak_rate, momentum=0.9, nesterov=True)
    steps = epochs * (len(training) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak_rate, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    start = time.perf_counter()
    for epoch in range(epochs):
        net.train()
        total = 0.0
        batches = 0
        for images, labels in training_batches(training, batch, generator):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(normalise(images, CIFAR10_MEAN, CIFAR10_STD))
            loss = loss_of(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
            batches += 1
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / batches:.4f}  "
            f"test accuracy {accuracy(net, test):.4f}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


@torch.no_grad()
def accuracy(net: nn.Module, data: ImageSet, batch: int = 500) -> float:
    """Share of ``data`` classified correctly, in float32, without noise."""
    net.eval()
    correct = 0
    for images, labels in zip(data.images.split(batch), data.labels.split(batch), strict=True):
        logits = net(normalise(images, CIFAR10_MEAN, CIFAR10_STD))
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(data)


def _parameter_groups(net: nn.Module, weight_decay: float = 5e-4) -> list[dict[str, object]]:
    """Weights decay; biases, BatchNorm and steps do not."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


if __name__ == "__main__":
    typer.run(train)
