"""Figures: discrimination, calibration, subgroups, and what a worse picture costs; by the weights that serve patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch.nn import functional

from pipelines.train.pneumonia.calibrate import (
    PREVALENCE,
    chances,
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
)
from pipelines.train.pneumonia.data import Part, stratified_folds
from pipelines.train.pneumonia.fit import Recipe
from services.imaging.pneumonia_network import member_logits

Floats = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class Fitted:
    """Members, their calibration, and what it rests on: log-odds of the training images by who never saw them."""

    members: tuple[torch.nn.Module, ...]
    temperature: float
    bias: float
    held_out_logits: Floats


def auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve: the chance that a case scores higher than a control, ties counting half."""
    cases = labels == 1
    ranks = rankdata(scores)
    return float((ranks[cases].sum() - cases.sum() * (cases.sum() + 1) / 2) / (cases.sum() * (~cases).sum()))


def with_interval(statistic: Callable[[Floats, Floats], float], scores: Floats, labels: Floats) -> dict[str, float]:
    """A statistic with its 95 % bootstrap interval; cases and controls are resampled apart."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == value) for value in (0, 1)]
    values = []
    for _ in range(RESAMPLES):
        picked = np.concatenate([rng.choice(group, len(group)) for group in groups])
        values.append(statistic(scores[picked], labels[picked]))
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": statistic(scores, labels), "ci95_low": float(low), "ci95_high": float(high)}


def held_out_logits(members: tuple[torch.nn.Module, ...], train: Part, recipe: Recipe) -> Floats:
    """Log-odds of each training image by the one member that never saw it."""
    assigned = stratified_folds(train.labels, recipe.folds, recipe.seed)
    logits = np.zeros(len(train.labels))
    for fold, member in enumerate(members):
        own = np.flatnonzero(assigned == fold)
        logits[own] = member_logits(member, train.pick(own).images).double().numpy()
    return logits


def fitted(members: tuple[torch.nn.Module, ...], train: Part, recipe: Recipe) -> Fitted:
    """Members with temperature and bias from the training part alone."""
    logits = held_out_logits(members, train, recipe)
    temperature, bias = fit_temperature(logits, train.labels.double().numpy())
    return Fitted(members, temperature, bias, logits)


def votes(members: tuple[torch.nn.Module, ...], images: torch.Tensor) -> Floats:
    """Log-odds at equal prevalence (member, n)."""
    return np.stack([member_logits(one, images).double().numpy() for one in members])


def summarise(model: Fitted, train: Part, part: Part, recipe: Recipe) -> dict[str, Any]:
    """What the card reports of a part that no member saw, and of the training part by cross-validation."""
    labels = part.labels.double().numpy()
    each = votes(model.members, part.images)
    logits = each.mean(axis=0)
    stated = chances(logits, model.temperature, model.bias, PREVALENCE)
    own = train.labels.double().numpy()
    crossed = cross_fitted(model.held_out_logits, own, stratified_folds(train.labels, recipe.folds, recipe.seed))
    return {
        "images": len(labels),
        "share_pneumonia": float(labels.mean()),
        "auc": with_interval(auc, logits, labels),
        "auc_single_members": [auc(one, labels) for one in each],
        "calibration": _calibration(stated, labels),
        "uncalibrated_ece": expected_calibration_error(chances(logits, 1.0, 0.0, PREVALENCE), labels),
        "at_half": _at(stated, labels, 0.5),
        "by_exposure": _thirds(part, logits, labels, part.images.mean(dim=(1, 2, 3)).numpy()),
        "by_contrast": _thirds(part, logits, labels, part.images.std(dim=(1, 2, 3)).numpy()),
        "by_sharpness": _thirds(part, logits, labels, _sharpness(part.images)),
        "worse_pictures": {name: _worse(model, change(part.images), labels) for name, change in CHANGES.items()},
        "disagreement_share_above_limit": float((each.std(axis=0) > disagreement(model, train)).mean()),
        "cross_validation": {
            "images": len(own),
            "share_pneumonia": float(own.mean()),
            "auc": with_interval(auc, model.held_out_logits, own),
            "calibration": _calibration(crossed, own),
        },
        "temperature": model.temperature,
        "bias": model.bias,
        "prevalence": PREVALENCE,
    }


def disagreement(model: Fitted, train: Part) -> float:
    """Spread over the members that 97.5 % of the training images stay below; of four members each image was fitted by."""
    return float(np.quantile(votes(model.members, train.images).std(axis=0), 0.975))


def _calibration(stated: Floats, labels: Floats) -> dict[str, Any]:
    return {
        "ece": with_interval(expected_calibration_error, stated, labels),
        "brier": float(np.mean((stated - labels) ** 2)),
        "mean_stated": float(stated.mean()),
        "mean_observed": float(labels.mean()),
    }


def _at(stated: Floats, labels: Floats, threshold: float) -> dict[str, Any]:
    def sensitivity(p: Floats, y: Floats) -> float:
        return float((p[y == 1] >= threshold).mean())

    def specificity(p: Floats, y: Floats) -> float:
        return float((p[y == 0] < threshold).mean())

    return {
        "sensitivity": with_interval(sensitivity, stated, labels),
        "specificity": with_interval(specificity, stated, labels),
        "accuracy": with_interval(lambda p, y: float(((p >= threshold) == (y == 1)).mean()), stated, labels),
    }


def _thirds(part: Part, logits: Floats, labels: Floats, measure: NDArray[Any]) -> list[dict[str, Any]]:
    """AUC in thirds of a property of the picture: the set publishes no age, sex or machine to divide it by."""
    groups = []
    for indices in np.array_split(np.argsort(measure, kind="stable"), 3):
        chosen = labels[indices]
        known = 0 < chosen.sum() < len(chosen)
        groups.append(
            {
                "images": len(indices),
                "normal": int((chosen == 0).sum()),
                "from": float(measure[indices].min()),
                "to": float(measure[indices].max()),
                "auc": with_interval(auc, logits[indices], chosen) if known else None,
            }
        )
    return groups


def _sharpness(images: torch.Tensor) -> NDArray[np.float32]:
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    edges = functional.conv2d(images, kernel)
    return np.asarray((edges.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3)).clamp(min=1e-4)).numpy())


def _worse(model: Fitted, images: torch.Tensor, labels: Floats) -> dict[str, float]:
    logits = votes(model.members, images).mean(axis=0)
    stated = chances(logits, model.temperature, model.bias, PREVALENCE)
    return {"auc": auc(logits, labels), "ece": expected_calibration_error(stated, labels)}


def _blur(images: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(functional.pad(images, [1] * 4, mode="replicate"), 3, stride=1)


def _noise(images: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return images + 0.05 * torch.randn(images.shape, generator=generator)


def _turned(images: torch.Tensor) -> torch.Tensor:
    angle = torch.tensor(np.deg2rad(10.0))
    matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    grid = functional.affine_grid(
        torch.cat([matrix, torch.zeros(2, 1)], dim=1).float().expand(len(images), 2, 3),
        list(images.shape),
        align_corners=False,
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


#: What another X-ray room does to a picture.
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "darker (gamma 1.5)": lambda images: images**1.5,
    "brighter (gamma 0.67)": lambda images: images**0.67,
    "blurred (3x3 mean)": _blur,
    "noise (5 % of the range)": _noise,
    "turned by 10 degrees": _turned,
    "mirrored left to right": lambda images: images.flip(3),
}
