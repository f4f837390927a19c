"""The PET lesion package as an analysis behind the host's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.clinical import codes
from services.clinical.volume import ImageVolume
from services.imaging.findings import Interval, Value
from services.imaging.host.contract import Card, Checkpoint, Inputs, Map, Mask, Measurement, Result, ignore_progress
from services.imaging.host.model import LoadedModel
from services.imaging.pet_lesion import (
    LesionOutline,
    PetLesionModel,
    outline_at_click,
    outline_automatically,
    outline_in_box,
)
from services.imaging.pet_lesion_network import Box
from services.platform.errors import ConfigurationError, RefusedError

#: Units in which a series holds SUV by body weight: UCUM with and without annotation.
SUV_UNITS = (codes.UNIT_SUV_BW, "g/mL{SUVbw}", "g/ml", "g/mL", "{SUVbw}g/ml")


class PetLesionAnalysis:
    """`pet_lesion` behind the contract; `Result.detail` is its `LesionOutline`.

    Parameters, in LPS mm: `box` "x1,x2,y1,y2,z1,z2" or `click` "x,y,z"; neither outlines the region of most uptake.
    `suv_per_unit`: what stored values are multiplied with, where the series is not in SUV.
    """

    def __init__(self, card: Card, model: PetLesionModel) -> None:
        self._card = card
        self._model = model

    @property
    def card(self) -> Card:
        return self._card

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Raises RefusedError `pet_lesion.*`."""
        volume = inputs.volume("image")
        suv = volume.array * np.float32(_scale(inputs, volume))
        x, y, z = volume.spacing_mm
        checkpoint(0, 1)
        if "box" in inputs.parameters:
            box = box_from_lps(_numbers(inputs, "box", 6), volume.affine_lps)
            found = outline_in_box(self._model, suv, (z, y, x), box)
        elif "click" in inputs.parameters:
            voxel = voxel_from_lps(_numbers(inputs, "click", 3), volume.affine_lps)
            found = outline_at_click(self._model, suv, (z, y, x), voxel)
        else:
            found = outline_automatically(self._model, suv, (z, y, x))
        checkpoint(1, 1)
        return _result(self._card, found, volume.affine_lps)


def _scale(inputs: Inputs, volume: ImageVolume) -> float:
    stated = inputs.parameters.get("suv_per_unit")
    if stated is None and volume.unit in SUV_UNITS:
        return 1.0
    try:
        factor = float(stated) if stated is not None else 0.0
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise RefusedError(
            "pet_lesion.not_suv",
            f"the series holds {volume.unit!r}, not SUV by body weight",
            missing=["suv_per_unit, or a series in g/ml{SUVbw}"],
            remedy="Give `suv_per_unit`, the factor from stored values to SUV.",
        )
    return factor


def _numbers(inputs: Inputs, name: str, count: int) -> list[float]:
    text = str(inputs.parameters[name])
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise RefusedError(
            f"pet_lesion.{name}", f"{name} takes {count} numbers in LPS mm with commas between", missing=[name]
        )
    return values


def box_from_lps(faces: list[float], affine_lps: NDArray[np.float64]) -> Box:
    """The voxel box that holds a box along the patient's axes: (x1, x2, y1, y2, z1, z2) in LPS mm."""
    corners = np.array(np.meshgrid(faces[0:2], faces[2:4], faces[4:6], indexing="ij")).reshape(3, -1)
    index = np.linalg.solve(affine_lps[:3, :3], corners - affine_lps[:3, 3:4]) + 0.5
    low, high = index.min(axis=1), index.max(axis=1)
    return Box((float(low[2]), float(low[1]), float(low[0])), (float(high[2]), float(high[1]), float(high[0])))


def voxel_from_lps(point: list[float], affine_lps: NDArray[np.float64]) -> tuple[int, int, int]:
    """The voxel (z, y, x) that holds a point in LPS mm."""
    i, j, k = np.rint(np.linalg.solve(affine_lps[:3, :3], np.array(point) - affine_lps[:3, 3])).astype(int)
    return int(k), int(j), int(i)


def _result(card: Card, found: LesionOutline, affine: NDArray[np.float64]) -> Result:
    method = f"{card.name}@{card.version}, {found.mode}"
    interval = Interval(*found.interval_mm3, found.interval_level)
    volume = Value(codes.VOLUME, found.volume_mm3, codes.UNIT_MM3, method, interval)
    faces = ",".join(f"{v:.2f}" for pair in zip(found.box.start, found.box.stop, strict=True) for v in pair)
    return Result(
        masks=(Mask("lesion", found.mask_zyx, affine, codes.NEOPLASM),),
        maps=(Map("chance of lesion", found.probability_zyx, affine, "1"),),
        measurements=(Measurement(volume, "lesion"),),
        cautions=found.cautions,
        parameters={
            "model": f"{card.name}@{card.version}",
            "weights_sha256": card.weights_sha256,
            "mode": found.mode,
            "box_zyx_voxels": faces,
        },
        detail=found,
    )


def model_of(loaded: LoadedModel) -> PetLesionModel:
    """Network and figures of a loaded package. Raises ConfigurationError for a package of another model."""
    osler: dict[str, Any] = dict(loaded.package.raw_metadata).get("osler", {})
    if loaded.network.module is None:
        raise ConfigurationError("pet-lesion bundle: the weights are no TorchScript program")
    try:
        intervals = osler["volume_interval"]
        low, high = osler["volume_mm3"]
        return PetLesionModel(
            network=loaded.network.module,
            half_width={mode: float(one["relative_half_width"]) for mode, one in intervals.items()},
            level=float(intervals["box"]["level"]),
            volume_mm3=(float(low), float(high)),
            unsure=float(osler["unsure_limit"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"pet-lesion bundle: metadata.json lacks what it must state ({error})") from error


def build(loaded: LoadedModel) -> PetLesionAnalysis:
    """The adapter named "pet_lesion"."""
    return PetLesionAnalysis(loaded.card, model_of(loaded))
