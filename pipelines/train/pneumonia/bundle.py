"""Writing and reading the MONAI bundle: TorchScript ensemble, configuration, metadata, manifest and model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipelines.train.common import DataError, rounded, sha256_of, write_json
from pipelines.train.pneumonia.calibrate import PREVALENCE, log_odds
from pipelines.train.pneumonia.card import write_card
from pipelines.train.pneumonia.data import Part
from pipelines.train.pneumonia.evaluate import Fitted, disagreement, held_out_logits, summarise
from pipelines.train.pneumonia.fit import Recipe
from services.imaging.host import manifest, warmup
from services.imaging.host.model import load
from services.imaging.host.package import read_package
from services.imaging.pneumonia import calibration_of
from services.imaging.pneumonia_network import SIZE, Ensemble, members_of

NAME = "pneumonia"
VERSION = "1.0.0"
LICENSE = "CC BY 4.0"
WEIGHTS_FILE = "models/model.ts"
SETTINGS = Path(__file__).with_name("settings.json")
SOURCE = "python -m pipelines.train.pneumonia"


def write_bundle(out: Path, model: Fitted, train: Part, val: Part, recipe: Recipe) -> dict[str, Any]:
    """Write the whole bundle; returns the figures on the validation part."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    _write_weights(out / WEIGHTS_FILE, model)
    summary = summarise(model, train, val, recipe)
    write_json(out / "configs" / "inference.json", {**settings["inference"], "temperature": model.temperature})
    metadata = {
        **settings["metadata"],
        "name": NAME,
        "version": VERSION,
        "license": LICENSE,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "eval_metrics": {
            "validation_auc": round(summary["auc"]["value"], 4),
            "validation_ece": round(summary["calibration"]["ece"]["value"], 4),
        },
        "osler": {
            **settings["osler"],
            "weights_file": WEIGHTS_FILE,
            "weights_sha256": sha256_of(out / WEIGHTS_FILE),
            "temperature": model.temperature,
            "calibration": {
                "bias": model.bias,
                "prevalence": PREVALENCE,
                "disagreement": disagreement(model, train),
                "method": "temperature and bias on the training part, each image by the member that never saw it",
            },
            "recipe": asdict(recipe),
        },
    }
    write_json(out / "configs" / "metadata.json", metadata)
    (out / "LICENSE").write_text(settings["license_note"].rstrip() + "\n", encoding="utf-8")
    write_json(out / "docs" / "evaluation.json", rounded(summary))
    write_card(out / "docs" / "README.md", metadata, summary)
    seal(out)
    return summary


def seal(out: Path) -> None:
    """Record the SHA-256 of each file, and what the network gives on a synthetic input."""
    package = read_package(out)
    manifest.write(out, SOURCE)
    package = read_package(out)
    manifest.write(out, SOURCE, warmup.declare(package, load(package).network))


def _write_weights(path: Path, model: Fitted) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 1, SIZE, SIZE)
    traced = [torch.jit.trace(member.eval(), example) for member in model.members]  # type: ignore[no-untyped-call]
    ensemble = Ensemble(traced, model.temperature * (model.bias + log_odds(PREVALENCE))).eval()
    for parameter in ensemble.parameters():
        parameter.requires_grad_(False)
    torch.jit.save(torch.jit.script(ensemble), path)  # type: ignore[no-untyped-call]


def read_fitted(bundle: Path, train: Part) -> tuple[Fitted, Recipe]:
    """The shipped members and calibration, its hash checked, with the recipe that made them.

    Raises:
        DataError: the folder holds no such bundle.
    """
    loaded = load(read_package(bundle))
    metadata = dict(loaded.package.raw_metadata)
    if loaded.network.module is None or "recipe" not in metadata.get("osler", {}):
        raise DataError(f"{bundle} is no bundle of {SOURCE}")
    recipe = Recipe(**metadata["osler"]["recipe"])
    members = tuple(members_of(loaded.network.module))
    stated = calibration_of(metadata)
    logits = held_out_logits(members, train, recipe)
    return Fitted(members, stated.temperature, stated.bias, logits), recipe
