"""Fitting the network on sampled voxels: one fold of the patients held out (or none)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pipelines.train.pet_lesion.data import Patient, training_pair
from services.imaging.pet_lesion_network import VoxelNetwork


@dataclass(frozen=True)
class Recipe:
    """What decides a run. `threads` is part of it, for it changes the order of sums, and with it the last digits.

    Attributes:
        variants: how often each patient is varied at random.
        voxels: how many voxels of each variant are fitted on, of 18,432.
        hidden: width of the network's two hidden layers.
    """

    variants: int = 8
    voxels: int = 2000
    hidden: int = 32
    epochs: int = 12
    batch_size: int = 4096
    peak_learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    seed: int = 20
    threads: int = 1


@dataclass(frozen=True)
class Progress:
    """One finished epoch of one run."""

    epoch: int
    epochs: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Sample:
    """Voxels of one patient: features (n, feature) and the share of each that the expert outlined (n, 1)."""

    patient_id: str
    features: torch.Tensor
    outline: torch.Tensor


Report = Callable[[Progress], None]


def sample(patient: Patient, recipe: Recipe) -> Sample:
    """Voxels of a patient's variants; the same whichever other patients are fitted."""
    digest = hashlib.sha256(f"{recipe.seed}:{patient.patient_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    network = VoxelNetwork(recipe.hidden)
    features, outlines = [], []
    for _ in range(recipe.variants):
        channels, outline = training_pair(patient, rng)
        found = network.features(channels[None])
        chosen = torch.from_numpy(rng.choice(outline.numel(), recipe.voxels, replace=False))
        features.append(found.reshape(-1, found.shape[-1])[chosen])
        outlines.append(outline.reshape(-1, 1)[chosen])
    return Sample(patient.patient_id, torch.cat(features), torch.cat(outlines))


def samples(patients: Iterable[Patient], recipe: Recipe) -> list[Sample]:
    """Voxels of every patient."""
    torch.set_num_threads(recipe.threads)
    return [sample(one, recipe) for one in patients]


def fit(train: Sequence[Sample], recipe: Recipe, report: Report) -> VoxelNetwork:
    """Train from random weights; returns the last epoch's weights, never the best one's."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    rng = np.random.default_rng(recipe.seed)
    features, outline = torch.cat([one.features for one in train]), torch.cat([one.outline for one in train])
    network = VoxelNetwork(recipe.hidden)
    network.mean.copy_(features.mean(0))
    network.scale.copy_(features.std(0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay)
    steps = max(1, len(features) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_learning_rate, total_steps=max(2, steps * recipe.epochs), pct_start=0.15
    )
    for epoch in range(1, recipe.epochs + 1):
        started = time.monotonic()
        losses = []
        order = torch.from_numpy(rng.permutation(len(features)))
        for step in range(steps):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            loss = functional.binary_cross_entropy_with_logits(network.decide(features[chosen]), outline[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        report(Progress(epoch, recipe.epochs, float(np.mean(losses)), time.monotonic() - started))
    return network.eval()
