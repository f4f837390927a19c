"""Writing and reading the MONAI bundle: TorchScript ensemble, configuration, metadata, manifest and model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipelines.train.common import DataError, sha256_of, write_json
from pipelines.train.pet_lesion.card import write_card
from pipelines.train.pet_lesion.data import Patient
from pipelines.train.pet_lesion.evaluate import evaluate, write_figures
from pipelines.train.pet_lesion.fit import Recipe
from pipelines.train.pet_lesion.run import held_out
from services.imaging.host import manifest, warmup
from services.imaging.host.model import load
from services.imaging.host.package import read_package
from services.imaging.pet_lesion import PetLesionModel
from services.imaging.pet_lesion_network import CHANNELS, GRID_ZYX, Ensemble, members_of

NAME = "pet-lesion"
VERSION = "1.0.0"
LICENSE = "CC BY 3.0"
WEIGHTS_FILE = "models/model.ts"
SETTINGS = Path(__file__).with_name("settings.json")
SOURCE = "python -m pipelines.train.pet_lesion"
Track = Callable[[Iterable[Patient]], Iterable[Patient]]


def alone(member: torch.nn.Module) -> PetLesionModel:
    """One member as a model to take figures with, before there are intervals to state."""
    return PetLesionModel(member, dict.fromkeys(("box", "click", "automatic"), 0.0), 0.9, (0.0, 1e9), 1e9)


def cross_validate(
    members: Sequence[torch.nn.Module], patients: Sequence[Patient], out: Path, track: Track
) -> dict[str, Any]:
    """Each patient by the member that never saw it; writes `held_out.json` and `.csv` to `out`; returns the summary."""
    runs = [(fold, alone(member), held_out(patients, fold)) for fold, member in enumerate(members)]
    return write_figures(evaluate(runs, track), out)


def write_bundle(
    out: Path, members: Sequence[torch.nn.Module], patients: Sequence[Patient], recipe: Recipe, track: Track
) -> dict[str, Any]:
    """Write the whole bundle; returns the cross-validated figures."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    _write_weights(out / WEIGHTS_FILE, members)
    summary = cross_validate(members, patients, out / "docs", track)
    write_json(out / "configs" / "inference.json", settings["inference"])
    volumes = [float(one.mask.sum()) * one.voxel_mm3 for one in patients]
    metadata = {
        **settings["metadata"],
        "name": NAME,
        "version": VERSION,
        "license": LICENSE,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "eval_metrics": {
            f"median_dice_{way}": round(one["dice"]["median"], 4) for way, one in summary["model"].items()
        },
        "osler": {
            **settings["osler"],
            "weights_file": WEIGHTS_FILE,
            "weights_sha256": sha256_of(out / WEIGHTS_FILE),
            "volume_interval": summary["interval"],
            "unsure_limit": summary["unsure_limit"],
            "volume_mm3": [min(volumes), max(volumes)],
            "training_patients": len(patients),
            "recipe": asdict(recipe),
        },
    }
    write_json(out / "configs" / "metadata.json", metadata)
    (out / "LICENSE").write_text(settings["license_note"].rstrip() + "\n", encoding="utf-8")
    write_card(out / "docs" / "README.md", metadata, summary)
    manifest.write(out, SOURCE)
    package = read_package(out)
    manifest.write(out, SOURCE, warmup.declare(package, load(package).network))
    return summary


def _write_weights(path: Path, members: Sequence[torch.nn.Module]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, CHANNELS, *GRID_ZYX)
    traced = [torch.jit.trace(member.eval(), example) for member in members]  # type: ignore[no-untyped-call]
    ensemble = Ensemble(traced).eval()
    for parameter in ensemble.parameters():
        parameter.requires_grad_(False)
    torch.jit.save(torch.jit.script(ensemble), path)  # type: ignore[no-untyped-call]


def read_members(bundle: Path) -> list[torch.nn.Module]:
    """The shipped members in order of their folds, hash checked. Raises DataError for another bundle."""
    loaded = load(read_package(bundle))
    if loaded.network.module is None or loaded.package.metadata.osler.analysis != "pet_lesion":
        raise DataError(f"{bundle} is no bundle of {SOURCE}")
    return members_of(loaded.network.module)
