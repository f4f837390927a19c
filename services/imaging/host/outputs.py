"""What a network's prediction becomes: masks with volumes, findings with probabilities, or maps."""

from __future__ import annotations

import re

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from services.clinical import codes
from services.clinical.codes import Concept
from services.imaging.findings import Value
from services.imaging.host.contract import Card, Finding, Map, Mask, Measurement, Result
from services.imaging.host.metadata import Metadata
from services.imaging.host.refusals import refused

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NOT_ESTIMATED = "not estimated: the package states no interval for its volumes"
_UNCALIBRATED = "not calibrated: the package states no temperature"
_BACKGROUND = re.compile(r"back\s*ground|^other", re.IGNORECASE)
#: Room for rounding around [0, 1] in float32.
_ROUNDING = 1e-4


def result_of(metadata: Metadata, card: Card, pred: MetaTensor) -> Result:
    """Reads `pred` (channel, space) as `network_data_format.outputs` declares it.

    Raises:
        RefusedError: `model.wrong_output` for another shape or values than declared.
    """
    declared = metadata.prediction
    if not torch.isfinite(pred).all():
        raise refused("not_finite", f"{card.name} gave values that are no numbers; nothing is reported from this run")
    parameters = {"model": f"{card.name}@{card.version}", "weights_sha256": card.weights_sha256}
    kind = {declared.type, declared.format}
    if kind & {"probabilities", "probability", "logits", "classification", "classes"}:
        return Result(findings=_findings(metadata, card, pred), parameters=parameters)
    if kind & {"segmentation", "labels", "label"}:
        masks = _masks(metadata, pred)
        return Result(masks=masks, measurements=tuple(map(_volume, masks)), parameters=parameters)
    array, affine = lps_zyx(pred)
    names = [declared.channel_def.get(str(i), f"channel {i}") for i in range(len(array))]
    maps = [Map(name, one, affine, metadata.osler.unit) for name, one in zip(names, array, strict=True)]
    return Result(maps=tuple(maps), parameters=parameters)


def lps_zyx(tensor: MetaTensor) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(c, z, y, x) and the affine to LPS mm of a MONAI tensor (c, x, y[, z]) in RAS."""
    array = np.asarray(tensor.detach().cpu(), dtype=np.float32)
    if array.ndim == 3:
        array = array[..., None]
    affine = _LPS_RAS @ np.asarray(tensor.affine.cpu(), dtype=np.float64)
    return np.ascontiguousarray(array.transpose(0, 3, 2, 1)), affine


def _concept(metadata: Metadata, label: int) -> Concept | None:
    found = metadata.osler.codes.get(str(label))
    return Concept(found.system, found.code, found.display) if found else None


def _labels(metadata: Metadata) -> dict[int, str]:
    """Label value -> name; background left out."""
    declared = metadata.prediction.channel_def or {
        str(i): f"label {i}" for i in range(1, metadata.prediction.num_channels)
    }
    return {int(number): name for number, name in declared.items() if not _BACKGROUND.search(name)}


def _masks(metadata: Metadata, pred: MetaTensor) -> tuple[Mask, ...]:
    array, affine = lps_zyx(pred)
    labels = _labels(metadata)
    if len(array) == 1:
        values = np.unique(array)
        known = {0, *labels}
        if not set(values.tolist()) <= {float(value) for value in known} and len(values) > len(known):
            raise refused("wrong_output", "a label map was declared, and the values are no labels")
        chosen = {label: array[0] == label for label in labels}
    else:
        if len(array) <= max(labels, default=0):
            raise refused("wrong_output", f"{len(array)} channels do not hold the labels up to {max(labels)}")
        if not np.isin(array, (0, 1)).all():
            # Scores of exclusive classes: postprocessing left the choice open.
            winner = array.argmax(axis=0)
            chosen = {label: winner == label for label in labels}
        else:
            chosen = {label: array[label] == 1 for label in labels}
    return tuple(Mask(labels[label], found, affine, _concept(metadata, label)) for label, found in chosen.items())


def _volume(mask: Mask) -> Measurement:
    voxel = abs(float(np.linalg.det(mask.affine_lps[:3, :3])))
    count = int(mask.array.sum())
    value = Value(codes.VOLUME, count * voxel, codes.UNIT_MM3, "voxels of the mask times voxel volume", _NOT_ESTIMATED)
    return Measurement(value, mask.name)


def _findings(metadata: Metadata, card: Card, pred: MetaTensor) -> tuple[Finding, ...]:
    scores = np.asarray(pred.detach().cpu(), dtype=np.float64).reshape(-1)
    declared = metadata.prediction
    if scores.size != declared.num_channels:
        raise refused("wrong_output", f"{scores.size} class scores, {declared.num_channels} declared")
    temperature = metadata.osler.temperature
    if {declared.type, declared.format} & {"logits"}:
        scaled = scores / (temperature or 1.0)
        if scores.size == 1:
            chances = 1 / (1 + np.exp(-scaled))
        else:
            exponential = np.exp(scaled - scaled.max())
            chances = exponential / exponential.sum()
    elif scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
        raise refused("wrong_output", f"{card.name} declares probabilities and gives values outside 0 to 1")
    else:
        chances = np.clip(scores, 0, 1)
    calibrated = temperature is not None
    found = []
    for index, chance in enumerate(chances):
        name = declared.channel_def.get(str(index), f"class {index}")
        concept = _concept(metadata, index) or Concept("urn:osler:model-class", f"{card.name}-{index}", name)
        note = "" if calibrated else _UNCALIBRATED
        found.append(Finding(concept, float(chance), calibrated, note))
    return tuple(found)
