"""Lesion change on a real patient with an expert's mask; prints the overlap. Run: `pytest -s -m slow` on this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from services.imaging.analysers.contract import Image, Region
from services.imaging.analysers.registry import run


def patient(folder: Path) -> tuple[dict[str, Image], np.ndarray]:
    """FLAIR, T1 and T2 of both visits on the grid of the expert's mask, by the transforms that come with the data."""
    grid = sitk.ReadImage(str(folder / "gt.nii.gz"))
    affine = np.eye(4)
    direction = np.array(grid.GetDirection()).reshape(3, 3)
    affine[:3, :3], affine[:3, 3] = direction * np.array(grid.GetSpacing()), grid.GetOrigin()
    images = {}
    for visit in (1, 2):
        to_common = sitk.ReadTransform(str(folder / f"study{visit}_FLAIR_to_common_space.txt"))
        for contrast, role in (("FLAIR", "flair"), ("T1W", "t1"), ("T2W", "t2")):
            way = sitk.CompositeTransform([to_common])
            if contrast != "FLAIR":
                # The last transform added is applied first: common space -> FLAIR -> T1 or T2.
                within = sitk.ReadTransform(str(folder / f"study{visit}_{contrast}_intrastudy_to_FLAIR.txt"))
                way = sitk.CompositeTransform([within, to_common])
            stored = sitk.ReadImage(str(folder / f"study{visit}_{contrast}.nii.gz"), sitk.sitkFloat32)
            moved = sitk.Resample(stored, grid, way, sitk.sitkLinear, 0.0)
            images[f"{role}_{visit}"] = Image(sitk.GetArrayFromImage(moved), affine)
    return images, sitk.GetArrayFromImage(grid) > 0


def on_grid(region: Region, shape: tuple[int, ...], images: dict[str, Image]) -> np.ndarray:
    """The region on the whole grid of the images."""
    start = np.linalg.solve(images["flair_1"].affine_lps, region.affine_lps[:, 3])[:3][::-1]
    whole = np.zeros(shape, bool)
    k, j, i = (round(float(v)) for v in start)
    depth, rows, columns = region.mask.shape
    whole[k : k + depth, j : j + rows, i : i + columns] = region.mask
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("with_t2", [False, True])
def test_overlap_with_the_expert(shared_data: Path, with_t2: bool) -> None:
    images, expert = patient(shared_data / "open-ms" / "patient01")
    if not with_t2:
        images = {role: image for role, image in images.items() if not role.startswith("t2")}
    result = run("lesion_change", images)
    found = on_grid(result.regions["new"], expert.shape, images) | on_grid(
        result.regions["enlarged"], expert.shape, images
    )
    both = found & expert
    dice = 2 * both.sum() / (found.sum() + expert.sum())
    lesions, count = ndimage.label(expert, np.ones((3, 3, 3)))
    hit = sum(bool(found[lesions == number].any()) for number in range(1, count + 1))
    marks, marked = ndimage.label(found, np.ones((3, 3, 3)))
    false = sum(not expert[marks == number].any() for number in range(1, marked + 1))
    voxel = images["flair_1"].voxel_mm3
    print(
        f"\nopen-ms patient 01, {'FLAIR and T2' if with_t2 else 'FLAIR'}: Dice {dice:.2f}, sensitivity "
        f"{both.sum() / expert.sum():.2f}, precision {both.sum() / max(1, found.sum()):.2f}; lesions found {hit} of {count}, "
        f"false {false}; volume {found.sum() * voxel:.0f} mm3 of {expert.sum() * voxel:.0f} mm3; "
        f"{'; '.join(result.cautions)}"
    )
    assert dice > (0.5 if with_t2 else 0.35)
    assert hit >= 3
    # The T1 images of the two visits come from unlike protocols.
    assert "brain_change_ml" not in result.values
