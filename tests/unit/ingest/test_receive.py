"""The DICOM door: what is no good DICOM is named, kept and can be put in again."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from services.ingest import dicom_file, dicom_stream
from services.platform.errors import RefusedError
from tests.fixtures.dicom_files import ROOT, ct, encode, instance


def nested():
    item = Dataset()
    item.CodeValue = "1"
    item.EquivalentCodeSequence = [Dataset()]
    dataset = instance(ProcedureCodeSequence=[item, Dataset()])
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    return encode(dataset)


def rle():
    dataset = instance()
    dataset.compress(RLELossless, generate_instance_uid=False)
    return encode(dataset)


FILES = {
    "explicit": ct(),
    "implicit": ct(syntax=ImplicitVRLittleEndian),
    "big": ct(syntax=ExplicitVRBigEndian),
    "deflated": ct(syntax=DeflatedExplicitVRLittleEndian),
    "nested": nested(),
    "encapsulated": rle(),
}


def refusal_of(content):
    """The reason for which a file is refused, "" for a good one."""
    try:
        dicom_file.read_header(content, {}, "local")
    except RefusedError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "dicom.not_dicom"),
        (b"not DICOM at all" * 20, "dicom.not_dicom"),
        (ct()[:-1], "dicom.truncated"),
        (ct()[:300], "dicom.truncated"),
        (ct(PatientID=None), "dicom.missing_patient_id"),
        (ct(PatientID=" "), "dicom.missing_patient_id"),
        (ct(sop_class="1.2.3.4"), "dicom.unknown_sop_class"),
        (ct(sop_class="1.2.840.10008.1.20.1"), "dicom.unknown_sop_class"),
        (ct(StudyInstanceUID=None), "dicom.missing_uid"),
        (ct(StudyInstanceUID="../../etc"), "dicom.invalid_uid"),
    ],
)
def test_bad_files_are_quarantined_with_their_reason(parts, content, reason):
    outcome = parts.receiver.receive(content)
    assert outcome.status == "quarantined"
    assert outcome.refusal.reason == reason
    assert parts.reasons() == [reason]
    assert parts.quarantine.content(parts.quarantine.list()[0].id) == content


def test_a_directory_is_told_from_an_image():
    assert refusal_of(ct(sop_class="1.2.840.10008.1.3.10")) == "dicom.directory"


def test_quarantined_files_can_be_put_in_again(parts):
    bad = ct(2, PatientID="MRN-2")
    parts.receiver.receive(ct(1))
    parts.receiver.receive(bad)
    [item] = parts.quarantine.list()
    with pytest.raises(RefusedError):
        parts.quarantine.replay(item.id)
    assert parts.reasons() == ["dicom.contradictory_patient"]


@pytest.mark.parametrize("name", FILES)
def test_every_cut_of_a_file_is_seen(name):
    whole = FILES[name]
    dicom_file.read_header(whole, {}, "local")
    start = dicom_stream.data_set_offset(whole)
    reasons = [refusal_of(whole[:cut]) for cut in range(start, len(whole))]
    boundaries = [reason for reason in reasons if reason != "dicom.truncated"]
    # Cut between two elements nothing tells: then whole elements are gone.
    assert set(boundaries) <= {"", "dicom.missing_uid", "dicom.missing_patient_id"}
    assert len(boundaries) <= 2 * len(instance())
    assert reasons[-1] == "dicom.truncated"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused(name, place, noise):
    content = bytearray(FILES[name])
    place %= len(content)
    content[place : place + len(noise)] = noise
    assert refusal_of(bytes(content)).startswith(("dicom.", "identity.")) or not refusal_of(bytes(content))


def test_messages_do_not_hold_values(parts):
    outcome = parts.receiver.receive(ct(StudyInstanceUID="SECRET", PatientID="SECRET"))
    assert "SECRET" not in str(outcome.refusal)


def test_the_header_tells_issuer_time_and_attributes():
    header = dicom_file.read_header(
        ct(IssuerOfPatientID="GH", TimezoneOffsetFromUTC="+0200"), {"gh": "general-hospital"}, "local"
    )
    assert (header.patient.issuer, header.patient.value) == ("general-hospital", "MRN-1")
    assert header.study_time.isoformat() == "2025-01-02T08:15:00+00:00"
    assert header.text("study", "PatientName") == "Doe^Jane"
    assert header.text("series", "FrameOfReferenceUID") == f"{ROOT}.1.9"


def test_real_files_are_read(shared_data):
    read = 0
    for path in sorted((shared_data / "dicom-seg-sr").rglob("*.dcm")):
        assert dicom_file.read_header(path.read_bytes(), {}, "local").patient.value
        read += 1
    assert read > 10
