"""Writing the MONAI bundle: weights, configuration, metadata and model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.train.common import sha256_of, write_json
from pipelines.train.hippocampus.card import write_card
from pipelines.train.hippocampus.data import Case
from pipelines.train.hippocampus.evaluate import (
    INTERVAL_LEVEL,
    PARTS,
    CaseFigures,
    conformal_half_width,
    write_figures,
)
from pipelines.train.hippocampus.fit import NETWORK_DEF, Recipe
from services.imaging.hippocampus_bundle import HippocampusModel, ValidatedRange, VolumeCalibration
from services.imaging.hippocampus_network import build_network

NAME = "hippocampus"
VERSION = "1.0.0"
LICENSE = "CC BY-SA 4.0"
WEIGHTS_FILE = "models/model.pt"
SETTINGS = Path(__file__).with_name("settings.json")


@dataclass(frozen=True)
class Shipped:
    """Which weights the bundle carries and which weights its figures come from.

    `fitted_on` says it in words. `evaluated` pairs each held-out fold with the file of the weights that never saw it.
    """

    fitted_on: str
    evaluated: tuple[tuple[int, str], ...]


def _settings() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8"))
    return content


def _spread(values: Sequence[float]) -> list[float]:
    return [float(np.floor(min(values))), float(np.ceil(max(values)))]


def validated_range(cases: Sequence[Case], figures: Sequence[CaseFigures]) -> dict[str, Any]:
    """The `osler.validated` section: the data's own ranges, the limits of acceptance, the held-out entropy."""
    volumes = {
        "anterior": [float((c.label == 1).sum()) for c in cases],
        "posterior": [float((c.label == 2).sum()) for c in cases],
        "total": [float((c.label > 0).sum()) for c in cases],
    }
    offsets = [
        float(np.argwhere(c.label == 1)[:, 1].mean() - np.argwhere(c.label == 2)[:, 1].mean())
        for c in cases
        if (c.label == 1).any() and (c.label == 2).any()
    ]
    accepted = _settings()["accepted"]
    return {
        "extent_ras_mm": [_spread([c.image.shape[axis] for c in cases]) for axis in range(3)],
        "accepted_extent_ras_mm": accepted["extent_ras_mm"],
        "accepted_spacing_mm": accepted["spacing_mm"],
        "volume_mm3": {name: _spread(values) for name, values in volumes.items()},
        "mean_entropy_nats": max((f.mean_entropy_nats for f in figures if not f.refused), default=1.1),
        "anterior_offset_mm": _spread(offsets) if offsets else [0.0, 40.0],
        "orientation_ratio": min((f.orientation_ratio for f in figures if not f.refused), default=1.0),
    }


def model_in_memory(network: torch.nn.Module, cases: Sequence[Case]) -> HippocampusModel:
    """A model to take held-out figures with, before there is a calibration to write down."""
    validated = validated_range(cases, [])
    return HippocampusModel(
        network=network.eval(),
        name=NAME,
        version=VERSION,
        weights_sha256="",
        license=LICENSE,
        validated=ValidatedRange(
            extent_ras_mm=validated["extent_ras_mm"],
            accepted_extent_ras_mm=validated["accepted_extent_ras_mm"],
            accepted_spacing_mm=validated["accepted_spacing_mm"],
            volume_mm3=validated["volume_mm3"],
            mean_entropy_nats=validated["mean_entropy_nats"],
            anterior_offset_mm=validated["anterior_offset_mm"],
            orientation_ratio=validated["orientation_ratio"],
        ),
        calibration=VolumeCalibration(INTERVAL_LEVEL, dict.fromkeys(PARTS, 0.0), 0),
    )


def fold_model(bundle: Path, weights_file: str, cases: Sequence[Case]) -> HippocampusModel:
    """The model of one fold's weights inside a bundle folder."""
    network = build_network(NETWORK_DEF)
    network.load_state_dict(torch.load(bundle / weights_file, map_location="cpu", weights_only=True))
    return model_in_memory(network, cases)


def write_bundle(
    out: Path, cases: Sequence[Case], figures: Sequence[CaseFigures], recipe: Recipe, shipped: Shipped
) -> dict[str, Any]:
    """Write everything but the weights, which lie in `out` already; returns the summary of the figures."""
    configs = out / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    summary = write_figures(figures, out / "docs")
    settings = _settings()
    write_json(configs / "inference.json", {**settings["inference"], "network_def": NETWORK_DEF})
    metadata = {
        **settings["metadata"],
        "name": NAME,
        "version": VERSION,
        "license": LICENSE,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel")},
        "eval_metrics": {f"mean_dice_{part}": round(summary["dice"][part]["mean"], 4) for part in PARTS},
        "osler": _osler_section(out, cases, figures, recipe, shipped),
    }
    write_json(configs / "metadata.json", metadata)
    (out / "LICENSE").write_text(settings["license_note"].rstrip() + "\n", encoding="utf-8")
    write_card(out / "docs" / "README.md", metadata, summary)
    return summary


def _osler_section(
    out: Path, cases: Sequence[Case], figures: Sequence[CaseFigures], recipe: Recipe, shipped: Shipped
) -> Mapping[str, Any]:
    return {
        "weights_file": WEIGHTS_FILE,
        "weights_sha256": sha256_of(out / WEIGHTS_FILE),
        **_settings()["host"],
        "fitted_on": shipped.fitted_on,
        "evaluated": [
            {"fold": fold, "weights_file": name, "sha256": sha256_of(out / name)} for fold, name in shipped.evaluated
        ],
        "recipe": asdict(recipe),
        "training_cases": len(cases),
        "validated": validated_range(cases, figures),
        "volume_interval": {
            "level": INTERVAL_LEVEL,
            "method": "split conformal: relative error of the volume on held-out cases",
            "relative_half_width": {part: round(conformal_half_width(figures, part), 4) for part in PARTS},
            "cases": len(figures),
        },
    }
