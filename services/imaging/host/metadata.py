"""`configs/metadata.json` of a package, as the MONAI bundle specification has it, checked before anything is loaded.

Source: MONAI bundle specification (docs.monai.io, "MONAI Bundle Specification") and its metadata schema 20240725; `osler`
is this system's own section, as the specification allows further keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.imaging.host.refusals import refused


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Tensor(_Part):
    """One input or output of the network. `spatial_shape`: sizes, "*" (any) or expressions such as "16*n", "2**p*n"."""

    type: str = "image"
    format: str = ""
    modality: str = ""
    num_channels: int = Field(ge=1)
    spatial_shape: list[int | str] = Field(default_factory=list)
    dtype: str = "float32"
    value_range: list[float] = Field(default_factory=list)
    is_patch_data: bool = False
    channel_def: dict[str, str] = Field(default_factory=dict)


class DataFormat(_Part):
    inputs: dict[str, Tensor] = Field(min_length=1)
    outputs: dict[str, Tensor] = Field(min_length=1)


class CodedLabel(_Part):
    system: str = Field(min_length=1)
    code: str = Field(min_length=1)
    display: str = Field(min_length=1)


class OslerSection(_Part):
    """What the host needs beyond the specification.

    Attributes:
        analysis: name of an adapter of Osler's own; empty runs the package as it is.
        codes: label or channel number -> what it is.
        temperature: logits of a classifier are divided by it; None for probabilities that were not calibrated.
        unit: UCUM unit of a map.
        limits: sentences for the card.
    """

    weights_file: str = ""
    weights_sha256: str = ""
    analysis: str = ""
    codes: dict[str, CodedLabel] = Field(default_factory=dict)
    temperature: float | None = Field(default=None, gt=0)
    unit: str = "1"
    limits: list[str] = Field(default_factory=list)
    modalities: list[str] = Field(default_factory=list)


class Metadata(_Part):
    """The keys that the specification requires, and those that the card shows."""

    version: str = Field(min_length=1)
    changelog: dict[str, str] = Field(default_factory=dict)
    monai_version: str = Field(min_length=1)
    pytorch_version: str = Field(min_length=1)
    numpy_version: str = Field(min_length=1)
    name: str = ""
    task: str = Field(min_length=1)
    description: str = Field(min_length=1)
    authors: str = Field(min_length=1)
    copyright: str = ""
    license: str = ""
    intended_use: str = ""
    data_source: str = ""
    references: list[str] = Field(default_factory=list)
    eval_metrics: dict[str, Any] = Field(default_factory=dict)
    network_data_format: DataFormat
    osler: OslerSection = OslerSection()

    @property
    def image(self) -> Tensor:
        """The network's input: "image", else the only one."""
        inputs = self.network_data_format.inputs
        return inputs.get("image") or next(iter(inputs.values()))

    @property
    def prediction(self) -> Tensor:
        """The network's output: "pred", else the only one."""
        outputs = self.network_data_format.outputs
        return outputs.get("pred") or next(iter(outputs.values()))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises RefusedError `model.unreadable_config`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = "is absent" if isinstance(error, FileNotFoundError) else f"is not JSON ({type(error).__name__})"
        raise refused("unreadable_config", f"{path.parent.parent.name} bundle: {path.name} {what}") from error
    if not isinstance(content, dict):
        raise refused("unreadable_config", f"{path.parent.parent.name} bundle: {path.name} holds no object")
    return content


def parse(content: dict[str, Any], package: str) -> Metadata:
    """Raises RefusedError `model.invalid_metadata` naming each field that is absent or wrong."""
    try:
        return Metadata.model_validate(content)
    except ValidationError as error:
        wrong = [f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()]
        raise refused("invalid_metadata", f"{package} bundle: metadata.json: {'; '.join(wrong)}") from error
