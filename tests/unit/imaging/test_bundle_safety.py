"""A package is data: nothing that it brings is run as code, and what was changed is refused."""

from __future__ import annotations

import copy
import json
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.imaging.host import manifest, policy
from services.imaging.host.calls import caught
from services.imaging.host.formats import known_values, load_network
from services.imaging.host.model import load
from services.imaging.host.package import read_package, unpack
from services.imaging.host.warmup import builds
from services.platform.errors import RefusedError
from tests.unit.imaging.bundle_samples import INFERENCE, METADATA, Payload, write_bundle

CPU = torch.device("cpu")


def reason_of(work):
    with pytest.raises(RefusedError) as caught:
        work()
    assert caught.value.remedy
    return caught.value.reason


class TestWeights:
    def test_a_pickle_payload_is_refused_and_not_run(self, tmp_path):
        folder, mark = write_bundle(tmp_path / "evil"), tmp_path / "was_run"
        torch.save({"weight": Payload(mark)}, folder / "models" / "model.pt")
        # Sealed after the change: the digest holds, so that only the reader stands in the way.
        manifest.write(folder)
        assert reason_of(lambda: load(read_package(folder))) == "model.unsafe_weights"
        assert not mark.exists()
        # The payload works where nobody looks.
        torch.load(folder / "models" / "model.pt", weights_only=False)
        assert mark.exists()

    def test_one_changed_byte_is_refused(self, tmp_path):
        folder = write_bundle(tmp_path / "changed")
        path = folder / "models" / "model.pt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        assert reason_of(lambda: load(read_package(folder))) == "model.hash_mismatch"

    def test_a_cut_file_is_refused_even_when_sealed(self, tmp_path):
        folder = write_bundle(tmp_path / "cut")
        path = folder / "models" / "model.pt"
        path.write_bytes(path.read_bytes()[:-200])
        manifest.write(folder)
        assert reason_of(lambda: load(read_package(folder))) == "model.unreadable_weights"

    def test_weights_of_another_network_are_refused(self, tmp_path):
        folder = write_bundle(tmp_path / "other", state={"weight": torch.zeros(3, 1, 1, 1, 1)})
        assert reason_of(lambda: load(read_package(folder))) == "model.weights_do_not_fit"

    def test_weights_without_a_recorded_digest_are_not_loaded(self, tmp_path):
        folder = write_bundle(tmp_path / "loose", sealed=False)
        assert reason_of(lambda: load_network(read_package(folder), CPU)) == "model.no_manifest"

    def test_a_weights_file_outside_the_package_is_not_read(self, tmp_path):
        write_bundle(tmp_path / "a")
        folder = write_bundle(tmp_path / "b", metadata={"osler": {"weights_file": "../a/models/model.pt"}})
        assert reason_of(lambda: read_package(folder)) == "model.no_weights"


LAMBDA = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}
UNSAFE = {
    "an imported function": ({"_target_": "os.system", "command": "true"}, "os.system"),
    "a function by way of a module of torch": (
        {"_target_": "torch.nn.modules.module.warnings.sys.exit"},
        "no transform",
    ),
    "a function of monai": ({"_target_": "monai.bundle.scripts.run"}, "is not of"),
    "a dataset": ({"_target_": "monai.apps.MedNISTDataset", "root_dir": "/tmp"}, "is not of"),
    "a function of an allowed module": ({"_target_": "monai.transforms.utils.allow_missing_keys_mode"}, "no transform"),
    "a lambda": (LAMBDA, "takes a function"),
    "code in an argument": (
        {"_target_": "ScaleIntensityd", "keys": "image", "minv": "$__import__('os').getpid()"},
        "would run code",
    ),
    "an attribute that leads out": (
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.os"},
        "is no data type",
    ),
    "a debugger": ({"_target_": "Identityd", "keys": "image", "_mode_": "debug"}, "debugger"),
    "a hidden dependency": ({"_target_": "Identityd", "keys": "image", "_requires_": "@run"}, "other parts"),
    "another file": ({"_target_": "Identityd", "keys": "%/etc/hostname"}, "reads another file"),
    "a section that runs code": ({"_target_": "Identityd", "keys": "@run"}, "run"),
    "what is not there": ({"_target_": "Identityd", "keys": "@nothing"}, "not there"),
    "fetched weights": ({"_target_": "monai.networks.nets.ResNet", "pretrained": True}, "fetches weights"),
}


@pytest.mark.parametrize("part", UNSAFE)
def test_unsafe_configurations_are_refused_with_their_place(part):
    step, words = UNSAFE[part]
    inference = copy.deepcopy(INFERENCE)
    inference["preprocessing"]["transforms"].append(step)
    with pytest.raises(RefusedError) as caught:
        policy.build(inference, "preprocessing", known_values(CPU))
    assert caught.value.reason == "model.unsafe_config"
    assert words in caught.value.message
    assert "::" in caught.value.message or "run" in caught.value.message


def test_sections_that_the_host_does_not_use_are_never_evaluated(tmp_path):
    mark = tmp_path / "was_run"
    folder = write_bundle(
        tmp_path / "bundle",
        inference={"run": [f"$__import__('os').mkdir({str(mark)!r})"], "imports": ["$import this"]},
    )
    builds(read_package(folder))
    assert not mark.exists()


def test_reading_and_writing_files_is_the_hosts():
    built = policy.build(INFERENCE, "postprocessing", known_values(CPU))
    assert [type(step).__name__ for step in built.transforms] == ["Activationsd", "Invertd", "AsDiscreted"]


class TestExpressions:
    def value(self, text, **others):
        built = policy.build({"part": {"value": text}, **others}, "part", known_values(CPU))
        return built["value"]

    @given(
        st.recursive(
            st.integers(0, 99).map(str),
            lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({' '.join(t)})"),
            max_leaves=6,
        )
    )
    def test_arithmetic_is_pythons(self, text):
        assert self.value(f"${text}") == eval(text)

    def test_references_to_plain_values_and_data_types(self):
        assert self.value("$@roi[0] // 2", roi=[96, 64]) == 48
        assert self.value("$torch.float16") is torch.float16

    @given(st.text("abcdefghijklmnopqrstuvwxyz_.()[]'\"@+*0123456789 =:,{}", max_size=40))
    def test_any_text_is_a_plain_value_or_refused(self, text):
        found = caught(self.value, f"${text}")
        if isinstance(found, Exception):
            assert isinstance(found, RefusedError)
            assert found.reason == "model.unsafe_config"
        else:
            assert isinstance(found, (int, float, str, list, bool, torch.dtype, torch.device, type(None)))


class TestArchives:
    def zipped(self, path, entries):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return path

    @pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:\\out.txt", "..\\out.txt"])
    def test_paths_that_leave_the_folder(self, tmp_path, name):
        archive = self.zipped(tmp_path / "a.zip", [(name, "x")])
        into = tmp_path / "into"
        into.mkdir()
        assert reason_of(lambda: unpack(archive, into)) == "model.unsafe_archive"
        assert not (tmp_path / "out.txt").exists()
        assert not list(into.iterdir())

    def test_links(self, tmp_path):
        link = zipfile.ZipInfo("bundle/models/model.pt")
        link.external_attr = 0o120777 << 16
        archive = self.zipped(tmp_path / "a.zip", [(link, "/etc/hostname")])
        (tmp_path / "into").mkdir()
        assert reason_of(lambda: unpack(archive, tmp_path / "into")) == "model.unsafe_archive"

    def test_a_bomb(self, tmp_path):
        archive = self.zipped(tmp_path / "a.zip", [("bundle/big", b"\0" * 30_000_000)])
        (tmp_path / "into").mkdir()
        assert reason_of(lambda: unpack(archive, tmp_path / "into")) == "model.unsafe_archive"

    def test_no_zip_and_no_bundle(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"not a zip")
        into = tmp_path / "into"
        into.mkdir()
        assert reason_of(lambda: unpack(tmp_path / "a.zip", into)) == "model.unreadable_archive"
        archive = self.zipped(tmp_path / "b.zip", [("readme.txt", "x")])
        assert reason_of(lambda: unpack(archive, into)) == "model.not_a_bundle"


class TestMetadata:
    def test_every_missing_field_is_named(self, tmp_path):
        folder = write_bundle(tmp_path / "bundle")
        (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1", "task": "x"}))
        with pytest.raises(RefusedError) as caught:
            read_package(folder)
        assert caught.value.reason == "model.invalid_metadata"
        for field in ("authors", "description", "network_data_format", "monai_version"):
            assert field in caught.value.message

    @pytest.mark.parametrize("content", ["{", "[]", "\xff"])
    def test_what_is_no_json_object(self, tmp_path, content):
        folder = write_bundle(tmp_path / "bundle")
        (folder / "configs" / "inference.json").write_text(content, encoding="latin-1")
        assert reason_of(lambda: read_package(folder)) == "model.unreadable_config"

    def test_a_licence_file_serves_where_metadata_states_none(self, tmp_path):
        folder = write_bundle(tmp_path / "bundle", metadata={k: v for k, v in METADATA.items() if k != "license"})
        content = {k: v for k, v in METADATA.items() if k != "license"}
        (folder / "configs" / "metadata.json").write_text(json.dumps(content))
        assert read_package(folder).licence == "not stated"
        (folder / "LICENSE").write_text("Apache License 2.0\n...")
        assert read_package(folder).licence == "Apache License 2.0"
