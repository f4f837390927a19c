"""The MNI template against its inverted, noisy copy: a known answer to a hundredth of a voxel."""

from __future__ import annotations

import pytest

pytest.importorskip("nilearn", reason="the MNI template comes with nilearn")

from pipelines.registration_study.template import template_pair
from services.registration.align import align
from services.registration.geometry import distances
from services.registration.plan import Purpose
from services.registration.quality import Verdict


def test_ten_degrees_and_twelve_millimetres_are_found_to_a_fiftieth_of_a_millimetre() -> None:
    pair = template_pair()
    found = align(pair.fixed, pair.moving, purpose=Purpose.FOLLOW_UP)
    assert distances(found.matrix, pair.truth, pair.points).mean() <= 0.02
    assert found.judgement.verdict is Verdict.GOOD, found.judgement
    assert found.judgement.measures.predicted_tre_mm < 0.3
