"""From recorded events of many patients to the figures that an analyst reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from services.advisor.tables import table as advisor_table
from services.analytics import export, figures, lake
from services.platform.errors import OslerError
from tests.unit.analytics.conftest import Lake
from tests.unit.analytics.hospital import (
    START,
    feedback,
    hospital_events,
    judged,
    predicted,
    recommended,
    study,
    updated,
)


@pytest.fixture
def hospital(lake_of: Lake) -> Path:
    lake_of.fill(hospital_events(lake_of))
    return lake_of.folder


def test_groups_come_from_chart_and_images_and_nothing_else_does(hospital: Path) -> None:
    (row,) = lake.query(hospital, "SELECT sex, age, site, manufacturer, scanner FROM studies WHERE patient_key = 'p1'")
    assert row == {"sex": "female", "age": "40-64", "site": "Ward 3", "manufacturer": "Acme", "scanner": "New"}
    born = lake.query(hospital, "SELECT birth_year FROM people WHERE key = 'p0'")[0]["birth_year"]
    assert born == datetime.now(UTC).year - 90
    text = "".join(str(pq.read_table(file).to_pylist()) for file in hospital.rglob("*.parquet"))
    assert "Acme" in text
    for secret in ("Doe", "MRN-1", "19600101", "1970-03-01", "Roe"):
        assert secret not in text


def test_fairness_shows_who_is_rejected_more_often(hospital: Path) -> None:
    by_sex = {row.group: row for row in figures.fairness_of(hospital, "rejected", "sex")}
    assert by_sex["female"].events == 0
    assert by_sex["male"].differs
    assert {row.group for row in figures.fairness_of(hospital, "lesion", "scanner")} == {"Old", "New"}
    with pytest.raises(ValueError, match="unknown attribute"):
        figures.fairness_of(hospital, "rejected", "patient_key")  # type: ignore[arg-type]


def test_drift_of_a_measurement_is_found_by_its_name(hospital: Path) -> None:
    rows = figures.drift_of(hospital, START + timedelta(days=50))
    assert [(row.signal, row.verdict) for row in rows] == [("measurement: SUVmax [1], pet@1", "alarm")]
    assert figures.drift_of(hospital, START + timedelta(days=500))[0].verdict == "too few"


def test_adherence_follows_a_patient_through_a_merge(lake_of: Lake) -> None:
    lake_of.fill(
        [
            recommended("a", 0, 60), recommended("a", 2, 60), study(lake_of, "a", "1.1", "New", 55),
            recommended("b", 0, 60), study(lake_of, "b2", "1.2", "New", 70), updated(lake_of, "b2", "male", "", ("b",)),
            recommended("c", 0, 60), study(lake_of, "c", "1.3", "New", 75),
            recommended("d", 0, 60), study(lake_of, "d", "1.4", "New", 55, modality="MR"),
            recommended("e", 0, 5000), recommended("f", 0, 60, code="1"),
        ]
    )  # fmt: skip
    rows = lake.query(lake_of.folder, "SELECT patient_key, outcome FROM adherence ORDER BY patient_key")
    assert [(row["patient_key"], row["outcome"]) for row in rows] == [
        ("a", "done"), ("b", "done"), ("c", "not done"), ("d", "not done"), ("e", "open"),
    ]  # fmt: skip


def test_order_modalities_are_those_that_are_proposed() -> None:
    proposed = {order["code"] for order in advisor_table("imaging_steps.yaml")["orders"].values()}
    connection = lake.connect(Path("nowhere"))
    assert {row[0] for row in connection.execute("SELECT code FROM order_modality").fetchall()} == proposed


def test_the_last_word_on_a_card_counts_and_a_repeated_study_was_not_avoided(lake_of: Lake) -> None:
    lake_of.fill(
        [
            feedback("1", "overridden", 0), feedback("1", "accepted", 1), feedback("2", "overridden", 0),
            feedback("3", "accepted", 0, patient="q"), study(lake_of, "q", "1.9", "New", 3),
        ]
    )  # fmt: skip
    assert lake.query(lake_of.folder, "SELECT rule_id, answered, accepted FROM alert_acceptance") == [
        {"rule_id": "duplicate.recent", "answered": 3, "accepted": 2}
    ]
    (row,) = lake.query(lake_of.folder, "SELECT warnings, accepted, avoided FROM duplicates_avoided")
    assert row == {"warnings": 3, "accepted": 2, "avoided": 1}


def test_forecasts_are_held_beside_what_came_later(lake_of: Lake) -> None:
    lake_of.fill(
        [
            predicted("p", 0, [(0, 20)], 0.9), predicted("p", 70, [(0, 20), (70, 23)], 0.9), judged("p", 40, "PROGRESSIVE"),
            predicted("q", 0, [(0, 20)], 0.2), predicted("q", 70, [(0, 20), (70, 30)], 0.9), judged("q", 60, "STABLE"),
        ]
    )  # fmt: skip
    (row,) = figures.coverage_of(lake_of.folder)
    assert (row.forecasts, row.inside_90, row.inside_50, row.median_absolute_error) == (2, 0.5, 0.0, pytest.approx(6.5))
    found = figures.calibration_of(lake_of.folder)
    assert found is not None
    assert (found.count, found.brier) == (2, pytest.approx((0.1**2 + 0.2**2) / 2))


def test_small_cells_lose_their_figures_on_the_way_out(lake_of: Lake, tmp_path: Path) -> None:
    lake_of.fill(
        [feedback(str(n), "accepted", 0, rule="a") for n in range(12)]
        + [feedback(f"b{n}", "overridden", 0, rule="b") for n in range(4)]
    )
    rows = {row["rule_id"]: row for row in export.rows_of(lake_of.folder, "alert_acceptance")}
    assert (rows["a"]["answered"], rows["a"]["suppressed"]) == (12, False)
    assert rows["b"] == dict.fromkeys(rows["b"]) | {"rule_id": "b", "suppressed": True}
    assert export.write(lake_of.folder, "alert_acceptance", tmp_path / "x.csv") == 2
    assert "b" in (tmp_path / "x.csv").read_text(encoding="utf-8")
    for view, out in (("findings", "x.csv"), ("volumes", "x.docx")):
        with pytest.raises(OslerError):
            export.write(lake_of.folder, view, tmp_path / out)
