"""Times as the standards write them, read into aware UTC with the precision that was given.

Sources: FHIR R4 `date`, `dateTime`, `instant` (hl7.org/fhir/R4/datatypes.html#dateTime); HL7 v2.5.1 TS and DTM
(chapter 2A, sections 2.A.22 and 2.A.75); DICOM DA, TM and DT (PS3.5 section 6.2).
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum

from services.platform.errors import RefusedError


class Precision(IntEnum):
    """The smallest part of a time that the sender gave."""

    YEAR = 1
    MONTH = 2
    DAY = 3
    HOUR = 4
    MINUTE = 5
    SECOND = 6
    FRACTION = 7


@dataclass(frozen=True, order=True)
class Moment:
    """A time and how exactly it is known.

    `at`: aware UTC, the first instant of what was written. `latest`: the last instant that it can mean (the end of
    the day for a date). `zone_assumed`: the sender gave a time of day without an offset.
    """

    at: datetime
    latest: datetime
    precision: Precision
    zone_assumed: bool = False


_FHIR = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d\d:\d\d)?)?)?)?"
)
_COMPACT = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?")


def parse_fhir(text: str, zone: tzinfo = UTC) -> Moment:
    """Reads a FHIR date, dateTime or instant. Dates, and times without an offset, are taken in `zone`.

    Raises RefusedError `timestamp.malformed`.

    >>> parse_fhir("2024-02").latest.isoformat()
    '2024-02-29T23:59:59.999999+00:00'
    """
    match = _FHIR.fullmatch(text.strip())
    if match is None:
        raise _malformed("FHIR dateTime", "YYYY-MM-DDThh:mm:ss+zz:zz")
    offset = match.group(8)
    return _moment(match.groups()[:7], _offset(offset.replace(":", "") if offset else None), zone, "FHIR dateTime")


def parse_hl7(text: str, zone: tzinfo = UTC) -> Moment:
    """Reads an HL7 v2 TS or DTM: YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]. `zone`: MSH-7's or the site's.

    Raises RefusedError `timestamp.malformed`.

    >>> parse_hl7("202304120930-0500").at.isoformat()
    '2023-04-12T14:30:00+00:00'
    """
    return _compact(text.partition("^")[0], zone, "HL7 TS", "YYYYMMDDHHMMSS+ZZZZ")


def parse_dicom_dt(text: str, zone: tzinfo = UTC) -> Moment:
    """Reads a DICOM DT: YYYYMMDDHHMMSS.FFFFFF&ZZXX. `zone`: (0008,0201) TimezoneOffsetFromUTC, when there is one.

    Raises RefusedError `timestamp.malformed`.
    """
    return _compact(text, zone, "DICOM DT", "YYYYMMDDHHMMSS.FFFFFF&ZZXX")


def parse_dicom_date_time(date: str, time: str = "", zone: tzinfo = UTC) -> Moment:
    """Joins a DICOM DA and TM, the old colon and dot forms included. Without a TM the precision is a day.

    Raises RefusedError `timestamp.malformed`.
    """
    return _compact(date.strip().replace(".", "") + time.strip().replace(":", ""), zone, "DICOM DA and TM", "YYYYMMDD")


def parse_offset(text: str) -> timezone:
    """A fixed offset from "+0500", "-05:00" or "Z". Raises RefusedError `timestamp.malformed`."""
    found = _offset(text.strip().replace(":", ""))
    if found is None:
        raise _malformed("UTC offset", "+hhmm")
    return found


def _compact(text: str, zone: tzinfo, what: str, shape: str) -> Moment:
    match = _COMPACT.fullmatch(text.strip())
    if match is None:
        raise _malformed(what, shape)
    return _moment(match.groups()[:7], _offset(match.group(8)), zone, what)


def _offset(text: str | None) -> timezone | None:
    if not text:
        return None
    if text == "Z":
        return UTC
    if re.fullmatch(r"[+-]\d{4}", text) is None or int(text[1:3]) > 14 or int(text[3:5]) > 59:
        raise _malformed("UTC offset", "+hhmm")
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _moment(parts: tuple[str | None, ...], offset: timezone | None, zone: tzinfo, what: str) -> Moment:
    year, month, day, hour, minute, second, fraction = parts
    precision = Precision(sum(part is not None for part in parts))
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    leap = second == "60"
    try:
        local = datetime(
            int(year or 0),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            59 if leap else int(second or 0),
            microsecond,
            tzinfo=offset or zone,
        )
        at = local.astimezone(UTC)
        latest = (local + _span(precision, local)).astimezone(UTC) - timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise _malformed(what, "a date that exists") from None
    zone_assumed = offset is None and precision >= Precision.HOUR
    return Moment(at, max(at, latest), precision, zone_assumed)


def _span(precision: Precision, local: datetime) -> timedelta:
    if precision == Precision.YEAR:
        return timedelta(days=366 if monthrange(local.year, 2)[1] == 29 else 365)
    if precision == Precision.MONTH:
        return timedelta(days=monthrange(local.year, local.month)[1])
    spans = {
        Precision.DAY: timedelta(days=1),
        Precision.HOUR: timedelta(hours=1),
        Precision.MINUTE: timedelta(minutes=1),
        Precision.SECOND: timedelta(seconds=1),
    }
    return spans.get(precision, timedelta(microseconds=1))


def _malformed(what: str, shape: str) -> RefusedError:
    return RefusedError(
        "timestamp.malformed", f"not a {what}: expected {shape}", remedy="correct the time at its source and resend"
    )
