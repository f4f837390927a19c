"""Predict, simulate, compare and calibrate: the same answer through gRPC, the command line and the library."""

from __future__ import annotations

import asyncio
import csv
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from osler.twin.v1 import twin_pb2, twin_pb2_grpc
from typer.testing import CliRunner

from services.cli import app
from services.platform import rpc
from services.platform.config import Settings
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.security import Security
from services.twin import calibrate, compare, predictions, simulate
from services.twin.service import TwinService

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 10, 1, tzinfo=UTC)
SIZES = [(0, 80.0, "mm"), (55, 6.2, "cm"), (110, 55.0, "mm"), (171, 58.0, "")]
CHANGE = START + timedelta(days=190)
COLORECTAL = {"disease": "colorectal_cancer_metastatic", "regimen": "lv5fu2"}


def make_subject(sizes=SIZES, **known):
    subject = twin_pb2.Subject(**{**COLORECTAL, **known})
    for day, value, unit in sizes:
        subject.series.measurements.add(value=value, unit=unit).at.FromDatetime(START + timedelta(days=day))
    return subject


def make_courses():
    courses = [twin_pb2.Course(name="go on"), twin_pb2.Course(name="stop"), twin_pb2.Course(name="switch")]
    courses[1].phases.add(own_effect=0).start.FromDatetime(CHANGE)
    courses[2].phases.add(own_effect=0, added_regimen="folfox6").start.FromDatetime(CHANGE)
    return courses


def nobody(key):
    raise rpc.NotFoundError("nobody")


def _plain(message):
    """The answer without the time at which it was made."""

    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "recorded_at"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


REQUESTS = {
    "Predict": twin_pb2.PredictRequest(subject=make_subject(), horizon_days=200, seed=7, explain=True),
    "SimulateCourses": twin_pb2.SimulateCoursesRequest(subject=make_subject(), courses=make_courses(), seed=7),
    "Compare": twin_pb2.CompareRequest(subject=make_subject(), courses=make_courses(), seed=7),
    "Calibrate": twin_pb2.CalibrateRequest(subject=make_subject(), seed=7),
}


def _library():
    return {
        "Predict": [simulate.predict(REQUESTS["Predict"], nobody, NOW)],
        "SimulateCourses": list(simulate.simulate_courses(REQUESTS["SimulateCourses"], nobody, NOW)),
        "Compare": [compare.compare(REQUESTS["Compare"], nobody, NOW)],
        "Calibrate": [calibrate.calibrate(REQUESTS["Calibrate"], nobody, NOW)],
    }


@pytest.fixture(scope="module")
def library():
    return {name: [_plain(answer) for answer in answers] for name, answers in _library().items()}


@pytest.fixture
def servicer(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    migrate(database, "twin")
    yield TwinService(database)
    database.close()


def _over_grpc(servicer, settings, call):
    """Runs `call(stub)` against a real server of the platform."""

    async def run():
        security = Security.from_settings(settings)
        name = twin_pb2.DESCRIPTOR.services_by_name["TwinService"].full_name
        server = await rpc.serve(
            [(name, lambda s: twin_pb2_grpc.add_TwinServiceServicer_to_server(servicer, s))],
            settings=settings,
            security=security,
            address="127.0.0.1:0",
        )
        token = security.issue("dr-a", ["clinician"])
        try:
            async with rpc.channel(server.address, settings, lambda: token) as opened:
                return await call(twin_pb2_grpc.TwinServiceStub(opened))
        finally:
            await server.stop(0)

    return asyncio.run(run())


def test_grpc_gives_the_answer_of_the_library(servicer, tmp_path, library):
    async def call(stub):
        found = {name: [await getattr(stub, name)(REQUESTS[name])] for name in ("Predict", "Compare", "Calibrate")}
        found["SimulateCourses"] = [item async for item in stub.SimulateCourses(REQUESTS["SimulateCourses"])]
        return found

    answers = _over_grpc(servicer, Settings.load(home=tmp_path), call)
    assert {name: [_plain(item) for item in items] for name, items in answers.items()} == library


def _command(tmp_path, *arguments):
    path = tmp_path / "sizes.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "value", "unit"])
        writer.writerows([(START + timedelta(days=day)).isoformat(), value, unit] for day, value, unit in SIZES)
    known = ["-m", str(path), "--disease", COLORECTAL["disease"], "--regimen", COLORECTAL["regimen"]]
    result = CliRunner().invoke(app, ["twin", arguments[0], *known, *arguments[1:], "--seed", "7", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_line_gives_the_answer_of_the_library(tmp_path, library):
    at = CHANGE.isoformat()
    courses = ["-c", "go on", "-c", f"stop={at}:0", "-c", f"switch={at}:0+folfox6"]

    def bare(value):
        text = json.dumps(value)
        return json.loads(text, object_hook=lambda item: {k: v for k, v in item.items() if k != "recorded_at"})

    assert bare(_command(tmp_path, "predict", "--days", "200")) == library["Predict"][0]
    assert bare(_command(tmp_path, "simulate", *courses)) == library["SimulateCourses"]
    assert bare(_command(tmp_path, "compare", *courses)) == library["Compare"][0]
    assert bare(_command(tmp_path, "calibrate")) == library["Calibrate"][0]


def test_the_answers_are_valid_and_hang_together(library):
    from protovalidate import validate

    answers = _library()
    for items in answers.values():
        for item in items:
            validate(item)
    (predicted,), (compared,) = answers["Predict"], answers["Compare"]
    assert [item.course for item in compared.outcomes] == ["go on", "stop", "switch"]
    assert sum(item.probability_best for item in compared.outcomes) == pytest.approx(1.0)
    pair = next(item for item in compared.pairs if (item.course, item.other) == ("go on", "stop"))
    assert pair.probability_smaller > 0.95
    assert pair.size_ratio.value < 1
    by = [item.probability for item in predicted.forecast.progression_by]
    assert by == sorted(by)
    assert by[-1] == pytest.approx(predicted.forecast.probability_of_progression)
    assert len(answers["Calibrate"][0].foreseen) == 3
    assert predicted.forecast.provenance.inputs[0].kind == "tumour-series"


def test_the_value_of_imaging_is_answered_where_a_scan_is_planned():
    request = twin_pb2.PredictRequest(subject=make_subject())
    request.planned_imaging.FromDatetime(START + timedelta(days=171 + 84))
    values = simulate.predict(request, nobody, NOW).forecast.imaging_values
    assert [(item.at.ToDatetime(UTC) - START).days - 171 for item in values] == [28, 42, 56, 70]
    request.planned_imaging.FromDatetime(START)
    with pytest.raises(RefusedError) as refusal:
        simulate.predict(request, nobody, NOW)
    assert refusal.value.reason == "growth.imaging_before_last_measurement"


def test_a_forecast_from_a_snapshot_values_scans_too(snapshot, lesion):
    entries = [lesion("1", 0, "a", 40), lesion("2", 60, "a", 30)]
    (forecast,) = predictions.predict(snapshot(entries), "0" * 64, NOW).forecasts
    last = forecast.observed[-1].at.ToDatetime(UTC)
    weeks = [(item.at.ToDatetime(UTC) - last).days / 7 for item in forecast.imaging_values]
    assert weeks == [4, 6, 8, 10, 12]
    assert all(item.days_saved >= 0 for item in forecast.imaging_values)


BAD = [
    ([(0, 40, "mm"), (50, -3, "mm")], {}, "growth.negative_value"),
    ([(0, 40, "mm"), (0, 42, "mm")], {}, "growth.duplicate_times"),
    ([(50, 40, "mm"), (0, 42, "mm")], {}, "growth.times_out_of_order"),
    ([(0, 62, "mm"), (50, 5.8, "mm"), (100, 55, "mm")], {}, "growth.unit_confusion"),
    ([(0, 40, "mm"), (50, 4000, "mm")], {}, "growth.implausible_size"),
    ([(0, 40, "mL")], {}, "growth.unknown_unit"),
    ([(0, 40, "furlong")], {}, "growth.unknown_unit"),
    ([(0, 40, "mm"), (50, float("nan"), "mm")], {}, "growth.not_a_number"),
    ([(900, 40, "mm")], {}, "growth.future_measurement"),
    ([(0, 40, "mm")], {"regimen": "aspirin"}, "growth.unknown_regimen"),
    ([(0, 40, "mm")], {"disease": "influenza"}, "growth.unknown_disease"),
    ([(0, 40, "mm")], {"quantity": "shoe_size"}, "growth.unknown_quantity"),
]


@pytest.mark.parametrize(("sizes", "known", "reason"), BAD)
def test_bad_input_is_refused_with_a_reason(sizes, known, reason):
    with pytest.raises(RefusedError) as refusal:
        simulate.predict(twin_pb2.PredictRequest(subject=make_subject(sizes, **known)), nobody, NOW)
    assert refusal.value.reason == reason


def test_a_refusal_reaches_the_caller_as_one(servicer, tmp_path):
    async def call(stub):
        with pytest.raises(grpc.RpcError) as error:
            await stub.Predict(twin_pb2.PredictRequest(subject=make_subject([(0, -1, "mm")])))
        with pytest.raises(grpc.RpcError) as missing:
            await stub.Predict(twin_pb2.PredictRequest(subject=twin_pb2.Subject(patient_key="nobody")))
        return error.value, missing.value

    refused, missing = _over_grpc(servicer, Settings.load(home=tmp_path), call)
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert rpc.details_of(refused).reason == "growth.negative_value"
    assert missing.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("sizes", [[(0, 40, "mm")], [(0, 0, "mm"), (60, 3, "mm")], [(0, 0, "mm")]])
def test_little_or_nothing_measured_gives_a_wide_band_and_says_so(sizes):
    forecast = simulate.predict(twin_pb2.PredictRequest(subject=make_subject(sizes)), nobody, NOW).forecast
    assert forecast.curve[-1].upper_90 - forecast.curve[-1].lower_90 > 10
    assert any("only" in caution or "detection limit" in caution for caution in forecast.cautions)


def _changed(*phases):
    course = twin_pb2.Course(name="changed")
    for day, effect, regimen in phases:
        course.phases.add(own_effect=effect, added_regimen=regimen).start.FromDatetime(START + timedelta(days=day))
    return [course, twin_pb2.Course(name="as it is")]


@pytest.mark.parametrize(
    ("courses", "reason"),
    [
        (_changed((20, 0, "")), "growth.change_before_last_measurement"),
        (_changed((200, 0, ""), (200, 1, "")), "growth.phases_out_of_order"),
        (_changed((200, 0, "aspirin")), "growth.unknown_regimen"),
        ([twin_pb2.Course(name="a"), twin_pb2.Course(name="a")], "growth.duplicate_courses"),
    ],
)
def test_courses_that_make_no_sense_are_refused(courses, reason):
    with pytest.raises(RefusedError) as refusal:
        compare.compare(twin_pb2.CompareRequest(subject=make_subject(), courses=courses), nobody, NOW)
    assert refusal.value.reason == reason


def test_a_measurement_unlike_the_prior_is_noticed():
    wild = [(0, 60, "mm"), (30, 130, "mm"), (60, 40, "mm"), (90, 140, "mm"), (120, 35, "mm")]
    answer = calibrate.calibrate(twin_pb2.CalibrateRequest(subject=make_subject(wild)), nobody, NOW)
    assert sum(not item.inside_90 for item in answer.foreseen) >= 2
    assert any("unlike" in caution for caution in answer.cautions)
