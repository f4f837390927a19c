"""The chart renders, and what it renders is what a hardened cluster accepts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.platform.config import ROOMS, Settings
from tests.peers import require_or_skip


def tool(name: str, source: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path.home() / "go/bin"))
    if found is None:
        require_or_skip(f"{name} is missing: go install {source}@latest")
    return str(found)


@pytest.fixture(scope="module")
def rendered(repository_root: Path) -> str:
    command = [tool("helm", "helm.sh/helm/v3/cmd/helm"), "template", "osler", str(repository_root / "charts/osler")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def objects(rendered: str) -> list[dict[str, Any]]:
    return [o for o in yaml.safe_load_all(rendered) if o]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [o for o in objects if o["kind"] == kind]


def test_helm_lint(repository_root: Path) -> None:
    command = [tool("helm", "helm.sh/helm/v3/cmd/helm"), "lint", "--strict", str(repository_root / "charts/osler")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_room_has_its_deployment(objects: list[dict[str, Any]]) -> None:
    names = {d["metadata"]["name"] for d in of_kind(objects, "Deployment")}
    assert names == {f"osler-{room}" for room in ROOMS}


def test_pods_are_restricted(objects: list[dict[str, Any]]) -> None:
    for found in [*of_kind(objects, "Deployment"), *of_kind(objects, "Job")]:
        pod = found["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_operations_port_is_the_one_that_the_probes_ask(objects: list[dict[str, Any]]) -> None:
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        base = int(next(e["value"] for e in container["env"] if e["name"] == "OSLER_TELEMETRY__PROMETHEUS_PORT"))
        telemetry = Settings().telemetry.model_copy(update={"prometheus_port": base})
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert telemetry.operations_port(container["args"][1]) == ports["operations"]


def test_settings_are_ones_that_osler_knows(
    objects: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (config,) = of_kind(objects, "ConfigMap")
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(home=tmp_path)
    assert settings.bus.backend == "kafka"
    assert json.loads(config["data"]["OSLER_GRPC__ENDPOINTS"])["fusion"] == settings.grpc.endpoint("fusion")
