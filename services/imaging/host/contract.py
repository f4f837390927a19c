"""What a learned model and an analyser without learned weights have in common: `Analysis`.

An analysis names the series that it needs by role, takes volumes in patient geometry, and gives masks, maps,
measurements and findings with a probability. It reads and writes nothing: files, DICOM and Ray are its caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.clinical.codes import Concept
from services.clinical.volume import ImageVolume
from services.imaging.findings import Interval, Value
from services.platform.errors import RefusedError

__all__ = [
    "Analysis",
    "Card",
    "Checkpoint",
    "Finding",
    "Inputs",
    "Interval",
    "Kind",
    "Map",
    "Mask",
    "Measurement",
    "Result",
    "Role",
    "TimeSeries",
    "Value",
    "ignore_progress",
]


class Kind(StrEnum):
    """Where the numbers of an analysis come from."""

    LEARNED = "learned"
    ANALYSER = "analyser"


@dataclass(frozen=True)
class Role:
    """One series that an analysis takes.

    Attributes:
        name: key in `Inputs.series`, for example "image", "t1_post", "mask".
        modalities: DICOM Modality values accepted; empty takes any. A mask has the modality "SEG".
        description: for a reader, with the unit and contrast expected.
        required: an absent one is refused.
        time_series: a `TimeSeries` is expected, not one volume.
    """

    name: str
    modalities: tuple[str, ...] = ()
    description: str = ""
    required: bool = True
    time_series: bool = False


@dataclass(frozen=True)
class Card:
    """What a person must know before using an analysis.

    Attributes:
        name: stable and lower-case, `[a-z0-9-_]+`; `version`: semantic version.
        task: in words, for example "Hippocampus segmentation".
        finding: what is outlined or found, coded; None when outputs have codes of their own.
        limits: each a sentence on where it must not be used or is not validated.
        citations: papers, standards, data sets.
        weights_sha256: hexadecimal; empty for an analyser.
        parameters: name -> meaning and default, of what a caller may set in `Inputs.parameters`.
    """

    name: str
    version: str
    kind: Kind
    task: str
    intended_use: str
    limits: tuple[str, ...]
    citations: tuple[str, ...]
    licence: str
    roles: tuple[Role, ...]
    finding: Concept | None = None
    weights_sha256: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TimeSeries:
    """Volumes of one grid at several times, in seconds from the first; strictly increasing."""

    volumes: tuple[ImageVolume, ...]
    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(later > earlier for earlier, later in zip(self.times_s, self.times_s[1:], strict=False))
        if len(self.volumes) != len(self.times_s) or not self.volumes or not rising:
            raise RefusedError(
                "analysis.broken_time_series",
                f"{len(self.volumes)} volumes with {len(self.times_s)} times that must rise strictly",
                missing=["a time for each volume"],
                remedy="Check that every frame carries its own acquisition time.",
            )


@dataclass(frozen=True)
class Inputs:
    """Series by role, and the caller's parameters (numbers and words only)."""

    series: Mapping[str, ImageVolume | TimeSeries]
    parameters: Mapping[str, float | str] = field(default_factory=dict)

    def volume(self, role: str) -> ImageVolume:
        """The volume of a role. Raises RefusedError `analysis.missing_input` or `analysis.wrong_input`."""
        found = self._found(role)
        if isinstance(found, TimeSeries):
            raise _wrong(role, "one volume", "a time series")
        return found

    def time_series(self, role: str) -> TimeSeries:
        """The time series of a role. Raises RefusedError as `volume` does."""
        found = self._found(role)
        if isinstance(found, ImageVolume):
            raise _wrong(role, "a time series", "one volume")
        return found

    def _found(self, role: str) -> ImageVolume | TimeSeries:
        if role not in self.series:
            raise RefusedError(
                "analysis.missing_input",
                f"no series has the role {role!r}",
                missing=[role],
                remedy=f"Name the series for {role!r}; given: {', '.join(sorted(self.series)) or 'none'}.",
            )
        return self.series[role]


def _wrong(role: str, wanted: str, given: str) -> RefusedError:
    return RefusedError("analysis.wrong_input", f"the role {role!r} takes {wanted}, not {given}", missing=[role])


@dataclass(frozen=True)
class Mask:
    """One region. `array` (z, y, x) bool on the grid of `affine_lps` (voxel (i, j, k) to LPS mm)."""

    name: str
    array: NDArray[np.bool_]
    affine_lps: NDArray[np.float64]
    concept: Concept | None = None


@dataclass(frozen=True)
class Map:
    """One value for each voxel. `array` (z, y, x) float32 in `unit` (UCUM); NaN where there is none."""

    name: str
    array: NDArray[np.float32]
    affine_lps: NDArray[np.float64]
    unit: str
    concept: Concept | None = None


@dataclass(frozen=True)
class Measurement:
    """A number with its code, unit, method and uncertainty; `region`: name of the mask measured, "" for the whole."""

    value: Value
    region: str = ""


@dataclass(frozen=True)
class Finding:
    """Something present or absent. `probability` 0 to 1, or None with the reason in `not_estimated`."""

    concept: Concept
    probability: float | None
    calibrated: bool = False
    not_estimated: str = ""
    region: str = ""


@dataclass(frozen=True)
class Result:
    """What one run gave. `parameters`: what it was run with, for provenance; `cautions`: plain sentences.

    `detail`: the analysis' own result, for a caller that knows this analysis; nothing generic reads it.
    """

    masks: tuple[Mask, ...] = ()
    maps: tuple[Map, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()
    cautions: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    detail: Any = None


#: Called now and then with (done, total) in steps of the analysis' own; raises to end the run (deadline, cancelled).
Checkpoint = Callable[[int, int], None]


def ignore_progress(done: int, total: int) -> None:
    """A checkpoint that never ends the run."""


class Analysis(Protocol):
    """A learned model or an analyser. Safe to call from several threads, or says so in its card's limits."""

    @property
    def card(self) -> Card: ...

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Raises RefusedError for input that must not be guessed around; gives the same result for the same input."""
        ...
