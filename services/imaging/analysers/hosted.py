"""Analysers behind the contract that learned models share (`services/imaging/host/contract.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.clinical.volume import ImageVolume
from services.imaging.analysers import cards, registry
from services.imaging.analysers.contract import Image
from services.imaging.analysers.contract import Result as Own
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

#: Inputs that are a series over time.
_DYNAMIC = {"ct", "segmentation", "velocity_l", "velocity_p", "velocity_s"}
_LICENCE = "as Osler"


@dataclass(frozen=True)
class Hosted:
    """One analyser as the host runs it."""

    name: str

    @property
    def card(self) -> Card:
        own = cards.card(self.name)
        return Card(
            name=own.name,
            version=own.version,
            kind=Kind.ANALYSER,
            task=own.title,
            intended_use=own.intended_use,
            limits=own.limits,
            citations=own.sources,
            licence=_LICENCE,
            roles=tuple(
                Role(role.name, (), role.what, role.required, role.name in _DYNAMIC) for role in own.inputs.values()
            ),
            parameters={name: f"{option.what}; {option.default}" for name, option in own.options.items()},
        )

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Raises RefusedError as `registry.run` does."""
        checkpoint(0, 1)
        units = {role.name: role.unit for role in cards.card(self.name).inputs.values()}
        images = {role: _image(series, units.get(role, "")) for role, series in inputs.series.items()}
        result = _result(registry.run(self.name, images, inputs.parameters))
        checkpoint(1, 1)
        return result


def analyses() -> tuple[Hosted, ...]:
    """Every analyser, for the host's registry."""
    return tuple(Hosted(name) for name in registry.NAMES)


def _image(series: ImageVolume | TimeSeries, wanted: str) -> Image:
    """A velocity series holds plain numbers in DICOM ("1"); the card's unit is what the role asks for."""
    if isinstance(series, ImageVolume):
        return Image(series.array, series.affine_lps, _unit(series, wanted))
    first = series.volumes[0]
    array = np.stack([volume.array for volume in series.volumes])
    return Image(array, first.affine_lps, _unit(first, wanted), series.times_s)


def _unit(volume: ImageVolume, wanted: str) -> str:
    return wanted if volume.unit == "1" and wanted and volume.modality in ("MR", "SEG") else volume.unit


def _result(own: Own) -> Result:
    parameters: Mapping[str, Any] = own.parameters
    return Result(
        masks=tuple(Mask(name, one.mask, one.affine_lps, one.concept) for name, one in own.regions.items()),
        maps=tuple(
            Map(name, np.asarray(one.array, np.float32), one.affine_lps, one.unit, one.concept)
            for name, one in own.maps.items()
        ),
        measurements=tuple(
            Measurement(value, name if name in own.regions else "") for name, value in own.values.items()
        ),
        cautions=own.cautions,
        parameters={name: str(value) for name, value in parameters.items()},
        detail=own,
    )
