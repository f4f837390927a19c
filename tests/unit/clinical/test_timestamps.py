"""Times of FHIR, HL7 v2 and DICOM become aware UTC with the precision that was given."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clinical.timestamps import (
    Precision,
    parse_dicom_date_time,
    parse_dicom_dt,
    parse_fhir,
    parse_hl7,
    parse_offset,
)
from services.platform.errors import RefusedError


@pytest.mark.parametrize(
    ("text", "at", "latest", "precision"),
    [
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999", Precision.YEAR),
        ("2023", "2023-01-01T00:00:00", "2023-12-31T23:59:59.999999", Precision.YEAR),
        ("2024-02", "2024-02-01T00:00:00", "2024-02-29T23:59:59.999999", Precision.MONTH),
        ("2024-02-10", "2024-02-10T00:00:00", "2024-02-10T23:59:59.999999", Precision.DAY),
        ("2024-02-10T08:15:30+02:00", "2024-02-10T06:15:30", "2024-02-10T06:15:30.999999", Precision.SECOND),
        ("2024-02-10T08:15:30.629Z", "2024-02-10T08:15:30.629", "2024-02-10T08:15:30.629", Precision.FRACTION),
    ],
)
def test_fhir_times(text, at, latest, precision):
    moment = parse_fhir(text)
    assert moment.at == datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert moment.latest == datetime.fromisoformat(latest).replace(tzinfo=UTC)
    assert moment.precision == precision
    assert not moment.zone_assumed


@pytest.mark.parametrize(
    ("text", "at", "precision"),
    [
        ("2023", "2023-01-01T00:00:00", Precision.YEAR),
        ("20230412", "2023-04-12T00:00:00", Precision.DAY),
        ("202304120930-0500", "2023-04-12T14:30:00", Precision.MINUTE),
        ("20230412093015.1234+0100", "2023-04-12T08:30:15.123400", Precision.FRACTION),
        ("20230412093015^S", "2023-04-12T09:30:15", Precision.SECOND),
    ],
)
def test_hl7_times(text, at, precision):
    moment = parse_hl7(text)
    assert moment.at == datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert moment.precision == precision


def test_a_time_without_offset_is_read_in_the_zone_of_the_sender_and_says_so():
    moment = parse_hl7("202304120930", timezone(timedelta(hours=-5)))
    assert moment.at == datetime(2023, 4, 12, 14, 30, tzinfo=UTC)
    assert moment.zone_assumed
    assert not parse_hl7("202304120930Z".replace("Z", "+0000")).zone_assumed


def test_a_date_is_a_day_of_the_senders_zone():
    moment = parse_hl7("20230412", timezone(timedelta(hours=-5)))
    assert moment.at == datetime(2023, 4, 12, 5, tzinfo=UTC)
    assert moment.latest == datetime(2023, 4, 13, 5, tzinfo=UTC) - timedelta(microseconds=1)


def test_dicom_times():
    assert parse_dicom_dt("20200102030405.5&0000".replace("&", "+")).at == datetime(2020, 1, 2, 3, 4, 5, 500000, UTC)
    assert parse_dicom_date_time("20200102", "030405").at == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_dicom_date_time("2020.01.02", "03:04:05.25").at == datetime(2020, 1, 2, 3, 4, 5, 250000, UTC)
    assert parse_dicom_date_time("20200102").precision == Precision.DAY
    assert parse_dicom_date_time("20200102", "030405", parse_offset("+0200")).at.hour == 1


def test_a_leap_second_is_the_last_second_of_its_minute():
    assert parse_fhir("2016-12-31T23:59:60Z").at == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2024-13", "2023-02-29", "2024-02-10T25:00:00Z", "0000", "2024-02-10T10:00:00+25:00"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(RefusedError) as refusal:
        parse_fhir(text)
    assert refusal.value.reason == "timestamp.malformed"
    assert "2023" not in refusal.value.message


@pytest.mark.parametrize("text", ["", "0000", "DATE!", "20231301", "2023041", "20230412T0930"])
def test_what_is_no_hl7_time_is_refused(text):
    with pytest.raises(RefusedError):
        parse_hl7(text)


@given(st.integers(-(10**10), 4 * 10**9), st.integers(0, 999_999), st.integers(-14 * 60, 14 * 60))
def test_every_time_reads_back(seconds, microseconds, minutes):
    offset = timezone(timedelta(minutes=minutes))
    when = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=microseconds)).astimezone(offset)
    assert parse_fhir(when.isoformat()).at == when
    assert parse_hl7(when.replace(microsecond=0).strftime("%Y%m%d%H%M%S%z")).at == when.replace(microsecond=0)
    assert parse_fhir(when.isoformat()).at.tzinfo == UTC


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    for parse in (parse_fhir, parse_hl7, parse_dicom_dt):
        try:
            moment = parse(text)
        except RefusedError:
            continue
        assert moment.at <= moment.latest
