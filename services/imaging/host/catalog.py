"""`models/catalog.yaml`: packages of the MONAI Model Zoo that fit Osler's tasks, and fetching one."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from services.imaging.host.refusals import UnknownModelError, refused
from services.platform.errors import RetryableError

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Listed:
    """One package of the catalogue.

    Attributes:
        codes: what it finds: system, code, display.
        runs: "as it is", or why the host does not run it.
        url: overrides `models.catalog_url`.
        sha256: of the zip; "" where nobody has recorded it.
    """

    name: str
    version: str
    task: str
    modality: str
    licence: str
    codes: tuple[tuple[str, str, str], ...]
    runs: str
    url: str = ""
    sha256: str = ""


def read(path: Path) -> dict[str, Listed]:
    """Entries by name. Raises RefusedError `model.bad_catalog`."""
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {entry["name"]: _listed(entry) for entry in content["packages"]}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise refused("bad_catalog", f"{path.name} cannot be read ({type(error).__name__}: {error})") from error


def _listed(entry: dict[str, Any]) -> Listed:
    return Listed(
        name=entry["name"],
        version=str(entry["version"]),
        task=entry["task"],
        modality=entry["modality"],
        licence=entry["licence"],
        codes=tuple((code["system"], str(code["code"]), code["display"]) for code in entry["codes"]),
        runs=entry.get("runs", "as it is"),
        url=entry.get("url", ""),
        sha256=entry.get("sha256", ""),
    )


def address(listed: Listed, pattern: str) -> str:
    """Where a listed package is fetched."""
    return (listed.url or pattern).format(name=listed.name, version=listed.version)


def find(catalogue: dict[str, Listed], name: str) -> Listed:
    """Raises UnknownModelError; RefusedError `model.not_run` for a package that the host does not run."""
    if name not in catalogue:
        raise UnknownModelError(
            f"{name!r} is no folder, zip or address, and not in the catalogue; `osler models list --catalog` shows it"
        )
    listed = catalogue[name]
    if listed.runs != "as it is":
        raise refused("not_run", f"{name} does not run in Osler's host: {listed.runs}", "Choose another package.")
    return listed


def fetch(url: str, into: Path, limit_bytes: int, report: Callable[[int, int], None]) -> Path:
    """Downloads a zip; returns its file. `report(done, total)` in bytes, total 0 when not stated.

    Raises:
        RefusedError: `model.insecure_address` for http to another machine, `model.not_found`, `model.too_large`.
        RetryableError: the server is away, or the download broke off.
    """
    import httpx

    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname or "")):
        raise refused("insecure_address", "packages are fetched over https", "Use an https address, or a local file.")
    name = Path(parts.path).name or "package.zip"
    target = into / (name if name.endswith(".zip") else f"{name}.zip")
    done = 0
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S) as client,
            client.stream("GET", url) as answer,
            target.open("wb") as file,
        ):
            if answer.status_code in (401, 403, 404, 410):
                raise refused(
                    "not_found", f"the server answers {answer.status_code} for {name}", "Check name and version."
                )
            answer.raise_for_status()
            total = int(answer.headers.get("content-length", 0))
            for chunk in answer.iter_bytes(_CHUNK):
                done += len(chunk)
                if done > limit_bytes:
                    raise refused(
                        "too_large", f"{name} is larger than {limit_bytes >> 20} MB", "Raise models.max_download_mb."
                    )
                file.write(chunk)
                report(done, total)
    except httpx.HTTPError as error:
        raise RetryableError(
            f"{name} could not be fetched ({type(error).__name__}); without internet, add the zip as a file"
        ) from error
    return target


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
