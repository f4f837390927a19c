"""Models in this process, and on a real Ray Serve session."""

from __future__ import annotations

import numpy as np
import pytest

from services.clinical.dicom.series import load_series
from services.imaging.compute import LazyCompute, LocalCompute, open_compute
from services.platform.config import Compute, Models, Settings
from services.platform.errors import ConfigurationError, RefusedError
from tests.unit.imaging.dicom_samples import make_series, read_folder


@pytest.fixture
def settings(repository_root, tmp_path):
    def make(models="models", **compute):
        return Settings(
            home=tmp_path, compute=Compute(num_cpus=1, **compute), models=Models(path=repository_root / models)
        )

    return make


def whole_head():
    noise = np.random.default_rng(0).integers(0, 500, (8, 160, 160)).astype(float)
    return load_series(make_series(noise, modality="MR", spacing=(1.2, 1.2, 1.2)))


def test_a_refusal_comes_through(settings):
    with pytest.raises(RefusedError) as caught:
        LocalCompute(settings()).hippocampus(whole_head())
    assert caught.value.reason.startswith("hippocampus.")


def test_a_missing_bundle_is_named(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="bundle"):
        LocalCompute(settings(tmp_path)).hippocampus(whole_head())


def test_nothing_starts_before_the_first_call(settings):
    compute = open_compute(settings(backend="ray"))
    assert isinstance(compute, LazyCompute)
    compute.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.shared_data
def test_ray_serve_gives_what_this_process_gives(settings, shared_data):
    from services.imaging.serving import RayCompute

    volume = load_series(read_folder(shared_data / "glioblastoma-mr" / "PGBM-003" / "11_HCropVolume"))
    compute = RayCompute(settings(object_store_mb=100))
    try:
        remote = compute.hippocampus(volume)
        with pytest.raises(RefusedError) as caught:
            compute.hippocampus(whole_head())
    finally:
        compute.close()
    assert caught.value.reason.startswith("hippocampus.")
    assert caught.value.remedy or caught.value.missing
    np.testing.assert_array_equal(remote.labels_zyx, LocalCompute(settings()).hippocampus(volume).labels_zyx)
