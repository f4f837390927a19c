"""What is wrong with the images of a visit: said on the case page, so that nobody decides on a picture that is not whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

Level = Literal["broken", "caution", "waiting"]
_LEVELS: dict[int, Level] = {
    imaging_pb2.QUALITY_VERDICT_REJECT: "broken",
    imaging_pb2.QUALITY_VERDICT_WARN: "caution",
}
_ORDER: tuple[Level, ...] = ("broken", "caution", "waiting")


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong. `day` of the visit, `series` by modality and description (empty: the whole study)."""

    level: Level
    day: str
    series: str
    what: str
    remedy: str


def troubles(day: str, manifest: ingest_pb2.StudyManifest, analysis: imaging_pb2.StudyFindings | None) -> list[Trouble]:
    """Everything wrong with one study, the worst first. `analysis`: what imaging said of it, None while it has not."""
    if analysis is None:
        return [Trouble("waiting", day, "", "not analysed yet: no finding and no measurement of it counts", "")]
    names = {s.series_instance_uid: f"{s.modality} {s.series_description}".strip() for s in manifest.series}
    found = [*_judged(day, names, analysis), *_refused(day, names, analysis)]
    return sorted(dict.fromkeys(found), key=lambda trouble: _ORDER.index(trouble.level))


def _judged(day: str, names: dict[str, str], analysis: imaging_pb2.StudyFindings) -> Iterator[Trouble]:
    for quality in analysis.quality:
        level = _LEVELS.get(quality.verdict)
        if level is None:
            continue
        for issue in quality.issues:
            yield Trouble(level, day, names.get(quality.series_instance_uid, ""), issue.message, issue.remedy)


def _refused(day: str, names: dict[str, str], analysis: imaging_pb2.StudyFindings) -> Iterator[Trouble]:
    """What the quality gate rejected is refused under the same words: it is told once."""
    for refusal in analysis.refusals:
        yield Trouble("broken", day, names.get(refusal.subject, ""), refusal.message, refusal.remedy)
