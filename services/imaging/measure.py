"""Turning regions of one series into measured findings: uptake on PET, size on CT and MR, hippocampal volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from osler.imaging.v1 import imaging_pb2

from services.clinical import codes
from services.clinical.dicom.derived import tracking_uid
from services.clinical.dicom.rtstruct import PARALLEL_COSINE, in_plane_axes, plane_normal
from services.clinical.suv import SuvScale
from services.clinical.volume import ImageVolume
from services.imaging import pet, size
from services.imaging.findings import Interval, MeasuredRegion, Value
from services.imaging.hippocampus import LABELS, HippocampusSegmentation, LabelMeasure
from services.imaging.regions import Filled, OutlinedRegion, RegionKind

LESION = imaging_pb2.FINDING_KIND_LESION
ORGAN = imaging_pb2.FINDING_KIND_ORGAN
REFERENCE = imaging_pb2.FINDING_KIND_REFERENCE
CONTOUR_UNCERTAINTY = "not estimated: one outline by one reader says nothing about how readers differ"
PET_CITATIONS = (
    "EANM FDG PET/CT procedure guidelines 2.0, Eur J Nucl Med Mol Imaging 2015;42:328",
    "PERCIST 1.0, J Nucl Med 2009;50:122S",
    "QIBA FDG-PET/CT Profile 1.13",
)
RECIST_CITATION = "RECIST 1.1, Eur J Cancer 2009;45:228"
PHYSIOLOGICAL = (
    "candidate found by a threshold alone: physiological uptake (brain, heart, kidneys, bladder, bowel) is not excluded"
)
CLIPPED_SHARE = 0.01


def _is_lesion(region: OutlinedRegion) -> bool:
    return region.kind is RegionKind.LESION


def uptake_values(uptake: pet.Uptake, scale: SuvScale, method: str, *, lesion: bool) -> tuple[Value, ...]:
    """SUV measurements of one region; SUL where height and sex are known (Janmahasatian)."""
    rule = pet.rules()["uncertainty"]
    unmeasured = "not estimated: no published repeatability for this measure in a region of this size"

    def repeatable(concept: codes.Concept, value: float, unit: str) -> Value:
        """Test-retest interval of QIBA's profile, which holds for lesions of 2 cm and more."""
        if uptake.volume_mm3 < rule["smallest_lesion_mm3"]:
            return Value(concept, value, unit, method, unmeasured)
        half = 1.96 * rule["suv_within_subject_cv"] * value
        return Value(concept, value, unit, method, Interval(max(0.0, value - half), value + half, rule["level"]))

    def plain(concept: codes.Concept, value: float, unit: str, why: str = unmeasured) -> Value:
        return Value(concept, value, unit, method, why)

    bw, lbm, lean = codes.UNIT_SUV_BW, codes.UNIT_SUV_LBM, scale.lean_janmahasatian
    values = [repeatable(codes.SUV_MAX, uptake.suv_max, bw)] if lesion else []
    if uptake.suv_peak is not None and lesion:
        values.append(repeatable(codes.SUV_PEAK, uptake.suv_peak, bw))
        if lean is not None:
            values.append(repeatable(codes.SUL_PEAK, uptake.suv_peak * lean, lbm))
    values.append(plain(codes.SUV_MEAN, uptake.suv_mean, bw))
    values.append(plain(codes.SUV_SD, uptake.suv_sd, bw))
    if lean is not None:
        values.append(plain(codes.SUL_MEAN, uptake.suv_mean * lean, lbm))
        values.append(plain(codes.SUL_SD, uptake.suv_sd * lean, lbm))
    if lesion:
        why = "not estimated as an interval; the range over thresholds is among the cautions"
        values.append(plain(codes.METABOLIC_VOLUME, uptake.volume_mm3 / 1000, codes.UNIT_ML, why))
        values.append(plain(codes.TOTAL_LESION_GLYCOLYSIS, uptake.glycolysis_g, codes.UNIT_G, why))
    else:
        values.append(plain(codes.VOLUME, uptake.volume_mm3, codes.UNIT_MM3, CONTOUR_UNCERTAINTY))
    return tuple(values)


def _threshold_range(uptake: pet.Uptake) -> tuple[str, ...]:
    """The caution that the threshold decides the volume; none where it does not."""
    low, high = pet.rules()["threshold"]["relative_range"]
    wide, narrow = (volume / 1000 for volume in uptake.relative_volumes_mm3)
    if wide - narrow < pet.rules()["threshold"]["told_from"] * uptake.volume_mm3 / 1000:
        return ()
    return (
        f"metabolic volume depends on its threshold: {narrow:.1f} mL at {high:.0%} to {wide:.1f} mL at {low:.0%} "
        "of SUVmax inside the region",
    )


def _clipped(filled: Filled) -> tuple[str, ...]:
    if filled.outside_fraction <= CLIPPED_SHARE:
        return ()
    return (f"{filled.outside_fraction:.0%} of the outlined volume lies outside the image and was not measured",)


def outlined_on_pet(
    filled: Filled, suv: NDArray[np.float32], volume: ImageVolume, scale: SuvScale, patient_key: str
) -> MeasuredRegion:
    """Uptake in an outlined lesion or reference region."""
    region = filled.region
    mask, method, measured = filled.mask, region.method, filled.volume_mm3
    lesion = _is_lesion(region)
    if region.kind is RegionKind.LIVER and measured > pet.rules()["liver_reference"]["organ_mm3"]:
        sphere = pet.liver_sphere(mask, volume.spacing_mm, _right_side(volume))
        if sphere is not None:
            mask, method = sphere, f"3 cm sphere in the right half of the {region.method}"
            measured = float(mask.sum()) * volume.voxel_volume_mm3
    uptake = pet.measure(suv, mask, volume.spacing_mm, measured)
    finding_type = codes.NEOPLASM if lesion else codes.LIVER if region.kind is RegionKind.LIVER else codes.AORTA
    return MeasuredRegion(
        mask=mask,
        kind=LESION if lesion else REFERENCE,
        finding_type=finding_type,
        site=region.site if lesion else finding_type,
        tracking_id=region.tracking_id,
        tracking_uid=tracking_uid(patient_key, region.tracking_id),
        values=uptake_values(uptake, scale, method, lesion=lesion),
        method="pet-quantification@1",
        cautions=(*scale.cautions, *_clipped(filled), *(_threshold_range(uptake) if lesion else ())),
        inputs=(("dicom-instance", region.source_sop_uid, ""),),
        parameters={**scale.how, "region": method},
        citations=PET_CITATIONS,
    )


def _right_side(volume: ImageVolume) -> int:
    """+1 where the patient's right (-x in LPS) lies at higher column index, else -1."""
    return 1 if volume.affine_lps[0, 0] < 0 else -1


def candidates_on_pet(
    suv: NDArray[np.float32], volume: ImageVolume, scale: SuvScale, patient_key: str
) -> list[MeasuredRegion]:
    """Regions above the fixed threshold, each marked a candidate; tracked within this study only."""
    masks, more = pet.candidates(suv, volume.spacing_mm)
    rule = pet.rules()["threshold"]
    method = f"fixed threshold SUV {rule['fixed_suv']:g}"
    regions = []
    for number, mask in enumerate(masks, start=1):
        uptake = pet.measure(suv, mask, volume.spacing_mm)
        cautions = [*scale.cautions, PHYSIOLOGICAL, *_threshold_range(uptake)]
        if more:
            cautions.append(f"{more} further candidate(s) above the threshold are not listed")
        tracking_id = f"candidate {number}"
        regions.append(
            MeasuredRegion(
                mask=mask,
                kind=LESION,
                finding_type=codes.LESION,
                tracking_id=tracking_id,
                tracking_uid=tracking_uid(patient_key, f"{volume.series_instance_uid} {tracking_id}"),
                values=uptake_values(uptake, scale, method, lesion=True),
                method="pet-quantification@1",
                algorithm=("fixed SUV threshold", "1"),
                cautions=tuple(cautions),
                parameters={**scale.how, "region": method},
                citations=(*PET_CITATIONS, "Barrington and Meignan, J Nucl Med 2019;60:1096"),
            )
        )
    return regions


def outlined_on_anatomy(filled: Filled, volume: ImageVolume, patient_key: str) -> MeasuredRegion:
    """Volume and axial size of an outlined lesion on CT or MR; mean attenuation on CT."""
    region = filled.region
    method = region.method
    values = [Value(codes.VOLUME, filled.volume_mm3, codes.UNIT_MM3, method, CONTOUR_UNCERTAINTY)]
    cautions = list(_clipped(filled))
    found, axial = _size(filled, volume)
    if found is not None:
        values.append(Value(codes.LONG_AXIS, found.long_axis_mm, codes.UNIT_MM, method, CONTOUR_UNCERTAINTY))
        values.append(Value(codes.SHORT_AXIS, found.short_axis_mm, codes.UNIT_MM, method, CONTOUR_UNCERTAINTY))
        if not axial:
            cautions.append("diameters were measured in the plane of acquisition, which is not axial")
    if volume.unit == codes.UNIT_HU:
        mean = float(volume.array[filled.mask].mean(dtype=np.float64))
        values.append(Value(codes.MEAN_ATTENUATION, mean, codes.UNIT_HU, method, CONTOUR_UNCERTAINTY))
    return MeasuredRegion(
        mask=filled.mask,
        kind=LESION,
        finding_type=codes.NEOPLASM,
        site=region.site,
        tracking_id=region.tracking_id,
        tracking_uid=tracking_uid(patient_key, region.tracking_id),
        values=tuple(values),
        method="lesion-size@1",
        cautions=tuple(cautions),
        inputs=(("dicom-instance", region.source_sop_uid, ""),),
        parameters={"region": method},
        citations=(RECIST_CITATION,),
    )


def _size(filled: Filled, volume: ImageVolume) -> tuple[size.AxialSize | None, bool]:
    """Diameters from the contours themselves where they lie in the slices, else from the mask; and whether axial."""
    normal = volume.affine_lps[:3, 2] / np.linalg.norm(volume.affine_lps[:3, 2])
    axial = abs(float(normal[2])) > 0.8
    roi = filled.region.roi
    if roi is not None and abs(float(plane_normal(roi.contours) @ normal)) >= PARALLEL_COSINE:
        axes = in_plane_axes(normal)
        return size.axial_size([[points @ axes.T for points in roi.contours]]), axial
    return size.axial_size(size.outlines_of_mask(filled.mask, volume.spacing_mm)), axial


def hippocampus_regions(result: HippocampusSegmentation, patient_key: str) -> list[MeasuredRegion]:
    """The whole hippocampus, and its anterior and posterior parts, each with its calibrated interval."""
    labels = result.labels_zyx
    parts: Sequence[tuple[str, codes.Concept, NDArray[np.bool_], LabelMeasure]] = (
        ("hippocampus", codes.HIPPOCAMPUS, np.asarray(labels > 0), result.total),
        (
            "hippocampus, anterior part",
            codes.HIPPOCAMPUS_ANTERIOR,
            np.asarray(labels == LABELS["anterior"]),
            result.anterior,
        ),
        (
            "hippocampus, posterior part",
            codes.HIPPOCAMPUS_POSTERIOR,
            np.asarray(labels == LABELS["posterior"]),
            result.posterior,
        ),
    )
    method = f"{result.model_name}@{result.model_version}"
    regions = []
    for name, concept, mask, part in parts:
        low, high = part.interval_mm3
        interval = Interval(low, high, part.interval_level)
        regions.append(
            MeasuredRegion(
                mask=mask,
                kind=ORGAN,
                finding_type=concept,
                site=codes.HIPPOCAMPUS,
                tracking_id=name,
                tracking_uid=tracking_uid(patient_key, name),
                values=(Value(codes.VOLUME, part.volume_mm3, codes.UNIT_MM3, method, interval),),
                method=method,
                algorithm=(result.model_name, result.model_version),
                learned=True,
                cautions=(*(caution.message for caution in result.cautions), "the side (left or right) is not known"),
                inputs=(("model-weights", method, result.weights_sha256),),
                parameters={
                    "mean_entropy_nats": f"{part.mean_entropy_nats:.4f}",
                    "mirror_difference_mm3": f"{part.mirror_difference_mm3:.1f}",
                },
                citations=("Medical Segmentation Decathlon, Task04, arXiv:1902.09063",),
            )
        )
    return regions
