"""FHIR documents: what can be read, what is refused, and how references resolve."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clinical import fhir
from services.platform.errors import RefusedError


def document(*resources, **bundle):
    entries = [{"fullUrl": f"urn:uuid:{r.get('id')}", "resource": r} for r in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries, **bundle}).encode()


def test_bundle_single_resource_and_ndjson():
    patient = {"resourceType": "Patient", "id": "p"}
    assert [e.reference for e in fhir.read(document(patient)).entries] == ["Patient/p"]
    assert fhir.read(json.dumps(patient).encode()).kind == "Patient"
    lines = b"\n".join(json.dumps({**patient, "id": str(n)}).encode() for n in range(3))
    assert [e.reference for e in fhir.read(lines).entries] == ["Patient/0", "Patient/1", "Patient/2"]


def test_bundles_in_bundles_and_entries_without_resources():
    inner = json.loads(document({"resourceType": "Patient", "id": "p"}))
    outer = {"resourceType": "Bundle", "entry": [{"resource": inner}, {"request": {}}, "nonsense"]}
    read = fhir.read(json.dumps(outer).encode())
    assert [e.reference for e in read.entries] == ["Patient/p"]
    assert read.unreadable == (1, 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "fhir.empty"),
        (b"{", "fhir.not_json"),
        (b"\xff\xfe", "fhir.not_json"),
        (b"[]", "fhir.not_fhir"),
        (b'{"entry": []}', "fhir.not_fhir"),
        (b"[" * 100_000 + b"]" * 100_000, "fhir.too_deep"),
        (b'{"resourceType":"Bundle","a":' + b"[" * 80 + b"]" * 80 + b"}", "fhir.too_deep"),
    ],
)
def test_refusals(content, reason):
    with pytest.raises(RefusedError) as refusal:
        fhir.read(content)
    assert refusal.value.reason == reason


def test_references_resolve_however_they_are_written():
    medication = {"resourceType": "Medication", "id": "m"}
    request = {"resourceType": "MedicationRequest", "id": "r", "contained": [{"resourceType": "Medication", "id": "c"}]}
    read = fhir.read(document(medication, request))
    references = fhir.References(read.entries)
    assert references.find("urn:uuid:m") == medication
    assert references.find("Medication/m") == medication
    assert references.find("https://server/fhir/Medication/m/_history/3") == medication
    assert references.find("#c", request) == {"resourceType": "Medication", "id": "c"}
    assert references.find("Medication/absent") is None
    assert references.name("https://server/fhir/Patient/1") == "Patient/1"


def test_codings_are_canonical():
    concept = {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.90", "code": "I10"}, {"display": "no code"}]}
    assert fhir.codings(concept) == (fhir.Coding("http://hl7.org/fhir/sid/icd-10-cm", "I10", ""),)
    assert fhir.text_of({"coding": [{"code": "x", "display": "GFR/\u200b1.73"}]}) == "GFR/1.73"
    assert fhir.codings("nonsense") == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["coding", "code", "system", "text", "value"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_helpers_survive_any_json(value):
    fhir.codings(value)
    fhir.text_of(value)
    fhir.reference_of(value)
