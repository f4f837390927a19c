"""`manifest.json`: the SHA-256 of every file that is loaded from a package, and what a warm-up gave when it was sealed.

{"files": {"configs/metadata.json": "<sha256>", ...},
 "source": "https://... or how it was made",
 "warm_up": {"seed": 0, "shape": [1, 1, 32, 32, 32], "expected": {"mean": 0.1, ...}, "tolerance": 0.001}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from services.imaging.host.refusals import refused

NAME = "manifest.json"
#: What the host reads; a card or a figure may change without the package changing.
SEALED_FOLDERS = ("configs", "models", "sample")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class WarmUp:
    """A run on a declared synthetic input: normal noise of `shape` (batch, channel, space) from `seed`.

    `expected`: statistics and sampled values of the network's output; each must be met within `tolerance` times the
    largest expected magnitude.
    """

    seed: int
    shape: tuple[int, ...]
    expected: Mapping[str, float]
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Manifest:
    """`files`: path within the package, with forward slashes -> SHA-256."""

    files: Mapping[str, str]
    source: str = ""
    warm_up: WarmUp | None = field(default=None)


def read(folder: Path) -> Manifest | None:
    """The manifest of a package; None where there is none. Raises RefusedError `model.manifest_unreadable`."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        warm = content.get("warm_up")
        return Manifest(
            files={str(name): str(digest) for name, digest in content["files"].items()},
            source=str(content.get("source", "")),
            warm_up=WarmUp(
                seed=int(warm["seed"]),
                shape=tuple(int(size) for size in warm["shape"]),
                expected={str(name): float(value) for name, value in warm["expected"].items()},
                tolerance=float(warm["tolerance"]),
            )
            if warm
            else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refused("manifest_unreadable", f"{NAME} cannot be read ({error})", subject=folder.name) from error


def write(folder: Path, source: str = "", warm_up: WarmUp | None = None) -> Manifest:
    """Seals a package: lists what is there now."""
    manifest = Manifest({name: sha256_of(folder / name) for name in sealed_files(folder)}, source, warm_up)
    text = json.dumps({name: value for name, value in asdict(manifest).items() if value}, indent=1, sort_keys=True)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")
    return manifest


def sealed_files(folder: Path) -> list[str]:
    """Paths of the files that a manifest lists."""
    found = [path for part in SEALED_FOLDERS for path in (folder / part).rglob("*")]
    found += [folder / "LICENSE", folder / "metadata.json", folder / "coefficients.npz"]
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def verify(folder: Path, manifest: Manifest) -> None:
    """Raises RefusedError `model.file_missing`, `model.hash_mismatch` or `model.unlisted_file`."""
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise refused("file_missing", f"{folder.name}: {name} is listed in {NAME} and absent", subject=folder.name)
        check_bytes(folder.name, name, sha256_of(path), expected)
    unlisted = set(sealed_files(folder)) - set(manifest.files)
    if unlisted:
        raise refused(
            "unlisted_file", f"{folder.name}: {sorted(unlisted)[0]} is not listed in {NAME}", subject=folder.name
        )


def check_bytes(package: str, name: str, found: str, expected: str) -> None:
    """Raises RefusedError `model.hash_mismatch` when the digests differ."""
    if found != expected:
        raise refused(
            "hash_mismatch",
            f"{package} bundle: {name} has SHA-256 {found}, recorded is {expected}; it was changed or cut short",
            subject=package,
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
