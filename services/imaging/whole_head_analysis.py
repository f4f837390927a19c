"""Both hippocampi of a whole head as a result of the host's contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.clinical import codes
from services.clinical.codes import OSLER_MEASUREMENT, SCT, Concept
from services.clinical.volume import ImageVolume
from services.imaging.findings import Interval, Value
from services.imaging.hippocampus import LABELS, HippocampusModel
from services.imaging.host.contract import Card, Mask, Measurement, Result
from services.imaging.whole_head import SideResult, WholeHeadResult, measure_hippocampi, rules

BRAIN = Concept(SCT, "12738006", "Brain structure")
LEFT_HIPPOCAMPUS = Concept("urn:osler:structure", "hippocampus-left", "Left hippocampus")
RIGHT_HIPPOCAMPUS = Concept("urn:osler:structure", "hippocampus-right", "Right hippocampus")
PERCENT_OF_BRAIN = Concept(OSLER_MEASUREMENT, "percent-of-brain-volume", "Volume as a share of the brain's")
ASYMMETRY = Concept(OSLER_MEASUREMENT, "asymmetry-index", "Asymmetry, (right - left) / mean of both")
_NO_INTERVAL = "not estimated: no expert outlines of whole heads were at hand"
_DEPENDS = "not estimated: the errors of the two sides are not independent"


def is_whole_head(volume: ImageVolume) -> bool:
    """Whether the field of view can hold a head."""
    extent = np.sort(np.array(volume.spacing_mm) * np.array(volume.array.shape[::-1]))
    return bool((extent >= np.array(rules()["limits"]["extent_mm"])).all())


def whole_head_result(card: Card, model: HippocampusModel, volume: ImageVolume) -> Result:
    """Masks of both hippocampi and the brain, volumes, shares and asymmetry; `detail` is the `WholeHeadResult`.

    Raises:
        RefusedError: `whole_head.*`, `hippocampus.*`.
    """
    found = measure_hippocampi(model, volume.array, volume.affine_lps)
    method = f"{card.name}@{card.version}, whole head"
    masks, measurements = [], []
    for name, concept, side in (
        ("left", LEFT_HIPPOCAMPUS, found.left),
        ("right", RIGHT_HIPPOCAMPUS, found.right),
    ):
        masks += _masks(name, concept, side, volume.affine_lps)
        measurements += _measurements(name, side, method)
    brain = Value(codes.VOLUME, found.brain_mm3, codes.UNIT_MM3, "deepbet brain mask", _NO_INTERVAL)
    asymmetry = Value(ASYMMETRY, found.asymmetry_percent, "%", method, _DEPENDS)
    return Result(
        masks=(*masks, Mask("brain", found.brain_zyx, volume.affine_lps, BRAIN)),
        measurements=(*measurements, Measurement(brain, "brain"), Measurement(asymmetry)),
        cautions=(
            *found.cautions,
            "the intervals come from crops of the training set, not from whole heads",
            f"percentile for age {found.percentile}",
        ),
        parameters={
            "model": f"{card.name}@{card.version}",
            "weights_sha256": card.weights_sha256,
            "template_overlap": f"{found.overlap:.3f}",
        },
        detail=found,
    )


def _masks(side: str, concept: Concept, found: SideResult, affine: NDArray[np.float64]) -> list[Mask]:
    parts = [Mask(f"{side} hippocampus", found.labels_zyx > 0, affine, concept)]
    for name, part in (("anterior", codes.HIPPOCAMPUS_ANTERIOR), ("posterior", codes.HIPPOCAMPUS_POSTERIOR)):
        parts.append(Mask(f"{side} {name}", found.labels_zyx == LABELS[name], affine, part))
    return parts


def _measurements(side: str, found: SideResult, method: str) -> list[Measurement]:
    rows = []
    for name, part in (
        (f"{side} hippocampus", found.segmentation.total),
        (f"{side} anterior", found.segmentation.anterior),
        (f"{side} posterior", found.segmentation.posterior),
    ):
        interval = Interval(*part.interval_mm3, part.interval_level)
        rows.append(Measurement(Value(codes.VOLUME, part.volume_mm3, codes.UNIT_MM3, method, interval), name))
    share = Value(PERCENT_OF_BRAIN, found.percent_of_brain, "%", method, _NO_INTERVAL)
    return [*rows, Measurement(share, f"{side} hippocampus")]


__all__ = ["WholeHeadResult", "is_whole_head", "whole_head_result"]
