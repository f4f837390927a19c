"""The card of a package, from its metadata."""

from __future__ import annotations

import re

from services.clinical.codes import Concept
from services.imaging.host.contract import Card, Kind, Role
from services.imaging.host.metadata import Metadata
from services.imaging.host.package import Package

_MODALITIES = {"MRI": "MR", "PET": "PT", "X-RAY": "DX", "XRAY": "DX", "ULTRASOUND": "US", "MAMMOGRAPHY": "MG"}
#: Chest radiographs come as any of these.
_RADIOGRAPHS = ("CR", "DX", "RG")


def card_of(package: Package) -> Card:
    """Name and version to limits, as the package states them."""
    metadata = package.metadata
    own = metadata.osler
    only = list(own.codes.values())
    return Card(
        name=package.name,
        version=metadata.version,
        kind=Kind.LEARNED,
        task=metadata.task,
        intended_use=metadata.intended_use or "not stated by the package",
        limits=tuple(own.limits) or ("validated range: see the package's own card",),
        citations=tuple(metadata.references) or ((metadata.data_source,) if metadata.data_source else ()),
        licence=package.licence,
        roles=roles_of(metadata),
        finding=Concept(only[0].system, only[0].code, only[0].display) if len(only) == 1 else None,
        weights_sha256=package.weights_sha256,
    )


def roles_of(metadata: Metadata) -> tuple[Role, ...]:
    """One role "image" for one channel; else one for each channel, named after `channel_def`."""
    image = metadata.image
    modalities = tuple(metadata.osler.modalities) or _dicom_modalities(image.modality)
    if image.num_channels == 1:
        return (Role("image", modalities, image.channel_def.get("0", "")),)
    names = [_slug(image.channel_def.get(str(index), f"channel_{index}")) for index in range(image.num_channels)]
    return tuple(Role(name, modalities, f"channel {index}") for index, name in enumerate(names))


def _dicom_modalities(stated: str) -> tuple[str, ...]:
    """DICOM Modality values for what metadata.json says ("CT", "MRI", "PET"); empty where it names none."""
    word = stated.strip().upper()
    found = _MODALITIES.get(word, word)
    if found == "DX":
        return _RADIOGRAPHS
    return (found,) if found in {"CT", "MR", "PT", "US", "MG"} else ()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "channel"
