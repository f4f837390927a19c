"""FHIR charts become facts; nothing is lost and no two patients meet."""

import json
from datetime import UTC, datetime

import pytest
from osler.fusion.v1 import fusion_pb2

from services.fusion.chart import read_chart
from services.fusion.facts import Standing
from services.fusion.timeline import build_timeline
from services.platform.errors import RefusedError

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
BP = {
    "resourceType": "Observation",
    "id": "bp",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
    "effectiveDateTime": "2025-03-01T10:00:00Z",
    "component": [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": value, "code": "mm[Hg]"},
        }
        for code, value in (("8480-6", 142), ("8462-4", 84))
    ],
}


def read(*resources, received=RECEIVED):
    entries = [{"fullUrl": f"urn:uuid:{r.get('id')}", "resource": r} for r in resources]
    content = json.dumps({"resourceType": "Bundle", "entry": entries}).encode()
    return read_chart(content, received_at=received, event_id="e1")


def test_an_observation_in_its_canonical_unit(samples):
    row = samples.observation(
        "14682-9", 106.08, "umol/L", referenceRange=[{"low": {"value": 45}, "high": {"value": 97}}]
    )
    row["interpretation"] = [{"coding": [{"code": "H"}]}]
    (fact,) = read(row).facts
    entry = fact.entry
    assert (entry.quantity.value, entry.quantity.unit) == (pytest.approx(1.2, rel=1e-3), "mg/dL")
    assert (entry.original_quantity.value, entry.original_quantity.unit) == (106.08, "umol/L")
    assert entry.reference_range.lower == pytest.approx(0.509, abs=1e-3)
    assert list(entry.flags) == ["high"]
    assert [s.reference for s in entry.sources] == ["Observation/obs-1"]
    assert fact.known_at == datetime(2025, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "value", "flag", "kept"),
    [
        ("", 1.2, "unit_assumed", ("mg/dL", 1.2)),
        ("furlong", 1.2, "unit_unknown", ("furlong", 1.2)),
        ("mm[Hg]", 1.2, "unit_mismatch", ("mm[Hg]", 1.2)),
        ("mg/dL", 900.0, "implausible", ("mg/dL", 900.0)),
    ],
)
def test_doubtful_values_are_kept_and_flagged(samples, unit, value, flag, kept):
    (fact,) = read(samples.observation(value=value, unit=unit)).facts
    assert list(fact.entry.flags) == [flag]
    assert (fact.entry.quantity.unit, fact.entry.quantity.value) == kept


def test_components_are_entries_of_their_own():
    facts = read(BP).facts
    assert [(f.entry.codes[0].code, f.entry.quantity.value) for f in facts] == [("8480-6", 142), ("8462-4", 84)]
    assert len({f.identity for f in facts}) == 2
    assert len({f.origin for f in facts}) == 1


@pytest.mark.parametrize(
    ("value", "which", "expected"),
    [
        ({"valueString": "positive"}, "text", "positive"),
        ({"valueBoolean": False}, "text", "False"),
        (
            {"valueRange": {"low": {"value": 1, "unit": "mg"}, "high": {"value": 2, "unit": "mg"}}},
            "text",
            "1 mg - 2 mg",
        ),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, "text", "1 : 128"),
        ({"valueCodeableConcept": {"text": "seen"}}, "text", "seen"),
        ({"valueInteger": 3}, "quantity", 3.0),
    ],
)
def test_every_kind_of_value(samples, value, which, expected):
    (fact,) = read(samples.observation(loinc="1234-5", valueQuantity=None, **value)).facts
    assert fact.entry.WhichOneof("value") == which
    assert (fact.entry.quantity.value if which == "quantity" else fact.entry.text) == expected


def test_an_observation_without_value_is_kept(samples):
    (fact,) = read(samples.observation(valueQuantity=None)).facts
    assert list(fact.entry.flags) == ["no_value"]


def test_notes_are_not_lost(samples):
    facts = read(samples.observation(note=[{"text": "haemolysed"}])).facts
    assert [f.entry.text for f in facts if f.entry.kind == fusion_pb2.ENTRY_KIND_REPORT] == ["haemolysed"]


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("preliminary", Standing.PRELIMINARY),
        ("final", Standing.FINAL),
        ("corrected", Standing.CORRECTED),
        ("cancelled", Standing.RETRACTED),
        ("entered-in-error", Standing.RETRACTED),
        ("unknown", Standing.FINAL),
    ],
)
def test_status(samples, status, standing):
    (fact,) = read(samples.observation(status=status)).facts
    assert fact.standing == standing


def test_a_retraction_is_not_known_before_it_was_written(samples):
    wrong = samples.observation(status="entered-in-error", meta={"lastUpdated": "2025-06-01T00:00:00Z"})
    (fact,) = read(wrong).facts
    assert fact.known_at == datetime(2025, 6, 1, tzinfo=UTC)
    (fact,) = read(samples.observation(status="entered-in-error")).facts
    assert fact.known_at == RECEIVED


def test_what_says_no_time_is_known_when_it_came_and_a_date_when_it_ends(samples):
    (fact,) = read(samples.observation(issued=None)).facts
    assert fact.known_at == RECEIVED
    condition = {"resourceType": "Condition", "id": "c", "code": {"text": "x"}, "recordedDate": "2025-03-01"}
    (fact,) = read(condition).facts
    assert fact.known_at.isoformat() == "2025-03-01T23:59:59.999999+00:00"


def test_a_stopped_drug_was_once_being_taken():
    order = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "stopped",
        "intent": "order",
        "authoredOn": "2024-05-01",
        "medicationCodeableConcept": {"text": "metformin"},
    }
    facts = read(order).facts
    (then,) = build_timeline("k", facts, datetime(2025, 1, 1, tzinfo=UTC))
    (now,) = build_timeline("k", facts)
    assert (then.coded.code, now.coded.code) == ("active", "stopped")
    assert then.entry_id == now.entry_id


def test_a_resolved_condition_was_once_active():
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "clinicalStatus": {"coding": [{"code": "resolved"}]},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "233604007"}]},
        "onsetDateTime": "2024-01-10",
        "recordedDate": "2024-01-11",
        "abatementDateTime": "2024-02-01",
    }
    facts = read(condition).facts
    (then,) = build_timeline("k", facts, datetime(2024, 1, 20, tzinfo=UTC))
    (now,) = build_timeline("k", facts)
    assert (then.coded.code, now.coded.code) == ("active", "resolved")
    assert not then.HasField("effective_end")
    assert now.HasField("effective_end")


def test_mcode_stage_variant_and_primary_cancer():
    profile = "http://hl7.org/fhir/us/mcode/StructureDefinition/"
    stage = {
        "resourceType": "Observation",
        "id": "s",
        "status": "final",
        "meta": {"profile": [profile + "mcode-tnm-primary-tumor-category"]},
        "code": {"coding": [{"system": "http://loinc.org", "code": "21905-5"}]},
        "valueCodeableConcept": {"coding": [{"system": "http://cancerstaging.org", "code": "cT3"}]},
    }
    gene = {
        "code": {"coding": [{"system": "http://loinc.org", "code": "48018-6"}], "text": "Gene studied"},
        "valueCodeableConcept": {
            "coding": [{"system": "http://www.genenames.org", "code": "HGNC:6407", "display": "KRAS"}]
        },
    }
    variant = {
        "resourceType": "Observation",
        "id": "v",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "69548-6"}]},
        "component": [gene],
    }
    cancer = {"resourceType": "Condition", "id": "c", "meta": {"profile": [profile + "mcode-primary-cancer-condition"]}}
    facts = read(stage, variant, cancer).facts
    assert facts[0].entry.coded.code == "cT3"
    assert {f.entry.kind for f in facts[1:3]} == {fusion_pb2.ENTRY_KIND_GENOMIC}
    assert facts[1].entry.text == "Gene studied: KRAS"
    assert set(facts[3].entry.flags) == {"profile:mcode-primary-cancer-condition", "time_unknown"}


def test_an_unknown_resource_is_kept_by_its_reference():
    claim = {"resourceType": "Claim", "id": "x", "status": "active", "created": "2025-01-01"}
    another = {**claim, "id": "y"}
    facts = read(claim, another).facts
    assert [f.entry.kind for f in facts] == [fusion_pb2.ENTRY_KIND_OTHER] * 2
    assert len({f.identity for f in facts}) == 2


def test_names_stay_in_the_demographics(samples):
    doctor = {"resourceType": "Practitioner", "id": "d", "name": [{"family": "Geheim"}]}
    reading = read(samples.patient(), doctor, {"resourceType": "Organization", "id": "o", "name": "Geheimhaus"})
    assert not any("Geheim" in str(f.entry) or "Muster" in str(f.entry) for f in reading.facts)
    (who,) = reading.demographics
    assert (who.demographics.family_name, who.demographics.sex) == ("Muster", "female")


def test_a_synthetic_patient_says_so(samples):
    tag = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
    assert read(samples.patient(meta={"tag": [tag]})).demographics[0].demographics.synthetic
    assert not read(samples.patient()).demographics[0].demographics.synthetic


def test_two_patients_in_one_document_are_refused(samples):
    with pytest.raises(RefusedError) as refusal:
        read(samples.patient("p1"), samples.patient("p2"))
    assert refusal.value.reason == "fhir.several_patients"
    with pytest.raises(RefusedError):
        read(
            samples.observation(subject={"reference": "Patient/a"}),
            samples.observation(id="obs-2", subject={"reference": "Patient/b"}),
        )


def test_two_resources_of_one_patient_are_one_patient(samples):
    same = [{"system": "urn:hospital", "value": "4711"}]
    reading = read(
        samples.patient("p1", identifier=same),
        samples.patient("p2", identifier=same),
        samples.observation(subject={"reference": "Patient/p2"}),
    )
    assert len(reading.facts) == 1
    assert not reading.refusals


@pytest.mark.parametrize("reference", ["Patient/other", "https://server/Patient/other", "urn:uuid:other"])
def test_a_resource_of_another_patient_is_refused(samples, reference):
    reading = read(samples.patient(), samples.observation(subject={"reference": reference, "type": "Patient"}))
    assert not reading.facts
    assert [(r.reason, r.subject) for r in reading.refusals] == [("fhir.wrong_subject", "Observation/obs-1")]


@pytest.mark.parametrize("reference", ["Patient/p1", "urn:uuid:p1", "http://server/fhir/Patient/p1"])
def test_a_resource_of_the_patient_is_taken_however_it_refers(samples, reference):
    reading = read(samples.patient(), samples.observation(subject={"reference": reference}))
    assert len(reading.facts) == 1


def test_a_malformed_time_is_named_and_the_resource_kept(samples):
    reading = read(samples.observation(when="the other day", issued="2025-01-01T00:00:00Z"))
    assert list(reading.facts[0].entry.flags) == ["time_unknown"]
    assert [r.reason for r in reading.refusals] == ["timestamp.malformed"]


def test_a_medication_that_is_nowhere_is_named_and_the_order_kept():
    order = {"resourceType": "MedicationRequest", "id": "m", "medicationReference": {"reference": "Medication/absent"}}
    reading = read(order)
    assert list(reading.facts[0].entry.flags)[-1] == "medication_unknown"
    assert [r.reason for r in reading.refusals] == ["fhir.dangling_reference"]


def test_an_observation_that_does_not_say_what_it_is_is_refused(samples):
    reading = read(samples.observation(code=None))
    assert [r.reason for r in reading.refusals] == ["fhir.no_code"]
    assert reading.accounted == {"refused": 1}


def test_reading_twice_gives_the_same_facts(samples):
    resources = (samples.patient(), samples.observation(), BP)
    assert [f.fact_id for f in read(*resources).facts] == [f.fact_id for f in read(*resources).facts]
