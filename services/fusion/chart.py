"""The chart: FHIR R4 documents into facts.

Every resource of a document ends as facts, as demographics, or as a typed refusal. A document speaks of one patient:
what refers to another is refused, and a document that holds two patients is refused whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical import fhir
from services.clinical.fhir import Entry, References
from services.clinical.refusals import make_refusal, to_refusal
from services.fusion import chart_events, chart_observations
from services.fusion.chart_context import Context
from services.fusion.facts import DemographicFact, Fact, Reading
from services.platform.errors import RefusedError

Builder = Callable[[Entry, Context], Sequence[Fact]]

BUILDERS: dict[str, Builder] = {
    "Observation": chart_observations.observation,
    "DiagnosticReport": chart_observations.diagnostic_report,
    "Condition": chart_events.condition,
    "AllergyIntolerance": chart_events.allergy,
    "MedicationRequest": chart_events.medication_request,
    "MedicationStatement": chart_events.medication_use,
    "MedicationAdministration": chart_events.medication_use,
    "Procedure": chart_events.procedure,
    "Encounter": chart_events.encounter,
    "ImagingStudy": chart_events.imaging_study,
    "Immunization": chart_events.immunization,
}


def read_chart(content: bytes, *, received_at: datetime, event_id: str = "") -> Reading:
    """Reads a Bundle, a resource or NDJSON. `received_at`: aware UTC; nothing is known later than that.

    Raises RefusedError `fhir.not_json`, `fhir.not_fhir`, `fhir.too_deep`, `fhir.empty`, `fhir.several_patients`.
    """
    document = fhir.read(content)
    references = References(document.entries)
    patients = _one_patient(document.entries, references)
    context = Context(received_at, event_id, references)
    facts: list[Fact] = []
    demographics: list[DemographicFact] = []
    refusals: list[common_pb2.Refusal] = [
        make_refusal(
            "fhir.no_resource",
            f"entry {position} of the document holds no resource",
            missing=("resource",),
            remedy="resend the entry with its resource",
            subject=f"entry {position}",
        )
        for position in document.unreadable
    ]
    accounted: Counter[str] = Counter({"refused": len(refusals)} if refusals else {})
    for entry in document.entries:
        try:
            _guard_subject(entry, patients, references)
            if entry.type == "Patient":
                demographics.append(_demographics(entry, context))
            else:
                facts.extend(BUILDERS.get(entry.type, chart_events.other)(entry, context))
            accounted[entry.type] += 1
        except RefusedError as error:
            refusals.append(to_refusal(error, subject=entry.reference))
            accounted["refused"] += 1
    unique = {refusal.SerializeToString(): refusal for refusal in (*refusals, *context.refusals)}
    return Reading(tuple(facts), tuple(demographics), tuple(unique.values()), dict(accounted))


def _subject(entry: Entry, references: References) -> str:
    """The patient that a resource says it is about, or "" when it names none."""
    for field in ("subject", "patient", "individual", "beneficiary"):
        value = fhir.as_dict(entry.resource.get(field))
        name = references.name(fhir.reference_of(value))
        kind = str(value.get("type") or "") or name.partition("/")[0]
        if name and kind in ("Patient", "urn:uuid:", name):
            return name
    return ""


def _one_patient(entries: Sequence[Entry], references: References) -> frozenset[str]:
    """The references that mean the document's patient. Patient resources that share an identifier are one patient."""
    patients = {entry.reference: _identifiers(entry) for entry in entries if entry.type == "Patient"}
    shared = len(patients) > 1 and bool(frozenset.intersection(*patients.values()))
    names = frozenset(patients) or frozenset(name for entry in entries if (name := _subject(entry, references)))
    if len(names) > 1 and not shared:
        raise RefusedError(
            "fhir.several_patients",
            f"the document is about {len(names)} patients; one is expected",
            remedy="send one document for each patient",
        )
    return names


def _identifiers(entry: Entry) -> frozenset[tuple[str, str]]:
    rows = map(fhir.as_dict, fhir.as_list(entry.resource.get("identifier")))
    return frozenset((str(row.get("system") or ""), str(row["value"])) for row in rows if row.get("value"))


def _guard_subject(entry: Entry, patients: frozenset[str], references: References) -> None:
    subject = _subject(entry, references)
    if subject and patients and subject not in patients:
        raise RefusedError(
            "fhir.wrong_subject",
            "the resource refers to another patient than the document is about",
            missing=("subject",),
            remedy="correct the reference and resend the resource",
        )


def _demographics(entry: Entry, context: Context) -> DemographicFact:
    resource = entry.resource
    names = [fhir.as_dict(name) for name in fhir.as_list(resource.get("name"))]
    name = next((n for n in names if n.get("use") == "official"), names[0] if names else {})
    identifiers = [fhir.as_dict(i) for i in fhir.as_list(resource.get("identifier"))]
    record_numbers = [
        str(i["value"])
        for i in identifiers
        if i.get("value") and any(c.code == "MR" for c in fhir.codings(i.get("type")))
    ]
    fallback = [str(i["value"]) for i in identifiers if i.get("value")]
    tags = {str(fhir.as_dict(tag).get("code") or "").casefold() for tag in _tags(entry)}
    known_at, _ = context.updated(resource)
    return DemographicFact(
        known_at=known_at,
        source=context.origin(entry),
        demographics=fusion_pb2.Demographics(
            family_name=str(name.get("family") or ""),
            given_name=" ".join(str(part) for part in fhir.as_list(name.get("given"))),
            birth_date=str(resource.get("birthDate") or ""),
            sex=str(resource.get("gender") or ""),
            record_number=(record_numbers or fallback or [""])[0],
            deceased=bool(resource.get("deceasedBoolean") or resource.get("deceasedDateTime")),
            synthetic=any("synthe" in tag or tag == "htest" for tag in tags),
        ),
        deceased_stated="deceasedBoolean" in resource or "deceasedDateTime" in resource,
    )


def _tags(entry: Entry) -> list[object]:
    meta = fhir.as_dict(entry.resource.get("meta"))
    return [*fhir.as_list(meta.get("tag")), *fhir.as_list(meta.get("security"))]
