"""From cases to a bundle: fit each fold, measure on what it never saw, write the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets.dynunet import DynUNet

from pipelines.train.common import save_state, save_weights, sha256_of
from pipelines.train.hippocampus.bundle import WEIGHTS_FILE, Shipped, fold_model, model_in_memory, write_bundle
from pipelines.train.hippocampus.data import FOLDS, Case, DataError, fold_of
from pipelines.train.hippocampus.evaluate import evaluate, write_figures
from pipelines.train.hippocampus.fit import NETWORK_DEF, Recipe, Report, fit
from services.imaging.hippocampus_network import build_network

Track = Callable[[Iterable[Case]], Iterable[Case]]


@dataclass(frozen=True)
class Split:
    """One fold: its number, what is fitted and what is held out."""

    fold: int
    train: tuple[Case, ...]
    held_out: tuple[Case, ...]


def split(cases: Sequence[Case], fold: int) -> Split:
    """Divide the cases for one fold; refuses a fold with nothing on one of its sides."""
    train = tuple(c for c in cases if fold_of(c.case_id) != fold)
    held_out = tuple(c for c in cases if fold_of(c.case_id) == fold)
    if not train or not held_out:
        raise DataError(f"fold {fold} of {FOLDS}: {len(train)} cases to fit, {len(held_out)} held out; both need some")
    return Split(fold, train, held_out)


def parse_folds(text: str) -> tuple[int, ...]:
    """`"all"` or numbers with commas, each below `FOLDS`.

    >>> parse_folds("all"), parse_folds("0,3")
    ((0, 1, 2, 3, 4), (0, 3))
    """
    if text == "all":
        return tuple(range(FOLDS))
    folds = tuple(sorted({int(part) for part in text.split(",") if part.strip().isdigit()}))
    if not folds or max(folds) >= FOLDS or len(folds) != len(text.split(",")):
        raise DataError(f'folds "{text}": write "all" or different numbers from 0 to {FOLDS - 1}, with commas')
    return folds


@dataclass(frozen=True)
class Work:
    """Where a run keeps what is finished and what is begun, so that it can be stopped; and where its network runs.

    Attributes:
        folder: None keeps nothing.
        resume: take up what lies there; otherwise it is made anew.
        device: as torch names it.
    """

    folder: Path | None
    resume: bool = False
    device: str = "cpu"


def _fitted(
    work: Work, name: str, recipe: Recipe, train: Sequence[Case], held_out: Sequence[Case], report: Report
) -> DynUNet:
    """One fit, or what an earlier run finished or began of it."""
    if work.folder is None:
        return fit(train, held_out, recipe, report, device=work.device)
    finished = work.folder / f"{name.replace(' ', '-')}.pt"
    checkpoint = finished.with_suffix(".begun")
    about = {"recipe": asdict(recipe), "cases": [case.case_id for case in train]}
    if work.resume and finished.is_file():
        content = torch.load(finished, map_location="cpu", weights_only=True)
        if {key: content[key] for key in about} != about:
            raise DataError(f"{finished.name} was fitted by another recipe or on other cases; leave out --resume")
        network = build_network(NETWORK_DEF)
        network.load_state_dict(content["weights"])
        return network.eval()
    if not work.resume:
        checkpoint.unlink(missing_ok=True)
    network = fit(train, held_out, recipe, report, checkpoint=checkpoint, device=work.device)
    save_state({**about, "weights": network.state_dict()}, finished)
    return network


def train_bundle(
    cases: Sequence[Case],
    folds: Sequence[int],
    out: Path,
    recipe: Recipe,
    report: Callable[[str], Report],
    track: Track,
    work: Work | None = None,
) -> dict[str, Any]:
    """Fit, measure, write; returns the summary of the held-out figures.

    With one fold, its own weights are shipped. With several, each fold's weights are kept beside those that ship,
    which come from a last fit on all cases. `work`: where finished fits and checkpoints lie; None keeps none.
    """
    splits = [split(cases, fold) for fold in folds]
    place = work or Work(None)
    alone = len(splits) == 1
    runs, evaluated = [], []
    for part in splits:
        name = f"fold {part.fold}"
        network = _fitted(place, name, recipe, part.train, part.held_out, report(name))
        name = WEIGHTS_FILE if alone else f"models/fold{part.fold}.pt"
        save_weights(network, out / name)
        runs.append((part.fold, model_in_memory(network, cases), part.held_out))
        evaluated.append((part.fold, name))
    if alone:
        fitted_on = (
            f"the {len(splits[0].train)} cases outside fold {folds[0]}; the figures are from the "
            f"{len(splits[0].held_out)} cases of that fold, by these same weights"
        )
    else:
        save_weights(_fitted(place, "all cases", recipe, cases, (), report("all cases")), out / WEIGHTS_FILE)
        fitted_on = (
            f"all {len(cases)} cases; the figures are from cross-validation, each case by weights that never saw it"
        )
    return write_bundle(out, cases, evaluate(runs, track), recipe, Shipped(fitted_on, tuple(evaluated)))


def evaluate_bundle(
    cases: Sequence[Case], bundle: Path, evaluated: Sequence[dict[str, Any]], out: Path, track: Track
) -> dict[str, Any]:
    """Measure again what a bundle's card reports, from its weights and the data; writes `held_out.json` and `.csv`."""
    runs = []
    for entry in evaluated:
        if sha256_of(bundle / entry["weights_file"]) != entry["sha256"]:
            raise DataError(f"{entry['weights_file']} is not the file whose SHA-256 metadata.json records")
        part = split(cases, entry["fold"])
        runs.append((part.fold, fold_model(bundle, entry["weights_file"], cases), part.held_out))
    return write_figures(evaluate(runs, track), out)
