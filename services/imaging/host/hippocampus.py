"""The hippocampus package as an analysis: its own measurements, intervals and cautions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.clinical import codes
from services.imaging.hippocampus import LABELS, HippocampusModel, HippocampusSegmentation, LabelMeasure, segment
from services.imaging.hippocampus_bundle import model_of
from services.imaging.host.contract import (
    Card,
    Checkpoint,
    Inputs,
    Interval,
    Map,
    Mask,
    Measurement,
    Result,
    Value,
    ignore_progress,
)
from services.imaging.host.model import LoadedModel
from services.imaging.whole_head_analysis import is_whole_head, whole_head_result

_PARTS = (
    ("hippocampus", codes.HIPPOCAMPUS, (LABELS["anterior"], LABELS["posterior"])),
    ("anterior", codes.HIPPOCAMPUS_ANTERIOR, (LABELS["anterior"],)),
    ("posterior", codes.HIPPOCAMPUS_POSTERIOR, (LABELS["posterior"],)),
)


class HippocampusAnalysis:
    """`services.imaging.hippocampus` behind the contract; `Result.detail` is its `HippocampusSegmentation`."""

    def __init__(self, card: Card, model: HippocampusModel) -> None:
        self._card = card
        self._model = model

    @property
    def card(self) -> Card:
        return self._card

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """A crop around one hippocampus, or a whole head with both. Raises RefusedError `hippocampus.*`, `whole_head.*`."""
        volume = inputs.volume("image")
        checkpoint(0, 1)
        if is_whole_head(volume):
            both = whole_head_result(self._card, self._model, volume)
            checkpoint(1, 1)
            return both
        found = segment(self._model, volume.array, volume.affine_lps)
        checkpoint(1, 1)
        return _result(self._card, found, volume.affine_lps)


def build(loaded: LoadedModel) -> HippocampusAnalysis:
    """The adapter named "hippocampus". Raises ConfigurationError for metadata of another model."""
    return HippocampusAnalysis(loaded.card, model_of(loaded))


def _result(card: Card, found: HippocampusSegmentation, affine: NDArray[np.float64]) -> Result:
    method = f"{card.name}@{card.version}"
    measures = {"hippocampus": found.total, "anterior": found.anterior, "posterior": found.posterior}
    return Result(
        masks=tuple(Mask(name, np.isin(found.labels_zyx, values), affine, concept) for name, concept, values in _PARTS),
        maps=(Map("predictive entropy (nat)", found.entropy_zyx, affine, "1"),),
        measurements=tuple(Measurement(_volume(measures[name], method), name) for name, _, _ in _PARTS),
        cautions=(*(caution.message for caution in found.cautions), "the side (left or right) is not known"),
        parameters={"model": method, "weights_sha256": card.weights_sha256},
        detail=found,
    )


def _volume(part: LabelMeasure, method: str) -> Value:
    interval = Interval(*part.interval_mm3, part.interval_level)
    return Value(codes.VOLUME, part.volume_mm3, codes.UNIT_MM3, method, interval)
