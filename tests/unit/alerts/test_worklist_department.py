"""The simulated reading room against answers that can be worked out by hand, and the theory of queues."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.department.compare import figures, overtaken_by
from pipelines.department.model import ORDERS, Study, draw, first_in_first_out, osler, parameters, run
from services.alerts.worklist.priority import overtaking_bound

ALWAYS_ONE = [1] * 24


def study(uid: str, arrived: float, reading: float = 10.0, flagged: str = "", truth: str = "") -> Study:
    return Study(uid, arrived, reading, truth or flagged, flagged, "outpatient", False)


def test_first_in_first_out_by_hand() -> None:
    read = run([study("a", 0), study("b", 1), study("c", 25)], first_in_first_out, ALWAYS_ONE, 4)
    assert [(r.study.uid, r.taken, r.done) for r in read] == [("a", 0, 10), ("b", 10, 20), ("c", 25, 35)]
    assert overtaken_by(read) == 0


def test_a_flagged_study_is_read_as_soon_as_a_reader_is_free() -> None:
    work = [study("a", 0), study("b", 1), study("c", 2, flagged="immediate")]
    assert [r.study.uid for r in run(work, osler, ALWAYS_ONE, 4)] == ["a", "c", "b"]
    # Imaging has not spoken when the reader is free: nothing is known, so the order is that of arrival.
    assert [r.study.uid for r in run(work, osler, ALWAYS_ONE, 9)] == ["a", "b", "c"]


def test_readers_work_in_their_hours() -> None:
    hours = [0] * 8 + [1] * 16
    (only,) = run([study("a", 30)], first_in_first_out, hours, 4)
    assert (only.taken, only.done) == (8 * 60, 8 * 60 + 10)


def test_overtaking_is_told_in_minutes() -> None:
    read = run([study("a", 0), study("b", 1), study("c", 5, flagged="immediate")], osler, ALWAYS_ONE, 0)
    assert overtaken_by(read) == 4


def test_one_reader_and_random_work_wait_as_queueing_theory_says() -> None:
    """M/M/1: mean time in the system 1 / (mu - lambda); here 1 / (1/5 - 1/10) = 10 minutes."""
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(10.0, 20_000))
    work = [study(f"{n:06d}", float(at), float(random.exponential(5.0))) for n, at in enumerate(arrivals)]
    found = figures(run(work, first_in_first_out, ALWAYS_ONE, 4), 0.0, float(arrivals[-1]))
    assert found["others_mean"] == pytest.approx(10.0, rel=0.08)


def test_drawn_work_has_the_shares_of_the_table() -> None:
    rows = parameters()
    work = draw(rows, 60, seed=3)
    count = len(work)
    assert count == pytest.approx(60 * rows["studies_per_day"], rel=0.03)
    for category, share in rows["prevalence"].items():
        assert sum(s.truth == category for s in work) / count == pytest.approx(share, rel=0.15)
    seen = [s for s in work if s.truth]
    assert sum(bool(s.flagged) for s in seen) / len(seen) == pytest.approx(rows["detector"]["sensitivity"], abs=0.04)
    assert np.mean([s.reading for s in work]) == pytest.approx(rows["reading_minutes"]["mean"], rel=0.03)


def test_in_an_overloaded_room_nobody_is_overtaken_beyond_the_bound() -> None:
    rows = parameters() | {"studies_per_day": 450}
    work = draw(rows, 8, seed=11)
    bound = overtaking_bound().total_seconds() / 60
    overtaken = {name: overtaken_by(run(work, order, rows["readers"], 4)) for name, order in ORDERS.items()}
    assert overtaken["fifo"] == 0
    assert overtaken["osler"] <= bound < overtaken["flagged_first"]
