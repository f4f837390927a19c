"""The patients with the lowest Dice, drawn: uptake, the expert's outline and the network's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipelines.train.pet_lesion.bundle import alone
from pipelines.train.pet_lesion.data import Patient
from pipelines.train.pet_lesion.evaluate import dice
from pipelines.train.pet_lesion.modes import in_box
from pipelines.train.pet_lesion.run import held_out


def write_gallery(members: Sequence[torch.nn.Module], patients: Sequence[Patient], out: Path, count: int) -> list[str]:
    """Write `gallery.png` with the middle slices of the `count` lowest patients in their boxes; returns their ids."""
    from matplotlib.figure import Figure

    found = []
    for fold, member in enumerate(members):
        for one in held_out(patients, fold):
            mask = in_box(alone(member), one)
            found.append((dice(mask, one.mask), one, mask))
    found.sort(key=lambda row: (row[0], row[1].patient_id))
    figure = Figure(figsize=(2.6 * count, 5.6))
    for column, (score, one, mask) in enumerate(found[:count]):
        for row, axis in enumerate((0, 1)):
            axes = figure.add_subplot(2, count, 1 + row * count + column)
            middle = int(np.median(np.nonzero(one.mask)[axis]))
            picture, truth, drawn = (np.take(part, middle, axis) for part in (one.suv, one.mask, mask))
            spacing = [edge for n, edge in enumerate(one.spacing_mm) if n != axis]
            axes.imshow(picture, cmap="gray_r", vmin=0, vmax=5, aspect=spacing[0] / spacing[1])
            axes.contour(truth, [0.5], colors="tab:green", linewidths=1)
            axes.contour(drawn.astype(float), [0.5], colors="tab:red", linewidths=1)
            axes.set_title(f"{one.patient_id}  Dice {score:.2f}" if row == 0 else "", fontsize=8)
            axes.axis("off")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "gallery.png", dpi=120)
    return [one.patient_id for _, one, _ in found[:count]]
