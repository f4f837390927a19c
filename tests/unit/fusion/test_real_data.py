"""Real charts and messages: everything is accounted for, and what two forms of one message say agrees."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from osler.fusion.v1 import fusion_pb2

from services.fusion.chart import read_chart
from services.fusion.demographics import settle
from services.fusion.features import compute_features
from services.fusion.laboratory import read_message
from services.fusion.timeline import build_timeline
from services.platform.errors import RefusedError

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVATION = fusion_pb2.ENTRY_KIND_OBSERVATION
pytestmark = pytest.mark.shared_data


def charts(folder):
    found = {}
    for path in sorted([*folder.glob("fhir-*/**/*.json*"), *folder.glob("hl7v2-prime/**/*.fhir")]):
        content = path.read_bytes()
        found[path.name] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found


def test_every_resource_is_accounted_for(shared_data):
    contents, read, not_fhir = charts(shared_data), 0, []
    assert len(contents) >= 25
    for name, content in contents.items():
        root = json.loads(content)
        if "resourceType" not in root:
            with pytest.raises(RefusedError, match="no FHIR resource"):
                read_chart(content, received_at=RECEIVED)
            not_fhir.append(name)
            continue
        reading = read_chart(content, received_at=RECEIVED)
        expected = Counter(entry["resource"]["resourceType"] for entry in root["entry"])
        assert Counter(reading.accounted) == expected, name
        of_facts = {source.reference.partition("#")[0] for fact in reading.facts for source in fact.entry.sources}
        resources = {f"{r['resourceType']}/{r['id']}" for r in (e["resource"] for e in root["entry"]) if "id" in r} - {
            f"Patient/{r['id']}" for r in (e["resource"] for e in root["entry"]) if r["resourceType"] == "Patient"
        }
        assert resources <= of_facts, name
        read += sum(expected.values())
    assert read > 2000
    assert len(not_fhir) == 2


def test_a_synthetic_cancer_patient(shared_data):
    (path,) = shared_data.glob("fhir-synthea-onc/Fletcher*.json.gz")
    reading = read_chart(gzip.decompress(path.read_bytes()), received_at=RECEIVED)
    entries = build_timeline("k", reading.facts)
    as_of = datetime(1996, 9, 7, 20, tzinfo=UTC)
    known = build_timeline("k", reading.facts, as_of)
    assert len(known) < len(entries)
    features = {f.name: f for f in compute_features(known, as_of, "", settle(reading.demographics)).features}
    assert features["age_years"].number == 81
    assert features["known_cancer"].flag
    assert features["antihypertensive_treatment"].flag
    assert not features["diabetes"].flag
    assert features["systolic_bp_mmhg"].number == pytest.approx(152.112, abs=1e-3)
    assert features["cea_ng_ml"].WhichOneof("value") == "missing_reason"


def test_every_segment_of_every_message_is_accounted_for(shared_data):
    files = sorted(shared_data.glob("hl7v2-prime/**/*.hl7"))
    assert len(files) == 35
    observations = 0
    for path in files:
        content = path.read_bytes()
        lines = content.replace(b"\r", b"\n").split(b"\n")
        reading = read_message(content, received_at=RECEIVED)
        expected = Counter(line[:3].decode() for line in lines if line.strip())
        assert Counter(reading.accounted) == expected, path.name
        of_facts = {source.reference.partition("#")[2] for fact in reading.facts for source in fact.entry.sources}
        assert sum(place.startswith("OBX") for place in of_facts) == expected["OBX"], path.name
        observations += expected["OBX"]
    assert observations > 300


@pytest.mark.parametrize(
    ("name", "observations", "agree"),
    [
        ("sample_oru_20241015-001", 149, 149),
        ("sample_oml_20240319-001", 12, 12),
        ("sample_orm_20230809-001", 12, 12),
        # One observation has a time that is none: the message falls back to its order's, the FHIR form has no time.
        ("sample_oru_CDPH_NBS_20241021-001", 9, 8),
    ],
)
def test_the_fhir_beside_a_message_agrees_with_it(shared_data, name, observations, agree):
    (message,) = shared_data.glob(f"hl7v2-prime/**/{name}.hl7")
    by_hl7 = read_message(message.read_bytes(), received_at=RECEIVED).facts
    by_fhir = read_chart(message.with_suffix(".fhir").read_bytes(), received_at=RECEIVED).facts
    entries = [e for e in build_timeline("k", [*by_hl7, *by_fhir]) if e.kind == OBSERVATION]
    both = [e for e in entries if {s.system for s in e.sources} == {"fhir", "hl7v2"}]
    assert len(both) == agree
    assert len(entries) == observations + (observations - agree)
