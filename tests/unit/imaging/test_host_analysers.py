"""The analysers behind the host's contract give what they give alone."""

from __future__ import annotations

import numpy as np
import pytest

from services.clinical.volume import ImageVolume
from services.imaging.analysers import registry
from services.imaging.analysers.contract import Image
from services.imaging.host.contract import Inputs, Kind
from services.imaging.host.registry import analysers
from services.platform.errors import RefusedError

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def body():
    """A vertebral body as a block of 40 x 30 x 25 mm."""
    mask = np.zeros((40, 50, 60), np.float32)
    mask[8:33, 10:40, 10:50] = 1
    return mask


def test_each_analyser_has_a_card(body):
    known = analysers()
    assert set(known) == set(registry.NAMES)
    for name, analysis in known.items():
        card = analysis.card
        assert (card.name, card.kind) == (name, Kind.ANALYSER)
        assert card.roles
        assert card.citations
        assert card.limits


def test_the_same_values(body):
    volume = ImageVolume(body, AFFINE, "SEG", "1.2", "1", "1.3")
    through = analysers()["vertebra"].run(Inputs({"body": volume}))
    alone = registry.run("vertebra", {"body": Image(body, AFFINE)})
    assert [item.value for item in through.measurements] == list(alone.values.values())
    assert through.measurements
    assert through.cautions == alone.cautions
    assert [(mask.name, int(mask.array.sum())) for mask in through.masks] == [
        (name, int(region.mask.sum())) for name, region in alone.regions.items()
    ]


def test_a_missing_series_is_refused_by_name():
    with pytest.raises(RefusedError) as error:
        analysers()["vertebra"].run(Inputs({}))
    assert error.value.reason == "vertebra.missing_input"
    assert error.value.missing == ("body",)
