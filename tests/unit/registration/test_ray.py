"""The same pair on a Ray cluster gives the same transform, and refusals come through."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from phantoms import phantom

from services.platform.config import Settings
from services.platform.errors import RefusedError
from services.registration.align import align
from services.registration.compute import RayCompute, open_compute
from services.registration.geometry import inverse, rigid
from services.registration.plan import Purpose
from services.registration.rigid import SETTINGS

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TRUTH = rigid((3, -4, 5), (8, -6, 7), (0, 0, 0))


@pytest.fixture
def ray_compute(tmp_path):
    ray = pytest.importorskip("ray")
    settings = Settings.load(home=tmp_path, compute={"backend": "ray", "num_cpus": 1})
    yield open_compute(settings)
    ray.shutdown()


def test_ray_gives_what_a_local_run_gives(ray_compute, monkeypatch) -> None:
    # Tasks run in processes of their own, with the settings of the file.
    monkeypatch.setitem(SETTINGS, "forward_runs", 3)
    monkeypatch.setitem(SETTINGS, "inverse_runs", 3)
    for name, count in (("coarse", 5000), ("middle", 12000), ("fine", 40000)):
        monkeypatch.setitem(SETTINGS[name], "samples", count)
    fixed, moving = phantom("CT"), phantom("MR", to_body=inverse(TRUTH), seed=2)
    assert isinstance(ray_compute, RayCompute)
    there = ray_compute.align(fixed, moving, Purpose.HYBRID)
    assert np.array_equal(there.matrix, align(fixed, moving, purpose=Purpose.HYBRID).matrix)
    with pytest.raises(RefusedError) as refused:
        ray_compute.align(dataclasses.replace(fixed, array=np.zeros_like(fixed.array)), moving, Purpose.HYBRID)
    assert refused.value.reason == "registration.uniform_image"
