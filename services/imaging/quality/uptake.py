"""Whether uptake values can be true, whatever the patient has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def injected_share(suv: NDArray[np.float32], voxel_volume_mm3: float, weight_kg: float) -> float:
    """Activity in the field of view as a share of what was injected (decay-corrected); at most 1 in truth.

    SUV is activity per mL over injected activity per gram, so its integral over the image divided by the body's mass is
    this share.
    """
    return float(suv.sum(dtype=np.float64)) * voxel_volume_mm3 / 1000 / (weight_kg * 1000)


def body_mean(suv: NDArray[np.float32]) -> float | None:
    """Mean SUV of the body in the field of view; None where nothing stands out from the background.

    The body is the largest region above a tenth of the image's 95th percentile, with its holes filled. Over a whole body it
    is near 1 by definition.
    """
    positive = suv[suv > 0]
    if positive.size < 100:
        return None
    level = 0.1 * float(np.percentile(positive, 95))
    labels, count = ndimage.label(suv > level)
    if count == 0:
        return None
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return float(suv[ndimage.binary_fill_holes(largest)].mean(dtype=np.float64))
