"""How long a beat of the heart twin takes: from nothing to a beat that repeats itself, and from a similar beat."""

from __future__ import annotations

import statistics
import time

import pytest

from services.twin import validation_heart
from services.twin.heart import circulation as model
from services.twin.heart.parameters import Intervention, changed, reference
from services.twin.heart.twin import compare, fit

MEASURED = {
    "systolic_bp_mmhg": 105.0,
    "diastolic_bp_mmhg": 68.0,
    "ejection_fraction": 0.32,
    "lv_end_diastolic_ml": 210.0,
}
VARIANTS = [
    Intervention(),
    Intervention(afterload=1.6),
    Intervention(contractility=0.5),
    Intervention(preload_ml=300),
    Intervention(heart_rate_per_min=120),
]


def _milliseconds(work):
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)


def _tell(name, runs):
    wall, processor = zip(*runs, strict=True)
    print(
        f"{name}: wall median {statistics.median(wall):.1f} ms (best {min(wall):.1f}, worst {max(wall):.1f}), "
        f"processor median {statistics.median(processor):.1f} ms"
    )
    return statistics.median(processor)


@pytest.mark.slow
def test_a_converged_beat_takes_less_than_50_ms(capsys):
    adult = reference()
    hearts = [changed(adult, variant) for variant in VARIANTS]
    similar = [changed(heart, Intervention(afterload=1.05)) for heart in hearts]
    seeds = [model.solve(heart).states[0] for heart in hearts]
    cold = [_milliseconds(lambda heart=heart: model.solve(heart)) for heart in hearts * 10]
    warm = [
        _milliseconds(lambda heart=heart, seed=seed: model.solve(heart, seed))
        for heart, seed in list(zip(similar, seeds, strict=True)) * 10
    ]
    with capsys.disabled():
        print()
        _tell("full convergence from the reference state", cold)
        _tell("convergence from a similar beat", warm)
        print(f"beats marched: {[model.solve(heart).beats for heart in hearts]} cold")
        _tell("fit to four measurements", [_milliseconds(lambda: fit(82.0, MEASURED)) for _ in range(3)])
        twin = fit(82.0, MEASURED)
        _tell(
            "what-if with intervals",
            [_milliseconds(lambda: compare(twin, Intervention(afterload=0.8))) for _ in range(3)],
        )


@pytest.mark.slow
def test_newton_needs_far_fewer_beats_than_waiting(capsys, monkeypatch):
    """The same model, marched beat after beat until it settles to 0.001, against Newton on the map of one beat."""
    adult = changed(reference(), Intervention(afterload=1.6))
    newton = model.solve(adult)
    monkeypatch.setattr(model, "_MAX_BEATS", 2000)
    monkeypatch.setattr(model, "_newton", lambda circuit, march, state, change: state + change)
    waited = model.solve(adult, tolerance=1e-3)
    with capsys.disabled():
        print(f"\nbeats until periodic: {newton.beats} by Newton (to 1e-6), {waited.beats} by waiting (to 1e-3)")
    assert waited.beats > 5 * newton.beats


@pytest.mark.slow
def test_intervals_hold_the_truth_of_virtual_patients(capsys):
    found = validation_heart.report(60)
    with capsys.disabled():
        print(f"\n{found.verdict}")
        for name, one in found.figures["coverage_90"].items():
            print(f"{name}: {one['value']:.2f} ({one['lower']:.2f} to {one['upper']:.2f})")
    shares = [one["value"] for one in found.figures["coverage_90"].values()]
    assert 0.85 <= sum(shares) / len(shares) <= 0.95
