"""FHIR conditions, medications, procedures, encounters, allergies, studies and everything else into facts."""

from __future__ import annotations

import re

from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.clinical import fhir
from services.clinical.fhir import Entry
from services.clinical.refusals import make_refusal
from services.clinical.timestamps import Precision
from services.fusion.chart_context import Context, codes_of, first_code
from services.fusion.facts import Fact, Standing, digest, identity_of, make_code
from services.fusion.statuses import fhir_standing

_STATUS_SYSTEM = "http://hl7.org/fhir/CodeSystem/"
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
# What tells people and places apart is left out: no names outside the demographics.
_OTHER_CODES = ("code", "type", "category", "event", "serviceCategory", "purposeEvent", "activity")
_OTHER_TIMES = (
    "effective",
    "occurrence",
    "performed",
    "started",
    "authoredOn",
    "date",
    "created",
    "period",
    "recorded",
)
_OVER = ("stopped", "completed")


def condition(entry: Entry, context: Context) -> list[Fact]:
    """A diagnosis. An abatement is a later fact than the diagnosis, known no earlier than it happened."""
    resource = entry.resource
    verification = fhir.codings(resource.get("verificationStatus"))
    standing = fhir_standing("Condition", verification[0].code if verification else "")
    made = context.entry(entry, fusion_pb2.ENTRY_KIND_CONDITION, resource.get("code"), "onset", "recordedDate")
    clinical = codes_of(resource.get("clinicalStatus"))
    if clinical:
        made.coded.CopyFrom(clinical[0])
    if not made.codes and not made.title:
        made.title = "Condition without a code"
    identity = identity_of(made, by_value=False)
    facts = [context.fact(entry, made, standing, identity)]
    abated, abated_until = context.span(entry, "abatement")
    over = abated_until or abated
    if over and standing != Standing.RETRACTED:
        known_at, stated = context.known(entry, standing)
        ended = fusion_pb2.TimelineEntry()
        ended.CopyFrom(made)
        at = over.latest if over.precision <= Precision.DAY else over.at
        ended.effective_end.FromDatetime(at.replace(tzinfo=None))
        if not clinical or clinical[0].code in ("active", "recurrence", "relapse"):
            ended.coded.CopyFrom(make_code("http://terminology.hl7.org/CodeSystem/condition-clinical", "resolved"))
        made.coded.CopyFrom(make_code("http://terminology.hl7.org/CodeSystem/condition-clinical", "active"))
        later = min(max(known_at, at), context.received_at)
        facts = [context.fact(entry, ended, standing, identity, known_at=later, known_stated=stated)]
        if later > known_at:
            facts.insert(0, context.fact(entry, made, standing, identity))
    return facts + context.notes(entry, made, standing)


def medication_request(entry: Entry, context: Context) -> list[Fact]:
    """An order. That it was stopped or completed is a later fact than the order itself."""
    resource = entry.resource
    status = str(resource.get("status") or "")
    standing = fhir_standing("MedicationRequest", status)
    if resource.get("doNotPerform") is True:
        standing = Standing.RETRACTED
    if standing == Standing.FINAL and resource.get("intent") in ("proposal", "plan"):
        standing = Standing.PRELIMINARY
    made = _medication(entry, context, "authoredOn")
    identity = identity_of(made, by_value=False)
    made.coded.CopyFrom(make_code(f"{_STATUS_SYSTEM}medicationrequest-status", status or "unknown"))
    if status not in _OVER:
        return [context.fact(entry, made, standing, identity), *context.notes(entry, made, standing)]
    ordered = fusion_pb2.TimelineEntry()
    ordered.CopyFrom(made)
    ordered.coded.code = "active"
    changed = context.moment(resource.get("statusChanged"), entry)
    over_at, stated = (min(changed.latest, context.received_at), True) if changed else context.updated(resource)
    known_at, _ = context.known(entry, standing)
    facts = [context.fact(entry, made, standing, identity, known_at=max(known_at, over_at), known_stated=stated)]
    if over_at > known_at:
        facts.insert(0, context.fact(entry, ordered, standing, identity))
    return facts + context.notes(entry, made, standing)


def medication_use(entry: Entry, context: Context) -> list[Fact]:
    """A MedicationStatement or MedicationAdministration."""
    status = str(entry.resource.get("status") or "")
    standing = fhir_standing(entry.type, status)
    made = _medication(entry, context, "effective", "dateAsserted")
    identity = identity_of(made, by_value=False)
    made.coded.CopyFrom(make_code(f"{_STATUS_SYSTEM}{entry.type}-status".lower(), status or "unknown"))
    return [context.fact(entry, made, standing, identity), *context.notes(entry, made, standing)]


def _medication(entry: Entry, context: Context, *span: str) -> fusion_pb2.TimelineEntry:
    concept = entry.resource.get("medicationCodeableConcept")
    reference = fhir.reference_of(entry.resource.get("medicationReference"))
    if concept is None and reference:
        found = context.references.find(reference, entry.resource)
        concept = found.get("code") if found else entry.resource.get("medicationReference")
        if found is None:
            context.refusals.append(
                make_refusal(
                    "fhir.dangling_reference",
                    f"the {entry.type} names its medication by a reference that the document does not hold",
                    missing=("Medication",),
                    remedy="send the Medication in the same document",
                    subject=entry.reference,
                )
            )
    made = context.entry(entry, fusion_pb2.ENTRY_KIND_MEDICATION, concept, *span)
    if not made.codes and not made.title:
        made.title = str(fhir.as_dict(concept).get("display") or "Medication without a name")
        made.flags.append("medication_unknown")
    return made


def procedure(entry: Entry, context: Context) -> list[Fact]:
    """A procedure, radiotherapy courses of mCODE included."""
    return _plain(entry, context, fusion_pb2.ENTRY_KIND_PROCEDURE, entry.resource.get("code"), "performed")


def immunization(entry: Entry, context: Context) -> list[Fact]:
    """A vaccination, as a medication given once."""
    return _plain(
        entry, context, fusion_pb2.ENTRY_KIND_MEDICATION, entry.resource.get("vaccineCode"), "occurrence", "recorded"
    )


def encounter(entry: Entry, context: Context) -> list[Fact]:
    """A visit or stay; its type, else its class, says what it was."""
    types = fhir.as_list(entry.resource.get("type"))
    concept = types[0] if types else {"coding": fhir.as_list(entry.resource.get("class"))}
    return _plain(entry, context, fusion_pb2.ENTRY_KIND_ENCOUNTER, concept, "period")


def allergy(entry: Entry, context: Context) -> list[Fact]:
    """An allergy or intolerance; the substances of its reactions count as its codes too."""
    resource = entry.resource
    verification = fhir.codings(resource.get("verificationStatus"))
    standing = fhir_standing("AllergyIntolerance", verification[0].code if verification else "")
    made = context.entry(entry, fusion_pb2.ENTRY_KIND_ALLERGY, resource.get("code"), "onset", "recordedDate")
    for reaction in fhir.as_list(resource.get("reaction")):
        substance = fhir.as_dict(reaction).get("substance")
        made.codes.extend(codes_of(substance))
        made.title = made.title or fhir.text_of(substance)
    made.title = made.title or "Allergy without a named substance"
    identity = identity_of(made, by_value=False)
    clinical = first_code(codes_of(resource.get("clinicalStatus")))
    if clinical:
        made.coded.CopyFrom(clinical)
    return [context.fact(entry, made, standing, identity), *context.notes(entry, made, standing)]


def imaging_study(entry: Entry, context: Context) -> list[Fact]:
    """An imaging study, known by its Study Instance UID, so that the chart and the images meet in one entry."""
    resource = entry.resource
    uid = next(
        (
            str(row.get("value")).removeprefix("urn:oid:")
            for row in map(fhir.as_dict, fhir.as_list(resource.get("identifier")))
            if str(row.get("value") or "").startswith("urn:oid:") or row.get("system") == "urn:dicom:uid"
        ),
        "",
    )
    standing = fhir_standing("ImagingStudy", str(resource.get("status") or ""))
    made = context.entry(entry, fusion_pb2.ENTRY_KIND_IMAGING_STUDY, None, "started")
    modalities: dict[str, common_pb2.Code] = {}
    for series in map(fhir.as_dict, fhir.as_list(resource.get("series"))):
        for code in codes_of(series.get("modality")):
            modalities.setdefault(code.code, code)
        site = fhir.text_of({"coding": fhir.as_list(series.get("bodySite"))})
        made.body_site = made.body_site or site
    made.codes.extend(modalities.values())
    made.title = str(resource.get("description") or "") or " ".join(["Imaging study", *modalities])
    made.text = uid
    identity = study_identity(uid) if uid else identity_of(made)
    return [context.fact(entry, made, standing, identity), *context.notes(entry, made, standing)]


def study_identity(study_instance_uid: str) -> str:
    """The identity of an imaging study, whoever tells of it."""
    return digest(str(fusion_pb2.ENTRY_KIND_IMAGING_STUDY), study_instance_uid)


def other(entry: Entry, context: Context) -> list[Fact]:
    """Any other resource, kept by its reference, with its codes and time when it has them and no names."""
    concept: object = None
    for name in _OTHER_CODES:
        values = fhir.as_list(entry.resource.get(name))
        if values and (fhir.codings(values[0]) or isinstance(fhir.as_dict(values[0]).get("text"), str)):
            concept = values[0]
            break
    made = context.entry(entry, fusion_pb2.ENTRY_KIND_OTHER, concept, *_OTHER_TIMES)
    words = _WORDS.sub(" ", entry.type)
    made.title = f"{words}: {made.title}" if made.title else words
    if not made.HasField("effective_at"):
        del made.flags[:]
    standing = fhir_standing("other", str(entry.resource.get("status") or ""))
    return [context.fact(entry, made, standing, digest("other", context.origin(entry)))]


def _plain(entry: Entry, context: Context, kind: fusion_pb2.EntryKind, concept: object, *span: str) -> list[Fact]:
    status = str(entry.resource.get("status") or "")
    standing = fhir_standing(entry.type, status)
    made = context.entry(entry, kind, concept, *span)
    if not made.codes and not made.title:
        made.title = f"{_WORDS.sub(' ', entry.type)} without a code"
    identity = identity_of(made, by_value=False)
    made.coded.CopyFrom(make_code(f"{_STATUS_SYSTEM}{entry.type}-status".lower(), status or "unknown"))
    return [context.fact(entry, made, standing, identity), *context.notes(entry, made, standing)]
