"""Images of an analysis from files (NIfTI or a folder of DICOM instances), and its result to files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from services.clinical.dicom.series import dicom_datetime, load_series
from services.clinical.volume import ImageVolume
from services.imaging.analysers.cards import Card
from services.imaging.analysers.contract import Image, Matrix, Result, refuse
from services.imaging.findings import Interval, Value
from services.platform.errors import RefusedError

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SUFFIXES = (".nii.gz", ".nii")
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def find_inputs(known: Card, path: Path, named: Mapping[str, Path]) -> dict[str, Path]:
    """Where each input of an analyser lies.

    A single file or a folder of DICOM instances is the first input; in another folder, `<role>.nii.gz`, `<role>.nii` or
    a folder `<role>` is the input of that role. `named` goes first. Raises RefusedError `<analyser>.no_input`.
    """
    found = dict(named)
    first = next(iter(known.inputs))
    if path.is_file() or (path.is_dir() and not _holds_roles(known, path)):
        found.setdefault(first, path)
    elif path.is_dir():
        for role in known.inputs:
            places = [path / f"{role}{suffix}" for suffix in _SUFFIXES] + [path / role]
            for place in places:
                if place.exists():
                    found.setdefault(role, place)
    if not found:
        raise refuse(
            known.name, "no_input", f"nothing to read for {first}", first, remedy="Name it: --input ROLE=PATH."
        )
    return found


def _holds_roles(known: Card, folder: Path) -> bool:
    names = {entry.name.split(".")[0] for entry in folder.iterdir()}
    return bool(names & set(known.inputs))


def read(known: Card, role: str, path: Path) -> Image:
    """One input.

    NIfTI has no unit for its values: they are taken to be in the card's unit, or in that of a file `<name>.json` beside
    it (`{"unit": "cm/s", "times_s": [0, 0.04]}`). Raises RefusedError `<analyser>.unreadable_input`, `series.*`.
    """
    try:
        if path.is_dir():
            return read_dicom([pydicom.dcmread(one) for one in sorted(path.rglob("*")) if one.is_file()])
        if path.name.endswith(_SUFFIXES):
            return _read_nifti(path, known.inputs[role].unit if role in known.inputs else "")
        return read_dicom([pydicom.dcmread(path)])
    except (pydicom.errors.InvalidDicomError, nibabel.filebasedimages.ImageFileError, EOFError) as error:
        raise refuse(
            known.name,
            "unreadable_input",
            f"{role} is neither NIfTI nor DICOM",
            role,
            remedy="Give a .nii.gz file or a folder that holds the DICOM instances of one series only.",
        ) from error


def _read_nifti(path: Path, unit: str) -> Image:
    loaded: Any = nibabel.load(path)
    array = np.asarray(loaded.dataobj).T
    step, clock = loaded.header.get_zooms()[3:4], _SECONDS.get(loaded.header.get_xyzt_units()[1])
    times: Sequence[float] = [n * float(step[0]) * clock for n in range(len(array))] if step and clock else []
    beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    told = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    affine = _RAS_TO_LPS @ np.asarray(loaded.affine, float)
    return Image(array, affine, told.get("unit", unit or "1"), tuple(told.get("times_s", times)))


def read_dicom(datasets: Sequence[Dataset]) -> Image:
    """One series; with several instances at each place, a series over time. Raises RefusedError `series.*`."""
    places: dict[tuple[float, ...], list[Dataset]] = {}
    for dataset in datasets:
        places.setdefault(tuple(float(v) for v in dataset.get("ImagePositionPatient") or ()), []).append(dataset)
    counts = {len(each) for each in places.values()}
    if counts == {1} or len(datasets) == 1:
        return _image(load_series(datasets))
    if len(counts) != 1:
        raise RefusedError(
            "series.missing_frames",
            f"between {min(counts)} and {max(counts)} frames at different slice positions",
            missing=("the same number of frames at every slice",),
            remedy="Send the whole series again.",
        )
    ordered = [sorted(each, key=_seconds) for each in places.values()]
    frames = [[each[number] for each in ordered] for number in range(counts.pop())]
    volumes = [load_series(frame) for frame in frames]
    times = np.array([np.mean([_seconds(dataset) for dataset in frame]) for frame in frames])
    first = _image(volumes[0])
    stacked = np.stack([volume.array for volume in volumes])
    return replace(first, array=stacked, times_s=tuple(float(t) for t in times - times[0]))


def _seconds(dataset: Dataset) -> float:
    """When one instance was acquired, s on a clock of its series: trigger time, else the date and time of acquisition."""
    for keyword in ("TriggerTime", "FrameReferenceTime"):
        if dataset.get(keyword) not in (None, ""):
            return float(dataset[keyword].value) / 1000.0
    for keywords in (("AcquisitionDateTime",), ("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime")):
        when = dicom_datetime(dataset, *keywords)
        if when is not None:
            return when.timestamp()
    raise RefusedError(
        "series.missing_times",
        "frames at one place without a time",
        missing=("(0008,0032) AcquisitionTime",),
        remedy="Send the original series from the scanner.",
    )


def _image(volume: ImageVolume) -> Image:
    return Image(volume.array, volume.affine_lps, volume.unit)


def write(result: Result, folder: Path, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Writes maps and regions (NIfTI) and `result.json`; gives the content of the latter.

    Raises RefusedError `<analyser>.would_overwrite` when an input lies in the folder.
    """
    if any(
        path.resolve() == folder.resolve() or folder.resolve() in path.resolve().parents for path in inputs.values()
    ):
        raise refuse(
            result.analyser,
            "would_overwrite",
            "the output folder holds the input",
            remedy="Choose another folder for --out.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, made in result.maps.items():
        files[name] = _save(folder / f"{name}.nii.gz", np.asarray(made.array, np.float32), made.affine_lps)
    for name, region in result.regions.items():
        files[name] = _save(folder / f"{name}.nii.gz", region.mask.astype(np.uint8), region.affine_lps)
    document = to_document(result) | {"files": files, "inputs": {role: _digest(p) for role, p in inputs.items()}}
    text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
    (folder / "result.json").write_text(text, encoding="utf-8")
    return document


def _save(path: Path, array: Any, affine_lps: Matrix) -> str:
    nibabel.save(nibabel.Nifti1Image(array.T, _RAS_TO_LPS @ affine_lps), path)
    return path.name


def _digest(path: Path) -> str:
    """SHA-256 of the file, or of those of a folder in order of their names."""
    total = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            total.update(one.read_bytes())
    return total.hexdigest()


def write_derived(result: Result, source: Path, folder: Path) -> str:
    """An enhanced image as a derived DICOM series in a folder of its own; the source is only read."""
    from services.imaging.analysers.enhancement_dicom import derived_series

    folder.mkdir(parents=True, exist_ok=True)
    made, used = result.maps["enhanced"], result.parameters
    how = f"Osler {result.analyser}: {', '.join(f'{name} {value}' for name, value in used.items())}"
    sources = [pydicom.dcmread(one) for one in sorted(source.rglob("*")) if one.is_file()]
    series = derived_series(sources, made.array, made.affine_lps, used["mode"], how, datetime.now(UTC))
    for number, instance in enumerate(series):
        instance.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    return folder.name


def to_document(result: Result) -> dict[str, Any]:
    """A result as plain data, without its arrays."""
    return {
        "analyser": result.analyser,
        "values": [{"name": name} | value_document(value) for name, value in result.values.items()],
        "maps": {name: {"unit": made.unit, "code": asdict(made.concept)} for name, made in result.maps.items()},
        "regions": {name: {"code": asdict(region.concept)} for name, region in result.regions.items()},
        "curves": {name: asdict(curve) for name, curve in result.curves.items()},
        "cautions": list(result.cautions),
        "parameters": dict(result.parameters),
        "citations": list(result.citations),
    }


def value_document(value: Value) -> dict[str, Any]:
    """A measurement as plain data; `interval`, or `not_estimated` with the reason."""
    told = value.uncertainty
    how = {"interval": asdict(told)} if isinstance(told, Interval) else {"not_estimated": told}
    return {"code": asdict(value.concept), "value": value.value, "unit": value.unit, "method": value.method, **how}
