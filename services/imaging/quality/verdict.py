"""What the gate says, and the rules it says it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from services.clinical.dicom.geometry import Stack


class Verdict(IntEnum):
    """As osler.imaging.v1.QualityVerdict; a worse verdict is a larger number."""

    ACCEPT = 1
    WARN = 2
    REJECT = 3


@dataclass(frozen=True)
class Issue:
    """What is wrong, and what a technologist can do about it."""

    code: str
    message: str
    remedy: str
    verdict: Verdict


@dataclass(frozen=True)
class Quality:
    """The gate's answer for one series."""

    series_instance_uid: str
    verdict: Verdict
    issues: tuple[Issue, ...]


@dataclass(frozen=True)
class Evidence:
    """What a check looks at. `datasets`: at least one; `array` (z, y, x) in physical units, slices as in `stack`, or None."""

    datasets: Sequence[Dataset]
    stack: Stack
    array: NDArray[np.float32] | None = None

    @property
    def first(self) -> Dataset:
        return self.datasets[0]

    @property
    def modality(self) -> str:
        return str(self.first.get("Modality", "") or "")

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel edges (x, y, z); None for pictures without a place in space."""
        if self.stack.affine_lps is None:
            return None
        x, y, z = np.linalg.norm(self.stack.affine_lps[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def text(self, *keywords: str) -> str:
        """What people wrote in these attributes, upper case, with spaces between words."""
        words = " ".join(str(self.first.get(keyword, "") or "") for keyword in keywords)
        return " ".join(words.upper().replace("_", " ").replace("^", " ").split())


@cache
def rules() -> dict[str, Any]:
    """Contents of quality.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("quality.yaml").read_text(encoding="utf-8"))
    return content


def issue(code: str, message: str, verdict: Verdict | None = None) -> Issue:
    """An issue with its remedy, and its verdict, from the rules; a graded check names the verdict itself."""
    rule = rules()["issues"][code]
    return Issue(code, message, rule["remedy"], verdict or Verdict[rule["verdict"].upper()])


def graded(value: float, limits: dict[str, float]) -> Verdict:
    """The verdict of a value that is worse the larger it is, by its limits `warn` and `reject` (either may be absent)."""
    if value > limits.get("reject", float("inf")):
        return Verdict.REJECT
    return Verdict.WARN if value > limits.get("warn", float("inf")) else Verdict.ACCEPT
