"""Training: results, resuming bit for bit, interruption, several processes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from na_convert.models import checkpoint
from na_convert.models.cli import INTERRUPTED, app, main, na_train
from na_convert.models.data import Dataset, ImageSet, load
from na_convert.models.recipe import Network, Quantiser, Recipe, Stage, Training
from na_convert.models.train import Hooks, Interrupted, Run, start, train
from typer.testing import CliRunner, Result

from na_convert import api

pytest.importorskip("sklearn")

_ROOT = Path(__file__).parent.parent
_CPU = torch.device("cpu")
_TOML = """
name = "small"
data = "digits"
[network]
name = "resnet8"
widths = [4, 4, 8]
[float]
epochs = 2
peak_rate = 0.1
[quantised]
epochs = 2
peak_rate = 0.05
[training]
batch = 128
padding = 1
flip = false
[report]
images = 100
timesteps = [1, 3, 4]
"""


def random_data() -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> ImageSet:
        images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return ImageSet(images, torch.randint(0, 4, (count,), generator=generator))

    return Dataset(part(70), part(30), 4, (3, 8, 8), (0.5,) * 3, (0.25,) * 3)


def small_recipe(**training: object) -> Recipe:
    return Recipe(
        "small",
        "digits",
        Network("resnet8", widths=(4, 4, 4)),
        Stage(2, 0.1),
        Stage(2, 0.05),
        Quantiser(initial_images=16),
        replace(Training(batch=16, padding=1), **training),  # type: ignore[arg-type]
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.best.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name, value in a.items() if not torch.equal(value, b[name])]
    assert not different


def interrupted_at(step: int, recipe: Recipe, path: Path) -> None:
    """Train from the start and stop after ``step`` steps in all, with a checkpoint at ``path``."""
    data, steps = random_data(), 0

    def count(run: Run) -> None:
        nonlocal steps
        steps += run.step > 0

    hooks = Hooks(count, lambda run: checkpoint.save(run, path), lambda: steps + 1 >= step)
    with pytest.raises(Interrupted):
        train(start(recipe, data, _CPU), data, hooks)


@pytest.mark.parametrize(
    "recipe",
    [
        small_recipe(),
        small_recipe(ema=0.9, clip=1.0, schedule="cosine", precision="float32"),
        replace(small_recipe(), quantiser=Quantiser(per_channel=True, weight_bits=4)),
    ],
    ids=["plain", "ema, clipping, cosine", "per channel, weights"],
)
@pytest.mark.parametrize("step", [1, 3, 4, 8, 9, 14])
def test_resuming_gives_the_same_bits(recipe: Recipe, step: int, tmp_path: Path) -> None:
    data, path = random_data(), tmp_path / "checkpoint.pt"
    whole = train(start(recipe, data, _CPU), data, Hooks())
    interrupted_at(step, recipe, path)
    torch.manual_seed(99)
    resumed = train(checkpoint.resume(recipe, data, _CPU, path), data, Hooks())
    assert_same(weights(whole), weights(resumed))
    assert [m["loss"] for m in whole.metrics] == [m["loss"] for m in resumed.metrics]


def test_worker_processes_change_nothing() -> None:
    data = random_data()
    alone = train(start(small_recipe(), data, _CPU), data, Hooks())
    recipe = small_recipe(workers=1)
    assert_same(weights(alone), weights(train(start(recipe, data, _CPU), data, Hooks())))


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    data, path = random_data(), tmp_path / "checkpoint.pt"
    checkpoint.save(start(small_recipe(), data, _CPU), path)
    with pytest.raises(Exception, match="of another recipe"):
        checkpoint.resume(small_recipe(clip=1.0), data, _CPU, path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(Exception, match="not a readable checkpoint"):
        checkpoint.read(path)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(Exception, match="do not fill a batch"):
        start(small_recipe(batch=512), random_data(), _CPU)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "na_convert.models", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}


def run_command(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, check=check,
        timeout=300,
    )  # fmt: skip


def run_here(*arguments: str | Path, code: int = 0) -> Result:
    """`na-train` in this process, which has torch already."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.stderr
    return result


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(_TOML)
    return path


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(out / "checkpoint.pt")["net"]


def test_the_digits_recipe_learns_and_writes_everything(tmp_path: Path) -> None:
    (line,) = re.findall(r"&& na-train (.*)$", (_ROOT / "README.md").read_text(), re.MULTILINE)
    recipe, *options = line.split()
    assert options == ["--out", "runs/digits"]
    out = tmp_path / "out"
    run = run_command(_ROOT / recipe, "--out", out)
    assert "SNN accuracy" in run.stdout
    report = json.loads((out / "report.json").read_text())
    assert report["recipe"]["name"] == "digits"
    assert report["ann_accuracy"] > 0.93
    by_timestep = {row["T"]: row for row in report["by_timestep"]}
    assert list(by_timestep) == [*range(1, 17), 32, 64]
    assert by_timestep[4]["snn_accuracy"] > 0.9
    assert by_timestep[16]["agreement"] > 0.93
    assert len(report["layers"]) == 7
    assert report["layers"][0]["unevenness"] == 0
    with (out / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["stage"] for row in rows] == ["float"] * 8 + ["quantised"] * 8
    assert api.inspect(out / "model.onnx").neurons
    assert (out / "model.snn.onnx").is_file()


def test_kill_and_resume_give_the_same_weights(toml: Path, tmp_path: Path) -> None:
    run_command(toml, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(toml, "--out", out), env=environment(), stderr=subprocess.DEVNULL
    )
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    refused = run_command(toml, "--out", out, check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    run_command(toml, "--out", out, "--resume")
    assert_same(final_weights(tmp_path / "whole"), final_weights(out))


def test_a_float_stage_is_shared_bit_for_bit(toml: Path, tmp_path: Path) -> None:
    first, whole, short = (tmp_path / name for name in ("first", "whole", "short"))
    stage = first / "float.pt"
    run_here(toml, "--out", first)
    run_here(toml, "--noise", "0", "--out", whole)
    run_here(toml, "--noise", "0", "--out", short, "--float-from", stage)
    assert_same(final_weights(whole), final_weights(short))
    noisy, quiet = final_weights(first), final_weights(whole)
    assert any(not torch.equal(noisy[name], quiet[name]) for name in quiet)
    losses = [
        [row["loss"] for row in checkpoint.read(out / "checkpoint.pt")["metrics"]]
        for out in (whole, short)
    ]
    assert losses[0] == losses[1]
    for options, file, complaint in (
        (["--seed", "1"], stage, "another 'seed'"),
        ([], first / "checkpoint.pt", "not the end of a float stage"),
    ):
        given = ["--out", tmp_path / "next", "--float-from", file, *options]
        refused = run_here(toml, *given, code=2)
        assert complaint in refused.stderr


def test_ctrl_c_saves_and_leaves(toml: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.toml"
    long.write_text(_TOML.replace("epochs = 2", "epochs = 1000", 1))
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(long, "--out", out), env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "--resume" in errors
    assert checkpoint.read(out / "checkpoint.pt")["position"]["epoch"] >= 1


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Without BatchNorm and noise, which are each process's own, the losses are the same."""
    toml = tmp_path / "mlp.toml"
    toml.write_text(
        _TOML.replace('name = "resnet8"\nwidths = [4, 4, 8]', 'name = "mlp"\nwidths = [32]')
        .replace("batch = 128", 'batch = 128\nprecision = "float32"')
        .replace("[training]", "[quantiser]\nnoise = 0.0\n[training]")
    )
    run_command(toml, "--out", tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "na_convert.models", toml, "--out", tmp_path / "two"],
        env=environment(), check=False, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (checkpoint.read(tmp_path / n / "checkpoint.pt")["metrics"] for n in ("one", "two"))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        assert b["test_accuracy"] == pytest.approx(a["test_accuracy"], abs=0.01)
    assert (tmp_path / "two" / "report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.toml"], "not a readable recipe"),
        (["RECIPE", "--device", "tpu"], "cpu, cuda or auto"),
        (["RECIPE", "--data", "none"], "none: no such file or folder"),
        (["RECIPE", "--data", "no.tar.gz"], "no.tar.gz: not a readable tar archive"),
        (["long" * 40 + ".toml"], "not a readable recipe"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], complaint: str, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    app = typer.Typer()
    app.command()(na_train)
    toml.write_text(_TOML.replace('"digits"', '"cifar10"'))
    monkeypatch.chdir(toml.parent)
    Path("no.tar.gz").write_bytes(b"no archive")
    given = [str(toml) if a == "RECIPE" else a for a in arguments]
    result = CliRunner().invoke(app, [*given, "--out", str(toml.parent / "out")])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
    assert callable(main)


def test_digits_are_the_same_every_time() -> None:
    assert torch.equal(load("digits", None).training.images, load("digits", None).training.images)  # type: ignore[attr-defined]
