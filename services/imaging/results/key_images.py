"""Key images: which slices show the findings best, as a key object selection that every PACS lists.

Source: DICOM PS3.3 A.35.4 (Key Object Selection Document), PS3.16 TID 2010, CID 7010 (document titles); IHE Radiology Key
Image Note.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from services.clinical.dicom import derived
from services.clinical.dicom.geometry import Frame
from services.platform.errors import RefusedError


def key_slices(masks: Sequence[NDArray[np.bool_]]) -> tuple[int, ...]:
    """For each region (z, y, x) the slice, from 0, in which it is largest, the middle one of equals; each slice once."""
    chosen: list[int] = []
    for mask in masks:
        areas = mask.sum(axis=(1, 2))
        if areas.max(initial=0) == 0:
            continue
        largest = np.flatnonzero(areas == areas.max())
        slice_ = int(largest[len(largest) // 2])
        if slice_ not in chosen:
            chosen.append(slice_)
    return tuple(chosen)


def build_key_images(
    frames: Sequence[Frame],
    slices: Sequence[int],
    description: str,
    identity: derived.ObjectIdentity,
    results: Sequence[Dataset] = (),
) -> hd.ko.KeyObjectSelectionDocument:
    """A selection of instances "Of Interest": those that hold `slices` of the sorted `frames`, and `results` made of them.

    Raises RefusedError `key_images.none` when there is nothing to select.
    """
    selected: dict[str, Dataset] = {}
    for slice_ in slices:
        dataset = frames[slice_].dataset
        selected[str(dataset.SOPInstanceUID)] = dataset
    if not selected:
        raise RefusedError(
            "key_images.none", "no slice shows a finding", remedy="Select slices that show the findings."
        )
    objects = [*derived.headers(list(selected.values())), *results]
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=derived.derived_uid("device", derived.MODEL),
            name=derived.MODEL,
            manufacturer_name=derived.MANUFACTURER,
            model_name=derived.MODEL,
        ),
    )
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=objects,
        observer_device_context=observer,
        description=description,
    )
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=content,
        series_instance_uid=identity.series_instance_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.instance_number,
        manufacturer=derived.MANUFACTURER,
    )
    # highdicom's constructor leaves out whose record number it is (0010,0021), which SEG and SR carry over.
    document.copy_patient_and_study_information(objects[0])
    derived.pin(document, identity)
    return document
