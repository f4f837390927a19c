"""Which models there are: packages in folders, and the analysers that need no weights."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.imaging.host import manifest as manifests
from services.imaging.host.metadata import read_json
from services.imaging.host.package import Package, copy_package, is_package, read_package, unpack
from services.imaging.host.refusals import UnknownModelError, refused
from services.platform.errors import RefusedError

if TYPE_CHECKING:
    from services.imaging.host.contract import Analysis
    from services.platform.config import Settings

_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,63}$")
#: Other rooms' models lie in the same folder: their files are listed and verified, not run here.
_OTHER = "metadata.json"


@dataclass(frozen=True)
class Entry:
    """One folder of the registry. `package` is None for a model of another room, or with `refusal` for a broken one."""

    name: str
    folder: Path
    removable: bool
    package: Package | None
    refusal: RefusedError | None = None


@dataclass(frozen=True)
class Check:
    """One step of a verification. `detail`: a figure or the reason."""

    name: str
    passed: bool
    detail: str


class Registry:
    """Packages below `folders`, the first folder that holds a name wins; `own` takes what is added."""

    def __init__(self, folders: Sequence[Path], own: Path | None = None) -> None:
        self._own = own
        self._folders = [*folders, *([own] if own else [])]

    def entries(self) -> list[Entry]:
        """All entries by name. Nothing is loaded."""
        found: dict[str, Entry] = {}
        for root in self._folders:
            for folder in sorted(root.iterdir()) if root.is_dir() else []:
                if folder.name not in found and (is_package(folder) or (folder / _OTHER).is_file()):
                    found[folder.name] = _entry(folder, removable=root == self._own)
        return [found[name] for name in sorted(found)]

    def entry(self, name: str) -> Entry:
        """Raises UnknownModelError."""
        for root in self._folders:
            folder = root / name
            if _NAME.match(name) and (is_package(folder) or (folder / _OTHER).is_file()):
                return _entry(folder, removable=root == self._own)
        raise UnknownModelError(f"no model is called {name!r}; `osler models list` shows those that are installed")

    def package(self, name: str) -> Package:
        """A package that can be loaded. Raises UnknownModelError, RefusedError `model.*`."""
        entry = self.entry(name)
        if entry.refusal is not None:
            raise entry.refusal
        if entry.package is None:
            raise UnknownModelError(f"{name!r} is a model of another room and takes no images")
        return entry.package

    def add(
        self, source: Path, name: str = "", *, origin: str = "", sha256: str = "", report: Callable[[str], None] = print
    ) -> Entry:
        """Installs a folder or zip: checked, loaded and run once before it is there; all or nothing.

        Args:
            origin: where it came from, for the manifest.
            sha256: expected digest of a zip; empty takes any.
            report: told each step.

        Raises:
            RefusedError: `model.*`.
        """
        if self._own is None:
            raise refused("read_only", "this registry has no folder of its own to add to", "Set OSLER_HOME.")
        self._own.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._own, prefix=".adding-") as scratch:
            staged = _staged(source, Path(scratch), sha256)
            target = self._own / (name or staged.name).lower().replace(" ", "_")
            if not _NAME.match(target.name):
                raise refused("bad_name", f"{target.name!r} is no name for a model", "Use a-z, 0-9, - and _.")
            if target.exists() or any(entry.name == target.name for entry in self.entries()):
                raise refused("exists", f"{target.name} is installed already", f"osler models remove {target.name}")
            ready = Path(scratch) / "ready" / target.name
            ready.parent.mkdir()
            staged.rename(ready)
            seal(ready, origin or source.name, report)
            ready.rename(target)
        return self.entry(target.name)

    def remove(self, name: str) -> None:
        """Deletes a package that was added. Raises UnknownModelError, RefusedError `model.read_only`."""
        entry = self.entry(name)
        if not entry.removable:
            raise refused(
                "read_only",
                f"{name} came with a folder that Osler only reads",
                "Take that folder out of models.folders.",
            )
        shutil.rmtree(entry.folder)

    def verify(self, name: str) -> Iterator[Check]:
        """Each check in turn, ending with the first that fails. Raises UnknownModelError."""
        entry = self.entry(name)
        if entry.refusal is not None:
            yield Check("metadata", False, entry.refusal.message)
            return
        for title, step in _steps(entry):
            try:
                yield Check(title, True, step())
            except RefusedError as error:
                yield Check(title, False, error.message)
                return


def _entry(folder: Path, *, removable: bool) -> Entry:
    if not is_package(folder):
        return Entry(folder.name, folder, removable, None)
    try:
        return Entry(folder.name, folder, removable, read_package(folder))
    except RefusedError as error:
        return Entry(folder.name, folder, removable, None, error)


def _staged(source: Path, scratch: Path, sha256: str) -> Path:
    if source.is_dir():
        staged = scratch / "staged" / source.resolve().name
        staged.parent.mkdir()
        copy_package(source, staged)
        return staged
    if not source.is_file():
        raise refused("not_a_bundle", f"{source.name} is neither a folder nor a zip", "Name a bundle folder or zip.")
    if sha256:
        manifests.check_bytes(source.stem, source.name, manifests.sha256_of(source), sha256.lower())
    inside = scratch / "unpacked" / source.stem
    inside.mkdir(parents=True)
    return unpack(source, inside)


def seal(folder: Path, origin: str, report: Callable[[str], None] = print) -> None:
    """Checks a package by loading and running it, and writes its manifest. Raises RefusedError `model.*`.

    A manifest that came with it is checked first, and its warm-up must still hold.
    """
    given = manifests.read(folder)
    if given is not None:
        manifests.verify(folder, given)
        report(f"manifest: {len(given.files)} files as listed")
    elif not is_package(folder):
        manifests.write(folder, origin)
        return
    else:
        _check_stated_digest(folder)
        manifests.write(folder, origin)
    from services.imaging.host import warmup
    from services.imaging.host.adapters import analysis_of
    from services.imaging.host.model import load

    package = read_package(folder)
    warmup.builds(package)
    report("configuration: allowed parts only")
    loaded = load(package)
    analysis_of(loaded)
    report(f"weights: {package.format}, {loaded.network.size_bytes / 1e6:.1f} MB")
    kept = given.warm_up if given else None
    if kept:
        report(f"warm-up: as recorded, within {warmup.check(package, loaded.network):.1e}")
    else:
        kept = warmup.declare(package, loaded.network)
        report(f"warm-up: recorded on a synthetic input of {'x'.join(map(str, kept.shape))}")
    manifests.write(folder, origin if given is None else given.source or origin, kept)


def _check_stated_digest(folder: Path) -> None:
    """A digest that metadata.json states must hold before the manifest records what is there."""
    package = read_package(folder)
    stated = package.metadata.osler.weights_sha256
    if stated:
        manifests.check_bytes(package.name, package.weights.name, manifests.sha256_of(package.weights), stated)


def _steps(entry: Entry) -> Iterator[tuple[str, Callable[[], str]]]:
    def files() -> str:
        manifest = manifests.read(entry.folder)
        if manifest is None:
            raise refused("no_manifest", f"{entry.name}: no {manifests.NAME}", "Run `osler models seal`.")
        manifests.verify(entry.folder, manifest)
        return f"{len(manifest.files)} files have the SHA-256 that {manifests.NAME} lists"

    yield "files", files
    package = entry.package
    if package is None:
        stated = read_json(entry.folder / _OTHER).get("licence", "")
        yield "licence", lambda: _stated(str(stated))
        return
    from services.imaging.host import warmup
    from services.imaging.host.adapters import analysis_of
    from services.imaging.host.model import load

    yield "metadata", lambda: f"version {package.metadata.version}, task: {package.metadata.task}"
    yield "licence", lambda: _stated("" if package.licence == "not stated" else package.licence)

    def configuration() -> str:
        warmup.builds(package)
        return "only parts that are allowed"

    yield "configuration", configuration

    def run() -> str:
        loaded = load(package)
        analysis_of(loaded)
        worst = warmup.check(package, loaded.network)
        recorded = package.manifest is not None and package.manifest.warm_up is not None
        return f"as recorded, within {worst:.1e}" if recorded else "finite; none was recorded"

    yield "warm-up", run


def _stated(licence: str) -> str:
    if not licence:
        raise refused("no_licence", "no licence is stated", "Ask its makers under which licence it may be used.")
    return licence


def registry_of(settings: Settings) -> Registry:
    """The folders that the settings name: Osler's own, further ones, and `<home>/models` for what is added."""
    return Registry([settings.models.path, *settings.models.folders], settings.home / "models")


def analysers() -> dict[str, Analysis]:
    """Analyses without learned weights, by name."""
    from services.imaging.host.analyser import analyses

    return {analysis.card.name: analysis for analysis in analyses()}
