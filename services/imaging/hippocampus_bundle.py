"""The hippocampus model on disk: a MONAI bundle, read with its hash checked and without running code from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.imaging.host.model import LoadedModel, load
from services.imaging.host.package import read_package
from services.imaging.trust import familiarity
from services.platform.errors import ConfigurationError, RefusedError

#: Written by `python -m pipelines.trust`.
FAMILIARITY = Path("trust", "familiarity.npz")
Range = tuple[float, float]


@dataclass(frozen=True)
class ValidatedRange:
    """What the model was measured on, and how far beyond it an input is still taken.

    Attributes:
        extent_ras_mm: least and greatest field of view along Right, Anterior, Superior in the data.
        accepted_extent_ras_mm: outside this an input is refused.
        accepted_spacing_mm: outside this an input is refused.
        volume_mm3: least and greatest labelled volume in the data, for "anterior", "posterior" and "total".
        mean_entropy_nats: highest mean entropy over the hippocampus among held-out cases.
        anterior_offset_mm: least and greatest distance by which label 1 lies in front of label 2, along Anterior.
        orientation_ratio: lowest `OrientationReading.entropy_ratio` among held-out cases.
    """

    extent_ras_mm: tuple[Range, Range, Range]
    accepted_extent_ras_mm: tuple[Range, Range, Range]
    accepted_spacing_mm: Range
    volume_mm3: Mapping[str, Range]
    mean_entropy_nats: float
    anterior_offset_mm: Range
    orientation_ratio: float


@dataclass(frozen=True)
class VolumeCalibration:
    """Split-conformal half-width of a volume's interval, as a fraction of the volume, from held-out cases.

    Attributes:
        level: coverage aimed at, for example 0.9.
        relative_half_width: for "anterior", "posterior" and "total".
        cases: how many held-out cases it rests on.
    """

    level: float
    relative_half_width: Mapping[str, float]
    cases: int


@dataclass(frozen=True)
class HippocampusModel:
    """A loaded bundle: the network in evaluation mode and what its metadata says about its use.

    `familiar`: what known crops look like from inside the network, where the bundle brings it.
    """

    network: torch.nn.Module
    name: str
    version: str
    weights_sha256: str
    license: str
    validated: ValidatedRange
    calibration: VolumeCalibration
    familiar: familiarity.Reference | None = None


def _pair(values: list[float]) -> Range:
    low, high = values
    return float(low), float(high)


def _triple(values: list[list[float]]) -> tuple[Range, Range, Range]:
    right, anterior, superior = values
    return _pair(right), _pair(anterior), _pair(superior)


def _validated(section: Mapping[str, Any]) -> ValidatedRange:
    return ValidatedRange(
        extent_ras_mm=_triple(section["extent_ras_mm"]),
        accepted_extent_ras_mm=_triple(section["accepted_extent_ras_mm"]),
        accepted_spacing_mm=_pair(section["accepted_spacing_mm"]),
        volume_mm3={name: _pair(values) for name, values in section["volume_mm3"].items()},
        mean_entropy_nats=float(section["mean_entropy_nats"]),
        anterior_offset_mm=_pair(section["anterior_offset_mm"]),
        orientation_ratio=float(section["orientation_ratio"]),
    )


def model_of(loaded: LoadedModel, *, familiar: bool = True) -> HippocampusModel:
    """The model of a package that the host has loaded, with its familiarity reference unless told not to.

    Raises ConfigurationError for metadata of another model, or a reference made for other weights.
    """
    metadata, osler = loaded.package.raw_metadata, loaded.package.raw_metadata.get("osler", {})
    if loaded.network.module is None:
        raise ConfigurationError("hippocampus bundle: its network must be a state dict or TorchScript")
    try:
        calibration = osler["volume_interval"]
        return HippocampusModel(
            network=loaded.network.module,
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            weights_sha256=loaded.card.weights_sha256,
            license=loaded.card.licence,
            validated=_validated(osler["validated"]),
            calibration=VolumeCalibration(
                level=float(calibration["level"]),
                relative_half_width={k: float(v) for k, v in calibration["relative_half_width"].items()},
                cases=int(calibration["cases"]),
            ),
            familiar=_familiar(loaded) if familiar else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"hippocampus bundle: metadata, network and weights do not fit: {error}") from error


def _familiar(loaded: LoadedModel) -> familiarity.Reference | None:
    path = loaded.package.folder / FAMILIARITY
    return familiarity.read(path, loaded.card.weights_sha256) if path.is_file() else None


def load_bundle(path: Path | str, *, familiar: bool = True) -> HippocampusModel:
    """Load the bundle folder (`configs/`, `models/`) at `path` on the CPU, through the model host.

    Raises:
        ConfigurationError: a file is missing or unreadable, the weights' SHA-256 is not the recorded one, or they do
            not fit the network that the configuration describes.
    """
    try:
        return model_of(load(read_package(Path(path))), familiar=familiar)
    except RefusedError as error:
        raise ConfigurationError(f"hippocampus bundle: {error.message}. {error.remedy}") from error
