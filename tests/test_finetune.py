"""Fine-tuning with the spiking network in the loop: what it computes, its gradient, its control."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from na_convert.models import Noise, Quantizer, checkpoint, export_onnx, initialise_steps, quantize
from na_convert.models import cli as train_cli
from na_convert.models import train as training
from na_convert.models.networks import build
from na_convert.models.recipe import FineTuning
from na_convert.models.spiking import in_loop, mean_outputs
from na_convert.models.train import Hooks, Interrupted, Run, start, train
from torch import nn
from typer.testing import CliRunner

from na_convert import api, model_io
from na_convert.forms.folded import from_folded
from na_convert.simulation import numpy_engine

from .test_train_run import assert_same, random_data, small_recipe, weights

_CPU = torch.device("cpu")
_IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def pooling_net() -> nn.Module:
    """A max-pool in front of the first neurons, one behind neurons, one behind a convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def resnet() -> nn.Module:
    return build("resnet8", 5, shape=(3, 16, 16), widths=(6, 8, 8))


def shared_activation() -> nn.Module:
    """One activation module at two places: two layers of neurons."""
    act = nn.ReLU()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(768, 20), act, nn.Linear(20, 20), act, nn.Linear(20, 5)
    )


def quantised(net: nn.Module, **options: object) -> nn.Module:
    """``net`` with quantisers, and BatchNorm statistics that are not the identity."""
    torch.manual_seed(0)
    net.train()
    for _ in range(5):
        net(torch.randn(32, 3, 16, 16))
    quantize(net, bits=2, noise=0.0, **options)  # type: ignore[arg-type]
    initialise_steps(net, _IMAGES)
    return net


NETS: list[Callable[[], nn.Module]] = [resnet, pooling_net, shared_activation]


@pytest.mark.parametrize("timesteps", [1, 3, 4])
@pytest.mark.parametrize(
    ("make", "per_channel"),
    [
        (resnet, False),
        (resnet, True),
        (pooling_net, False),
        (pooling_net, True),
        (shared_activation, False),
    ],
)
def test_every_layer_is_that_of_the_converted_network(
    make: Callable[[], nn.Module], per_channel: bool, timesteps: int, tmp_path: Path
) -> None:
    """The same spike counts, layer by layer, and the same outputs; both in float64."""
    torch.manual_seed(1)
    net = quantised(make(), per_channel=per_channel)
    export_onnx(net, (3, 16, 16), tmp_path / "net.onnx")
    api.convert(tmp_path / "net.onnx", check=False, exact=False)
    snn = from_folded(model_io.load(tmp_path / "net.snn.onnx").model)
    names = [neuron.name for neuron in snn.neurons]
    run = numpy_engine(snn, timesteps, names, np.float64)({"x": _IMAGES.numpy()})

    net.double().eval()
    ours = mean_outputs(net, _IMAGES.double(), timesteps)
    assert len(ours) == len(names)
    for mean, name in zip(ours, names, strict=True):
        theirs = run.spikes[name].mean(0)
        assert theirs.max() > 0
        assert mean.shape == theirs.shape
        np.testing.assert_allclose(mean.numpy(), theirs, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        outputs = in_loop(net, _IMAGES.double(), timesteps, net)
    (expected,) = run.outputs[timesteps].values()
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", NETS)
def test_the_gradient_reaches_every_parameter(make: Callable[[], nn.Module]) -> None:
    net = quantised(make())
    net.train()
    training._freeze_norms(net)
    in_loop(net, _IMAGES, 3, net).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("shape", [(), (4, 1, 1)])
def test_a_given_value_has_the_gradient_of_the_staircase(shape: tuple[int, ...]) -> None:
    quantizer = Quantizer(2, noise=0.0).train()
    quantizer.step = nn.Parameter(torch.full(shape, 0.4))
    v = (torch.randn(2, 4, 5, 5) * 1.5).requires_grad_()
    grad = torch.randn(v.shape)
    plain = torch.autograd.grad(quantizer(v), (v, quantizer.step), grad)
    same = quantizer.with_value(v, quantizer(v).detach())
    for a, b in zip(plain, torch.autograd.grad(same, (v, quantizer.step), grad), strict=True):
        torch.testing.assert_close(a, b)
    value = torch.rand(v.shape)
    other = quantizer.with_value(v, value)
    assert torch.equal(other, value)
    grad_v, grad_step = torch.autograd.grad(other, (v, quantizer.step), grad)
    torch.testing.assert_close(grad_v, plain[0])
    assert not torch.allclose(grad_step, plain[1])


def test_noise_rounds_the_count_stochastically() -> None:
    """A constant current of 0.3 thresholds: 3 spikes in 10 steps, on the mean exactly 3."""
    net = nn.Sequential(Quantizer(2, noise=0.5, step=1.0)).train()
    current = torch.full((1, 100_000), 0.9 + 0.15)  # 3.5 spikes in 10 steps
    torch.manual_seed(0)
    (mean,) = mean_outputs(net, current, 10)
    counts = mean * (10 / 3.0)
    assert {round(c) for c in counts.unique().tolist()} == {3, 4}
    assert float(counts.mean()) == pytest.approx(3.5, abs=0.02)
    (still,) = mean_outputs(net.eval(), current - 0.05, 10)
    assert still.unique().numel() == 1


def finished_run(folder: Path) -> Path:
    """The checkpoint of a finished small run on random images."""
    data, path = random_data(), folder / "checkpoint.pt"
    folder.mkdir(exist_ok=True)
    train(start(small_recipe(), data, _CPU), data, Hooks(save=lambda r: checkpoint.save(r, path)))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs") / "base")


def tuned(source: Path, tuning: FineTuning) -> Run:
    data = random_data()
    return train(checkpoint.start_finetuning(source, tuning, data, _CPU), data, Hooks())


def test_norms_keep_their_statistics(source: Path) -> None:
    before = checkpoint.read(source)["net"]
    for loop in (True, False):
        after = weights(tuned(source, FineTuning((2,), 1, loop=loop)))
        kept = [name for name in after if "running_" in name]
        assert kept
        assert all(torch.equal(before[name], after[name]) for name in kept)
        assert not torch.equal(before["head.weight"], after["head.weight"])


def test_the_control_does_not_run_the_loop(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("the loop ran")

    monkeypatch.setattr(training, "in_loop", fail)
    tuned(source, FineTuning(loop=False))
    with pytest.raises(AssertionError, match="the loop ran"):
        tuned(source, FineTuning())


def test_loop_and_control_see_the_same_images(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(training, "normalise", lambda x, m, s: seen.append(x) or x.float().div(255))
    tuned(source, FineTuning(epochs=1))
    tuned(source, FineTuning(epochs=1, loop=False))
    training_batches = [x for x in seen if len(x) == 16]
    half = len(training_batches) // 2
    assert half >= 4
    for a, b in zip(training_batches[:half], training_batches[half:], strict=True):
        assert torch.equal(a, b)


def test_every_timestep_is_drawn(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def remember(net: nn.Module, x: torch.Tensor, timesteps: int, outer: nn.Module) -> torch.Tensor:
        drawn.append(timesteps)
        return in_loop(net, x, timesteps, outer)

    monkeypatch.setattr(training, "in_loop", remember)
    tuned(source, FineTuning((1, 3), epochs=5))
    assert set(drawn) == {1, 3}
    again, drawn = drawn, []
    tuned(source, FineTuning((1, 3), epochs=5))
    assert drawn == again


@pytest.mark.parametrize("tuning", [FineTuning(), FineTuning(noise=0.25), FineTuning(loop=False)])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_resuming_gives_the_same_bits(
    source: Path, tuning: FineTuning, step: int, tmp_path: Path
) -> None:
    data, path, steps = random_data(), tmp_path / "checkpoint.pt", 0
    whole = tuned(source, tuning)

    def count(run: Run) -> None:
        nonlocal steps
        steps += run.step > 0

    hooks = Hooks(count, lambda run: checkpoint.save(run, path), lambda: steps + 1 >= step)
    with pytest.raises(Interrupted):
        train(checkpoint.start_finetuning(source, tuning, data, _CPU), data, hooks)
    torch.manual_seed(99)
    run = checkpoint.resume_finetuning(source, tuning, data, _CPU, path)
    assert_same(weights(whole), weights(train(run, data, Hooks())))
    with pytest.raises(Exception, match="of other settings"):
        checkpoint.resume_finetuning(source, replace(tuning, epochs=7), data, _CPU, path)
    with pytest.raises(Exception, match="fine-tuned already"):
        checkpoint.start_finetuning(path, tuning, data, _CPU)
    with pytest.raises(Exception, match="of another recipe"):
        checkpoint.resume(small_recipe(), data, _CPU, path)


def test_averaged_weights_are_the_ones_that_are_tuned(tmp_path: Path) -> None:
    data, path, recipe = random_data(), tmp_path / "checkpoint.pt", small_recipe(ema=0.9)
    run = train(start(recipe, data, _CPU), data, Hooks(save=lambda r: checkpoint.save(r, path)))
    net, read = checkpoint.finished(path, data, _CPU)
    assert read == recipe
    assert_same(dict(net.state_dict()), weights(run))


def test_only_a_finished_run_is_tuned(tmp_path: Path) -> None:
    data, path = random_data(), tmp_path / "checkpoint.pt"
    checkpoint.save(start(small_recipe(), data, _CPU), path)
    with pytest.raises(Exception, match="not a finished run"):
        checkpoint.start_finetuning(path, FineTuning(), data, _CPU)


# --- the command ----------------------------------------------------------------------------------

_TOML = """
name = "small"
data = "digits"
[network]
name = "resnet8"
widths = [4, 8, 8]
[float]
epochs = 8
peak_rate = 0.1
[quantised]
epochs = 4
peak_rate = 0.05
[training]
batch = 64
padding = 1
flip = false
precision = "float32"
[report]
images = 360
timesteps = [1, 2, 3, 4]
"""


def na_train(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(train_cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits, started with an option in front of the recipe."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    (folder / "small.toml").write_text(_TOML)
    code, errors = na_train("--noise", "0.5", folder / "small.toml", "--out", folder / "base")
    assert code == 0, errors
    return folder / "base"


def agreement(folder: Path) -> dict[int, float]:
    report = json.loads((folder / "report.json").read_text())
    return {row["T"]: row["agreement"] for row in report["by_timestep"]}


def test_the_loop_makes_the_spiking_network_agree(digits: Path) -> None:
    loop, control = digits.parent / "loop", digits.parent / "control"
    assert na_train("finetune", digits, "--out", loop, "-T", "1,2,4", "--epochs", 4)[0] == 0
    assert na_train("finetune", digits, "--out", control, "--control", "--epochs", 4)[0] == 0
    # The control is not asserted on: with so little data, which of the two wins is chance.
    assert sum(agreement(loop)[T] for T in (1, 2)) > sum(agreement(digits)[T] for T in (1, 2))
    base, report = (json.loads((d / "report.json").read_text()) for d in (digits, loop))
    tuning = report["finetuning"]
    assert tuning["timesteps"] == [1, 2, 4]
    assert tuning["loop"]
    assert tuning["noise"] == 0
    assert tuning["from"]["run"] == "base"
    assert tuning["from"]["ann_accuracy"] == base["ann_accuracy"]
    assert len(tuning["from"]["checkpoint_sha256"]) == 64
    assert report["recipe"] == base["recipe"]
    assert (loop / "model.snn.onnx").is_file()
    assert (loop / "metrics.csv").read_text().count("finetuned") == 4
    controlled = json.loads((control / "report.json").read_text())["finetuning"]
    assert not controlled["loop"]
    assert controlled["noise"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["finetune", "BASE/none", "--out", "OUT"], "holds no checkpoint.pt"),
        (["finetune", "BASE", "--out", "BASE"], "is the run itself"),
        (["finetune", "BASE", "--out", "OUT", "--epochs", "0"], "at least one"),
        (["finetune", "BASE", "--out", "OUT", "--rate", "0"], "a number above 0"),
        (["finetune", "BASE", "--out", "OUT", "--noise", "-1"], "0 or more"),
        (["finetune", "BASE", "--out", "OUT", "-T", "0"], "at least one time step"),
        (["finetune", "BASE", "--out", "OUT", "-T", "two"], "not a whole number"),
    ],
)
def test_mistakes_are_one_line(digits: Path, arguments: list[str], complaint: str) -> None:
    out = digits.parent / "mistake"
    given = [a.replace("BASE", str(digits)).replace("OUT", str(out)) for a in arguments]
    code, errors = na_train(*given)
    assert code == 2
    assert complaint in errors
    assert not out.exists()


def test_a_mistyped_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["na-train", "finetun", "run"])
    with pytest.raises(SystemExit) as left:
        train_cli.main()
    assert left.value.code == 2
    assert "did you mean `na-train finetune`?" in " ".join(capsys.readouterr().err.split())


def test_noise_of_the_quantisers_is_that_of_the_tuning(source: Path) -> None:
    run = checkpoint.start_finetuning(source, FineTuning(noise=0.25), random_data(), _CPU)
    noises = {m.noise for m in run.net.modules() if isinstance(m, Quantizer)}
    assert noises == {Noise(0.25)}
