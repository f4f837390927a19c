"""Local and Ray give the same answers and the same refusals: models on Ray Serve, registration in Ray tasks, one session."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.clinical.dicom.series import load_series
from services.imaging.compute import LocalCompute
from services.platform.config import Settings
from services.platform.errors import RefusedError
from services.platform.ray_session import join_session
from services.registration.align import align
from services.registration.compute import RayCompute as RegistrationOnRay
from services.registration.compute import open_compute
from services.registration.geometry import inverse, rigid
from services.registration.plan import Purpose
from services.registration.rigid import SETTINGS
from tests.unit.imaging.dicom_samples import make_series, read_folder
from tests.unit.registration.phantoms import phantom

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TRUTH = rigid((3, -4, 5), (8, -6, 7), (0, 0, 0))


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    ray = pytest.importorskip("ray")
    home = tmp_path_factory.mktemp("ray")
    settings = Settings.load(home=home, compute={"backend": "ray", "num_cpus": 1, "object_store_mb": 100})
    assert join_session(settings.compute)
    yield settings
    ray.shutdown()


def test_registration_is_the_same_in_a_ray_task(on_ray: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tasks run in processes of their own, with the settings of the file.
    monkeypatch.setitem(SETTINGS, "forward_runs", 3)
    monkeypatch.setitem(SETTINGS, "inverse_runs", 3)
    compute = open_compute(on_ray)
    assert isinstance(compute, RegistrationOnRay)
    fixed, moving = phantom("CT"), phantom("MR", to_body=inverse(TRUTH), seed=2)
    there = compute.align(fixed, moving, Purpose.HYBRID)
    assert np.array_equal(there.matrix, align(fixed, moving, purpose=Purpose.HYBRID).matrix)
    with pytest.raises(RefusedError) as refused:
        compute.align(dataclasses.replace(fixed, array=np.zeros_like(fixed.array)), moving, Purpose.HYBRID)
    assert refused.value.reason == "registration.uniform_image"


@pytest.mark.shared_data
def test_a_model_is_the_same_on_ray_serve(on_ray: Settings, shared_data: Path, repository_root: Path) -> None:
    from services.imaging.serving import RayCompute

    settings = on_ray.model_copy(
        update={"models": on_ray.models.model_copy(update={"path": repository_root / "models"})}
    )
    crop = load_series(read_folder(shared_data / "glioblastoma-mr" / "PGBM-003" / "11_HCropVolume"))
    thick = np.random.default_rng(0).integers(0, 500, (8, 160, 160)).astype(float)
    compute = RayCompute(settings)
    try:
        remote = compute.hippocampus(crop)
        with pytest.raises(RefusedError) as caught:
            compute.hippocampus(load_series(make_series(thick, modality="MR", spacing=(1.2, 1.2, 1.2))))
    finally:
        compute.close()
    assert caught.value.reason.startswith("hippocampus.")
    assert caught.value.remedy or caught.value.missing
    np.testing.assert_array_equal(remote.labels_zyx, LocalCompute(settings).hippocampus(crop).labels_zyx)
