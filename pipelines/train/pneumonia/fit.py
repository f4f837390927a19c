"""Fitting one member of the ensemble: one fold of the training part held out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pipelines.train.pneumonia.data import Part, balanced_draw, vary
from services.imaging.pneumonia_network import build_member, standardise

#: 0.31 million weights; no halving before the first stage, for 28 pixels leave none to spare.
NETWORK_DEF: dict[str, object] = {
    "_target_": "ResNet",
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [16, 32, 64, 128],
    "spatial_dims": 2,
    "n_input_channels": 1,
    "conv1_t_size": 3,
    "conv1_t_stride": 1,
    "no_max_pool": True,
    "num_classes": 1,
}


@dataclass(frozen=True)
class Recipe:
    """What decides a run. `threads` is part of it, for it changes the order of sums, and with it the last digits.

    Attributes:
        folds: members of the ensemble; each holds out one fold of the training part.
        mixing: parameter of the Beta distribution that mixes pairs of images (mixup, Zhang et al., 2018).
        average_decay: of the moving average of the weights, per step.
    """

    folds: int = 5
    epochs: int = 30
    batch_size: int = 64
    peak_learning_rate: float = 4e-3
    weight_decay: float = 2e-2
    mixing: float = 0.2
    average_decay: float = 0.98
    seed: int = 20
    threads: int = 1


@dataclass(frozen=True)
class Progress:
    """One finished epoch of one member."""

    fold: int
    epoch: int
    epochs: int
    loss: float
    seconds: float


Report = Callable[[Progress], None]


def seed_everything(seed: int, threads: int) -> None:
    """Same recipe, same machine, same weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def fit_member(train: Part, recipe: Recipe, fold: int, report: Report) -> ResNet:
    """Train from random weights; returns the moving average of the weights of the last epoch, never of the best one.

    Each epoch draws both classes alike, so that the logit is the log-odds at a prevalence of one half.
    """
    seed = recipe.seed + 1000 * fold
    seed_everything(seed, recipe.threads)
    network = build_member(NETWORK_DEF).to(memory_format=torch.channels_last)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay))  # type: ignore[no-untyped-call]
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, len(balanced_draw(train.labels, np.random.default_rng(0))) // recipe.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_learning_rate, total_steps=max(2, steps * recipe.epochs), pct_start=0.2
    )
    for epoch in range(1, recipe.epochs + 1):
        started = time.monotonic()
        network.train()
        losses = []
        order = balanced_draw(train.labels, rng)
        for start in range(0, steps * recipe.batch_size, recipe.batch_size):
            batch = train.pick(order[start : start + recipe.batch_size])
            loss = _mixed_loss(network, batch, recipe, rng, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
            losses.append(float(loss.detach()))
        report(Progress(fold, epoch, recipe.epochs, float(np.mean(losses)), time.monotonic() - started))
    # The averaged weights need statistics of their own; balanced images as in training, but unvaried as in use.
    settled = train.pick(balanced_draw(train.labels, rng))
    update_bn(standardise(settled.images).split(128), averaged)
    return cast(ResNet, averaged.module.eval())


def _mixed_loss(
    network: torch.nn.Module, batch: Part, recipe: Recipe, rng: np.random.Generator, generator: torch.Generator
) -> torch.Tensor:
    images, labels = vary(batch.images, generator), batch.labels
    if recipe.mixing and rng.random() < 0.5:
        share = float(rng.beta(recipe.mixing, recipe.mixing))
        other = torch.from_numpy(rng.permutation(len(labels)))
        images, labels = share * images + (1 - share) * images[other], share * labels + (1 - share) * labels[other]
    return functional.binary_cross_entropy_with_logits(
        network(images.contiguous(memory_format=torch.channels_last)).flatten(), labels
    )
