"""The quality gate: whether a series can be measured, and what a technologist can do before the patient leaves.

    judged = assess(datasets)                  # from headers alone
    judged = assess(datasets, volume.array)    # headers and pixels
    judged = assess_series(datasets)           # headers, then pixels when they make a volume

Rules, limits, remedies and sources: quality.yaml; geometry: services/clinical/dicom/geometry.yaml.
"""

from services.imaging.quality.gate import VOLUME_MODALITIES, assess, assess_series
from services.imaging.quality.verdict import Issue, Quality, Verdict, rules

__all__ = ["VOLUME_MODALITIES", "Issue", "Quality", "Verdict", "assess", "assess_series", "rules"]
