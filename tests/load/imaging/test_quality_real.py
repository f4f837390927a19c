"""How often the quality gate raises an alarm on real images that readers have used. Prints every alarm.

What was looked at by eye: the X-rays that are flagged for text all carry the word "Bettaufnahme" in their pixels, and no
other X-ray of the set carries a line of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from services.clinical.dicom.pixels import open_instance
from services.imaging.quality import Verdict, assess_series, burned_in, motion, noise, truncation, uptake
from services.imaging.quality.verdict import graded, rules

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]
WRITTEN = {"19073f37", "436a6348", "689836b5", "bace1e45"}


def series_of(shared: Path) -> Iterator[tuple[str, list[Dataset]]]:
    for folder in (*sorted(shared.glob("sts-petctmr/dicom/*/*/image")), *sorted(shared.glob("glioblastoma-mr/*/*"))):
        yield str(folder.relative_to(shared)), [open_instance(path) for path in sorted(folder.glob("*.dcm"))]


def test_dicom_series(shared_data):
    alarms, count = [], 0
    for name, datasets in series_of(shared_data):
        count += 1
        judged = assess_series(datasets)
        alarms += [(name, issue) for issue in judged.issues]
        assert judged.verdict is not Verdict.REJECT
    print(f"\n{count} CT, MR and PET series: {len(alarms)} alarm(s)")
    for name, issue in alarms:
        print(f"  {name}: {issue.code}: {issue.message}")
    # One PET was scanned 83 minutes after injection, which the guideline counts as late.
    assert [issue.code for _, issue in alarms] == ["uptake_time"]


def test_uptake_of_31_patients(shared_data):
    low, high = rules()["thresholds"]["uptake"]["body_mean"]
    means = []
    for path in sorted(shared_data.glob("sts-petctmr/nifti/*/PET_image.nii.gz")):
        image = nibabel.load(path)
        suv = image.get_fdata(dtype=np.float32)
        means.append(uptake.body_mean(suv))
        assert uptake.injected_share(suv, float(np.prod(image.header.get_zooms()[:3])), 40.0) < 1.0
    outside = [mean for mean in means if not low <= mean <= high]
    print(f"\n{len(means)} PET: mean SUV of the body {min(means):.2f} to {max(means):.2f}; alarms {len(outside)}")
    assert not outside
    # The same images with a dose ten times too large or too small on record.
    caught = [scale for scale in (0.1, 10) for mean in means if not low <= mean * scale <= high]
    print(f"dose wrong by a factor of ten: {len(caught)} of {2 * len(means)} caught by the body's mean alone")


def test_head_mr_of_another_hospital(shared_data):
    limits = rules()["thresholds"]
    alarms = []
    paths = sorted(shared_data.glob("open-ms/patient01/study*_[FT]*.nii.gz"))
    for path in paths:
        image = nibabel.load(path)
        array = np.ascontiguousarray(image.get_fdata(dtype=np.float32).T)
        spacing = tuple(float(edge) for edge in image.header.get_zooms()[:3])
        ratio = noise.signal_to_noise(array, slices=limits["mr_noise"]["slices"])
        jump = motion.largest_jump(array, spacing, size=limits["slice_jump_mm"]["matrix"])
        found = {
            "noise": graded(1 / ratio, limits["mr_noise"]) > Verdict.ACCEPT,
            "motion": jump.mm
            > max(limits["slice_jump_mm"]["warn"], limits["slice_jump_mm"]["spacing_multiple"] * spacing[2]),
            "truncated_anatomy": truncation.end_share(array, top_last=True) > limits["vertex"]["warn"],
            "blank_slices": bool(truncation.blank_slices(array)),
            "burned_in_text": burned_in.text_in_stack(array, burned_in.Glyphs(6, 40, 5)) > 0,
        }
        alarms += [(path.name, name) for name, raised in found.items() if raised]
    print(f"\n{len(paths)} MR of heads: {len(alarms)} alarm(s) {alarms}")
    assert not alarms


def test_text_in_x_rays(shared_data):
    paths = [*sorted(shared_data.glob("cxr-hannover/png/*.png")), *sorted(shared_data.glob("cxr-misc/tests/**/*.png"))]
    rule = rules()["thresholds"]["burned_in"]
    glyphs = burned_in.Glyphs(*rule["glyph_px"], rule["least_in_line"])
    flagged = {
        path.stem
        for path in paths
        if burned_in.text_in_picture(np.asarray(Image.open(path).convert("L"), np.float32), glyphs)
    }
    wrong = flagged - WRITTEN
    print(
        f"\n{len(paths)} X-rays: text found in {len(flagged & WRITTEN)} of {len(WRITTEN)}, {len(wrong)} false alarm(s)"
    )
    assert flagged == WRITTEN
