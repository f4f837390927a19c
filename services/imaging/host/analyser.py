"""The analysers of `services.imaging.analysers` behind the host's contract."""

from __future__ import annotations

import numpy as np

from services.clinical.volume import ImageVolume
from services.imaging.analysers import cards, registry
from services.imaging.analysers.contract import Image
from services.imaging.host.contract import (
    Card,
    Checkpoint,
    Inputs,
    Kind,
    Map,
    Mask,
    Measurement,
    Result,
    Role,
    TimeSeries,
    ignore_progress,
)

LICENCE = "Apache-2.0"


class AnalyserAnalysis:
    """One analyser. `Result.detail` is the analyser's own result, with its curves."""

    def __init__(self, own: cards.Card) -> None:
        self._own = own

    @property
    def card(self) -> Card:
        own = self._own
        return Card(
            name=own.name,
            version=own.version,
            kind=Kind.ANALYSER,
            task=own.title,
            intended_use=own.intended_use,
            limits=own.limits,
            citations=own.sources,
            licence=LICENCE,
            roles=tuple(Role(role.name, (), role.what, role.required) for role in own.inputs.values()),
            parameters={
                name: f"{option.what} (default {option.default} {option.unit})".replace(" )", ")")
                for name, option in own.options.items()
            },
        )

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Raises RefusedError `analysers.*` and `<name>.*`."""
        checkpoint(0, 1)
        images = {name: _image(given) for name, given in inputs.series.items()}
        found = registry.run(self._own.name, images, dict(inputs.parameters))
        checkpoint(1, 1)
        return Result(
            masks=tuple(
                Mask(name, np.asarray(region.mask, dtype=bool), region.affine_lps, region.concept)
                for name, region in found.regions.items()
            ),
            maps=tuple(
                Map(name, np.asarray(item.array, dtype=np.float32), item.affine_lps, item.unit, item.concept)
                for name, item in found.maps.items()
            ),
            measurements=tuple(Measurement(value) for value in found.values.values()),
            cautions=found.cautions,
            parameters={name: str(value) for name, value in found.parameters.items()},
            detail=found,
        )


def _image(given: ImageVolume | TimeSeries) -> Image:
    if isinstance(given, ImageVolume):
        return Image(given.array, given.affine_lps, given.unit)
    first = given.volumes[0]
    return Image(np.stack([volume.array for volume in given.volumes]), first.affine_lps, first.unit, given.times_s)


def analyses() -> tuple[AnalyserAnalysis, ...]:
    """Every analyser, by its card."""
    return tuple(AnalyserAnalysis(own) for own in registry.cards())
