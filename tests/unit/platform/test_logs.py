"""Logs: structured, correlated, and without patient data."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.platform import logs, telemetry
from services.platform.config import Settings


@pytest.fixture
def written(tmp_path: Path):
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level, hooks = root.handlers, root.level, (sys.excepthook, threading.excepthook)
    logs.configure(Settings(home=tmp_path, log={"level": "debug"}), stream=stream, room="ingest")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


def test_a_line_is_json_with_level_time_logger_room_and_trace(written) -> None:
    with telemetry.recorded_spans(), telemetry.span("store"):
        logs.get("dicom").info("study_stored", instances=12, study_uid="1.2.840.113619.2.55.3.604688119")
        trace_id = telemetry.trace_id()
    (line,) = written()
    assert line["event"] == "study_stored"
    assert line["instances"] == 12
    assert line["study_uid"] == "1.2.840.113619.2.55.3.604688119"
    assert (line["level"], line["logger"], line["room"]) == ("info", "osler.dicom", "ingest")
    assert line["trace_id"] == trace_id
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "key",
    ["patient_name", "PatientName", "mrn", "birth_date", "birthDate", "patientID", "accession-number", "token", "body"],
)
def test_keys_of_demographics_content_and_secrets_are_dropped(written, key: str) -> None:
    logs.get("x").info("seen", **{key: "secret-value"}, nested={key: "secret-value", "kept": 1})
    (line,) = written()
    assert key not in line
    assert line["nested"] == {"kept": 1}
    assert "secret-value" not in json.dumps(line)


@pytest.mark.parametrize(
    "text",
    ["Doe^Jane", "DOE^JANE^M^^DR", "Müller^Åse", "O'Neil^Pat", "12345678", "born 1954-03-02", "record 0012345 unknown"],
)
def test_text_that_looks_like_a_patient_is_masked(written, text: str) -> None:
    logs.get("x").warning("cannot read " + text, detail=text, many=[text, {"a": text}])
    line = json.dumps(written()[0])
    assert logs.MASK in line
    for word in ("Doe", "DOE", "ller", "Neil", "12345678", "1954", "0012345"):
        assert word not in line


@pytest.mark.parametrize(
    "text", ["1.2.840.10008.1.2", "a" * 64, "localhost:50051", "2024-05-01T10:00:00+00:00", "42 s"]
)
def test_identifiers_that_are_no_demographics_stay(text: str) -> None:
    assert logs.mask(text) == text


def test_exceptions_leave_type_and_place_only(written) -> None:
    try:
        raise ValueError("Doe^Jane has no dose")
    except ValueError:
        logs.get("x").exception("failed")
        logging.getLogger("some.library").exception("library failed")
    for line in written():
        assert line["error"] == "ValueError"
        assert "test_logs.py" in line["where"][-1]
        assert "Doe" not in json.dumps(line)


def test_what_nobody_caught_is_logged_without_its_message(written) -> None:
    def fail() -> None:
        raise ValueError("Doe^Jane")

    thread = threading.Thread(target=fail)
    # pytest puts its own hook in front of ours while a test runs.
    thread._invoke_excepthook = lambda _: threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
    logs.configure(Settings(), stream=logging.getLogger().handlers[0].stream)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("Doe^Jane"), None)
    first, second = written()
    assert (first["event"], first["error"], second["error"]) == ("uncaught", "ValueError", "ValueError")
    assert "Doe" not in json.dumps([first, second])


def test_records_of_libraries_are_redacted_too(written) -> None:
    logging.getLogger("pydicom").warning("Invalid value %s for %s", "Doe^Jane", "19540302")
    (line,) = written()
    assert logs.MASK in line["event"]
    assert "Doe" not in line["event"]
    assert "19540302" not in line["event"]


def test_objects_are_named_by_type_not_printed(written) -> None:
    class Dataset:
        def __repr__(self) -> str:
            return "PatientName: Doe"

    logs.get("x").info("seen", thing=Dataset(), raw=b"Doe")
    assert written()[0]["thing"] == "<Dataset>"
    assert written()[0]["raw"] == "<3 bytes>"


@given(st.from_regex(r"[A-Z][a-z]{1,12}\^[A-Z][a-z]{1,12}(\^[A-Z])?", fullmatch=True), st.text(max_size=10))
def test_no_person_name_survives(name: str, around: str) -> None:
    assert name not in logs.mask(f"{around} {name}")


@given(st.integers(min_value=100_000, max_value=10**14))
def test_no_long_number_survives(number: int) -> None:
    assert str(number) not in logs.mask(f"patient {number} of")
