"""Fitting the network: one run, one fold held out (or none)."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.dynunet import DynUNet
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipelines.train.common import save_state
from pipelines.train.hippocampus.data import Case, DataError, augmentation, training_batches
from services.imaging.hippocampus_network import build_network, probabilities

#: 1.4 million weights; three halvings take 40x56x40 to 5x7x5, where one voxel sees the whole crop.
NETWORK_DEF: dict[str, object] = {
    "_target_": "DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [16, 32, 64, 128],
    "norm_name": ["instance", {"affine": True}],
    "deep_supervision": False,
    "res_block": False,
}
#: One fitted case in this many is enough to balance the volume on.
BALANCE_STRIDE = 3


@dataclass(frozen=True)
class Recipe:
    """What decides a run.

    Attributes:
        epochs: length of the learning-rate schedule in passes over the cases.
        stop_after: end after this many of them (0: all). The last few change little, for the rate nears zero.
        threads: part of the recipe, for it changes the order of sums, and with it the last digits.
    """

    epochs: int = 24
    stop_after: int = 0
    batch_size: int = 2
    peak_learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    average_decay: float = 0.995
    seed: int = 20
    threads: int = 1

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch that is run."""
        return min(self.epochs, self.stop_after) if self.stop_after else self.epochs


@dataclass(frozen=True)
class Progress:
    """One finished epoch.

    `dice` is the averaged weights' mean over held-out cases (anterior, posterior), where it was measured.
    """

    epoch: int
    epochs: int
    loss: float
    seconds: float
    dice: tuple[float, float] | None


Report = Callable[[Progress, torch.nn.Module], None]


def seed_everything(recipe: Recipe) -> None:
    """Same recipe, same machine, same weights."""
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    torch.set_flush_denormal(True)


def dice_per_label(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Dice of label 1 and of label 2; 1.0 where both maps lack the label."""
    scores = []
    for label in (1, 2):
        a, b = predicted == label, truth == label
        total = int(a.sum() + b.sum())
        scores.append(2 * int((a & b).sum()) / total if total else 1.0)
    return scores[0], scores[1]


def mean_dice(network: torch.nn.Module, cases: Sequence[Case]) -> tuple[float, float]:
    """Mean Dice of each label over cases, two passes averaged."""
    network.eval()
    scores = [
        dice_per_label(probabilities(network, torch.from_numpy(c.image)).mean(0).argmax(0).numpy(), c.label)
        for c in cases
    ]
    mean = np.mean(scores, axis=0)
    return float(mean[0]), float(mean[1])


def balance_volume(network: DynUNet, cases: Sequence[Case]) -> float:
    """Shift the background's last bias until outlines are, on average over the cases, as large as the experts'.

    The Dice loss rewards an outline that is too large where the border is unsure, which biases volumes upwards.

    Args:
        network: changed in place.
        cases: fitted cases, never held-out ones.

    Returns:
        The shift in logits.
    """
    passes = [(probabilities(network, torch.from_numpy(c.image)).log(), float((c.label > 0).sum())) for c in cases]

    def mean_ratio(shift: float) -> float:
        offset = torch.tensor([shift, 0.0, 0.0]).view(1, 3, 1, 1, 1)
        chances = ((torch.softmax(logits + offset, 1).mean(0), volume) for logits, volume in passes)
        return float(np.mean([float((p[1:] > p[0]).any(0).sum()) / volume for p, volume in chances]))

    low, high = -3.0, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_ratio(middle) > 1 else (low, middle)
    shift = (low + high) / 2
    with torch.no_grad():
        network.output_block.conv.conv.bias[0] += shift
    return shift


def _epoch(
    network: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    loss_of: DiceCELoss,
    optimizer: torch.optim.Optimizer,
    after_step: Callable[[], None],
) -> float:
    """One pass over the batches; returns the mean loss."""
    network.train()
    losses = []
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        after_step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def fit(
    train: Sequence[Case],
    held_out: Sequence[Case],
    recipe: Recipe,
    report: Report,
    measure_every: int = 4,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> DynUNet:
    """Train from random weights and return the moving average of the weights, balanced, in evaluation mode, on the CPU.

    The last epoch is kept, never the best one on the held-out cases, so that their Dice stays an honest estimate.

    Args:
        checkpoint: written after each epoch, taken up if it is there, and removed at the end. A run that was taken up draws
            other random variations than one that was not stopped.
        device: for the network, as torch names it.

    Raises:
        DataError: the checkpoint was made by another recipe.
    """
    seed_everything(recipe)
    run = _begin(recipe, max(1, len(train) // recipe.batch_size), device)
    rng = np.random.default_rng(recipe.seed)
    done = _take_up(run, recipe, checkpoint)
    for _ in range(done):
        rng.permutation(len(train))
    variation = augmentation(recipe.seed + 1000 * done)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def after_step() -> None:
        run.schedule.step()
        run.averaged.update_parameters(run.network)

    last = recipe.last_epoch
    for epoch in range(done + 1, last + 1):
        started = time.monotonic()
        batches = (
            (images.to(device), labels.to(device))
            for images, labels in training_batches(train, variation, recipe.batch_size, rng)
        )
        loss = _epoch(run.network, batches, loss_of, run.optimizer, after_step)
        if checkpoint is not None:
            save_state({"recipe": asdict(recipe), "epoch": epoch, **run.state()}, checkpoint)
        measured = bool(held_out) and (epoch % measure_every == 0 or epoch == last)
        averaged = copy.deepcopy(run.averaged.module).cpu() if measured else run.averaged.module
        dice = mean_dice(averaged, held_out) if measured else None
        report(Progress(epoch, last, loss, time.monotonic() - started, dice), run.averaged.module)
    fitted = cast(DynUNet, run.averaged.module.cpu().eval())
    balance_volume(fitted, train[::BALANCE_STRIDE])
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


@dataclass(frozen=True)
class _Run:
    """What changes while a network is trained."""

    network: DynUNet
    averaged: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimizer", "schedule")}


def _begin(recipe: Recipe, steps: int, device: str) -> _Run:
    network = build_network(NETWORK_DEF).to(device)
    average = get_ema_multi_avg_fn(recipe.average_decay)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_learning_rate, total_steps=max(2, steps * recipe.epochs), pct_start=0.15
    )
    return _Run(network, AveragedModel(network, multi_avg_fn=average), optimizer, schedule)


def _take_up(run: _Run, recipe: Recipe, checkpoint: Path | None) -> int:
    """The number of epochs that a checkpoint holds, its state put into the run; 0 without one."""
    if checkpoint is None or not checkpoint.is_file():
        return 0
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if content["recipe"] != asdict(recipe):
        raise DataError(f"{checkpoint.name} was begun by another recipe; remove it, or leave out --resume")
    for name in run.state():
        getattr(run, name).load_state_dict(content[name])
    return int(content["epoch"])
