"""HL7 v2 messages become facts (v2.5.1 chapters 2, 3 and 7)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osler.fusion.v1 import fusion_pb2

from services.fusion import hl7
from services.fusion.facts import Standing
from services.fusion.hl7 import Separators, unescape
from services.fusion.laboratory import read_message
from services.fusion.measures import parse_range
from services.fusion.timeline import build_timeline
from services.platform.errors import RefusedError

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVATION = fusion_pb2.ENTRY_KIND_OBSERVATION


def read(content):
    return read_message(content, received_at=RECEIVED, event_id="e1")


def results(content):
    return [f for f in read(content).facts if f.entry.kind == OBSERVATION]


def test_a_numeric_result(samples):
    (fact,) = results(samples.oru("NM|14682-9^Creatinine^LN||186|umol/L|45-97|H|||F|||20250301100500+0000"))
    entry = fact.entry
    assert (entry.quantity.value, entry.quantity.unit) == (pytest.approx(2.104, abs=1e-3), "mg/dL")
    assert (entry.original_quantity.value, entry.original_quantity.unit) == (186, "umol/L")
    assert (entry.reference_range.lower, entry.reference_range.upper) == (
        pytest.approx(0.509, abs=1e-3),
        pytest.approx(1.097, abs=1e-3),
    )
    assert list(entry.flags) == ["high"]
    assert entry.effective_at.ToDatetime(UTC) == datetime(2025, 3, 1, 10, 5, tzinfo=UTC)
    assert fact.known_at == datetime(2025, 3, 1, 12, tzinfo=UTC)


def test_times_fall_back_from_obx_14_to_obr_7_and_from_obr_22_to_msh_7(samples):
    (fact,) = results(samples.oru("NM|2160-0^Creatinine^LN||1.2|mg/dL|||||F", reported="20250301113000+0000"))
    assert fact.entry.effective_at.ToDatetime(UTC) == datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert fact.known_at == datetime(2025, 3, 1, 11, 30, tzinfo=UTC)


def test_times_without_an_offset_take_that_of_the_message(samples):
    content = samples.oru("NM|2160-0^C^LN||1|mg/dL|||||F", sent="20250301120000-0500", obr_time="20250301100000")
    (fact,) = results(content)
    assert fact.entry.effective_at.ToDatetime(UTC) == datetime(2025, 3, 1, 15, tzinfo=UTC)
    assert "zone_assumed" in fact.entry.flags


@pytest.mark.parametrize(
    ("segment", "which", "value", "flags"),
    [
        ("SN|2039-6^CEA^LN||<^0.5|ng/mL|||||F", "quantity", 0.5, ["below_limit"]),
        ("SN|33914-3^GFR^LN||>^60|mL/min/1.73m2|||||F", "quantity", 60.0, ["above_limit"]),
        ("SN|20454-5^Titre^LN||^1^:^128||||||F", "text", "1:128", []),
        ("ST|2039-6^CEA^LN||<0.5|ng/mL|||||F", "quantity", 0.5, ["below_limit"]),
        ("NM|2160-0^Creat^LN||see comment|mg/dL|||||F", "text", "see comment", []),
        ("ST|1234-5^X^LN||Detected||||||F", "text", "Detected", []),
        ("TX|1234-5^X^LN||A \\T\\ B\\.br\\next||||||F", "text", "A & B\nnext", []),
        ("CWE|97097-0^Ag^LN||260373001^Detected^SCT||||||F", "coded", "260373001", []),
        ("CE|1234-5^X^LN||^Only text||||||F", "text", "Only text", []),
        ("NM|2160-0^Creat^LN||||||||X", None, None, ["no_value"]),
    ],
)
def test_value_types(samples, segment, which, value, flags):
    (fact,) = results(samples.oru(segment))
    entry = fact.entry
    got = {"quantity": entry.quantity.value, "text": entry.text, "coded": entry.coded.code, None: None}
    assert entry.WhichOneof("value") == which or (which is None and not entry.text)
    assert got[which] == value
    assert list(entry.flags) == flags


def test_repeated_values_are_facts_of_their_own(samples):
    facts = results(samples.oru("CWE|1234-5^X^LN||A^a^L~B^b^L||||||F"))
    assert [f.entry.coded.code for f in facts] == ["A", "B"]


def test_notes_are_not_lost_and_say_what_they_are_about(samples):
    reading = read(samples.oru("NM|2160-0^Creatinine^LN||1.2|mg/dL|||||F", "NTE|1|L|haemolysed"))
    (note,) = [f.entry for f in reading.facts if f.entry.title.startswith("Note")]
    assert (note.title, note.text) == ("Note on Creatinine", "haemolysed")


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("F", "FINAL"),
        ("P", "PRELIMINARY"),
        ("R", "PRELIMINARY"),
        ("C", "CORRECTED"),
        ("D", "RETRACTED"),
        ("W", "RETRACTED"),
    ],
)
def test_result_status(samples, status, standing):
    (fact,) = results(samples.oru(f"NM|2160-0^Creatinine^LN||1.2|mg/dL|||||{status}"))
    assert fact.standing == Standing[standing]


def test_a_correction_retracts_the_first_value_and_keeps_it(samples):
    first = samples.oru("NM|2160-0^Creatinine^LN||12|mg/dL|||||F")
    second = samples.oru("NM|2160-0^Creatinine^LN||1.2|mg/dL|||||C", sent="20250302080000+0000", control="C2")
    facts = [*results(second), *results(first)]
    before = build_timeline("k", facts, datetime(2025, 3, 1, 18, tzinfo=UTC))
    assert [(e.quantity.value, e.status) for e in before] == [(12, fusion_pb2.ENTRY_STATUS_ACTIVE)]
    after = {e.quantity.value: e for e in build_timeline("k", facts)}
    assert after[1.2].status == fusion_pb2.ENTRY_STATUS_ACTIVE
    assert after[12].status == fusion_pb2.ENTRY_STATUS_RETRACTED
    assert after[12].retracted_at.ToDatetime(UTC) == datetime(2025, 3, 2, 8, tzinfo=UTC)


def test_a_deleted_result_is_retracted(samples):
    first = samples.oru("NM|2160-0^Creatinine^LN||1.2|mg/dL|||||F")
    gone = samples.oru("NM|2160-0^Creatinine^LN||||||||D", sent="20250302080000+0000", control="C2")
    statuses = {e.status for e in build_timeline("k", [*results(first), *results(gone)])}
    assert statuses == {fusion_pb2.ENTRY_STATUS_RETRACTED}


def test_serial_results_of_one_order_do_not_replace_one_another(samples):
    one = samples.oru("NM|2345-7^Glucose^LN||90|mg/dL|||||F|||20250301080000+0000")
    two = samples.oru("NM|2345-7^Glucose^LN||150|mg/dL|||||F|||20250301090000+0000", control="C2")
    entries = build_timeline("k", [*results(one), *results(two)])
    assert [e.status for e in entries] == [fusion_pb2.ENTRY_STATUS_ACTIVE] * 2


def test_local_codes_and_alternates_are_kept(samples):
    (fact,) = results(samples.oru("NM|KREA^Kreatinin^99LAB^2160-0^Creatinine^LN||1.2|mg/dL|||||F"))
    assert [(c.system, c.code) for c in fact.entry.codes] == [("99LAB", "KREA"), ("http://loinc.org", "2160-0")]


def test_demographics_of_pid(samples):
    pid = "PID|1||99^^^X^PI~4711^^^HOSPITAL^MR||Muster^Erika^Maria||19640229|F||||||||||||||||||||||Y"
    (fact,) = read(samples.oru(pid=pid)).demographics
    who = fact.demographics
    assert (who.family_name, who.given_name, who.birth_date) == ("Muster", "Erika Maria", "1964-02-29")
    assert (who.sex, who.record_number, who.deceased) == ("female", "4711", True)


def test_diagnoses_allergies_and_visits_of_an_admission():
    content = b"\r".join(
        [
            b"MSH|^~\\&|ADT|H|O|O|20250301||ADT^A01|1|P|2.5",
            b"PID|1||4711||Muster^E||1964|F",
            b"PV1|1|I" + b"|" * 42 + b"20250228140000+0000",
            b"DG1|1||E11.9^Type 2 diabetes^I10C||20250301|F",
            b"AL1|1|DA|^Iohexol|SV||20200101",
        ]
    )
    kinds = {f.entry.kind: f.entry for f in read(content).facts}
    assert kinds[fusion_pb2.ENTRY_KIND_CONDITION].codes[0].system == "http://hl7.org/fhir/sid/icd-10-cm"
    assert kinds[fusion_pb2.ENTRY_KIND_ALLERGY].title == "Iohexol"
    assert kinds[fusion_pb2.ENTRY_KIND_ENCOUNTER].effective_at.ToDatetime(UTC).day == 28
    assert read(content).demographics[0].demographics.birth_date == "1964"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "hl7v2.no_header"),
        (b"PID|1", "hl7v2.no_header"),
        (b"MSH|", "hl7v2.bad_header"),
        (b"MSH|^^^^|A", "hl7v2.bad_header"),
        (b"MSH|^~\\&|A\rEVN|A01", "hl7v2.no_patient"),
        (b"MSH|^~\\&|A\rPID|1||1\rPID|2||2", "hl7v2.several_patients"),
        (b"MSH|^~\\&|A\rPID|1||1\rMSH|^~\\&|B\rPID|1||2", "hl7v2.several_messages"),
    ],
)
def test_refused_messages(content, reason):
    with pytest.raises(RefusedError) as refusal:
        read(content)
    assert refusal.value.reason == reason


def test_an_observation_without_code_is_refused_and_the_rest_is_read(samples):
    reading = read(samples.oru("NM|||1.2|mg/dL|||||F", "NM|2160-0^Creatinine^LN||1.2|mg/dL|||||F"))
    assert [r.reason for r in reading.refusals] == ["hl7v2.no_observation_code"]
    assert reading.accounted["OBX"] == 2
    assert sum(f.entry.kind == OBSERVATION for f in reading.facts) == 1


def test_any_line_ending_and_character_set(samples):
    content = samples.oru("ST|1234-5^Größe^LN||ja||||||F")
    names = {results(content.replace(b"\r", end))[0].entry.title for end in (b"\r", b"\n", b"\r\n")}
    assert names == {"Größe"}
    latin = content.decode().replace("|P|2.5.1", "|P|2.5.1||||||8859/1").encode("latin-1")
    assert results(latin)[0].entry.title == "Größe"
    assert results(content.decode().encode("latin-1"))[0].entry.title == "Größe"


def test_a_raw_line_break_inside_a_field_does_not_lose_the_rest(samples):
    (fact,) = results(samples.oru("TX|1234-5^X^LN||first\nand more||||||F"))
    assert fact.entry.text == "first and more"


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f", "a|b^c&d~e\\f"),
        ("\\X48C3A4\\", "Hä"),
        ("\\H\\bold\\N\\", "bold"),
        ("\\Z12\\ local", "\\Z12\\ local"),
        ("no end\\", "no end\\"),
    ],
)
def test_escapes(sent, read_as):
    assert unescape(sent, Separators()) == read_as


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("3.5-5.1", (3.5, 5.1)),
        ("3.5 to 5.1", (3.5, 5.1)),
        ("<200", (None, 200.0)),
        (">= 60", (60.0, None)),
        ("-2.0-2.0", (-2.0, 2.0)),
        ("negative", (None, None)),
    ],
)
def test_reference_ranges(text, bounds):
    assert parse_range(text) == bounds


def test_an_order_without_numbers_does_not_claim_a_later_one(samples):
    one = samples.oru("NM|2160-0^C^LN||1.2|mg/dL|||||F", order="", obr_time="20250301100000+0000")
    two = samples.oru("NM|2160-0^C^LN||1.9|mg/dL|||||C", order="", obr_time="20250401100000+0000", control="C2")
    assert results(one)[0].origin != results(two)[0].origin


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(noise):
    for content in (noise, b"MSH|^~\\&|" + noise, b"MSH|^~\\&|A\rPID|1||1\rOBX|" + noise):
        try:
            read_message(content, received_at=RECEIVED)
        except RefusedError:
            continue


@given(st.text(st.characters(blacklist_characters="\\", blacklist_categories=("Cs", "Cc")), max_size=40))
def test_text_escaped_by_the_standard_reads_back(text):
    escaped = text.translate({ord(a): f"\\{b}\\" for a, b in zip("|^&~", "FSTR", strict=True)})
    assert unescape(escaped, Separators()) == text


def test_the_truncation_character_of_v2_7_is_no_separator():
    message = hl7.parse(b"MSH|^~\\&#|A|B\rPID|1||1#2")
    assert message.first("PID").component(3) == "1#2"


def test_the_known_time_is_never_after_the_receipt(samples):
    sent = (RECEIVED + timedelta(days=3)).strftime("%Y%m%d%H%M%S+0000")
    assert results(samples.oru("NM|2160-0^C^LN||1|mg/dL|||||F", sent=sent))[0].known_at == RECEIVED
