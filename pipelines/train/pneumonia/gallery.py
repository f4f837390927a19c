"""The images that are furthest from their label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.train.pneumonia.calibrate import PREVALENCE, chances
from pipelines.train.pneumonia.data import Part
from pipelines.train.pneumonia.evaluate import Fitted, votes

NAMES = ("normal", "pneumonia")


def furthest(stated: NDArray[np.float64], labels: NDArray[np.float64], count: int) -> NDArray[np.int_]:
    """Indices of the `count` images of each class whose probability is furthest from their label, worst first."""
    chosen = []
    for value in (0, 1):
        members = np.flatnonzero(labels == value)
        chosen.append(members[np.argsort(-np.abs(stated[members] - value), kind="stable")][:count])
    return np.concatenate(chosen)


def write_gallery(model: Fitted, part: Part, out: Path, count: int) -> NDArray[np.int_]:
    """One picture, `gallery.png`, of the furthest images of each class; returns their indices in the part."""
    from matplotlib.figure import Figure

    labels = part.labels.double().numpy()
    stated = chances(votes(model.members, part.images).mean(axis=0), model.temperature, model.bias, PREVALENCE)
    chosen = furthest(stated, labels, count)
    figure = Figure(figsize=(1.6 * count, 4.2))
    columns = [0, 0]
    for index in chosen:
        row = int(labels[index])
        columns[row] += 1
        axes = figure.add_subplot(2, count, row * count + columns[row])
        axes.imshow(part.images[index, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{NAMES[row]}\nstated {stated[index]:.2f}", fontsize=8)
        axes.axis("off")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "gallery.png", dpi=150)
    return chosen
