"""The quantised activation: its values, its noise, its gradients and its first steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from na_convert.models import Noise, Quantizer, initialise_steps, quantize
from na_convert.models.quantizer import best_step
from torch import nn


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("training", [False, True])
def test_without_noise_it_is_the_staircase(bits: int, training: bool) -> None:
    quantizer = Quantizer(bits, noise=0.0, step=0.3).train(training)
    v = torch.linspace(-1, 0.3 * 2**bits, 1001)
    expected = 0.3 * np.clip(np.floor(v.numpy() / np.float32(0.3) + 0.5), 0, 2**bits - 1)
    np.testing.assert_allclose(quantizer(v).detach().numpy(), expected, rtol=1e-6)


def test_halves_round_up() -> None:
    v = torch.tensor([-0.5, 0.5, 1.5, 2.5])
    assert Quantizer(2, noise=0.0).eval()(v).tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(400_003,), (40, 10, 32, 32)])
def test_uniform_noise_makes_the_rounding_unbiased(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    v = torch.full(shape, 1.25, dtype=dtype)
    levels = Quantizer(2, noise=0.5).train()(v).detach()
    assert set(levels.flatten().tolist()) == {1.0, 2.0}
    assert float(levels.float().mean()) == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize(
    ("noise", "low", "high", "deviation"),
    [
        (Noise(0.5), -0.5, 0.5, 0.5 / 3**0.5),
        (Noise(1.0, "normal"), -9.0, 9.0, 1.0),
        (Noise(0.4, "two_point"), -0.4, 0.4, 0.4),
        (Noise(0.5, "uniform", probability=0.25), -0.5, 0.5, 0.25 / 3**0.5),
        (Noise(0.5, probability=0.0), 0.0, 0.0, 0.0),
    ],
)
def test_noise_laws(noise: Noise, low: float, high: float, deviation: float) -> None:
    torch.manual_seed(0)
    drawn = noise.add_to(torch.zeros(200_000), 0.0)
    assert low - 1e-6 <= float(drawn.min())
    assert float(drawn.max()) <= high + 1e-6
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(deviation, abs=0.01)


def test_noise_is_off_at_evaluation_and_repeats_with_the_seed() -> None:
    v = torch.rand(4, 3, 5, 5) * 3
    quantizer = Quantizer(2, noise=0.5)
    assert torch.equal(quantizer.eval()(v), quantizer(v))
    quantizer.train()
    torch.manual_seed(1)
    first = quantizer(v)
    assert not torch.equal(first, quantizer(v))
    torch.manual_seed(1)
    assert torch.equal(first, quantizer(v))


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_are_those_of_lsq(per_channel: bool) -> None:
    torch.manual_seed(0)
    v = (torch.randn(4, 3, 5, 5) * 2).requires_grad_()
    quantizer = Quantizer(2, noise=0.0, per_channel=per_channel)
    shape = (3, 1, 1) if per_channel else ()
    quantizer.step = nn.Parameter(torch.full(shape, 0.7))
    upstream = torch.randn(4, 3, 5, 5)
    quantizer.train()(v).backward(upstream)

    x = v.detach() / 0.7
    inside = (x > 0) & (x < 3)
    torch.testing.assert_close(v.grad, upstream * inside)
    by_element = upstream * torch.where(inside, torch.floor(x + 0.5) - x, 3.0 * (x >= 3))
    elements = 25 if per_channel else 75
    expected = by_element.sum_to_size(shape) / (3 * elements) ** 0.5
    torch.testing.assert_close(quantizer.step.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_first_step_is_the_one_of_least_squared_error() -> None:
    v = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    step = float(best_step(v, 3))
    target = v.clamp(min=0)

    def error(s: float) -> float:
        return float(((torch.floor(target / s + 0.5).clamp(0, 3) * s - target) ** 2).mean())

    assert error(step) <= min(error(step * factor) for factor in (0.8, 0.9, 1.1, 1.2))
    assert float(best_step(torch.full((10,), -1.0), 3)) == pytest.approx(0.05)


def test_steps_are_initialised_layer_by_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
    quantize(net, bits=2, per_channel=True)
    images = torch.randn(8, 3, 10, 10)
    initialise_steps(net, images)
    assert net[1].step.shape == (4, 1, 1)
    seen = net[2](net[1](net[0](images)))
    torch.testing.assert_close(net[3].step.detach(), best_step(seen, 3, per_channel=True))


def test_steps_per_channel_survive_saving() -> None:
    def fresh() -> nn.Module:
        return quantize(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), per_channel=True)

    net = fresh()
    initialise_steps(net, torch.randn(64, 6))
    copy = fresh()
    copy.load_state_dict(net.state_dict())
    x = torch.randn(5, 6)
    torch.testing.assert_close(copy.eval()(x), net.eval()(x))


def test_quantize_replaces_every_relu_and_shares_what_was_shared() -> None:
    shared = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 3), shared, nn.Sequential(nn.Linear(3, 3), shared), nn.ReLU6())
    quantize(net, bits=3, noise=0.25)
    assert net[1] is net[2][1]
    assert isinstance(net[3], Quantizer)
    assert (net[3].levels, net[3].noise) == (7, Noise(0.25))


@pytest.mark.parametrize("weight_bits", [8, 4, 2])
def test_weights_take_few_values_and_still_learn(weight_bits: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    )  # fmt: skip
    quantize(net, 2, weight_bits=weight_bits)
    inner = net[2]
    assert len(inner.weight.unique()) <= 2**weight_bits
    assert len(net[0].weight.unique()) > 4  # the outer layers keep 8 bits
    net.train()(torch.randn(16, 8)).square().sum().backward()
    assert all(p.grad is not None for p in inner.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quantizer(0),
        lambda: Quantizer(2, noise=-0.1),
        lambda: Noise(0.5, "cauchy"),
        lambda: Noise(0.5, probability=1.5),
        lambda: quantize(nn.Linear(2, 2)),
        lambda: quantize(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), weight_bits=1),
    ],
)
def test_wrong_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):  # noqa: PT011
        make()
