"""From images to an ensemble: fit each fold, keep what is finished, take up where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet

from pipelines.train.common import DataError, save_state
from pipelines.train.pneumonia.data import Part, stratified_folds
from pipelines.train.pneumonia.fit import NETWORK_DEF, Recipe, Report, fit_member
from services.imaging.pneumonia_network import build_member


def fit_ensemble(
    train: Part, recipe: Recipe, work: Path, report: Report, resume: bool, folds: Sequence[int] | None = None
) -> tuple[torch.nn.Module, ...]:
    """Fit one member for each fold; a finished one lies in `work` and with `resume` is not fitted again.

    Args:
        folds: fit only these (several processes may share the work); None fits all.

    Returns:
        All members, or none while some are missing.

    Raises:
        DataError: what lies in `work` was made by another recipe.
    """
    assigned = stratified_folds(train.labels, recipe.folds, recipe.seed)
    files = [work / f"member{fold}.pt" for fold in range(recipe.folds)]
    for fold in range(recipe.folds) if folds is None else folds:
        if resume and files[fold].is_file():
            continue
        member = fit_member(train.pick(np.flatnonzero(assigned != fold)), recipe, fold, report)
        save_state({"recipe": asdict(recipe), "weights": member.state_dict()}, files[fold])
    if not all(file.is_file() for file in files):
        return ()
    return tuple(_finished(file, recipe) for file in files)


def _finished(file: Path, recipe: Recipe) -> ResNet:
    content = torch.load(file, map_location="cpu", weights_only=True)
    if content["recipe"] != asdict(recipe):
        raise DataError(f"{file.name} was fitted by another recipe; use another --work folder, or leave out --resume")
    member = build_member(NETWORK_DEF)
    member.load_state_dict(content["weights"])
    return member.eval()
