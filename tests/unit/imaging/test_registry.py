"""Installing, listing, verifying and removing models; the catalogue; what a replica keeps and sets aside."""

from __future__ import annotations

import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from services.imaging.host import catalog, manifest
from services.imaging.host.cache import Breaker, Held, ModelCache
from services.imaging.host.model import load
from services.imaging.host.refusals import UnknownModelError
from services.imaging.host.registry import Registry
from services.platform.errors import RefusedError, RetryableError
from tests.unit.imaging.bundle_samples import Payload, write_bundle


def silent(text):
    assert text


@pytest.fixture
def registry(tmp_path, repository_root):
    return Registry([repository_root / "models"], tmp_path / "own")


@pytest.fixture
def bundle_zip(tmp_path):
    folder = write_bundle(tmp_path / "made" / "bright_things", sealed=False)
    path = tmp_path / "bright_things_v1.2.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder.parent))
    return path


def reason_of(work):
    with pytest.raises(RefusedError) as caught:
        work()
    return caught.value.reason


def test_every_shipped_model_is_as_it_was_sealed(registry):
    names = [entry.name for entry in registry.entries()]
    assert "hippocampus" in names
    for name in names:
        assert [check for check in registry.verify(name) if not check.passed] == []


def test_added_from_a_zip_and_removed(registry, bundle_zip):
    entry = registry.add(bundle_zip, origin="a test", sha256=manifest.sha256_of(bundle_zip), report=silent)
    assert entry.name == "bright_things"
    assert {check.name for check in registry.verify("bright_things") if check.passed} == {
        "files",
        "metadata",
        "licence",
        "configuration",
        "warm-up",
    }
    sealed = manifest.read(entry.folder)
    assert sealed.source == "a test"
    assert sealed.warm_up.shape == (1, 1, 16, 16, 16)
    assert reason_of(lambda: registry.add(bundle_zip, report=silent)) == "model.exists"
    registry.remove("bright_things")
    with pytest.raises(UnknownModelError):
        registry.package("bright_things")


def test_the_zip_must_be_the_one_that_was_meant(registry, bundle_zip):
    assert reason_of(lambda: registry.add(bundle_zip, sha256="0" * 64, report=silent)) == "model.hash_mismatch"


def test_what_is_refused_leaves_nothing_behind(registry, tmp_path):
    folder, mark = write_bundle(tmp_path / "evil", sealed=False), tmp_path / "was_run"
    torch.save({"weight": Payload(mark)}, folder / "models" / "model.pt")
    assert reason_of(lambda: registry.add(folder, report=silent)) == "model.unsafe_weights"
    assert not mark.exists()
    assert list((tmp_path / "own").iterdir()) == []


def test_a_manifest_that_comes_with_a_package_must_hold(registry, tmp_path):
    folder = write_bundle(tmp_path / "changed")
    (folder / "configs" / "inference.json").write_text("{}")
    assert reason_of(lambda: registry.add(folder, report=silent)) == "model.hash_mismatch"


def test_tampering_after_the_installation_is_found(registry, bundle_zip):
    folder = registry.add(bundle_zip, report=silent).folder
    (folder / "configs" / "extra.json").write_text("{}")
    failed = [check for check in registry.verify("bright_things") if not check.passed]
    assert [check.name for check in failed] == ["files"]
    assert "extra.json" in failed[0].detail


def test_models_that_came_with_osler_stay(registry):
    assert reason_of(lambda: registry.remove("hippocampus")) == "model.read_only"


def test_names_that_lead_elsewhere_are_unknown(registry):
    for name in ("../models/hippocampus", "..", "", "/etc"):
        with pytest.raises(UnknownModelError):
            registry.entry(name)


def test_a_model_of_another_room_is_listed_and_not_run(registry):
    with pytest.raises(UnknownModelError, match="another room"):
        registry.package("sarcoma-lung-metastasis")


def test_a_broken_package_is_listed_with_what_is_wrong(registry, tmp_path):
    folder = write_bundle(tmp_path / "own" / "broken")
    shutil.rmtree(folder / "models")
    entry = registry.entry("broken")
    assert entry.package is None
    assert entry.refusal.reason == "model.no_weights"


class TestCatalogue:
    @pytest.fixture
    def server(self, bundle_zip):
        handler = partial(SimpleHTTPRequestHandler, directory=str(bundle_zip.parent))
        handler.log_message = lambda *args: None
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/{{name}}_v{{version}}.zip"
            server.shutdown()

    def listed(self, **changes):
        about = {"name": "bright_things", "version": "1.2.0", "task": "t", "modality": "CT", "licence": "l"}
        return catalog.Listed(**about, codes=(), runs="as it is", **changes)

    def test_fetched_by_name_and_installed(self, server, tmp_path, registry):
        seen = []
        into = tmp_path / "fetched"
        into.mkdir()
        url = catalog.address(self.listed(), server)
        path = catalog.fetch(url, into, 1 << 20, lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1] == path.stat().st_size
        assert registry.add(path, "bright_things", origin=url, report=silent).name == "bright_things"

    def test_what_is_not_there_or_too_large(self, server, tmp_path):
        # Apart from the served folder: a download would truncate the very file that is being sent.
        into = tmp_path / "fetched"
        into.mkdir()

        def fetch(name, limit=1 << 20):
            return lambda: catalog.fetch(server.format(name=name, version="1.2.0"), into, limit, lambda *_: None)

        assert reason_of(fetch("nothing")) == "model.not_found"
        assert reason_of(fetch("bright_things", limit=100)) == "model.too_large"

    def test_no_unprotected_address(self, tmp_path):
        for url in ("http://example.org/a.zip", "ftp://127.0.0.1/a.zip", "file:///etc/hostname"):
            assert reason_of(lambda u=url: catalog.fetch(u, tmp_path, 1, lambda *_: None)) == "model.insecure_address"

    def test_without_a_server_it_may_be_tried_again(self, tmp_path):
        with pytest.raises(RetryableError, match="as a file"):
            catalog.fetch("http://127.0.0.1:9/a.zip", tmp_path, 1, lambda *_: None)

    def test_the_shipped_catalogue(self, repository_root):
        known = catalog.read(repository_root / "models" / "catalog.yaml")
        assert len(known) >= 12
        for listed in known.values():
            assert listed.codes
            assert all(system.startswith(("http://", "urn:")) for system, _, _ in listed.codes)
            assert listed.licence
            assert catalog.address(listed, "https://host/{name}_v{version}.zip").startswith("https://")
        runs = [listed for listed in known.values() if listed.runs == "as it is"]
        assert len(runs) >= 6
        blocked = next(name for name, listed in known.items() if listed.runs != "as it is")
        assert reason_of(lambda: catalog.find(known, blocked)) == "model.not_run"
        with pytest.raises(UnknownModelError, match="catalogue"):
            catalog.find(known, "no_such_bundle")


class TestCache:
    def cache(self, sizes, budget):
        loads = []

        def load_one(name):
            loads.append(name)
            return Held(name, sizes[name])

        return ModelCache(load_one, budget), loads

    def test_the_least_recently_used_leaves_when_bytes_run_out(self):
        cache, loads = self.cache({"a": 40, "b": 40, "c": 40}, 100)
        for name in ("a", "b", "a", "c", "a", "b"):
            assert cache.get(name) == name
        assert loads == ["a", "b", "c", "b"]
        assert cache.names == ("a", "b")
        assert cache.size_bytes == 80

    def test_one_model_larger_than_the_budget_runs_alone(self):
        cache, _ = self.cache({"a": 40, "huge": 500}, 100)
        cache.get("a")
        assert cache.get("huge") == "huge"
        assert cache.names == ("huge",)

    def test_real_sizes(self, tmp_path):
        from services.imaging.host.package import read_package

        assert load(read_package(write_bundle(tmp_path / "b"))).network.size_bytes == 16


class TestBreaker:
    def test_a_crashing_model_rests_and_the_others_do_not(self):
        now = [0.0]
        breaker = Breaker(2, 60, lambda: now[0])
        breaker.crashed("a")
        breaker.check("a")
        breaker.crashed("a")
        assert reason_of(lambda: breaker.check("a")) == "model.set_aside"
        breaker.check("b")
        assert breaker.set_aside("a")
        now[0] = 61
        breaker.check("a")  # one trial
        assert reason_of(lambda: breaker.check("a")) == "model.set_aside"
        breaker.worked("a")
        breaker.check("a")
        assert not breaker.set_aside("a")

    def test_crashes_count_in_a_row(self):
        breaker = Breaker(2, 60)
        for _ in range(5):
            breaker.crashed("a")
            breaker.worked("a")
        breaker.check("a")
