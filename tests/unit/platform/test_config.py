"""Settings: where they come from, what is refused, and that their documentation is current."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from services.platform import settings_sources
from services.platform.config import ROOMS, Settings, create_once
from services.platform.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("OSLER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSLER_HOME", str(tmp_path / "home"))


def test_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dicom: {ae_title: FROMFILE, port: 4242}\ngrpc: {ports: {ingest: 1}}\n")
    monkeypatch.setenv("OSLER_DICOM__AE_TITLE", "FROMENV")
    monkeypatch.setenv("OSLER_GRPC__PORTS__IMAGING", "2")
    settings = Settings.load(file)
    assert settings.dicom.ae_title == "FROMENV"
    assert settings.dicom.port == 4242
    assert (settings.grpc.ports.ingest, settings.grpc.ports.imaging, settings.grpc.ports.fusion) == (1, 2, 50054)


def test_the_file_is_the_named_one_else_the_working_folders_else_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "osler.yaml").write_text("hl7: {port: 1}\n")
    assert Settings.load().hl7.port == 1
    (tmp_path / "osler.yaml").write_text("hl7: {port: 2}\n")
    assert Settings.load().hl7.port == 2
    named = tmp_path / "named.yaml"
    named.write_text("hl7: {port: 3}\n")
    monkeypatch.setenv("OSLER_CONFIG", str(named))
    assert Settings.load().hl7.port == 3
    assert Settings.load(hl7={"port": 4}).hl7.port == 4


def test_the_constructor_reads_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSLER_HL7__PORT", "9")
    assert Settings(home=tmp_path).hl7.port == 2575


def test_places_follow_from_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.bus.path == tmp_path / "events.db"
    assert settings.database.url == f"sqlite:///{tmp_path}/osler.db"
    assert settings.blobs.url == f"file://{tmp_path}/blobs"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bus: {backnd: kafka}", "bus.backnd: unknown key; did you mean bus.backend"),
        ("dicomm: {port: 1}", "dicomm: unknown key; did you mean dicom"),
        ("bus: {backend: rabbit}", "bus.backend: Input should be 'sqlite' or 'kafka'"),
        ("dicom: {port: 70000}", "dicom.port"),
        ("auth: {mode: oidc}", "auth: auth.mode oidc needs auth.issuer"),
        ("archive: {mode: dicomweb}", "archive.mode dicomweb needs archive.url"),
        ("hl7: {port: 1}\nhl7: {port: 2}", "key 'hl7' is given twice, line 2"),
        ("hl7: [1", "not valid YAML"),
        ("- hl7", "must hold keys and values"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load(file)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("OSLER_BUS_BACKEND", "did you mean OSLER_BUS__BACKEND"),
        ("OSLER_BUS__BACKNED", "did you mean OSLER_BUS__BACKEND"),
        ("OSLER_GRPC__PORTS__INGST", "did you mean OSLER_GRPC__PORTS__INGEST"),
    ],
)
def test_a_misspelt_variable_is_an_error(variable: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "kafka")
    with pytest.raises(ConfigurationError, match=said):
        Settings.load()


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSLER_SHARED_DATA", "/somewhere")
    Settings.load()


def test_a_message_about_a_wrong_value_does_not_repeat_it(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("database: {pool_size: hunter2}\n")
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load(file)
    assert "database.pool_size" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_lists_maps_and_secrets_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    monkeypatch.setenv("OSLER_DICOM__ALLOWED_CALLING_AES", "PACS, CT1")
    monkeypatch.setenv("OSLER_BUS__BOOTSTRAP_SERVERS", '["a:1", "b:2"]')
    monkeypatch.setenv("OSLER_IDENTITY__ISSUERS", '{"urn:oid:1.2": "hospital"}')
    monkeypatch.setenv("OSLER_DATABASE__PASSWORD", f"file:{tmp_path / 'password'}")
    settings = Settings.load()
    assert settings.dicom.allowed_calling_aes == ("PACS", "CT1")
    assert settings.bus.bootstrap_servers == ("a:1", "b:2")
    assert settings.identity.issuers == {"urn:oid:1.2": "hospital"}
    assert settings.database.password.get_secret_value() == "s3cret"
    assert "s3cret" not in settings.model_dump_json() + repr(settings)


def test_an_unreadable_secret_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match="cannot read the secret file /nowhere"):
        Settings.load(database={"password": "file:/nowhere"})


def test_the_identity_key_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "new")
    key = settings.identity_key()
    assert len(key) == 64
    assert key == Settings(home=tmp_path / "new").identity_key()
    assert stat.S_IMODE((tmp_path / "new" / "identity.key").stat().st_mode) == 0o600
    assert Settings(home=tmp_path, identity={"secret": "x" * 32}).identity_key() == b"x" * 32


def test_a_short_or_public_identity_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="32 characters"):
        Settings(home=tmp_path, identity={"secret": "short"}).identity_key()
    settings = Settings(home=tmp_path)
    settings.identity_key()
    (tmp_path / "identity.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        settings.identity_key()


def test_those_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    path, together = tmp_path / "key", threading.Barrier(8)

    def create(_: int) -> bytes:
        together.wait(5)
        return create_once(path, lambda: os.urandom(16))

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(create, range(8)))
    assert len(made) == 1
    assert os.listdir(tmp_path) == ["key"]


def test_addresses_and_ports_by_room(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, grpc={"endpoints": {"fusion": "fusion.osler:443"}})
    assert settings.grpc.address("fusion") == "127.0.0.1:50054"
    assert settings.grpc.endpoint("fusion") == "fusion.osler:443"
    assert settings.grpc.endpoint("twin") == "127.0.0.1:50055"
    assert settings.http.port("board") == 8080
    with pytest.raises(ConfigurationError, match="'board' has no port"):
        settings.grpc.address("board")
    assert len({settings.telemetry.operations_port(room) for room in ROOMS}) == len(ROOMS)


def test_documentation_is_current(repository_root: Path) -> None:
    for name, text in (
        ("docs/settings.md", settings_sources.markdown()),
        ("osler.example.yaml", settings_sources.example()),
    ):
        written = (repository_root / name).read_text()
        option = "markdown" if name.endswith("md") else "example"
        assert written == text, f"run: python -m services.platform.config --{option} > {name}"


def test_the_example_lists_every_key_and_says_the_defaults(tmp_path: Path) -> None:
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in settings_sources.example().splitlines()[1:])
    example = yaml.safe_load(text)
    listed = {key for key, _ in settings_sources.keys(Settings)}
    for key in listed:
        place = example
        for part in key.split("."):
            assert part in place, key
            place = place[part]
    example |= {"home": str(tmp_path)}
    del example["models"]
    assert Settings(**example) == Settings(home=tmp_path)
