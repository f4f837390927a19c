"""From a whole head to both hippocampi: the box around each, the affine map, and what is refused. The whole path on real
heads is measured in tests/load/imaging/test_models.py, for its length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from services.imaging import whole_head_template
from services.imaging.hippocampus import load_bundle
from services.imaging.hippocampus_grid import RAS_AXES_IN_LPS, anatomical_axes
from services.imaging.whole_head import crop_bounds, measure_hippocampi, rules
from services.imaging.whole_head_template import _descend, _image, _matrix, _start
from services.platform.errors import RefusedError

BUNDLE = Path(__file__).parents[3] / "models" / "hippocampus"
SIZE = np.array([37.0, 54.0, 38.0])


def test_a_box_has_its_size_along_the_patient_axes_whatever_the_order_of_the_voxels() -> None:
    """Sagittal voxels of 1.2 x 1 x 0.8 mm: index axes run Anterior, Superior (turned over), Right."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1.2], [-1.0, 0, 0], [0, -0.8, 0]])
    affine[:3, 3] = [90.0, 110.0, 90.0]
    shape = (150, 250, 220)
    axes, _ = anatomical_axes(affine)
    middle = np.array([25.0, 20.0, -14.0])
    start, stop = crop_bounds(shape, affine, axes, middle, SIZE)
    lengths = np.subtract(stop, start)[::-1] * [1.0, 0.8, 1.2]
    np.testing.assert_allclose(lengths, [54, 38, 37], atol=1.2)
    centre = (np.add(start, stop)[::-1] - 1) / 2
    np.testing.assert_allclose(affine[:3, :3] @ centre + affine[:3, 3], middle, atol=1.2)


def test_a_box_beyond_the_volume_is_refused_and_one_at_its_edge_is_cut() -> None:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    shape = (100, 100, 100)
    with pytest.raises(RefusedError) as refusal:
        crop_bounds(shape, affine, RAS_AXES_IN_LPS, np.array([-5.0, -50.0, 50.0]), SIZE)
    assert refusal.value.reason == "whole_head.field_of_view"
    start, stop = crop_bounds(shape, affine, RAS_AXES_IN_LPS, np.array([-17.0, -50.0, 50.0]), SIZE)
    assert (start[2], stop[2] - start[2]) == (0, 36)


@pytest.mark.skipif(not BUNDLE.is_dir(), reason="needs the model bundle in models/hippocampus")
@pytest.mark.parametrize(
    ("shape", "spacing", "reason"),
    [
        ((60, 256, 256), (0.9, 0.9, 3.0), "hippocampus.spacing"),
        ((60, 60, 60), (1.0, 1.0, 1.0), "whole_head.field_of_view"),
        ((160, 160), (1.0, 1.0, 1.0), "whole_head.not_a_volume"),
        ((160, 160, 160), (1.0, 1.0, 1.0), "whole_head.no_contrast"),
    ],
)
def test_what_holds_no_thin_whole_head_is_refused_by_name(
    shape: tuple[int, ...], spacing: tuple[float, ...], reason: str
) -> None:
    array = np.zeros(shape, dtype=np.float32)
    if reason != "whole_head.no_contrast":
        array.flat[::2] = 1
    affine = np.diag([*(s * sign for s, sign in zip(spacing, (-1, -1, 1), strict=True)), 1.0])
    with pytest.raises(RefusedError) as refusal:
        measure_hippocampi(load_bundle(BUNDLE), array, affine)
    assert refusal.value.reason == reason


def head(scale: np.ndarray, shift: np.ndarray) -> sitk.Image:
    """An ellipsoid with darker chambers in it, on 4 mm voxels, as big as a brain; stretched and moved."""
    axes = np.meshgrid(*[np.arange(-104.0, 105, 4)] * 3, indexing="ij")
    z, y, x = ((axis - m) / s for axis, s, m in zip(axes, scale[::-1], shift[::-1], strict=True))
    inside = (x / 65) ** 2 + (y / 80) ** 2 + (z / 60) ** 2 <= 1
    chambers = ((x - 20) / 12) ** 2 + ((y + 15) / 25) ** 2 + ((z - 8) / 12) ** 2 <= 1
    chambers |= ((x + 20) / 12) ** 2 + ((y - 5) / 30) ** 2 + ((z + 10) / 14) ** 2 <= 1
    array = np.where(inside, 0.8 - 0.5 * chambers, 0).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -104
    return _image(array, affine)


def test_the_affine_map_finds_stretch_and_shift_that_were_put_in() -> None:
    """The map takes template points to the head's points: x -> scale x + shift."""
    scale, shift = np.array([1.08, 0.93, 1.04]), np.array([9.0, -14.0, 6.0])
    fixed, moving = head(np.ones(3), np.zeros(3)), head(scale, shift)
    found = _matrix(_descend(fixed, moving, _start(fixed, moving > 0), 2.0))
    points = np.array([[27.0, 22.0, -15.0, 1.0], [-27.0, 22.0, -15.0, 1.0], [0.0, -60.0, 30.0, 1.0]]).T
    expected = scale[:, None] * points[:3] + shift[:, None]
    assert np.linalg.norm((found @ points)[:3] - expected, axis=0).max() < 2.0


def test_the_template_lies_where_mni_space_says() -> None:
    """In LPS: its middle near the origin from side to side, the brain's top some 75 to 90 mm above the commissures."""
    if not whole_head_template.find_spec("nilearn"):
        pytest.skip('needs nilearn: pip install "osler[pipelines]"')
    image = whole_head_template.template()
    brain = np.argwhere(sitk.GetArrayViewFromImage(image) > 0)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    low, high = (
        direction @ (corner[::-1] * image.GetSpacing()) + image.GetOrigin() for corner in (brain.min(0), brain.max(0))
    )
    assert abs(low[0] + high[0]) < 3
    assert 75 < max(low[2], high[2]) < 90
    assert set(rules()["template"]["centre_ras_mm"]) == {"left", "right"}


def test_a_package_that_is_not_there_is_named_with_what_installs_it() -> None:
    with pytest.raises(RefusedError, match="no_such_package_osler") as refusal:
        whole_head_template._installed("no_such_package_osler")
    assert "osler[pipelines]" in refusal.value.remedy
