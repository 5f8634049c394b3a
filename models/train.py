"""The training loop: float pre-training, then quantised fine-tuning, resumable at any step.

What a step does depends on the checkpoint's state alone: images and augmentation come from seeds of
(recipe seed, stage, epoch, step), noise from torch's generator, which a checkpoint holds.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from na_convert.errors import DataError

from . import networks, processes
from .data import Augmentation, Images, normalise, seeds
from .data import Dataset as ImageDataset
from .noise import Noise
from .quantizer import initialise_steps, quantize
from .recipe import FineTuning, Recipe, Stage
from .spiking import in_loop

STAGES = ("float", "quantised", "finetuned")  # the last one is a run of its own

Metrics = dict[str, str | int | float]


class Interrupted(Exception):
    """Training was asked to stop, and its state has been saved."""


@dataclass
class Run:
    """A run in progress: where it is, and all that the next step depends on."""

    recipe: Recipe
    net: nn.Module
    device: torch.device
    optimiser: torch.optim.SGD
    schedule: torch.optim.lr_scheduler.LRScheduler
    averaged: AveragedModel | None
    stage: int = 0
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    metrics: list[Metrics] = field(default_factory=list)
    tuning: FineTuning | None = None
    teacher: nn.Module | None = None

    @property
    def stage_name(self) -> str:
        return STAGES[self.stage]

    @property
    def plan(self) -> Stage:
        """Epochs and rate of the stage."""
        return _plan(self.recipe, self.stage, self.tuning)

    @property
    def best(self) -> nn.Module:
        """The network to evaluate and to keep: with averaged weights where the recipe has them."""
        return self.averaged.module if self.averaged is not None else self.net


@dataclass(frozen=True)
class Hooks:
    """What the outside wants to know and to say while training goes on.

    ``progress`` is told the run after each step, ``save`` when its state should be kept (always
    between two steps), ``stop`` says whether to save and leave.
    """

    progress: Callable[[Run], None] = lambda run: None
    save: Callable[[Run], None] = lambda run: None
    stop: Callable[[], bool] = lambda: False


def start(recipe: Recipe, data: ImageDataset, device: torch.device) -> Run:
    """A run at its first step, with freshly drawn weights."""
    _check_batch(recipe, data)
    torch.manual_seed(recipe.seed)
    net = networks.build(
        recipe.network.name,
        data.classes,
        shape=data.shape,
        stem=recipe.network.stem or None,
        widths=recipe.network.widths,
    )
    return begin_stage(recipe, data, net.to(device), 0)


def begin_stage(
    recipe: Recipe,
    data: ImageDataset,
    net: nn.Module,
    stage: int,
    tuning: FineTuning | None = None,
) -> Run:
    """A run at the first step of ``stage``, with an optimiser and a schedule of its own.

    ``tuning`` is what the stage "finetuned" needs; ``net`` as it is becomes its teacher.
    """
    where = next(net.parameters()).device
    if recipe.training.channels_last:
        net = net.to(memory_format=torch.channels_last)
    plan = _plan(recipe, stage, tuning)
    optimiser = torch.optim.SGD(
        _parameter_groups(net, recipe.training.weight_decay),
        lr=plan.peak_rate,
        momentum=recipe.training.momentum,
        nesterov=recipe.training.momentum > 0,
    )
    steps = max(1, plan.epochs * steps_per_epoch(recipe, data))
    schedule: torch.optim.lr_scheduler.LRScheduler
    if recipe.training.schedule == "onecycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.peak_rate, steps)
    else:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    averaged = None
    if recipe.training.ema:
        average = get_ema_multi_avg_fn(recipe.training.ema)
        averaged = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
    teacher = copy.deepcopy(net).eval() if tuning is not None and tuning.teacher else None
    return Run(
        recipe, net, where, optimiser, schedule, averaged, stage, tuning=tuning, teacher=teacher
    )


def quantised(recipe: Recipe, net: nn.Module) -> nn.Module:
    """``net`` with its activations (and weights) replaced as the recipe says."""
    q = recipe.quantiser
    noise = Noise(q.noise, q.law, q.probability)
    return quantize(net, q.bits, noise, per_channel=q.per_channel, weight_bits=q.weight_bits)


def train(run: Run, data: ImageDataset, hooks: Hooks) -> Run:
    """Train ``run`` to the end of its recipe, or of its fine-tuning.

    Raises Interrupted where ``hooks.stop`` said so.
    """
    _train_stage(run, data, hooks)
    if run.stage_name == "float":
        run = _quantised_run(run, data)
        _train_stage(run, data, hooks)
    return run


def steps_per_epoch(recipe: Recipe, data: ImageDataset) -> int:
    """The last, smaller batch of an epoch is left out."""
    return len(data.training) // recipe.training.batch


def _plan(recipe: Recipe, stage: int, tuning: FineTuning | None) -> Stage:
    if tuning is not None:
        return Stage(tuning.epochs, tuning.peak_rate)
    plan: Stage = getattr(recipe, STAGES[stage])
    return plan


def _quantised_run(run: Run, data: ImageDataset) -> Run:
    recipe = run.recipe
    net = quantised(recipe, run.best)
    source = next(seeds(recipe.seed, run.stage + 1))
    order = torch.randperm(len(data.training), generator=torch.Generator().manual_seed(source))
    images, _ = data.training.batch(order[: recipe.quantiser.initial_images])
    initialise_steps(net, normalise(images.to(run.device), data.mean, data.std))
    following = begin_stage(recipe, data, net, run.stage + 1)
    following.metrics, following.seconds = run.metrics, run.seconds
    return following


def _train_stage(run: Run, data: ImageDataset, hooks: Hooks) -> None:
    # Where several processes share one seed, each draws noise of its own.
    if run.epoch == run.step == 0:
        torch.manual_seed(next(seeds(run.recipe.seed, run.stage, processes.rank())))
    net = processes.wrapped(run.net, run.device)
    while run.epoch < run.plan.epochs:
        _train_epoch(run, net, data, hooks)
        correct = accuracy(run.best, data, run.device)
        run.metrics.append(
            {
                "stage": run.stage_name,
                "epoch": run.epoch + 1,
                "loss": run.loss / steps_per_epoch(run.recipe, data),
                "test_accuracy": correct,
                "seconds": round(run.seconds, 1),
            }
        )
        run.epoch, run.step, run.loss = run.epoch + 1, 0, 0.0
        hooks.save(run)
        hooks.progress(run)


def _train_epoch(run: Run, net: nn.Module, data: ImageDataset, hooks: Hooks) -> None:
    training = run.recipe.training
    began = saved = time.monotonic()
    clip = run.tuning.clip if run.tuning else training.clip
    net.train()
    if run.tuning:
        _freeze_norms(net)
    for images, labels in _batches(run, data):
        inputs = normalise(images.to(run.device), data.mean, data.std)
        with torch.autocast(
            run.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"
        ):
            logits = _outputs(run, net, inputs)
            taught = _taught(run, inputs)
        loss = _loss(run, logits.float(), labels.to(run.device), taught)
        run.optimiser.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(run.net.parameters(), clip)
        run.optimiser.step()
        run.schedule.step()
        if run.averaged is not None:
            run.averaged.update_parameters(run.net)
        step_loss, asked = processes.total([loss.item(), float(hooks.stop())], run.device)
        run.loss += step_loss / processes.world_size()
        run.step += 1
        now = time.monotonic()
        run.seconds, began = run.seconds + now - began, now
        hooks.progress(run)
        if asked:
            hooks.save(run)
            raise Interrupted
        # Several processes would have to agree on the moment: they save after each epoch only.
        if processes.world_size() == 1 and now - saved > 60 * training.checkpoint_minutes:
            hooks.save(run)
            saved = now


def _outputs(run: Run, net: nn.Module, inputs: Tensor) -> Tensor:
    """What the loss is computed from: the network's outputs, or the spiking network's."""
    if run.tuning is None or not run.tuning.loop:
        return net(inputs)
    choices = run.tuning.timesteps
    drawn = next(seeds(run.recipe.seed, run.stage, run.epoch, run.step + 1))
    return in_loop(run.net, inputs, choices[drawn % len(choices)], net)


@torch.no_grad()
def _taught(run: Run, inputs: Tensor) -> Tensor | None:
    return None if run.teacher is None else run.teacher(inputs).float()


def _loss(run: Run, logits: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
    smoothing = run.recipe.training.label_smoothing
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if taught is None or run.tuning is None:
        return loss
    divergence = F.kl_div(
        logits.log_softmax(1), taught.log_softmax(1), log_target=True, reduction="batchmean"
    )
    return (1 - run.tuning.teacher) * loss + run.tuning.teacher * divergence


def _freeze_norms(net: nn.Module) -> None:
    """BatchNorm with the statistics that it has, as in the network that will be converted."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """The batches of an epoch by number, so that worker processes can make them."""

    def __init__(
        self, images: Images, batches: list[tuple[Tensor, int]], augmentation: Augmentation
    ) -> None:
        self.images, self.batches, self.augmentation = images, batches, augmentation
        self.part = processes.my_part(len(batches[0][0])) if batches else slice(None)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        indices, seed = self.batches[number]
        return self.images.training_batch(indices, seed, self.augmentation, self.part)


def _batches(run: Run, data: ImageDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the batches of ``run``'s epoch, from its step on."""
    training = run.recipe.training
    source = seeds(run.recipe.seed, run.stage, run.epoch)
    generator = torch.Generator().manual_seed(next(source))
    order = torch.randperm(len(data.training), generator=generator)
    steps = steps_per_epoch(run.recipe, data)
    chosen = order[: steps * training.batch].split(training.batch)
    batches = list(zip(chosen, source, strict=False))[run.step :]
    augmentation = Augmentation(training.padding, training.flip)
    dataset = _Batches(data.training, batches, augmentation)
    if not training.workers:
        return (dataset[number] for number in range(len(dataset)))
    # A generator of its own keeps the loader from drawing on torch's, which the noise comes from.
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            num_workers=training.workers,
            generator=torch.Generator().manual_seed(0),
        )
    )


@torch.no_grad()
def logits(
    net: nn.Module, data: ImageDataset, indices: Tensor, device: torch.device, batch: int = 500
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, classes] and labels [n] of test images, batch by batch, in float32, no noise."""
    net.eval()
    for chosen in indices.split(batch):
        images, labels = data.test.batch(chosen)
        yield net(normalise(images.to(device), data.mean, data.std)), labels.to(device)


def accuracy(net: nn.Module, data: ImageDataset, device: torch.device) -> float:
    """Share of the test images classified correctly; each process evaluates a part of them."""
    mine = torch.arange(len(data.test))[processes.rank() :: processes.world_size()]
    correct = sum(
        int((scores.argmax(1) == labels).sum())
        for scores, labels in logits(net, data, mine, device)
    )
    return processes.total([float(correct)], device)[0] / len(data.test)


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases, BatchNorm and steps do not."""
    named = list(net.named_parameters())
    weights = [p for name, p in named if p.ndim > 1 and not name.endswith("step")]
    others = [p for name, p in named if p.ndim <= 1 or name.endswith("step")]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _check_batch(recipe: Recipe, data: ImageDataset) -> None:
    batch = recipe.training.batch
    if len(data.training) < batch:
        raise DataError(
            f"{len(data.training)} training images do not fill a batch of {batch}",
            remedy="give more images, or set training.batch in the recipe",
        )
    if batch % processes.world_size():
        raise DataError(f"a batch of {batch} does not divide among {processes.world_size()}")
