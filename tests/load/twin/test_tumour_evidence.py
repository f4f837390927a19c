"""What the tumour twin must show: five folds of FFCD 2000-05, and virtual patients whose truth is known."""

from __future__ import annotations

import json
import sys

import pytest

from pipelines.twin import evaluate, ffcd, study

pytestmark = pytest.mark.slow


def _say(text):
    print(text, file=sys.stderr)


@pytest.mark.shared_data
def test_every_later_size_of_ffcd_from_the_earlier_ones(shared_data):
    report = evaluate.run(ffcd.read(shared_data / "tumour-growth"), progress=_say)
    print("\n" + json.dumps(report, indent=1))
    methods = report["methods"]
    assert report["predictions"] == 525
    assert 0.87 <= report["coverage_90"] <= 0.93
    assert methods["last value"]["twin_lower_by"] >= 0.15
    for name in ("linear mixed model", "linear mixed model, by regimen", "quadratic mixed model"):
        assert methods[name]["twin_lower_by"] >= 0.05
    progression = report["progression"]
    for group in (progression["every visit"], progression["at the next visit"]["all"], report["response"]):
        lower, upper = group["interval_95"]
        assert lower < group["c_index"] < upper
    # The time to progression cannot be foretold from the sizes of this trial; the status at the next visit can.
    assert progression["at the next visit"]["all"]["interval_95"][0] > 0.7
    assert report["response"]["interval_95"][0] > 0.7


def test_progression_is_foretold_where_the_model_is_the_truth():
    """The code that finds no discrimination on the trial finds it where there is some."""
    report = study.progression(100, 1)
    print("\n" + json.dumps(report, indent=1))
    assert report["every visit"]["interval_95"][0] > 0.55
    assert report["every visit"]["mean_predicted_180_days"] == pytest.approx(
        report["every visit"]["observed_180_days"], abs=0.1
    )


def test_virtual_patients_are_recovered_and_the_better_treatment_named():
    report = study.run(500, 1, _say)
    print("\n" + json.dumps(report, indent=1))
    coverage = report["coverage_90"]
    assert 0.88 <= sum(coverage.values()) / len(coverage) <= 0.92
    # 500 patients tell a coverage to 0.013 (one standard error); three of them.
    for name, share in coverage.items():
        assert 0.86 <= share <= 0.94, name
    assert report["treatment"]["clear"] > 200
    assert report["treatment"]["named_right"] >= 0.95
