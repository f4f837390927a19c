"""Turnaround of critical studies in a simulated reading room: Osler's order against first-in-first-out, in one run."""

from __future__ import annotations

import pytest

from pipelines.department.compare import compare
from pipelines.department.model import parameters


@pytest.mark.slow
def test_critical_studies_are_read_sooner_and_nobody_starves(capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(parameters(), days=14, replications=12, seed=1)
    with capsys.disabled():
        print(f"\nload {result['load']:.2f}, 12 x 14 days, minutes")
        for name, found in result["orders"].items():
            print(
                f"{name:14} critical {found['immediate_mean']['mean']:5.0f} ± {found['immediate_mean']['half']:.0f}, "
                f"within 60 min {found['immediate_within_60']['mean']:.2f}, "
                f"missed by imaging {found['immediate_missed_mean']['mean']:4.0f}, "
                f"others {found['others_mean']['mean']:4.0f}, longest {found['longest']['mean']:5.0f}"
            )
        difference = result["difference_to_fifo"]["osler"]["immediate_mean"]
        print(f"osler - fifo, same studies: {difference['mean']:+.0f} ± {difference['half']:.0f} min")
    assert difference["mean"] + difference["half"] < 0
    assert result["orders"]["osler"]["overtaken_by"]["mean"] <= result["overtaking_bound_minutes"]
