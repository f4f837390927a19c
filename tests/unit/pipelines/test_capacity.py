"""The capacity model against queueing theory, against the machine that was measured, and against what must never happen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy

from pipelines.capacity import model
from pipelines.capacity.measure import Patient, _turnarounds, _uid

RULES = model.assumptions()
ROOMS = ("ingest", *model.VISITS)


def costs(**cpu_s: float) -> dict[str, Any]:
    """A machine and studies of round numbers; rooms that are not named take next to nothing."""
    return {
        "machine": {"cores": 2},
        "idle_cores": dict.fromkeys(ROOMS, 0.0),
        "quiet_period_s": 4.0,
        "per_study": {"sender_cpu_s": 0.0, "cpu_s": dict.fromkeys(ROOMS, 1e-6) | cpu_s},
        "alone": {"seconds": [20.0]},
        "together": {"patients": 4, "seconds": 1.0},
    }


def test_the_simulation_says_what_the_machine_did() -> None:
    """Only the patients that were sent alone are known to it; what it says of those sent at once was measured."""
    if not model.MEASURED.exists():
        pytest.skip("this machine was not measured yet: python -m pipelines.capacity measure, on a quiet machine")
    simulated, seconds = model.one_machine(model.measured())
    assert simulated == pytest.approx(seconds, rel=0.10)


def test_a_machine_with_work_for_both_cores_takes_half_of_its_cpu_seconds() -> None:
    """20 studies, imaging and registration 1 CPU-s each and in parallel: 20 s on two cores, and the quiet period."""
    assert model.OneMachine(costs(imaging=1.0, registration=1.0), hop_s=0.0).run(10) == pytest.approx(24.0, abs=0.2)


def test_a_room_alone_cannot_use_the_second_core() -> None:
    assert model.OneMachine(costs(imaging=1.0), hop_s=0.0).run(10) == pytest.approx(24.0, abs=0.2)


def test_what_idle_rooms_take_makes_all_else_slower() -> None:
    idle = costs(imaging=1.0, registration=1.0) | {"idle_cores": dict.fromkeys(ROOMS, 0.0) | {"board": 1.0}}
    assert model.OneMachine(idle, hop_s=0.0).run(10) == pytest.approx(44.0, abs=0.2)


def test_the_wait_between_rooms_is_found_from_a_patient_alone() -> None:
    """Two studies one after the other, then five hops in a row: imaging, fusion, twin, advisor, board."""
    assert model.hop_of(costs()) == pytest.approx((20.0 - 4.0) / 5, abs=0.01)


def test_the_wait_at_one_pod_is_that_of_pollaczek_and_khinchine() -> None:
    """M/D/1: mean wait = rho * s / (2 * (1 - rho)). Source: Kleinrock, Queueing Systems I, 5.6."""
    env = simpy.Environment()
    pool = model.Pool("imaging", env, service_s=1.0, start_s=0.0, limit=10)
    pool.scale(1, at_once=True)
    random, took = np.random.default_rng(1), []

    def arrive() -> Any:
        for gap in random.exponential(1 / 0.7, 8_000):
            yield env.timeout(gap)
            env.process(one())

    def one() -> Any:
        began, done = env.now, env.event()
        pool.waiting.put(done)
        yield done
        took.append(env.now - began)

    env.process(arrive())
    env.run()
    assert np.mean(took) - 1.0 == pytest.approx(0.7 / (2 * 0.3), rel=0.1)


def test_arrivals_follow_the_hours() -> None:
    times = model.arrivals(240_000, RULES["hourly"], 0.0, 24.0, seed=1)
    counted = np.bincount((times // 3600).astype(int), minlength=24)
    expected = 240_000 * np.asarray(RULES["hourly"]) / sum(RULES["hourly"])
    assert np.all(np.abs(counted - expected) < 5 * np.sqrt(expected))
    assert np.all(np.diff(times) >= 0)


@pytest.mark.parametrize("policy", model.POLICIES)
def test_nothing_is_lost_when_half_of_the_pods_vanish(policy: str) -> None:
    heavy = costs(imaging=60.0, registration=30.0)
    cluster = model.Cluster(
        heavy, RULES, dict.fromkeys(model.VISITS, 4), model.POLICIES[policy](RULES),
        zone_lost=True, first_hour=RULES["zone_lost_at_hour"] - 0.25,
    )  # fmt: skip
    seen = cluster.run(per_day=2_500, hours=1.0, seed=2)
    assert seen.studies > 150
    assert seen.unfinished == 0
    assert all(p.in_hand == 0 and not p.waiting.items for p in cluster.pools.values())


def test_pods_for_the_busiest_hour() -> None:
    """24,000 studies, 9/106 of them in the busiest hour, 20 s of imaging each, 70 % busy."""
    wanted = model.pods_for(24_000, costs(imaging=20.0), RULES)["imaging"]
    share = max(RULES["hourly"]) / sum(RULES["hourly"])
    assert wanted == int(np.ceil(24_000 * share / 3600 * 20 / 0.7))


def test_a_copy_of_a_patient_has_uids_of_its_own() -> None:
    first, second = _uid("1.2.3", 0), _uid("1.2.3", 1)
    assert first != second
    assert first == _uid("1.2.3", 0)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid[5] != "0" for uid in (first, second))
    assert _turnarounds([]) == []
    assert Patient((), b"", ()).dicom_bytes == 0
