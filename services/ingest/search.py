"""Finding studies, series and instances in the index, as DICOM JSON.

Source: DICOM PS3.18 10.6.3 (attributes of results), PS3.4 C.3.4 (optional and computed keys).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from services.ingest.dicom_file import JsonDataset, query_attributes, tag_of
from services.ingest.query import Criterion, Level, Query
from services.ingest.store import INSTANCE, SERIES, STUDY, TABLES

_KEYS = {"study": "study_uid", "series": "series_uid", "instance": "sop_uid"}
_ESCAPE = "\\"


def find(session: Session, query: Query) -> list[JsonDataset]:
    """What matches, in DICOM JSON, each with the attributes of its level and those above it that identify it."""
    rows = session.execute(_select(query)).all()
    counts = _Counts(session, query.level, rows)
    return [_dataset(row, query, counts) for row in rows]


def _select(query: Query) -> Select[Any]:
    columns: list[Any] = [STUDY.c.study_uid, STUDY.c.attributes_json.label("study_json")]
    source: Any = STUDY
    order: list[Any] = [STUDY.c.study_date.desc(), STUDY.c.study_clock.desc(), STUDY.c.study_uid]
    if query.level != "study":
        source = source.join(SERIES, SERIES.c.study_uid == STUDY.c.study_uid)
        columns += [SERIES.c.series_uid, SERIES.c.modality, SERIES.c.attributes_json.label("series_json")]
        order += [func.length(SERIES.c.series_number), SERIES.c.series_number, SERIES.c.series_uid]
    if query.level == "instance":
        source = source.join(INSTANCE, INSTANCE.c.series_uid == SERIES.c.series_uid)
        columns += [INSTANCE.c.sop_uid, INSTANCE.c.attributes_json.label("instance_json")]
        columns += [INSTANCE.c.transfer_syntax_uid]
        order += [func.length(INSTANCE.c.instance_number), INSTANCE.c.instance_number, INSTANCE.c.sop_uid]
    conditions = [_condition(criterion, query.level) for criterion in query.criteria]
    statement = select(*columns).select_from(source).where(and_(True, *conditions))
    return statement.order_by(*order).limit(query.limit).offset(query.offset)


def _condition(criterion: Criterion, level: Level) -> ColumnElement[bool]:
    test = _test(TABLES[criterion.level].c[criterion.column], criterion)
    below = {"study": 0, "series": 1, "instance": 2}
    if below[criterion.level] <= below[level]:
        return test
    # A key of a lower level (ModalitiesInStudy): some series or instance of the study matches.
    table = TABLES[criterion.level]
    upper = "study_uid" if level == "study" else "series_uid"
    return exists().where(table.c[upper] == TABLES[level].c[upper], test)


def _test(column: Any, criterion: Criterion) -> ColumnElement[bool]:
    if criterion.kind == "any":
        return column.in_(criterion.values)
    if criterion.kind == "like":
        return column.ilike(_pattern(criterion.values[0]), escape=_ESCAPE)
    if criterion.kind == "words":
        return and_(
            True,
            *(
                or_(*(column.ilike(f"{start}{_pattern(word)}%", escape=_ESCAPE) for start in ("", "%^", "% ", "%=")))
                for word in criterion.values
            ),
        )
    low, high = criterion.values
    tests = [cast(column, Text) != ""]
    tests += [column >= low] if low else []
    tests += [column <= high] if high else []
    return and_(*tests)


def _pattern(text: str) -> str:
    escaped = "".join(_ESCAPE + c if c in "%_\\" else c for c in text)
    return escaped.replace("*", "%").replace("?", "_")


class _Counts:
    """Numbers that are computed for the rows of one answer."""

    def __init__(self, session: Session, level: Level, rows: Sequence[Row[Any]]) -> None:
        self.modalities: dict[str, list[str]] = {}
        self.series: Counter[str] = Counter()
        self.in_study: Counter[str] = Counter()
        self.in_series: Counter[str] = Counter()
        studies = sorted({row.study_uid for row in rows})
        for start in range(0, len(studies), 500):
            part = studies[start : start + 500]
            self._count(session, part)
            if level != "study":
                grouped = select(INSTANCE.c.series_uid, func.count()).where(INSTANCE.c.study_uid.in_(part))
                self.in_series.update(_pairs(session, grouped.group_by(INSTANCE.c.series_uid)))

    def _count(self, session: Session, studies: Sequence[str]) -> None:
        pairs = select(SERIES.c.study_uid, SERIES.c.modality).where(SERIES.c.study_uid.in_(studies))
        for study_uid, modality in session.execute(pairs.order_by(SERIES.c.modality)):
            self.series[study_uid] += 1
            known = self.modalities.setdefault(study_uid, [])
            if modality and modality not in known:
                known.append(modality)
        grouped = select(INSTANCE.c.study_uid, func.count()).where(INSTANCE.c.study_uid.in_(studies))
        self.in_study.update(_pairs(session, grouped.group_by(INSTANCE.c.study_uid)))


def _pairs(session: Session, statement: Select[Any]) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(statement)}


def _dataset(row: Row[Any], query: Query, counts: _Counts) -> JsonDataset:
    own = json.loads(getattr(row, f"{query.level}_json"))
    table = query_attributes()[query.level]
    wanted = {tag_of(keyword) for keyword in (*table["default"], *query.include)}
    result = dict(own) if query.include_all else {tag: value for tag, value in own.items() if tag in wanted}
    for upper in ("study", "series"):
        if upper != query.level and hasattr(row, f"{upper}_json"):
            above = json.loads(getattr(row, f"{upper}_json"))
            everything = query.include_all
            kept = {tag_of(keyword) for keyword in query.include} | {tag_of(_UIDS[upper])}
            result.update({tag: value for tag, value in above.items() if everything or tag in kept})
    result[tag_of("SpecificCharacterSet")] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    result[tag_of("InstanceAvailability")] = {"vr": "CS", "Value": ["ONLINE"]}
    result.update(_computed(row, query.level, counts))
    return dict(sorted(result.items()))


_UIDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


def _computed(row: Row[Any], level: Level, counts: _Counts) -> JsonDataset:
    if level == "study":
        return {
            tag_of("ModalitiesInStudy"): {"vr": "CS", "Value": counts.modalities.get(row.study_uid, [])},
            tag_of("NumberOfStudyRelatedSeries"): {"vr": "IS", "Value": [counts.series[row.study_uid]]},
            tag_of("NumberOfStudyRelatedInstances"): {"vr": "IS", "Value": [counts.in_study[row.study_uid]]},
        }
    if level == "series":
        return {tag_of("NumberOfSeriesRelatedInstances"): {"vr": "IS", "Value": [counts.in_series[row.series_uid]]}}
    return {tag_of("AvailableTransferSyntaxUID"): {"vr": "UI", "Value": [row.transfer_syntax_uid]}}
