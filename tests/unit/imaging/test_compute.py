"""Models in this process; on Ray: tests/contract/test_ray.py."""

from __future__ import annotations

import numpy as np
import pytest

from services.clinical.dicom.series import load_series
from services.imaging.compute import LazyCompute, LocalCompute, open_compute
from services.platform.config import Compute, Models, Settings
from services.platform.errors import ConfigurationError, RefusedError
from tests.unit.imaging.dicom_samples import make_series


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
