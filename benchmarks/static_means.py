"""Static means to bring an SNN nearer to its ANN, each measured beside the bias fold.

    python benchmarks/static_means.py RUN RESULT.json --data PATH [-T 2,4]

RUN is a folder of na-train. All are fitted on the same training images, without labels, for one T,
and measured on the same test images: nothing; the bias fold (`na-convert --calibrate-bias`); and by
gradient, against KL(ANN || SNN) with the spiking network in the loop: all biases, a threshold per
channel, the weights of the readout.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from na_convert.models import Quantizer, checkpoint
from na_convert.models.data import load, normalise
from na_convert.models.quantizer import instead
from na_convert.models.spiking import in_loop
from torch import Tensor, nn

from na_convert import api
from na_convert.arguments import several_timesteps
from na_convert.whole_files import write_atomically

_CPU = torch.device("cpu")
_BATCH = 128


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments(arguments)
    recipe = checkpoint.recipe_of(given.run / "checkpoint.pt")
    data = load(recipe.data, given.data)
    net, _ = checkpoint.finished(given.run / "checkpoint.pt", data, _CPU)
    order = torch.randperm(len(data.training), generator=torch.Generator().manual_seed(1))
    pixels = data.training.batch(order[: given.fit_images])[0]
    fit = normalise(pixels, data.mean, data.std)
    test, labels = data.test.batch(torch.arange(min(given.images, len(data.test))))
    x = normalise(test, data.mean, data.std)
    ann = _logits(net, x, None)
    rows = []
    for T in several_timesteps(given.timesteps):
        measured = {"none": (_logits(net, x, T), 0.0)}
        began = time.process_time()
        measured["bias fold"] = (
            _folded(given.run / "model.onnx", pixels, test, T),
            time.process_time() - began,
        )
        for name, chosen in _TUNED.items():
            began = time.process_time()
            tuned = _tuned(net, fit, T, chosen, given.rate, given.epochs)
            measured[name] = (_logits(tuned, x, T), time.process_time() - began)
        fold = measured["bias fold"][0].argmax(1) == ann.argmax(1)
        for name, (scores, seconds) in measured.items():
            rows.append({"T": T, "means": name, **_figures(scores, ann, labels, fold, seconds)})
            print(rows[-1], flush=True)
    found = {
        "network": f"{recipe.name}, noise {recipe.quantiser.noise:g}, seed {recipe.seed}",
        "fit_images": len(fit),
        "images": len(labels),
        "epochs": given.epochs,
        "rate": given.rate,
        "ann_accuracy": float((ann.argmax(1) == labels).float().mean()),
        "rows": rows,
    }
    write_atomically(given.result, (json.dumps(found, indent=1) + "\n").encode())


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("-T", "--timesteps", default="2,4")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--fit-images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=15, help="over the fit images")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam, relative to each parameter")
    return parser.parse_args(arguments)


# --- what is tuned --------------------------------------------------------------------------------


def _biases(net: nn.Module, x: Tensor) -> list[nn.Parameter]:
    return [p for name, p in net.named_parameters() if name.endswith("bias")]


def _thresholds(net: nn.Module, x: Tensor) -> list[nn.Parameter]:
    """The steps, made one per channel first."""
    steps: list[nn.Parameter] = []

    def widen(quantizer: Quantizer, v: Tensor) -> Tensor:
        one = quantizer.step.detach()
        quantizer.step = nn.Parameter(one.expand(v.shape[1], *[1] * (v.ndim - 2)).clone())
        steps.append(quantizer.step)
        return quantizer.level(v) * quantizer.step

    with torch.no_grad(), instead(net, widen):
        net.eval()(x)
    return steps


def _readout(net: nn.Module, x: Tensor) -> list[nn.Parameter]:
    return list(net.head.parameters())  # type: ignore[union-attr, operator]


_TUNED: dict[str, Callable[[nn.Module, Tensor], list[nn.Parameter]]] = {
    "biases by gradient": _biases,
    "thresholds per channel": _thresholds,
    "readout weights": _readout,
}


def _tuned(
    net: nn.Module,
    fit: Tensor,
    timesteps: int,
    chosen: Callable[[nn.Module, Tensor], list[nn.Parameter]],
    rate: float,
    epochs: int,
) -> nn.Module:
    """A copy of ``net`` in which the ``chosen`` parameters bring the SNN nearer to the ANN."""
    tuned = copy.deepcopy(net)
    parameters = chosen(tuned, fit[:2])
    tuned.eval()
    target = _logits(net, fit, None).log_softmax(1)
    optimiser = torch.optim.Adam(
        [
            {"params": [p], "lr": rate * max(1e-3, float(p.detach().abs().mean()))}
            for p in parameters
        ]
    )
    for epoch in range(epochs):
        order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(_BATCH):
            scores = in_loop(tuned, fit[rows], timesteps, tuned).log_softmax(1)
            loss = F.kl_div(scores, target[rows], log_target=True, reduction="batchmean")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return tuned


# --- what is measured -----------------------------------------------------------------------------


@torch.no_grad()
def _logits(net: nn.Module, x: Tensor, timesteps: int | None) -> Tensor:
    """Of the ANN (no ``timesteps``) or of the SNN."""
    net.eval()
    parts = x.split(250)
    if timesteps is None:
        return torch.cat([net(part) for part in parts])
    return torch.cat([in_loop(net, part, timesteps, net) for part in parts])


def _folded(model: Path, pixels: Tensor, test: Tensor, timesteps: int) -> Tensor:
    """Of the SNN file with its biases calibrated."""
    with tempfile.TemporaryDirectory() as folder:
        snn = Path(folder) / "snn.onnx"
        api.convert(
            model,
            output=snn,
            timesteps=timesteps,
            calibrate_bias={"x": pixels.numpy()},
            check=False,
        )
        outputs = [
            api.simulate(snn, data={"x": part.numpy()}, timesteps=timesteps).outputs[timesteps]
            for part in test.split(250)
        ]
    return torch.from_numpy(np.concatenate([next(iter(o.values())) for o in outputs]))


def _figures(
    scores: Tensor, ann: Tensor, labels: Tensor, fold: Tensor, seconds: float
) -> dict[str, Any]:
    """Figures, and the difference of the agreement to the bias fold's with its standard error."""
    agrees = scores.argmax(1) == ann.argmax(1)
    difference = agrees.float() - fold.float()
    kl = F.kl_div(scores.log_softmax(1), ann.log_softmax(1), log_target=True, reduction="batchmean")
    return {
        "accuracy": float((scores.argmax(1) == labels).float().mean()),
        "agreement": float(agrees.float().mean()),
        "kl": float(kl),
        "difference": float(difference.mean()),
        "error": float(difference.std() / len(difference) ** 0.5),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
