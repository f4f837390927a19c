"""The shipped prior and its calibration, on the trial that it was fitted to (real data, when the folder is here)."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines import tumour_growth_priors
from services.twin import growth
from services.twin.tables import table


@pytest.fixture(scope="module")
def patients(shared_data):
    return tumour_growth_priors.read(shared_data / "tumour-growth" / "colorectalLongi.csv")


def test_the_shipped_means_are_what_the_pipeline_fits(patients):
    fitted = tumour_growth_priors.fit(patients, sigmas=(0.16,))
    shipped = table("growth.yaml")["quantities"]["sum_longest_diameters"]
    assert fitted.ln_d_mean == pytest.approx(shipped["ln_d_mean"], abs=0.02)
    assert fitted.ln_g_mean == pytest.approx(shipped["ln_g_mean"], abs=0.02)
    assert fitted.ln_d_sd < shipped["ln_d_sd"]
    assert fitted.ln_g_sd < shipped["ln_g_sd"]


def test_the_next_size_of_real_tumours_falls_inside_the_band(patients):
    prior = growth.prior_for("sum_longest_diameters")
    inside = []
    for patient in patients:
        sizes = 10.0 * patient.sizes_cm
        for known in range(2, len(sizes)):
            posterior = growth.fit(patient.days[:known], sizes[:known], prior)
            band = growth.bands(posterior, [patient.days[known]])[0]
            size = max(sizes[known], prior.detection_limit)
            inside.append(band.lower_90 <= size <= band.upper_90)
    assert len(inside) == 282
    assert 0.85 <= np.mean(inside) <= 0.95
