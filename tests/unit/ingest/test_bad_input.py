"""What hospitals send by mistake, or worse: each is refused by name, or flagged; nothing stops the next record."""

import gzip
import json
import tracemalloc
from datetime import UTC, datetime

import pytest

from services.fusion.chart import read_chart
from services.fusion.demographics import contradictions
from services.fusion.laboratory import read_message
from services.ingest import fhir_import, fhir_parse, hl7v2
from services.ingest.folder import recognise
from services.ingest.mllp_framing import Deframer, frame
from services.platform.errors import RefusedError

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
PID = "PID|1||4711^^^GH^MR||Muster^Erika||19640229|F"


def oru(*obx, charset="", pid=PID):
    head = f"MSH|^~\\&|LAB|GH|OSLER|GH|20250301120000+0000||ORU^R01|C1|P|2.5.1||||||{charset}"
    return "\r".join([head, pid, "OBR|1||L-1|24323-8^CMP^LN|||20250301100000+0000", *obx])


def bundle(*resources):
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


PATIENT = {"resourceType": "Patient", "id": "p", "identifier": [{"value": "4711"}], "gender": "female"}


def observation(identity="o", **more):
    subject = {"reference": "Patient/p"}
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "code": {"text": "x"},
        "subject": subject,
        **more,
    }


def read(document):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return fhir_import.read(content, {}, "local")


def refused(document):
    return [item.error.reason for item in read(document).refused]


def whole(document):
    with pytest.raises(RefusedError) as error:
        read(document)
    return error.value.reason


def test_the_wrong_character_set():
    umlaut = oru("OBX|1|ST|x^Größe^L||groß||||||F", charset="UNICODE UTF-8").encode("latin-1")
    with pytest.raises(RefusedError) as error:
        hl7v2.parse(umlaut)
    assert error.value.reason == "hl7v2.undecodable"
    with pytest.raises(RefusedError) as error:
        hl7v2.parse(oru(charset="EBCDIC").encode())
    assert error.value.reason == "hl7v2.unknown_character_set"
    assert whole(json.dumps(PATIENT | {"language": "größe"}, ensure_ascii=False).encode("latin-1")) == "fhir.not_json"
    assert whole(json.dumps(PATIENT).encode("utf-16")) == "fhir.not_json"
    declared = oru("OBX|1|ST|x^y^L||groß||||||F", charset="8859/1").encode("latin-1")
    assert [
        f.entry.text for f in read_message(declared, received_at=RECEIVED).facts if f.entry.text.startswith("gro")
    ] == ["groß"]


def test_segments_of_nobody_among_two_patients():
    content = (
        oru("OBX|1|NM|2160-0^^LN||1|mg/dL|||||F", PID.replace("4711", "4712")).replace(f"{PID}\rOBR", "OBR", 1)
        + f"\r{PID}"
    )
    with pytest.raises(RefusedError) as error:
        hl7v2.patient_parts(hl7v2.parse(content.encode()), {}, "local")
    assert error.value.reason == "hl7v2.segment_order"


def test_an_obx_of_ten_megabytes():
    content = oru(f"OBX|1|TX|18748-4^Report^LN||{'A' * 10_000_000}||||||F").encode()
    faults = [piece.fault for piece in Deframer(4 << 20).feed(frame(content))]
    assert faults == ["oversized"], "over MLLP it is refused"
    [fact] = [f for f in read_message(content, received_at=RECEIVED).facts if f.entry.text.startswith("AAA")]
    assert "truncated" in fact.entry.flags, "from a file it is kept, and what stands in the timeline is its beginning"
    assert len(fact.entry.text) == 20_000


def test_units_that_nobody_knows_and_dates_to_come_are_flagged():
    reading = read_message(
        oru("OBX|1|NM|2160-0^Creatinine^LN||1.1|furlongs/fortnight|||||F|||20991231100000+0000").encode(),
        received_at=RECEIVED,
    )
    [flags] = [set(f.entry.flags) for f in reading.facts if f.entry.codes and f.entry.codes[0].code == "2160-0"]
    assert {"unit_unknown", "future_date"} <= flags
    quantity = {"value": 1, "unit": "furlongs/fortnight"}
    chart = read_chart(
        json.dumps(observation(valueQuantity=quantity, effectiveDateTime="2099-12-31T10:00:00Z")).encode(),
        received_at=RECEIVED,
    )
    assert {"unit_unknown", "future_date"} <= set(chart.facts[0].entry.flags)


def test_a_time_that_is_none_is_named():
    reading = read_message(oru("OBX|1|NM|2160-0^^LN||1.1|mg/dL|||||F|||20251332").encode(), received_at=RECEIVED)
    assert "timestamp.malformed" in [refusal.reason for refusal in reading.refusals]


def test_two_sexes_are_told_and_not_chosen_between_in_silence():
    facts = [
        *read_message(oru().encode(), received_at=RECEIVED).demographics,
        *read_message(oru(pid=PID[:-1] + "M").encode(), received_at=RECEIVED).demographics,
    ]
    assert [refusal.reason for refusal in contradictions(facts)] == ["demographics.conflicting_sex"]


@pytest.mark.parametrize("depth", [70, 300, 600, 900, 980])
def test_deep_nesting(depth):
    inner = b'{"extension":[' * depth + b"{}" + b"]}" * depth
    resource = json.dumps(observation()).encode()[:-1] + b',"extension":[' + inner + b"]}"
    content = b'{"resourceType":"Bundle","type":"collection","entry":[{"resource":%b},{"resource":%b}]}'
    document = content % (json.dumps(PATIENT).encode(), resource)
    if depth < 480:
        assert refused(document) == ["fhir.too_deep"]
        assert len(read(document).records) == 1
    else:
        # Python's own reader stops here.
        assert whole(document) == "fhir.not_json"


def test_references_in_a_circle():
    circle = [
        observation("a", hasMember=[{"reference": "Observation/b"}]),
        observation("b", hasMember=[{"reference": "Observation/c"}]),
        observation("c", hasMember=[{"reference": "Observation/a"}], derivedFrom=[{"reference": "Observation/c"}]),
    ]
    other = {**PATIENT, "id": "q", "identifier": [{"value": "1"}]}
    result = read(bundle(PATIENT, other, *circle))
    assert result.refused == ()
    assert sorted(record.resources for record in result.records) == [1, 4]
    assert len(read_chart(result.records[0].content, received_at=RECEIVED).facts) == 3


@pytest.mark.parametrize("at", [0, 1, 40, -6])
def test_a_gzip_file_damaged_anywhere_is_refused_and_named_fhir(at):
    packed = bytearray(gzip.compress(json.dumps({"resourceType": "Patient", "id": "a" * 60}).encode()))
    packed[10 + at if at >= 0 else at] ^= 0xFF
    assert whole(bytes(packed)) == "fhir.not_json"
    assert recognise(bytes(packed)) == "fhir"


def test_json_bombs_are_refused_before_they_fill_the_memory():
    wide = b'{"resourceType":"Patient","extension":[' + b"[]," * 3_000_000 + b"[]]}"
    packed = gzip.compress(b'{"resourceType":"Binary","data":"' + b"A" * (fhir_parse.DECOMPRESSED_LIMIT + 10))
    assert len(packed) < 200_000
    tracemalloc.start()
    assert whole(wide) == "fhir.too_large"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert whole(packed) == "fhir.too_large"


def test_huge_numbers_and_constants():
    assert whole(b'{"resourceType":"Observation","valueQuantity":{"value":NaN}}') == "fhir.not_json"
    big = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueInteger":'
        + b"9" * 5000
        + b"}"
    )
    assert whole(big) == "fhir.not_json"
    reading = read_message(oru(f"OBX|1|NM|2160-0^^LN||{'9' * 400}|mg/dL|||||F").encode(), received_at=RECEIVED)
    assert [refusal.reason for refusal in reading.refusals] == ["observation.not_a_number"]
