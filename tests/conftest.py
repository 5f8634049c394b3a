"""Fixtures that more than one test file uses; a core of its own for each test process."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from na_convert.results import (
    Equivalence,
    Figure,
    LayerResult,
    ModelInfo,
    Neuron,
    OutputInfo,
    PassReport,
    Refusal,
    Result,
    Skip,
    TimestepResult,
)


def pytest_configure(config: pytest.Config) -> None:
    """A worker of pytest-xdist keeps to one core: torch and onnxruntime start a thread per core,
    and threads of several workers would wait for each other, spinning.

    Files are handed out in the order of `pytest_collection_modifyitems`; by default those of few
    but long tests would come last, alone.
    """
    config.option.loadscopereorder = False
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


LONGEST = (
    *("test_models_networks", "test_train_run", "test_corpus", "test_docs", "test_packaging"),
    *("test_exports_made", "test_reproduction", "test_finetune"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that no worker ends on one of them."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def result() -> Result:
    """A conversion that passed: eight neuron layers, the last with a threshold per channel."""
    neurons = tuple(_neuron(index) for index in range(8))
    layers = tuple(
        LayerResult(n.name, 0.2, 0.02 * i, 0.004, -0.001, 0.5, 0.3, 0.2, exercised=True)
        for i, n in enumerate(neurons)
    )
    figures = (
        Figure("BatchNorm folded", 2.1e-6, 1e-4, True, "relative to the largest logit"),
        Figure("replay mismatches", 0, 0, True, "8 layers, each at T = its own p"),
    )
    equivalence = Equivalence(
        data="images.npz", samples=600, fold_error=2.1e-6, replay_mismatches=0, replay_ties=4,
        engine_differences=0, layers=layers, figures=figures,
        by_timestep=(
            TimestepResult(1, 0.71, 0.768, 0.62, 2.13),
            TimestepResult(2, 0.83, 0.768, 0.71, 1.07),
            TimestepResult(3, 0.884, 0.768, 0.751, 0.62),
        ),
    )  # fmt: skip
    return Result(
        model=ModelInfo(
            "nets/resnet8.onnx", "ab" * 32, 20, "pytorch 2.13.0", 345_678,
            {"BatchNormalization": 9, "Conv": 9, "Add": 3, "Clip": 8, "Div": 8, "Round": 8},
        ),
        timesteps=3,
        form="folded",
        neurons=neurons,
        refused=(),
        passes=(
            PassReport("fold_batchnorm", 9, max_abs_error=1e-6),
            PassReport("reorder_maxpool", 0, skipped=(Skip("pool", "already in front"),)),
        ),
        equivalence=equivalence,
        output=OutputInfo(
            "nets/resnet8.snn.onnx", 356_789, "cd" * 32, {"Conv": 9, "IF": 8, "Encode": 1}
        ),
        passed=True,
        notes=("images.npz: uint8 pixels made x * 0.003922 (by the model's metadata)",),
        seconds=4.2,
    )  # fmt: skip


@pytest.fixture
def failed(result: Result) -> Result:
    """The same with a figure that breaks its limit."""
    assert result.equivalence is not None
    figure = Figure("agreement at T=3", 0.8841, 0.9, False, "asked for at least 0.9", node="act3")
    figures = (*result.equivalence.figures, figure)
    equivalence = replace(result.equivalence, figures=figures)
    return replace(result, equivalence=equivalence, output=None, passed=False)


@pytest.fixture
def refused(result: Result) -> Result:
    """What `inspect` returns for a model that cannot be converted."""
    entries = (
        Refusal("/blocks.3/attn/[softmax]", "Softmax", "not linear", "keep it in the readout"),
        Refusal("/blocks.3/attn/MatMul", "MatMul", "multiplies two spike trains", "remove it"),
    )
    return replace(result, neurons=(), refused=entries, equivalence=None, output=None, passed=False)


def _neuron(index: int) -> Neuron:
    threshold: float | list[float] = 1.5 if index < 7 else [0.75, 1.5, 3.0]
    name = f"/blocks/blocks.{index}/residual/quantizer/act{index}"
    return Neuron(
        name=name, root=f"sum{index}", output=f"act{index}", kind="staircase",
        threshold=threshold, amplitude=threshold, input_step=0.5, output_step=0.5,
        levels=3, lowest_level=0, phase=0.5, tie_rule="half_even",
        constant_input=index == 0, shape=(16, 32, 32),
    )  # fmt: skip
