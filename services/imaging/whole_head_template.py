"""Brain mask of a head, and the affine map between a head and the MNI template. Needs the extra `pipelines`."""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
import yaml
from numpy.typing import NDArray

from services.platform.errors import RefusedError

Array = NDArray[np.float64]
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: deepbet keeps the last bounding box on its object.
_LOCK = threading.Lock()
COARSE_MM, FINE_MM = 4.0, 2.0


def _installed(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RefusedError(
            "whole_head.not_installed",
            f"the package {package} is not installed",
            remedy='Install the extra that brings it: pip install "osler[pipelines]".',
        )
    return Path(spec.origin).parent


@cache
def _extraction() -> Any:
    _installed("deepbet")
    from deepbet import BrainExtraction

    return BrainExtraction(no_gpu=True)


def brain_mask(array_zyx: NDArray[np.float32], affine_lps: Array) -> NDArray[np.bool_]:
    """Brain with ventricles and sulcal fluid, (z, y, x); about 10 s on one core.

    Raises:
        RefusedError: `whole_head.no_brain` where none is found, `whole_head.not_installed`.
    """
    image = nib.Nifti1Image(array_zyx.transpose(2, 1, 0), _LPS_RAS @ affine_lps)  # type: ignore[no-untyped-call]
    with _LOCK:
        try:
            _, mask, _ = _extraction().run(image)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise RefusedError(
                "whole_head.no_brain",
                "no brain was found in the volume",
                missing=["a whole head in T1-weighted contrast"],
            ) from error
    return np.asarray(mask.dataobj).transpose(2, 1, 0) > 0


@cache
def template() -> sitk.Image:
    """The MNI template, brain only, in LPS."""
    file = yaml.safe_load(Path(__file__).with_name("whole_head.yaml").read_text(encoding="utf-8"))["template"]["file"]
    loaded: Any = nib.load(_installed("nilearn") / file)  # type: ignore[attr-defined]
    return _image(np.asarray(loaded.dataobj, dtype=np.float32).transpose(2, 1, 0), _LPS_RAS @ loaded.affine)


def _image(array_zyx: NDArray[Any], affine_lps: Array) -> sitk.Image:
    image = sitk.GetImageFromArray(array_zyx)
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing).ravel().tolist())
    return image


def affine_to_template(
    array_zyx: NDArray[np.float32], brain_zyx: NDArray[np.bool_], affine_lps: Array
) -> tuple[Array, float]:
    """The affine map from the template to a head, and how well the brains then overlap.

    Mutual information of the two brains, 4 mm and then 2 mm, from the match of their centres and sizes.

    Returns:
        4x4, maps template points to the head's points (LPS mm); and the Dice of the two brains, 0 to 1.
    """
    fixed = template()
    scale = max(float(np.percentile(array_zyx[brain_zyx], 99.5)), 1e-6)
    moving = _image(np.where(brain_zyx, np.clip(array_zyx / scale, 0, 1), 0).astype(np.float32), affine_lps)
    mask = _image(brain_zyx.astype(np.uint8), affine_lps)
    transform = _start(fixed, mask)
    for step, spacing in ((3, COARSE_MM), (1, FINE_MM)):
        transform = _descend(_coarser(fixed, spacing), _coarser(moving, spacing), transform, 2.0 * step)
    mapped = sitk.Resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0)
    a, b = sitk.GetArrayViewFromImage(mapped) > 0, sitk.GetArrayViewFromImage(fixed) > 0
    overlap = 2 * float((a & b).sum()) / float(a.sum() + b.sum())
    return _matrix(transform), overlap


def _start(fixed: sitk.Image, mask: sitk.Image) -> sitk.AffineTransform:
    """Centre on centre, and each patient axis scaled by the ratio of the brains' extents along it."""
    points = [_points(image) for image in (fixed > 0, mask)]
    centres = [one.mean(axis=0) for one in points]
    scales = points[1].std(axis=0) / points[0].std(axis=0)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centres[0].tolist())
    transform.SetTranslation((centres[1] - centres[0]).tolist())
    transform.SetMatrix(np.diag(scales).ravel().tolist())
    return transform


def _points(mask: sitk.Image) -> Array:
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[::50, ::-1]
    direction = np.array(mask.GetDirection()).reshape(3, 3)
    return np.asarray(index * np.array(mask.GetSpacing()) @ direction.T + np.array(mask.GetOrigin()))


def _coarser(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    sizes = [max(1, round(n * s / spacing_mm)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    smooth = sitk.SmoothingRecursiveGaussian(image, spacing_mm / 2)
    spacings = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), sizes, strict=True)]
    return sitk.Resample(
        smooth, sizes, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacings, image.GetDirection(), 0.0
    )


def _descend(
    fixed: sitk.Image, moving: sitk.Image, start: sitk.AffineTransform, step_mm: float
) -> sitk.AffineTransform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    # Every voxel is looked at, so that the same head gives the same map.
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step_mm, 0.01, 100, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetNumberOfThreads(1)
    found = sitk.AffineTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    method.Execute(fixed, moving)
    return found


def _matrix(transform: sitk.AffineTransform) -> Array:
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = centre + np.array(transform.GetTranslation()) - matrix @ centre
    return result
