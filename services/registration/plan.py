"""Which of one patient's series to align, and why. Tables in plan.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from osler.ingest.v1 import ingest_pb2

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("plan.yaml").read_text())


class Purpose(Enum):
    """HYBRID: two modalities of one session. FOLLOW_UP: one modality, this session over the last."""

    HYBRID = "hybrid"
    FOLLOW_UP = "follow_up"


@dataclass(frozen=True)
class Series:
    """One series that can be registered. `body_part` in capitals, empty when the sender left it out."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    frame_of_reference_uid: str
    body_part: str
    description: str
    slices: int
    study_time: datetime


@dataclass(frozen=True)
class Pair:
    """`moving` is to be brought onto `fixed`; `reason` says why in one sentence."""

    fixed: Series
    moving: Series
    purpose: Purpose
    reason: str

    @property
    def same_frame(self) -> bool:
        """Whether both series claim one frame of reference; a claim that registration verifies."""
        frame = self.fixed.frame_of_reference_uid
        return bool(frame) and frame == self.moving.frame_of_reference_uid


def plan(manifests: Sequence[ingest_pb2.StudyManifest]) -> list[Pair]:
    """The pairs among one patient's studies, newest session first; the same manifests give the same pairs in any order.

    Localizers, derived and tiny series are left out. Within a session each PET, CT and MR is paired as the table says; between
    sessions the newest series of a modality is paired with the last earlier one of the same body region.
    """
    newest: dict[str, ingest_pb2.StudyManifest] = {}
    for manifest in manifests:
        known = newest.get(manifest.study_instance_uid)
        if known is None or manifest.revision > known.revision:
            newest[manifest.study_instance_uid] = manifest
    sessions = _sessions(series for manifest in newest.values() for series in _usable(manifest))
    pairs: list[Pair] = []
    for position, session in enumerate(sessions):
        pairs += _hybrid(session)
        pairs += _follow_up(session, sessions[position + 1 :])
    return pairs


def _usable(manifest: ingest_pb2.StudyManifest) -> list[Series]:
    time = manifest.study_time.ToDatetime(UTC)
    return [
        Series(
            study_instance_uid=manifest.study_instance_uid,
            series_instance_uid=entry.series_instance_uid,
            modality=entry.modality,
            frame_of_reference_uid=entry.frame_of_reference_uid,
            body_part=entry.body_part_examined.strip().upper(),
            description=entry.series_description,
            slices=len(entry.instances),
            study_time=time,
        )
        for entry in manifest.series
        if _is_volume(entry)
    ]


def _is_volume(entry: ingest_pb2.SeriesEntry) -> bool:
    if entry.derived or entry.modality not in TABLES["modalities"]:
        return False
    words = set(re.split(r"[^a-z0-9]+", entry.series_description.lower()))
    if words & set(TABLES["not_a_volume"]):
        return False
    multi_frame = any(instance.sop_class_uid in TABLES["multi_frame_classes"] for instance in entry.instances)
    return multi_frame or len(entry.instances) >= TABLES["least_instances"]


def _sessions(series: Iterable[Series]) -> list[list[Series]]:
    """Series grouped by visit, newest visit first. Studies without a time stand alone."""
    studies: dict[str, list[Series]] = {}
    for item in series:
        studies.setdefault(item.study_instance_uid, []).append(item)
    ordered = sorted(studies.values(), key=lambda s: (s[0].study_time, s[0].study_instance_uid), reverse=True)
    sessions: list[list[Series]] = []
    for study in ordered:
        last = sessions[-1] if sessions else None
        timed = study[0].study_time.timestamp() > 0
        if last and timed and (last[0].study_time - study[0].study_time).total_seconds() <= _session_s():
            last.extend(study)
        else:
            sessions.append(list(study))
    return sessions


def _session_s() -> float:
    return float(TABLES["session_days"]) * 86400.0


def _hybrid(session: list[Series]) -> list[Pair]:
    pairs = []
    present = {series.modality for series in session}
    for rule in TABLES["hybrid"]:
        if rule.get("unless") in present:
            continue
        for moving in _representatives(session, rule["moving"]):
            fixed = _partner(moving, _of(session, rule["fixed"]))
            if fixed is not None:
                frame = Pair(fixed, moving, Purpose.HYBRID, "").same_frame
                claim = "one frame of reference, to be verified" if frame else "different frames of reference"
                pairs.append(Pair(fixed, moving, Purpose.HYBRID, f"{rule['says']} of one session; {claim}"))
    return pairs


def _follow_up(session: list[Series], earlier: list[list[Series]]) -> list[Pair]:
    pairs: list[Pair] = []
    for modality in TABLES["modalities"]:
        for fixed in _representatives(session, modality):
            if _follows_another(fixed, pairs):
                continue
            past = next((found for visit in earlier if (found := _same_region(fixed, _of(visit, modality)))), None)
            if past is not None:
                days = (fixed.study_time - past.study_time).days
                reason = f"{modality} over the {modality} of {days} days before{_region(fixed, past)}"
                pairs.append(Pair(fixed, past, Purpose.FOLLOW_UP, reason))
    return pairs


def _follows_another(series: Series, pairs: list[Pair]) -> bool:
    """Whether a pair of the modality that this one follows already ties its frame of reference to the last visit."""
    leader = TABLES["follows"].get(series.modality)
    frame = series.frame_of_reference_uid
    return bool(frame) and any(p.fixed.modality == leader and p.fixed.frame_of_reference_uid == frame for p in pairs)


def _region(fixed: Series, past: Series) -> str:
    if fixed.body_part and fixed.body_part == past.body_part:
        return f"; same body region ({fixed.body_part})"
    return "; body region not stated on both"


def _of(session: list[Series], modality: str) -> list[Series]:
    return sorted((s for s in session if s.modality == modality), key=_rank)


def _representatives(session: list[Series], modality: str) -> list[Series]:
    """The best series of each frame of reference: others in it follow by the same transform."""
    best: dict[str, Series] = {}
    for series in _of(session, modality):
        best.setdefault(series.frame_of_reference_uid or series.series_instance_uid, series)
    return list(best.values())


def _rank(series: Series) -> tuple[int, int, str]:
    """Best first: preferred MR contrast, then most slices, then UID."""
    words = series.description.lower()
    kinds = TABLES["mr_first"]
    kind = next((k for k, name in enumerate(kinds) if name in words), len(kinds)) if series.modality == "MR" else 0
    return (kind, -series.slices, series.series_instance_uid)


def _partner(moving: Series, candidates: list[Series]) -> Series | None:
    """Same frame of reference first, then same body region, else the best of a region that is not contradicted."""
    framed = [c for c in candidates if Pair(c, moving, Purpose.HYBRID, "").same_frame]
    return framed[0] if framed else _same_region(moving, candidates)


def _same_region(series: Series, candidates: list[Series]) -> Series | None:
    stated = [c for c in candidates if c.body_part and c.body_part == series.body_part]
    silent = [c for c in candidates if not c.body_part or not series.body_part]
    return next(iter([*stated, *silent]), None)
