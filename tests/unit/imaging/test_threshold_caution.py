"""A metabolic volume says that its threshold decides it where it does, and only there."""

from __future__ import annotations

import pytest

from services.imaging.measure import _threshold_range
from services.imaging.pet import Uptake


@pytest.mark.parametrize(("wide", "narrow", "told"), [(7600, 7600, False), (7600, 6900, False), (9000, 6500, True)])
def test_told_where_the_threshold_moves_the_volume(wide: float, narrow: float, told: bool) -> None:
    uptake = Uptake(9.8, 5.1, 1.0, 8.0, 7200, 36, (wide, narrow), (1, 2, 3))
    cautions = _threshold_range(uptake)
    assert bool(cautions) is told
    if told:
        assert f"{narrow / 1000:.1f} mL at 50% to {wide / 1000:.1f} mL at 35%" in cautions[0]
