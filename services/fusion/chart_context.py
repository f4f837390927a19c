"""What every FHIR resource needs to become facts: its times, its origin, its codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical import fhir
from services.clinical.fhir import Entry, References, Resource
from services.clinical.refusals import to_refusal
from services.clinical.terminology import LOINC, code_sets
from services.clinical.timestamps import Moment, Precision, parse_fhir
from services.fusion.facts import Fact, Standing, digest, identity_of, make_code, make_fact
from services.platform.errors import RefusedError

# LOINC 48767-8 "Annotation comment [Interpretation] Narrative".
NOTE = common_pb2.Code(system=LOINC, code="48767-8", display="Annotation comment")
# Ids this long are UUIDs or hashes: unique without their server.
_UNIQUE_ID = 16
# When a resource says it was recorded. For the witnessed ones, the institution knew when the thing happened.
_RECORDED = {
    "Observation": ("issued",),
    "DiagnosticReport": ("issued",),
    "Condition": ("recordedDate",),
    "AllergyIntolerance": ("recordedDate",),
    "MedicationRequest": ("authoredOn",),
    "MedicationStatement": ("dateAsserted",),
    "Immunization": ("recorded",),
}
_WITNESSED = {
    "Encounter": "period",
    "Procedure": "performed",
    "Immunization": "occurrence",
    "MedicationAdministration": "effective",
    "ImagingStudy": "started",
}
_FLAG_PROFILES = {profile for code_set in code_sets().values() for profile in code_set.profiles}


@dataclass
class Context:
    """One document being read. `refusals` collects what could not be used though the resource was kept."""

    received_at: datetime
    event_id: str
    references: References
    refusals: list[common_pb2.Refusal] = field(default_factory=list)

    def origin(self, entry: Entry) -> str:
        """The record that a resource is a version of: its server and id, or its content when it has no id."""
        identity = str(entry.resource.get("id") or "")
        if not identity:
            return f"fhir:{entry.type}/{digest(repr(entry.resource))}"
        base = ""
        if len(identity) < _UNIQUE_ID and entry.full_url.startswith("http"):
            base = entry.full_url.rpartition(entry.reference)[0]
        return f"fhir:{base}{entry.reference}"

    def moment(self, text: object, entry: Entry) -> Moment | None:
        """Reads a time; a malformed one is noted as a refusal and gives none."""
        if not isinstance(text, str) or not text:
            return None
        try:
            return parse_fhir(text)
        except RefusedError as error:
            self.refusals.append(to_refusal(error, subject=entry.reference))
            return None

    def updated(self, resource: Resource) -> tuple[datetime, bool]:
        """(when this version was written, whether the resource says so)."""
        text = fhir.as_dict(resource.get("meta")).get("lastUpdated")
        try:
            return (min(_end(parse_fhir(str(text))), self.received_at), True) if text else (self.received_at, False)
        except RefusedError:
            return self.received_at, False

    def known(self, entry: Entry, standing: Standing) -> tuple[datetime, bool]:
        """(when the source knew, whether that is stated). Never after the receipt, never before it can be shown.

        A correction is known when its version was written; the time that the original was issued does not count.
        """
        resource = entry.resource
        if standing >= Standing.CORRECTED:
            at, stated = self.updated(resource)
            if stated or standing == Standing.RETRACTED:
                return at, stated
        for name in _RECORDED.get(entry.type, ()):
            moment = self.moment(resource.get(name), entry)
            if moment:
                return min(_end(moment), self.received_at), True
        if entry.type in _WITNESSED:
            start, end = self.span(entry, _WITNESSED[entry.type])
            witnessed = end or start
            if witnessed:
                return min(_end(witnessed), self.received_at), True
        return self.updated(resource)

    def span(self, entry: Entry, *names: str) -> tuple[Moment | None, Moment | None]:
        """Start and end of the first of `names` that the resource has, in any of FHIR's choices of type."""
        resource = entry.resource
        for name in names:
            for suffix in ("DateTime", "Instant", "Period", ""):
                value = resource.get(name + suffix)
                if isinstance(value, dict) and ("start" in value or "end" in value):
                    return self.moment(value.get("start"), entry), self.moment(value.get("end"), entry)
                moment = self.moment(value, entry)
                if moment:
                    return moment, None
        return None, None

    def entry(
        self, entry: Entry, kind: fusion_pb2.EntryKind, concept: Any, *span: str, fragment: str = ""
    ) -> fusion_pb2.TimelineEntry:
        """A timeline entry with codes, title, times, source, body site and profile flags."""
        start, end = self.span(entry, *span)
        body_sites = fhir.as_list(entry.resource.get("bodySite"))
        made = fusion_pb2.TimelineEntry(
            kind=kind,
            codes=codes_of(concept),
            title=fhir.text_of(concept),
            body_site=fhir.text_of(body_sites[0]) if body_sites else "",
            sources=[fusion_pb2.SourceRef(system="fhir", reference=entry.reference + fragment, event_id=self.event_id)],
        )
        set_times(made, start, end, self.received_at)
        for profile in fhir.as_list(fhir.as_dict(entry.resource.get("meta")).get("profile")):
            tail = str(profile).partition("|")[0].rpartition("/")[2]
            if tail in _FLAG_PROFILES:
                made.flags.append(f"profile:{tail}")
        return made

    def fact(
        self, entry: Entry, made: fusion_pb2.TimelineEntry, standing: Standing, identity: str, **known: Any
    ) -> Fact:
        """A fact of a resource. `known`: known_at and known_stated, when they are not the resource's own."""
        known_at, stated = self.known(entry, standing)
        recorded_at, _ = self.updated(entry.resource)
        return make_fact(
            made,
            origin=self.origin(entry),
            identity=identity,
            standing=standing,
            known_at=known.get("known_at", known_at),
            known_stated=known.get("known_stated", stated),
            recorded_at=recorded_at,
        )

    def notes(self, entry: Entry, about: fusion_pb2.TimelineEntry, standing: Standing) -> list[Fact]:
        """The notes of a resource as entries of their own: none is lost, and none is taken for a value."""
        facts = []
        for row in fhir.as_list(entry.resource.get("note")):
            text = str(fhir.as_dict(row).get("text") or "").strip()
            if text:
                made = note_entry(about, text)
                facts.append(self.fact(entry, made, standing, identity_of(made)))
        return facts


def _end(moment: Moment) -> datetime:
    """When something dated so coarsely is surely known: a date's end; a time of day counts as it is."""
    return moment.latest if moment.precision <= Precision.DAY else moment.at


def codes_of(concept: Any) -> list[common_pb2.Code]:
    """The codes of a CodeableConcept as messages."""
    return [make_code(row.system, row.code, row.display) for row in fhir.codings(concept)]


def first_code(concepts: Sequence[common_pb2.Code]) -> common_pb2.Code | None:
    """The first of some codes, or None."""
    return concepts[0] if concepts else None


def set_times(made: fusion_pb2.TimelineEntry, start: Moment | None, end: Moment | None, received_at: datetime) -> None:
    """Puts effective times into an entry. Flags: "time_unknown", "zone_assumed", "future_date", "end_before_start"."""
    start = start or end
    if start is None:
        made.flags.append("time_unknown")
        return
    made.effective_at.FromDatetime(start.at.astimezone(UTC).replace(tzinfo=None))
    if end is not None and end is not start:
        made.effective_end.FromDatetime(_end(end).replace(tzinfo=None))
        if end.latest < start.at:
            made.flags.append("end_before_start")
    if start.zone_assumed:
        made.flags.append("zone_assumed")
    if start.at > received_at:
        made.flags.append("future_date")


def note_entry(about: fusion_pb2.TimelineEntry, text: str) -> fusion_pb2.TimelineEntry:
    """An entry for a comment on another entry."""
    made = fusion_pb2.TimelineEntry(
        kind=fusion_pb2.ENTRY_KIND_REPORT, codes=[NOTE], title=f"Note on {about.title}", text=text
    )
    made.sources.extend(about.sources)
    if about.HasField("effective_at"):
        made.effective_at.CopyFrom(about.effective_at)
    return made
