"""A package on disk: a MONAI bundle as a folder or zip, with weights as a state dict, TorchScript or ONNX."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from services.imaging.host import manifest as manifests
from services.imaging.host.manifest import Manifest
from services.imaging.host.metadata import Metadata, parse, read_json
from services.imaging.host.policy import rules
from services.imaging.host.refusals import refused


class Format(StrEnum):
    """How the weights are kept."""

    STATE_DICT = "state-dict"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"


_SUFFIXES = {".pt": Format.STATE_DICT, ".pth": Format.STATE_DICT, ".ts": Format.TORCHSCRIPT, ".onnx": Format.ONNX}


@dataclass(frozen=True)
class Package:
    """What is known without loading anything. `inference`: contents of configs/inference.json; may be empty."""

    folder: Path
    metadata: Metadata
    raw_metadata: Mapping[str, Any]
    inference: Mapping[str, Any]
    weights: Path
    format: Format
    manifest: Manifest | None

    @property
    def name(self) -> str:
        """The folder's name, by which it is called."""
        return self.folder.name

    @property
    def licence(self) -> str:
        """As stated in metadata.json, else the first line of LICENSE, else "not stated"."""
        if self.metadata.license:
            return self.metadata.license
        path = self.folder / "LICENSE"
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
        return lines[0].strip() if lines else "not stated"

    @property
    def weights_sha256(self) -> str:
        """The recorded digest. Raises RefusedError `model.no_manifest` when nothing records one."""
        name = self.weights.relative_to(self.folder).as_posix()
        listed = self.manifest.files.get(name, "") if self.manifest else ""
        digest = listed or (self.metadata.osler.weights_sha256 if self.manifest is None else "")
        if not digest:
            raise refused(
                "no_manifest",
                f"{self.name} bundle: nothing records the SHA-256 of {name}",
                "Install it with `osler models add`, which seals it.",
                self.name,
            )
        return digest


def is_package(folder: Path) -> bool:
    """A folder that holds configs/metadata.json."""
    return (folder / "configs" / "metadata.json").is_file()


def read_package(folder: Path) -> Package:
    """Reads and checks what describes a package. Raises RefusedError `model.*`."""
    if not is_package(folder):
        raise refused("not_a_bundle", f"{folder.name} is no bundle: configs/metadata.json is absent")
    raw = read_json(folder / "configs" / "metadata.json")
    metadata = parse(raw, folder.name)
    inference = folder / "configs" / "inference.json"
    weights = _weights(folder, metadata)
    return Package(
        folder=folder,
        metadata=metadata,
        raw_metadata=raw,
        inference=read_json(inference) if inference.is_file() else {},
        weights=weights,
        format=_SUFFIXES[weights.suffix],
        manifest=manifests.read(folder),
    )


def _weights(folder: Path, metadata: Metadata) -> Path:
    named = metadata.osler.weights_file
    names = [named] if named else [f"models/model{suffix}" for suffix in _SUFFIXES]
    for name in names:
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and path.is_file() and path.suffix in _SUFFIXES:
            return path
    raise refused("no_weights", f"{folder.name} bundle: none of {', '.join(names)} is there", subject=folder.name)


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a zip below the empty folder `into`; returns the folder of the bundle in it.

    Raises RefusedError `model.unsafe_archive` for a path that leaves the folder, a link, or too much content;
    `model.not_a_bundle`.
    """
    limits = rules()["archive"]
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check_entries(entries, archive.stat().st_size, limits)
            opened.extractall(into)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise refused("unreadable_archive", f"{archive.name} is no readable zip ({type(error).__name__})") from error
    for folder in (into, *sorted(path for path in into.iterdir() if path.is_dir())):
        if is_package(folder):
            return folder
    raise refused("not_a_bundle", f"{archive.name} holds no bundle: configs/metadata.json is absent")


def _check_entries(entries: list[zipfile.ZipInfo], packed: int, limits: Mapping[str, int]) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > limits["max_files"] or total > limits["max_bytes"] or total > limits["max_ratio"] * packed:
        raise refused("unsafe_archive", f"the zip holds {len(entries)} files of {total} bytes: more than is taken")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise refused("unsafe_archive", "a path in the zip leaves its folder")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise refused("unsafe_archive", "the zip holds a link")


def copy_package(source: Path, target: Path) -> None:
    """Copies what belongs to a package; links are refused (`model.unsafe_archive`)."""
    if any(path.is_symlink() for path in source.rglob("*")):
        raise refused("unsafe_archive", f"{source.name} holds a link")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".git", "*.py"))
