"""From patients to an ensemble: fit each fold, keep what is finished, take up where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from pipelines.train.common import DataError, save_state
from pipelines.train.pet_lesion.data import FOLDS, Patient, fold_of
from pipelines.train.pet_lesion.fit import Recipe, Report, fit, samples
from services.imaging.pet_lesion_network import VoxelNetwork


def held_out(patients: Sequence[Patient], fold: int) -> list[Patient]:
    """The patients of a fold; refuses a fold with nothing on one of its sides."""
    folds = fold_of(list(patients))
    own = [one for one in patients if folds[one.patient_id] == fold]
    if not own or len(own) == len(patients):
        raise DataError(
            f"fold {fold} of {FOLDS}: {len(own)} of {len(patients)} patients held out; both sides need some"
        )
    return own


def fit_folds(
    patients: Sequence[Patient],
    recipe: Recipe,
    work: Path,
    report: Callable[[int], Report],
    resume: bool,
    folds: Sequence[int] | None = None,
) -> tuple[torch.nn.Module, ...]:
    """Fit one network for each fold; a finished one lies in `work` and with `resume` is not fitted again.

    Args:
        folds: fit only these (several processes may share the work); None fits all.

    Returns:
        All networks, or none while some are missing.

    Raises:
        DataError: what lies in `work` was made by another recipe.
    """
    files = [work / f"fold{fold}.pt" for fold in range(FOLDS)]
    wanted = [fold for fold in (range(FOLDS) if folds is None else folds) if not (resume and files[fold].is_file())]
    voxels = samples(patients, recipe) if wanted else []
    for fold in wanted:
        names = {one.patient_id for one in held_out(patients, fold)}
        network = fit([one for one in voxels if one.patient_id not in names], recipe, report(fold))
        save_state({"recipe": asdict(recipe), "weights": network.state_dict()}, files[fold])
    return tuple(_finished(file, recipe) for file in files) if all(file.is_file() for file in files) else ()


def _finished(file: Path, recipe: Recipe) -> torch.nn.Module:
    content = torch.load(file, map_location="cpu", weights_only=True)
    if content["recipe"] != asdict(recipe):
        raise DataError(f"{file.name} was fitted by another recipe; use another --work folder, or leave out --resume")
    network = VoxelNetwork(recipe.hidden)
    network.load_state_dict(content["weights"])
    return network.eval()
